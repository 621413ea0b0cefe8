//! The rules that every token behind the driver keeps.

use sealgate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        digest::{Digest, SigningInput, ToSign},
        token::{KeyPairSpec, KeyProtection, KeySelector},
    },
    token::driver::{CachedKey, DeviceError, Outcome, Retry, SlotId, TokenDriver, TokenModule},
};

use crate::{
    Rig,
    common::{certificate, openssl},
    pin,
};

/// The message that every test signs.
pub const MESSAGE: &[u8] = b"the driver contract";
const P256: KeyKind = KeyKind::Ec(Curve::P256);

impl Rig {
    /// Opens a session on the one token.
    pub fn open(&self) -> Box<dyn TokenDriver> {
        let sightings = self.module.tokens().unwrap();
        assert_eq!(sightings.len(), 1, "{sightings:?}");
        self.module.open(sightings[0].slot).unwrap()
    }

    /// Opens one and logs in.
    pub fn logged_in(&self) -> Box<dyn TokenDriver> {
        let mut driver = self.open();
        driver.login(Some(&self.user_pin)).unwrap();
        driver
    }
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
    let mut entered = 0;
    let signature = driver.sign(key, &to_sign(algorithm), None, &mut || entered += 1).unwrap();
    let verified = openssl::verifies(public_key, algorithm, MESSAGE, &signature.to_x509_bytes());
    assert!(verified, "OpenSSL does not accept {algorithm} with a key {}", key.kind);
    entered
}

fn any_to_sign() -> ToSign {
    to_sign(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256))
}

fn never_entered() {
    panic!("C_Sign was entered");
}

