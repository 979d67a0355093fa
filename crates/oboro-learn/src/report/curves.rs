use crate::LearnError;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Most bytes of a file of metrics that are read; a million lines have fewer.
const MAX_BYTES: u64 = 512 << 20;
/// Most series; a line with more fields is none of ours.
const MAX_SERIES: usize = 256;

/// What a training wrote down: numbers by the step that they belong to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Curves {
    /// By name; fields within fields are named `outer.inner`, those of a line
    /// with a part `part.name`.
    pub series: BTreeMap<String, Vec<(f64, f64)>>,
    /// Lines that were passed over: the last one of a training that was killed,
    /// say, or one without a step.
    pub skipped: usize,
}

impl Curves {
    /// Reads a file of JSON lines.
    ///
    /// # Errors
    /// When it cannot be read or holds no line with a step.
    pub fn read(path: &Path) -> Result<Self, LearnError> {
        let failed = |source| LearnError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let mut curves = Self::default();
        for line in BufReader::new(file.take(MAX_BYTES)).split(b'\n') {
            let line = line.map_err(failed)?;
            if !line.trim_ascii().is_empty() {
                curves.take(&line);
            }
        }
        if curves.series.is_empty() {
            return Err(LearnError::Malformed {
                path: path.to_owned(),
                what: "it has no line with a step and a number; name the folder of a run that has begun".to_owned(),
            });
        }
        Ok(curves)
    }

    /// Takes in one line: an object with `step` and numbers.
    ///
    /// A training that resumed writes some steps again; the later line counts.
    fn take(&mut self, line: &[u8]) {
        let object = match serde_json::from_slice(line) {
            Ok(Value::Object(object)) => object,
            _ => {
                self.skipped += 1;
                return;
            }
        };
        let Some(step) = object.get("step").and_then(Value::as_f64) else {
            self.skipped += 1;
            return;
        };
        // Of which images: those set aside for validation, or the test part.
        let part = object.get("part").and_then(Value::as_str);
        for (name, value) in &object {
            match part {
                _ if name == "step" => {}
                Some(part) => self.field(&format!("{part}.{name}"), step, value),
                None => self.field(name, step, value),
            }
        }
    }

    fn field(&mut self, name: &str, step: f64, value: &Value) {
        match value {
            Value::Number(number) => {
                if self.series.len() >= MAX_SERIES && !self.series.contains_key(name) {
                    return;
                }
                let (Some(number), series) = (
                    number.as_f64(),
                    self.series.entry(name.to_owned()).or_default(),
                ) else {
                    return;
                };
                while series.last().is_some_and(|&(last, _)| last >= step) {
                    series.pop();
                }
                series.push((step, number));
            }
            Value::Object(inner) => {
                for (key, value) in inner {
                    self.field(&format!("{name}.{key}"), step, value);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Curves, LearnError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        Curves::read(&path)
    }

    #[test]
    fn a_resumed_training_counts_once() {
        let curves = read(
            b"{\"step\":1,\"loss\":4.0,\"name\":\"x\"}\n\
              {\"step\":2,\"loss\":3.0,\"validation\":{\"R@1\":0.5}}\n\
              {\"step\":3,\"loss\":2.5}\n\n\
              {\"step\":2,\"loss\":3.1,\"validation\":{\"R@1\":0.6}}\n\
              {\"step\":3,\"lo",
        )
        .unwrap();
        assert_eq!(curves.series["loss"], [(1.0, 4.0), (2.0, 3.1)]);
        assert_eq!(curves.series["validation.R@1"], [(2.0, 0.6)]);
        assert_eq!(curves.skipped, 1);
    }

    #[test]
    fn parts_are_series_of_their_own() {
        let curves = read(
            b"{\"step\":1,\"part\":\"validation\",\"epoch\":1,\"recall_at_1\":0.5}\n\
              {\"step\":1,\"part\":\"test\",\"epoch\":1,\"recall_at_1\":0.4}\n",
        )
        .unwrap();
        assert_eq!(curves.series["validation.recall_at_1"], [(1.0, 0.5)]);
        assert_eq!(curves.series["test.recall_at_1"], [(1.0, 0.4)]);
    }

    #[test]
    fn fail_files_without_steps() {
        assert!(read(b"").is_err());
        assert!(read(b"\xff\xfe\n[1,2]\n{\"loss\":1}\n").is_err());
        assert!(Curves::read(Path::new("no/such/file")).is_err());
    }
}
