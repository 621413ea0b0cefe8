//! PINs and API keys as the command line gets them: typed, from a file, from the environment. Never from the arguments, which others can see.

use std::{env, path::Path};

use anyhow::Context as _;
use secrecy::SecretString;

use super::Usage;
use crate::{
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
