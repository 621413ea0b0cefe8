//! `SignedData` with one signer, as a `ContentInfo` in DER (RFC 5652 sections 3 and 5).

use const_oid::{ObjectIdentifier, db::rfc5911};
use der::Encode;

use super::{
    algorithm::{digest_algorithm, signature_algorithm},
    attributes::SignedAttributes,
    certificate::IssuerAndSerialNumber,
    error::CmsError,
    time_stamp::ID_CT_TST_INFO,
    tlv::{Frame, OCTET_STRING, SEQUENCE, SET, context, set_of, wrap},
};
use crate::domain::{algorithm::SignatureAlgorithm, signature::SignatureValue, ticket::EmbedCertificate};

/// The most certificates that one signature embeds: a signer's and a chain longer than any in use.
pub const CERTIFICATES_MAX: usize = 16;

/// The longest content that is framed, in bytes; far above what anybody uploads, and low enough that no length overflows.
pub const CONTENT_MAX: u64 = 1 << 56;

/// Version 1 of `SignedData` and of `SignerInfo`: content of type id-data, X.509 certificates only, signer named by issuer and
/// serial number (RFC 5652 sections 5.1 and 5.3).
const VERSION_1: &[u8] = &[0x02, 0x01, 0x01];
/// Version 3 of `SignedData`: content of another type.
const VERSION_3: &[u8] = &[0x02, 0x01, 0x03];

/// Everything that a finished signature is put together from.
#[derive(Debug, Clone, Copy)]
pub struct SignedData<'a> {
    /// What the key signed with.
    pub algorithm: SignatureAlgorithm,
    /// What it signed.
    pub signed_attrs: &'a SignedAttributes,
    /// What it answered.
    pub signature: &'a SignatureValue,
    /// The certificate of the key, in DER.
    pub signer_certificate: &'a [u8],
    /// The certificates to embed, in DER; see [`embedded_certificates`].
    pub certificates: &'a [&'a [u8]],
    /// Unsigned attributes in DER, in any order.
    pub unsigned_attrs: &'a [Vec<u8>],
}

/// An attached signature without its content: `head`, then the content, then `tail` are the DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedFrame {
    /// What stands before the content.
    pub head: Vec<u8>,
    /// What stands behind it.
    pub tail: Vec<u8>,
    /// Length of the whole signature in bytes: head, content and tail.
    pub total_len: u64,
}

/// The certificates that a signature carries for this choice; `chain` is the signer's CA and those above it.
///
/// [`EmbedCertificate::SignerCertAndCaInfo`] embeds the signer's alone: the CAs are named in a signed attribute, see
/// [`AttributeSpec`](super::AttributeSpec).
pub fn embedded_certificates<'a>(choice: EmbedCertificate, signer_certificate: &'a [u8], chain: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
    match choice {
        EmbedCertificate::Nothing => Vec::new(),
        EmbedCertificate::SignerCert | EmbedCertificate::SignerCertAndCaInfo => vec![signer_certificate],
        EmbedCertificate::SignerAndCaCert => [signer_certificate].into_iter().chain(chain.iter().map(Vec::as_slice)).collect(),
    }
}

/// `eContent [0] EXPLICIT OCTET STRING` of so many bytes.
fn attached(content_len: u64) -> Frame {
    Frame::around(content_len).wrap(OCTET_STRING).wrap(context(0))
}

