//! Certificates for any public key, from a software CA.

use std::time::Duration;

use der::{Decode, Encode, asn1::UtcTime, oid::db::rfc5912::ECDSA_WITH_SHA_256};
use p256::ecdsa::{
    DerSignature, SigningKey, VerifyingKey,
    signature::{Error, Keypair, Signer},
};
use spki::{AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, SubjectPublicKeyInfoOwned};
use x509_cert::{
    builder::{Builder, CertificateBuilder, profile::cabf::Root},
    serial_number::SerialNumber,
    time::{Time, Validity},
};

/// The CA's key, with its algorithm spelled out: `p256` does not know it without a feature that nothing else needs.
struct Ca(SigningKey);

impl Keypair for Ca {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        *self.0.verifying_key()
    }
}

impl DynSignatureAlgorithmIdentifier for Ca {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA_256, parameters: None })
    }
}

impl Signer<DerSignature> for Ca {
    fn try_sign(&self, message: &[u8]) -> Result<DerSignature, Error> {
        self.0.try_sign(message)
    }
}

/// The day before this one, counted from 1970: a certificate that is valid from then on is in force now.
pub fn yesterday() -> u32 {
    let days = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970").as_secs() / 86_400;
    u32::try_from(days).expect("a day") - 1
}

/// Issues a certificate for the key in `spki` (DER), valid from `day` on (counted from 1970) for a hundred days.
pub fn issue(spki: &[u8], subject: &str, day: u32) -> Vec<u8> {
    let instant = |day: u32| {
        let seconds = Duration::from_secs(u64::from(day) * 86_400);
        Time::UtcTime(UtcTime::from_unix_duration(seconds).expect("a day before 2050"))
    };
    let validity = Validity::new(instant(day), instant(day + 100));
    let profile = Root::new(false, subject.parse().expect("a name")).expect("a profile");
    let key = SubjectPublicKeyInfoOwned::from_der(spki).expect("a public key");
    let builder = CertificateBuilder::new(profile, SerialNumber::from(day), validity, key).expect("a certificate builder");
    let ca = Ca(SigningKey::from_slice(&[0x5a; 32]).expect("a key"));
    builder.build::<_, DerSignature>(&ca).expect("a certificate").to_der().expect("a DER form")
}
