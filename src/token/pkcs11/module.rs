//! A PKCS#11 module: loaded, initialised once, finalised when nobody uses it any more.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    sync::Arc,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error, RvError},
};
use serde::{Deserialize, Serialize};

use super::{discovery, driver::Pkcs11Driver, raw, raw::SignFunctions, return_value::said};
use crate::{
    domain::{ids::ModuleName, pin::Pin},
    token::{
        driver::{DeviceError, SlotId, TokenDriver, TokenModule, TokenSighting},
        quirks::{LibraryInfo, QuirkSettings},
    },
};

/// How a module is to be initialised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleOptions {
    /// The module's name in the configuration; it becomes part of the identity of its tokens.
    pub name: ModuleName,
    /// The module may use the system's locks (`CKF_OS_LOCKING_OK`). `false` for the few that refuse it; all calls must then come from
    /// one thread.
    pub os_locking: bool,
    /// A text for `C_Initialize`'s `pReserved`, which NSS wants (`configdir='sql:…' …`).
    pub init_args: Option<String>,
    /// What the configuration says of the module's ways.
    pub quirks: QuirkSettings,
}

impl ModuleOptions {
    /// What most modules want.
    #[must_use]
    pub const fn named(name: ModuleName) -> Self {
        Self {
            name,
            os_locking: true,
            init_args: None,
            quirks: QuirkSettings { sees_new_tokens: None, idle_limit: None, settle: None, waits_for_touch: None, one_thread: None },
        }
    }
}

/// Why a module cannot be used. The texts are for the operator, and say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no file at the path.
    #[error("there is no PKCS#11 module at {}; install it, or correct the path", .0.display())]
    NotFound(PathBuf),
    /// The dynamic linker refused the file.
    #[error("{} cannot be loaded: {reason}; it must be a shared library for this machine, with what it depends on installed", path.display())]
    NotLoadable {
        /// The file.
        path: PathBuf,
        /// What the dynamic linker said.
        reason: String,
    },
    /// A shared library, but of another kind.
    #[error("{} is a library without C_GetFunctionList: it is not a PKCS#11 module", .0.display())]
    NotPkcs11(PathBuf),
    /// The options make no sense.
    #[error("init_args must not hold a NUL character")]
    InitArgs,
    /// `C_Initialize`, or the function list before it, failed.
    #[error("{} does not start: {said}; {advice}", path.display())]
    NotInitialised {
        /// The file.
        path: PathBuf,
        /// The return value and the function.
        said: String,
        /// What to look at.
        advice: &'static str,
    },
    /// The module is in use in this process already.
    #[error("{} is in use in this process already; a module can be configured once", .0.display())]
    AlreadyInitialised(PathBuf),
}

/// A loaded and initialised module. It is finalised when it and all its drivers are gone; then it can be loaded again.
#[derive(Debug)]
pub struct Pkcs11Module {
    loaded: Arc<Loaded>,
}

/// What module and drivers share.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) pkcs11: Pkcs11,
    /// `None` where the module gives every caller an instance of its own, so that only `cryptoki`'s can be used.
    pub(super) sign_functions: Option<SignFunctions>,
    pub(super) name: ModuleName,
}

impl Pkcs11Module {
    /// Loads the module at `path` and initialises it. Blocks for as long as `C_Initialize` does, which with card readers can be seconds.
    ///
    /// # Errors
    /// See [`LoadError`]; the module is not initialised then.
    pub fn load(path: &Path, options: ModuleOptions) -> Result<Self, LoadError> {
        // An absolute path, for the dynamic linker looks up bare names elsewhere.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if !path.exists() {
            return Err(LoadError::NotFound(path));
        }
        let pkcs11 = Pkcs11::new(&path).map_err(|error| not_loaded(&path, error))?;
        let sign_functions = SignFunctions::load(&path).map_err(|error| not_loaded(&path, error))?;
        initialize(&pkcs11, &path, &options)?;
        let usable = sign_functions.are_initialised();
        if !usable {
            tracing::debug!(module = %options.name, "the module has an instance for each caller; keys that want a PIN per signature cannot be used");
        }
        let sign_functions = usable.then_some(sign_functions);
        Ok(Self { loaded: Arc::new(Loaded { pkcs11, sign_functions, name: options.name }) })
    }
}

impl TokenModule for Pkcs11Module {
    fn library(&self) -> Result<LibraryInfo, DeviceError> {
        discovery::library(&self.loaded)
    }

    fn tokens(&self) -> Result<Vec<TokenSighting>, DeviceError> {
        discovery::tokens(&self.loaded)
    }

    fn open(&self, slot: SlotId) -> Result<Box<dyn TokenDriver>, DeviceError> {
        Ok(Box::new(Pkcs11Driver::open(Arc::clone(&self.loaded), slot)?))
    }

    fn create_token(&self, label: &str, so_pin: &Pin, user_pin: &Pin) -> Result<(), DeviceError> {
        discovery::create_token(&self.loaded, label, so_pin, user_pin)
    }
}

impl Drop for Loaded {
    /// The last user is gone and took its session along, so no thread is in a call: the one moment at which `C_Finalize` is lawful.
    fn drop(&mut self) {
        if let Err(error) = self.pkcs11.clone().finalize() {
            tracing::warn!(module = %self.name, %error, "the module did not finalise");
        }
    }
}

fn initialize(pkcs11: &Pkcs11, path: &Path, options: &ModuleOptions) -> Result<(), LoadError> {
    let flags = if options.os_locking { CInitializeFlags::OS_LOCKING_OK } else { CInitializeFlags::empty() };
    let initialised = match &options.init_args {
        None => pkcs11.initialize(CInitializeArgs::new(flags)),
        Some(text) => {
            let reserved = CString::new(text.as_str()).map_err(|_| LoadError::InitArgs)?;
            raw::initialize_with(pkcs11, flags, &reserved)
        }
    };
    initialised.map_err(|error| not_loaded(path, error))
}

fn not_loaded(path: &Path, error: Error) -> LoadError {
    let path = path.to_owned();
    match error {
        Error::LibraryLoading(reason) => LoadError::NotLoadable { path, reason: reason.to_string() },
        Error::MissingSymbol(_) | Error::NullFunctionPointer => LoadError::NotPkcs11(path),
        Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _) => LoadError::AlreadyInitialised(path),
        Error::Pkcs11(rv, function) => LoadError::NotInitialised { path, said: said(rv, function), advice: advice(rv, function) },
        other => LoadError::NotInitialised { path, said: other.to_string(), advice: ASK_THE_VENDOR },
    }
}

const ASK_THE_VENDOR: &str = "the module's own log or manual may say why";

const fn advice(rv: RvError, function: Function) -> &'static str {
    match (rv, function) {
        (RvError::GeneralError | RvError::FunctionFailed, Function::Initialize) => {
            "its own configuration is missing or wrong; for SoftHSM, SOFTHSM2_CONF must name a file whose directories.tokendir exists"
        }
        (RvError::ArgumentsBad, Function::Initialize) => "the module wants init_args (NSS does), or does not take those that were given",
        (RvError::CantLock | RvError::NeedToCreateThreads, Function::Initialize) => "set os_locking = false for this module",
        _ => ASK_THE_VENDOR,
    }
}
