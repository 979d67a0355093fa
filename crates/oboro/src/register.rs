//! `issued.txt` in the owner's folder: every certificate that the owner's authority
//! issued, and which of them are revoked.
//!
//! One line a certificate, fields separated by tabs:
//! `serial  name  role  access  index  expires  revoked`. Without it nobody could tell
//! which certificate is whose; it holds no secret.

use std::path::Path;

use crate::durable;
use crate::failure::{Failure, Named, Outcome};
use crate::output::{seconds_of, utc};

/// The file's name.
pub(crate) const ISSUED: &str = "issued.txt";

const REMARK: &str = "# Certificates that this owner issued: serial, name, role, access, index, expires, revoked.\n# `oboro grant` adds lines, `oboro revoke` fills the last field. Keep it with the owner's keys.\n";

/// Most bytes of the file that are read.
const MAX_BYTES: u64 = 16 << 20;

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    /// The certificate's serial number, hexadecimal.
    pub(crate) serial: String,
    /// Whom it was issued for.
    pub(crate) name: String,
    /// The role it names.
    pub(crate) role: String,
    /// What it allows.
    pub(crate) access: String,
    /// The index it is for, or `any`.
    pub(crate) index: String,
    /// Until when it is good, in seconds since 1970.
    pub(crate) expires: u64,
    /// Since when it is revoked.
    pub(crate) revoked: Option<u64>,
}

/// All certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Register(Vec<Issued>);

