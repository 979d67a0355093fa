use crate::evaluation::Report;
use serde::Serialize;
use std::fmt;

/// Rows of figures under a heading each; the first column names the row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What the table shows, in a sentence.
    pub caption: String,
    /// The headings.
    pub columns: Vec<String>,
    /// The rows, as many cells as there are headings.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Names and values.
    #[must_use]
    pub fn of_facts(caption: &str, facts: &[(&str, String)]) -> Self {
        Self {
            caption: caption.to_owned(),
            columns: vec!["what".to_owned(), "value".to_owned()],
            rows: facts
                .iter()
                .map(|(name, value)| vec![(*name).to_owned(), value.clone()])
                .collect(),
        }
    }

    /// Evaluations beside each other: one row a metric, one column a score.
    /// Metrics that one of them lacks have an empty cell there.
    #[must_use]
    pub fn of_evaluations(caption: &str, reports: &[Report]) -> Self {
        let metrics: Vec<Vec<(String, f64)>> = reports.iter().map(metrics).collect();
        let mut names: Vec<&String> = Vec::new();
        for (name, _) in metrics.iter().flatten() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let cell = |of: &[(String, f64)], name: &str| {
            let found = of.iter().find(|(known, _)| known == name);
            found.map_or_else(String::new, |(_, value)| format!("{value:.4}"))
        };
        Self {
            caption: caption.to_owned(),
            columns: std::iter::once("metric".to_owned())
                .chain(reports.iter().map(|r| r.score.name().to_owned()))
                .collect(),
            rows: names
                .iter()
                .map(|name| {
                    std::iter::once((*name).clone())
                        .chain(metrics.iter().map(|of| cell(of, name)))
                        .collect()
                })
                .collect(),
        }
    }
}

/// The figures of an evaluation by their usual names.
#[must_use]
pub fn metrics(report: &Report) -> Vec<(String, f64)> {
    let at = |name: &str, of: &[crate::evaluation::AtK]| -> Vec<(String, f64)> {
        of.iter()
            .map(|m| (format!("{name}@{}", m.k), m.value))
            .collect()
    };
    let mut all = at("R", &report.recall);
    all.push(("R-precision".to_owned(), report.r_precision));
    all.push(("MAP@R".to_owned(), report.map_at_r));
    all.extend(at("nDCG", &report.ndcg));
    all.extend(report.nmi.map(|nmi| ("NMI".to_owned(), nmi)));
    all
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = || std::iter::once(&self.columns).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                rows()
                    .filter_map(|row| row.get(at))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let figures: Vec<bool> = (0..self.columns.len())
            .map(|at| self.is_of_figures(at))
            .collect();
        if !self.caption.is_empty() {
            writeln!(f, "{}", self.caption)?;
        }
        for row in rows() {
            let mut line = String::new();
            for ((cell, &width), &figures) in row.iter().zip(&widths).zip(&figures) {
                line += &if figures {
                    format!("  {cell:>width$}")
                } else {
                    format!("  {cell:<width$}")
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl Table {
    /// Whether a column holds figures alone, which stand to the right, under
    /// each other. The first column names the rows.
    pub(super) fn is_of_figures(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|row| row.get(column));
        column > 0 && cells.all(|cell| cell.is_empty() || is_figure(cell))
    }
}

/// Whether a cell is a number, perhaps with a unit or a deviation.
fn is_figure(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::evaluation::{Items, Options, Score, evaluate};
    use oboro_vectors::Matrix;

    #[test]
    fn evaluations_stand_beside_each_other() {
        let rows = Matrix::new(2, vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9]).unwrap();
        let items = Items::euclidean(&rows, &[0, 0, 1, 1]).unwrap();
        let options = Options {
            recall_at: vec![1],
            ndcg_at: vec![2],
            nmi_seed: None,
        };
        let reports = [Score::Cosine, Score::Euclidean]
            .map(|score| evaluate(&items, None, &score, &options).unwrap());
        let table = Table::of_evaluations("Unseen classes", &reports);
        assert_eq!(
            table.to_string(),
            "Unseen classes\n\
             \x20 metric       cosine  euclidean\n\
             \x20 R@1          1.0000     1.0000\n\
             \x20 R-precision  1.0000     1.0000\n\
             \x20 MAP@R        1.0000     1.0000\n\
             \x20 nDCG@2       1.0000     1.0000\n"
        );
    }
}
