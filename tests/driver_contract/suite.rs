//! The rules that every token behind the driver keeps.
//!
//! A token that cannot keep one of them says so in a table of its own ([`Cannot`]), and [`check`] holds it to that, too: a rule on the table
//! must fail, and for the reason given there. Two test binaries use this file, each for its own tokens.
#![allow(dead_code, clippy::expect_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use sealgate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        digest::{Digest, SigningInput, ToSign},
        pin::Pin,
        token::{KeyDescription, KeyPairSpec, KeyProtection, KeySelector},
    },
    token::driver::{CachedKey, DeviceError, Outcome, Retry, SlotId, TokenDriver, TokenModule, TokenSighting},
};

use crate::common::{certificate, openssl};

/// The message that every test signs.
pub const MESSAGE: &[u8] = b"the driver contract";
const P256: KeyKind = KeyKind::Ec(Curve::P256);

/// A module with a token, and what goes with it.
pub struct Rig {
    pub module: Box<dyn TokenModule>,
    /// Which of the module's tokens it is about: a card may show itself as several.
    pub token_label: &'static str,
    pub user_pin: Pin,
    pub wrong_pin: Pin,
    pub keys: Keys,
    /// Makes a P-256 key that wants the PIN for each signature, where there is none yet.
    pub add_always_authenticate_key: Box<dyn Fn()>,
}

/// Where a token's keys come from.
pub enum Keys {
    /// There are none at first. These kinds, and no others, are made on the token, and sign.
    Made(Vec<KeyKind>),
    /// They are on the card: `CKA_ID`s of those on P-256 that want no PIN for each signature.
    OnTheCard(Vec<u8>),
}

/// A rule that a token cannot keep.
#[derive(Debug, Clone, Copy)]
pub struct Cannot {
    /// The rule's name.
    pub rule: &'static str,
    /// Why, for the table in `docs/modules.md`.
    pub why: &'static str,
    /// What the rule's failure says.
    pub seen: &'static str,
}

/// A row of such a table.
pub const fn cannot(rule: &'static str, why: &'static str, seen: &'static str) -> Cannot {
    Cannot { rule, why, seen }
}

/// Holds a token against a rule: it keeps it, or it is on its table and fails as the table says.
pub fn check(rig: &Rig, name: &str, rule: fn(&Rig), table: &[Cannot]) {
    let Some(cannot) = table.iter().find(|cannot| cannot.rule == name) else { return rule(rig) };
    let failure = catch_unwind(AssertUnwindSafe(|| rule(rig))).expect_err("this rule is kept now; take it off the table");
    let text = failure.downcast_ref::<String>().cloned().or_else(|| failure.downcast_ref::<&str>().map(ToString::to_string));
    let text = text.unwrap_or_default();
    assert!(text.contains(cannot.seen), "{name} fails, but not with {:?}: {text}", cannot.seen);
}

/// Each rule as a test of its own, in module `$tests`; `$run` is given the test's name, the rule's name and the rule.
#[macro_export]
macro_rules! contract {
    ($tests:ident, $run:path) => {
        $crate::contract! { $tests, $run,
            the_token_is_seen_with_its_names,
            the_token_says_that_it_is_present,
            a_slot_that_does_not_exist_cannot_be_opened,
            the_right_pin_logs_in,
            a_wrong_pin_is_rejected,
            the_flags_tell_of_a_wrong_pin,
            a_second_login_is_no_proof_of_a_pin,
            a_login_without_a_pin_needs_a_pin_pad,
            closing_the_last_session_logs_out,
            before_a_login_no_key_is_seen,
            a_generated_key_is_kept_on_the_token,
            a_key_outlives_the_session,
            an_id_is_given_once,
            a_key_that_the_token_cannot_make_is_refused,
            a_key_is_found_by_id_and_by_label_and_by_both,
            a_key_that_is_not_there_is_not_found,
            two_keys_with_one_name_are_an_error,
            each_digest_is_signed_and_verifies,
            entering_is_called_once_for_each_signature,
            an_algorithm_of_another_key_is_refused_before_entering,
            the_offered_algorithms_are_those_that_fit_the_key,
            each_kind_of_key_signs_with_all_its_algorithms,
            no_other_kind_of_key_is_made,
            a_logout_elsewhere_loses_the_session,
            a_certificate_is_read_back_beside_its_key,
            what_is_no_certificate_is_not_written,
            a_key_that_wants_a_pin_each_time_signs_with_it,
            a_key_that_wants_a_pin_each_time_is_not_entered_without,
            a_wrong_pin_for_one_signature_leaves_a_session_that_must_be_reopened,
        }
    };
    ($tests:ident, $run:path, $($rule:ident),+ $(,)?) => {
        mod $tests {
            $(#[test]
            fn $rule() {
                $run($crate::test_name!(), stringify!($rule), $crate::suite::$rule);
            })+
        }
    };
}

