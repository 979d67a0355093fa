//! Verification of reports.

use super::certificate::{Certificate, RevocationList};
use super::report::{REPORT_BYTES, SIGNED_BYTES, signature};
use super::table::{self, EntryKind};
use super::{Product, Report, Revocation, SigningKey, SnpRules, Tcb};
use crate::{AttestError, Identity, Platform, PlatformVerifier, Rules, Verified, hex};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

/// Most certificates and lists looked at for one report.
const MAX_DOCUMENTS: usize = 64;

/// A root of trust: one product line's ARK.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// The product line it is for.
    pub product: Product,
    /// Its self-signed certificate (ARK), DER.
    pub root: &'a [u8],
    /// The certificate of its authority for chips' keys (ASK), DER.
    pub intermediate: &'a [u8],
}

/// AMD's roots, as published; `tests/fixtures/snp/extract.sh` says where from.
pub const AMD_ROOTS: [Root<'static>; 3] = [
    Root {
        product: Product::Milan,
        root: include_bytes!("roots/milan-ark.der"),
        intermediate: include_bytes!("roots/milan-ask.der"),
    },
    Root {
        product: Product::Genoa,
        root: include_bytes!("roots/genoa-ark.der"),
        intermediate: include_bytes!("roots/genoa-ask.der"),
    },
    Root {
        product: Product::Turin,
        root: include_bytes!("roots/turin-ark.der"),
        intermediate: include_bytes!("roots/turin-ask.der"),
    },
];

struct ParsedRoot {
    product: Product,
    root: Certificate,
    intermediate: Certificate,
}

/// Verifies evidence of AMD SEV-SNP.
///
/// The statement is the report; the endorsements are a certificate [`table`].
pub struct SnpVerifier {
    roots: Vec<ParsedRoot>,
}

/// Certificates and lists that are at hand for one report.
#[derive(Default)]
struct Documents {
    leaves: Vec<Certificate>,
    intermediates: Vec<Certificate>,
    lists: Vec<RevocationList>,
}

/// A chain from the report's key to a root.
struct Chain<'a> {
    product: Product,
    leaf: &'a Certificate,
    intermediate: &'a Certificate,
    root: &'a Certificate,
}

impl SnpVerifier {
    /// A verifier that trusts AMD's roots for Milan, Genoa and Turin.
    ///
    /// # Panics
    /// Never: the roots are part of the program, and tests read them.
    #[must_use]
    pub fn new() -> Self {
        Self::with_roots(&AMD_ROOTS).expect("AMD's roots are part of the program")
    }

    /// A verifier that trusts other roots.
    ///
    /// # Security
    /// For tests and for the simulated platform. Evidence under such a root says what the
    /// holder of its key wants.
    ///
    /// # Errors
    /// [`AttestError::Endorsement`] for certificates that cannot be read.
    pub fn with_roots(roots: &[Root<'_>]) -> Result<Self, AttestError> {
        let roots = roots
            .iter()
            .map(|root| {
                Ok(ParsedRoot {
                    product: root.product,
                    root: Certificate::parse(root.root)?,
                    intermediate: Certificate::parse(root.intermediate)?,
                })
            })
            .collect::<Result<_, AttestError>>()?;
        Ok(Self { roots })
    }

    /// Whether AMD vouches for a report: its signature, certificates and their dates at
    /// the time `now`, chip and TCB. For tools that show what a report says.
    ///
    /// # Security
    /// Nothing that the report says is judged, and no revocation: a guest in debug mode
    /// passes. Whoever relies on evidence uses [`verify_report`](Self::verify_report).
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn authenticate(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        now: u64,
    ) -> Result<(Product, Report), AttestError> {
        let report = Report::parse(statement)?;
        let documents = Documents::gather(report.signing_key, endorsements, &SnpRules::default())?;
        let chain = self.chain(&documents, statement)?;
        chain.check(&report, now)?;
        Ok((chain.product, report))
    }

    /// Verifies a report under `rules` at the time `now`.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn verify_report(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        rules: &SnpRules,
        now: u64,
    ) -> Result<Verified, AttestError> {
        let report = Report::parse(statement)?;
        let documents = Documents::gather(report.signing_key, endorsements, rules)?;
        let chain = self.chain(&documents, statement)?;
        chain.check(&report, now)?;
        let mut remarks = Vec::new();
        chain.check_revocation(&documents.lists, rules.revocation, now, &mut remarks)?;
        let tcb = check_state(&report, &chain, rules)?;
        Ok(Verified {
            binding: report.report_data,
            identity: identity(&report, &chain, tcb),
            remarks,
        })
    }

