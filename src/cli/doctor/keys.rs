//! Each configured key: there once, with a public key and a certificate that fit, and every algorithm proved by a signature of doctor's own.
//!
//! Only keys whose slot is logged in by configuration are proved: never one that needs a person, or a PIN for each signature. Signatures
//! take no permit, sign a text that says what it is, and are verified as any other. Invariant: nothing here gives a token a PIN.

use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tracing::info;

use super::{
    finding::{Findings, Fix},
    site::Site,
    tokens::Seen,
};
use crate::{
    cli::control_client::ControlClient,
    domain::{
        algorithm::SignatureAlgorithm,
        digest::{SigningInput, ToSign},
        hash::digest,
        key::ConfiguredKey,
        timestamp::Timestamp,
        token::{KeyDescription, LoginMode, SlotState},
        verify::verify,
    },
    http::control::dto::KeyReadinessDto,
    pki::Certificate,
    token::{
        command::{Command, Reply},
        driver::DeviceError,
        slot::{SlotError, SlotHandle},
        supervisor::{FindError, Tokens},
    },
};

const KEY: &str = "key";
const CERTIFICATE: &str = "certificate";
const ALGORITHM: &str = "algorithm";
const NO_SIGNATURE: &str = "nothing is signed with this key";

/// What is signed, followed by the time: nobody takes it for a document.
const TEXT: &str = "Sealgate doctor signature, not a document: ";
/// A certificate that ends within this time is worth a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// How much longer than the module's own limit a call is waited for.
const SLACK: Duration = Duration::from_secs(10);

/// Asks the gateway that runs about each key: it has the tokens, and there is no second login from outside.
pub(super) async fn ask(site: &Site, gateway: &ControlClient, findings: &mut Findings) -> anyhow::Result<()> {
    for key in &site.config.keys {
        let KeyReadinessDto { ready, reason } = gateway.get(&format!("/keys/{}", key.name)).await?;
        if ready {
            findings.ok(KEY, format!("{}: can sign, says the gateway; not proved here, for it has the token", key.name));
        } else {
            let fix = Fix::by_hand("see what is said of its token; with the gateway stopped, doctor can look closer");
            findings.fault(KEY, format!("{}: {reason}", key.name), NO_SIGNATURE, fix);
        }
        if let Some(certificate) = &key.certificate {
            validity(key, certificate, findings);
        }
    }
    Ok(())
}

/// Examines each key on tokens that were opened here.
pub(super) async fn examine(site: &Site, seen: Seen, tokens: &Tokens, findings: &mut Findings) {
    for key in &site.config.keys {
        match tokens.find(&key.uri) {
            Ok(slot) => Examination { site, key, slot, findings }.run(seen).await,
            Err(FindError::None) => {
                let fix = Fix::by_hand("plug its token in, or correct `uri`; `sealgate slots` shows what is there");
                findings.fault(KEY, format!("{}: its token is not there", key.name), NO_SIGNATURE, fix);
            }
            Err(FindError::Ambiguous(count)) => {
                let fix = Fix::by_hand("add `serial=` to its `uri`; `sealgate slots` shows them");
                findings.fault(KEY, format!("{}: {count} tokens match its `uri`", key.name), "a name stands for one key", fix);
            }
        }
    }
}

/// The examination of one key.
struct Examination<'a> {
    site: &'a Site,
    key: &'a ConfiguredKey,
    slot: SlotHandle,
    findings: &'a mut Findings,
}

