//! `oboro learn report`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::eval::Compared;
use super::pages::{Training, page};
use crate::durable;
use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::output::{self, Report};
use crate::progress::Progress;

/// Options of `oboro learn report`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    compared: Compared,
    /// Folder of the training, for its curves, settings and proxies
    #[arg(long, value_name = "RUN")]
    run: Option<PathBuf>,
    /// The page
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
    /// The title of the page
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// Where the page is, and everything in it but pictures.
#[derive(Serialize)]
struct Written {
    file: String,
    bytes: usize,
    report: serde_json::Value,
    #[serde(skip)]
    text: String,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    if options.out.exists() && !options.force {
        return Err(Failure::refused(format_args!(
            "{} exists; name another file or pass --force",
            options.out.display()
        )));
    }
    let progress = Progress::new(global);
    let figures = options.compared.figures(&progress)?;
    let images = figures.queries.images(&progress)?;
    let gallery = figures
        .gallery
        .as_ref()
        .map(|gallery| gallery.images(&progress))
        .transpose()?;
    let about = &figures.queries.about;
    let training = options
        .run
        .as_deref()
        .map(|run| Training::read(run, about.step, &progress))
        .transpose()?;
    let title = options.title.clone().unwrap_or_else(|| {
        format!(
            "Embeddings of {} ({})",
            about.data.name(),
            about.part.name()
        )
    });
    let page = page(
        title,
        &figures,
        &images,
        gallery.as_ref(),
        training.as_ref(),
        Vec::new(),
    )?;
    let html = page.html();
    durable::replace(&options.out, html.as_bytes())?;
    let written = Written {
        file: options.out.display().to_string(),
        bytes: html.len(),
        report: page.json(),
        text: page.to_string(),
    };
    output::print(&written, global.json)
}

impl Report for Written {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.text)?;
        writeln!(
            out,
            "{}, {}: open it in a browser",
            self.file,
            output::bytes(self.bytes as u64)
        )
    }
}
