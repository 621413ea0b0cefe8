//! Making the development token: token, keys and certificates, through the gateway's own token code.
//!
//! The module runs in a child process as it does later; nothing is asked of other tools. Invariant: the token's record is written last, after
//! every key was read back from the token and found to be made there, sensitive and not extractable.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use zeroize::Zeroizing;

use super::{
    layout::{Layout, write_private, write_public},
    record::{KeyRecord, TokenRecord},
    settings::{TSA_KEY, new_pin},
    softhsm,
};
use crate::{
    cli::host_program,
    domain::{
        algorithm::{Curve, KeyKind},
        ids::ModuleName,
        key_uri::Pkcs11Uri,
        pin::{Pin, PinOrigin},
        timestamp::Timestamp,
        token::{KeyDescription, KeyPairSpec, LoginMode, TokenPolicy},
    },
    pki::{Certificate, DevCa, Validity},
    store::pin_ledger::StoredPinLedger,
    token::{
        command::{CertificateOrder, Command, Reply},
        pkcs11::ModuleOptions,
        slot::SlotHandle,
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};

/// The token's label.
pub(super) const TOKEN_LABEL: &str = "sealgate-dev";
/// The module's name.
const MODULE: &str = "softhsm";
/// How long SoftHSM may take to show its slots.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// How long the keys' certificates are valid.
const VALID_FOR: Duration = Duration::from_secs(10 * YEAR);
/// How long the CA is valid: longer than anything that it issues.
const CA_VALID_FOR: Duration = Duration::from_secs(20 * YEAR);
/// How long a CRL is valid: longer than a development gateway runs without a new start.
const CRL_VALID_FOR: Duration = Duration::from_secs(YEAR);
/// About a year, in seconds.
const YEAR: u64 = 365 * 24 * 3600;
/// The most commands that may wait for the token while it is made; they come one at a time.
const QUEUE: usize = 1;

/// The keys of the token; each has its place in the list, from 1, as its id. The last is the one of the time-stamping authority.
const KEYS: [(&str, KeyKind); 5] = [
    ("rsa-2048", KeyKind::Rsa { modulus_bits: 2048 }),
    ("ec-p256", KeyKind::Ec(Curve::P256)),
    ("ec-p384", KeyKind::Ec(Curve::P384)),
    ("ed25519", KeyKind::Ed25519),
    (TSA_KEY, KeyKind::Ec(Curve::P256)),
];

/// Makes a new token in the folder.
pub(super) async fn make_token(layout: &Layout, module: &Path) -> anyhow::Result<TokenRecord> {
    layout.clear_unfinished()?;
    layout.make_folders()?;
    softhsm::write_conf(layout)?;
    let user_pin = new_pin()?;
    write_private(&layout.pin(), format!("{}\n", user_pin.reveal()).as_bytes())?;
    create_token(layout, module, &user_pin).await?;
    // SoftHSM gives a new token its final slot only when it is started again.
    let tokens = start(layout, module).await?;
    let made = fill_token(&tokens, layout, user_pin).await;
    tokens.stop().await;
    let record = made?;
    record.write(layout)?;
    Ok(record)
}

/// Writes a CRL of the development CA, on which nothing stands.
pub(super) fn write_crl(layout: &Layout) -> anyhow::Result<()> {
    let broken = || format!("the development CA in {} cannot be used; remove the folder to start afresh", layout.dir().display());
    let key = Zeroizing::new(std::fs::read_to_string(layout.ca_key()).with_context(broken)?);
    let certificate =
        Certificate::from_pem(&std::fs::read_to_string(layout.certificate("ca")).with_context(broken)?).with_context(broken)?;
    let ca = DevCa::load(&key, certificate.as_der()).with_context(broken)?;
    let number = Timestamp::from(SystemTime::now()).as_millis() / 1000;
    write_public(&layout.crl(), &ca.crl(number, valid_for(CRL_VALID_FOR)?, &[]).with_context(broken)?)
}

async fn create_token(layout: &Layout, module: &Path, user_pin: &Pin) -> anyhow::Result<()> {
    let tokens = start(layout, module).await?;
    // Nobody needs the SO PIN of a token that is made anew by removing its folder.
    let so_pin = new_pin()?;
    let created = tokens.create_token(&module_name()?, TOKEN_LABEL, so_pin, user_pin.duplicate()).await;
    tokens.stop().await;
    created.context("SoftHSM did not make a token; see the log above, or remove the folder and try again")
}

async fn fill_token(tokens: &Tokens, layout: &Layout, user_pin: Pin) -> anyhow::Result<TokenRecord> {
    let label = Pkcs11Uri { token: Some(TOKEN_LABEL.to_owned()), ..Pkcs11Uri::default() };
    let slot = tokens.find(&label).context("SoftHSM does not show the token that it has just made; remove the folder and try again")?;
    let origin = PinOrigin::Operator { insist: false };
    ask(&slot, Command::Login { pin: Some(user_pin), origin }, "logged in with its new PIN").await?;
    let ca = DevCa::create("Sealgate development CA", valid_for(CA_VALID_FOR)?).context("no development CA was made")?;
    write_private(&layout.ca_key(), ca.key_pem()?.as_bytes())?;
    write_public(&layout.certificate("ca"), ca.certificate().to_pem().as_bytes())?;
    let mut keys = Vec::new();
    for (id, (name, kind)) in (1_u8..).zip(KEYS) {
        make_key(&slot, &ca, layout, KeyPairSpec { kind, id: vec![id], label: name.to_owned() }).await?;
        tracing::info!("made key {name} and its certificate");
    }
    let Reply::Keys(found) = ask(&slot, Command::ListKeys, "read back").await? else { bail!("the token listed no keys") };
    let uri = slot.token().uri();
    for (name, _) in KEYS {
        let key = found.iter().find(|key| key.label == name).with_context(|| format!("key {name} is not on the token"))?;
        ensure_well_kept(key)?;
        keys.push(KeyRecord { name: name.parse()?, uri: uri.with_key(key) });
    }
    Ok(TokenRecord { uri, keys })
}

async fn make_key(slot: &SlotHandle, ca: &DevCa, layout: &Layout, spec: KeyPairSpec) -> anyhow::Result<()> {
    let (id, label) = (spec.id.clone(), spec.label.clone());
    let Reply::Key { key, .. } = ask(slot, Command::GenerateKeyPair(spec), "given a key").await? else { bail!("the token made no key") };
    let public_key = key.public_key.with_context(|| format!("the token does not show the public key of {label}"))?;
    let subject = format!("Sealgate development {label}");
    let issue = if label == TSA_KEY { DevCa::issue_for_time_stamping } else { DevCa::issue };
    let certificate = issue(ca, &public_key, &subject, valid_for(VALID_FOR)?)?;
    write_public(&layout.certificate(&label), certificate.to_pem().as_bytes())?;
    let write = Command::WriteCertificate(CertificateOrder {
        id,
        label,
        certificate: certificate.as_der().to_vec(),
        chain: Vec::new(),
        replace: false,
    });
    ask(slot, write, "given a certificate").await.map(|_| ())
}

/// A key that could leave the token, or that was made elsewhere, would make development mode a wrong picture of the real thing.
fn ensure_well_kept(key: &KeyDescription) -> anyhow::Result<()> {
    let protection = key.protection;
    ensure!(
        protection.local && protection.sensitive && !protection.extractable,
        "the token does not keep key {} as it should (local {}, sensitive {}, extractable {}); is this really SoftHSM?",
        key.label,
        protection.local,
        protection.sensitive,
        protection.extractable
    );
    ensure!(key.certificate.is_some(), "the certificate of key {} is not on the token; remove the folder and try again", key.label);
    Ok(())
}

async fn ask(slot: &SlotHandle, command: Command, what: &str) -> anyhow::Result<Reply> {
    slot.call(command).await.with_context(|| format!("the new token could not be {what}; remove the folder and try again"))
}

async fn start(layout: &Layout, module: &Path) -> anyhow::Result<Tokens> {
    let ledger = StoredPinLedger::in_memory()?;
    let tokens = Tokens::start(settings(layout, module)?, Arc::new(ledger)).context("the module's thread did not start")?;
    tokens.settled(SETTLE_MAX).await;
    let problem = tokens.problems().remove(&module_name()?);
    if let Some(problem) = problem {
        tokens.stop().await;
        bail!("SoftHSM ({}) does not run: {problem}; install it again or set {}", module.display(), softhsm::SOFTHSM_VARIABLE);
    }
    Ok(tokens)
}

fn settings(layout: &Layout, module: &Path) -> anyhow::Result<TokenSettings> {
    let environment = BTreeMap::from([("SOFTHSM2_CONF".to_owned(), layout.softhsm2_conf().display().to_string())]);
    let module = ModuleSettings {
        options: ModuleOptions::named(module_name()?),
        source: ModuleSource::Library(PathBuf::from(module)),
        isolation: Isolation::Process(environment),
        limits: CallLimits::default(),
    };
    let unlisted = TokenPolicy { uri: Pkcs11Uri::default(), login: LoginMode::Operator, pin: None, queue_bound: QUEUE };
    Ok(TokenSettings { modules: vec![module], policies: Vec::new(), unlisted: Some(unlisted), host_program: host_program()?, marks: None })
}

fn module_name() -> anyhow::Result<ModuleName> {
    Ok(MODULE.parse()?)
}

fn valid_for(span: Duration) -> anyhow::Result<Validity> {
    let now = Timestamp::from(SystemTime::now());
    Validity::new(now, now.after(span)).context("the clock of this machine is wrong; set it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::token::KeyProtection;

    #[test]
    fn a_key_that_could_leave_the_token_is_not_taken() {
        let key = |protection, certificate| KeyDescription {
            id: vec![1],
            label: "rsa-2048".to_owned(),
            kind: KeyKind::Ed25519,
            public_key: None,
            certificate,
            always_authenticate: false,
            protection,
        };
        let kept = KeyProtection { sensitive: true, extractable: false, local: true };
        assert!(ensure_well_kept(&key(kept, Some(vec![]))).is_ok());
        assert!(ensure_well_kept(&key(kept, None)).is_err());
        for wrong in [
            KeyProtection { sensitive: false, ..kept },
            KeyProtection { extractable: true, ..kept },
            KeyProtection { local: false, ..kept },
        ] {
            assert!(ensure_well_kept(&key(wrong, Some(vec![]))).is_err(), "{wrong:?}");
        }
    }
}
