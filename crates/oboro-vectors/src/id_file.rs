//! Ids that lie in a file of their own, one for each row of a file of
//! vectors: `.npy`, `.ivecs` with one id a row, or text with one id a line.

use crate::records::MAX_TEXT_ID;
use crate::{Format, IdKind, VectorsError, Why, read_ids};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// One id.
pub(crate) enum Id {
    Number(u64),
    Text(String),
}

pub(crate) struct IdFile {
    path: PathBuf,
    count: u64,
    kind: IdKind,
    ids: Source,
}

enum Source {
    /// Eight bytes an id.
    Numbers {
        ids: Vec<i64>,
        next: usize,
    },
    Lines(Lines),
}

impl IdFile {
    /// Opens the file and counts its ids. Text whose lines are all whole
    /// numbers holds numbers, unless `text` says that ids are text.
    pub(crate) fn open(path: &Path, text: bool) -> Result<Self, VectorsError> {
        if matches!(Format::of(path), Ok(Format::Npy | Format::Ivecs)) {
            let ids = read_ids(path)?;
            if ids.dimension() != 1 {
                return Err(VectorsError::WrongContent {
                    path: path.to_owned(),
                    found: format!("{} ids a row", ids.dimension()),
                    expected: "one id a row",
                });
            }
            return Ok(Self {
                path: path.to_owned(),
                count: ids.rows() as u64,
                kind: kind(!text),
                ids: Source::Numbers {
                    ids: ids.into_data(),
                    next: 0,
                },
            });
        }
        let mut lines = Lines::open(path)?;
        let (mut count, mut numbers) = (0, !text);
        while let Some(line) = lines.next()? {
            count += 1;
            numbers &= number_of_id(line).is_some();
        }
        lines.rewind()?;
        Ok(Self {
            path: path.to_owned(),
            count,
            kind: kind(numbers),
            ids: Source::Lines(lines),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn kind(&self) -> IdKind {
        self.kind
    }

    /// The next id, or what is wrong with it; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Result<Id, Why>>, VectorsError> {
        match &mut self.ids {
            Source::Numbers { ids, next } => {
                let id = ids.get(*next).map(|&id| match u64::try_from(id) {
                    Err(_) => Err(Why::NegativeId),
                    Ok(id) if self.kind == IdKind::Text => Ok(Id::Text(id.to_string())),
                    Ok(id) => Ok(Id::Number(id)),
                });
                *next += 1;
                Ok(id)
            }
            Source::Lines(lines) => {
                let at = lines.number + 1;
                match (lines.next()?, self.kind) {
                    (None, _) => Ok(None),
                    (Some(line), IdKind::Numbers) => match number_of_id(line) {
                        Some(id) => Ok(Some(Ok(Id::Number(id)))),
                        None => Err(VectorsError::IdLine {
                            path: self.path.clone(),
                            line: at,
                            reason: "changed while the file was read; read it again",
                        }),
                    },
                    (Some(line), _) => Ok(Some(Ok(Id::Text(line.to_owned())))),
                }
            }
        }
    }

    pub(crate) fn rewind(&mut self) -> Result<(), VectorsError> {
        match &mut self.ids {
            Source::Numbers { next, .. } => {
                *next = 0;
                Ok(())
            }
            Source::Lines(lines) => lines.rewind(),
        }
    }
}

fn kind(numbers: bool) -> IdKind {
    if numbers {
        IdKind::Numbers
    } else {
        IdKind::Text
    }
}

/// The number that `text` is as an id, by which files of ids are told to hold
/// numbers: a whole number as it is printed. "007" and "+7" are text, since
/// what they have more would be lost.
#[must_use]
pub fn number_of_id(text: &str) -> Option<u64> {
    let plain = text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
    plain.then(|| text.parse().ok()).flatten()
}

/// Lines without the white space around them; blank ones are passed over.
struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, VectorsError> {
        let file = File::open(path).map_err(VectorsError::io(path))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            number: 0,
            line: Vec::new(),
        })
    }

    fn next(&mut self) -> Result<Option<&str>, VectorsError> {
        // White space around an id may make the line a little longer.
        const MOST: usize = MAX_TEXT_ID + 64;
        loop {
            self.line.clear();
            let read = (&mut self.file)
                .take(MOST as u64 + 1)
                .read_until(b'\n', &mut self.line)
                .map_err(VectorsError::io(&self.path))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read > MOST || !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let wrong = |reason| VectorsError::IdLine {
            path: self.path.clone(),
            line: self.number,
            reason,
        };
        let line = self.line.trim_ascii();
        if self.line.len() > MOST || line.len() > MAX_TEXT_ID {
            return Err(wrong("is longer than the 65535 bytes of the longest id"));
        }
        std::str::from_utf8(line)
            .map(Some)
            .map_err(|_| wrong("is no text in UTF-8"))
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.file.rewind().map_err(VectorsError::io(&self.path))?;
        self.number = 0;
        Ok(())
    }
}
