//! ASiC containers with CAdES signatures (EN 319 162-1): ZIP archives with documents and what signs them.
//!
//! Documents are copied through, never whole in memory. Invariants: `mimetype` is the first entry and is stored, so that the kind of container
//! can be seen at its place in the file (clause A.1); nothing in a container depends on when it was put together.

use std::io::{self, Read, Seek, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use zip::{CompressionMethod, ZipWriter, result::ZipError, write::SimpleFileOptions};

use crate::domain::{
    algorithm::HashAlgorithm,
    ticket::{AsicForm, DataObject},
};

const MIME_S: &str = "application/vnd.etsi.asic-s+zip";
const MIME_E: &str = "application/vnd.etsi.asic-e+zip";
const SIGNATURE_S: &str = "META-INF/signature.p7s";
const SIGNATURE_E: &str = "META-INF/signature001.p7s";
const MANIFEST_E: &str = "META-INF/ASiCManifest001.xml";
/// From here on an entry needs ZIP64.
const LARGE: u64 = 0xffff_0000;
/// What a container has beside objects and signature, in bytes, at most: for itself, and for each object.
const OVERHEAD: (u64, u64) = (8 * 1024, 4 * 1024);

/// What a container with so many objects has beside them and the signature, in bytes, at most.
#[must_use]
pub const fn overhead_max(objects: usize) -> u64 {
    OVERHEAD.0 + OVERHEAD.1.saturating_mul(objects as u64)
}

/// What is signed in an ASiC-E container: `ASiCManifest` (clause A.4), which names the objects and their digests.
#[must_use]
pub fn manifest(objects: &[DataObject]) -> Vec<u8> {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <asic:ASiCManifest xmlns:asic=\"http://uri.etsi.org/02918/v1.2.1#\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\
         <asic:SigReference URI=\"{SIGNATURE_E}\" MimeType=\"application/pkcs7-signature\"/>"
    );
    for DataObject { name, media_type, sha256, .. } in objects {
        let method = match sha256.algorithm() {
            HashAlgorithm::Sha256 => "http://www.w3.org/2001/04/xmlenc#sha256",
            HashAlgorithm::Sha384 => "http://www.w3.org/2001/04/xmldsig-more#sha384",
            HashAlgorithm::Sha512 => "http://www.w3.org/2001/04/xmlenc#sha512",
        };
        let (uri, media_type, value) = (uri_of(name), escaped(media_type), STANDARD.encode(sha256.as_bytes()));
        text.push_str(&format!(
            "<asic:DataObjectReference URI=\"{uri}\" MimeType=\"{media_type}\">\
             <ds:DigestMethod Algorithm=\"{method}\"/><ds:DigestValue>{value}</ds:DigestValue></asic:DataObjectReference>"
        ));
    }
    text.push_str("</asic:ASiCManifest>\n");
    text.into_bytes()
}

/// A name as the URI of a file beside (RFC 3986 section 2): what is not unreserved is in percent encoding, so nothing in it means anything in XML.
fn uri_of(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// Text as the value of an attribute in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// Writes a container with data objects, which `content` has one behind the other, and their detached signature: over the one object itself in
/// ASiC-S, over their [`manifest`] in ASiC-E. With no signature it is what is about to be signed. Without a form there is no container, and nothing
/// is written. Blocks.
///
/// # Errors
/// Those of `out` and `content`; content that is shorter than its objects.
pub fn write(
    form: AsicForm,
    out: impl Write + Seek,
    content: &mut impl Read,
    objects: &[DataObject],
    signature: Option<&[u8]>,
) -> io::Result<()> {
    let (mime, signature_name, manifest) = match form {
        AsicForm::None => return Ok(()),
        AsicForm::S => (MIME_S, SIGNATURE_S, None),
        AsicForm::E => (MIME_E, SIGNATURE_E, Some(manifest(objects))),
    };
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(out);
    let mut entry = |name: &str, from: &mut dyn Read, large: bool| -> io::Result<u64> {
        zip.start_file(name, stored.large_file(large)).map_err(of_zip)?;
        io::copy(from, &mut zip)
    };
    entry("mimetype", &mut mime.as_bytes(), false)?;
    for object in objects {
        let copied = entry(&object.name, &mut Read::take(&mut *content, object.len), object.len >= LARGE)?;
        if copied != object.len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a data object does not have the length that it had"));
        }
    }
    if let Some(manifest) = manifest {
        entry(MANIFEST_E, &mut manifest.as_slice(), false)?;
    }
    if let Some(mut signature) = signature {
        entry(signature_name, &mut signature, false)?;
    }
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

    fn object(name: &str, content: &[u8]) -> DataObject {
        let sha256 = digest(HashAlgorithm::Sha256, content);
        DataObject { name: name.to_owned(), media_type: "text/plain".to_owned(), len: content.len() as u64, sha256 }
    }

    #[test]
    fn the_kind_of_a_container_stands_at_its_place() {
        let (one, two) = (object("one", b"the document"), object("друга копія.txt", b"another"));
        for (form, mime, objects, names) in [
            (AsicForm::S, MIME_S, vec![one.clone()], vec!["mimetype", "one", SIGNATURE_S]),
            (AsicForm::E, MIME_E, vec![one, two], vec!["mimetype", "one", "друга копія.txt", MANIFEST_E, SIGNATURE_E]),
        ] {
            let mut out = Cursor::new(Vec::new());
            write(form, &mut out, &mut &b"the documentanother"[..], &objects, Some(b"signature")).unwrap();
            let bytes = out.into_inner();
            assert_eq!(&bytes[..4], b"PK\x03\x04");
            // Neither compressed nor with an extra field: bytes 8 and 28 of the local header.
            assert_eq!((&bytes[8..10], &bytes[28..30]), (&[0, 0][..], &[0, 0][..]));
            assert_eq!((&bytes[30..38], &bytes[38..38 + mime.len()]), (&b"mimetype"[..], mime.as_bytes()));
            assert!(bytes.len() as u64 <= 19 + 9 + overhead_max(objects.len()));
            let mut read = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
            assert_eq!((0..read.len()).map(|n| read.by_index(n).unwrap().name().unwrap().into_owned()).collect::<Vec<_>>(), names);
        }
    }

    #[test]
    fn a_document_that_changed_its_length_makes_no_container() {
        let objects = [DataObject { len: 12, ..object("one", b"short") }];
        assert!(write(AsicForm::S, Cursor::new(Vec::new()), &mut &b"short"[..], &objects, Some(b"")).is_err());
    }

    #[test]
    fn a_name_is_nothing_but_a_name_in_the_manifest() {
        let text = String::from_utf8(manifest(&[object("a \"b\"&<c>/é.txt", b"")])).unwrap();
        assert!(text.contains("URI=\"a%20%22b%22%26%3Cc%3E%2F%C3%A9.txt\" MimeType=\"text/plain\""), "{text}");
    }
}
