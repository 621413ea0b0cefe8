//! What the tests share: real SoftHSM behind the module, and a bench beside it.
//!
//! A test that loads the module runs in a process of its own, with the environment that the module reads. The bench runs in the same process,
//! in a thread, unless the test is about the process's death.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::unwrap_used)]

#[path = "../../../tests/common/own_process.rs"]
pub mod own_process;
#[path = "../../../tests/common/p11kit.rs"]
pub mod p11kit;
#[path = "../../../tests/common/softhsm.rs"]
pub mod softhsm;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use pkcs11_faults::{bench::Bench, control::Control, log::Log, module_path, variables};
use softhsm::{SoftHsm, TOKEN_LABEL, USER_PIN};

/// `CKA_ID` of the key that every test's token has.
pub const KEY_ID: &[u8] = &[0x01];

/// What a test with the module in its own process works with.
pub struct Rig {
    pub control: Control,
    pub pkcs11: Pkcs11,
    pub bench: Bench,
}

/// Runs a test in a process of its own, with a bench and the module over a SoftHSM token with one P-256 key.
pub fn with_rig(test: &str, body: impl FnOnce(&Rig)) {
    own_process::run(
        test,
        |directory| Lab::in_directory(directory).environment_of_a_bench(),
        || {
            let socket = PathBuf::from(std::env::var_os(variables::CONTROL).unwrap());
            let bench = Bench::start(socket.parent().unwrap()).unwrap();
            body(&Rig { control: bench.control(), pkcs11: load(), bench });
        },
    );
}

/// Loads and initialises the module with the environment of this process.
pub fn load() -> Pkcs11 {
    let pkcs11 = Pkcs11::new(module_path().unwrap()).unwrap();
    initialize(&pkcs11);
    pkcs11
}

pub fn initialize(pkcs11: &Pkcs11) {
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
}

impl Rig {
    pub fn log(&self) -> Log {
        self.bench.log().unwrap()
    }

    pub fn slot(&self) -> Slot {
        slot_of(&self.pkcs11)
    }

    pub fn open(&self) -> Session {
        self.pkcs11.open_rw_session(self.slot()).unwrap()
    }

    /// A session, logged in, and the key.
    pub fn ready(&self) -> (Session, ObjectHandle) {
        let session = self.open();
        login(&session, USER_PIN).unwrap();
        let key = key(&session);
        (session, key)
    }
}

/// The slot of the test's token.
pub fn slot_of(pkcs11: &Pkcs11) -> Slot {
    find_slot(pkcs11).expect("the test's token")
}

pub fn find_slot(pkcs11: &Pkcs11) -> Option<Slot> {
    let labelled = |slot: &Slot| pkcs11.get_token_info(*slot).is_ok_and(|info| info.label() == TOKEN_LABEL);
    pkcs11.get_slots_with_token().unwrap().into_iter().find(labelled)
}

pub fn login(session: &Session, pin: &str) -> Result<(), Error> {
    session.login(UserType::User, Some(&AuthPin::from(pin)))
}

pub fn key(session: &Session) -> ObjectHandle {
    let keys = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(KEY_ID.to_vec())]).unwrap();
    assert_eq!(keys.len(), 1, "the test's key");
    keys[0]
}

/// A digest that no other number has.
pub fn digest(number: u8) -> [u8; 32] {
    [number; 32]
}

pub fn sign(session: &Session, key: ObjectHandle, number: u8) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::Ecdsa, key, &digest(number))
}

/// The signature is right: the token itself says so.
pub fn verifies(session: &Session, number: u8, signature: &[u8]) -> bool {
    let keys = session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::Id(KEY_ID.to_vec())]).unwrap();
    session.verify(&Mechanism::Ecdsa, keys[0], &digest(number), signature).is_ok()
}

/// The return value of a call that failed.
#[track_caller]
pub fn rv<T>(result: Result<T, Error>) -> RvError {
    match result {
        Err(Error::Pkcs11(rv, _)) => rv,
        Err(other) => panic!("no return value, but {other}"),
        Ok(_) => panic!("CKR_OK"),
    }
}

/// A directory with a SoftHSM token, for programs in processes of their own.
pub struct Lab {
    directory: PathBuf,
    pub hsm: SoftHsm,
}

impl Lab {
    pub fn in_directory(directory: &Path) -> Self {
        let hsm = SoftHsm::in_directory(directory);
        hsm.init_token(TOKEN_LABEL);
        hsm.pkcs11_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--usage-sign"]);
        Self { directory: directory.to_owned(), hsm }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// SoftHSM's environment, and the wrapper's without a source of faults.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut environment = self.hsm.environment();
        environment.push((variables::MODULE, SoftHsm::module().into()));
        environment.push((variables::LOG, self.path("token.log").into()));
        environment
    }

    /// The same, with a bench in the same directory.
    pub fn environment_of_a_bench(&self) -> Vec<(&'static str, OsString)> {
        let mut environment = self.environment();
        environment.push((variables::CONTROL, self.path("control.sock").into()));
        environment
    }

    pub fn log(&self) -> Log {
        Log::read(&self.path("token.log")).unwrap()
    }

    /// `pkcs11-tool` with the wrapper and the test's token, not logged in.
    pub fn tool(&self, environment: Vec<(&'static str, OsString)>, arguments: &[&str]) -> Output {
        let mut tool = Command::new("pkcs11-tool");
        tool.arg("--module").arg(module_path().unwrap()).args(arguments).envs(environment);
        tool.output().expect("pkcs11-tool; apt-get install opensc")
    }

    /// Signs one digest with `pkcs11-tool`.
    pub fn sign_with_tool(&self, environment: Vec<(&'static str, OsString)>, pin: &str, number: u8) -> Output {
        let (data, signature) = (self.path("digest"), self.path("signature"));
        std::fs::write(&data, digest(number)).unwrap();
        let files = ["--input-file", data.to_str().unwrap(), "--output-file", signature.to_str().unwrap()];
        let login = ["--token-label", TOKEN_LABEL, "--login", "--pin", pin];
        let sign = ["--sign", "--mechanism", "ECDSA", "--id", "01"];
        self.tool(environment, &[&login[..], &sign[..], &files[..]].concat())
    }
}
