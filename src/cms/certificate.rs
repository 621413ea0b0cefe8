//! The two fields of the signer's certificate that a signature repeats: issuer and serial number.
//!
//! They are taken as the bytes that stand in the certificate, because a verifier compares them with just those: many certificates in the
//! field are not quite DER (sets out of order, defaults spelled out) and would change if they were parsed and written again.

use der::{Reader, SliceReader, Tag, TagNumber};

use super::error::CmsError;

/// The longest certificate that is looked at, in bytes.
pub const CERTIFICATE_MAX: usize = 64 * 1024;

/// `IssuerAndSerialNumber` (RFC 5652 section 10.2.4): both values whole, with their headers, borrowed from a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IssuerAndSerialNumber<'a> {
    pub(super) issuer: &'a [u8],
    pub(super) serial_number: &'a [u8],
}

impl<'a> IssuerAndSerialNumber<'a> {
    /// Reads them from a certificate in DER.
    pub(super) fn of(certificate: &'a [u8]) -> Result<Self, CmsError> {
        if certificate.len() > CERTIFICATE_MAX {
            return Err(CmsError::Certificate(format!("it has {} bytes, more than {CERTIFICATE_MAX}", certificate.len())));
        }
        read_certificate(certificate).map_err(|error| CmsError::Certificate(error.to_string()))
    }
}

/// `Certificate` (RFC 5280 section 4.1): `tbsCertificate`, `signatureAlgorithm`, `signature`, and nothing behind.
fn read_certificate(certificate: &[u8]) -> der::Result<IssuerAndSerialNumber<'_>> {
    let mut reader = SliceReader::new(certificate)?;
    let read = reader.sequence(|certificate: &mut SliceReader<'_>| {
        let read = certificate.sequence(read_tbs_certificate)?;
        read_tagged(certificate, Tag::Sequence)?;
        read_tagged(certificate, Tag::BitString)?;
        Ok::<_, der::Error>(read)
    })?;
    reader.finish()?;
    Ok(read)
}

fn read_tbs_certificate<'a>(tbs: &mut SliceReader<'a>) -> der::Result<IssuerAndSerialNumber<'a>> {
    const VERSION: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
    if Tag::peek(tbs)? == VERSION {
        tbs.tlv_bytes()?;
    }
    let serial_number = read_tagged(tbs, Tag::Integer)?;
    read_tagged(tbs, Tag::Sequence)?; // signature
    let issuer = read_tagged(tbs, Tag::Sequence)?;
    tbs.drain(tbs.remaining_len())?;
    Ok(IssuerAndSerialNumber { issuer, serial_number })
}

fn read_tagged<'a>(reader: &mut SliceReader<'a>, tag: Tag) -> der::Result<&'a [u8]> {
    Tag::peek(reader)?.assert_eq(tag)?;
    reader.tlv_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use der::Encode;
    use proptest::prelude::*;

    use super::*;
    use crate::cms::tlv::{SEQUENCE, wrap};

    /// The outline of a certificate: enough for what is read here, and smaller than a real one.
    pub(in crate::cms) fn outline(issuer: &[u8], serial: u64) -> Vec<u8> {
        let version = [0xa0, 3, 2, 1, 2];
        let empty = wrap(SEQUENCE, &[]);
        let tbs = wrap(SEQUENCE, &[&version, &serial.to_der().unwrap(), &empty, issuer, &empty, &empty, &empty]);
        wrap(SEQUENCE, &[&tbs, &empty, &[3, 1, 0]])
    }

    #[test]
    fn issuer_and_serial_number_are_the_very_bytes_of_the_certificate() {
        // A set that is out of order: no DER, but found in the field.
        let unsorted = wrap(SEQUENCE, &[&[0x31, 6, 2, 1, 9, 2, 1, 3]]);
        let certificate = outline(&unsorted, 0x1234);
        let read = IssuerAndSerialNumber::of(&certificate).unwrap();
        assert_eq!(read.issuer, unsorted);
        assert_eq!(read.serial_number, [2, 2, 0x12, 0x34]);
    }

    #[test]
    fn a_certificate_that_is_too_long_is_not_read() {
        let error = IssuerAndSerialNumber::of(&vec![0x30; CERTIFICATE_MAX + 1]).unwrap_err();
        assert_eq!(error.to_string(), "not a usable X.509 certificate: it has 65537 bytes, more than 65536");
    }

    #[test]
    fn bytes_behind_a_certificate_are_refused() {
        let mut certificate = outline(&wrap(SEQUENCE, &[]), 1);
        assert!(IssuerAndSerialNumber::of(&certificate).is_ok());
        certificate.push(0);
        assert!(IssuerAndSerialNumber::of(&certificate).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = IssuerAndSerialNumber::of(&bytes);
        }

        #[test]
        fn a_damaged_certificate_is_read_without_a_panic(position in 0usize..30, value in any::<u8>(), keep in 0usize..40) {
            let mut certificate = outline(&wrap(SEQUENCE, &[]), 77);
            let position = position % certificate.len();
            certificate[position] = value;
            certificate.truncate(keep);
            let _ = IssuerAndSerialNumber::of(&certificate);
        }
    }
}
