//! The demo's words as files, to try the other verbs on: `oboro demo --save`.

use std::io::{self, Write};
use std::path::Path;

use oboro_vectors::Matrix;
use serde::Serialize;

use crate::failure::{Named, Outcome};
use crate::or_failure::OrFailure;
use crate::output::{self, Report};
use crate::words;

/// Words in the first pair of files: the most frequent ones.
const COMMON: usize = 18_000;
/// Words whose vectors are in the file of queries.
const QUERIES: [&str; 3] = ["paris", "guitar", "monday"];

/// What was written.
#[derive(Serialize)]
pub(super) struct Saved {
    files: Vec<Written>,
}

#[derive(Serialize)]
struct Written {
    path: String,
    rows: usize,
}

/// Writes the common and the rare words, vectors and texts, and some queries.
pub(super) fn save(folder: &Path) -> Outcome<Saved> {
    let (all, vectors) = (words::words(), words::vectors());
    std::fs::create_dir(folder).named("make", folder.display())?;
    let mut saved = Saved { files: Vec::new() };
    let (common, rare) = all.split_at(COMMON);
    let (of_common, of_rare) = vectors.split_at(COMMON * words::DIMENSION);
    for (name, words, vectors) in [("common", common, of_common), ("rare", rare, of_rare)] {
        saved.vectors(folder, name, vectors)?;
        let path = folder.join(format!("{name}.txt"));
        let text: String = words.iter().map(|word| format!("{word}\n")).collect();
        std::fs::write(&path, text).named("write", path.display())?;
        saved.note(&path, words.len());
    }
    let queries: Vec<f32> = all
        .iter()
        .zip(vectors.chunks_exact(words::DIMENSION))
        .filter(|(word, _)| QUERIES.contains(word))
        .flat_map(|(_, vector)| vector)
        .copied()
        .collect();
    saved.vectors(folder, "queries", &queries)?;
    Ok(saved)
}

impl Saved {
    fn vectors(&mut self, folder: &Path, name: &str, vectors: &[f32]) -> Outcome<()> {
        let rows = Matrix::new(words::DIMENSION, vectors.to_vec()).or_failure()?;
        let path = folder.join(format!("{name}.fvecs"));
        oboro_vectors::write_fvecs(&path, &rows).or_failure()?;
        self.note(&path, rows.rows());
        Ok(())
    }

    fn note(&mut self, path: &Path, rows: usize) {
        self.files.push(Written {
            path: path.display().to_string(),
            rows,
        });
    }
}

impl Report for Saved {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for file in &self.files {
            writeln!(
                out,
                "{:28} {} rows",
                file.path,
                output::count(file.rows as u64)
            )?;
        }
        Ok(())
    }
}
