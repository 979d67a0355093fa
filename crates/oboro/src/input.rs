//! Files of vectors and ids as arguments, `-` for standard input.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use clap::Args;
use oboro_index::RecordKey;
use oboro_vectors::{Column, Format, Matrix, RecordOptions, RecordSource, number_of_id};
use tempfile::TempDir;

use crate::failure::{Failure, Named, Outcome};

/// A number of things of which there must be one.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether what a name stands for can be read once only: standard input, or a pipe such as a
/// shell makes of `<(...)`.
pub(crate) fn comes_once(path: &Path) -> bool {
    path == Path::new("-") || is_pipe(path)
}

fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    path.metadata()
        .is_ok_and(|found| found.file_type().is_fifo())
}

/// The formats that `--format` takes.
const FORMATS: [(&str, Format); 7] = [
    ("fvecs", Format::Fvecs),
    ("bvecs", Format::Bvecs),
    ("npy", Format::Npy),
    ("fbin", Format::Fbin),
    ("u8bin", Format::U8bin),
    ("parquet", Format::Parquet),
    ("arrow", Format::Arrow),
];

/// What a file of records holds beside vectors.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RecordArgs {
    /// Format of the vectors where the name does not say it: fvecs, bvecs, npy, fbin, u8bin,
    /// parquet or arrow
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Ids of the vectors, one a line (whole numbers, or text), or .npy or .ivecs; instead of a
    /// column
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// Take ids as text even where all of them are numbers
    #[arg(long)]
    pub(crate) text_ids: bool,
    /// Column of vectors of a Parquet or Arrow file; the one with lists of numbers when not given
    #[arg(long, value_name = "NAME")]
    pub(crate) vectors_column: Option<String>,
    /// Column of ids; `id` if there is one, row numbers otherwise; "" for none
    #[arg(long, value_name = "NAME")]
    pub(crate) ids_column: Option<String>,
    /// Column of tags; `tags` if there is one; "" for none
    #[arg(long, value_name = "NAME")]
    pub(crate) tags_column: Option<String>,
    /// Column of payloads; `payload` if there is one; "" for none
    #[arg(long, value_name = "NAME")]
    pub(crate) payload_column: Option<String>,
}

impl RecordArgs {
    /// How to read records, of `dimension` where that is known.
    fn options(&self, dimension: Option<usize>) -> RecordOptions {
        let column = |name: &Option<String>| match name.as_deref() {
            None => Column::Auto,
            Some("") => Column::Unused,
            Some(name) => Column::Named(name.to_owned()),
        };
        RecordOptions {
            dimension,
            id_file: self.ids.clone(),
            text_ids: self.text_ids,
            vectors: column(&self.vectors_column),
            ids: column(&self.ids_column),
            tags: column(&self.tags_column),
            payloads: column(&self.payload_column),
            ..RecordOptions::default()
        }
    }
}

/// A file of vectors; standard input and pipes are copied to a private temporary file,
/// since an index is built in two passes.
pub(crate) struct Input {
    path: PathBuf,
    shown: String,
    format: Option<Format>,
    _copy: Option<Copied>,
}

/// A copy of standard input.
enum Copied {
    /// A file without a name: nothing is left of it however this process ends.
    Unnamed { _file: File },
    /// Where the system opens no file by its number: removed when this is dropped.
    Named { _folder: TempDir },
}

impl Copied {
    /// Copies standard input or a pipe; where the copy can be opened.
    fn of_what_comes_once(path: &Path) -> Outcome<(Self, PathBuf)> {
        if path == Path::new("-") {
            return Self::of(&mut std::io::stdin().lock())
                .named("copy", "standard input to a temporary file");
        }
        File::open(path)
            .and_then(|mut pipe| Self::of(&mut pipe))
            .named(
                "copy",
                format_args!("{} to a temporary file", path.display()),
            )
    }

