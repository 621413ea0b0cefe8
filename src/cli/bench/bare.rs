//! The bare loop on the token: what it gives with nothing around it.
//!
//! It runs in a child of this program, because the module reads its configuration from the environment, which a process cannot safely
//! change for itself. Parent and child talk in lines of JSON: one order to begin with, then one line per turn and its answer.

use std::{
    borrow::Cow,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::stats::Turn;
use crate::{
    cli::{host_program, output},
    domain::{
        algorithm::HashAlgorithm,
        digest::{Digest, SigningInput, ToSign},
        key_uri::Pkcs11Uri,
        pin::Pin,
    },
    token::{
        driver::{CachedKey, TokenDriver, TokenModule as _},
        pkcs11::{ModuleOptions, Pkcs11Module},
    },
};

/// The hidden verb that runs the loop.
pub(in crate::cli) const VERB: &str = "bench-token";

/// Which key of which token to sign with.
pub(super) struct BareKey<'a> {
    pub(super) module: &'a Path,
    pub(super) softhsm2_conf: &'a Path,
    pub(super) uri: &'a Pkcs11Uri,
    pub(super) pin: &'a SecretString,
}

#[derive(Serialize, Deserialize)]
struct Order<'a> {
    module: PathBuf,
    uri: Pkcs11Uri,
    pin: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct TakeTurn {
    milliseconds: u64,
}

/// The child that signs.
pub(super) struct BareLoop {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl BareLoop {
    /// Starts the child; it logs in and finds the key.
    pub(super) fn start(key: &BareKey<'_>) -> anyhow::Result<Self> {
        let mut command = Command::new(host_program()?);
        command.arg(VERB).env("SOFTHSM2_CONF", key.softhsm2_conf).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the loop on the token did not start")?;
        let (orders, answers) = child.stdin.take().zip(child.stdout.take()).context("the loop on the token has no pipes")?;
        let mut bare = Self { child, orders, answers: BufReader::new(answers) };
        // The pipe is private to parent and child; the PIN is in neither arguments nor environment.
        let order = Order { module: key.module.to_owned(), uri: key.uri.clone(), pin: Cow::Borrowed(key.pin.expose_secret()) };
        bare.say(&order)?;
        let _ready: Turn = bare.hear()?;
        Ok(bare)
    }

    /// Signs for `span` and reports.
    pub(super) fn turn(&mut self, span: Duration) -> anyhow::Result<Turn> {
        self.say(&TakeTurn { milliseconds: u64::try_from(span.as_millis())? })?;
        self.hear()
    }

    fn say(&mut self, order: &impl Serialize) -> anyhow::Result<()> {
        let mut line = Zeroizing::new(serde_json::to_vec(order)?);
        line.push(b'\n');
        self.orders.write_all(&line).context("the loop on the token ended; see its message above")
    }

    fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the loop on the token ended; see its message above");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for BareLoop {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it stays.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child: reads an order, then signs for as long as each further line says.
pub(in crate::cli) fn run() -> anyhow::Result<()> {
    let mut lines = io::stdin().lock().lines();
    let first = Zeroizing::new(lines.next().context("this verb is for `sealgate bench`, which tells it what to do")??);
    let order: Order<'_> = serde_json::from_str(&first).context("this verb is for `sealgate bench`, which tells it what to do")?;
    let module = Pkcs11Module::load(&order.module, ModuleOptions::named("bench".parse()?))?;
    let found = module.tokens()?.into_iter().find(|found| order.uri.matches_token(&found.token));
    let mut driver = module.open(found.context("the token is not there; is its folder?")?.slot)?;
    driver.login(Some(&Pin::new(order.pin.into_owned())?))?;
    let key = driver.find_key(&order.uri.key_selector())?;
    let to_sign = sample(&key)?;
    sign_once(&mut *driver, &key, &to_sign)?;
    output::json(&Turn::default())?;
    for line in lines {
        let order: TakeTurn = serde_json::from_str(&line?)?;
        output::json(&sign_for(&mut *driver, &key, &to_sign, Duration::from_millis(order.milliseconds))?)?;
    }
    Ok(())
}

fn sign_for(driver: &mut dyn TokenDriver, key: &CachedKey, to_sign: &ToSign, span: Duration) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    let began = Instant::now();
    let mut last = began;
    while last.duration_since(began) < span {
        sign_once(driver, key, to_sign)?;
        let now = Instant::now();
        turn.note(now.duration_since(last));
        last = now;
    }
    turn.ran_us = u64::try_from(last.duration_since(began).as_micros())?;
    Ok(turn)
}

fn sign_once(driver: &mut dyn TokenDriver, key: &CachedKey, to_sign: &ToSign) -> anyhow::Result<()> {
    driver.sign(key, to_sign, None, &mut || {})?;
    Ok(())
}

/// Something that the key signs by default.
fn sample(key: &CachedKey) -> anyhow::Result<ToSign> {
    let Some(algorithm) = key.kind.default_algorithm() else { bail!("a key of kind {} cannot sign; choose another --key", key.kind) };
    let message = b"sealgate bench".to_vec();
    let input = match algorithm.hash() {
        Some(hash) => SigningInput::Digest(Digest::new(hash, digest_of(hash, &message))?),
        None => SigningInput::Message(message),
    };
    Ok(ToSign::new(algorithm, input)?)
}

fn digest_of(hash: HashAlgorithm, message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        HashAlgorithm::Sha256 => &SHA256,
        HashAlgorithm::Sha384 => &SHA384,
        HashAlgorithm::Sha512 => &SHA512,
    };
    digest::digest(algorithm, message).as_ref().to_vec()
}
