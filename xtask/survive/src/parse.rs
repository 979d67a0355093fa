//! The text that strace writes, as calls.

use crate::Outcome;

/// One system call that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The thread that made it.
    pub(crate) thread: i64,
    pub(crate) name: String,
    pub(crate) arguments: Vec<Argument>,
    /// What it returned; an error is negative.
    pub(crate) result: i64,
}

/// An argument as far as strace decodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Argument {
    Number(i64),
    /// A string or a buffer.
    Bytes(Vec<u8>),
    /// Flags, structures, pointers.
    Other(String),
}

impl Call {
    pub(crate) fn number(&self, at: usize) -> Outcome<i64> {
        match self.arguments.get(at) {
            Some(Argument::Number(number)) => Ok(*number),
            _ => Err(self.unclear(at, "a number")),
        }
    }

    pub(crate) fn bytes(&self, at: usize) -> Outcome<&[u8]> {
        match self.arguments.get(at) {
            Some(Argument::Bytes(bytes)) => Ok(bytes),
            _ => Err(self.unclear(at, "a string")),
        }
    }

    /// The argument's words: `O_WRONLY|O_CREAT` has two.
    pub(crate) fn has_flag(&self, at: usize, flag: &str) -> bool {
        match self.arguments.get(at) {
            Some(Argument::Other(text)) => text.split('|').any(|word| word == flag),
            _ => false,
        }
    }

    pub(crate) fn is(&self, at: usize, word: &str) -> bool {
        matches!(self.arguments.get(at), Some(Argument::Other(text)) if text == word)
    }

    /// All buffers of a list of them, one after the other.
    pub(crate) fn gathered(&self, at: usize) -> Outcome<Vec<u8>> {
        match self.arguments.get(at) {
            Some(Argument::Other(text)) => {
                let mut out = Vec::new();
                let mut rest = text.as_str();
                while let Some(start) = rest.find('"') {
                    let (bytes, after) = string(&rest[start..])?;
                    out.extend(bytes);
                    rest = after;
                }
                Ok(out)
            }
            _ => Err(self.unclear(at, "a list of buffers")),
        }
    }

    fn unclear(&self, at: usize, what: &str) -> String {
        format!("argument {at} of {} is not {what}: {self:?}", self.name)
    }
}

/// All calls of a trace that have ended, in the order of their ends.
pub(crate) fn calls(text: &str) -> Outcome<Vec<Call>> {
    let mut begun: Vec<(i64, String)> = Vec::new();
    let mut out = Vec::new();
    for line in text.lines() {
        let (thread, rest) = line
            .trim_start()
            .split_once(' ')
            .ok_or_else(|| format!("no thread in the line {line:?}"))?;
        let thread: i64 = thread
            .parse()
            .map_err(|_| format!("no thread in the line {line:?}"))?;
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(first) = rest.strip_suffix("<unfinished ...>") {
            begun.push((thread, first.to_owned()));
            continue;
        }
        let whole = if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, second) = resumed
                .split_once(" resumed>")
                .ok_or_else(|| format!("cannot read the line {line:?}"))?;
            let at = begun
                .iter()
                .position(|(other, _)| *other == thread)
                .ok_or_else(|| format!("a call ends that has not begun: {line:?}"))?;
            let mut first = begun.swap_remove(at).1;
            first.push_str(second);
            first
        } else {
            rest.to_owned()
        };
        if let Some(call) = call(thread, &whole)? {
            out.push(call);
        }
    }
    Ok(out)
}

/// One call; none where it never ended.
fn call(thread: i64, text: &str) -> Outcome<Option<Call>> {
    let unclear = || format!("cannot read {:?}", &text[..text.len().min(200)]);
    let (name, mut rest) = text.split_once('(').ok_or_else(unclear)?;
    let mut arguments = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix(')') {
            rest = after;
            break;
        }
        let (argument, after) = argument(rest)?;
        arguments.push(argument);
        rest = after;
    }
    let result = rest
        .trim_start()
        .strip_prefix('=')
        .ok_or_else(unclear)?
        .trim_start();
    let word = result.split([' ', '<']).next().unwrap_or_default();
    if word == "?" {
        return Ok(None);
    }
    Ok(Some(Call {
        thread,
        name: name.to_owned(),
        arguments,
        result: number(word).ok_or_else(unclear)?,
    }))
}

