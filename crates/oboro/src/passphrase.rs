//! Passphrases: from a file or a prompt, never from an argument or a variable of the
//! environment, which other programs on the machine can see.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use oboro_index::OwnerKey;
use zeroize::Zeroizing;

use crate::failure::{Failure, Named, Outcome};
use crate::keys::{Folder, OWNER_KEY};

/// Longer passphrases are a mistake.
const MAX_BYTES: u64 = 1_024;

/// Where a passphrase comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The first line of a file.
    File(PathBuf),
    /// A question on the terminal.
    Prompt,
}

/// `prompt` or the name of a file, for clap.
pub(crate) fn source(text: &str) -> Result<Source, String> {
    match text {
        "" => Err("give a file, or `prompt`".to_owned()),
        "prompt" => Ok(Source::Prompt),
        path => Ok(Source::File(path.into())),
    }
}

impl Source {
    /// The passphrase of what there is.
    pub(crate) fn read(&self, of: &Path) -> Outcome<Zeroizing<String>> {
        self.take(|| {
            let of = of.display();
            if !std::io::stdin().is_terminal() {
                return Err(Failure::usage(format_args!(
                    "{of} is under a passphrase and there is no terminal to ask for it; give a file that holds it with --passphrase-file"
                )));
            }
            ask(&format!("Passphrase of {of}: "))
        })
    }

    /// A passphrase for what is about to be written; asked for twice.
    pub(crate) fn read_new(&self, of: &Path) -> Outcome<Zeroizing<String>> {
        self.take(|| {
            if !std::io::stdin().is_terminal() {
                return Err(Failure::usage(
                    "there is no terminal to ask for a passphrase; give a file that holds it with --passphrase-file",
                ));
            }
            let passphrase = ask(&format!("New passphrase for {}: ", of.display()))?;
            // An empty one is refused without asking again.
            if !passphrase.is_empty() && *passphrase != *ask("The same again: ")? {
                return Err(Failure::input("the two passphrases differ; try again"));
            }
            Ok(passphrase)
        })
    }

    fn take(
        &self,
        prompt: impl FnOnce() -> Outcome<Zeroizing<String>>,
    ) -> Outcome<Zeroizing<String>> {
        let passphrase = match self {
            Self::File(path) => from_file(path)?,
            Self::Prompt => prompt()?,
        };
        if passphrase.is_empty() {
            return Err(Failure::input(
                "the passphrase is empty; leave the option out for none",
            ));
        }
        Ok(passphrase)
    }
}

/// The passphrase of a new file, if there is to be one: `asked` is `--passphrase`.
pub(crate) fn wanted(
    asked: bool,
    file: Option<&Source>,
    of: &Path,
) -> Outcome<Option<Zeroizing<String>>> {
    let source = file.or(asked.then_some(&Source::Prompt));
    source.map(|source| source.read_new(of)).transpose()
}

/// The option of every verb that opens the owner's key.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct KeyPassphrase {
    /// The passphrase of owner.key, if it has one: the first line of a file, or what is
    /// typed at a `prompt`; asked for on the terminal when not given
    #[arg(long, value_name = "FILE|prompt", value_parser = source)]
    passphrase_file: Option<Source>,
}

impl KeyPassphrase {
    /// The owner's key of a folder, whether or not it is under a passphrase.
    pub(crate) fn owner_key(&self, folder: &Folder) -> Outcome<OwnerKey> {
        let path = folder.file(OWNER_KEY)?;
        if !OwnerKey::is_protected(&path)? {
            // What was given for a key that needs none is likely meant for another.
            return match self.passphrase_file {
                None => folder.owner_key(),
                Some(_) => Err(Failure::input(format_args!(
                    "{} is not under a passphrase, but one was given; leave --passphrase-file out",
                    path.display()
                ))),
            };
        }
        let source = self.passphrase_file.as_ref().unwrap_or(&Source::Prompt);
        Ok(OwnerKey::read_protected(&path, &source.read(&path)?)?)
    }
}

fn from_file(path: &Path) -> Outcome<Zeroizing<String>> {
    let file = std::fs::File::open(path).named("read", path.display())?;
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize + 1));
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .named("read", path.display())?;
    let line = text.lines().next().unwrap_or("");
    if line.len() as u64 > MAX_BYTES - 1 {
        return Err(Failure::input(format_args!(
            "the first line of {} is no passphrase: it has more than {} bytes",
            path.display(),
            MAX_BYTES - 1
        )));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn ask(prompt: &str) -> Outcome<Zeroizing<String>> {
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| Failure::failed(format_args!("cannot read a passphrase: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            source(path.to_str().unwrap()).unwrap().read_new(&path)
        };
        assert_eq!(&**read("correct horse\nmore\n").unwrap(), "correct horse");
        assert_eq!(&**read("no end of line").unwrap(), "no end of line");
        for bad in [String::new(), "\n".to_owned(), "x".repeat(2_000)] {
            assert!(read(&bad).is_err());
        }
        assert_eq!(source("prompt").unwrap(), Source::Prompt);
    }
}