    /// Copies `input`; where it can be opened.
    fn of(input: &mut dyn Read) -> std::io::Result<(Self, PathBuf)> {
        let mut file = tempfile::tempfile()?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        // Each opening has a position of its own there, unlike under /dev/fd elsewhere.
        if path.exists() {
            std::io::copy(input, &mut file)?;
            return Ok((Self::Unnamed { _file: file }, path));
        }
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("vectors");
        std::io::copy(input, &mut File::create_new(&path)?)?;
        Ok((Self::Named { _folder: folder }, path))
    }
}

impl Input {
    pub(crate) fn open(path: &Path, format: Option<&str>) -> Outcome<Self> {
        let format = match format {
            None => None,
            Some(name) => Some(format_of(name)?),
        };
        if !comes_once(path) {
            return Ok(Self {
                path: path.to_owned(),
                shown: path.display().to_string(),
                format,
                _copy: None,
            });
        }
        let (copy, copied) = Copied::of_what_comes_once(path)?;
        Ok(Self {
            path: copied,
            shown: match path == Path::new("-") {
                true => "standard input".to_owned(),
                false => path.display().to_string(),
            },
            format: format.or_else(|| Format::of(path).ok().or(Some(Format::Fvecs))),
            _copy: Some(copy),
        })
    }

    /// The records, with what `arguments` say comes along; `dimension` where it is known.
    pub(crate) fn records(
        &self,
        arguments: &RecordArgs,
        dimension: Option<usize>,
    ) -> Outcome<RecordSource> {
        let mut options = RecordOptions {
            format: self.format,
            ..arguments.options(dimension)
        };
        // The copy stays as long as it is open.
        let mut copy = None;
        if let Some(path) = arguments.ids.as_deref().filter(|path| is_pipe(path)) {
            let (held, copied) = Copied::of_what_comes_once(path)?;
            copy = Some((held, copied.display().to_string(), path));
            options.id_file = Some(copied);
        }
        RecordSource::open(&self.path, &options).map_err(|error| {
            let mut failure = self.failure(error);
            if let Some((_, copied, path)) = &copy {
                let shown = path.display().to_string();
                failure.message = failure.message.replace(copied, &shown);
            }
            failure
        })
    }

    /// All vectors.
    pub(crate) fn read(&self) -> Outcome<Matrix<f32>> {
        let mut all = Vec::new();
        let dimension = self.each(|_, rows| all.extend_from_slice(rows))?;
        Matrix::new(dimension, all).map_err(|error| self.failure(error))
    }

    /// Gives all vectors to `take`, some at a time and with their dimension, which is
    /// returned, too.
    pub(crate) fn each(&self, mut take: impl FnMut(usize, &[f32])) -> Outcome<usize> {
        let options = RecordOptions {
            format: self.format,
            ids: Column::Unused,
            tags: Column::Unused,
            payloads: Column::Unused,
            ..RecordOptions::default()
        };
        let mut read = || {
            let mut source = RecordSource::open(&self.path, &options)?;
            while let Some(records) = source.read(ROWS)? {
                if let Some(refusal) = records.refused.first() {
                    return Err(source.error(refusal));
                }
                take(records.dimension, &records.vectors);
            }
            Ok(source.dimension())
        };
        read().map_err(|error| self.failure(error))
    }

    /// A failure that names the input as the user did.
    pub(crate) fn failure(&self, error: impl std::fmt::Display) -> Failure {
        let text = error.to_string();
        Failure::input(text.replace(&self.path.display().to_string(), &self.shown))
    }
}

/// Rows that are read at once.
const ROWS: usize = 16_384;

fn format_of(name: &str) -> Outcome<Format> {
    let found = FORMATS.iter().find(|(known, _)| *known == name);
    found.map(|(_, format)| *format).ok_or_else(|| {
        let names: Vec<_> = FORMATS.iter().map(|(name, _)| *name).collect();
        Failure::usage(format_args!(
            "the format \"{name}\" is none of {}",
            names.join(", ")
        ))
    })
}

/// Ids that are named one by one: numbers, or text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GivenIds {
    Numbers(Vec<u64>),
    Text(Vec<String>),
}

