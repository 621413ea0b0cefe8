//! The certificates that this deployment trusts, and the CAs it knows, from files that the configuration names.
//!
//! [`TrustStore`] is what was read at one moment; [`Trust`] is where the current one is, for those who verify, and reads the files again when
//! it is told to. Invariants: a file that cannot be used costs the whole reading, so that nothing is trusted, or missing, by accident; a
//! reading that fails changes nothing; how much is read has a bound.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::certificate::{CERTIFICATE_MAX, Certificate, CertificateError};

/// The longest file that is read, in bytes: a bundle of all the CAs of a country and more.
const FILE_MAX: u64 = 4 << 20;
/// The most certificates of either kind.
pub const CERTIFICATES_MAX: usize = 2_000;
/// The most files of a folder that are looked at.
const FILES_MAX: usize = 10_000;
/// What files with certificates are called. Others are left alone, so that a README may lie beside them.
const SUFFIXES: [&str; 4] = ["pem", "crt", "cer", "der"];

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// Where the certificates are: files, and folders of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustPlaces {
    /// Those that are trusted.
    pub anchors: Vec<PathBuf>,
    /// CAs that may stand between a certificate and an anchor.
    pub intermediates: Vec<PathBuf>,
}

/// Why the certificates were not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A file or a folder cannot be read.
    #[error("{} cannot be read ({source}); give its folder to the gateway's user, or correct `[trust]`", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else than certificates.
    #[error("{}: {fault}; only certificates in PEM or DER belong there", path.display())]
    NotCertificates {
        /// Which.
        path: PathBuf,
        /// Why.
        fault: CertificateError,
    },
    /// More than are kept.
    #[error("there are more than {CERTIFICATES_MAX} certificates, or {FILES_MAX} files, at {}", path.display())]
    TooMany {
        /// Where the bound was reached.
        path: PathBuf,
    },
}

/// Certificates as they were read at one moment.
#[derive(Debug, Clone, Default)]
pub struct TrustStore {
    anchors: Vec<Certificate>,
    intermediates: Vec<Certificate>,
}

impl TrustStore {
    /// Takes certificates that are at hand.
    #[must_use]
    pub const fn new(anchors: Vec<Certificate>, intermediates: Vec<Certificate>) -> Self {
        Self { anchors, intermediates }
    }

    /// Reads everything at these places. Blocks.
    ///
    /// # Errors
    /// [`TrustError`] of the first file that cannot be used.
    pub fn load(places: &TrustPlaces) -> Result<Self, TrustError> {
        Ok(Self { anchors: load_all(&places.anchors)?, intermediates: load_all(&places.intermediates)? })
    }

    /// Those that are trusted, in the order of their fingerprints.
    #[must_use]
    pub fn anchors(&self) -> &[Certificate] {
        &self.anchors
    }

    /// CAs that are known and not trusted by themselves.
    #[must_use]
    pub fn intermediates(&self) -> &[Certificate] {
        &self.intermediates
    }

    /// The CA that callers name by this id; see [`authority_id`].
    #[must_use]
    pub fn authority(&self, id: &str) -> Option<&Certificate> {
        self.authorities().find(|certificate| authority_id(certificate) == id)
    }

    /// Every CA here, anchors first.
    pub fn authorities(&self) -> impl Iterator<Item = &Certificate> {
        self.anchors.iter().chain(&self.intermediates).filter(|certificate| certificate.is_ca())
    }

    /// The certificates of CAs above `certificate`, nearest first, by name and key identifier, as far as they are here. Nothing is verified.
    #[must_use]
    pub fn issuers_of(&self, certificate: &Certificate) -> Vec<&Certificate> {
        super::path::chain_by_name(certificate, &self.authorities().collect::<Vec<_>>())
    }
}

/// What callers name a CA by: the first half of its certificate's SHA-256.
#[must_use]
pub fn authority_id(certificate: &Certificate) -> String {
    hex::encode(&certificate.fingerprint()[..16])
}

/// The current certificates, for everybody who verifies. A clone is another handle to the same.
#[derive(Debug, Clone)]
pub struct Trust {
    places: Arc<TrustPlaces>,
    current: Arc<ArcSwap<TrustStore>>,
}

impl Trust {
    /// Reads the certificates for the first time. Blocks.
    ///
    /// # Errors
    /// As [`TrustStore::load`].
    pub fn load(places: TrustPlaces) -> Result<Self, TrustError> {
        let store = TrustStore::load(&places)?;
        Ok(Self { places: Arc::new(places), current: Arc::new(ArcSwap::from_pointee(store)) })
    }

    /// Certificates that are at hand and come from no file.
    #[must_use]
    pub fn of(store: TrustStore) -> Self {
        Self { places: Arc::new(TrustPlaces::default()), current: Arc::new(ArcSwap::from_pointee(store)) }
    }

    /// Those that hold now. Who verifies several things of one signature takes them once.
    #[must_use]
    pub fn current(&self) -> Arc<TrustStore> {
        self.current.load_full()
    }

