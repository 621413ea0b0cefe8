//! ASiC containers with CAdES signatures (EN 319 162-1): ZIP archives with documents and what signs them.
//!
//! Documents are copied through, never whole in memory. Invariants: `mimetype` is the first entry and is stored, so that the kind of container
//! can be seen at its place in the file (clause A.1); nothing in a container depends on when it was put together.

use std::io::{self, Read, Seek, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use zip::{CompressionMethod, ZipWriter, result::ZipError, write::SimpleFileOptions};

use crate::domain::{algorithm::HashAlgorithm, digest::Digest, ticket::AsicForm};

/// What the document is called in a container: the API that it comes through knows no names.
pub const DOCUMENT_NAME: &str = "document";

const MIME_S: &str = "application/vnd.etsi.asic-s+zip";
const MIME_E: &str = "application/vnd.etsi.asic-e+zip";
const SIGNATURE_S: &str = "META-INF/signature.p7s";
const SIGNATURE_E: &str = "META-INF/signature001.p7s";
const MANIFEST_E: &str = "META-INF/ASiCManifest001.xml";
/// From here on an entry needs ZIP64.
const LARGE: u64 = 0xffff_0000;
/// What a container has beside document and signature, at most, in bytes.
pub const OVERHEAD_MAX: u64 = 8 * 1024;

/// What is signed in an ASiC-E container with one document: `ASiCManifest` (clause A.4), which names it and its digest.
#[must_use]
pub fn manifest(document: &Digest) -> Vec<u8> {
    let method = match document.algorithm() {
        HashAlgorithm::Sha256 => "http://www.w3.org/2001/04/xmlenc#sha256",
        HashAlgorithm::Sha384 => "http://www.w3.org/2001/04/xmldsig-more#sha384",
        HashAlgorithm::Sha512 => "http://www.w3.org/2001/04/xmlenc#sha512",
    };
    let value = STANDARD.encode(document.as_bytes());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <asic:ASiCManifest xmlns:asic=\"http://uri.etsi.org/02918/v1.2.1#\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\
         <asic:SigReference URI=\"{SIGNATURE_E}\" MimeType=\"application/pkcs7-signature\"/>\
         <asic:DataObjectReference URI=\"{DOCUMENT_NAME}\" MimeType=\"application/octet-stream\">\
         <ds:DigestMethod Algorithm=\"{method}\"/><ds:DigestValue>{value}</ds:DigestValue></asic:DataObjectReference></asic:ASiCManifest>\n"
    )
    .into_bytes()
}

/// Writes a container with a document of `len` bytes and its detached signature: over the document itself in ASiC-S, over its
/// [`manifest`] in ASiC-E. Without a form there is no container, and nothing is written. Blocks.
///
/// # Errors
/// Those of `out` and `document`.
pub fn write(
    form: AsicForm,
    out: impl Write + Seek,
    document: &mut impl Read,
    len: u64,
    digest: &Digest,
    signature: &[u8],
) -> io::Result<()> {
    let (mime, signature_name, manifest) = match form {
        AsicForm::None => return Ok(()),
        AsicForm::S => (MIME_S, SIGNATURE_S, None),
        AsicForm::E => (MIME_E, SIGNATURE_E, Some(manifest(digest))),
    };
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(out);
    let mut entry = |name: &str, from: &mut dyn Read, large: bool| -> io::Result<u64> {
        zip.start_file(name, stored.large_file(large)).map_err(of_zip)?;
        io::copy(from, &mut zip)
    };
    entry("mimetype", &mut mime.as_bytes(), false)?;
    let copied = entry(DOCUMENT_NAME, document, len >= LARGE)?;
    if copied != len {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the document does not have the length that it had"));
    }
    if let Some(manifest) = manifest {
        entry(MANIFEST_E, &mut manifest.as_slice(), false)?;
    }
    entry(signature_name, &mut &*signature, false)?;
    zip.finish().map_err(of_zip)?.flush()
}

fn of_zip(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::cms::digest;

    #[test]
    fn the_kind_of_a_container_stands_at_its_place() {
        for (form, mime, names) in [
            (AsicForm::S, MIME_S, vec!["mimetype", DOCUMENT_NAME, SIGNATURE_S]),
            (AsicForm::E, MIME_E, vec!["mimetype", DOCUMENT_NAME, MANIFEST_E, SIGNATURE_E]),
        ] {
            let mut out = Cursor::new(Vec::new());
            let content = b"the document";
            write(form, &mut out, &mut &content[..], 12, &digest(HashAlgorithm::Sha256, content), b"signature").unwrap();
            let bytes = out.into_inner();
            assert_eq!(&bytes[..4], b"PK\x03\x04");
            // Neither compressed nor with an extra field: bytes 8 and 28 of the local header.
            assert_eq!((&bytes[8..10], &bytes[28..30]), (&[0, 0][..], &[0, 0][..]));
            assert_eq!((&bytes[30..38], &bytes[38..38 + mime.len()]), (&b"mimetype"[..], mime.as_bytes()));
            assert!(bytes.len() as u64 <= 12 + 9 + OVERHEAD_MAX);
            let mut read = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
            assert_eq!((0..read.len()).map(|n| read.by_index(n).unwrap().name().unwrap().into_owned()).collect::<Vec<_>>(), names);
        }
    }

    #[test]
    fn a_document_that_changed_its_length_makes_no_container() {
        let digest = digest(HashAlgorithm::Sha256, b"");
        assert!(write(AsicForm::S, Cursor::new(Vec::new()), &mut &b"short"[..], 12, &digest, b"").is_err());
    }
}
