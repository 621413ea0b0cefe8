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
