//! What only a real token can show: every kind of key with every algorithm, other programs on the same token, a token that goes.

use std::path::Path;

use sealgate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        token::KeyProtection,
    },
    token::{
        driver::{DeviceError, Outcome, Retry, TokenDriver, TokenModule},
        pkcs11::{ModuleOptions, Pkcs11Module},
    },
};

use crate::{
    common::{
        certificate, openssl, own_process,
        p11kit::P11Kit,
        softhsm::{SoftHsm, TOKEN_LABEL, USER_PIN, spy_count, spy_environment, spy_module},
    },
    suite::{Keys, Rig, by_id, every_kind, pin, sign_and_verify, spec, to_sign},
    test_name,
};

const P256: KeyKind = KeyKind::Ec(Curve::P256);
const RSA: KeyKind = KeyKind::Rsa { modulus_bits: 2048 };

/// Runs `body` in a process of its own, which has a SoftHSM with one token.
pub fn in_own_process(test: &str, body: impl FnOnce()) {
    own_process::run(test, |directory| SoftHsm::in_directory(directory).init_token(TOKEN_LABEL).environment(), body);
}

pub fn options() -> ModuleOptions {
    ModuleOptions::named("softhsm".parse().unwrap())
}

pub fn load() -> Pkcs11Module {
    Pkcs11Module::load(&SoftHsm::module(), options()).unwrap()
}

pub fn rig() -> Rig {
    rig_of(load())
}

fn rig_of(module: Pkcs11Module) -> Rig {
    Rig {
        module: Box::new(module),
        token_label: TOKEN_LABEL,
        user_pin: pin(USER_PIN),
        wrong_pin: pin("654321"),
        keys: Keys::Made(every_kind()),
        add_always_authenticate_key: Box::new(|| always_key(1)),
    }
}

fn always_key(id: u8) {
    let id = format!("{id:02x}");
    let generate = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "always", "--usage-sign", "--always-auth", "--id", &id];
    SoftHsm::of_this_process().pkcs11_tool(&generate);
}

fn make_key(driver: &mut dyn TokenDriver, kind: KeyKind) -> Vec<u8> {
    driver.generate_key_pair(&spec(kind, 1, "k")).unwrap().public_key.unwrap()
}

/// Every algorithm that goes with such a key, each verified by OpenSSL.
fn check_all_algorithms(kind: &KeyKind, expected: usize) {
    let rig = rig();
    let mut driver = rig.logged_in();
    let made = driver.generate_key_pair(&spec(kind.clone(), 1, "k")).unwrap();
    assert_eq!((&made.kind, made.protection), (kind, KeyProtection { sensitive: true, extractable: false, local: true }));
    let key = driver.find_key(&by_id(1)).unwrap();
    assert_eq!(&key.kind, kind);
    let algorithms = driver.algorithms(kind).unwrap();
    assert_eq!(algorithms.len(), expected, "{algorithms:?}");
    for algorithm in algorithms {
        sign_and_verify(&mut *driver, &key, made.public_key.as_ref().unwrap(), algorithm);
    }
}

#[test]
fn rsa_2048_signs_with_all_its_algorithms() {
    in_own_process(test_name!(), || check_all_algorithms(&RSA, 6));
}

#[test]
fn rsa_3072_signs_with_all_its_algorithms() {
    in_own_process(test_name!(), || check_all_algorithms(&KeyKind::Rsa { modulus_bits: 3072 }, 6));
}

#[test]
fn p256_signs_with_all_its_algorithms() {
    in_own_process(test_name!(), || check_all_algorithms(&P256, 3));
}

#[test]
fn p384_signs_with_all_its_algorithms() {
    in_own_process(test_name!(), || check_all_algorithms(&KeyKind::Ec(Curve::P384), 3));
}

#[test]
fn p521_signs_with_all_its_algorithms() {
    in_own_process(test_name!(), || check_all_algorithms(&KeyKind::Ec(Curve::P521), 3));
}

#[test]
fn ed25519_signs_with_all_its_algorithms() {
    in_own_process(test_name!(), || check_all_algorithms(&KeyKind::Ed25519, 1));
}

