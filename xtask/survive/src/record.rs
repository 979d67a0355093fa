//! From the calls of a run to operations on files and folders.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Outcome;
use crate::disk::{Disk, Inode, Node, ROOT};
use crate::parse::Call;

/// A change of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Cut off, or filled up with zeros.
    Resize(u64),
    /// Filled up with zeros where it is shorter.
    Reserve(u64),
}

impl Change {
    pub(crate) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(bytes);
            }
            Self::Resize(length) => content.resize(*length as usize, 0),
            Self::Reserve(length) => {
                if content.len() < *length as usize {
                    content.resize(*length as usize, 0);
                }
            }
        }
    }
}

/// One entry of a folder: from now on this name means that.
pub(crate) type Entry = ((Node, String), Option<Node>);

/// What a call did to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Data(Node, Change),
    /// Entries that change together.
    Names(Vec<Entry>),
    /// Makes what was done to a file's content, or a folder's names, durable.
    Sync(Node),
    SyncAll,
    /// The program said that this step is durable.
    Told(usize),
}

/// One operation, and the call that made it.
#[derive(Clone)]
pub(crate) struct Operation {
    pub(crate) act: Act,
    /// The call's name, and which one of this name of its thread it was.
    pub(crate) call: String,
    pub(crate) ordinal: usize,
    /// For people.
    pub(crate) words: String,
}

/// A run: what was there, and what was done to it.
pub(crate) struct Recording {
    pub(crate) before: Disk,
    pub(crate) operations: Vec<Operation>,
    /// Every inode, those that were made during the run as well; content as it was
    /// before the run, empty for new ones.
    pub(crate) inodes: Vec<Inode>,
}

/// Whatever lies in a folder of this name is kept by hardware that loses nothing.
pub(crate) const HARDWARE: &str = "hardware";

/// A file that is open.
struct Open {
    node: Node,
    offset: u64,
    append: bool,
}

struct Recorder<'a> {
    root: &'a str,
    /// As it is at this point of the run.
    now: Disk,
    made: Vec<Inode>,
    open: Vec<Open>,
    descriptors: BTreeMap<i64, usize>,
    operations: Vec<Operation>,
    counts: BTreeMap<(i64, String), usize>,
    standard_output: String,
}

/// The calls that strace must report, for this to be complete.
pub(crate) const CALLS: &[&str] = &[
    "open",
    "openat",
    "creat",
    "close",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "read",
    "readv",
    "lseek",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "truncate",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "fsync",
    "fdatasync",
    "sync",
    "syncfs",
    "sync_file_range",
    "copy_file_range",
    "sendfile",
    "splice",
    "mmap",
    "chdir",
    "io_uring_setup",
    "openat2",
];

/// Follows the calls of a run in `root`, which held `before`.
pub(crate) fn record(before: Disk, root: &Path, calls: &[Call]) -> Outcome<Recording> {
    let root = root
        .to_str()
        .ok_or_else(|| "the folder's name is no text".to_owned())?;
    let mut recorder = Recorder {
        root,
        now: before.clone(),
        made: before.inodes.clone(),
        open: Vec::new(),
        descriptors: BTreeMap::new(),
        operations: Vec::new(),
        counts: BTreeMap::new(),
        standard_output: String::new(),
    };
    for call in calls {
        let count = recorder
            .counts
            .entry((call.thread, call.name.clone()))
            .or_default();
        *count += 1;
        let ordinal = *count;
        if call.result >= 0 {
            recorder.follow(call, ordinal)?;
        }
    }
    Ok(Recording {
        before,
        operations: recorder.operations,
        inodes: recorder.made,
    })
}

/// A name in a folder below the root, or the root itself.
enum Place {
    Outside,
    Root,
    Name(Node, String),
}

