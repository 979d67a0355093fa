//! Bytes as text between a line that begins and one that ends it, in Base64 of
//! 64 columns, as age and PEM have it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

const COLUMNS: usize = 64;

fn begin(label: &str) -> String {
    format!("-----BEGIN {label}-----")
}

fn end(label: &str) -> String {
    format!("-----END {label}-----")
}

/// Whether a text of this label begins in `text`, after remarks.
pub(super) fn is(label: &str, text: &str) -> bool {
    first_line(text).is_some_and(|line| line == begin(label))
}

/// What is neither blank nor a remark, which begins with `#`.
fn first_line(text: &str) -> Option<&str> {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))
}

pub(super) fn write(label: &str, bytes: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(BASE64.encode(bytes));
    // Reserved in one piece, so that growing leaves no copy behind.
    let mut out = Zeroizing::new(String::with_capacity(
        encoded.len() + encoded.len() / COLUMNS + 2 * label.len() + 64,
    ));
    out.push_str(&begin(label));
    out.push('\n');
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(COLUMNS));
        out.push_str(line);
        out.push('\n');
        rest = next;
    }
    out.push_str(&end(label));
    out.push('\n');
    out
}

/// The bytes, or `None` if anything is not as [`write`] makes it, but for
/// remarks before, white space around, and ends of lines of other systems.
pub(super) fn read(label: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut lines = text
        .trim()
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .skip_while(|line| line.trim().is_empty() || line.starts_with('#'));
    if lines.next()? != begin(label) {
        return None;
    }
    let mut encoded = Zeroizing::new(String::with_capacity(text.len()));
    let mut full = true;
    loop {
        let line = lines.next()?;
        if line == end(label) {
            break;
        }
        if !full || line.is_empty() || line.len() > COLUMNS {
            return None;
        }
        full = line.len() == COLUMNS;
        encoded.push_str(line);
    }
    if lines.next().is_some() {
        return None;
    }
    // The engine refuses stray bits and missing padding: one text for each
    // content.
    BASE64.decode(encoded.as_bytes()).ok().map(Zeroizing::new)
}
