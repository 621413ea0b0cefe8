//! TLS for listeners: certificate, key and client CA from PEM files, read again on request.
//!
//! Callers: `cli`, which loads and reloads, and [`server`](super::server), which listens with it. Invariants: a reload changes everything or
//! nothing; connections that stand are not touched by it; a client's certificate is taken only if a client CA has issued it, and with a
//! client CA no session is resumed, since that would skip this check.

use std::{
    any::Any,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::rt::net::TcpStream;
use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem, pem::PemObject},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use crate::domain::certificate::ClientCertificate;

/// The PEM files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The gateway's certificate, and those of the CAs between it and the root, in this order.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
    /// The CAs whose certificates clients may show; `None` if clients show none.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that was not read, or is not what it should be.
    #[error("{} {what}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Certificate and key do not belong together, or the key is of a kind that TLS does not use.
    #[error("{} and {} cannot be used together: {reason}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        reason: Error,
    },
    /// A library without the protocols that are needed.
    #[error("TLS cannot be set up: {0}")]
    Setup(Error),
}

/// What a listener speaks TLS with.
pub struct Tls {
    files: TlsFiles,
    own: Arc<OwnCertificate>,
    clients: Option<Arc<ClientCa>>,
    config: ServerConfig,
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let own = Arc::new(OwnCertificate(ArcSwap::from_pointee(read_own(&files, &provider)?)));
        let clients = read_client_ca(&files, &provider)?.map(|ca| Arc::new(ClientCa(ArcSwap::from_pointee(ca))));
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients) as Arc<dyn ClientCertVerifier>),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&own) as Arc<dyn ResolvesServerCert>);
        if clients.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self { files, own, clients, config })
    }

    /// Reads the files again, for connections from now on. Blocks.
    ///
    /// # Errors
    /// [`TlsError`]: everything is as it was before.
    pub fn reload(&self) -> Result<(), TlsError> {
        let provider = self.config.crypto_provider();
        let own = read_own(&self.files, provider)?;
        let client_ca = read_client_ca(&self.files, provider)?;
        self.own.0.store(Arc::new(own));
        if let (Some(clients), Some(ca)) = (&self.clients, client_ca) {
            clients.0.store(Arc::new(ca));
        }
        Ok(())
    }

    /// The files.
    #[must_use]
    pub const fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The gateway's own certificate, in DER.
    #[must_use]
    pub fn certificate(&self) -> Vec<u8> {
        self.own.0.load().cert.first().map(|certificate| certificate.to_vec()).unwrap_or_default()
    }

    /// What the server listens with; it follows every later reload.
    pub(super) fn config(&self) -> ServerConfig {
        self.config.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The certificate that the client of this connection has shown.
pub(super) fn client_certificate(connection: &dyn Any) -> Option<ClientCertificate> {
    let (_, session) = connection.downcast_ref::<TlsStream<TcpStream>>()?.get_ref();
    ClientCertificate::from_der(session.peer_certificates()?.first()?)
}

#[derive(Debug)]
struct OwnCertificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Checks clients' certificates against the client CA of this moment. Clients without one are let through: `auth` decides about them.
#[derive(Debug)]
struct ClientCa(ArcSwap<Arc<dyn ClientCertVerifier>>);

impl ClientCertVerifier for ClientCa {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a list that can change cannot be lent out. Clients then choose by themselves, as RFC 8446 section 4.2.4 allows.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.load().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.load().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.load().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().supported_verify_schemes()
    }
}

fn read_own(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| file_error(&files.key, &error, "an unencrypted private key"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|reason| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason,
    })
}

fn read_client_ca(files: &TlsFiles, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(file) = &files.client_ca else { return Ok(None) };
    let unusable = |what: String| TlsError::File { file: file.clone(), what: format!("cannot be used as a client CA: {what}") };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).allow_unauthenticated().build();
    verifier.map(Some).map_err(|error| unusable(error.to_string()))
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| file_error(file, &error, "a certificate"))?;
    if certificates.is_empty() { Err(file_error(file, &pem::Error::NoItemsFound, "a certificate")) } else { Ok(certificates) }
}

fn file_error(file: &Path, error: &pem::Error, wanted: &str) -> TlsError {
    let what = match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        _ => format!("does not hold {wanted} in PEM form"),
    };
    TlsError::File { file: file.to_owned(), what }
}
