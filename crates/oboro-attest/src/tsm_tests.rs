//! A thread plays the kernel: `inblob` and `outblob` are pipes, so that each side waits
//! for the other as it does in configfs.
#![allow(clippy::unwrap_used)]

use super::*;
use rustix::fs::{CWD, Mode, mkfifoat};
use std::thread::{self, JoinHandle};

struct Kernel {
    request: tempfile::TempDir,
}

impl Kernel {
    fn new(provider: &str) -> Self {
        let request = tempfile::tempdir().unwrap();
        for pipe in ["inblob", "outblob"] {
            mkfifoat(CWD, request.path().join(pipe), Mode::RUSR | Mode::WUSR).unwrap();
        }
        fs::write(request.path().join("provider"), format!("{provider}\n")).unwrap();
        fs::write(request.path().join("generation"), "0\n").unwrap();
        Self { request }
    }

    /// Answers as often as there are `steps`; each is by how much the generation grows.
    fn answer(&self, steps: &'static [u64], auxiliary: Option<&'static [u8]>) -> JoinHandle<()> {
        let folder = self.request.path().to_owned();
        thread::spawn(move || {
            let mut generation = 0;
            for step in steps {
                let data = fs::read(folder.join("inblob")).unwrap();
                generation += step;
                fs::write(folder.join("generation"), format!("{generation}\n")).unwrap();
                if let Some(auxiliary) = auxiliary {
                    fs::write(folder.join("auxblob"), auxiliary).unwrap();
                }
                fs::write(folder.join("outblob"), [b"signed: ", &*data].concat()).unwrap();
            }
        })
    }
}

#[test]
fn a_report_is_over_the_data_given() {
    let kernel = Kernel::new("sev_guest");
    let answering = kernel.answer(&[1], Some(b"certificates"));
    let report = Tsm::snp("/nowhere")
        .report_in(kernel.request.path(), &[7; 64])
        .unwrap();
    answering.join().unwrap();
    assert_eq!(report.report, [&b"signed: "[..], &[7; 64]].concat());
    assert_eq!(report.auxiliary, b"certificates");
}

#[test]
fn a_platform_without_certificates_gives_none() {
    let kernel = Kernel::new("tdx_guest");
    let answering = kernel.answer(&[1], None);
    let report = Tsm::tdx("/nowhere")
        .report_in(kernel.request.path(), &[7; 64])
        .unwrap();
    answering.join().unwrap();
    assert_eq!(report.auxiliary, b"");
}

#[test]
fn a_write_of_another_program_is_noticed_and_the_report_asked_for_again() {
    let kernel = Kernel::new("sev_guest");
    let answering = kernel.answer(&[2, 2, 1], None);
    assert!(
        Tsm::snp("/nowhere")
            .report_in(kernel.request.path(), &[7; 64])
            .is_ok()
    );
    answering.join().unwrap();
}

#[test]
fn fail_another_program_keeps_writing() {
    let kernel = Kernel::new("sev_guest");
    let answering = kernel.answer(&[2; ATTEMPTS], None);
    let error = Tsm::snp("/nowhere")
        .report_in(kernel.request.path(), &[7; 64])
        .unwrap_err();
    answering.join().unwrap();
    assert!(error.to_string().contains("keeps writing"), "{error}");
}

#[test]
fn fail_another_platform() {
    let kernel = Kernel::new("tdx_guest");
    let error = Tsm::snp("/nowhere")
        .report_in(kernel.request.path(), &[7; 64])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "sev-snp gives no evidence here: reports here come from 'tdx_guest', not from 'sev_guest'"
    );
}

#[test]
fn fail_no_such_interface() {
    let empty = tempfile::tempdir().unwrap();
    let error = Tsm::snp(empty.path().join("report")).check().unwrap_err();
    assert!(matches!(
        error,
        AttestError::Platform {
            platform: Platform::SevSnp,
            ..
        }
    ));
    assert!(error.to_string().contains("Linux 6.7"), "{error}");
}

#[test]
fn fail_a_request_without_attributes_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let tsm = Tsm::tdx(folder.path());
    assert!(tsm.check().is_err());
    assert!(tsm.report(&[1; 64]).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn fail_an_endless_attribute() {
    let kernel = Kernel::new("sev_guest");
    fs::write(kernel.request.path().join("provider"), [b'x'; 65]).unwrap();
    assert!(
        Tsm::snp("/nowhere")
            .report_in(kernel.request.path(), &[7; 64])
            .is_err()
    );
}