    /// The chain of the certificate whose key signed the report.
    fn chain<'a>(
        &'a self,
        documents: &'a Documents,
        statement: &[u8],
    ) -> Result<Chain<'a>, AttestError> {
        let statement: &[u8; REPORT_BYTES] = statement
            .try_into()
            .map_err(|_| AttestError::Malformed("a report has 1184 bytes"))?;
        let signature = signature(statement)?;
        let mut refused = AttestError::Endorsement(
            "there is no certificate of the key that signed the report; give it under 'certificates'"
                .to_owned(),
        );
        for leaf in &documents.leaves {
            let verified = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, leaf.p384_key()?)
                .verify(&statement[..SIGNED_BYTES], &signature);
            if verified.is_err() {
                refused = AttestError::Signature("the report is not signed by the certified key");
                continue;
            }
            match self.chain_of(leaf, &documents.intermediates) {
                Ok(chain) => return Ok(chain),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn chain_of<'a>(
        &'a self,
        leaf: &'a Certificate,
        intermediates: &'a [Certificate],
    ) -> Result<Chain<'a>, AttestError> {
        let own = self.roots.iter().map(|root| &root.intermediate);
        let mut refused = AttestError::Endorsement(format!(
            "there is no certificate of the authority that issued {}; give it under 'certificates'",
            leaf.name
        ));
        for intermediate in own.chain(intermediates) {
            if !leaf.names_as_issuer(intermediate) {
                continue;
            }
            refused = AttestError::Endorsement(format!(
                "{} does not lead to a root that this program trusts",
                intermediate.name
            ));
            for root in &self.roots {
                if !intermediate.names_as_issuer(&root.root) {
                    continue;
                }
                let issued = root
                    .root
                    .check_issued_by(&root.root)
                    .and_then(|()| intermediate.check_issued_by(&root.root))
                    .and_then(|()| leaf.check_issued_by(intermediate));
                match issued {
                    Ok(()) => {
                        return Ok(Chain {
                            product: root.product,
                            leaf,
                            intermediate,
                            root: &root.root,
                        });
                    }
                    Err(error) => refused = error,
                }
            }
        }
        Err(refused)
    }
}

impl Default for SnpVerifier {
    fn default() -> Self {
        Self::new()
    }
}

impl PlatformVerifier for SnpVerifier {
    fn platform(&self) -> Platform {
        Platform::SevSnp
    }

    fn verify(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        rules: &Rules,
        now: u64,
    ) -> Result<Verified, AttestError> {
        let Rules::SevSnp(rules) = rules else {
            return Err(AttestError::Unsupported(rules.platform()));
        };
        self.verify_report(statement, endorsements, rules, now)
    }
}

impl Documents {
    fn gather(key: SigningKey, endorsements: &[u8], rules: &SnpRules) -> Result<Self, AttestError> {
        let mut documents = Self::default();
        for (kind, content) in table::parse(endorsements)? {
            match (kind, key) {
                (EntryKind::Vcek, SigningKey::Vcek) | (EntryKind::Vlek, SigningKey::Vlek) => {
                    documents.leaves.push(Certificate::parse(content)?);
                }
                (EntryKind::Intermediate, _) => {
                    documents.intermediates.push(Certificate::parse(content)?);
                }
                (EntryKind::RevocationList, _) => {
                    documents.lists.push(RevocationList::parse(content)?);
                }
                // The other kind of key did not sign, and roots are ours to know.
                (EntryKind::Vcek | EntryKind::Vlek | EntryKind::Root, _) => {}
            }
        }
        if rules.certificates.len() + rules.revocation_lists.len() > MAX_DOCUMENTS {
            return Err(AttestError::Policy(format!(
                "more than {MAX_DOCUMENTS} certificates and revocation lists"
            )));
        }
        for file in &rules.certificates {
            let certificate = Certificate::parse(&file.content)?;
            if certificate.check_authority().is_ok() {
                documents.intermediates.push(certificate);
            } else {
                documents.leaves.push(certificate);
            }
        }
        for file in &rules.revocation_lists {
            documents.lists.push(RevocationList::parse(&file.content)?);
        }
        Ok(documents)
    }
}

impl Chain<'_> {
    /// Checks what the certificates say: dates, kinds, product, chip and TCB.
    fn check(&self, report: &Report, now: u64) -> Result<(), AttestError> {
        for certificate in [self.leaf, self.intermediate, self.root] {
            certificate.check_dates(now)?;
        }
        self.intermediate.check_authority()?;
        self.root.check_authority()?;
        self.leaf.check_critical(&[])?;
        let other = |what: &str| {
            Err(AttestError::Endorsement(format!(
                "{} is for another {what} than the report",
                self.leaf.name
            )))
        };
        if !self.product.issues_for(&self.leaf.product_name()?)
            || report.product()?.is_some_and(|named| named != self.product)
        {
            return other("product");
        }
        match (report.signing_key, self.leaf.provider_id()) {
            (SigningKey::Vcek, None) => {
                if self.leaf.hardware_id(self.product)? != report.chip_id {
                    return other("chip");
                }
            }
            (SigningKey::Vlek, Some(_)) => {}
            _ => return other("kind of key"),
        }
        if self.leaf.tcb(self.product)? != report.reported(self.product)? {
            return other("TCB version");
        }
        Ok(())
    }

    fn check_revocation(
        &self,
        lists: &[RevocationList],
        required: Revocation,
        now: u64,
        remarks: &mut Vec<String>,
    ) -> Result<(), AttestError> {
        let mut checked = false;
        for (authority, is_root) in [(self.root, true), (self.intermediate, false)] {
            for list in lists.iter().filter(|list| list.names_as_issuer(authority)) {
                list.check(authority, now)?;
                for certificate in [self.intermediate, self.leaf] {
                    if list.revokes(certificate)? {
                        return Err(AttestError::Endorsement(format!(
                            "{} has been revoked",
                            certificate.name
                        )));
                    }
                }
                checked |= is_root;
            }
        }
        match (checked, required) {
            (true, _) => Ok(()),
            (false, Revocation::Required) => Err(AttestError::Endorsement(format!(
                "there is no revocation list of {}; give it under 'revocation-lists'",
                self.root.name
            ))),
            (false, Revocation::Unchecked) => {
                remarks.push("nobody checked whether the platform's key was revoked".to_owned());
                Ok(())
            }
        }
    }
}

