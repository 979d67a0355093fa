//! How classes are told apart: by colour and by shape, so that a reader who
//! sees no colours tells them apart too.

use super::markup::{Markup, Px};
use std::fmt::Write;

/// Classes that have a mark of their own.
pub(super) const MARKS: usize = COLOURS.len() * 4;

/// Paul Tol's bright scheme and orange: even for most colour-blind readers,
/// and of middle lightness, so that they show on white and on black.
const COLOURS: [&str; 7] = [
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866",
];

/// The colour of a class's mark.
pub(super) fn colour(class: usize) -> &'static str {
    COLOURS[class % COLOURS.len()]
}

/// Appends the outline of a class's mark around a place.
pub(super) fn outline(class: usize, [x, y]: [f64; 2], size: f64, path: &mut String) {
    let at = |dx: f64, dy: f64| format!("{} {}", Px(x + dx * size), Px(y + dy * size));
    // One shape a class as long as there are shapes: neighbours in the list
    // then differ in both.
    let _ = match class % 4 {
        // A circle, of two arcs.
        0 => write!(
            path,
            "M{}A{r} {r} 0 1 0 {}A{r} {r} 0 1 0 {}Z",
            at(-1.0, 0.0),
            at(1.0, 0.0),
            at(-1.0, 0.0),
            r = Px(size)
        ),
        1 => write!(
            path,
            "M{}L{}L{}L{}Z",
            at(-0.9, -0.9),
            at(0.9, -0.9),
            at(0.9, 0.9),
            at(-0.9, 0.9)
        ),
        2 => write!(
            path,
            "M{}L{}L{}Z",
            at(0.0, -1.2),
            at(1.1, 0.9),
            at(-1.1, 0.9)
        ),
        _ => write!(
            path,
            "M{}L{}L{}L{}Z",
            at(0.0, -1.3),
            at(1.1, 0.0),
            at(0.0, 1.3),
            at(-1.1, 0.0)
        ),
    };
}

/// A list of marks with the names of their classes.
pub(super) fn legend(markup: &mut Markup, names: &[(usize, &str)]) {
    markup.open("ul", &[("class", &"legend")]);
    for &(class, name) in names {
        markup.open("li", &[]);
        markup.open(
            "svg",
            &[
                ("viewBox", &"0 0 14 14"),
                ("width", &14),
                ("height", &14),
                ("aria-hidden", &"true"),
            ],
        );
        let mut path = String::new();
        outline(class, [7.0, 7.0], 5.0, &mut path);
        markup.empty("path", &[("d", &path), ("fill", &colour(class))]);
        markup.close();
        markup.text(" ");
        markup.text(name);
        markup.close();
    }
    markup.close();
}