impl Rig {
    /// Opens a session on the token.
    pub fn open(&self) -> Box<dyn TokenDriver> {
        self.module.open(self.sighting().slot).unwrap()
    }

    fn sighting(&self) -> TokenSighting {
        let mut sightings = self.module.tokens().unwrap();
        sightings.retain(|sighting| sighting.token.label == self.token_label);
        assert_eq!(sightings.len(), 1, "{sightings:?}");
        sightings.remove(0)
    }

    /// Opens one and logs in.
    pub fn logged_in(&self) -> Box<dyn TokenDriver> {
        let mut driver = self.open();
        driver.login(Some(&self.user_pin)).unwrap();
        driver
    }

    /// A P-256 key of the token: made now, or the `number`-th of those that are there.
    fn key(&self, driver: &mut dyn TokenDriver, number: u8) -> KeyDescription {
        match &self.keys {
            Keys::Made(_) => driver.generate_key_pair(&spec(P256, number + 1, &format!("key {number}"))).unwrap(),
            Keys::OnTheCard(ids) => {
                let id = *ids.get(usize::from(number)).expect("the card has no such key");
                driver.list_keys().unwrap().into_iter().find(|key| key.id == [id]).expect("the card's key is listed")
            }
        }
    }
}

/// Names a key by its `CKA_ID`.
fn named(key: &KeyDescription) -> KeySelector {
    KeySelector { id: Some(key.id.clone()), label: None }
}

pub fn spec(kind: KeyKind, id: u8, label: &str) -> KeyPairSpec {
    KeyPairSpec { kind, id: vec![id], label: label.to_owned() }
}

pub fn by_id(id: u8) -> KeySelector {
    KeySelector { id: Some(vec![id]), label: None }
}

fn by_label(label: &str) -> KeySelector {
    KeySelector { id: None, label: Some(label.to_owned()) }
}

/// What is to be signed for [`MESSAGE`] with `algorithm`.
pub fn to_sign(algorithm: SignatureAlgorithm) -> ToSign {
    let input = match algorithm.hash() {
        None => SigningInput::Message(MESSAGE.to_vec()),
        Some(hash) => SigningInput::Digest(Digest::new(hash, digest_of_message(hash)).unwrap()),
    };
    ToSign::new(algorithm, input).unwrap()
}

fn digest_of_message(hash: HashAlgorithm) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
    let algorithm = match hash {
        HashAlgorithm::Sha256 => &SHA256,
        HashAlgorithm::Sha384 => &SHA384,
        HashAlgorithm::Sha512 => &SHA512,
    };
    digest(algorithm, MESSAGE).as_ref().to_vec()
}

/// Signs [`MESSAGE`], has OpenSSL check it, and says how often `entering` was called.
pub fn sign_and_verify(driver: &mut dyn TokenDriver, key: &CachedKey, public_key: &[u8], algorithm: SignatureAlgorithm) -> usize {
    sign_with_pin_and_verify(driver, key, None, public_key, algorithm)
}

fn sign_with_pin_and_verify(
    driver: &mut dyn TokenDriver,
    key: &CachedKey,
    pin: Option<&Pin>,
    public_key: &[u8],
    algorithm: SignatureAlgorithm,
) -> usize {
    let mut entered = 0;
    let signature = driver.sign(key, &to_sign(algorithm), pin, &mut || entered += 1).unwrap();
    let verified = openssl::verifies(public_key, algorithm, MESSAGE, &signature.to_x509_bytes());
    assert!(verified, "OpenSSL does not accept {algorithm} with a key {}", key.kind);
    entered
}

fn any_to_sign() -> ToSign {
    to_sign(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256))
}

pub fn pin(text: &str) -> Pin {
    Pin::new(text.to_owned()).unwrap()
}

fn never_entered() {
    panic!("C_Sign was entered");
}

