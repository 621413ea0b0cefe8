//! `[trust]`: where the certificates are that signatures are judged by.

use std::path::{Path, PathBuf};

use super::{
    mistakes::Mistakes,
    raw::{Item, RawTrust},
};

/// The most places of either kind.
const PLACES_MAX: usize = 64;

/// Files and folders with certificates. What is in them is looked at when a gateway starts, and on SIGHUP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustSettings {
    /// Those that are trusted.
    pub anchors: Vec<PathBuf>,
    /// CAs that may stand between a certificate and an anchor.
    pub intermediates: Vec<PathBuf>,
}

pub(super) fn check(raw: Option<Item<RawTrust>>, base: &Path, mistakes: &mut Mistakes) -> TrustSettings {
    let Some(Item { at, raw }) = raw else { return TrustSettings::default() };
    let mut places = |field: &str, written: Vec<PathBuf>| -> Vec<PathBuf> {
        if written.len() > PLACES_MAX {
            mistakes.note(&at, field, format!("at most {PLACES_MAX} files and folders; put the certificates into one folder"));
        }
        for path in &written {
            if path.as_os_str().is_empty() {
                mistakes.note(&at, field, "an empty path; name a file or a folder with certificates in PEM or DER");
            }
        }
        written.into_iter().map(|path| base.join(path)).collect()
    };
    TrustSettings { anchors: places("anchors", raw.anchors), intermediates: places("intermediates", raw.intermediates) }
}
