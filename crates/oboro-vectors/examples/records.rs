//! Says what a file of records holds and how fast it is read:
//! `cargo run --release -p oboro-vectors --example records -- FILE [IDS]`

use oboro_vectors::{RecordOptions, RecordSource};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or("a file is needed")?;
    let options = RecordOptions {
        id_file: arguments.next().map(Into::into),
        ..RecordOptions::default()
    };
    let start = Instant::now();
    let mut source = RecordSource::open(path, &options)?;
    println!(
        "{} rows of dimension {}, ids {:?}, tags {}, payloads {}",
        source.rows(),
        source.dimension(),
        source.id_kind(),
        source.has_tags(),
        source.has_payloads()
    );
    let (mut records, mut refused) = (0, 0);
    while let Some(some) = source.read(8_192)? {
        records += some.len();
        refused += some.refused.len();
        for refusal in some.refused.iter().take(3) {
            println!("{}", source.error(refusal));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{records} records and {refused} refused rows in {seconds:.2} s; {} different tags",
        source.tag_names().len()
    );
    // Linux says here how much memory was in use at most.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(peak) = status.lines().find(|line| line.starts_with("VmHWM"))
    {
        println!("{peak}");
    }
    Ok(())
}
