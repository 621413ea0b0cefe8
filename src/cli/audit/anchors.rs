//! What was kept in a safe place, read from files: public keys of checkpoints, and heads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use der::pem;

use crate::{
    audit::chain::Anchors,
    domain::{algorithm::KeyKind, audit::AuditHead, public_key::key_kind_of_spki},
    pki::Certificate,
};

const PEM_BEGINNING: &str = "-----BEGIN ";

/// `--checkpoint-key` and `--head`.
#[derive(Debug, clap::Args)]
pub(super) struct AnchorArgs {
    /// Take checkpoints by this key only: PEM with its certificate or public key. May be given several times.
    #[arg(long, value_name = "FILE")]
    checkpoint_key: Vec<PathBuf>,
    /// Measure the log by what `sealgate audit head` printed before. May be given several times.
    #[arg(long, value_name = "FILE")]
    head: Vec<PathBuf>,
}

impl AnchorArgs {
    pub(super) fn load(&self) -> anyhow::Result<Anchors> {
        let mut anchors = Anchors::default();
        for file in &self.checkpoint_key {
            anchors.checkpoint_keys.extend(public_keys(&read(file)?).with_context(|| {
                format!("{} holds no public key in PEM form; make one with: openssl x509 -pubkey -noout -in CERTIFICATE", file.display())
            })?);
        }
        for file in &self.head {
            anchors.heads.extend(
                heads(&read(file)?)
                    .with_context(|| format!("{} is no head of an audit log; `sealgate audit head` prints one", file.display()))?,
            );
        }
        Ok(anchors)
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// Every public key of a PEM file, in DER; of certificates theirs.
fn public_keys(text: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let begins: Vec<usize> = text.match_indices(PEM_BEGINNING).map(|(at, _)| at).collect();
    ensure!(!begins.is_empty(), "it has no PEM block");
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    begins.iter().zip(ends).map(|(begin, end)| public_key(&text[*begin..end])).collect()
}

fn public_key(block: &str) -> anyhow::Result<Vec<u8>> {
    let (label, der) = pem::decode_vec(block.trim_end().as_bytes()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let spki = match label {
        "CERTIFICATE" => Certificate::from_der(&der)?.spki().to_vec(),
        "PUBLIC KEY" => der,
        other => bail!("it has a {other} in it"),
    };
    match key_kind_of_spki(&spki) {
        KeyKind::Unsupported(what) => bail!("{what} cannot be verified with"),
        _ => Ok(spki),
    }
}

fn heads(text: &str) -> anyhow::Result<Vec<AuditHead>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let heads = lines.map(|line| Ok(serde_json::from_str(line)?)).collect::<anyhow::Result<Vec<AuditHead>>>()?;
    ensure!(!heads.is_empty(), "it is empty");
    Ok(heads)
}