pub fn the_token_is_seen_with_its_names(rig: &Rig) {
    let sighting = rig.sighting();
    for field in [&sighting.token.manufacturer, &sighting.token.model, &sighting.token.serial] {
        assert!(!field.is_empty() && field.trim() == field, "{field:?}");
    }
    assert!(sighting.flags.initialized && sighting.flags.login_required && sighting.flags.user_pin_initialized);
    assert_eq!(rig.open().flags().unwrap(), sighting.flags);
}

pub fn the_token_says_that_it_is_present(rig: &Rig) {
    assert_eq!(rig.open().check_presence(), Ok(()));
}

pub fn a_slot_that_does_not_exist_cannot_be_opened(rig: &Rig) {
    assert!(matches!(rig.module.open(SlotId(4_000_000)).map(drop), Err(DeviceError::TokenGone(_))));
}

pub fn the_right_pin_logs_in(rig: &Rig) {
    let mut driver = rig.open();
    assert_eq!(driver.login(Some(&rig.user_pin)), Ok(()));
    assert_eq!(driver.logout(), Ok(()));
    assert_eq!(driver.login(Some(&rig.user_pin)), Ok(()));
}

pub fn a_wrong_pin_is_rejected(rig: &Rig) {
    let mut driver = rig.open();
    assert_eq!(driver.login(Some(&rig.wrong_pin)), Err(DeviceError::PinRejected));
    assert_eq!(driver.login(Some(&rig.user_pin)), Ok(()));
}

pub fn the_flags_tell_of_a_wrong_pin(rig: &Rig) {
    let mut driver = rig.open();
    assert!(!driver.flags().unwrap().user_pin_count_low);
    assert_eq!(driver.login(Some(&rig.wrong_pin)), Err(DeviceError::PinRejected));
    assert!(driver.flags().unwrap().user_pin_count_low, "a wrong PIN, and no flag");
    driver.login(Some(&rig.user_pin)).unwrap();
    assert!(!driver.flags().unwrap().user_pin_count_low);
}

pub fn a_second_login_is_no_proof_of_a_pin(rig: &Rig) {
    let mut driver = rig.logged_in();
    for pin in [&rig.user_pin, &rig.wrong_pin] {
        assert_eq!(driver.login(Some(pin)), Err(DeviceError::AlreadyLoggedIn));
        assert_eq!(rig.open().login(Some(pin)), Err(DeviceError::AlreadyLoggedIn));
    }
}

pub fn a_login_without_a_pin_needs_a_pin_pad(rig: &Rig) {
    let error = rig.open().login(None).unwrap_err();
    assert!(matches!(error, DeviceError::LoginRequired(_)), "{error:?}");
    assert!(!rig.open().flags().unwrap().user_pin_count_low);
}

pub fn closing_the_last_session_logs_out(rig: &Rig) {
    let anchor = rig.open();
    drop(rig.logged_in());
    assert_eq!(rig.open().login(Some(&rig.user_pin)), Err(DeviceError::AlreadyLoggedIn));
    drop(anchor);
    assert_eq!(rig.open().login(Some(&rig.user_pin)), Ok(()));
}

pub fn before_a_login_no_key_is_seen(rig: &Rig) {
    let key = rig.key(&mut *rig.logged_in(), 0);
    let mut driver = rig.open();
    assert_eq!(driver.list_keys(), Ok(Vec::new()));
    let error = driver.find_key(&named(&key)).unwrap_err();
    assert!(matches!(error, DeviceError::SessionLost(_)), "not a key that is missing: {error:?}");
}

pub fn a_generated_key_is_kept_on_the_token(rig: &Rig) {
    let mut driver = rig.logged_in();
    let made = driver.generate_key_pair(&spec(P256, 0x2a, "a key")).unwrap();
    assert_eq!((made.id.as_slice(), made.label.as_str(), &made.kind), (&[0x2a][..], "a key", &P256));
    assert_eq!(made.protection, KeyProtection { sensitive: true, extractable: false, local: true });
    assert!(!made.always_authenticate);
    assert_eq!(made.certificate, None);
    assert!(made.public_key.is_some());
    assert_eq!(driver.list_keys(), Ok(vec![made]));
}

pub fn a_key_outlives_the_session(rig: &Rig) {
    let made = rig.key(&mut *rig.logged_in(), 0);
    let keys = rig.logged_in().list_keys().unwrap();
    assert!(keys.contains(&made), "{keys:?}");
}

