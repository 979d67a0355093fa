//! The command line: its verbs.

use clap::{Parser, Subcommand};

use crate::commands::{
    attest, backup, bench, build, compact, delete, demo, doctor, eval, generator, grant, insert,
    inspect, keeper, keygen, learn, renew, restore, revoke, rotate, search, searcher, serve,
    verify,
};
use crate::global::Global;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for a reason that none of the others names
  2  the command line or the configuration file is wrong
  3  an input (vectors, key, passphrase, index) is wrong or damaged
  4  refused: attestation, policy, rights, or an output that exists
  5  a server cannot be reached, went away, or lets this certificate not in
  130  ended by Ctrl-C: an insert (what it had committed stays), a demo, a bench or a
       training, and everything that Ctrl-C ends a second time

Environment: OBORO_CONFIG names a configuration file, OBORO_LOG what roles log
(such as info), OBORO_LOG_FORMAT=json how, OBORO_ARCH the instruction set.

Every verb takes --json and then prints one object, {\"error\": {\"kind\",
\"exit_code\", \"message\"}} where it fails; names in it stay. Progress goes to standard
error and only to a terminal. `-` stands for standard input or output.";

/// Private vector search: search vectors on servers that you do not trust.
#[derive(Debug, Parser)]
#[command(name = "oboro", version, after_help = EXIT_CODES, args_override_self = true)]
#[command(arg_required_else_help = true, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Try everything on real word vectors; no network, no set-up
    Demo(demo::Options),
    /// Make the keys of all roles, one folder for each
    Keygen(keygen::Options),
    /// Make an encrypted index from a file of vectors
    Build(Box<build::Options>),
    /// Run searcher and keeper on this machine, as two processes
    Serve(serve::Options),
    /// Run the keeper: holds the decryption key, sees no query and no index
    Keeper(keeper::Options),
    /// Run the searcher: holds the index, has no decryption key
    Searcher(searcher::Options),
    /// Run the generator: builds one index for its owner, seeing all of it, and forgets it
    Generator(generator::Options),
    /// Search with queries that no server can read
    Search(search::Options),
    /// Insert vectors into an index, also while it is searched; --upsert replaces
    Insert(insert::Options),
    /// As insert --upsert: where an id is there already, the new vector takes its place
    Upsert(insert::Options),
    /// Delete vectors by their ids; no search finds them from then on
    Delete(delete::Options),
    /// Merge the segments of an index and take deleted vectors off the disk
    Compact(compact::Options),
    /// Measure recall against a ground truth or exact search
    Eval(eval::Options),
    /// Build, serve and measure a TEXMEX folder (base, query, groundtruth)
    Bench(bench::Options),
    /// Say what an index holds, what it costs and what it protects
    Inspect(inspect::Options),
    /// Check every byte of an index against its checksums and keys
    Verify(verify::Options),
    /// Say what this machine can do
    Doctor(doctor::Options),
    /// Evidence of programs, and policies that judge it
    #[command(subcommand)]
    Attest(attest::Command),
    /// Make a folder for one more client, with a certificate for what it may do
    Grant(grant::Options),
    /// Make a certificate anew before it expires, for the same holder and rights
    Renew(renew::Options),
    /// Revoke certificates, or sign the list of revoked ones anew
    Revoke(revoke::Options),
    /// Change the decryption key of a running index
    Rotate(rotate::Options),
    /// Write the owner's keys to one text file
    Backup(backup::Options),
    /// Make the owner's folder again from such a file
    Restore(restore::Options),
    /// Train embeddings on images, embed, measure, report (built with --features learn)
    #[cfg_attr(feature = "learn", command(subcommand))]
    Learn(learn::Command),
}
