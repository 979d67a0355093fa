//! Verification of quotes.

use super::crypto::AwsLc;
use super::layout::{self, Technology};
use super::{DcapRules, INTEL_ROOT, TcbStatus, collateral};
use crate::{AttestError, Identity, Platform, PlatformVerifier, Rules, Verified, hex};
use dcap_qvl::quote::{EnclaveReport, Quote, Report, TDReport10};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, Policy as _, QuoteClaims, QuotePolicy};
use std::time::Duration;

const SECONDS_A_DAY: u64 = 86_400;

/// Verifies evidence of Intel TDX.
#[derive(Clone, Debug)]
pub struct TdxVerifier {
    root: Vec<u8>,
}

impl Default for TdxVerifier {
    /// Under Intel's root.
    fn default() -> Self {
        Self::with_root(INTEL_ROOT)
    }
}

impl TdxVerifier {
    /// A verifier under another root certificate (DER), for tests.
    ///
    /// # Security
    /// Whoever has the root's key can make any evidence.
    #[must_use]
    pub fn with_root(root: &[u8]) -> Self {
        Self {
            root: root.to_vec(),
        }
    }
}

impl PlatformVerifier for TdxVerifier {
    fn platform(&self) -> Platform {
        Platform::Tdx
    }

    fn verify(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        rules: &Rules,
        now: u64,
    ) -> Result<Verified, AttestError> {
        let Rules::Tdx(rules) = rules else {
            return Err(AttestError::PlatformNotAccepted(Platform::Tdx));
        };
        rules.check(Platform::Tdx)?;
        let claims = verify_quote(
            statement,
            endorsements,
            &self.root,
            Technology::Tdx,
            rules,
            now,
        )?;
        let report = claims.report.as_td10().ok_or(AttestError::Malformed(
            "the quote holds no report of a domain",
        ))?;
        check_domain_values(report, rules)?;
        let mut facts = platform_facts(&claims);
        facts.extend([
            ("tee-tcb-svn", hex::encode(&report.tee_tcb_svn)),
            ("mr-seam", hex::encode(&report.mr_seam)),
            ("attributes", hex::encode(&report.td_attributes)),
            ("xfam", hex::encode(&report.xfam)),
            ("mr-config-id", hex::encode(&report.mr_config_id)),
            ("mr-owner", hex::encode(&report.mr_owner)),
            ("mr-owner-config", hex::encode(&report.mr_owner_config)),
            ("rtmr0", hex::encode(&report.rt_mr0)),
            ("rtmr1", hex::encode(&report.rt_mr1)),
            ("rtmr2", hex::encode(&report.rt_mr2)),
            ("rtmr3", hex::encode(&report.rt_mr3)),
        ]);
        let mut remarks = Vec::new();
        // RTMR 3 is no substitute: whoever runs in the domain extends it as he likes.
        if rules.rtmr1.is_empty() || rules.rtmr2.is_empty() {
            remarks.push(
                "the policy does not list values of both RTMR 1 and RTMR 2: MRTD measures the firmware, not the kernel and the program it starts"
                    .to_owned(),
            );
        }
        Ok(Verified {
            binding: report.report_data,
            identity: Identity {
                measurement: report.mr_td.to_vec(),
                facts,
            },
            remarks,
        })
    }
}

/// Verifies evidence of Intel SGX.
#[derive(Clone, Debug)]
pub struct SgxVerifier {
    root: Vec<u8>,
}

impl Default for SgxVerifier {
    /// Under Intel's root.
    fn default() -> Self {
        Self::with_root(INTEL_ROOT)
    }
}

impl SgxVerifier {
    /// A verifier under another root certificate (DER), for tests.
    ///
    /// # Security
    /// Whoever has the root's key can make any evidence.
    #[must_use]
    pub fn with_root(root: &[u8]) -> Self {
        Self {
            root: root.to_vec(),
        }
    }
}

impl PlatformVerifier for SgxVerifier {
    fn platform(&self) -> Platform {
        Platform::Sgx
    }

