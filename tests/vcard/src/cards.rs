//! The two cards, and the memory that makes a card the same one when it is put back.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use trussed::virt::{self, StorageConfig, StoreConfig};
use vpicc::VSmartCard;

use crate::{
    apdu::ApduLayer,
    backend::{BACKENDS, Dispatch},
};

/// Which card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// OpenPGP card 3.4: user PIN 123456, admin PIN 12345678.
    OpenPgp,
    /// PIV: PIN 123456, PUK 12345678, the well-known management key.
    Piv,
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "openpgp" => Ok(Self::OpenPgp),
            "piv" => Ok(Self::Piv),
            _ => Err(()),
        }
    }
}

/// What makes a card an individual: its number, and what is written on it.
pub struct Memory {
    serial: [u8; 16],
    store: StoreConfig<'static>,
}

impl Memory {
    /// `STATEFILE` holds the card's number, drawn when the file is made; `STATEFILE.int` and `STATEFILE.ext` what is written on it.
    pub fn in_files(state: &Path) -> io::Result<Self> {
        let part = |extension: &str| {
            let mut path = OsString::from(state);
            path.push(extension);
            StorageConfig::filesystem(PathBuf::from(path))
        };
        if !state.exists() {
            fs::write(state, random_number()?)?;
        }
        let serial = fs::read(state)?.try_into().map_err(|_| io::Error::other(format!("{} is no card of ours", state.display())))?;
        Ok(Self { serial, store: StoreConfig { internal: part(".int"), external: part(".ext"), volatile: StorageConfig::ram() } })
    }
}

fn random_number() -> io::Result<[u8; 16]> {
    let mut number = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut number)?;
    Ok(number)
}

/// Has `serve` answer the reader for a card.
pub fn with_card<R>(kind: Kind, memory: Memory, delay: Duration, serve: impl FnOnce(&mut dyn VSmartCard) -> R) -> R {
    let Memory { serial, store } = memory;
    virt::with_platform(store, |platform| match kind {
        Kind::OpenPgp => platform.run_client_with_backends("openpgp", Dispatch::new(), BACKENDS, |client| {
            let mut options = opcard::Options::default();
            options.button_available = false;
            options.serial.copy_from_slice(&serial[..4]);
            serve(&mut ApduLayer::new(opcard::Card::new(client, options), delay))
        }),
        Kind::Piv => platform.run_client_with_backends("piv", Dispatch::new(), BACKENDS, |client| {
            let options = piv_authenticator::Options::new().uuid(Some(serial));
            serve(&mut ApduLayer::new(piv_authenticator::Authenticator::new(client, options), delay))
        }),
    })
}
