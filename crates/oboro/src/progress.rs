//! Progress on standard error, for a person at a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::global::Global;

/// Remarks and bars on standard error.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bars: bool,
    remarks: bool,
}

impl Progress {
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            bars: !global.quiet && std::io::stderr().is_terminal(),
            remarks: !global.quiet,
        }
    }

    /// A line for people that is no result; programs can ignore it.
    pub(crate) fn remark(&self, text: impl std::fmt::Display) {
        if self.remarks {
            eprintln!("{text}");
        }
    }

    /// A bar of `total` steps, or a spinner where the total is not known.
    pub(crate) fn bar(&self, what: &str, total: Option<u64>) -> ProgressBar {
        if !self.bars {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = if total.is_some() {
            "{msg:24} {bar:40} {human_pos}/{human_len} {eta}"
        } else {
            "{msg:24} {spinner} {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}