    fn verify(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        rules: &Rules,
        now: u64,
    ) -> Result<Verified, AttestError> {
        let Rules::Sgx(rules) = rules else {
            return Err(AttestError::PlatformNotAccepted(Platform::Sgx));
        };
        rules.check(Platform::Sgx)?;
        let claims = verify_quote(
            statement,
            endorsements,
            &self.root,
            Technology::Sgx,
            rules,
            now,
        )?;
        let report = claims.report.as_sgx().ok_or(AttestError::Malformed(
            "the quote holds no report of an enclave",
        ))?;
        check_enclave_values(report, rules)?;
        let mut facts = platform_facts(&claims);
        facts.extend([
            ("attributes", hex::encode(&report.attributes)),
            ("mr-signer", hex::encode(&report.mr_signer)),
            ("product-id", report.isv_prod_id.to_string()),
            ("svn", report.isv_svn.to_string()),
        ]);
        Ok(Verified {
            binding: report.report_data,
            identity: Identity {
                measurement: report.mr_enclave.to_vec(),
                facts,
            },
            remarks: Vec::new(),
        })
    }
}

/// Everything that is the same for both: layout, flags, signatures, collateral, status.
fn verify_quote(
    statement: &[u8],
    endorsements: &[u8],
    root: &[u8],
    technology: Technology,
    rules: &DcapRules,
    now: u64,
) -> Result<QuoteClaims, AttestError> {
    if layout::check(statement, root)? != technology {
        return Err(AttestError::Malformed(
            "the quote is of the other one of SGX and TDX",
        ));
    }
    // Flags first, for an error that says what is wrong; all of it is signed and the
    // signatures follow.
    let quote =
        Quote::parse(statement).map_err(|_| AttestError::Malformed("the quote does not decode"))?;
    check_flags(&quote.report)?;
    let verifier = QuoteVerifier::<AwsLc>::new_with_config(root.to_vec());
    let verify = |bytes: &[u8]| {
        let collateral = collateral::parse(bytes)?;
        let pce = pce_of(&collateral.tcb_info);
        let claims = verifier
            .verify_with_policy(statement, collateral, now, &QuotePolicy::claims_only(now))
            .map_err(|error| refused(&format!("{error:#}")))?;
        if pce.as_deref() != Some(&claims.platform.pck.pce_id[..]) {
            return Err(AttestError::Endorsement(
                "the collateral is for another PCE than the platform's".to_owned(),
            ));
        }
        // Lists of tomorrow say that a clock is wrong, this one or theirs.
        if claims.latest_issue_date > now || claims.earliest_expiration_date < now {
            return Err(AttestError::Endorsement(
                "a part of the collateral is not valid at this time".to_owned(),
            ));
        }
        Ok(claims)
    };
    let claims = if rules.collateral.is_empty() {
        if endorsements.is_empty() {
            return Err(AttestError::Endorsement(
                "no collateral came with the evidence and the policy names none; add 'collateral'"
                    .to_owned(),
            ));
        }
        verify(endorsements)?
    } else {
        let mut outcome = Err(AttestError::Endorsement(
            "the policy's collateral is not loaded".to_owned(),
        ));
        for file in &rules.collateral {
            outcome = verify(&file.content);
            if outcome.is_ok() {
                break;
            }
        }
        outcome?
    };
    check_status(&claims, rules, now)?;
    Ok(claims)
}

/// `pceId` of TCB information, which `dcap-qvl` leaves to its caller.
fn pce_of(tcb_info: &str) -> Option<Vec<u8>> {
    let info: dcap_qvl::TcbInfo = serde_json::from_str(tcb_info).ok()?;
    ::hex::decode(&info.pce_id).ok()
}

/// What the platform itself says about its protection.
fn check_flags(report: &Report) -> Result<(), AttestError> {
    let refuse = |what: &str| Err(AttestError::State(what.to_owned()));
    let zero_data = match report {
        Report::SgxEnclave(enclave) => {
            const INITIALIZED: u8 = 1;
            const DEBUG: u8 = 2;
            if enclave.attributes[0] & DEBUG != 0 {
                return refuse("the enclave can be debugged");
            }
            if enclave.attributes[0] & INITIALIZED == 0 {
                return refuse("the enclave was not initialized");
            }
            enclave.report_data == [0; 64]
        }
        Report::TD10(_) | Report::TD15(_) | Report::TD15Ex(_) => {
            let Some(domain) = report.as_td10() else {
                return refuse("the report is incomplete");
            };
            check_domain_attributes(u64::from_le_bytes(domain.td_attributes))?;
            if report
                .as_td15()
                .is_some_and(|domain| domain.mr_service_td != [0; 48])
            {
                return refuse("a service domain is bound to the domain");
            }
            if report.as_td15_ex().is_some_and(|domain| domain.vmid != 0) {
                return refuse("the report is about a nested machine of the domain");
            }
            domain.report_data == [0; 64]
        }
    };
    if zero_data {
        return Err(AttestError::Binding);
    }
    Ok(())
}