impl Examination<'_> {
    async fn run(mut self, seen: Seen) {
        let status = self.slot.status();
        let name = &self.key.name;
        if seen == Seen::LookedAt {
            let fix = Fix::by_hand("mend what is said above, and run doctor as the user that runs the gateway");
            return self.findings.warning(KEY, format!("{name}: not proved: nobody was logged in"), "it may be unable to sign", fix);
        }
        if !matches!(status.state, SlotState::Ready | SlotState::Busy | SlotState::Quarantined) {
            let fix = match self.slot.login_mode() {
                LoginMode::Configured => Fix::by_hand("mend what is said of its token, then run doctor again"),
                LoginMode::PerRequest => Fix::by_hand("sign once through the gateway, with its PIN in the request"),
                LoginMode::Operator | LoginMode::Protected => {
                    let unlock = self.site.unlock("", &self.slot.token().uri(), None);
                    Fix::by_hand(format!("unlock first: start the gateway, then: {unlock}"))
                }
            };
            let what = format!("{name}: not proved: its token's state is: {}", status.state);
            return self.findings.warning(KEY, what, "it may be unable to sign", fix);
        }
        match self.call(Command::DescribeKey { key: self.key.uri.key_selector(), pin: None }).await {
            Ok(Reply::Key { key, algorithms }) => self.found(key, algorithms).await,
            Ok(_) => self.failed("the token answered something else than it was asked"),
            Err(SlotError::Device(DeviceError::KeyNotFound(_) | DeviceError::KeyAmbiguous { .. })) => self.not_one().await,
            Err(error) => self.failed(&error.to_string()),
        }
    }

    fn failed(&mut self, error: &str) {
        let fix = Fix::by_hand("take the token out and put it in again, then run doctor again");
        self.findings.fault(KEY, format!("{}: {error}", self.key.name), NO_SIGNATURE, fix);
    }

    async fn call(&self, command: Command) -> Result<Reply, SlotError> {
        let limits = self.site.config.modules.iter().find(|module| module.name == self.slot.token().module).map(|module| module.limits);
        let limit = limits.map_or(Duration::ZERO, |limits| limits.sign.max(limits.other));
        let given_up = || Err(SlotError::Device(DeviceError::Failed("the module does not return".to_owned())));
        timeout(limit + SLACK, self.slot.call(command)).await.unwrap_or_else(|_| given_up())
    }

    /// No key, or several, where the URI wants one.
    async fn not_one(&mut self) {
        let Ok(Reply::Keys(keys)) = self.call(Command::ListKeys).await else { return self.failed("the token does not list its keys") };
        let name = &self.key.name;
        let uri = |key: &KeyDescription| self.slot.token().uri().with_key(key).to_string();
        let matching: Vec<String> = keys.iter().filter(|key| self.key.uri.matches_key(key)).map(uri).collect();
        if !matching.is_empty() {
            let fix = Fix::by_hand("name one by its `id=`; keys with the same `id` must be told apart on the token");
            let what = format!("{name}: several keys match its `uri`: {}", matching.join(", "));
            return self.findings.fault(KEY, what, "a name stands for one key", fix);
        }
        let named = |key: &&KeyDescription| {
            self.site.config.keys.iter().any(|entry| entry.uri.matches_token(self.slot.token()) && entry.uri.matches_key(key))
        };
        let free: Vec<String> = keys.iter().filter(|key| !named(key)).map(uri).collect();
        let fix = match free.as_slice() {
            [only] => self.site.replace(&self.key.uri.to_string(), only),
            _ => None,
        };
        let fix = fix.unwrap_or_else(|| Fix::by_hand("correct its `uri`; `sealgate keys` shows what is there"));
        let there = if free.is_empty() {
            "no key on the token is without a name".to_owned()
        } else {
            format!("without a name are: {}", free.join(", "))
        };
        self.findings.fault(KEY, format!("{name}: no key matches its `uri`; {there}"), NO_SIGNATURE, fix);
    }

    async fn found(&mut self, described: KeyDescription, offered: Vec<SignatureAlgorithm>) {
        let name = self.key.name.clone();
        if described.protection.extractable || !described.protection.sensitive {
            let fix = Fix::by_hand("make a new key on the token, and have it certified");
            self.findings.warning(KEY, format!("{name}: the token would give its private key away"), "it can be copied", fix);
        }
        let Some(public_key) = described.public_key.clone() else {
            let fix = Fix::by_hand("write its certificate or public key onto the token, with the same `id`");
            return self.findings.fault(
                KEY,
                format!("{name}: has neither public key nor certificate on the token"),
                "its signatures could not be verified",
                fix,
            );
        };
        self.certificate(&described, &public_key);
        let offered: Vec<_> = offered.into_iter().filter(|algorithm| algorithm.fits(&described.kind)).collect();
        let Some(own) = self.key.algorithm.or_else(|| described.kind.default_algorithm()) else {
            let fix = Fix::by_hand("use a key of another kind");
            return self.findings.fault(KEY, format!("{name}: a key of kind {} cannot sign here", described.kind), NO_SIGNATURE, fix);
        };
        if !offered.contains(&own) {
            self.not_offered(own, &offered, described.kind.default_algorithm());
        }
        if self.needs_a_person(&described) {
            return;
        }
        let mut proved = Vec::new();
        for algorithm in offered {
            match self.prove(&described, &public_key, algorithm).await {
                Ok(()) => proved.push(algorithm.to_string()),
                Err(why) => self.not_proved(algorithm, own, &why),
            }
        }
        if !proved.is_empty() {
            self.findings.ok(KEY, format!("{name}: {}, proved by signing: {}", described.kind, proved.join(", ")));
        }
    }

    fn needs_a_person(&mut self, described: &KeyDescription) -> bool {
        let module = self.site.config.modules.iter().find(|module| module.name == self.slot.token().module);
        let touch = module.is_some_and(|module| module.waits_for_touch == Some(true));
        if described.always_authenticate || touch {
            let fix = Fix::by_hand("sign once through the gateway, with the person there");
            let what = format!("{}: not proved: it wants {} for each signature", self.key.name, if touch { "a touch" } else { "the PIN" });
            self.findings.warning(KEY, what, "it may be unable to sign", fix);
        }
        described.always_authenticate || touch
    }

    fn not_offered(&mut self, own: SignatureAlgorithm, offered: &[SignatureAlgorithm], default: Option<SignatureAlgorithm>) {
        let default_works = self.key.algorithm.is_some() && default.is_some_and(|default| offered.contains(&default));
        let remove = default_works.then(|| self.site.remove_field("key", self.key.name.as_str(), "algorithm")).flatten();
        let names: Vec<String> = offered.iter().map(ToString::to_string).collect();
        let fix = remove.unwrap_or_else(|| Fix::by_hand("set `algorithm` to one that the token offers"));
        let what = format!("{}: its token does not offer {own} for it, but: {}", self.key.name, names.join(", "));
        self.findings.fault(ALGORITHM, what, NO_SIGNATURE, fix);
    }

    fn not_proved(&mut self, algorithm: SignatureAlgorithm, own: SignatureAlgorithm, why: &str) {
        let what = format!("{}: {algorithm} is offered by the token, but: {why}", self.key.name);
        if algorithm == own {
            let fix = Fix::by_hand("set another `algorithm`, or ask the vendor of the token");
            self.findings.fault(ALGORITHM, what, NO_SIGNATURE, fix);
        } else {
            let fix = Fix::by_hand("do not ask for this algorithm");
            self.findings.warning(ALGORITHM, what, "requests for it will fail", fix);
        }
    }

    /// One signature with one algorithm, verified.
    async fn prove(&self, described: &KeyDescription, public_key: &[u8], algorithm: SignatureAlgorithm) -> Result<(), String> {
        info!(key.name = %self.key.name, algorithm = %algorithm, "doctor signs a text of its own with {} ({algorithm}) to prove the key", self.key.name);
        let to_sign = test_text(algorithm)?;
        let id = (!described.id.is_empty()).then(|| described.id.clone());
        let label = (!described.label.is_empty()).then(|| described.label.clone());
        let key = crate::domain::token::KeySelector { id, label };
        match self.call(Command::Sign { key, to_sign: to_sign.clone(), pin: None, mark: None }).await {
            Ok(Reply::Signature(signature)) => verify(public_key, &to_sign, &signature).map_err(|error| error.to_string()),
            Ok(_) => Err("the token answered something else than it was asked".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn certificate(&mut self, described: &KeyDescription, public_key: &[u8]) {
        let name = &self.key.name;
        let Some(used) = self.key.certificate.as_ref().or(described.certificate.as_ref()) else {
            let fix = Fix::by_hand("have the key certified, and write the certificate onto the token, or name a file with `certificate`");
            return self.findings.warning(CERTIFICATE, format!("{name}: has no certificate"), "documents cannot be signed with it", fix);
        };
        let fits = |certificate: &[u8]| Certificate::from_der(certificate).is_ok_and(|certificate| certificate.spki() == public_key);
        if !fits(used) {
            let of_token = self.key.certificate.is_some() && described.certificate.as_deref().is_some_and(fits);
            let remove = of_token.then(|| self.site.remove_field("key", name.as_str(), "certificate")).flatten();
            let fix = remove.unwrap_or_else(|| Fix::by_hand("replace the certificate by the one that was issued for this key"));
            let why = "signatures would not verify against it";
            return self.findings.fault(CERTIFICATE, format!("{name}: its certificate is another key's"), why, fix);
        }
        validity(self.key, used, self.findings);
    }
}

/// Whether a certificate is valid now and will be for a while.
fn validity(key: &ConfiguredKey, certificate: &[u8], findings: &mut Findings) {
    let name = &key.name;
    let new_one = || Fix::by_hand("have the key certified anew, and put the new certificate in the place of this one");
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return findings.fault(CERTIFICATE, format!("{name}: its certificate cannot be read"), "signatures need it", new_one());
    };
    let now = Timestamp::from(SystemTime::now());
    let left = certificate.not_after().since(now).as_secs() / (24 * 3600);
    if now < certificate.not_before() {
        let fix = Fix::by_hand("set the machine's clock, or wait until it is valid");
        findings.fault(CERTIFICATE, format!("{name}: its certificate is not valid yet"), "signatures made now are refused", fix);
    } else if !certificate.valid_at(now) {
        findings.fault(CERTIFICATE, format!("{name}: its certificate has expired"), "signatures made now are refused", new_one());
    } else if !certificate.valid_at(now.after(EXPIRES_SOON)) {
        findings.warning(
            CERTIFICATE,
            format!("{name}: its certificate expires in {left} days"),
            "signatures after that are refused",
            new_one(),
        );
    } else {
        findings.ok(CERTIFICATE, format!("{name}: fits and is valid for {left} days"));
    }
}

fn test_text(algorithm: SignatureAlgorithm) -> Result<ToSign, String> {
    let text = format!("{TEXT}{}", Timestamp::from(SystemTime::now()).as_millis());
    let input = match algorithm.hash() {
        None => SigningInput::Message(text.into_bytes()),
        Some(hash) => SigningInput::Digest(digest(hash, text.as_bytes())),
    };
    ToSign::new(algorithm, input).map_err(|error| error.to_string())
}
