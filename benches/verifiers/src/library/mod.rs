//! The candidates, one file each, behind one question: is this signature right?

use anyhow::Result;
use serde::Serialize;

use crate::sample::{Key, Sample};

mod aws_lc;
mod openssl;
mod ring;
mod rustcrypto;

/// Tells whether a signature is right.
pub(crate) type Check<'a> = Box<dyn Fn(&Sample) -> bool + 'a>;

/// What the library is handed for every signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Input {
    /// The message; the key was parsed before.
    Message,
    /// The hash of the message, made elsewhere; the key was parsed before.
    Digest,
    /// The message and the key as it stands in a certificate, parsed anew each time.
    KeyAndMessage,
}

impl Input {
    pub(crate) const ALL: [Self; 3] = [Self::Message, Self::Digest, Self::KeyAndMessage];
}

/// A candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Library {
    Ring,
    AwsLcRs,
    Openssl,
    Rustcrypto,
}

impl Library {
    pub(crate) const ALL: [Self; 4] = [Self::Ring, Self::AwsLcRs, Self::Openssl, Self::Rustcrypto];

    /// This library's check for `key`; `None` if it cannot do that algorithm with that input.
    pub(crate) fn check(self, key: &Key, input: Input) -> Result<Option<Check<'_>>> {
        match self {
            Self::Ring => ring::check(key, input),
            Self::AwsLcRs => aws_lc::check(key, input),
            Self::Openssl => openssl::check(key, input),
            Self::Rustcrypto => rustcrypto::check(key, input),
        }
    }
}
