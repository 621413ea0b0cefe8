//! The PKCS#11 module: what a program loads.
//!
//! [`exports`] has the C functions, each of which describes itself to [`call`], where every call takes the same way: faults before, what is
//! true of token and session, the real module, faults after, the log. `unsafe` is in `exports`, [`memory`] and [`real`] only.
//!
//! Invariants: no lock is held across a call into the real module; a panic never leaves an export; the module has no threads.

mod call;
mod effects;
mod exports;
mod keys;
mod link;
mod login;
mod memory;
mod real;
mod sessions;
mod setup;
mod signing;
mod slots;
mod token_log;

use std::sync::{
    Condvar, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use self::{
    keys::KeyIds,
    link::{Link, LinkError},
    real::{LoadError, Real},
    sessions::Sessions,
    setup::{Setup, SetupError},
    slots::Slots,
    token_log::{Salt, TokenLog},
};
use crate::rv::Rv;

/// All that this process has of the module. There is one, made when the function list is first asked for.
#[derive(Debug)]
struct Module {
    real: Real,
    link: Link,
    log: Option<TokenLog>,
    salt: Salt,
    slots: Slots,
    sessions: Sessions,
    key_ids: KeyIds,
    life: Life,
}

/// Between `C_Initialize` and `C_Finalize`.
#[derive(Debug, Default)]
struct Life {
    initialised: AtomicBool,
    /// `Poison::count` at `C_Initialize`: what was poisoned later is poisoned here.
    poisons: AtomicU64,
    /// For `C_WaitForSlotEvent`, which `C_Finalize` ends.
    ending: Mutex<()>,
    ended: Condvar,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the token-side log cannot be written: {0}")]
    Log(std::io::Error),
}

static MODULE: OnceLock<Module> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

/// The module, started if it is not.
fn module() -> Result<&'static Module, Rv> {
    if let Some(module) = MODULE.get() {
        return Ok(module);
    }
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = MODULE.get() {
        return Ok(module);
    }
    let module = Module::start().map_err(|error| fail(&error))?;
    Ok(MODULE.get_or_init(|| module))
}

/// Says on standard error what the caller can only be told as `CKR_GENERAL_ERROR`.
#[allow(clippy::print_stderr)]
fn fail(error: &dyn std::fmt::Display) -> Rv {
    eprintln!("pkcs11-faults: {error}");
    Rv::GENERAL_ERROR
}

impl Module {
    fn start() -> Result<Self, StartError> {
        let setup = Setup::from_environment()?;
        let link = Link::to(&setup.faults)?;
        let (log, salt) = match &setup.log {
            Some(path) => {
                let (log, salt) = TokenLog::open(path).map_err(StartError::Log)?;
                (Some(log), salt)
            }
            None => (None, Salt::random().map_err(StartError::Log)?),
        };
        Ok(Self {
            real: Real::load(&setup.real_module)?,
            link,
            log,
            salt,
            slots: Slots::default(),
            sessions: Sessions::default(),
            key_ids: KeyIds::default(),
            life: Life::default(),
        })
    }

    fn initialised(&self) -> Result<(), Rv> {
        let poisons = self.link.state().map_err(|error| fail(&error))?.poison.count;
        self.life.poisons.store(poisons, Ordering::SeqCst);
        self.life.initialised.store(true, Ordering::SeqCst);
        if !self.link.is_to_nobody() {
            // What happens to a token from here on is news to the caller. A module that cannot list its slots now is asked again later.
            let state = self.link.state().map_err(|error| fail(&error))?;
            let _ = self.slots.refresh(&self.real, &state);
        }
        Ok(())
    }

    fn finalised(&self) {
        self.life.initialised.store(false, Ordering::SeqCst);
        self.sessions.forget_all();
        self.slots.forget_all();
        self.key_ids.forget_all();
    }

    fn is_initialised(&self) -> bool {
        self.life.initialised.load(Ordering::SeqCst)
    }
}