impl Recorder<'_> {
    fn follow(&mut self, call: &Call, ordinal: usize) -> Outcome<()> {
        let act = match call.name.as_str() {
            "open" | "creat" | "openat" => return self.opened(call, ordinal),
            "close" => {
                self.descriptors.remove(&call.number(0)?);
                return Ok(());
            }
            "dup" | "dup2" | "dup3" => return self.duplicated(call),
            "fcntl" => {
                if call.is(1, "F_DUPFD") || call.is(1, "F_DUPFD_CLOEXEC") {
                    self.duplicated(call)?;
                }
                return Ok(());
            }
            "read" | "readv" => {
                if let Some(open) = self.descriptor(call.number(0)?) {
                    open.offset += call.result as u64;
                }
                return Ok(());
            }
            "lseek" => {
                if let Some(open) = self.descriptor(call.number(0)?) {
                    open.offset = call.result as u64;
                }
                return Ok(());
            }
            "write" => self.written(call, call.bytes(1)?.to_vec(), None)?,
            "writev" => self.written(call, call.gathered(1)?, None)?,
            "pwrite64" => {
                let offset = call.number(3)? as u64;
                self.written(call, call.bytes(1)?.to_vec(), Some(offset))?
            }
            "pwritev" => {
                let offset = call.number(3)? as u64;
                self.written(call, call.gathered(1)?, Some(offset))?
            }
            "ftruncate" => {
                let length = call.number(1)? as u64;
                self.data(call.number(0)?, |_| Change::Resize(length))
            }
            "fallocate" => self.reserved(call)?,
            "fsync" | "fdatasync" => self
                .descriptor(call.number(0)?)
                .map(|open| Act::Sync(open.node)),
            "sync" => Some(Act::SyncAll),
            "syncfs" => self.descriptor(call.number(0)?).map(|_| Act::SyncAll),
            "copy_file_range" => self.copied(call, 2, 0)?,
            "sendfile" => self.copied(call, 0, 1)?,
            "mkdir" | "mkdirat" => self.folder_made(call)?,
            "unlink" | "unlinkat" | "rmdir" => self.unlinked(call)?,
            "rename" | "renameat" | "renameat2" => self.renamed(call)?,
            "link" | "linkat" => self.linked(call)?,
            "mmap" => {
                if call.has_flag(3, "MAP_SHARED")
                    && call.has_flag(2, "PROT_WRITE")
                    && self.descriptor(call.number(4)?).is_some()
                {
                    return Err("a file is written through memory, which is not followed".into());
                }
                return Ok(());
            }
            // Asks for writing to begin; promises nothing.
            "sync_file_range" => return Ok(()),
            // With the folder's path absolute this changes nothing.
            "chdir" => return Ok(()),
            other => return self.unless_outside(call, other),
        };
        if let Some(act) = act {
            self.push(act, call, ordinal);
        }
        Ok(())
    }

    /// A call that is not followed may only touch other files.
    fn unless_outside(&mut self, call: &Call, name: &str) -> Outcome<()> {
        let touches = call.arguments.iter().enumerate().any(|(at, _)| {
            call.number(at)
                .is_ok_and(|number| self.descriptor(number).is_some())
                || call
                    .bytes(at)
                    .is_ok_and(|path| path.starts_with(self.root.as_bytes()))
        });
        if touches || name == "io_uring_setup" {
            return Err(format!("{name} is not followed: {call:?}"));
        }
        Ok(())
    }

    fn push(&mut self, act: Act, call: &Call, ordinal: usize) {
        self.apply(&act);
        let words = self.words(&act);
        let immediate = self.hardware(&act);
        self.operations.push(Operation {
            act,
            call: call.name.clone(),
            ordinal,
            words,
        });
        if let Some(node) = immediate {
            self.operations.push(Operation {
                act: Act::Sync(node),
                call: String::new(),
                ordinal: 0,
                words: "hardware keeps it".to_owned(),
            });
        }
    }

    fn apply(&mut self, act: &Act) {
        match act {
            Act::Data(node, change) => {
                if let Some(content) = &mut self.now.inodes[*node].content {
                    change.apply(content);
                }
            }
            Act::Names(entries) => entries.iter().for_each(|(name, node)| {
                match node {
                    Some(node) => self.now.names.insert(name.clone(), *node),
                    None => self.now.names.remove(name),
                };
            }),
            Act::Sync(_) | Act::SyncAll | Act::Told(_) => {}
        }
    }

    /// What is durable at once because hardware keeps it.
    fn hardware(&self, act: &Act) -> Option<Node> {
        let folder = *self.now.names.get(&(ROOT, HARDWARE.to_owned()))?;
        let below = |((parent, _), found): (&(Node, String), &Node), node: Node| {
            *parent == folder && *found == node
        };
        match act {
            Act::Data(node, _) if self.now.names.iter().any(|name| below(name, *node)) => {
                Some(*node)
            }
            Act::Names(entries) if entries.iter().any(|((parent, _), _)| *parent == folder) => {
                Some(folder)
            }
            _ => None,
        }
    }

    fn words(&self, act: &Act) -> String {
        let path = |node: Node| self.path(node);
        match act {
            Act::Data(node, Change::Write { offset, bytes }) => {
                format!("write {} bytes at {offset} of {}", bytes.len(), path(*node))
            }
            Act::Data(node, Change::Resize(length)) => {
                format!("set the length of {} to {length}", path(*node))
            }
            Act::Data(node, Change::Reserve(length)) => {
                format!("reserve {length} bytes for {}", path(*node))
            }
            Act::Names(entries) => entries
                .iter()
                .map(|((folder, name), node)| {
                    let verb = if node.is_some() { "name" } else { "unname" };
                    format!("{verb} {}/{name}", path(*folder))
                })
                .collect::<Vec<_>>()
                .join(" and "),
            Act::Sync(node) => format!("sync {}", path(*node)),
            Act::SyncAll => "sync all".to_owned(),
            Act::Told(step) => format!("say that step {step} is durable"),
        }
    }

    /// A path of what may have several or none.
    fn path(&self, node: Node) -> String {
        if node == ROOT {
            return ".".to_owned();
        }
        let mut names = self.now.names.iter();
        match names.find(|(_, found)| **found == node) {
            Some(((parent, name), _)) => format!("{}/{name}", self.path(*parent)),
            None => format!("(nameless {node})"),
        }
    }

    fn descriptor(&mut self, number: i64) -> Option<&mut Open> {
        let at = *self.descriptors.get(&number)?;
        self.open.get_mut(at)
    }

    fn data(&mut self, number: i64, change: impl FnOnce(&mut Open) -> Change) -> Option<Act> {
        let open = self.descriptor(number)?;
        let change = change(open);
        Some(Act::Data(open.node, change))
    }

    fn duplicated(&mut self, call: &Call) -> Outcome<()> {
        self.descriptors.remove(&call.result);
        if let Some(&at) = self.descriptors.get(&call.number(0)?) {
            self.descriptors.insert(call.result, at);
        }
        Ok(())
    }

    fn written(
        &mut self,
        call: &Call,
        mut bytes: Vec<u8>,
        at: Option<u64>,
    ) -> Outcome<Option<Act>> {
        bytes.truncate(call.result as usize);
        let number = call.number(0)?;
        if number == 1 && !self.descriptors.contains_key(&1) {
            return Ok(self.told(&bytes));
        }
        let length = self
            .descriptor(number)
            .map(|open| open.node)
            .and_then(|node| self.now.inodes[node].content.as_ref().map(Vec::len));
        Ok(self.data(number, |open| {
            let offset = match at {
                Some(at) => at,
                None => {
                    if open.append {
                        open.offset = length.unwrap_or(0) as u64;
                    }
                    let offset = open.offset;
                    open.offset += bytes.len() as u64;
                    offset
                }
            };
            Change::Write { offset, bytes }
        }))
    }

    /// What the program says of itself: lines `durable N`.
    fn told(&mut self, bytes: &[u8]) -> Option<Act> {
        self.standard_output
            .push_str(&String::from_utf8_lossy(bytes));
        let line = self.standard_output.strip_suffix('\n')?;
        let step = line.lines().last().and_then(crate::drive::told);
        self.standard_output.clear();
        step.map(Act::Told)
    }

    fn reserved(&mut self, call: &Call) -> Outcome<Option<Act>> {
        if call.has_flag(1, "FALLOC_FL_KEEP_SIZE") {
            return Ok(None);
        }
        if call.number(1) != Ok(0) && self.descriptor(call.number(0)?).is_some() {
            return Err(format!("fallocate with flags is not followed: {call:?}"));
        }
        let length = (call.number(2)? + call.number(3)?) as u64;
        Ok(self.data(call.number(0)?, |_| Change::Reserve(length)))
    }

    /// Copies within the kernel: what was copied follows from what is known.
    fn copied(&mut self, call: &Call, to: usize, from: usize) -> Outcome<Option<Act>> {
        let (to, from) = (call.number(to)?, call.number(from)?);
        if self.descriptor(to).is_none() {
            return Ok(None);
        }
        let explicit = ["copy_file_range", "sendfile"].contains(&call.name.as_str())
            && call
                .arguments
                .iter()
                .any(|argument| matches!(argument, crate::parse::Argument::Other(text) if text.starts_with('[')));
        let source = self.descriptor(from).map(|open| {
            let offset = open.offset;
            open.offset += call.result as u64;
            (open.node, offset as usize)
        });
        let (Some((node, start)), false) = (source, explicit) else {
            return Err(format!("a copy from elsewhere is not followed: {call:?}"));
        };
        let bytes = self.now.inodes[node]
            .content
            .as_ref()
            .and_then(|content| content.get(start..start + call.result as usize))
            .ok_or_else(|| format!("a copy of what is not there: {call:?}"))?
            .to_vec();
        Ok(self.data(to, |open| {
            let offset = open.offset;
            open.offset += bytes.len() as u64;
            Change::Write { offset, bytes }
        }))
    }

    fn make(&mut self, content: Option<Vec<u8>>, mode: i64) -> Node {
        // The usual mask of a process; the harness does not change its own.
        let inode = Inode {
            content,
            mode: mode as u32 & 0o777 & !0o022,
        };
        self.now.inodes.push(inode.clone());
        self.made.push(inode);
        self.made.len() - 1
    }

    fn opened(&mut self, call: &Call, ordinal: usize) -> Outcome<()> {
        self.descriptors.remove(&call.result);
        let (path, flags): (usize, usize) = match call.name.as_str() {
            "openat" => (1, 2),
            _ => (0, 1),
        };
        let create = call.name == "creat" || call.has_flag(flags, "O_CREAT");
        let truncate = call.name == "creat" || call.has_flag(flags, "O_TRUNC");
        let place = self.place(call, path.checked_sub(1), path)?;
        let (node, fresh) = match &place {
            Place::Outside => return Ok(()),
            Place::Root => (ROOT, false),
            Place::Name(folder, name) => match self.now.names.get(&(*folder, name.clone())) {
                Some(&node) => (node, false),
                None if call.has_flag(flags, "O_TMPFILE") => {
                    (self.make(Some(Vec::new()), call.number(flags + 1)?), false)
                }
                None if create => {
                    let mode = if call.name == "creat" { 1 } else { flags + 1 };
                    let node = self.make(Some(Vec::new()), call.number(mode)?);
                    let act = Act::Names(vec![((*folder, name.clone()), Some(node))]);
                    self.push(act, call, ordinal);
                    (node, true)
                }
                None => return Err(format!("opens what is not there: {call:?}")),
            },
        };
        if truncate
            && !fresh
            && self.now.inodes[node]
                .content
                .as_ref()
                .is_some_and(|c| !c.is_empty())
        {
            self.push(Act::Data(node, Change::Resize(0)), call, ordinal);
        }
        self.open.push(Open {
            node,
            offset: 0,
            append: call.has_flag(flags, "O_APPEND"),
        });
        self.descriptors.insert(call.result, self.open.len() - 1);
        Ok(())
    }

    fn folder_made(&mut self, call: &Call) -> Outcome<Option<Act>> {
        let path = usize::from(call.name == "mkdirat");
        let Place::Name(folder, name) = self.place(call, path.checked_sub(1), path)? else {
            return Ok(None);
        };
        let node = self.make(None, call.number(path + 1)?);
        Ok(Some(Act::Names(vec![((folder, name), Some(node))])))
    }

    fn unlinked(&mut self, call: &Call) -> Outcome<Option<Act>> {
        let path = usize::from(call.name == "unlinkat");
        Ok(match self.place(call, path.checked_sub(1), path)? {
            Place::Name(folder, name) => Some(Act::Names(vec![((folder, name), None)])),
            _ => None,
        })
    }

    fn renamed(&mut self, call: &Call) -> Outcome<Option<Act>> {
        let (from, to) = match call.name.as_str() {
            "rename" => (self.place(call, None, 0)?, self.place(call, None, 1)?),
            _ => (self.place(call, Some(0), 1)?, self.place(call, Some(2), 3)?),
        };
        let (from, to) = match (from, to) {
            (Place::Outside, Place::Outside) => return Ok(None),
            (Place::Name(f, from), Place::Name(t, to)) => ((f, from), (t, to)),
            _ => return Err(format!("a rename across the folder's border: {call:?}")),
        };
        let node = self.now.names.get(&from).copied();
        let other = if call.has_flag(4, "RENAME_EXCHANGE") {
            self.now.names.get(&to).copied()
        } else {
            None
        };
        Ok(Some(Act::Names(vec![(from, other), (to, node)])))
    }

    fn linked(&mut self, call: &Call) -> Outcome<Option<Act>> {
        let (from, to) = match call.name.as_str() {
            "link" => (self.place(call, None, 0)?, self.place(call, None, 1)?),
            _ => (self.place(call, Some(0), 1)?, self.place(call, Some(2), 3)?),
        };
        match (from, to) {
            (Place::Outside, Place::Outside) => Ok(None),
            (Place::Name(f, from), Place::Name(t, to)) => {
                let node = self.now.names.get(&(f, from)).copied();
                Ok(Some(Act::Names(vec![((t, to), node)])))
            }
            _ => Err(format!("a link across the folder's border: {call:?}")),
        }
    }

    /// Where a path leads; `base` is the argument with the folder that it begins at.
    fn place(&mut self, call: &Call, base: Option<usize>, path: usize) -> Outcome<Place> {
        let text = std::str::from_utf8(call.bytes(path)?)
            .map_err(|_| format!("a path that is no text: {call:?}"))?;
        let mut node = ROOT;
        let below = if text.starts_with('/') {
            match text.strip_prefix(self.root) {
                Some(below) if below.is_empty() || below.starts_with('/') => below,
                _ => return Ok(Place::Outside),
            }
        } else {
            let Some(base) = base.and_then(|base| call.number(base).ok()) else {
                return Ok(Place::Outside);
            };
            match self.descriptor(base) {
                Some(open) => node = open.node,
                None => return Ok(Place::Outside),
            }
            text
        };
        let mut parts = below
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .peekable();
        while let Some(part) = parts.next() {
            if part == ".." {
                return Err(format!("a path that leads up is not followed: {call:?}"));
            }
            if parts.peek().is_none() {
                return Ok(Place::Name(node, part.to_owned()));
            }
            node = *self
                .now
                .names
                .get(&(node, part.to_owned()))
                .ok_or_else(|| format!("a folder that is not there: {call:?}"))?;
        }
        if node == ROOT {
            return Ok(Place::Root);
        }
        Err(format!("a path that names nothing: {call:?}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::digest;
    use crate::parse::calls;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    fn empty() -> Disk {
        Disk {
            inodes: vec![Inode {
                content: None,
                mode: 0o755,
            }],
            names: BTreeMap::new(),
        }
    }

    /// Runs the lines, in which `<text>` stands for a string in hexadecimal.
    fn run(lines: &[&str]) -> Outcome<Recording> {
        let mut text = String::new();
        for line in lines {
            let mut rest = *line;
            text.push_str("1 ");
            while let Some((before, after)) = rest.split_once('<') {
                let (string, after) = after.split_once('>').unwrap();
                text.push_str(&format!("{before}\"{}\"", hex(string)));
                rest = after;
            }
            text.push_str(rest);
            text.push('\n');
        }
        record(empty(), Path::new("/r"), &calls(&text)?)
    }

    fn after(recording: &Recording) -> Disk {
        crate::crash::state(recording, recording.operations.len(), &|_| {
            crate::crash::Fate::Done
        })
    }

    #[test]
    fn a_run_is_followed() {
        let recording = run(&[
            "mkdir(</r/d>, 0700) = 0",
            "openat(AT_FDCWD, </r/d>, O_RDONLY|O_DIRECTORY) = 5",
            "openat(5, <x>, O_RDWR|O_CREAT|O_EXCL, 0666) = 3",
            "fallocate(3, 0, 0, 4) = 0",
            "write(3, <abcdef>, 6) = 6",
            "pwrite64(3, <XY>, 2, 1) = 2",
            "lseek(3, 2, SEEK_SET) = 2",
            "fcntl(3, F_DUPFD_CLOEXEC, 3) = 7",
            "write(7, <Z>, 1) = 1",
            "openat(AT_FDCWD, </r/y>, O_WRONLY|O_CREAT|O_APPEND, 0600) = 8",
            "copy_file_range(3, NULL, 8, NULL, 100, 0) = 3",
            "write(8, <!>, 1) = 1",
            "ftruncate(3, 5) = 0",
            "fsync(3) = 0",
            "rename(</r/d/x>, </r/z>) = 0",
            "renameat2(AT_FDCWD, </r/z>, AT_FDCWD, </r/y>, RENAME_EXCHANGE) = 0",
            "fsync(5) = 0",
            "write(1, <durable 1\n>, 10) = 10",
            "unlinkat(5, <gone>, 0) = -1 ENOENT (No such file or directory)",
            "openat(AT_FDCWD, </etc/passwd>, O_RDONLY) = 9",
            "write(9, <elsewhere>, 9) = 9",
        ])
        .unwrap();
        let disk = after(&recording);
        let tree: Vec<(String, Option<Vec<u8>>, u32)> = disk
            .tree()
            .iter()
            .map(|(path, (content, mode))| {
                (
                    path.display().to_string(),
                    content.map(<[u8]>::to_vec),
                    *mode,
                )
            })
            .collect();
        assert_eq!(
            tree,
            [
                ("d".to_owned(), None, 0o700),
                ("y".to_owned(), Some(b"aXZde".to_vec()), 0o644),
                ("z".to_owned(), Some(b"def!".to_vec()), 0o600),
            ]
        );
        assert!(recording.operations.iter().any(|o| o.act == Act::Told(1)));
        assert_ne!(digest(&disk.tree()), digest(&empty().tree()));
        let ordinals: Vec<(&str, usize)> = recording
            .operations
            .iter()
            .map(|o| (o.call.as_str(), o.ordinal))
            .collect();
        assert!(ordinals.contains(&("openat", 2)) && ordinals.contains(&("fsync", 2)));
    }

    #[test]
    fn fail_calls_that_are_not_followed() {
        for line in [
            "symlink(</r/a>, </r/b>) = 0",
            "openat(AT_FDCWD, </r/a>, O_RDONLY) = 3",
            "rename(</r/a>, </elsewhere>) = 0",
            "mkdir(</r/a/../b>, 0777) = 0",
            "io_uring_setup(8, {}) = 3",
        ] {
            assert!(run(&[line]).is_err(), "{line}");
        }
        let open = "openat(AT_FDCWD, </r/a>, O_RDWR|O_CREAT, 0666) = 3";
        for line in [
            "mmap(NULL, 10, PROT_READ|PROT_WRITE, MAP_SHARED, 3, 0) = 0x70",
            "fallocate(3, FALLOC_FL_PUNCH_HOLE, 0, 3) = 0",
            "copy_file_range(4, NULL, 3, NULL, 3, 0) = 3",
            "splice(4, NULL, 3, NULL, 3, 0) = 3",
        ] {
            assert!(run(&[open, line]).is_err(), "{line}");
        }
    }
}
