//! `[store]`: where tickets, permits and jobs are kept.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    mistakes::Mistakes,
    raw::{Item, RawStore},
    tokens,
};
use crate::domain::{ids::NAME_MAX, token::PinSource};

/// Where tickets, permits and jobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In the gateway's own folder.
    Sqlite,
    /// In a database that several gateways may share.
    Postgres(PostgresSettings),
}

/// A PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Its URL, without a password.
    pub url: DatabaseUrl,
    /// Where the password stands.
    pub password: Option<PinSource>,
    /// What operators of other gateways call this one; `None` for the name of the machine.
    pub name: Option<String>,
    /// A directory that all gateways share, for large content; `None` if there is none.
    pub spool_dir: Option<PathBuf>,
}

/// A database's URL. Not shown: an older configuration may have had a password in it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl")
    }
}

pub(super) fn check(raw: Option<Item<RawStore>>, base: &Path, mistakes: &mut Mistakes) -> StoreSettings {
    let Some(Item { at, raw }) = raw else { return StoreSettings::Sqlite };
    let RawStore { url, password, name, spool_dir } = raw;
    let url = url.unwrap_or_else(|| "sqlite".to_owned());
    let password = password.and_then(|password| tokens::pin_source(password, &at, "password", base, mistakes));
    if name.as_ref().is_some_and(|name| name.is_empty() || name.chars().count() > NAME_MAX || name.chars().any(char::is_control)) {
        mistakes.note(&at, "name", format!("give 1 to {NAME_MAX} characters"));
    }
    if url == "sqlite" {
        if password.is_some() || name.is_some() || spool_dir.is_some() {
            mistakes.note(&at, "url", "SQLite needs nothing else; for PostgreSQL write \"postgres://USER@HOST/DATABASE\"");
        }
        return StoreSettings::Sqlite;
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        mistakes.note(&at, "url", "write \"sqlite\", or \"postgres://USER@HOST/DATABASE\"");
    }
    if has_password(&url) {
        let what = "a password does not belong in this file; write it in a file of its own that only the gateway's user can read, and \
                    `password = { file = \"…\" }` here";
        mistakes.note(&at, "url", what);
    }
    StoreSettings::Postgres(PostgresSettings {
        url: DatabaseUrl(url),
        password,
        name,
        spool_dir: spool_dir.map(|directory| base.join(directory)),
    })
}

fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user = place.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || query.split('&').any(|pair| pair.starts_with("password="))
}