#[test]
fn a_generated_key_is_for_signing_only() {
    in_own_process(test_name!(), || {
        let rig = rig();
        let mut driver = rig.logged_in();
        for (id, kind) in (1..).zip([P256, RSA, KeyKind::Ed25519]) {
            driver.generate_key_pair(&spec(kind, id, "k")).unwrap();
        }
        let listed = SoftHsm::of_this_process().pkcs11_tool(&["--list-objects", "--type", "privkey"]);
        let uses: Vec<&str> = listed.lines().filter_map(|line| line.trim().strip_prefix("Usage:")).map(str::trim).collect();
        assert_eq!(uses, ["sign", "sign", "sign"], "{listed}");
    });
}

#[test]
fn keys_from_outside_have_the_public_key_that_openssl_gave_them() {
    in_own_process(test_name!(), || {
        let hsm = SoftHsm::of_this_process();
        let pem = hsm.configuration().with_file_name("imported.pem");
        let p384 = KeyKind::Ec(Curve::P384);
        let sorts: [(KeyKind, &[&str]); 3] = [
            (RSA, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
            (p384, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
            // SoftHSM keeps an imported Ed25519 key in another form than one of its own.
            (KeyKind::Ed25519, &["-algorithm", "ED25519"]),
        ];
        let rig = rig();
        for (number, (kind, arguments)) in sorts.into_iter().enumerate() {
            let public_key = openssl::private_key(&pem, arguments);
            let id = u8::try_from(number).unwrap() + 1;
            hsm.import_key(&pem, "imported", &format!("{id:02x}"));
            let mut driver = rig.logged_in();
            let key = driver.list_keys().unwrap().into_iter().find(|key| key.id == [id]).unwrap();
            assert_eq!((&key.kind, key.public_key.as_ref()), (&kind, Some(&public_key)));
            assert!(!key.protection.local, "a key from outside does not pass as one made on the token");
            let cached = driver.find_key(&by_id(id)).unwrap();
            sign_and_verify(&mut *driver, &cached, &public_key, kind.default_algorithm().unwrap());
        }
    });
}

#[test]
fn a_mechanism_that_the_token_lacks_is_refused_before_entering() {
    let environment = |directory: &Path| {
        let restricted = "slots.mechanisms = CKM_RSA_PKCS,CKM_RSA_PKCS_KEY_PAIR_GEN";
        SoftHsm::with_setting(directory, restricted).init_token(TOKEN_LABEL).environment()
    };
    own_process::run(test_name!(), environment, || {
        let rig = rig();
        let mut driver = rig.logged_in();
        make_key(&mut *driver, RSA);
        let key = driver.find_key(&by_id(1)).unwrap();
        assert_eq!(driver.algorithms(&RSA), Ok(HashAlgorithm::ALL.map(SignatureAlgorithm::RsaPkcs1).to_vec()));
        let pss = to_sign(SignatureAlgorithm::RsaPss(HashAlgorithm::Sha256));
        let error = driver.sign(&key, &pss, None, &mut || panic!("C_Sign was entered")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token cannot do this: rsa-pss-sha256 with a key RSA 2048: its mechanism list has no CKM_RSA_PKCS_PSS"
        );
        assert!(matches!(driver.generate_key_pair(&spec(P256, 2, "k")), Err(DeviceError::Unsupported(_))));
        assert!(driver.sign(&key, &to_sign(SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256)), None, &mut || ()).is_ok());
    });
}

#[test]
fn one_signature_is_one_c_sign() {
    let environment = |directory: &Path| {
        let mut environment = SoftHsm::in_directory(directory).init_token(TOKEN_LABEL).environment();
        environment.extend(spy_environment(&directory.join("spy.log")));
        environment
    };
    own_process::run(test_name!(), environment, || {
        let log = SoftHsm::of_this_process().configuration().with_file_name("spy.log");
        let rig = rig_of(Pkcs11Module::load(&spy_module(), options()).unwrap());
        let mut driver = rig.logged_in();
        let public_key = make_key(&mut *driver, P256);
        always_key(2);
        let (key, always) = (driver.find_key(&by_id(1)).unwrap(), driver.find_key(&by_id(2)).unwrap());
        let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
        for made in 1..=3 {
            sign_and_verify(&mut *driver, &key, &public_key, algorithm);
            assert_eq!((spy_count(&log, "C_SignInit"), spy_count(&log, "C_Sign")), (made, made));
        }
        driver.sign(&always, &to_sign(algorithm), Some(&rig.user_pin), &mut || ()).unwrap();
        assert_eq!((spy_count(&log, "C_SignInit"), spy_count(&log, "C_Sign"), spy_count(&log, "C_Login")), (4, 4, 2));
    });
}

#[test]
fn a_module_with_an_instance_for_each_caller_signs_all_the_same() {
    let environment = |directory: &Path| {
        let mut environment = SoftHsm::in_directory(directory).init_token(TOKEN_LABEL).environment();
        environment.push(P11Kit::address_in(directory));
        environment
    };
    own_process::run(test_name!(), environment, || {
        always_key(2);
        let _server = P11Kit::serve(&SoftHsm::of_this_process());
        let rig = rig_of(Pkcs11Module::load(&P11Kit::client_module(), options()).unwrap());
        let mut driver = rig.logged_in();
        let public_key = make_key(&mut *driver, P256);
        let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
        let key = driver.find_key(&by_id(1)).unwrap();
        assert_eq!(sign_and_verify(&mut *driver, &key, &public_key, algorithm), 1);
        // cryptoki has no call for a login between C_SignInit and C_Sign, and its session is all there is.
        let always = driver.find_key(&by_id(2)).unwrap();
        let refused = driver.sign(&always, &to_sign(algorithm), Some(&rig.user_pin), &mut || panic!("C_Sign was entered"));
        assert!(matches!(refused, Err(DeviceError::Unsupported(_))), "{refused:?}");
    });
}

#[test]
fn a_certificate_of_another_key_is_left_out_and_of_several_the_newest_counts() {
    in_own_process(test_name!(), || {
        let rig = rig();
        let mut driver = rig.logged_in();
        let public_key = make_key(&mut *driver, P256);
        let stranger = driver.generate_key_pair(&spec(P256, 2, "stranger")).unwrap().public_key.unwrap();
        let issue = |key: &[u8], day| certificate::issue(key, "CN=k,O=Sealgate,C=UA", day);
        let read = |driver: &mut dyn TokenDriver| {
            driver.list_keys().unwrap().into_iter().find(|key| key.id == [1]).and_then(|key| key.certificate)
        };
        driver.write_certificate(&[1], "wrong", &issue(&stranger, 20_900)).unwrap();
        assert_eq!(read(&mut *driver), None);
        // So many that a token's own order is not likely to put the newest in front, or last.
        for day in [20_300, 20_100, 20_500, 20_200, 20_400] {
            driver.write_certificate(&[1], "right", &issue(&public_key, day)).unwrap();
        }
        assert_eq!(read(&mut *driver), Some(issue(&public_key, 20_500)));
    });
}

#[test]
fn a_certificate_stands_in_for_a_missing_public_key() {
    in_own_process(test_name!(), || {
        let rig = rig();
        let mut driver = rig.logged_in();
        let public_key = make_key(&mut *driver, P256);
        SoftHsm::of_this_process().pkcs11_tool(&["--delete-object", "--type", "pubkey", "--id", "01"]);
        assert_eq!(driver.list_keys().unwrap()[0].public_key, None);
        driver.write_certificate(&[1], "k", &certificate::issue(&public_key, "CN=k,O=Sealgate,C=UA", 20_000)).unwrap();
        assert_eq!(driver.list_keys().unwrap()[0].public_key, Some(public_key));
    });
}

#[test]
fn the_certificate_of_a_key_without_an_id_is_found_by_its_label() {
    in_own_process(test_name!(), || {
        let hsm = SoftHsm::of_this_process();
        hsm.pkcs11_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "nameless", "--usage-sign"]);
        let rig = rig();
        let mut driver = rig.logged_in();
        let key = driver.list_keys().unwrap().remove(0);
        assert_eq!((key.id.as_slice(), key.label.as_str()), (&[][..], "nameless"));
        let certificate = certificate::issue(&key.public_key.unwrap(), "CN=k,O=Sealgate,C=UA", 20_000);
        driver.write_certificate(&[], "nameless", &certificate).unwrap();
        assert_eq!(driver.list_keys().unwrap()[0].certificate, Some(certificate));
    });
}

