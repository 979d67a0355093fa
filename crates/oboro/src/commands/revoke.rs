//! `oboro revoke`: a list of certificates that are no longer believed, signed by the
//! owner's authority.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use oboro_attest::unix_seconds;
use oboro_channel::{Authority, Role, Serial};
use serde::Serialize;

use crate::durable;
use crate::failure::Outcome;
use crate::global::Global;
use crate::keys::{AUTHORITY, Folder, REVOKED};
use crate::output::{self, Report};
use crate::register::Register;

/// Options of `oboro revoke`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Names or serial numbers of certificates; with none, the list is signed anew
    #[arg(value_name = "NAME|SERIAL")]
    pub(crate) who: Vec<String>,
    /// Keys of the owner: the folder of `oboro keygen` or its owner/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// How long the list is good for, in days; with an expired one everybody is refused
    #[arg(long, default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub(crate) days: u32,
}

/// What is revoked.
#[derive(Serialize)]
struct Revoked {
    revoked_now: Vec<Certificate>,
    revoked_in_all: usize,
    next_update: String,
    written: Vec<String>,
}

#[derive(Serialize)]
struct Certificate {
    name: String,
    serial: String,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let owner = Folder::of(&options.keys, Role::Owner)?;
    let authority = Authority::read_file(&owner.file(AUTHORITY)?)?;
    let mut register = Register::read(owner.path())?;
    let now = SystemTime::now();
    let mut marked = Vec::new();
    for who in &options.who {
        marked.extend(register.revoke(who, unix_seconds(now))?);
    }
    let next_update = now + Duration::from_secs(u64::from(options.days) * 86_400);
    let list = list(&authority, &register, now, next_update)?;
    register.write(owner.path())?;
    let mut written = Vec::new();
    // The owner's folder, and those of the other roles where they lie beside it.
    let beside = Role::ALL.map(|role| options.keys.join(role.name()));
    for folder in std::iter::once(owner.path().to_owned()).chain(beside) {
        let path = folder.join(REVOKED);
        if folder.is_dir() && !written.contains(&path) {
            durable::replace(&path, list.as_bytes())?;
            written.push(path);
        }
    }
    output::print(
        &Revoked {
            revoked_now: marked
                .into_iter()
                .map(|one| Certificate {
                    name: one.name,
                    serial: one.serial,
                })
                .collect(),
            revoked_in_all: register.revoked().count(),
            next_update: output::utc(unix_seconds(next_update)),
            written: written
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        },
        global.json,
    )
}

/// The list of what a register calls revoked.
pub(super) fn list(
    authority: &Authority,
    register: &Register,
    now: SystemTime,
    next_update: SystemTime,
) -> Outcome<String> {
    let serials = register
        .revoked()
        .map(|one| Ok(one.serial.parse::<Serial>()?))
        .collect::<Outcome<Vec<_>>>()?;
    // Milliseconds since 1970 grow from list to list, whichever copy of the folder is used.
    let number = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    Ok(authority.revocation_list(&serials, number, now, next_update)?)
}

impl Report for Revoked {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for one in &self.revoked_now {
            writeln!(out, "revoked  {} (serial {})", one.name, one.serial)?;
        }
        for path in &self.written {
            writeln!(out, "written  {path}")?;
        }
        writeln!(
            out,
            "{} revoked in all. Copy {REVOKED} into the key folders of searcher and keeper, wherever they are; running roles take it up by themselves.",
            self.revoked_in_all
        )?;
        writeln!(
            out,
            "The list is good until {}: sign it anew before then with `oboro revoke`, or everybody is refused.",
            self.next_update
        )
    }
}
