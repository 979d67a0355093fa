//! What the kernel says about a process: its processor time and its memory.

/// This very process, where another is called by its number.
pub(crate) const OWN: &str = "self";

/// A field of a process's status that is an amount of memory, in bytes.
pub(crate) fn status_bytes(process: &str, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1_024)
}

/// The most memory that a process has had, in bytes.
pub(crate) fn peak_bytes(process: &str) -> Option<u64> {
    status_bytes(process, "VmHWM")
}

/// Seconds that a process's threads have run so far, all of them together.
pub(crate) fn processor_seconds(process: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The name of a program stands in brackets and may hold anything, brackets too.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_this_process() {
        assert!(status_bytes(OWN, "VmRSS").unwrap() > 100_000);
        assert!(peak_bytes(OWN).unwrap() > 100_000);
        assert!(processor_seconds(OWN).is_some());
        assert_eq!(status_bytes("0", "VmRSS"), None);
        assert_eq!(status_bytes(OWN, "VmR"), None);
    }

    #[test]
    fn a_name_with_brackets_does_not_mislead() {
        // proc(5): state is field 3, utime field 14, stime field 15.
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 9 9 20 0 1";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(ticks(""), None);
    }
}
