//! PINs, passwords and API keys as the command line gets them: typed, from a file, from the environment. Never from the arguments, which others can see.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::Usage;
use crate::{
    auth::Password,
    domain::{pin::Pin, token::PinSource},
    token::pin_source,
};

/// The environment variable with the caller's API key.
pub(super) const API_KEY_VARIABLE: &str = "SEALGATE_API_KEY";

/// The API key of the environment; `None` where none is set.
pub(super) fn api_key() -> Option<SecretString> {
    env::var(API_KEY_VARIABLE).ok().filter(|key| !key.is_empty()).map(SecretString::from)
}

/// Reads a PIN from the first line of a file that nobody else can read.
pub(super) fn pin_from_file(file: &Path) -> anyhow::Result<Pin> {
    pin_source::read(&PinSource::File(file.to_owned())).context("no PIN was read")
}

/// Asks for a PIN at the terminal, without showing it.
pub(super) fn pin_from_terminal(question: &str) -> anyhow::Result<Pin> {
    let typed = rpassword::prompt_password(question)
        .map_err(|error| Usage(format!("there is no terminal to ask for the PIN at ({error}); give it with --pin-file FILE")))?;
    Pin::new(typed).context("type the PIN again")
}

/// Reads a new password from the first line of a file that nobody else can read.
pub(super) fn password_from_file(file: &Path) -> anyhow::Result<Password> {
    let line = line_of_private_file(file)?;
    Password::chosen(line.expose_secret())
        .with_context(|| format!("write a better one to {}, or let one be made with --generate", file.display()))
}

/// Asks for a new password at the terminal, twice and without showing it.
pub(super) fn password_from_terminal() -> anyhow::Result<Password> {
    let ask = |question| {
        rpassword::prompt_password(question).map(Zeroizing::new).map_err(|error| {
            Usage(format!("there is no terminal to ask for the password at ({error}); use --password-file FILE or --generate"))
        })
    };
    let typed = ask("New password: ")?;
    let password = Password::chosen(&typed).context("choose another one, or let one be made with --generate")?;
    anyhow::ensure!(*ask("The same again: ")? == *typed, "the two are not the same; try again");
    Ok(password)
}

/// The first line of a file that nobody else can read.
pub(super) fn line_of_private_file(path: &Path) -> anyhow::Result<SecretString> {
    let shown = path.display();
    let mode = fs::metadata(path).with_context(|| format!("{shown} cannot be read"))?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("others can read {shown}; run: chmod 600 {shown}");
    }
    first_line(path)
}

/// The first line of a file, whoever can read it.
pub(super) fn first_line(path: &Path) -> anyhow::Result<SecretString> {
    let text = Zeroizing::new(fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?);
    Ok(text.lines().next().unwrap_or_default().to_owned().into())
}
