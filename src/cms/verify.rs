//! CMS signatures that others made, or we: who signed what, and whether that is so (RFC 5652 section 5.6, EN 319 122-1).
//!
//! [`SignedMessage::read`] takes a signature apart, [`SignedMessage::check`] judges each of its signers. Whether a signer's certificate is
//! trusted is not known here, nor what a time stamp is worth. Content is streamed and never whole in memory.
//! Invariants: `Ok` of a signer means that the key in `certificate` signed just this content and, where there are any, just these attributes;
//! signed attributes are judged as the bytes that were received; what is read is bounded in length, depth and number before it is read.

mod attributes;
mod outline;
mod signer;
mod values;

use std::io::{self, Read, Seek, Write};

use const_oid::{ObjectIdentifier, db::rfc5911};

pub use signer::{SignerCheck, SignerFault};
pub use values::CarriedValues;

use self::outline::Outline;
use super::reworked::{Existing, Reworked};
use crate::domain::{
    algorithm::HashAlgorithm,
    digest::{Digest, MESSAGE_MAX},
    hash::Hasher,
};

/// The most signers of one signature.
pub const SIGNERS_MAX: usize = 64;
/// The most certificates, and the most CRLs, in one signature.
pub const EMBEDDED_MAX: usize = 64;
/// The longest signature without its content, in bytes: one with certificates, time stamps and long CRLs.
pub const FRAME_MAX: usize = 32 << 20;
/// How much content is read at a time, in bytes.
const PIECE_LEN: usize = 64 * 1024;

/// Why something is no CMS signature that can be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Not `SignedData` in DER, or in the BER that streaming signers write.
    #[error("not a CMS signature: {0}")]
    Malformed(String),
    /// Bytes follow the signature.
    #[error("bytes follow the end of the signature")]
    TrailingData,
    /// Larger than what is read.
    #[error("the signature has more {0} than are looked at")]
    TooMuch(&'static str),
    /// The content is neither in the signature nor was it given.
    #[error("the content is not in the signature and was not given")]
    NoContent,
    /// The signature or the content cannot be read back.
    #[error("the signature or its content cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// A signature, taken apart.
#[derive(Debug)]
pub struct SignedMessage<R> {
    source: R,
    outline: Outline,
}

impl<R: Read + Seek> SignedMessage<R> {
    /// Takes a signature apart: DER, or BER of indefinite length round DER. Its content stays where it is.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(mut source: R) -> Result<Self, ReadError> {
        let outline = Outline::read(&mut source)?;
        Ok(Self { source, outline })
    }

    /// The type of the content; `id-data` for documents.
    #[must_use]
    pub const fn content_type(&self) -> ObjectIdentifier {
        self.outline.content_type
    }

    /// Whether the content is a document: anything else has a meaning of its own.
    #[must_use]
    pub fn is_of_data(&self) -> bool {
        self.outline.content_type == rfc5911::ID_DATA
    }

    /// Whether the content is in the signature.
    #[must_use]
    pub const fn is_attached(&self) -> bool {
        self.outline.content.is_some()
    }

    /// The length of the content in the signature, in bytes.
    #[must_use]
    pub fn content_len(&self) -> Option<u64> {
        self.outline.content.as_ref().map(|segments| segments.iter().map(|segment| segment.len).sum())
    }

    /// The certificates in the signature, in DER, in their order.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.outline.certificates
    }

    /// The CRLs in the signature, in DER, in their order.
    #[must_use]
    pub fn crls(&self) -> &[Vec<u8>] {
        &self.outline.crls
    }

    /// The OCSP answers in the signature (RFC 5940), in DER, in their order; each an `OCSPResponse`.
    #[must_use]
    pub fn ocsp_responses(&self) -> Vec<Vec<u8>> {
        self.outline.other_crls.iter().filter_map(|info| values::ocsp_response(info)).collect()
    }

    /// How many signers there are.
    #[must_use]
    pub const fn signer_count(&self) -> usize {
        self.outline.signer_infos.len()
    }

    /// All that is in the signature but its content, to be put together again with something added.
    ///
    /// # Errors
    /// [`CmsError::Encoding`](super::CmsError::Encoding) never for what was read.
    pub fn rework(&self) -> Result<Reworked, super::CmsError> {
        let outline = &self.outline;
        Reworked::new(Existing {
            version: outline.version.clone(),
            digest_algorithms: outline.digest_algorithms.clone(),
            content_type: outline.content_type,
            certificates: [outline.certificates.as_slice(), &outline.other_certificates].concat(),
            crls: [outline.crls.as_slice(), &outline.other_crls].concat(),
            signer_infos: outline.signer_infos.clone(),
        })
    }

    /// Copies the content that is in the signature; returns its length.
    ///
    /// # Errors
    /// [`ReadError::NoContent`], [`ReadError::Io`].
    pub fn copy_content(&mut self, to: &mut impl Write) -> Result<u64, ReadError> {
        if !self.is_attached() {
            return Err(ReadError::NoContent);
        }
        let mut len = 0;
        self.each_piece(|piece| {
            len += piece.len() as u64;
            to.write_all(piece)
        })?;
        Ok(len)
    }

    /// Judges every signer, in their order. `content` is needed where none is in the signature; where one is, a given one must be the same.
    /// `certificates` are candidates beside those in the signature.
    ///
    /// Reads the content once and verifies one signature a signer: never on an event loop.
    ///
    /// # Errors
    /// [`ReadError::NoContent`], [`ReadError::Io`]. What is wrong with a signer stands in its check.
    pub fn check(&mut self, content: Option<&mut dyn Read>, certificates: &[&[u8]]) -> Result<Vec<SignerCheck>, ReadError> {
        let signers: Vec<_> = self.outline.signer_infos.iter().map(|der| signer::SignerInfo::read(der)).collect();
        let hashes = signers.iter().flatten().filter_map(|signer| signer.hash().ok());
        let given = content.map(|content| ContentDigests::of_reader(content, hashes.clone())).transpose()?;
        let embedded = match &self.outline.content {
            None => None,
            Some(_) => {
                let mut digests = ContentDigests::new(hashes);
                // Borrowed apart from the signers, which borrow the outline.
                each_piece(&mut self.source, &self.outline, |piece| {
                    digests.update(piece);
                    Ok(())
                })?;
                Some(digests.finish())
            }
        };
        let content = signer::Content {
            content_type: self.outline.content_type,
            differs: matches!((&embedded, &given), (Some(embedded), Some(given)) if embedded != given),
            digests: embedded.as_ref().or(given.as_ref()).ok_or(ReadError::NoContent)?,
        };
        let candidates: Vec<&[u8]> = self.outline.certificates.iter().map(Vec::as_slice).chain(certificates.iter().copied()).collect();
        Ok(signers.into_iter().map(|signer| signer::check(signer, &content, &candidates)).collect())
    }

    fn each_piece(&mut self, take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ReadError> {
        each_piece(&mut self.source, &self.outline, take)
    }
}