pub fn an_id_is_given_once(rig: &Rig) {
    let mut driver = rig.logged_in();
    driver.generate_key_pair(&spec(P256, 1, "first")).unwrap();
    for refused in [spec(P256, 1, "second"), KeyPairSpec { id: Vec::new(), ..spec(P256, 0, "no id") }] {
        let error = driver.generate_key_pair(&refused).unwrap_err();
        assert!(matches!(error, DeviceError::Refused(_)), "{error:?}");
    }
    assert_eq!(driver.list_keys().unwrap().len(), 1);
}

pub fn a_key_that_the_token_cannot_make_is_refused(rig: &Rig) {
    let mut driver = rig.logged_in();
    let before = driver.list_keys();
    for kind in [KeyKind::Rsa { modulus_bits: 1024 }, KeyKind::Unsupported("of lead".to_owned())] {
        let error = driver.generate_key_pair(&spec(kind, 1, "k")).unwrap_err();
        assert!(matches!(error, DeviceError::Unsupported(_)), "{error:?}");
    }
    assert_eq!(driver.list_keys(), before);
}

pub fn a_key_is_found_by_id_and_by_label_and_by_both(rig: &Rig) {
    let mut driver = rig.logged_in();
    let one = rig.key(&mut *driver, 0);
    let two = rig.key(&mut *driver, 1);
    let found = driver.find_key(&named(&two)).unwrap();
    assert_eq!((&found.kind, found.always_authenticate), (&P256, false));
    assert_eq!(driver.find_key(&by_label(&two.label)).unwrap(), found);
    assert_eq!(driver.find_key(&KeySelector { label: Some(two.label.clone()), ..named(&two) }).unwrap(), found);
    assert_ne!(driver.find_key(&named(&one)).unwrap().handle, found.handle);
}

pub fn a_key_that_is_not_there_is_not_found(rig: &Rig) {
    let mut driver = rig.logged_in();
    let one = rig.key(&mut *driver, 0);
    let contradiction = KeySelector { label: Some("two".to_owned()), ..named(&one) };
    for selector in [by_id(0x99), by_label(&format!("{} ", one.label)), contradiction] {
        assert_eq!(driver.find_key(&selector), Err(DeviceError::KeyNotFound(selector.to_string())));
    }
}

pub fn two_keys_with_one_name_are_an_error(rig: &Rig) {
    let mut driver = rig.logged_in();
    driver.generate_key_pair(&spec(P256, 1, "same")).unwrap();
    driver.generate_key_pair(&spec(P256, 2, "same")).unwrap();
    assert_eq!(driver.find_key(&by_label("same")), Err(DeviceError::KeyAmbiguous { selector: by_label("same").to_string(), count: 2 }));
    assert!(driver.find_key(&by_id(2)).is_ok());
}

pub fn each_digest_is_signed_and_verifies(rig: &Rig) {
    let mut driver = rig.logged_in();
    let described = rig.key(&mut *driver, 0);
    let key = driver.find_key(&named(&described)).unwrap();
    for hash in HashAlgorithm::ALL {
        sign_and_verify(&mut *driver, &key, described.public_key.as_ref().unwrap(), SignatureAlgorithm::Ecdsa(hash));
    }
}

pub fn entering_is_called_once_for_each_signature(rig: &Rig) {
    let mut driver = rig.logged_in();
    let described = rig.key(&mut *driver, 0);
    let key = driver.find_key(&named(&described)).unwrap();
    let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
    for _ in 0..3 {
        assert_eq!(sign_and_verify(&mut *driver, &key, described.public_key.as_ref().unwrap(), algorithm), 1);
    }
}

pub fn an_algorithm_of_another_key_is_refused_before_entering(rig: &Rig) {
    let mut driver = rig.logged_in();
    let described = rig.key(&mut *driver, 0);
    let key = driver.find_key(&named(&described)).unwrap();
    for algorithm in [SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256), SignatureAlgorithm::Ed25519] {
        let error = driver.sign(&key, &to_sign(algorithm), None, &mut never_entered).unwrap_err();
        assert!(matches!(error, DeviceError::Unsupported(_)), "{error:?}");
    }
}

pub fn the_offered_algorithms_are_those_that_fit_the_key(rig: &Rig) {
    let mut driver = rig.open();
    assert_eq!(driver.algorithms(&P256), Ok(HashAlgorithm::ALL.map(SignatureAlgorithm::Ecdsa).to_vec()));
    assert_eq!(driver.algorithms(&KeyKind::Unsupported("of lead".to_owned())), Ok(Vec::new()));
}