/// The driver makes no such keys, and the tools cannot; so this one comes straight from the module, which is loaded in this process.
fn make_decryption_key(rig: &Rig) {
    use cryptoki::{context::Pkcs11, mechanism::Mechanism, object::Attribute, slot::Slot, types::Ulong};
    let slot = Slot::try_from(rig.module.tokens().unwrap()[0].slot.0).unwrap();
    let session = Pkcs11::new(SoftHsm::module()).unwrap().open_rw_session(slot).unwrap();
    let shared = [Attribute::Token(true), Attribute::Id(vec![1])];
    let public = [&shared[..], &[Attribute::ModulusBits(Ulong::new(2048))]].concat();
    let private = [&shared[..], &[Attribute::Sign(false), Attribute::Decrypt(true)]].concat();
    session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private).unwrap();
}

#[test]
fn a_key_that_is_not_for_signing_says_so() {
    in_own_process(test_name!(), || {
        let rig = rig();
        let mut driver = rig.logged_in();
        make_decryption_key(&rig);
        let key = driver.find_key(&by_id(1)).unwrap();
        assert_eq!(key.kind, KeyKind::Unsupported("RSA 2048, not for signing".to_owned()));
        assert_eq!(driver.list_keys().unwrap()[0].kind, key.kind);
    });
}