impl GivenIds {
    /// All numbers, or all text, where `text` says so or none is a number. White space
    /// around them and empty ones do not count, as in a file.
    ///
    /// Some of each are refused: whichever was meant, ids would be missed without a word.
    pub(crate) fn of(ids: Vec<String>, text: bool) -> Outcome<Self> {
        let ids: Vec<String> = ids
            .iter()
            .map(|id| id.trim().to_owned())
            .filter(|id| !id.is_empty())
            .collect();
        let numbers: Vec<u64> = ids.iter().filter_map(|id| number_of_id(id)).collect();
        if !text && numbers.len() == ids.len() {
            return Ok(Self::Numbers(numbers));
        }
        if text || numbers.is_empty() {
            return Ok(Self::Text(ids));
        }
        // Which one it is tells its place: ids are nothing for messages.
        let stranger = ids.iter().take_while(|id| number_of_id(id).is_some());
        Err(Failure::input(format_args!(
            "{} of {} ids are numbers, and the one in place {} is none; leave out what is no id, or add --text-ids if the index has text ids",
            numbers.len(),
            ids.len(),
            stranger.count() + 1
        )))
    }

    /// The numbers that stand for them inside an index.
    pub(crate) fn numbers(self, records: &RecordKey) -> Vec<u64> {
        match self {
            Self::Numbers(ids) => ids,
            Self::Text(ids) => ids.iter().map(|id| records.id_of(id)).collect(),
        }
    }