/// Checks the guest's and the platform's state; answers the reported TCB.
fn check_state(report: &Report, chain: &Chain<'_>, rules: &SnpRules) -> Result<Tcb, AttestError> {
    let state = |what: &str| Err(AttestError::State(what.to_owned()));
    if report.policy.debug() {
        return state("the guest runs in debug mode, in which its host reads its memory");
    }
    if report.policy.migration_agent() && !rules.allow_migration {
        return state("a migration agent may read the guest, and 'allow-migration' is not set");
    }
    if report.vmpl != 0 {
        return Err(AttestError::State(format!(
            "the report was asked for at privilege level {}, not 0",
            report.vmpl
        )));
    }
    if !rules.products.is_empty() && !rules.products.contains(&chain.product) {
        return Err(AttestError::State(format!(
            "the processor is a {}, which 'products' does not list",
            chain.product.name()
        )));
    }
    if report.guest_svn < rules.minimum_guest_svn {
        return Err(AttestError::State(format!(
            "the guest has version {}; at least {} is required",
            report.guest_svn, rules.minimum_guest_svn
        )));
    }
    let reported = report.reported(chain.product)?;
    let others = [
        ("in use", Tcb::decode(report.current_tcb, chain.product)?),
        ("at launch", Tcb::decode(report.launch_tcb, chain.product)?),
        // Its host may load that one again while the guest runs.
        (
            "to which the platform can go back",
            Tcb::decode(report.committed_tcb, chain.product)?,
        ),
    ];
    for (when, tcb) in [("reported", reported)].into_iter().chain(others) {
        if !tcb.at_least(&rules.minimum_tcb) {
            return Err(AttestError::State(format!(
                "the firmware {when} ({tcb}) is below 'minimum-tcb' ({})",
                rules.minimum_tcb
            )));
        }
    }
    if let Some(provider) = chain.leaf.provider_id()
        && !rules.vlek_providers.contains(&provider)
    {
        return Err(AttestError::State(format!(
            "the report is signed with a key of the provider '{provider}', which 'vlek-providers' does not list"
        )));
    }
    let listed = |name: &str, listed: bool| match listed {
        true => Ok(()),
        false => Err(AttestError::State(format!(
            "'{name}' does not list the report's"
        ))),
    };
    let family = &rules.family_ids;
    listed(
        "family-ids",
        family.is_empty() || family.contains(&report.family_id),
    )?;
    let image = &rules.image_ids;
    listed(
        "image-ids",
        image.is_empty() || image.contains(&report.image_id),
    )?;
    let keys = &rules.id_key_digests;
    listed(
        "id-key-digests",
        keys.is_empty() || keys.contains(&report.id_key_digest),
    )?;
    let chips = &rules.chip_ids;
    listed(
        "chip-ids",
        chips.is_empty() || chips.contains(&report.chip_id),
    )?;
    if report.report_data == [0; 64] {
        return Err(AttestError::Binding);
    }
    if !rules
        .measurements
        .iter()
        .any(|accepted| *accepted == report.measurement)
    {
        return Err(AttestError::Measurement);
    }
    Ok(reported)
}

fn identity(report: &Report, chain: &Chain<'_>, tcb: Tcb) -> Identity {
    let key = match chain.leaf.provider_id() {
        Some(provider) => format!("VLEK of {provider}"),
        None => "VCEK".to_owned(),
    };
    let yes_no = |yes| if yes { "yes" } else { "no" }.to_owned();
    Identity {
        measurement: report.measurement.to_vec(),
        facts: vec![
            ("product", chain.product.name().to_owned()),
            ("tcb", tcb.to_string()),
            ("signing key", key),
            ("chip", hex::encode(&report.chip_id)),
            ("guest svn", report.guest_svn.to_string()),
            ("family id", hex::encode(&report.family_id)),
            ("image id", hex::encode(&report.image_id)),
            ("id key", hex::encode(&report.id_key_digest)),
            ("author key", hex::encode(&report.author_key_digest)),
            ("host data", hex::encode(&report.host_data)),
            ("debug", yes_no(report.policy.debug())),
            ("migration agent", yes_no(report.policy.migration_agent())),
            ("shares cores", yes_no(report.policy.smt())),
            ("report version", report.version.to_string()),
        ],
    }
}