impl SignedData<'_> {
    /// The signature without the content.
    ///
    /// # Errors
    /// [`CmsError::Certificate`], [`CmsError::TooManyCertificates`], or [`CmsError::SignatureValue`] if the value is of another kind than the algorithm's.
    pub fn detached(&self) -> Result<Vec<u8>, CmsError> {
        let frame = self.content_info(&rfc5911::ID_DATA, Frame::around(0))?;
        Ok([frame.head, frame.tail].concat())
    }

    /// A time-stamp token: the signature with `info`, a `TSTInfo`, inside.
    ///
    /// # Errors
    /// As [`detached`](Self::detached).
    pub fn time_stamp_token(&self, info: &[u8]) -> Result<Vec<u8>, CmsError> {
        let frame = self.content_info(&ID_CT_TST_INFO, attached(info.len() as u64))?;
        Ok([&frame.head, info, &frame.tail].concat())
    }

    /// The signature with `content` inside; see [`attached_frame`](Self::attached_frame) for content that is not in memory.
    ///
    /// # Errors
    /// As [`detached`](Self::detached).
    pub fn attached(&self, content: &[u8]) -> Result<Vec<u8>, CmsError> {
        let frame = self.attached_frame(content.len() as u64)?;
        Ok([&frame.head, content, &frame.tail].concat())
    }

    /// The signature round content of `content_len` bytes, so that content is never copied: all lengths are definite.
    ///
    /// # Errors
    /// As [`detached`](Self::detached), and [`CmsError::ContentTooLong`] above [`CONTENT_MAX`].
    pub fn attached_frame(&self, content_len: u64) -> Result<AttachedFrame, CmsError> {
        if content_len > CONTENT_MAX {
            return Err(CmsError::ContentTooLong { got: content_len });
        }
        let frame = self.content_info(&rfc5911::ID_DATA, attached(content_len))?;
        Ok(AttachedFrame { total_len: frame.total_len(), head: frame.head, tail: frame.tail })
    }

    /// `ContentInfo { id-signedData, [0] EXPLICIT SignedData }` round `e_content`, which may be empty.
    fn content_info(&self, content_type: &ObjectIdentifier, e_content: Frame) -> Result<Frame, CmsError> {
        let version = if *content_type == rfc5911::ID_DATA { VERSION_1 } else { VERSION_3 };
        let digest_algorithms = wrap(SET, &[&self.digest_algorithm()?]);
        Ok(e_content
            .before(&content_type.to_der()?)
            .wrap(SEQUENCE)
            .before(&digest_algorithms)
            .before(version)
            .after(&self.certificate_set()?)
            .after(&wrap(SET, &[&self.signer_info()?]))
            .wrap(SEQUENCE)
            .wrap(context(0))
            .before(&rfc5911::ID_SIGNED_DATA.to_der()?)
            .wrap(SEQUENCE))
    }

    /// `certificates [0] IMPLICIT CertificateSet OPTIONAL`: empty if there are none.
    fn certificate_set(&self) -> Result<Vec<u8>, CmsError> {
        match self.checked_certificates()? {
            [] => Ok(Vec::new()),
            some => Ok(set_of(context(0), some.iter().map(|certificate| certificate.to_vec()).collect())),
        }
    }

    /// The certificates to embed, of which each is one and there are not too many.
    pub(super) fn checked_certificates(&self) -> Result<&[&[u8]], CmsError> {
        let got = self.certificates.len();
        if got > CERTIFICATES_MAX {
            return Err(CmsError::TooManyCertificates { got });
        }
        for certificate in self.certificates {
            IssuerAndSerialNumber::of(certificate)?;
        }
        Ok(self.certificates)
    }

    /// The hash function of the content.
    pub(super) fn digest_algorithm(&self) -> Result<Vec<u8>, CmsError> {
        Ok(digest_algorithm(self.algorithm.message_digest_hash())?)
    }

    /// `SignerInfo`, named by issuer and serial number.
    pub(super) fn signer_info(&self) -> Result<Vec<u8>, CmsError> {
        let IssuerAndSerialNumber { issuer, serial_number } = IssuerAndSerialNumber::of(self.signer_certificate)?;
        Ok(wrap(
            SEQUENCE,
            &[
                VERSION_1,
                &wrap(SEQUENCE, &[issuer, serial_number]),
                &self.digest_algorithm()?,
                &self.signed_attrs.to_implicit(),
                &signature_algorithm(self.algorithm)?,
                &wrap(OCTET_STRING, &[&self.signature_bytes()?]),
                &self.unsigned_attributes(),
            ],
        ))
    }

    /// `unsignedAttrs [1] IMPLICIT OPTIONAL`: empty if there are none.
    fn unsigned_attributes(&self) -> Vec<u8> {
        if self.unsigned_attrs.is_empty() { Vec::new() } else { set_of(context(1), self.unsigned_attrs.to_vec()) }
    }

    fn signature_bytes(&self) -> Result<Vec<u8>, CmsError> {
        match (self.algorithm, self.signature) {
            (SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_), SignatureValue::Rsa(_))
            | (SignatureAlgorithm::Ecdsa(_), SignatureValue::Ecdsa(_))
            | (SignatureAlgorithm::Ed25519, SignatureValue::Ed25519(_)) => Ok(self.signature.to_x509_bytes()),
            _ => Err(CmsError::SignatureValue),
        }
    }
}

