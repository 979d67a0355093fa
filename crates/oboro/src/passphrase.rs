//! Passphrases: from a file or a prompt, never from an argument, which other programs on
//! the machine can see.

use std::io::{IsTerminal, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::failure::{Failure, Named, Outcome};

/// Longer passphrases are a mistake.
const MAX_BYTES: u64 = 1_024;

/// Where a passphrase comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The first line of a file.
    File(std::path::PathBuf),
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
    /// The passphrase; a new one is asked for twice.
    pub(crate) fn read(&self, new: bool) -> Outcome<Zeroizing<String>> {
        let passphrase = match self {
            Self::File(path) => from_file(path)?,
            Self::Prompt => from_terminal(new)?,
        };
        if passphrase.is_empty() {
            return Err(Failure::input(
                "the passphrase is empty; leave the option out for none",
            ));
        }
        Ok(passphrase)
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

fn from_terminal(new: bool) -> Outcome<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask for the passphrase; give a file with --passphrase-file",
        ));
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .map(Zeroizing::new)
            .map_err(|error| Failure::failed(format_args!("cannot read a passphrase: {error}")))
    };
    let passphrase = ask("Passphrase: ")?;
    if new && *passphrase != *ask("The same again: ")? {
        return Err(Failure::input("the two passphrases differ; try again"));
    }
    Ok(passphrase)
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
            source(path.to_str().unwrap()).unwrap().read(true)
        };
        assert_eq!(&**read("correct horse\nmore\n").unwrap(), "correct horse");
        assert_eq!(&**read("no end of line").unwrap(), "no end of line");
        for bad in [String::new(), "\n".to_owned(), "x".repeat(2_000)] {
            assert!(read(&bad).is_err());
        }
        assert_eq!(source("prompt").unwrap(), Source::Prompt);
    }
}
