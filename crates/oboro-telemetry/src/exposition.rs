//! The Prometheus text format, version 0.0.4.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{BUCKETS_US, Histogram};

/// A counter's name after the prefix, one sentence on it, and where it is counted.
pub type Counter<'a> = (&'static str, &'static str, &'a AtomicU64);

/// A text in the making. Names begin with the prefix of the role that counts.
///
/// Names, labels and sentences are written as they are: they must be constants of the
/// program, free of quotes, backslashes and line breaks, and so they are by type.
pub struct Exposition {
    prefix: &'static str,
    text: String,
}

impl Exposition {
    /// An empty text; `prefix` is `oboro_` and the name of the role.
    #[must_use]
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            text: String::with_capacity(8_192),
        }
    }

    /// Adds `{prefix}_{name}`, a family of histograms in seconds, told apart by `label`.
    pub fn histograms<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        family: impl IntoIterator<Item = (&'static str, &'a Histogram)>,
    ) {
        let name = self.head(name, help, "histogram");
        for (value, histogram) in family {
            let label = format!("{label}=\"{value}\"");
            let cumulative = histogram.cumulative();
            for (bound, below) in BUCKETS_US.iter().zip(&cumulative) {
                let seconds = *bound as f64 / 1e6;
                self.line(format_args!(
                    "{name}_bucket{{{label},le=\"{seconds}\"}} {below}"
                ));
            }
            // The count is the last bucket, whatever has been recorded since.
            let count = cumulative[BUCKETS_US.len()];
            let sum = histogram.durations().sum_us as f64 / 1e6;
            self.line(format_args!("{name}_bucket{{{label},le=\"+Inf\"}} {count}"));
            self.line(format_args!("{name}_sum{{{label}}} {sum}"));
            self.line(format_args!("{name}_count{{{label}}} {count}"));
        }
    }

    /// Adds `{prefix}_{name}` for each counter.
    pub fn counters<'a>(&mut self, counters: impl IntoIterator<Item = Counter<'a>>) {
        for (name, help, value) in counters {
            let name = self.head(name, help, "counter");
            self.line(format_args!("{name} {}", value.load(Relaxed)));
        }
    }

    /// Adds `{prefix}_{name}` for each figure that may also fall.
    pub fn gauges<'a>(&mut self, gauges: impl IntoIterator<Item = Counter<'a>>) {
        for (name, help, value) in gauges {
            let name = self.head(name, help, "gauge");
            self.line(format_args!("{name} {}", value.load(Relaxed)));
        }
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) -> String {
        let name = format!("{}_{name}", self.prefix);
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        name
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn text_is_as_the_format_demands() {
        let (quick, slow) = (Histogram::default(), Histogram::default());
        quick.record(Duration::from_micros(7));
        slow.record(Duration::from_micros(150));
        slow.record(Duration::from_secs(2));
        let mut text = Exposition::new("oboro_test");
        text.histograms(
            "stage_seconds",
            "Time per stage.",
            "stage",
            [("quick", &quick), ("slow", &slow)],
        );
        text.counters([("seen_total", "Things seen.", &AtomicU64::new(3))]);
        text.gauges([("open", "Things open.", &AtomicU64::new(2))]);
        let text = text.finish();
        assert!(text.starts_with(
            "# HELP oboro_test_stage_seconds Time per stage.\n\
             # TYPE oboro_test_stage_seconds histogram\n\
             oboro_test_stage_seconds_bucket{stage=\"quick\",le=\"0.00001\"} 1\n"
        ));
        assert!(text.contains(
            "_bucket{stage=\"slow\",le=\"0.0001\"} 0\n\
             oboro_test_stage_seconds_bucket{stage=\"slow\",le=\"0.00015\"} 1\n"
        ));
        assert!(text.ends_with(
            "oboro_test_stage_seconds_bucket{stage=\"slow\",le=\"1\"} 1\n\
             oboro_test_stage_seconds_bucket{stage=\"slow\",le=\"+Inf\"} 2\n\
             oboro_test_stage_seconds_sum{stage=\"slow\"} 2.00015\n\
             oboro_test_stage_seconds_count{stage=\"slow\"} 2\n\
             # HELP oboro_test_seen_total Things seen.\n\
             # TYPE oboro_test_seen_total counter\n\
             oboro_test_seen_total 3\n\
             # HELP oboro_test_open Things open.\n\
             # TYPE oboro_test_open gauge\n\
             oboro_test_open 2\n"
        ));
        let buckets = 2 * (BUCKETS_US.len() + 1);
        assert_eq!(text.lines().count(), 2 + buckets + 4 + 3 + 3);
    }
}
