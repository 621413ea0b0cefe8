//! `[[webhook]]`: who is told when a person is needed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    mistakes::Mistakes,
    raw::{Item, RawWebhook},
};
use crate::domain::notice::NoticeKind;

/// A program that is told.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where it listens. May hold a secret.
    pub url: String,
    /// The file with the secret that notices are signed with.
    pub secret_file: PathBuf,
    /// What it is told of.
    pub events: Vec<NoticeKind>,
}

impl std::fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSettings").field("secret_file", &self.secret_file).field("events", &self.events).finish_non_exhaustive()
    }
}

pub(super) fn check(raw: Vec<Item<RawWebhook>>, base: &Path, mistakes: &mut Mistakes) -> Vec<WebhookSettings> {
    raw.into_iter()
        .map(|Item { at, raw }| {
            let secret_file = base.join(raw.secret_file);
            let shown = secret_file.display();
            match fs::metadata(&secret_file) {
                Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
                    mistakes.note(&at, "secret_file", format!("others can read the secret; run: chmod 600 {shown}"));
                }
                Ok(_) => {}
                Err(_) => {
                    let what = format!("{shown} cannot be read; make it with: (umask 077; openssl rand -hex 32 > {shown})");
                    mistakes.note(&at, "secret_file", what);
                }
            }
            if !raw.url.starts_with("https://") && !raw.url.starts_with("http://") {
                mistakes.note(&at, "url", "write an https:// URL; http:// for loopback addresses only");
            }
            let choices = NoticeKind::ALL.map(|kind| (kind.as_str(), kind));
            let events = match raw.events {
                Some(names) => names.iter().filter_map(|name| mistakes.choose(&at, "events", name, &choices)).collect(),
                None => NoticeKind::ALL.to_vec(),
            };
            WebhookSettings { url: raw.url, secret_file, events }
        })
        .collect()
}
