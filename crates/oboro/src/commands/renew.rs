//! `oboro renew`: a certificate for the same holder and the same rights, for longer.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use oboro_attest::unix_seconds;
use oboro_channel::{Authority, Role};
use serde::Serialize;

use super::grant;
use crate::durable;
use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::keys::{AUTHORITY, Folder, IDENTITY};
use crate::output::{self, Report};
use crate::register::{ISSUED, Issued, Register};

/// Options of `oboro renew`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Whose: owner, searcher, keeper, or the name of a client
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Keys of the owner: the folder of `oboro keygen` or its owner/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// Folder to make for the new identity.pem, which replaces the old one
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How long the certificate is good for, in days
    #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub(crate) days: u32,
}

/// What was renewed.
#[derive(Serialize)]
struct Renewed {
    name: String,
    role: String,
    serial: String,
    replaces: String,
    expires: String,
    path: String,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let owner = Folder::of(&options.keys, Role::Owner)?;
    let authority = Authority::read_file(&owner.file(AUTHORITY)?)?;
    let mut register = Register::read(owner.path())?;
    let old = register.newest(&options.name)?.clone();
    let role = Role::from_name(&old.role).ok_or_else(|| {
        Failure::input(format_args!(
            "{ISSUED} gives \"{}\" the role \"{}\", which there is not; put back a copy of the file",
            old.name, old.role
        ))
    })?;
    let now = SystemTime::now();
    let validity = Duration::from_secs(u64::from(options.days) * 86_400);
    let identity = match role {
        Role::Client => {
            let grant = grant::grant(&old.access, &old.index)?;
            authority.issue_client(grant, &old.name, now, validity)?
        }
        role => authority.issue(role, now, validity)?,
    };
    let issued = Issued {
        serial: identity.serial().to_string(),
        expires: unix_seconds(now + validity),
        ..old.clone()
    };
    register.renew(issued.clone());
    grant::refuse_existing(&options.out)?;
    register.write(owner.path())?;
    durable::folder(&options.out, |out| {
        Ok(identity.create_file(&out.join(IDENTITY))?)
    })?;
    let path = options.out.join(IDENTITY);
    output::print(
        &Renewed {
            name: issued.name,
            role: issued.role,
            serial: issued.serial,
            replaces: old.serial,
            expires: output::utc(issued.expires),
            path: path.display().to_string(),
        },
        global.json,
    )
}

impl Report for Renewed {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: serial {} until {}",
            self.name, self.serial, self.expires
        )?;
        writeln!(
            out,
            "Put {} over the old one, and start a role that runs with it again.",
            self.path
        )?;
        writeln!(
            out,
            "The old certificate stays good until it expires; `oboro revoke {}` ends it at once.",
            self.replaces
        )
    }
}