/// Shows the content that is in the signature to `take`, piece by piece.
fn each_piece<R: Read + Seek>(source: &mut R, outline: &Outline, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ReadError> {
    let mut buffer = vec![0; PIECE_LEN];
    for segment in outline.content.iter().flatten() {
        source.seek(io::SeekFrom::Start(segment.start))?;
        let mut left = segment.len;
        while left > 0 {
            let len = usize::try_from(left).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
            let piece = &mut buffer[..len];
            source.read_exact(piece)?;
            take(piece)?;
            left -= len as u64;
        }
    }
    Ok(())
}

/// The digests of one content by each hash function that a signer wants, and the content itself while it is short.
pub(super) struct ContentDigests {
    hashers: Vec<(HashAlgorithm, Hasher)>,
    digests: Vec<Digest>,
    len: u64,
    /// For those who sign the content and no digest of it.
    beginning: Vec<u8>,
}

impl ContentDigests {
    fn new(hashes: impl Iterator<Item = HashAlgorithm>) -> Self {
        // At least one, by which two contents are compared.
        let mut wanted = vec![HashAlgorithm::Sha256];
        hashes.for_each(|hash| {
            if !wanted.contains(&hash) {
                wanted.push(hash);
            }
        });
        let hashers = wanted.into_iter().map(|hash| (hash, Hasher::new(hash))).collect();
        Self { hashers, digests: Vec::new(), len: 0, beginning: Vec::new() }
    }

    fn of_reader(content: &mut dyn Read, hashes: impl Iterator<Item = HashAlgorithm>) -> io::Result<Self> {
        let mut digests = Self::new(hashes);
        let mut buffer = vec![0; PIECE_LEN];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(digests.finish()),
                Ok(len) => digests.update(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn update(&mut self, piece: &[u8]) {
        self.hashers.iter_mut().for_each(|(_, hasher)| hasher.update(piece));
        self.len += piece.len() as u64;
        let room = (MESSAGE_MAX + 1).saturating_sub(self.beginning.len()).min(piece.len());
        self.beginning.extend_from_slice(&piece[..room]);
    }

    fn finish(mut self) -> Self {
        self.digests = std::mem::take(&mut self.hashers).into_iter().map(|(_, hasher)| hasher.finish()).collect();
        self
    }

    /// The digest by this hash function.
    pub(super) fn by(&self, hash: HashAlgorithm) -> Option<&Digest> {
        self.digests.iter().find(|digest| digest.algorithm() == hash)
    }

    /// The whole content, if it is short enough to be signed without being hashed.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        (self.len <= MESSAGE_MAX as u64).then_some(&self.beginning)
    }
}

impl PartialEq for ContentDigests {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.by(HashAlgorithm::Sha256) == other.by(HashAlgorithm::Sha256)
    }
}
