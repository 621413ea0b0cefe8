//! `[[token]]` and `[tokens]`: how tokens are logged in.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use super::{
    Names, Unique,
    mistakes::{FileFault, Mistakes, Place},
    raw::{Item, RawPin, RawToken, RawTokens},
};
use crate::domain::{
    key_uri::Pkcs11Uri,
    token::{LoginMode, PinSource, TokenPolicy},
};

const QUEUE_DEFAULT: u64 = 1024;
const QUEUE_BOUNDS: (u64, u64) = (1, 65_536);

const LOGIN_MODES: &[(&str, LoginMode)] = &[
    ("operator", LoginMode::Operator),
    ("configured", LoginMode::Configured),
    ("per-request", LoginMode::PerRequest),
    ("protected", LoginMode::Protected),
];

/// Tokens that no `[[token]]` names: without one, each request brings its own PIN, so that a page can use a token nobody configured.
const UNLISTED: &[(&str, Option<LoginMode>)] =
    &[("per-request", Some(LoginMode::PerRequest)), ("operator", Some(LoginMode::Operator)), ("ignore", None)];

pub(super) fn check(raw: Vec<Item<RawToken>>, names: &Names, base: &Path, mistakes: &mut Mistakes) -> Vec<TokenPolicy> {
    let mut uris = Unique::new();
    raw.into_iter().filter_map(|item| one(item, names, base, &mut uris, mistakes)).collect()
}

/// How tokens are treated that no `[[token]]` names; `None` leaves them alone.
pub(super) fn unlisted(raw: Option<Item<RawTokens>>, mistakes: &mut Mistakes) -> Option<TokenPolicy> {
    let (at, written) = raw.map_or_else(|| (Place::default(), None), |item| (item.at, item.raw.unlisted));
    let login = mistakes.choose(&at, "unlisted", written.as_deref().unwrap_or("per-request"), UNLISTED).flatten()?;
    Some(TokenPolicy { uri: Pkcs11Uri::default(), login, pin: None, queue_bound: as_bound(QUEUE_DEFAULT) })
}

fn one(item: Item<RawToken>, names: &Names, base: &Path, uris: &mut Unique<Pkcs11Uri>, mistakes: &mut Mistakes) -> Option<TokenPolicy> {
    let Item { at, raw } = item;
    let uri = mistakes.parse::<Pkcs11Uri>(&at, "uri", &raw.uri);
    if let Some(uri) = &uri {
        check_uri(uri, &at, names, mistakes);
        uris.check(uri.clone(), &at, "uri", mistakes);
    }
    let login = mistakes.choose(&at, "login", &raw.login, LOGIN_MODES);
    let queue_bound = as_bound(mistakes.bounded(&at, "queue", raw.queue, QUEUE_DEFAULT, QUEUE_BOUNDS));
    if login == Some(LoginMode::Configured) && raw.pin.is_none() {
        mistakes.note(&at, "pin", "missing; say where the PIN stands, best `pin = { file = \"…\" }`");
    }
    if login.is_some_and(|login| login != LoginMode::Configured) && raw.pin.is_some() {
        mistakes.note(&at, "pin", "a PIN is read only with `login = \"configured\"`; use that, or remove `pin`");
    }
    let pin = raw.pin.and_then(|pin| pin_source(pin, &at, "pin", base, mistakes));
    Some(TokenPolicy { uri: uri?, login: login?, pin, queue_bound })
}

fn check_uri(uri: &Pkcs11Uri, at: &Place, names: &Names, mistakes: &mut Mistakes) {
    if uri.names_an_object() || uri.object_type.is_some() {
        mistakes.note(at, "uri", "this names a key; a token has no `object`, `id` or `type`");
    }
    if let Some(module) = uri.module_name.as_deref().filter(|module| !names.has_module(module)) {
        mistakes.note(at, "uri", format!("there is no [[module]] named `{}`", module.escape_debug()));
    }
}

/// Where a secret stands; `field` is what the file calls it.
pub(super) fn pin_source(raw: RawPin, at: &Place, field: &str, base: &Path, mistakes: &mut Mistakes) -> Option<PinSource> {
    let RawPin::Source(source) = raw else {
        let secret = if field == "pin" { "PIN" } else { field };
        let what = format!(
            "a {secret} does not belong in this file; write it in a file of its own that only the gateway's user can read, and `{field} = {{ \
             file = \"…\" }}` here"
        );
        mistakes.note(at, field, what);
        return None;
    };
    match (source.file, source.env, source.credential) {
        (Some(file), None, None) => {
            let file = base.join(file);
            check_pin_file(&file, at, field, mistakes);
            Some(PinSource::File(file))
        }
        (None, Some(variable), None) => Some(PinSource::Environment(variable)),
        (None, None, Some(credential)) => Some(PinSource::Credential(credential)),
        _ => {
            mistakes.note(at, field, "give exactly one of `file`, `env` and `credential`");
            None
        }
    }
}

/// A PIN that others can read is no secret. A file that cannot even be looked at is left to the login to complain about: commands that only
/// read the configuration may run as somebody else.
fn check_pin_file(file: &Path, at: &Place, field: &str, mistakes: &mut Mistakes) {
    match fs::metadata(file) {
        Ok(metadata) if !metadata.is_file() => mistakes.note(at, &format!("{field}.file"), format!("{} is not a file", file.display())),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            let what = format!("others can read the PIN; run: chmod 600 {}", file.display());
            mistakes.note_file(at, "pin.file", what, FileFault::PinExposed(file.to_owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!("there is no file {}; write the PIN on its first line", file.display());
            mistakes.note_file(at, "pin.file", what, FileFault::PinMissing(file.to_owned()));
        }
        Ok(_) | Err(_) => {}
    }
}

fn as_bound(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