    /// From a file, one a line, or from `.npy` or `.ivecs`.
    pub(crate) fn read(path: &Path, text: bool) -> Outcome<Self> {
        let binary = |extension: &OsStr| extension == "npy" || extension == "ivecs";
        if path.extension().is_some_and(binary) {
            let rows = oboro_vectors::read_ids(path).map_err(Failure::input)?;
            let numbers = rows.data().iter().enumerate().map(|(row, &id)| {
                u64::try_from(id).map_err(|_| {
                    Failure::input(format_args!(
                        "{}: id {row} is negative; ids are whole numbers from 0",
                        path.display()
                    ))
                })
            });
            let numbers: Vec<u64> = numbers.collect::<Outcome<_>>()?;
            if text {
                return Ok(Self::Text(numbers.iter().map(u64::to_string).collect()));
            }
            return Ok(Self::Numbers(numbers));
        }
        let reader: Box<dyn Read> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(path).named("read", path.display())?)
        };
        let mut ids = Vec::new();
        for line in BufReader::new(reader).lines() {
            let line = line.named("read", path.display())?;
            let id = line.trim();
            if !id.is_empty() {
                ids.push(id.to_owned());
            }
        }
        Self::of(ids, text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.txt");
        std::fs::write(&path, "3\n 18446744073709551615 \n\n7\n").unwrap();
        let numbers = GivenIds::read(&path, false).unwrap();
        assert_eq!(numbers, GivenIds::Numbers(vec![3, u64::MAX, 7]));
        let text = |ids: &[&str]| GivenIds::Text(ids.iter().map(|&id| id.to_owned()).collect());
        let forced = GivenIds::read(&path, true).unwrap();
        assert_eq!(forced, text(&["3", "18446744073709551615", "7"]));
        std::fs::write(&path, "3\n-1\n").unwrap();
        let refused = GivenIds::read(&path, false).unwrap_err().message;
        assert!(refused.contains("1 of 2 ids are numbers"), "{refused}");
        assert_eq!(GivenIds::read(&path, true).unwrap(), text(&["3", "-1"]));
    }

    #[test]
    fn ids_of_the_command_line_and_of_npy_are_read_as_those_of_a_file() {
        let of =
            |text: &str| GivenIds::of(text.split(',').map(str::to_owned).collect(), false).unwrap();
        assert_eq!(of("1, 2,"), GivenIds::Numbers(vec![1, 2]));
        assert_eq!(of("b,a "), GivenIds::Text(vec!["b".into(), "a".into()]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.npy");
        let mut file = std::fs::File::create(&path).unwrap();
        let rows = Matrix::new(1, vec![3_i64, 7]).unwrap();
        oboro_vectors::encode_npy_i64(&mut file, &rows).unwrap();
        let numbers = GivenIds::read(&path, false).unwrap();
        assert_eq!(numbers, GivenIds::Numbers(vec![3, 7]));
        let text = GivenIds::read(&path, true).unwrap();
        assert_eq!(text, GivenIds::Text(vec!["3".into(), "7".into()]));
        let path = folder.path().join("ids.ivecs");
        std::fs::write(&path, [1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]).unwrap();
        let numbers = GivenIds::read(&path, false).unwrap();
        assert_eq!(numbers, GivenIds::Numbers(vec![3, 7]));
    }

    #[test]
    fn a_copy_of_standard_input_has_no_name_and_can_be_read_twice() {
        let (copy, path) = Copied::of(&mut &b"what came"[..]).unwrap();
        if let Copied::Unnamed { _file } = &copy {
            use std::os::unix::fs::MetadataExt;
            assert_eq!(_file.metadata().unwrap().nlink(), 0);
        }
        for _ in 0..2 {
            assert_eq!(std::fs::read(&path).unwrap(), b"what came");
        }
    }

    #[test]
    fn vectors_and_ids_may_come_through_pipes() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().unwrap();
        let pipe = |name: &str, bytes: &'static [u8]| {
            let path = folder.path().join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            let writer = path.clone();
            std::thread::spawn(move || std::fs::write(writer, bytes).unwrap());
            path
        };
        let vectors = pipe(
            "vectors",
            &[1, 0, 0, 0, 0, 0, 128, 63, 1, 0, 0, 0, 0, 0, 0, 64],
        );
        assert!(comes_once(&vectors) && comes_once(Path::new("-")) && !comes_once(folder.path()));
        let input = Input::open(&vectors, None).unwrap();
        let arguments = |name, ids| RecordArgs {
            ids: Some(pipe(name, ids)),
            ..RecordArgs::default()
        };
        let mut source = input.records(&arguments("ids", b"7\n9\n"), None).unwrap();
        for _ in 0..2 {
            let records = source.read(10).unwrap().unwrap();
            assert_eq!(records.ids, oboro_vectors::Ids::Numbers(vec![7, 9]));
            assert_eq!(records.vectors, [1.0, 2.0]);
            source.rewind().unwrap();
        }
        let few = arguments("few", b"7\n");
        let message = input.records(&few, None).err().unwrap().message;
        let named = few.ids.unwrap().display().to_string();
        assert!(message.contains(&named), "{message}");
    }

    #[test]
    fn fail_numbers_and_text_among_each_other() {
        let of =
            |ids: &[&str], text| GivenIds::of(ids.iter().map(|&id| id.to_owned()).collect(), text);
        let text = |ids: &[&str]| GivenIds::Text(ids.iter().map(|&id| id.to_owned()).collect());
        assert_eq!(
            of(&["7", "8"], false).unwrap(),
            GivenIds::Numbers(vec![7, 8])
        );
        assert_eq!(of(&["a", "b"], false).unwrap(), text(&["a", "b"]));
        assert_eq!(of(&["7", "b"], true).unwrap(), text(&["7", "b"]));
        // Nothing would be deleted of an index with numbers, or of one with text.
        let refused = of(&["3", "4", "foo"], false).unwrap_err().message;
        assert!(
            refused.contains("place 3 is none") && refused.contains("--text-ids"),
            "{refused}"
        );
    }

    #[test]
    fn a_format_may_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors");
        std::fs::write(&path, [2, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
        let input = Input::open(&path, Some("fvecs")).unwrap();
        assert_eq!(input.read().unwrap().data(), [1.0, 2.0]);
        assert!(Input::open(&path, Some("csv")).is_err());
        let wrong = Input::open(&path, Some("npy")).unwrap();
        let message = wrong.read().err().unwrap().message;
        assert!(
            message.starts_with(&path.display().to_string()),
            "{message}"
        );
    }
}
