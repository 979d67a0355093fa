//! The first draft of a policy: what evidence says about itself, in strict rules.
//!
//! Nothing is believed here. The draft lists the values that the evidence names, and the
//! evidence is then appraised under it like any other.

use oboro_attest::dcap::DcapRules;
use oboro_attest::nitro::{AWS_ROOT, Document, NitroRules};
use oboro_attest::snp::{Product, Report, SnpRules};
use oboro_attest::{Platform, Rules, SimulatedRules};
use oboro_server::evidence;

use crate::failure::{Failure, Outcome};

/// Rules and what is to be said about them in the file.
pub(super) struct Draft {
    pub(super) rules: Rules,
    pub(super) comments: Vec<&'static str>,
}

/// Rules that fit a statement and no other program.
pub(super) fn of(
    platform: Platform,
    statement: &[u8],
    endorsements: &[u8],
    now: u64,
) -> Outcome<Draft> {
    match platform {
        Platform::SevSnp => snp(statement),
        Platform::Tdx | Platform::Sgx => dcap(platform, statement, endorsements),
        Platform::Nitro => nitro(statement, now),
        Platform::Simulated => Ok(Draft {
            rules: Rules::Simulated(SimulatedRules {
                measurements: vec![measurement(platform, statement)?],
            }),
            comments: vec!["The simulated platform protects nothing: for trials only."],
        }),
        Platform::Tpm => Err(Failure::usage(
            "which registers of a TPM matter depends on the machine, so nothing drafts them; write `pcrs` and `attestation-keys` by hand, as the guide shows",
        )),
    }
}

fn measurement(platform: Platform, statement: &[u8]) -> Outcome<Vec<u8>> {
    evidence::measurement(platform, statement).ok_or_else(|| {
        Failure::input(format_args!(
            "this is no statement of {platform}; is --platform right?"
        ))
    })
}

fn snp(statement: &[u8]) -> Outcome<Draft> {
    let report = Report::parse(statement)?;
    // Reports of version 2 name no product; Milan and Genoa lay the versions out alike.
    let product = report.product()?.unwrap_or(Product::Milan);
    Ok(Draft {
        rules: Rules::SevSnp(SnpRules {
            measurements: vec![report.measurement.to_vec()],
            minimum_tcb: report.reported(product)?,
            ..SnpRules::default()
        }),
        comments: vec![
            "measurements: launch measurements; compute the expected one from your image and compare.",
            "minimum-tcb: what the platform reports now; raise it when AMD publishes fixes.",
            "A current revocation list of AMD's is demanded: put the file beside this one and name it,",
            "  revocation-lists = [\"milan.crl\"], or say revocation = \"unchecked\" (a remark then says so).",
        ],
    })
}

fn dcap(platform: Platform, statement: &[u8], collateral: &[u8]) -> Outcome<Draft> {
    let rules = DcapRules {
        measurements: vec![measurement(platform, statement)?],
        minimum_tcb_evaluation: evaluation_number(collateral).ok_or_else(|| {
            Failure::input(
                "the collateral names no TCB evaluation number; give the quote's collateral with --endorsements",
            )
        })?,
        tcb_status: vec![oboro_attest::dcap::TcbStatus::UpToDate],
        ..DcapRules::default()
    };
    let (wrap, comments): (fn(DcapRules) -> Rules, _) = match platform {
        Platform::Tdx => (
            Rules::Tdx,
            vec![
                "measurements: MRTD, the initial memory of the domain. What is loaded later is in the",
                "  registers rtmr0 to rtmr3; list them as well where they decide what runs.",
            ],
        ),
        _ => (
            Rules::Sgx,
            vec![
                "measurements: MRENCLAVE; mr-signer, product-id and minimum-svn are the other way.",
            ],
        ),
    };
    let mut comments = comments;
    comments.push(
        "minimum-tcb-evaluation: the number in the collateral seen now; raise it when Intel does.",
    );
    Ok(Draft {
        rules: wrap(rules),
        comments,
    })
}

/// `tcbEvaluationDataNumber` of the TCB information inside collateral.
fn evaluation_number(collateral: &[u8]) -> Option<u32> {
    let collateral: serde_json::Value = serde_json::from_slice(collateral).ok()?;
    let info: serde_json::Value = match &collateral["tcb_info"] {
        serde_json::Value::String(text) => serde_json::from_str(text).ok()?,
        other => other.clone(),
    };
    let info = match &info["tcbInfo"] {
        serde_json::Value::Null => info,
        inner => inner.clone(),
    };
    u32::try_from(info["tcbEvaluationDataNumber"].as_u64()?).ok()
}

fn nitro(statement: &[u8], now: u64) -> Outcome<Draft> {
    let document = Document::verify(statement, AWS_ROOT, now)?;
    let pcr = |number: u8| {
        document
            .pcrs
            .get(&number)
            .copied()
            .ok_or_else(|| Failure::input(format_args!("the document names no PCR {number}")))
    };
    Ok(Draft {
        rules: Rules::Nitro(NitroRules {
            measurements: vec![pcr(0)?.to_vec()],
            pcr1: vec![pcr(1)?],
            pcr2: vec![pcr(2)?],
            ..NitroRules::default()
        }),
        comments: vec![
            "measurements: PCR 0, the enclave image; pcr1 and pcr2: its kernel and its program.",
            "Compare all three with what `nitro-cli build-enclave` printed for your image.",
        ],
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_evaluation_number_is_found() {
        let inside = br#"{"tcb_info":"{\"tcbEvaluationDataNumber\":17}"}"#;
        assert_eq!(evaluation_number(inside), Some(17));
        let wrapped = br#"{"tcb_info":"{\"tcbInfo\":{\"tcbEvaluationDataNumber\":18}}"}"#;
        assert_eq!(evaluation_number(wrapped), Some(18));
        for bad in [
            &b""[..],
            b"{}",
            br#"{"tcb_info":"x"}"#,
            br#"{"tcb_info":3}"#,
        ] {
            assert_eq!(evaluation_number(bad), None);
        }
    }

    #[test]
    fn fail_statements_of_nothing() {
        for platform in Platform::ALL {
            assert!(of(platform, b"nothing", b"", 0).is_err(), "{platform}");
        }
    }
}
