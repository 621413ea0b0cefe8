//! Certificates in this API's shape: every branch and every leaf is `{"description":…,"value":…}`.

use actix_web::HttpRequest;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    error::{ApiError, Operation, RouteError},
    messages::Text,
    reply::say,
};
use crate::ticket::{Certificate, NameAttribute};

/// The kind of key that a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyType {
    Signature,
    /// There are none here.
    KeyAgreement,
}

impl KeyType {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "signature" => Ok(Self::Signature),
            "keyAgreement" => Ok(Self::KeyAgreement),
            _ => Err(Operation::ReadCertificate.error(RouteError::KeyType)),
        }
    }
}

/// The members of a certificate's description, in the language of whoever asks.
pub(super) fn describe(request: &HttpRequest, certificate: &Certificate) -> Map<String, Value> {
    let node = |key, value: Value| json!({ "description": say(request, &Text::new(key)), "value": value });
    let owner = name(request, certificate.subject(), |attribute| certificate.subject_attribute(attribute));
    let issuer = name(request, certificate.issuer(), |attribute| certificate.issuer_attribute(attribute));
    let public_key = json!({
        "algorithm": node("certificate-key-algorithm", certificate.key_kind().to_string().into()),
        "value": node("certificate-key-value", STANDARD.encode(certificate.spki()).into()),
    });
    let members = [
        ("ownerCertificateInfo", node("certificate-owner", owner)),
        ("issuerCertificateInfo", node("certificate-issuer", issuer)),
        ("publicKeyCertificateInfo", node("certificate-public-key", public_key)),
        ("certificateSerialNumber", node("certificate-serial", certificate.serial().into())),
        ("notBefore", node("certificate-not-before", certificate.not_before().to_rfc3339().into())),
        ("notAfter", node("certificate-not-after", certificate.not_after().to_rfc3339().into())),
        (
            "extensionsCertificateInfo",
            node("certificate-extensions", json!({ "keyUsage": node("certificate-key-usage", key_usage(certificate)) })),
        ),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn name(request: &HttpRequest, whole: String, attribute: impl Fn(NameAttribute) -> Option<String>) -> Value {
    let attributes = [
        ("ownerFullName", "certificate-full-name", attribute(NameAttribute::CommonName)),
        ("organization", "certificate-organization", attribute(NameAttribute::Organization)),
        ("organizationalUnit", "certificate-unit", attribute(NameAttribute::OrganizationalUnit)),
        ("title", "certificate-title", attribute(NameAttribute::Title)),
        ("country", "certificate-country", attribute(NameAttribute::Country)),
        ("stateOrProvince", "certificate-region", attribute(NameAttribute::StateOrProvince)),
        ("locality", "certificate-locality", attribute(NameAttribute::Locality)),
        ("serialNumber", "certificate-id", attribute(NameAttribute::SerialNumber)),
        ("distinguishedName", "certificate-distinguished-name", Some(whole)),
    ];
    let members = attributes.into_iter().filter_map(|(member, key, value)| {
        let node = json!({ "description": say(request, &Text::new(key)), "value": value? });
        Some((member.to_owned(), node))
    });
    Value::Object(members.collect())
}

/// The usages by their names in RFC 5280; empty if the certificate limits none.
fn key_usage(certificate: &Certificate) -> Value {
    let Some(usage) = certificate.key_usage() else { return json!([]) };
    let named =
        [("digitalSignature", usage.digital_signature), ("nonRepudiation", usage.non_repudiation), ("keyCertSign", usage.key_cert_sign)];
    named.into_iter().filter(|(_, allowed)| *allowed).map(|(name, _)| name).collect()
}