fn number(word: &str) -> Option<i64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(|n| n as i64),
        // strace writes modes in octal, with a zero before them.
        None if word.len() > 1 && word.starts_with('0') => i64::from_str_radix(word, 8).ok(),
        None => word.parse().ok(),
    }
}

/// The first argument of `text` and what follows it.
fn argument(text: &str) -> Outcome<(Argument, &str)> {
    if text.starts_with('"') {
        let (bytes, rest) = string(text)?;
        return Ok((Argument::Bytes(bytes), rest));
    }
    let (mut depth, mut quoted) = (0_i32, false);
    let end = text
        .char_indices()
        .find(|&(_, c)| {
            match c {
                '"' => quoted = !quoted,
                '[' | '{' | '(' if !quoted => depth += 1,
                ']' | '}' if !quoted => depth -= 1,
                ')' if !quoted && depth > 0 => depth -= 1,
                ',' | ')' if !quoted && depth == 0 => return true,
                _ => {}
            }
            false
        })
        .map(|(at, _)| at)
        .ok_or_else(|| "a call without an end".to_owned())?;
    let word = text[..end].trim_end();
    let argument = match number(word) {
        Some(number) => Argument::Number(number),
        None => Argument::Other(word.to_owned()),
    };
    Ok((argument, &text[end..]))
}

/// A string in hexadecimal escapes, whole, and what follows it.
fn string(text: &str) -> Outcome<(Vec<u8>, &str)> {
    let body = &text[1..];
    let end = body
        .find('"')
        .ok_or_else(|| "a string without an end".to_owned())?;
    let mut out = Vec::with_capacity(end / 4);
    for escape in body.as_bytes()[..end].chunks(4) {
        let byte = std::str::from_utf8(escape)
            .ok()
            .and_then(|escape| escape.strip_prefix("\\x"))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| "a string that is not in hexadecimal".to_owned())?;
        out.push(byte);
    }
    let rest = &body[end + 1..];
    if rest.starts_with("...") {
        return Err("strace has cut a string short".to_owned());
    }
    Ok((out, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_all_shapes_are_read() {
        let text = r#"12 openat(AT_FDCWD, "\x2f\x61", O_WRONLY|O_CREAT|O_CLOEXEC, 0640 <unfinished ...>
12 <... openat resumed>)            = 3
12 write(3, "\x00\xff", 2 <unfinished ...>
13 read(0x4, 0x7ffd0, 0x40) = 0x20
12 <... write resumed>)             = 2
12 writev(1, [{iov_base="\x61", iov_len=1}, {iov_base="\x62\x2c", iov_len=2}], 2) = 3
12 unlink("\x61") = -1 ENOENT (No such file or directory)
12 fsync(3) = -1 EIO (Input/output error) (INJECTED)
12 mkdir("\x62", 0777) = ?
12 +++ killed by SIGKILL +++
"#;
        let calls = calls(text).unwrap();
        let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(
            names,
            ["openat", "read", "write", "writev", "unlink", "fsync"]
        );
        assert!(calls[0].is(0, "AT_FDCWD") && calls[0].has_flag(2, "O_CREAT"));
        assert_eq!(calls[0].bytes(1).unwrap(), b"/a");
        assert_eq!(calls[0].number(3).unwrap(), 0o640);
        assert_eq!((calls[1].number(0).unwrap(), calls[1].result), (4, 32));
        assert_eq!(calls[2].bytes(1).unwrap(), [0, 255]);
        assert_eq!(calls[3].gathered(1).unwrap(), b"ab,");
        assert_eq!((calls[4].result, calls[5].result), (-1, -1));
        assert!(calls[0].number(1).is_err() && calls[4].number(9).is_err());
    }

    #[test]
    fn fail_what_strace_does_not_write() {
        for text in [
            "write",
            "x write(1) = 1",
            "1 write(1, \"\\x0",
            "1 write(1, \"ab\", 2) = 2",
            "1 write(1, \"\\x61\"..., 2) = 2",
            "1 <... write resumed>) = 1",
            "1 write(1, 2)",
            "1 write(1, 2) = much",
        ] {
            assert!(calls(text).is_err(), "{text}");
        }
    }
}
