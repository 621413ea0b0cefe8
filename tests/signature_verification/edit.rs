//! Signatures with one of their parts changed.

use std::fs;

use cms::{
    content_info::ContentInfo,
    signed_data::{SignedData, SignerInfo, SignerInfos},
};
use const_oid::ObjectIdentifier;
use der::{
    Any, Decode, Encode, Reader, SliceReader, Tag, TagNumber,
    asn1::{AnyRef, OctetString, SetOfVec},
};
use p256::{
    ecdsa::{DerSignature, SigningKey, signature::Signer},
    pkcs8::DecodePrivateKey,
};
use x509_cert::attr::Attribute;

use crate::lab::Lab;

/// A signature with one of its parts changed.
pub fn edit(signature: &[u8], change: impl FnOnce(&mut SignedData)) -> Vec<u8> {
    let mut info = ContentInfo::from_der(signature).unwrap();
    let mut signed_data: SignedData = info.content.decode_as().unwrap();
    change(&mut signed_data);
    info.content = Any::encode_from(&signed_data).unwrap();
    info.to_der().unwrap()
}

pub fn edit_signer(signature: &[u8], change: impl FnOnce(&mut SignerInfo)) -> Vec<u8> {
    edit(signature, |signed_data| {
        let mut signer = signed_data.signer_infos.0.get(0).unwrap().clone();
        change(&mut signer);
        signed_data.signer_infos = SignerInfos(SetOfVec::try_from(vec![signer]).unwrap());
    })
}

/// A signature with other signed attributes, signed again with the signer's P-256 key.
pub fn resign(lab: &Lab, name: &str, signature: &[u8], change: impl FnOnce(&mut Vec<Attribute>)) -> Vec<u8> {
    let key = SigningKey::from_pkcs8_pem(&fs::read_to_string(lab.path(&format!("{name}.key"))).unwrap()).unwrap();
    edit_signer(signature, |signer| {
        let mut attributes = signer.signed_attrs.clone().unwrap().into_vec();
        change(&mut attributes);
        let attributes = SetOfVec::try_from(attributes).unwrap();
        let value: DerSignature = key.sign(&attributes.to_der().unwrap());
        signer.signature = OctetString::new(value.as_bytes()).unwrap();
        signer.signed_attrs = Some(attributes);
    })
}

pub fn attribute(attributes: &mut [Attribute], oid: ObjectIdentifier) -> &mut Attribute {
    attributes.iter_mut().find(|attribute| attribute.oid == oid).unwrap()
}

pub fn values(values: &[Any]) -> SetOfVec<Any> {
    SetOfVec::try_from(values.to_vec()).unwrap()
}

pub fn octets(bytes: &[u8]) -> Any {
    Any::encode_from(&OctetString::new(bytes).unwrap()).unwrap()
}

/// The value of a signed attribute of the first signer.
pub fn edit_attributes(signature: &[u8], oid: ObjectIdentifier) -> Any {
    let info = ContentInfo::from_der(signature).unwrap();
    let signed_data: SignedData = info.content.decode_as().unwrap();
    let signer = signed_data.signer_infos.0.get(0).unwrap();
    let attribute = signer.signed_attrs.as_ref().unwrap().iter().find(|attribute| attribute.oid == oid).unwrap().clone();
    attribute.values.get(0).unwrap().clone()
}

/// The signature with these attributes, in DER, beside what stands there already.
pub fn with_unsigned(signature: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    edit_signer(signature, |signer| {
        let mut all = signer.unsigned_attrs.take().map(SetOfVec::into_vec).unwrap_or_default();
        all.extend(attributes.iter().map(|attribute| Attribute::from_der(attribute).unwrap()));
        signer.unsigned_attrs = Some(SetOfVec::try_from(all).unwrap());
    })
}

/// The signature with these members of `RevocationInfoChoices`, in DER.
pub fn with_revocation(signature: &[u8], members: &[Vec<u8>]) -> Vec<u8> {
    let mut info = ContentInfo::from_der(signature).unwrap();
    let mut reader = SliceReader::new(info.content.value()).unwrap();
    let mut parts: Vec<Vec<u8>> = Vec::new();
    while !reader.is_finished() {
        parts.push(reader.tlv_bytes().unwrap().to_vec());
    }
    let choices =
        AnyRef::new(Tag::ContextSpecific { constructed: true, number: TagNumber(1) }, members.concat().as_slice()).unwrap().to_der();
    parts.insert(parts.len() - 1, choices.unwrap());
    info.content = Any::new(Tag::Sequence, parts.concat()).unwrap();
    info.to_der().unwrap()
}

/// An OCSP response as a member of `RevocationInfoChoices` (RFC 5940).
pub fn ocsp_member(response: &[u8]) -> Vec<u8> {
    let format = ObjectIdentifier::new("1.3.6.1.5.5.7.16.2").unwrap().to_der().unwrap();
    let value = [format, response.to_vec()].concat();
    AnyRef::new(Tag::ContextSpecific { constructed: true, number: TagNumber(1) }, value.as_slice()).unwrap().to_der().unwrap()
}

/// The `BasicOCSPResponse` in an `OCSPResponse`.
pub fn basic_of(response: &[u8]) -> Vec<u8> {
    let marker = ObjectIdentifier::new("1.3.6.1.5.5.7.48.1.1").unwrap().to_der().unwrap();
    let at = response.windows(marker.len()).position(|window| window == marker).unwrap() + marker.len();
    OctetString::from_der(&response[at..]).unwrap().as_bytes().to_vec()
}

/// An attribute with one value, both as they are.
pub fn attribute_of(oid: &str, value: &[u8]) -> Vec<u8> {
    let values = values(&[Any::from_der(value).unwrap()]);
    Attribute { oid: ObjectIdentifier::new(oid).unwrap(), values }.to_der().unwrap()
}

/// The value of the first signer's signature.
pub fn signature_value(signature: &[u8]) -> Vec<u8> {
    let info = ContentInfo::from_der(signature).unwrap();
    let signed_data: SignedData = info.content.decode_as().unwrap();
    signed_data.signer_infos.0.get(0).unwrap().signature.as_bytes().to_vec()
}