    /// Reads the files again. Blocks.
    ///
    /// # Errors
    /// As [`TrustStore::load`]; what was there stays then.
    pub fn reload(&self) -> Result<Arc<TrustStore>, TrustError> {
        let store = Arc::new(TrustStore::load(&self.places)?);
        self.current.store(Arc::clone(&store));
        Ok(store)
    }
}

fn load_all(places: &[PathBuf]) -> Result<Vec<Certificate>, TrustError> {
    // By fingerprint: the same certificate in two files is one.
    let mut found = BTreeMap::new();
    for place in places {
        for file in files_at(place)? {
            for certificate in read_file(&file)? {
                found.insert(certificate.fingerprint(), certificate);
            }
            if found.len() > CERTIFICATES_MAX {
                return Err(TrustError::TooMany { path: file });
            }
        }
    }
    Ok(found.into_values().collect())
}

/// A file itself; the files of a folder that have a certificate's suffix, in order.
fn files_at(place: &Path) -> Result<Vec<PathBuf>, TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: place.to_owned(), source };
    if !fs::metadata(place).map_err(unreadable)?.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let mut files = Vec::new();
    for (count, entry) in fs::read_dir(place).map_err(unreadable)?.enumerate() {
        if count >= FILES_MAX {
            return Err(TrustError::TooMany { path: place.to_owned() });
        }
        let path = entry.map_err(unreadable)?.path();
        let suffix = path.extension().and_then(|suffix| suffix.to_str()).map(str::to_ascii_lowercase);
        if suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix.as_str())) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<Certificate>, TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(TrustError::NotCertificates { path: path.to_owned(), fault: CertificateError::TooLong { got: bytes.len() } });
    }
    read_certificates(&bytes).map_err(|fault| TrustError::NotCertificates { path: path.to_owned(), fault })
}

/// The certificates in these bytes: one in DER, or any number in PEM with anything between them.
///
/// # Errors
/// [`CertificateError`] of the first that cannot be read, or where there is none.
pub fn read_certificates(bytes: &[u8]) -> Result<Vec<Certificate>, CertificateError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains(PEM_BEGIN));
    let Some(text) = text else { return Ok(vec![Certificate::from_der(bytes)?]) };
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(PEM_BEGIN) {
        let block = &rest[begin..];
        let end = block.find(PEM_END).ok_or_else(|| CertificateError::Pem("its end is missing".to_owned()))? + PEM_END.len();
        if end > 2 * CERTIFICATE_MAX {
            return Err(CertificateError::TooLong { got: end });
        }
        certificates.push(Certificate::from_pem(&block[..end])?);
        rest = &block[end..];
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("testdata/sample.pem");

    fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
        folder
    }

    fn places(folder: &tempfile::TempDir) -> TrustPlaces {
        TrustPlaces { anchors: vec![folder.path().to_owned()], intermediates: Vec::new() }
    }

    #[test]
    fn a_folder_gives_each_certificate_once_whatever_its_form() {
        let der = Certificate::from_pem(SAMPLE).unwrap().as_der().to_vec();
        let bundle = format!("a bundle\n{SAMPLE}\nand again\n{SAMPLE}");
        let folder = folder_with(&[("a.pem", SAMPLE.as_bytes()), ("b.der", &der), ("c.CRT", bundle.as_bytes()), ("README", b"not one")]);
        let store = TrustStore::load(&places(&folder)).unwrap();
        assert_eq!(store.anchors().len(), 1);
        assert!(store.intermediates().is_empty());
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named_and_nothing_is_read() {
        let folder = folder_with(&[("a.pem", SAMPLE.as_bytes()), ("key.pem", b"-----BEGIN PRIVATE KEY-----")]);
        let error = TrustStore::load(&places(&folder)).unwrap_err().to_string();
        assert!(error.contains("key.pem") && !error.contains("PRIVATE"), "{error}");
    }

    #[test]
    fn a_reload_that_fails_leaves_what_was_there() {
        let folder = folder_with(&[("a.pem", SAMPLE.as_bytes())]);
        let trust = Trust::load(places(&folder)).unwrap();
        fs::write(folder.path().join("b.pem"), b"broken").unwrap();
        assert!(trust.reload().is_err());
        assert_eq!(trust.current().anchors().len(), 1);
        fs::remove_file(folder.path().join("b.pem")).unwrap();
        fs::remove_file(folder.path().join("a.pem")).unwrap();
        assert_eq!(trust.reload().unwrap().anchors().len(), 0);
        assert_eq!(trust.current().anchors().len(), 0);
    }

    #[test]
    fn what_is_missing_or_has_no_end_is_an_error() {
        let gone = TrustPlaces { anchors: vec![PathBuf::from("/nonexistent/anchors")], intermediates: Vec::new() };
        assert!(matches!(TrustStore::load(&gone), Err(TrustError::Unreadable { .. })));
        let cut = &SAMPLE[..SAMPLE.len() / 2];
        assert_eq!(read_certificates(cut.as_bytes()), Err(CertificateError::Pem("its end is missing".to_owned())));
    }
}