/// Each key that the token makes, or that is on it, with every algorithm that it offers for it.
pub fn each_kind_of_key_signs_with_all_its_algorithms(rig: &Rig) {
    let mut driver = rig.logged_in();
    if let Keys::Made(kinds) = &rig.keys {
        for (id, kind) in (1..).zip(kinds) {
            let made = driver.generate_key_pair(&spec(kind.clone(), id, &kind.to_string())).unwrap();
            assert_eq!(&made.kind, kind);
        }
    }
    for described in driver.list_keys().unwrap() {
        let key = driver.find_key(&named(&described)).unwrap();
        let algorithms = driver.algorithms(&described.kind).unwrap();
        assert!(!algorithms.is_empty(), "{}", described.kind);
        for algorithm in algorithms {
            let pin = described.always_authenticate.then_some(&rig.user_pin);
            sign_with_pin_and_verify(&mut *driver, &key, pin, described.public_key.as_ref().unwrap(), algorithm);
        }
    }
}

pub fn no_other_kind_of_key_is_made(rig: &Rig) {
    let Keys::Made(kinds) = &rig.keys else { panic!("the card's keys are made with other tools") };
    let mut driver = rig.logged_in();
    for kind in every_kind().into_iter().filter(|kind| !kinds.contains(kind)) {
        let refused = driver.generate_key_pair(&spec(kind.clone(), 1, "k"));
        assert!(matches!(refused, Err(DeviceError::Unsupported(_))), "{kind}: {refused:?}");
    }
}

pub fn every_kind() -> Vec<KeyKind> {
    let rsa = [2048, 3072, 4096].map(|modulus_bits| KeyKind::Rsa { modulus_bits });
    let ec = [Curve::P256, Curve::P384, Curve::P521].map(KeyKind::Ec);
    rsa.into_iter().chain(ec).chain([KeyKind::Ed25519]).collect()
}

pub fn a_logout_elsewhere_loses_the_session(rig: &Rig) {
    let mut driver = rig.logged_in();
    let described = rig.key(&mut *driver, 0);
    let key = driver.find_key(&named(&described)).unwrap();
    rig.open().logout().unwrap();
    // Some modules notice it in C_SignInit, others in C_Sign.
    let error = driver.sign(&key, &any_to_sign(), None, &mut || ()).unwrap_err();
    assert_eq!((error.retry(), error.outcome()), (Retry::AfterReopen, Outcome::NotPerformed), "{error:?}");

    // What the slot's thread does then.
    let mut driver = rig.logged_in();
    let key = driver.find_key(&named(&described)).unwrap();
    assert!(driver.sign(&key, &any_to_sign(), None, &mut || ()).is_ok());
}

pub fn a_certificate_is_read_back_beside_its_key(rig: &Rig) {
    let mut driver = rig.logged_in();
    let one = rig.key(&mut *driver, 0);
    let certificate = certificate::issue(one.public_key.as_ref().unwrap(), "CN=k,O=Sealgate,C=UA", 20_000);
    driver.write_certificate(&one.id, "k", &certificate).unwrap();
    let other = rig.key(&mut *driver, 1);
    let keys = driver.list_keys().unwrap();
    let read = |id: &[u8]| keys.iter().find(|key| key.id == id).unwrap();
    assert_eq!(read(&one.id).certificate.as_ref(), Some(&certificate));
    assert_eq!(read(&one.id).public_key, one.public_key);
    assert_eq!(read(&other.id), &other);
}

pub fn what_is_no_certificate_is_not_written(rig: &Rig) {
    let mut driver = rig.logged_in();
    let made = rig.key(&mut *driver, 0);
    let before = driver.list_keys();
    let error = driver.write_certificate(&made.id, "k", b"no certificate").unwrap_err();
    assert!(matches!(error, DeviceError::Refused(_)), "{error:?}");
    assert_eq!(driver.list_keys(), before);
}

