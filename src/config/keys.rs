//! `[[key]]`: keys that have a name.

use std::{fs, path::Path};

use x509_cert::{Certificate, der::Encode as _};

use super::{
    Names, Unique,
    mistakes::{Mistakes, Place},
    raw::{Item, RawKey},
};
use crate::domain::{
    algorithm::SignatureAlgorithm,
    ids::KeyName,
    key::ConfiguredKey,
    key_uri::{ObjectType, Pkcs11Uri},
};

/// The largest certificate file that is read, in bytes: a chain has a few kilobytes.
const PEM_MAX: u64 = 1024 * 1024;

pub(super) fn check(raw: Vec<Item<RawKey>>, names: &Names, base: &Path, mistakes: &mut Mistakes) -> Vec<ConfiguredKey> {
    let mut unique = Unique::new();
    raw.into_iter().filter_map(|item| one(&item, names, base, &mut unique, mistakes)).collect()
}

fn one(item: &Item<RawKey>, names: &Names, base: &Path, unique: &mut Unique<String>, mistakes: &mut Mistakes) -> Option<ConfiguredKey> {
    let Item { at, raw } = item;
    unique.check(raw.name.clone(), at, "name", mistakes);
    let name = mistakes.parse::<KeyName>(at, "name", &raw.name);
    let uri = mistakes.parse::<Pkcs11Uri>(at, "uri", &raw.uri);
    if let Some(uri) = &uri {
        check_uri(uri, at, names, mistakes);
    }
    let algorithm = raw.algorithm.as_deref().and_then(|text| mistakes.parse::<SignatureAlgorithm>(at, "algorithm", text));
    let certificate = raw.certificate.as_deref().and_then(|file| certificate(&base.join(file), at, "certificate", mistakes));
    let chain = raw.chain.iter().flat_map(|file| certificates(&base.join(file), at, "chain", mistakes)).collect();
    Some(ConfiguredKey {
        name: name?,
        uri: uri?,
        algorithm,
        certificate,
        chain,
        ignore_validity: raw.ignore_validity,
        ignore_purpose: raw.ignore_purpose,
        allow_unverified: raw.allow_unverified,
    })
}

fn check_uri(uri: &Pkcs11Uri, at: &Place, names: &Names, mistakes: &mut Mistakes) {
    if !uri.names_an_object() {
        mistakes.note(at, "uri", "this names a token; add `id=` or `object=` of the key (`sealgate keys` prints them)");
    }
    let token = [&uri.token, &uri.serial, &uri.manufacturer, &uri.model, &uri.module_name];
    if token.iter().all(|attribute| attribute.is_none()) {
        mistakes.note(at, "uri", "this matches keys on any token; add `serial=` or `token=` (`sealgate slots` prints them)");
    }
    if uri.object_type.is_some_and(|object_type| object_type != ObjectType::Private) {
        mistakes.note(at, "uri", "a signing key is `type=private`; correct `type` or leave it out");
    }
    if let Some(module) = uri.module_name.as_deref().filter(|module| !names.has_module(module)) {
        mistakes.note(at, "uri", format!("there is no [[module]] named `{}`", module.escape_debug()));
    }
}

pub(super) fn certificate(file: &Path, at: &Place, field: &str, mistakes: &mut Mistakes) -> Option<Vec<u8>> {
    let mut all = certificates(file, at, field, mistakes);
    if all.len() > 1 {
        mistakes.note(at, field, "there are several certificates in the file; put those of the CAs into `chain`");
    }
    (all.len() == 1).then(|| all.remove(0))
}

/// The certificates of a PEM file in DER; none together with a mistake.
pub(super) fn certificates(file: &Path, at: &Place, field: &str, mistakes: &mut Mistakes) -> Vec<Vec<u8>> {
    match read_pem(file) {
        Ok(certificates) => certificates,
        Err(what) => {
            mistakes.note(at, field, format!("{} {what}", file.display()));
            Vec::new()
        }
    }
}

fn read_pem(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read ({error}); correct the path");
    let wrong_form = "is not a certificate in PEM form; convert it with: openssl x509 -inform der -in FILE";
    if fs::metadata(file).map_err(unreadable)?.len() > PEM_MAX {
        return Err(format!("has more than {PEM_MAX} bytes; name a file with certificates only"));
    }
    let pem = fs::read(file).map_err(unreadable)?;
    let certificates = Certificate::load_pem_chain(&pem).map_err(|_| wrong_form)?;
    if certificates.is_empty() {
        return Err(wrong_form.to_owned());
    }
    certificates.iter().map(|certificate| certificate.to_der().map_err(|_| wrong_form.to_owned())).collect()
}
