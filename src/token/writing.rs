//! Making and removing objects on a token in an order that leaves no half state.
//!
//! Used by the slot's thread. Invariants: a key that could leave its token does not stay on it; a certificate is written before the ones that it
//! replaces are removed, and what was written before a failure is taken back; a repetition finds everything done and changes nothing.

use tracing::warn;

use super::{
    command::CertificateOrder,
    driver::{DeviceError, TokenDriver},
};
use crate::domain::token::{KeyDescription, KeyPairSpec};

/// `CKA_LABEL` of CA certificates. They have no `CKA_ID`: they belong to no key.
const CA_LABEL: &str = "CA";

/// Makes a key pair and reads back how well it is kept; destroys it if that is not well enough.
///
/// # Errors
/// [`DeviceError::Refused`] if the token does not keep the key as it was asked to, or what the module said.
pub(super) fn generate(driver: &mut dyn TokenDriver, spec: &KeyPairSpec) -> Result<KeyDescription, DeviceError> {
    let key = driver.generate_key_pair(spec)?;
    if key.protection.is_bound_to_token() && key.public_key.is_some() {
        return Ok(key);
    }
    let id = hex::encode(&spec.id);
    match driver.destroy_key_pair(&spec.id) {
        Ok(()) => warn!(key.id = id, "a new key could leave its token, or its public half cannot be read; it was destroyed"),
        Err(error) => warn!(key.id = id, error = %error, "a new key could leave its token and cannot be destroyed; remove it by hand"),
    }
    Err(DeviceError::Refused("the token does not keep new keys sensitive and not extractable with a public half to be read".to_owned()))
}

/// Has a certificate, and those of its CAs, on the token; then removes those that it replaces.
///
/// # Errors
/// What the module said. If the certificate was not there before, it is not there now, or it is and only an older one could not be removed.
pub(super) fn have_certificate(driver: &mut dyn TokenDriver, order: &CertificateOrder) -> Result<(), DeviceError> {
    let mut written = Vec::new();
    if let Err(error) = write_missing(driver, order, &mut written) {
        take_back(driver, written);
        return Err(error);
    }
    if !order.replace {
        return Ok(());
    }
    let beside = driver.certificates(&order.id)?;
    beside.iter().filter(|der| **der != order.certificate).try_for_each(|der| driver.remove_certificate(&order.id, der))
}

/// An object that was written: its `CKA_ID` and its value.
type Written<'a> = (&'a [u8], &'a [u8]);

fn write_missing<'a>(driver: &mut dyn TokenDriver, order: &'a CertificateOrder, written: &mut Vec<Written<'a>>) -> Result<(), DeviceError> {
    if !order.chain.is_empty() {
        let known = driver.certificates(&[])?;
        for certificate in order.chain.iter().filter(|certificate| !known.contains(certificate)) {
            driver.write_certificate(&[], CA_LABEL, certificate)?;
            written.push((&[], certificate));
        }
    }
    if driver.certificates(&order.id)?.contains(&order.certificate) {
        return Ok(());
    }
    driver.write_certificate(&order.id, &order.label, &order.certificate)?;
    written.push((&order.id, &order.certificate));
    if driver.certificates(&order.id)?.contains(&order.certificate) {
        return Ok(());
    }
    Err(DeviceError::Failed("the token took a certificate and does not show it".to_owned()))
}

fn take_back(driver: &mut dyn TokenDriver, written: Vec<Written<'_>>) {
    for (id, certificate) in written.into_iter().rev() {
        if let Err(error) = driver.remove_certificate(id, certificate) {
            warn!(error = %error, "a certificate that was written before the token failed is still on it; it does no harm");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            algorithm::{Curve, KeyKind},
            pin::Pin,
            timestamp::Timestamp,
        },
        pki::{DevCa, Validity},
        token::{
            driver::TokenModule as _,
            fake::{Call, FAKE_PIN, FAKE_SLOT, Script},
        },
    };

    const ID: [u8; 3] = [7, 7, 7];

    fn session(script: &Script) -> Box<dyn TokenDriver> {
        let mut driver = script.module().open(FAKE_SLOT).unwrap();
        driver.login(Some(&Pin::new(FAKE_PIN.to_owned()).unwrap())).unwrap();
        driver
    }

    fn spec() -> KeyPairSpec {
        KeyPairSpec { kind: KeyKind::Ec(Curve::P256), id: ID.to_vec(), label: "seal".to_owned() }
    }

    fn certificates() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let validity = Validity::new(Timestamp::from_millis(0), Timestamp::from_millis(1_000_000_000_000)).unwrap();
        let ca = DevCa::create("CA", validity).unwrap();
        let leaf = |name: &str| ca.issue(ca.certificate().spki(), name, validity).unwrap().as_der().to_vec();
        (leaf("one"), leaf("two"), ca.certificate().as_der().to_vec())
    }

    fn order(certificate: &[u8], ca: &[u8]) -> CertificateOrder {
        CertificateOrder {
            id: ID.to_vec(),
            label: "seal".to_owned(),
            certificate: certificate.to_vec(),
            chain: vec![ca.to_vec()],
            replace: true,
        }
    }

    #[test]
    fn a_key_that_could_leave_its_token_is_destroyed() {
        let script = Script::new("t");
        let mut driver = session(&script);
        script.make_extractable_keys();
        assert!(matches!(generate(driver.as_mut(), &spec()), Err(DeviceError::Refused(_))));
        assert_eq!(script.count_objects(), (0, 0));
    }

    #[test]
    fn the_old_certificate_goes_only_when_the_new_one_is_there() {
        let script = Script::new("t");
        let mut driver = session(&script);
        let (one, two, ca) = certificates();
        generate(driver.as_mut(), &spec()).unwrap();
        have_certificate(driver.as_mut(), &order(&one, &ca)).unwrap();
        have_certificate(driver.as_mut(), &order(&two, &ca)).unwrap();
        assert_eq!(driver.certificates(&ID).unwrap(), [two]);
        let calls = script.calls();
        let last_write = calls.iter().rposition(|call| *call == Call::WriteCertificate);
        assert!(last_write < calls.iter().position(|call| *call == Call::RemoveCertificate));
        assert_eq!(script.count_objects(), (1, 2));
    }

    #[test]
    fn a_repetition_writes_nothing() {
        let script = Script::new("t");
        let mut driver = session(&script);
        let (one, _, ca) = certificates();
        generate(driver.as_mut(), &spec()).unwrap();
        for _ in 0..2 {
            have_certificate(driver.as_mut(), &order(&one, &ca)).unwrap();
        }
        assert_eq!((script.count(Call::WriteCertificate), script.count(Call::RemoveCertificate)), (2, 0));
    }

    #[test]
    fn a_token_that_is_full_is_left_as_it_was() {
        let (one, two, ca) = certificates();
        for failing in 1..=2 {
            let script = Script::new("t");
            let mut driver = session(&script);
            generate(driver.as_mut(), &spec()).unwrap();
            driver.write_certificate(&ID, "seal", &one).unwrap();
            let full = DeviceError::NotWritable("CKR_DEVICE_MEMORY".to_owned());
            script.fail(Call::WriteCertificate, failing, full.clone());
            assert_eq!(have_certificate(driver.as_mut(), &order(&two, &ca)), Err(full));
            assert_eq!(driver.certificates(&ID).unwrap(), std::slice::from_ref(&one));
            assert_eq!(script.count_objects(), (1, 1));
        }
    }
}
