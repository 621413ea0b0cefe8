//! A signature that is there already, with something added: a further signer, unsigned attributes, or its content put in or taken out.
//!
//! [`SignedMessage::rework`](super::verify::SignedMessage::rework) takes one apart. Invariants: what an earlier signer signed, its own
//! `SignerInfo` up to the unsigned attributes, and every certificate and CRL go out byte for byte as they came in; the frame round them is DER,
//! its sets in order and with each member once.

use const_oid::{ObjectIdentifier, db::rfc5911};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber};
use spki::AlgorithmIdentifierOwned;

use super::{
    algorithm::hash_of,
    error::CmsError,
    signed_data::{AttachedFrame, CONTENT_MAX, SignedData},
    tlv::{Frame, OCTET_STRING, SEQUENCE, SET, context, set_of, wrap},
    unsigned::{self, FORMS_DEPENDENTS, ID_AA_SIGNATURE_TIME_STAMP},
    verify::{EMBEDDED_MAX, FRAME_MAX, SIGNERS_MAX},
};
use crate::domain::ticket::CadesType;

/// What a signature is made of but for its content; everything in DER.
pub(super) struct Existing {
    pub(super) version: Vec<u8>,
    pub(super) digest_algorithms: Vec<Vec<u8>>,
    pub(super) content_type: ObjectIdentifier,
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) crls: Vec<Vec<u8>>,
    pub(super) signer_infos: Vec<Vec<u8>>,
}

/// A signature without its content, to which something may be added.
pub struct Reworked {
    existing: Existing,
    signers: Vec<Signer>,
}

/// A `SignerInfo` in two parts.
struct Signer {
    /// Everything up to and with the value of the signature, without the header of the whole.
    signed: Vec<u8>,
    /// The unsigned attributes, each whole.
    unsigned: Vec<Vec<u8>>,
    /// As it came, as long as nothing was changed.
    whole: Option<Vec<u8>>,
}

impl Reworked {
    pub(super) fn new(existing: Existing) -> Result<Self, CmsError> {
        let signers = existing.signer_infos.iter().map(|der| Signer::read(der)).collect::<Result<_, _>>()?;
        Ok(Self { existing, signers })
    }

    /// How many signers there are.
    #[must_use]
    pub const fn signer_count(&self) -> usize {
        self.signers.len()
    }

    /// Adds a signer beside those that are there, with its certificates.
    ///
    /// # Errors
    /// As [`SignedData::detached`], and [`CmsError::TooMuch`] for more signers or certificates than are read back.
    pub fn add_signer(&mut self, signer: &SignedData<'_>) -> Result<(), CmsError> {
        if self.signers.len() >= SIGNERS_MAX {
            return Err(CmsError::TooMuch("signers"));
        }
        let algorithm = signer.digest_algorithm()?;
        let hash = |der: &[u8]| AlgorithmIdentifierOwned::from_der(der).ok().and_then(|identifier| hash_of(&identifier));
        // With parameters or without: it is the same hash function.
        if !self.existing.digest_algorithms.iter().any(|there| hash(there) == hash(&algorithm)) {
            self.existing.digest_algorithms.push(algorithm);
        }
        for certificate in signer.checked_certificates()? {
            if !self.existing.certificates.iter().any(|there| there == certificate) {
                self.existing.certificates.push(certificate.to_vec());
            }
        }
        if self.existing.certificates.len() > EMBEDDED_MAX {
            return Err(CmsError::TooMuch("certificates"));
        }
        self.signers.push(Signer::read(&signer.signer_info()?)?);
        Ok(())
    }

    /// What form a signer has, as far as its unsigned attributes say.
    ///
    /// # Errors
    /// [`CmsError::NoSuchSigner`].
    pub fn form(&self, signer: usize) -> Result<CadesType, CmsError> {
        let signer = self.signers.get(signer).ok_or(CmsError::NoSuchSigner)?;
        Ok(unsigned::form_of(|oid| signer.has(oid)))
    }

    /// Whether a signer has attributes that are about those of the forms, so that these cannot be replaced any more: archive time stamps and the like.
    ///
    /// # Errors
    /// [`CmsError::NoSuchSigner`].
    pub fn is_sealed(&self, signer: usize) -> Result<bool, CmsError> {
        let signer = self.signers.get(signer).ok_or(CmsError::NoSuchSigner)?;
        Ok(FORMS_DEPENDENTS.iter().any(|oid| signer.has(*oid)))
    }