#[test]
fn a_key_deleted_by_another_program_loses_the_session_and_then_is_not_found() {
    in_own_process(test_name!(), || {
        let rig = rig();
        let mut driver = rig.logged_in();
        make_key(&mut *driver, P256);
        let key = driver.find_key(&by_id(1)).unwrap();
        SoftHsm::of_this_process().pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", "01"]);
        let to_sign = to_sign(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256));
        let error = driver.sign(&key, &to_sign, None, &mut || ()).unwrap_err();
        assert_eq!((error.retry(), error.outcome()), (Retry::AfterReopen, Outcome::NotPerformed), "{error:?}");
        assert!(matches!(driver.find_key(&by_id(1)), Err(DeviceError::KeyNotFound(_))));
    });
}

#[test]
fn a_token_that_is_taken_away_is_an_error_and_back_again_after_a_new_start() {
    in_own_process(test_name!(), || {
        let rig = rig();
        let mut driver = rig.logged_in();
        make_key(&mut *driver, P256);
        let key = driver.find_key(&by_id(1)).unwrap();
        let tokens = SoftHsm::of_this_process().token_directory();
        let away = tokens.with_file_name("away");
        std::fs::rename(&tokens, &away).unwrap();
        let to_sign = to_sign(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256));
        let error = driver.sign(&key, &to_sign, None, &mut || ()).unwrap_err();
        assert_eq!(error.retry(), Retry::AfterReopen, "{error:?}");
        std::fs::rename(&away, &tokens).unwrap();
        drop((driver, rig));

        let rig = self::rig();
        let mut driver = rig.logged_in();
        let key = driver.find_key(&by_id(1)).unwrap();
        assert!(driver.sign(&key, &to_sign, None, &mut || ()).is_ok());
    });
}

#[test]
fn a_label_that_does_not_fit_is_refused() {
    in_own_process(test_name!(), || {
        let error = load().create_token(&"x".repeat(33), &pin("12345678"), &pin("123456")).unwrap_err();
        assert!(matches!(error, DeviceError::Refused(_)), "{error:?}");
    });
}

#[test]
fn two_tokens_are_told_apart() {
    in_own_process(test_name!(), || {
        SoftHsm::of_this_process().init_token(TOKEN_LABEL);
        let sightings = load().tokens().unwrap();
        assert_eq!(sightings.len(), 2);
        assert_eq!(sightings[0].token.label, sightings[1].token.label);
        assert_ne!(sightings[0].token.serial, sightings[1].token.serial);
    });
}