fn check_domain_attributes(attributes: u64) -> Result<(), AttestError> {
    // Bits of the TDX module's ABI, table "TD attributes".
    const UNDER_DEBUG: u64 = 0xff;
    const SERVICE_DOMAIN: u64 = 1 << 17;
    const SEPT_VE_DISABLE: u64 = 1 << 28;
    const MIGRATABLE: u64 = 1 << 29;
    let refuse = |what: &str| Err(AttestError::State(what.to_owned()));
    if attributes & UNDER_DEBUG != 0 {
        return refuse("the domain can be debugged or profiled");
    }
    if attributes & SERVICE_DOMAIN != 0 {
        return refuse("the domain accepts service domains");
    }
    if attributes & MIGRATABLE != 0 {
        return refuse("the domain can be migrated");
    }
    if attributes & SEPT_VE_DISABLE == 0 {
        return refuse(
            "SEPT_VE_DISABLE is off, so the host can take pages away without the domain noticing",
        );
    }
    Ok(())
}

fn check_domain_values(report: &TDReport10, rules: &DcapRules) -> Result<(), AttestError> {
    if !rules.measurements.iter().any(|mrtd| *mrtd == report.mr_td) {
        return Err(AttestError::Measurement);
    }
    for (accepted, value) in [
        (&rules.rtmr0, &report.rt_mr0),
        (&rules.rtmr1, &report.rt_mr1),
        (&rules.rtmr2, &report.rt_mr2),
        (&rules.rtmr3, &report.rt_mr3),
    ] {
        if !accepted.is_empty() && !accepted.contains(value) {
            return Err(AttestError::Measurement);
        }
    }
    for (accepted, value, name) in [
        (&rules.mr_config_id, &report.mr_config_id, "MRCONFIGID"),
        (&rules.mr_owner, &report.mr_owner, "MROWNER"),
        (
            &rules.mr_owner_config,
            &report.mr_owner_config,
            "MROWNERCONFIG",
        ),
        (&rules.mr_seam, &report.mr_seam, "MRSEAM"),
        (
            &rules.mr_signer_seam,
            &report.mr_signer_seam,
            "MRSIGNERSEAM",
        ),
    ] {
        listed(accepted, value, name)?;
    }
    listed(&rules.xfam, &report.xfam, "XFAM")?;
    listed(&rules.attributes, &report.td_attributes, "the attributes")
}

fn check_enclave_values(report: &EnclaveReport, rules: &DcapRules) -> Result<(), AttestError> {
    if !rules.measurements.is_empty()
        && !rules
            .measurements
            .iter()
            .any(|value| *value == report.mr_enclave)
    {
        return Err(AttestError::Measurement);
    }
    if !rules.mr_signer.is_empty() && !rules.mr_signer.contains(&report.mr_signer) {
        return Err(AttestError::Measurement);
    }
    if rules
        .product_id
        .is_some_and(|product| product != report.isv_prod_id)
    {
        return Err(AttestError::Measurement);
    }
    match rules.minimum_svn {
        Some(minimum) if report.isv_svn < minimum => Err(AttestError::State(format!(
            "the enclave's security version is {}; at least {minimum} is demanded",
            report.isv_svn
        ))),
        _ => Ok(()),
    }
}

fn listed<const N: usize>(
    accepted: &[[u8; N]],
    value: &[u8; N],
    name: &str,
) -> Result<(), AttestError> {
    if accepted.is_empty() || accepted.contains(value) {
        return Ok(());
    }
    Err(AttestError::State(format!(
        "{name} is not among the values that the policy lists"
    )))
}