    /// Adds unsigned attributes, in DER, to a signer. Any that it has of the same types goes, but for time stamps, of which there may be several.
    ///
    /// # Errors
    /// [`CmsError::NoSuchSigner`], [`CmsError::Encoding`].
    pub fn add_unsigned(&mut self, signer: usize, attributes: &[Vec<u8>]) -> Result<(), CmsError> {
        let signer = self.signers.get_mut(signer).ok_or(CmsError::NoSuchSigner)?;
        if attributes.is_empty() {
            return Ok(());
        }
        for attribute in attributes {
            let oid = type_of(attribute)?;
            signer.unsigned.retain(|there| oid == ID_AA_SIGNATURE_TIME_STAMP || type_of(there) != Ok(oid));
        }
        signer.unsigned.extend_from_slice(attributes);
        signer.whole = None;
        Ok(())
    }

    /// The signature round content of so many bytes, or without any.
    ///
    /// # Errors
    /// [`CmsError::ContentTooLong`]; [`CmsError::TooMuch`] for more than is read back.
    pub fn frame(&self, content_len: Option<u64>) -> Result<AttachedFrame, CmsError> {
        if let Some(got) = content_len.filter(|len| *len > CONTENT_MAX) {
            return Err(CmsError::ContentTooLong { got });
        }
        let e_content = content_len.map_or_else(Frame::default, |len| Frame::around(len).wrap(OCTET_STRING).wrap(context(0)));
        let set = |tag, members: &Vec<Vec<u8>>| if members.is_empty() { Vec::new() } else { set_of(tag, members.clone()) };
        let frame = e_content
            .before(&self.existing.content_type.to_der()?)
            .wrap(SEQUENCE)
            .before(&set_of(SET, self.existing.digest_algorithms.clone()))
            .before(&self.existing.version)
            .after(&set(context(0), &self.existing.certificates))
            .after(&set(context(1), &self.existing.crls))
            .after(&set_of(SET, self.signers.iter().map(Signer::to_der).collect()))
            .wrap(SEQUENCE)
            .wrap(context(0))
            .before(&rfc5911::ID_SIGNED_DATA.to_der()?)
            .wrap(SEQUENCE);
        if frame.head.len() + frame.tail.len() > FRAME_MAX {
            return Err(CmsError::TooMuch("bytes"));
        }
        Ok(AttachedFrame { total_len: frame.total_len(), head: frame.head, tail: frame.tail })
    }
}

impl Signer {
    fn read(der: &[u8]) -> Result<Self, CmsError> {
        const UNSIGNED: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(1) };
        let mut reader = SliceReader::new(der)?;
        let (signed, unsigned) = reader.sequence(|info: &mut SliceReader<'_>| {
            let (mut signed, mut unsigned) = (Vec::new(), Vec::new());
            while !info.is_finished() {
                if Tag::peek(info)? == UNSIGNED {
                    let set = info.tlv_bytes()?;
                    unsigned = members(set)?;
                } else {
                    signed.extend_from_slice(info.tlv_bytes()?);
                }
            }
            Ok::<_, der::Error>((signed, unsigned))
        })?;
        reader.finish()?;
        Ok(Self { signed, unsigned, whole: Some(der.to_vec()) })
    }

    fn has(&self, oid: ObjectIdentifier) -> bool {
        self.unsigned.iter().any(|attribute| type_of(attribute) == Ok(oid))
    }

    fn to_der(&self) -> Vec<u8> {
        self.whole.clone().unwrap_or_else(|| wrap(SEQUENCE, &[&self.signed, &set_of(context(1), self.unsigned.clone())]))
    }
}

/// The members of a set, each whole.
fn members(set: &[u8]) -> der::Result<Vec<Vec<u8>>> {
    let mut reader = SliceReader::new(der::asn1::AnyRef::from_der(set)?.value())?;
    let mut members = Vec::new();
    while !reader.is_finished() {
        members.push(reader.tlv_bytes()?.to_vec());
    }
    Ok(members)
}

