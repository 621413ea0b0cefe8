//! What the card applications ask of Trussed beyond its core: PINs, large files, wrapped keys and RSA.

use trussed::backend::BackendId;
use trussed_auth::AuthExtension;
use trussed_auth_backend::{AuthBackend, FilesystemLayout};
use trussed_chunked::ChunkedExtension;
use trussed_core::types::Location;
use trussed_derive::{ExtensionDispatch, ExtensionId};
use trussed_hpke::HpkeExtension;
use trussed_rsa_alloc::SoftwareRsa;
use trussed_staging::StagingBackend;
use trussed_wrap_key_to_file::WrapKeyToFileExtension;

/// One for each field of [`Dispatch`], by name.
#[derive(Debug, Clone, Copy)]
pub enum Backend {
    Auth,
    Staging,
    Rsa,
}

#[derive(Debug, Clone, Copy, ExtensionId)]
pub enum Extension {
    Auth = 0,
    Chunked = 1,
    Hpke = 2,
    WrapKeyToFile = 3,
}

/// Who is asked, in this order; the core knows no RSA and no PINs.
pub const BACKENDS: &[BackendId<Backend>] =
    &[BackendId::Custom(Backend::Rsa), BackendId::Custom(Backend::Auth), BackendId::Custom(Backend::Staging), BackendId::Core];

#[derive(ExtensionDispatch)]
#[dispatch(backend_id = "Backend", extension_id = "Extension")]
#[extensions(Auth = "AuthExtension", Chunked = "ChunkedExtension", Hpke = "HpkeExtension", WrapKeyToFile = "WrapKeyToFileExtension")]
pub struct Dispatch {
    #[extensions("Auth")]
    auth: AuthBackend,
    #[extensions("Chunked", "Hpke", "WrapKeyToFile")]
    staging: StagingBackend,
    rsa: SoftwareRsa,
}

impl Dispatch {
    pub fn new() -> Self {
        Self { auth: AuthBackend::new(Location::Internal, FilesystemLayout::V1), staging: StagingBackend::new(), rsa: SoftwareRsa }
    }
}