/// Status, advisories, evaluation number, and what the platform's certificate says.
fn check_status(claims: &QuoteClaims, rules: &DcapRules, now: u64) -> Result<(), AttestError> {
    let statuses: &[TcbStatus] = if rules.tcb_status.is_empty() {
        &[TcbStatus::UpToDate]
    } else {
        &rules.tcb_status
    };
    if !statuses
        .iter()
        .any(|status| status.library() == claims.tcb.status)
    {
        return Err(AttestError::State(format!(
            "the platform's TCB status is {}; the policy does not accept it",
            claims.tcb.status
        )));
    }
    let pck = &claims.platform.pck;
    for (flag, allowed, what) in [
        (
            pck.dynamic_platform,
            rules.allow_dynamic_platform,
            "processors can be added to the platform; 'allow-dynamic-platform' accepts that",
        ),
        (
            pck.cached_keys,
            rules.allow_cached_keys,
            "the vendor keeps the platform's root keys; 'allow-cached-keys' accepts that",
        ),
        (
            pck.smt_enabled,
            rules.allow_smt,
            "the platform runs two threads on a core; 'allow-smt' accepts that",
        ),
    ] {
        if flag == PckCertFlag::True && !allowed {
            return Err(AttestError::State(what.to_owned()));
        }
    }
    let grace = Duration::from_secs(u64::from(rules.tcb_grace_days) * SECONDS_A_DAY);
    let mut policy = QuotePolicy::strict(now)
        .min_tcb_eval_data_number(rules.minimum_tcb_evaluation)
        .platform_grace_period(grace)
        .qe_grace_period(grace)
        .allow_smt(rules.allow_smt)
        .allow_dynamic_platform(rules.allow_dynamic_platform)
        .allow_cached_keys(rules.allow_cached_keys);
    for status in statuses {
        policy = policy.allow_status(status.library());
    }
    policy
        .validate(claims)
        .map_err(|error| AttestError::State(printable(&error.to_string())))?;
    match advisories(claims)
        .into_iter()
        .find(|id| !rules.advisories_allowed.iter().any(|allowed| allowed == id))
    {
        Some(id) => Err(AttestError::State(format!(
            "security advisory {} applies to the platform and the policy does not allow it",
            printable(id)
        ))),
        None => Ok(()),
    }
}

/// Every advisory that applies: to the TCB at launch, to today's, to the quoting enclave.
fn advisories(claims: &QuoteClaims) -> Vec<&str> {
    let mut ids: Vec<&str> = claims
        .tcb
        .advisory_ids
        .iter()
        .chain(&claims.platform.tcb_level.advisory_ids)
        .chain(
            claims
                .platform
                .current_tcb_level
                .iter()
                .flat_map(|level| &level.advisory_ids),
        )
        .chain(&claims.qe.tcb_level.advisory_ids)
        .map(String::as_str)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn platform_facts(claims: &QuoteClaims) -> Vec<(&'static str, String)> {
    vec![
        ("debug", "off".to_owned()),
        ("tcb-status", claims.tcb.status.to_string()),
        ("tcb-date", printable(&claims.platform.tcb_level.tcb_date)),
        ("tcb-evaluation", claims.tcb.eval_data_number.to_string()),
        ("advisories", printable(&advisories(claims).join(" "))),
        ("fmspc", hex::encode(&claims.platform.pck.fmspc)),
        ("cpu-svn", hex::encode(&claims.platform.pck.cpu_svn)),
        ("pce-svn", claims.platform.pck.pce_svn.to_string()),
        ("ppid", hex::encode(&claims.platform.pck.ppid)),
        (
            "collateral-expires",
            claims.earliest_expiration_date.to_string(),
        ),
    ]
}

/// The library's error in ours.
fn refused(message: &str) -> AttestError {
    if message.starts_with("ISV enclave report signature") {
        AttestError::Signature("the quote is not signed by its attestation key")
    } else if message.starts_with("Signature is invalid for qe_report")
        || message.starts_with("QE report hash mismatch")
    {
        AttestError::Signature("the platform's key does not vouch for the attestation key")
    } else if message.contains("No matching TCB level")
        || message.contains("below minimum required")
        || message.contains("status is invalid: Revoked")
    {
        AttestError::State(printable(message))
    } else {
        AttestError::Endorsement(printable(message))
    }
}

/// Text that may come from the other side, safe to print.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|char| char.is_ascii_graphic() || *char == ' ')
        .take(200)
        .collect()
}