#[cfg(test)]
mod tests {
    use cms::{
        content_info::{CmsVersion, ContentInfo},
        signed_data::{SignedData as ReadSignedData, SignerIdentifier},
    };
    use der::{Decode, asn1::OctetStringRef};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        cms::{attributes::signed_attributes, certificate::tests::outline, digest},
        domain::{
            algorithm::{HashAlgorithm, KeyKind},
            ticket::CadesType,
            timestamp::Timestamp,
        },
    };

    const RSA: SignatureAlgorithm = SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256);

    fn attributes() -> SignedAttributes {
        let content = digest(HashAlgorithm::Sha256, b"content");
        signed_attributes(CadesType::Undefined, &content, Timestamp::from_millis(0), &[], RSA).unwrap()
    }

    fn rsa_value() -> SignatureValue {
        SignatureValue::from_token(&KeyKind::Rsa { modulus_bits: 2048 }, vec![7; 256]).unwrap()
    }

    fn issuer() -> Vec<u8> {
        // CN=CA
        hex::decode("300d310b300906035504030c024341").unwrap()
    }

    fn read(der: &[u8]) -> ReadSignedData {
        let info = ContentInfo::from_der(der).unwrap();
        assert_eq!(info.content_type, rfc5911::ID_SIGNED_DATA);
        info.content.decode_as().unwrap()
    }

    #[test]
    fn a_detached_signature_is_read_by_another_library_as_it_was_meant() {
        let (certificate, attributes, value) = (outline(&issuer(), 5), attributes(), rsa_value());
        let made = SignedData {
            algorithm: RSA,
            signed_attrs: &attributes,
            signature: &value,
            signer_certificate: &certificate,
            certificates: &[],
            unsigned_attrs: &[],
        };
        let read = read(&made.detached().unwrap());
        assert_eq!(read.version, CmsVersion::V1);
        assert_eq!(read.encap_content_info.econtent_type, rfc5911::ID_DATA);
        assert_eq!(read.encap_content_info.econtent, None);
        assert!(read.certificates.is_none() && read.crls.is_none());
        let signer = read.signer_infos.0.get(0).unwrap();
        assert_eq!(read.digest_algorithms.as_slice(), std::slice::from_ref(&signer.digest_alg));
        assert_eq!(signer.version, CmsVersion::V1);
        let SignerIdentifier::IssuerAndSerialNumber(sid) = &signer.sid else { panic!("not by issuer and serial number") };
        assert_eq!((sid.issuer.to_string().as_str(), sid.serial_number.as_bytes()), ("CN=CA", &[5][..]));
        assert_eq!(signer.signed_attrs.to_der().unwrap(), attributes.as_der());
        assert_eq!(signer.signature.as_bytes(), [7; 256]);
        assert!(signer.unsigned_attrs.is_none());
    }

    proptest! {
        #[test]
        fn attached_content_stands_whole_between_head_and_tail(content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let (certificate, attributes, value) = (outline(&issuer(), 5), attributes(), rsa_value());
            let made = SignedData {
                algorithm: RSA,
                signed_attrs: &attributes,
                signature: &value,
                signer_certificate: &certificate,
                certificates: &[],
                unsigned_attrs: &[],
            };
            let whole = made.attached(&content).unwrap();
            let frame = made.attached_frame(content.len() as u64).unwrap();
            prop_assert_eq!(frame.total_len, whole.len() as u64);
            let read = read(&whole);
            let read_content = read.encap_content_info.econtent.unwrap();
            prop_assert_eq!(read_content.decode_as::<&OctetStringRef>().unwrap().as_bytes(), &content[..]);
            prop_assert_eq!([frame.head, content, frame.tail].concat(), whole);
        }
    }

    #[test]
    fn certificates_are_embedded_byte_for_byte_in_order_and_once() {
        let (signer, ca) = (outline(&issuer(), 5), outline(&issuer(), 1));
        let (attributes, value) = (attributes(), rsa_value());
        let certificates = embedded_certificates(EmbedCertificate::SignerAndCaCert, &signer, std::slice::from_ref(&ca));
        let twice = [certificates, vec![&ca]].concat();
        let made = SignedData {
            algorithm: RSA,
            signed_attrs: &attributes,
            signature: &value,
            signer_certificate: &signer,
            certificates: &twice,
            unsigned_attrs: &[],
        };
        let der = made.detached().unwrap();
        let set = wrap(context(0), &[&ca, &signer]);
        assert!(der.windows(set.len()).any(|window| window == set));
    }

    #[test]
    fn each_choice_of_certificates_embeds_what_it_says() {
        let (signer, chain) = (b"signer".as_slice(), [b"ca".to_vec(), b"root".to_vec()]);
        let embedded = |choice| embedded_certificates(choice, signer, &chain);
        assert_eq!(embedded(EmbedCertificate::Nothing), Vec::<&[u8]>::new());
        assert_eq!(embedded(EmbedCertificate::SignerCert), [signer]);
        assert_eq!(embedded(EmbedCertificate::SignerAndCaCert), [signer, b"ca", b"root"]);
        assert_eq!(embedded(EmbedCertificate::SignerCertAndCaInfo), [signer]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (certificate, attributes, value) = (outline(&issuer(), 5), attributes(), rsa_value());
        let many = vec![certificate.as_slice(); CERTIFICATES_MAX + 1];
        let good = SignedData {
            algorithm: RSA,
            signed_attrs: &attributes,
            signature: &value,
            signer_certificate: &certificate,
            certificates: &[],
            unsigned_attrs: &[],
        };
        assert!(good.detached().is_ok());
        assert_eq!(SignedData { algorithm: SignatureAlgorithm::Ed25519, ..good }.detached(), Err(CmsError::SignatureValue));
        assert_eq!(SignedData { certificates: &many, ..good }.detached(), Err(CmsError::TooManyCertificates { got: 17 }));
        assert!(matches!(SignedData { signer_certificate: b"", ..good }.detached(), Err(CmsError::Certificate(_))));
        assert!(matches!(SignedData { certificates: &[b"x"], ..good }.detached(), Err(CmsError::Certificate(_))));
        assert_eq!(good.attached_frame(CONTENT_MAX + 1), Err(CmsError::ContentTooLong { got: CONTENT_MAX + 1 }));
        assert!(good.attached_frame(CONTENT_MAX).is_ok());
    }
}