pub fn the_token_is_seen_with_its_names(rig: &Rig) {
    let sighting = rig.module.tokens().unwrap().remove(0);
    assert_eq!(sighting.token.label, crate::common::softhsm::TOKEN_LABEL);
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

pub fn a_wrong_pin_is_rejected_and_the_flags_tell(rig: &Rig) {
    let mut driver = rig.open();
    assert!(!driver.flags().unwrap().user_pin_count_low);
    assert_eq!(driver.login(Some(&rig.wrong_pin)), Err(DeviceError::PinRejected));
    assert!(driver.flags().unwrap().user_pin_count_low);
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
    rig.logged_in().generate_key_pair(&spec(P256, 1, "k")).unwrap();
    let mut driver = rig.open();
    assert_eq!(driver.list_keys(), Ok(Vec::new()));
    let error = driver.find_key(&by_id(1)).unwrap_err();
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
    let made = rig.logged_in().generate_key_pair(&spec(P256, 1, "k")).unwrap();
    assert_eq!(rig.logged_in().list_keys(), Ok(vec![made]));
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
    for kind in [KeyKind::Rsa { modulus_bits: 1024 }, KeyKind::Unsupported("of lead".to_owned())] {
        let error = driver.generate_key_pair(&spec(kind, 1, "k")).unwrap_err();
        assert!(matches!(error, DeviceError::Unsupported(_)), "{error:?}");
    }
    assert_eq!(driver.list_keys(), Ok(Vec::new()));
}

pub fn a_key_is_found_by_id_and_by_label_and_by_both(rig: &Rig) {
    let mut driver = rig.logged_in();
    driver.generate_key_pair(&spec(P256, 1, "one")).unwrap();
    driver.generate_key_pair(&spec(P256, 2, "two")).unwrap();
    let found = driver.find_key(&by_id(2)).unwrap();
    assert_eq!((&found.kind, found.always_authenticate), (&P256, false));
    assert_eq!(driver.find_key(&by_label("two")).unwrap(), found);
    assert_eq!(driver.find_key(&KeySelector { id: Some(vec![2]), label: Some("two".to_owned()) }).unwrap(), found);
    assert_ne!(driver.find_key(&by_id(1)).unwrap().handle, found.handle);
}

pub fn a_key_that_is_not_there_is_not_found(rig: &Rig) {
    let mut driver = rig.logged_in();
    driver.generate_key_pair(&spec(P256, 1, "one")).unwrap();
    let contradiction = KeySelector { id: Some(vec![1]), label: Some("two".to_owned()) };
    for selector in [by_id(9), by_label("one "), contradiction] {
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
    let public_key = driver.generate_key_pair(&spec(P256, 1, "k")).unwrap().public_key.unwrap();
    let key = driver.find_key(&by_id(1)).unwrap();
    for hash in HashAlgorithm::ALL {
        sign_and_verify(&mut *driver, &key, &public_key, SignatureAlgorithm::Ecdsa(hash));
    }
}

pub fn entering_is_called_once_for_each_signature(rig: &Rig) {
    let mut driver = rig.logged_in();
    let public_key = driver.generate_key_pair(&spec(P256, 1, "k")).unwrap().public_key.unwrap();
    let key = driver.find_key(&by_id(1)).unwrap();
    for _ in 0..3 {
        assert_eq!(sign_and_verify(&mut *driver, &key, &public_key, SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256)), 1);
    }
}

pub fn an_algorithm_of_another_key_is_refused_before_entering(rig: &Rig) {
    let mut driver = rig.logged_in();
    driver.generate_key_pair(&spec(P256, 1, "k")).unwrap();
    let key = driver.find_key(&by_id(1)).unwrap();
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

pub fn a_logout_elsewhere_loses_the_session(rig: &Rig) {
    let mut driver = rig.logged_in();
    driver.generate_key_pair(&spec(P256, 1, "k")).unwrap();
    let key = driver.find_key(&by_id(1)).unwrap();
    rig.open().logout().unwrap();
    let error = driver.sign(&key, &any_to_sign(), None, &mut never_entered).unwrap_err();
    assert!(matches!(error, DeviceError::SessionLost(_)), "{error:?}");
    assert_eq!((error.retry(), error.outcome()), (Retry::AfterReopen, Outcome::NotPerformed));

    // What the slot's thread does then.
    let mut driver = rig.logged_in();
    let key = driver.find_key(&by_id(1)).unwrap();
    assert!(driver.sign(&key, &any_to_sign(), None, &mut || ()).is_ok());
}

pub fn a_certificate_is_read_back_beside_its_key(rig: &Rig) {
    let mut driver = rig.logged_in();
    let public_key = driver.generate_key_pair(&spec(P256, 1, "k")).unwrap().public_key.unwrap();
    let other = driver.generate_key_pair(&spec(P256, 2, "other")).unwrap();
    let certificate = certificate::issue(&public_key, "CN=k,O=Sealgate,C=UA", 20_000);
    driver.write_certificate(&[1], "k", &certificate).unwrap();
    let mut keys = driver.list_keys().unwrap();
    keys.sort_by(|one, two| one.id.cmp(&two.id));
    assert_eq!(keys[0].certificate.as_ref(), Some(&certificate));
    assert_eq!(keys[0].public_key.as_ref(), Some(&public_key));
    assert_eq!(keys[1], other);
}

pub fn what_is_no_certificate_is_not_written(rig: &Rig) {
    let mut driver = rig.logged_in();
    let made = driver.generate_key_pair(&spec(P256, 1, "k")).unwrap();
    let error = driver.write_certificate(&[1], "k", b"no certificate").unwrap_err();
    assert!(matches!(error, DeviceError::Refused(_)), "{error:?}");
    assert_eq!(driver.list_keys(), Ok(vec![made]));
}

pub fn a_key_that_wants_a_pin_each_time_signs_with_it(rig: &Rig) {
    (rig.add_always_authenticate_key)(1);
    let mut driver = rig.logged_in();
    let public_key = driver.list_keys().unwrap().remove(0).public_key.unwrap();
    let key = driver.find_key(&by_id(1)).unwrap();
    assert!(key.always_authenticate);
    for _ in 0..2 {
        let mut entered = 0;
        let signature = driver.sign(&key, &any_to_sign(), Some(&rig.user_pin), &mut || entered += 1).unwrap();
        assert!(openssl::verifies(&public_key, any_to_sign().algorithm(), MESSAGE, &signature.to_x509_bytes()));
        assert_eq!(entered, 1);
    }
}

pub fn a_key_that_wants_a_pin_each_time_is_not_entered_without(rig: &Rig) {
    (rig.add_always_authenticate_key)(1);
    let mut driver = rig.logged_in();
    let key = driver.find_key(&by_id(1)).unwrap();
    let error = driver.sign(&key, &any_to_sign(), None, &mut never_entered).unwrap_err();
    assert!(matches!(error, DeviceError::LoginRequired(_)), "{error:?}");
    assert!(driver.sign(&key, &any_to_sign(), Some(&rig.user_pin), &mut || ()).is_ok(), "the session is as good as before");
}

pub fn a_wrong_pin_for_one_signature_leaves_a_session_that_must_be_reopened(rig: &Rig) {
    (rig.add_always_authenticate_key)(1);
    let mut driver = rig.logged_in();
    let key = driver.find_key(&by_id(1)).unwrap();
    assert_eq!(driver.sign(&key, &any_to_sign(), Some(&rig.wrong_pin), &mut never_entered), Err(DeviceError::PinRejected));
    let error = driver.sign(&key, &any_to_sign(), Some(&rig.user_pin), &mut never_entered).unwrap_err();
    assert!(matches!(error, DeviceError::SessionLost(_)), "{error:?}");
    drop(driver);

    let mut driver = rig.logged_in();
    let key = driver.find_key(&by_id(1)).unwrap();
    assert!(driver.sign(&key, &any_to_sign(), Some(&rig.user_pin), &mut || ()).is_ok());
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
