//! Lines over steps.

use super::drawing;
use super::marks::colour;
use super::markup::{Markup, Px};
use std::fmt::Write;

const SIZE: [f64; 2] = [640.0, 260.0];
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 36.0;
/// Points of a line; longer ones are averaged, more than a point a pixel says
/// no more.
const POINTS: usize = 500;
/// Dashes of the second, third, ... line: colour is not the only difference.
const DASHES: [&str; 4] = ["none", "6 3", "2 3", "8 3 2 3"];

/// A line and its name.
pub(super) type Line<'a> = (&'a str, &'a [(f64, f64)]);

/// Draws lines into one frame, with a list of their names and last values
/// below it.
pub(super) fn draw(markup: &mut Markup, id: &str, title: &str, lines: &[Line<'_>]) {
    let shortened: Vec<Vec<(f64, f64)>> = lines.iter().map(|(_, of)| shorten(of)).collect();
    let all = || shortened.iter().flatten().copied();
    let (x_low, x_high) = range(all().map(|(x, _)| x));
    let (y_low, y_high) = range(all().map(|(_, y)| y));
    let ticks = ticks(y_low, y_high);
    let (y_low, y_high) = match (ticks.first(), ticks.last()) {
        (Some(&first), Some(&last)) => (y_low.min(first), y_high.max(last)),
        _ => (y_low, y_high),
    };
    let x = |value: f64| LEFT + (value - x_low) / (x_high - x_low) * (SIZE[0] - LEFT - RIGHT);
    let y = |value: f64| {
        SIZE[1] - BOTTOM - (value - y_low) / (y_high - y_low) * (SIZE[1] - TOP - BOTTOM)
    };

    let described: Vec<String> = lines
        .iter()
        .filter_map(|(name, of)| {
            let (first, last) = (of.first()?, of.last()?);
            Some(format!(
                "{name} goes from {} at step {} to {} at step {}",
                short(first.1),
                first.0,
                short(last.1),
                last.0
            ))
        })
        .collect();
    drawing::begin(markup, id, SIZE, title, described.join("; ") + ".");
    for &tick in &ticks {
        let at = Px(y(tick));
        markup.empty(
            "line",
            &[
                ("class", &"grid"),
                ("x1", &LEFT),
                ("x2", &(SIZE[0] - RIGHT)),
                ("y1", &at),
                ("y2", &at),
            ],
        );
        markup.element(
            "text",
            &[
                ("x", &(LEFT - 8.0)),
                ("y", &Px(y(tick) + 4.0)),
                ("text-anchor", &"end"),
            ],
            short(tick),
        );
    }
    for (value, anchor) in [(x_low, "start"), (x_high, "end")] {
        markup.element(
            "text",
            &[
                ("x", &Px(x(value))),
                ("y", &(SIZE[1] - BOTTOM + 18.0)),
                ("text-anchor", &anchor),
            ],
            short(value),
        );
    }
    markup.element(
        "text",
        &[
            ("x", &((SIZE[0] + LEFT - RIGHT) / 2.0)),
            ("y", &(SIZE[1] - BOTTOM + 18.0)),
            ("text-anchor", &"middle"),
        ],
        "step",
    );
    for (number, points) in shortened.iter().enumerate() {
        let mut path = String::new();
        for (at, &(step, value)) in points.iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{} {}", Px(x(step)), Px(y(value)));
        }
        let dash = DASHES[number % DASHES.len()];
        if points.len() == 1 {
            // A line of one point has no length and would not be seen.
            path = String::new();
            super::marks::outline(0, [x(points[0].0), y(points[0].1)], 3.0, &mut path);
        }
        markup.empty(
            "path",
            &[
                ("d", &path),
                ("fill", &"none"),
                ("stroke", &colour(number)),
                ("stroke-width", &2),
                ("stroke-dasharray", &dash),
                ("stroke-linejoin", &"round"),
            ],
        );
    }
    markup.close();
    names(markup, lines);
}

fn names(markup: &mut Markup, lines: &[Line<'_>]) {
    markup.open("ul", &[("class", &"legend")]);
    for (number, (name, of)) in lines.iter().enumerate() {
        markup.open("li", &[]);
        markup.open(
            "svg",
            &[
                ("viewBox", &"0 0 28 14"),
                ("width", &28),
                ("height", &14),
                ("aria-hidden", &"true"),
            ],
        );
        markup.empty(
            "path",
            &[
                ("d", &"M1 7L27 7"),
                ("stroke", &colour(number)),
                ("stroke-width", &2),
                ("stroke-dasharray", &DASHES[number % DASHES.len()]),
            ],
        );
        markup.close();
        let last = of.last().map_or(f64::NAN, |&(_, value)| value);
        markup.text(format_args!(" {name}, at the end {}", short(last)));
        markup.close();
    }
    markup.close();
}

/// Averages of runs of equal length.
fn shorten(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points
        .iter()
        .copied()
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect();
    let run = finite.len().div_ceil(POINTS).max(1);
    finite
        .chunks(run)
        .map(|chunk| {
            let count = chunk.len() as f64;
            let sum = chunk
                .iter()
                .fold((0.0, 0.0), |(a, b), &(x, y)| (a + x, b + y));
            (sum.0 / count, sum.1 / count)
        })
        .collect()
}

/// Lowest and highest, never equal.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    if high > low {
        return (low, high);
    }
    let margin = (low.abs() * 0.1).max(f64::MIN_POSITIVE * 1e10);
    (low - margin, high + margin)
}

/// Round numbers from below the lowest value to above the highest one.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&step| step >= rough)
        .unwrap_or(rough);
    if !(step > 0.0 && step.is_finite()) {
        return Vec::new();
    }
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    // At most six for any range; a cap in case rounding says otherwise.
    (first..=last).take(12).map(|n| n as f64 * step).collect()
}

/// A value with as many digits as a reader wants.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !value.is_finite() {
        "none".to_owned()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.1e}")
    } else {
        let digits = (2 - size.log10().floor() as i32).clamp(0, 4) as usize;
        let text = format!("{value:.digits$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (12.345, "12.3"),
            (0.5, "0.5"),
            (1e-5, "1.0e-5"),
            (1234.5, "1234"),
            (f64::NAN, "none"),
            (-2.0, "-2"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        for (low, high) in [(0.0, 1.0), (-3.7, 12.0), (0.81, 0.83), (1e-9, 2e-9)] {
            let all = ticks(low, high);
            assert!((3..=7).contains(&all.len()), "{all:?}");
            assert!(all[0] <= low && all[all.len() - 1] >= high * (1.0 - 1e-12));
        }
        assert!(ticks(0.0, f64::INFINITY).is_empty());
    }

    #[test]
    fn long_lines_are_averaged() {
        let line: Vec<(f64, f64)> = (0..2000).map(|i| (f64::from(i), 1.0)).collect();
        let short = shorten(&line);
        assert_eq!(short.len(), 500);
        assert_eq!(short[0], (1.5, 1.0));
        assert!(shorten(&[(1.0, f64::NAN)]).is_empty());
    }
}
