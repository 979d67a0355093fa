//! Figures as reports show them.

use crate::output;

/// `1 vector`, `2,000 vectors`
pub(crate) fn counted(value: u64, name: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {name}{plural}", output::count(value))
}

/// Rounds for JSON so that figures are readable: `digits` significant ones.
pub(crate) fn round(value: f64, digits: i32) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let magnitude = 10f64.powi(digits - 1 - value.abs().log10().floor() as i32);
    (value * magnitude).round() / magnitude
}

/// The median of measurements; zero when there are none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(counted(1, "vector"), "1 vector");
        assert_eq!(counted(0, "vector"), "0 vectors");
        assert_eq!(counted(2_000, "vector"), "2,000 vectors");
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!(round(1_234.567, 3), 1_230.0);
        assert_eq!(round(0.001_234_5, 3), 0.001_23);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![1.0, 2.0]), 1.5);
    }
}