/// The type of an attribute.
fn type_of(attribute: &[u8]) -> Result<ObjectIdentifier, CmsError> {
    let mut reader = SliceReader::new(attribute)?;
    let oid = reader.sequence(|attribute: &mut SliceReader<'_>| {
        let oid = attribute.decode()?;
        attribute.drain(attribute.remaining_len())?;
        Ok::<_, der::Error>(oid)
    })?;
    Ok(oid)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{
        cms::{
            algorithm::digest_algorithm,
            attributes::{attribute, signed_attributes},
            certificate::tests::outline,
            digest, embedded_certificates,
            verify::SignedMessage,
        },
        domain::{
            algorithm::{HashAlgorithm, KeyKind, SignatureAlgorithm},
            signature::SignatureValue,
            ticket::EmbedCertificate,
            timestamp::Timestamp,
        },
    };

    /// A signature with everything that may stand in one; nothing in it is checked here.
    fn existing() -> (Existing, Vec<u8>) {
        let certificate = outline(&wrap(SEQUENCE, &[]), 5);
        let attribute_certificate = wrap(context(2), &[&[2, 1, 7]]);
        let (crl, ocsp) = (wrap(SEQUENCE, &[&[2, 1, 9]]), wrap(context(1), &[&[2, 1, 8]]));
        let signer = signed_by(&certificate, |signed_data| signed_data.signer_info().unwrap());
        let existing = Existing {
            version: vec![2, 1, 5],
            digest_algorithms: vec![digest_algorithm(HashAlgorithm::Sha384).unwrap()],
            content_type: rfc5911::ID_DATA,
            certificates: vec![certificate, attribute_certificate],
            crls: vec![crl, ocsp],
            signer_infos: vec![signer.clone()],
        };
        (existing, signer)
    }

    fn signed_by<T>(certificate: &[u8], make: impl FnOnce(&SignedData<'_>) -> T) -> T {
        let algorithm = SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256);
        let content = digest(HashAlgorithm::Sha256, b"content");
        let signed_attrs = signed_attributes(CadesType::Undefined, &content, Timestamp::from_millis(0), certificate, algorithm).unwrap();
        let signature = SignatureValue::from_token(&KeyKind::Rsa { modulus_bits: 2048 }, vec![7; 256]).unwrap();
        let certificates = embedded_certificates(EmbedCertificate::SignerCert, certificate, &[]);
        make(&SignedData {
            algorithm,
            signed_attrs: &signed_attrs,
            signature: &signature,
            signer_certificate: certificate,
            certificates: &certificates,
            unsigned_attrs: &[],
        })
    }

    fn read(reworked: &Reworked) -> SignedMessage<Cursor<Vec<u8>>> {
        let frame = reworked.frame(None).unwrap();
        SignedMessage::read(Cursor::new([frame.head, frame.tail].concat())).unwrap()
    }

    #[test]
    fn all_that_was_there_goes_out_again_beside_what_is_added() {
        let (existing, first) = existing();
        let (certificates, crls) = (existing.certificates.clone(), existing.crls.clone());
        let mut reworked = Reworked::new(existing).unwrap();
        let other = outline(&wrap(SEQUENCE, &[]), 6);
        signed_by(&other, |signer| reworked.add_signer(signer)).unwrap();
        // Once more: its certificate and its hash function are there already.
        signed_by(&certificates[0], |signer| reworked.add_signer(signer)).unwrap();
        let frame = reworked.frame(None).unwrap();
        let whole = [frame.head, frame.tail].concat();
        let stands = |part: &[u8]| whole.windows(part.len()).filter(|window| *window == part).count();
        assert!(certificates.iter().chain(&crls).chain([&other, &first]).all(|part| stands(part) == 1));
        let message = read(&reworked);
        // The last signer is the first one again, bit for bit, and a set has each member once.
        assert_eq!((message.signer_count(), message.certificates().len(), message.crls().len()), (2, 2, 1));
        assert_eq!(stands(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2]), 1, "the earlier hash function");
        assert_eq!(frame.total_len, whole.len() as u64);
    }

    #[test]
    fn unsigned_attributes_are_added_once_and_what_was_signed_stays() {
        let (existing, first) = existing();
        let mut reworked = Reworked::new(existing).unwrap();
        assert_eq!((reworked.form(0), reworked.is_sealed(0)), (Ok(CadesType::Bes), Ok(false)));
        let oids = ["14", "21", "22", "23", "24"].map(|last| ObjectIdentifier::new_unwrap(&format!("1.2.840.113549.1.9.16.2.{last}")));
        let values = |value: u8| oids.map(|oid| attribute(oid, &[2, 1, value]).unwrap());
        reworked.add_unsigned(0, &values(1)).unwrap();
        reworked.add_unsigned(0, &values(2)).unwrap();
        let frame = reworked.frame(None).unwrap();
        let whole = [frame.head, frame.tail].concat();
        let stands = |part: &[u8]| whole.windows(part.len()).filter(|window| *window == part).count();
        // Two time stamps, and the later ones of all others.
        let [stamp, replaced @ ..] = values(1);
        assert_eq!((stands(&stamp), replaced.iter().map(|attribute| stands(attribute)).sum::<usize>()), (1, 0));
        assert!(values(2).iter().all(|attribute| stands(attribute) == 1));
        assert_eq!(reworked.form(0), Ok(CadesType::XLong));
        let signed = Signer::read(&first).unwrap().signed;
        assert_eq!(stands(&signed), 1);
        let sealing = attribute(FORMS_DEPENDENTS[2], &[0x30, 0]).unwrap();
        reworked.add_unsigned(0, &[sealing]).unwrap();
        assert_eq!(reworked.is_sealed(0), Ok(true));
        assert_eq!(reworked.add_unsigned(1, &values(1)), Err(CmsError::NoSuchSigner));
    }
}