pub fn certificates_are_listed_and_removed_one_by_one(rig: &Rig) {
    let mut driver = rig.logged_in();
    let key = rig.key(&mut *driver, 0);
    let issue = |day| certificate::issue(key.public_key.as_ref().unwrap(), "CN=k,O=Sealgate,C=UA", day);
    let (old, new, of_no_key) = (issue(20_000), issue(20_001), issue(20_002));
    driver.write_certificate(&key.id, "k", &old).unwrap();
    driver.write_certificate(&key.id, "k", &new).unwrap();
    driver.write_certificate(&[], "CA", &of_no_key).unwrap();
    assert_eq!(driver.certificates(&key.id).unwrap().len(), 2);
    driver.remove_certificate(&key.id, &old).unwrap();
    assert_eq!(driver.certificates(&key.id).unwrap(), [new]);
    assert_eq!(driver.certificates(&[]).unwrap(), [of_no_key]);
    assert_eq!(driver.certificates(&[0x77]).unwrap(), Vec::<Vec<u8>>::new());
}

pub fn a_key_pair_is_destroyed_with_both_halves_and_no_other(rig: &Rig) {
    let mut driver = rig.logged_in();
    let (one, other) = (rig.key(&mut *driver, 0), rig.key(&mut *driver, 1));
    driver.destroy_key_pair(&one.id).unwrap();
    assert_eq!(driver.list_keys().unwrap(), [other]);
    // The id is free again, so no half is left.
    driver.generate_key_pair(&KeyPairSpec { kind: P256, id: one.id, label: "again".to_owned() }).unwrap();
}

/// What the rules about such keys say of a token that has none.
pub const NO_SUCH_KEY: &str = "a key that wants its PIN each time";

fn always_key(driver: &mut dyn TokenDriver) -> (KeyDescription, CachedKey) {
    let described = driver.list_keys().unwrap().into_iter().find(|key| key.always_authenticate).expect(NO_SUCH_KEY);
    let key = driver.find_key(&named(&described)).unwrap();
    assert!(key.always_authenticate);
    (described, key)
}

pub fn a_key_that_wants_a_pin_each_time_signs_with_it(rig: &Rig) {
    (rig.add_always_authenticate_key)();
    let mut driver = rig.logged_in();
    let (described, key) = always_key(&mut *driver);
    for _ in 0..2 {
        let (pin, public_key) = (Some(&rig.user_pin), described.public_key.as_ref().unwrap());
        assert_eq!(sign_with_pin_and_verify(&mut *driver, &key, pin, public_key, any_to_sign().algorithm()), 1);
    }
}

pub fn a_key_that_wants_a_pin_each_time_is_not_entered_without(rig: &Rig) {
    (rig.add_always_authenticate_key)();
    let mut driver = rig.logged_in();
    let (_, key) = always_key(&mut *driver);
    let error = driver.sign(&key, &any_to_sign(), None, &mut never_entered).unwrap_err();
    assert!(matches!(error, DeviceError::LoginRequired(_)), "{error:?}");
    let signed = driver.sign(&key, &any_to_sign(), Some(&rig.user_pin), &mut || ());
    assert!(signed.is_ok(), "the session is not as good as before: {signed:?}");
}

pub fn a_wrong_pin_for_one_signature_leaves_a_session_that_must_be_reopened(rig: &Rig) {
    (rig.add_always_authenticate_key)();
    let mut driver = rig.logged_in();
    let (_, key) = always_key(&mut *driver);
    assert_eq!(driver.sign(&key, &any_to_sign(), Some(&rig.wrong_pin), &mut never_entered), Err(DeviceError::PinRejected));
    let error = driver.sign(&key, &any_to_sign(), Some(&rig.user_pin), &mut never_entered).unwrap_err();
    assert!(matches!(error, DeviceError::SessionLost(_)), "{error:?}");
    drop(driver);

    let mut driver = rig.logged_in();
    let (_, key) = always_key(&mut *driver);
    let signed = driver.sign(&key, &any_to_sign(), Some(&rig.user_pin), &mut || ());
    assert!(signed.is_ok(), "{signed:?}");
}

pub fn a_token_is_made_in_a_free_slot(module: &dyn TokenModule) {
    assert_eq!(module.tokens(), Ok(Vec::new()));
    module.create_token("made here", &pin("12345678"), &pin("987654")).unwrap();
    let sightings = module.tokens().unwrap();
    assert_eq!(sightings.len(), 1);
    assert_eq!(sightings[0].token.label, "made here");
    let mut driver = module.open(sightings[0].slot).unwrap();
    assert_eq!(driver.login(Some(&pin("12345678"))), Err(DeviceError::PinRejected));
    assert_eq!(driver.login(Some(&pin("987654"))), Ok(()));
    assert!(driver.generate_key_pair(&spec(P256, 1, "k")).is_ok());
}
