//! `oboro grant`: a folder for one more client, with a certificate that says what it may
//! do with which index.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use oboro_attest::unix_seconds;
use oboro_channel::{Access, Authority, Grant, Role};
use serde::Serialize;

use crate::durable;
use crate::failure::{Failure, Named, Outcome};
use crate::global::Global;
use crate::keys::{AUTHORITY, CLIENT_KEY, Folder, IDENTITY, REVOKED, TRUST};
use crate::output::{self, Report};
use crate::passphrase::KeyPassphrase;
use crate::place::WRITER_KEY;
use crate::register::{Issued, Register};

/// Options of `oboro grant`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Name of the client, for `oboro revoke` and logs
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Keys of the owner: the folder of `oboro keygen` or its owner/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: KeyPassphrase,
    /// Folder to make for the client; the client's name when not given
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// What it may do: reader searches; writer changes indexes, too, and sees their centroids
    #[arg(long, default_value = "reader", value_name = "ACCESS")]
    pub(crate) access: String,
    /// With which index: 32 hexadecimal digits as `oboro inspect` shows them, or any
    #[arg(long, default_value = "any", value_name = "ID")]
    pub(crate) index: String,
    /// How long the certificate is good for, in days
    #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub(crate) days: u32,
}

/// What was granted.
#[derive(Serialize)]
struct Granted {
    name: String,
    access: String,
    index: String,
    serial: String,
    expires: String,
    channel_fingerprint: String,
    path: String,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let grant = grant(&options.access, &options.index)?;
    let owner = Folder::of(&options.keys, Role::Owner)?;
    let owner_key = options.passphrase.owner_key(&owner)?;
    let authority = Authority::read_file(&owner.file(AUTHORITY)?)?;
    let mut register = Register::read(owner.path())?;
    let now = SystemTime::now();
    let validity = Duration::from_secs(u64::from(options.days) * 86_400);
    let identity = authority.issue_client(grant, &options.name, now, validity)?;
    let issued = Issued {
        serial: identity.serial().to_string(),
        name: options.name.clone(),
        role: Role::Client.name().to_owned(),
        access: options.access.clone(),
        index: options.index.clone(),
        expires: unix_seconds(now + validity),
        revoked: None,
    };
    register.add(issued.clone())?;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => PathBuf::from(&options.name),
    };
    refuse_existing(&out)?;
    // In the register before the certificate is anywhere: what is not in it cannot be
    // revoked by name.
    register.write(owner.path())?;
    durable::folder(&out, |out| {
        identity.create_file(&out.join(IDENTITY))?;
        authority.trust().create_file(&out.join(TRUST))?;
        owner_key.client_key().write(out.join(CLIENT_KEY))?;
        if grant.access == Access::Writer {
            owner_key.writer_key().write(out.join(WRITER_KEY))?;
        }
        let revoked = owner.path().join(REVOKED);
        if revoked.is_file() {
            std::fs::copy(&revoked, out.join(REVOKED)).named("copy", revoked.display())?;
        }
        Ok(())
    })?;
    output::print(
        &Granted {
            name: issued.name,
            access: issued.access,
            index: issued.index,
            serial: issued.serial,
            expires: output::utc(issued.expires),
            channel_fingerprint: output::hex(&identity.spki_sha256()),
            path: out.display().to_string(),
        },
        global.json,
    )
}

/// Refuses a folder that is there already.
pub(super) fn refuse_existing(out: &Path) -> Outcome<()> {
    if out.symlink_metadata().is_ok() {
        return Err(Failure::refused(format_args!(
            "{} exists already; choose another folder with --out",
            out.display()
        )));
    }
    Ok(())
}

/// The grant of two words of the command line.
pub(super) fn grant(access: &str, index: &str) -> Outcome<Grant> {
    let access = [Access::Reader, Access::Writer]
        .into_iter()
        .find(|known| known.name() == access)
        .ok_or_else(|| {
            Failure::usage(format_args!(
                "there is no access \"{access}\" for clients; choose reader or writer"
            ))
        })?;
    if index == "any" {
        return Ok(Grant::any(access));
    }
    index_id(index)
        .map(|id| Grant::index(access, id))
        .ok_or_else(|| {
            Failure::usage(format_args!(
                "\"{index}\" names no index; give its 32 hexadecimal digits, which `oboro inspect` shows, or any"
            ))
        })
}

fn index_id(text: &str) -> Option<[u8; 16]> {
    let fit = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    fit.then_some(())?;
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

impl Report for Granted {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {} of {} until {}, serial {}",
            self.name,
            self.access,
            match self.index.as_str() {
                "any" => "every index".to_owned(),
                index => format!("index {index}"),
            },
            self.expires,
            self.serial
        )?;
        writeln!(out, "{} goes to {}, to no server", self.path, self.name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_two_words() {
        let id = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(grant("reader", "any").unwrap(), Grant::any(Access::Reader));
        assert_eq!(
            grant("writer", id).unwrap().index.unwrap(),
            std::array::from_fn(|at| at as u8)
        );
        for (access, index) in [
            ("owner", "any"),
            ("reader", ""),
            ("reader", &id[1..]),
            ("", id),
        ] {
            assert_eq!(grant(access, index).unwrap_err().kind.code(), 2);
        }
    }
}
