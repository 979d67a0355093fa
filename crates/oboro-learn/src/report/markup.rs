//! HTML and SVG that are well-formed and escaped by construction.

use std::fmt::{Display, Write};

/// Text with elements in it; every text and attribute value is escaped.
///
/// What it writes is HTML and XML at once: no void element but those written
/// by [`Self::empty`], every other one closed.
#[derive(Debug, Default)]
pub(super) struct Markup {
    text: String,
    open: Vec<&'static str>,
}

/// Attributes of an element.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

impl Markup {
    pub(super) fn new(prologue: &str) -> Self {
        Self {
            text: prologue.to_owned(),
            open: Vec::new(),
        }
    }

    /// Begins an element.
    pub(super) fn open(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.tag(name, attributes);
        self.text.push('>');
        self.open.push(name);
    }

    /// Ends the element begun last.
    pub(super) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            let _ = write!(self.text, "</{name}>");
        }
    }

    /// An element with text alone in it.
    pub(super) fn element(
        &mut self,
        name: &'static str,
        attributes: Attributes<'_>,
        text: impl Display,
    ) {
        self.open(name, attributes);
        self.text(text);
        self.close();
    }

    /// An element without contents that HTML closes by itself, or one of SVG.
    pub(super) fn empty(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.tag(name, attributes);
        self.text.push_str("/>");
    }

    /// Text.
    pub(super) fn text(&mut self, text: impl Display) {
        escape(&text.to_string(), &mut self.text);
    }

    /// A new line, for people who read the source.
    pub(super) fn line(&mut self) {
        self.text.push('\n');
    }

    /// Everything, with what is still open closed.
    pub(super) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text.push('\n');
        self.text
    }

    fn tag(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.text.push('<');
        self.text.push_str(name);
        for (key, value) in attributes {
            self.text.push(' ');
            self.text.push_str(key);
            self.text.push_str("=\"");
            escape(&value.to_string(), &mut self.text);
            self.text.push('"');
        }
    }
}

/// Characters that XML cannot hold become U+FFFD.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
}

/// A number in drawings: two digits after the point are a hundredth of a pixel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Px(pub(super) f64);

impl Display for Px {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rounded = (self.0 * 100.0).round() / 100.0;
        // Not "-0".
        write!(f, "{}", if rounded == 0.0 { 0.0 } else { rounded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped() {
        let mut markup = Markup::new("");
        markup.open("p", &[("title", &"\"a\" & 'b'")]);
        markup.text("<script>\u{0}\u{1b}</script>");
        assert_eq!(
            markup.finish(),
            "<p title=\"&quot;a&quot; &amp; &#39;b&#39;\">&lt;script&gt;\u{fffd}\u{fffd}&lt;/script&gt;</p>\n"
        );
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(Px(1.0 / 3.0).to_string(), "0.33");
        assert_eq!(Px(-0.001).to_string(), "0");
    }
}
