//! What all drawings have: a size, a title and a description for those who
//! cannot see them.

use super::markup::Markup;
use std::fmt::Display;

/// Begins a drawing; the caller closes it.
pub(super) fn begin(
    markup: &mut Markup,
    id: &str,
    [width, height]: [f64; 2],
    title: impl Display,
    description: impl Display,
) {
    let names = format!("{id}-title {id}-description");
    markup.open(
        "svg",
        &[
            ("id", &id),
            ("viewBox", &format!("0 0 {width} {height}")),
            ("width", &width),
            ("height", &height),
            ("role", &"img"),
            ("aria-labelledby", &names),
        ],
    );
    markup.element("title", &[("id", &format!("{id}-title"))], title);
    markup.element("desc", &[("id", &format!("{id}-description"))], description);
}