impl Register {
    /// Reads the file of an owner's folder.
    pub(crate) fn read(folder: &Path) -> Outcome<Self> {
        let path = folder.join(ISSUED);
        let length = std::fs::metadata(&path)
            .named("read", path.display())?
            .len();
        if length > MAX_BYTES {
            return Err(Failure::input(format_args!(
                "{} has {length} bytes, more than the {MAX_BYTES} that are read",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(&path).named("read", path.display())?;
        Self::parse(&text).map_err(|line| {
            Failure::input(format_args!(
                "line {line} of {} is no certificate; put back a copy of the file",
                path.display()
            ))
        })
    }

    /// The lines of a text, or the number of the first one that is wrong.
    fn parse(text: &str) -> Result<Self, usize> {
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(at, line)| issued(line).ok_or(at + 1))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn to_text(&self) -> String {
        let mut text = REMARK.to_owned();
        for one in &self.0 {
            let revoked = one.revoked.map_or_else(|| "-".to_owned(), utc);
            text.push_str(&format!(
                "{}\t{}\t{}\t{}\t{}\t{}\t{revoked}\n",
                one.serial,
                one.name,
                one.role,
                one.access,
                one.index,
                utc(one.expires)
            ));
        }
        text
    }

    /// Replaces the file of an owner's folder, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Outcome<()> {
        durable::replace(&folder.join(ISSUED), self.to_text().as_bytes())
    }

    /// Adds one; a name is used once among those that are not revoked.
    pub(crate) fn add(&mut self, issued: Issued) -> Outcome<()> {
        check_name(&issued.name)?;
        if self
            .0
            .iter()
            .any(|one| one.name == issued.name && one.revoked.is_none())
        {
            return Err(Failure::refused(format_args!(
                "there is a certificate for \"{}\" already; revoke it first with `oboro revoke {}`, or choose another name",
                issued.name, issued.name
            )));
        }
        self.0.push(issued);
        Ok(())
    }

    /// The newest certificate of a name that is not revoked.
    pub(crate) fn newest(&self, name: &str) -> Outcome<&Issued> {
        self.0
            .iter()
            .rfind(|one| one.name == name && one.revoked.is_none())
            .ok_or_else(|| {
                Failure::input(format_args!(
                    "\"{name}\" has no certificate to renew; {ISSUED} in the owner's folder lists names"
                ))
            })
    }

    /// Adds one beside another of the same name.
    pub(crate) fn renew(&mut self, issued: Issued) {
        self.0.push(issued);
    }

    /// Marks what `who`, a name or a serial number, means; what was marked.
    pub(crate) fn revoke(&mut self, who: &str, now: u64) -> Outcome<Vec<Issued>> {
        let serial = who.replace(':', "").to_lowercase();
        let known = self
            .0
            .iter()
            .any(|one| one.name == who || one.serial == serial);
        let mut marked = Vec::new();
        for one in &mut self.0 {
            if (one.name == who || one.serial == serial) && one.revoked.is_none() {
                one.revoked = Some(now);
                marked.push(one.clone());
            }
        }
        match (known, marked.is_empty()) {
            (true, false) => Ok(marked),
            (true, true) => Err(Failure::refused(format_args!(
                "\"{who}\" is revoked already; `oboro revoke` without a name signs the list anew"
            ))),
            (false, _) => Err(Failure::input(format_args!(
                "no certificate was issued for \"{who}\"; {ISSUED} in the owner's folder lists names and serial numbers"
            ))),
        }
    }

    /// The revoked ones.
    pub(crate) fn revoked(&self) -> impl Iterator<Item = &Issued> {
        self.0.iter().filter(|one| one.revoked.is_some())
    }
}

/// Letters, digits and a few signs that mean nothing to a shell or a table.
fn check_name(name: &str) -> Outcome<()> {
    let fit = (1..=64).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@'));
    if fit {
        return Ok(());
    }
    Err(Failure::usage(format_args!(
        "\"{name}\" is no name for a certificate; use 1 to 64 letters, digits, '-', '_', '.' or '@'"
    )))
}

fn issued(line: &str) -> Option<Issued> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [serial, name, role, access, index, expires, revoked] = fields.try_into().ok()?;
    let hexadecimal = !serial.is_empty() && serial.bytes().all(|b| b.is_ascii_hexdigit());
    let revoked = match revoked {
        "-" => None,
        time => Some(seconds_of(time)?),
    };
    hexadecimal.then_some(())?;
    Some(Issued {
        serial: serial.to_lowercase(),
        name: name.to_owned(),
        role: role.to_owned(),
        access: access.to_owned(),
        index: index.to_owned(),
        expires: seconds_of(expires)?,
        revoked,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn one(serial: &str, name: &str) -> Issued {
        Issued {
            serial: serial.to_owned(),
            name: name.to_owned(),
            role: "client".to_owned(),
            access: "reader".to_owned(),
            index: "any".to_owned(),
            expires: 2_000_000_000,
            revoked: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut register = Register::default();
        register.add(one("0a", "alice")).unwrap();
        register.add(one("0b", "bob")).unwrap();
        register.revoke("alice", 1_900_000_000).unwrap();
        register.write(folder.path()).unwrap();
        assert_eq!(Register::read(folder.path()).unwrap(), register);
        assert_eq!(register.revoked().count(), 1);
        // A revoked name may be used again; one in use may not.
        register.add(one("0c", "alice")).unwrap();
        assert!(register.add(one("0d", "bob")).is_err());
        // A renewed one stands beside the old one; both go by name.
        register.renew(one("0e", "alice"));
        assert_eq!(register.newest("alice").unwrap().serial, "0e");
        assert_eq!(register.revoke("alice", 1).unwrap().len(), 2);
        assert!(register.newest("alice").is_err());
        // By serial number, too.
        assert_eq!(register.revoke("0B", 1).unwrap()[0].name, "bob");
    }

    #[test]
    fn fail_unknown_and_unfit_names() {
        let mut register = Register::default();
        assert_eq!(register.revoke("nobody", 1).unwrap_err().kind.code(), 3);
        for bad in ["", "a b", "a\tb", "a\n", "../x", &"x".repeat(65)] {
            assert!(register.add(one("0a", bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fail_damaged_lines() {
        let good = "0a\talice\tclient\treader\tany\t2033-05-18T03:33:20Z\t-";
        assert!(Register::parse(good).is_ok());
        for bad in [
            "0a",
            &good[..good.len() - 2],
            &good.replace("0a", "xy"),
            &good.replace("2033", "20x3"),
            &format!("{good}\tmore"),
        ] {
            assert_eq!(
                Register::parse(&format!("# remark\n{bad}")),
                Err(2),
                "{bad}"
            );
        }
    }
}
