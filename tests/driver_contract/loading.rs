//! Loading a module: what goes wrong, and what the operator is told.

use std::fs;

use sealgate::token::{
    driver::TokenModule,
    pkcs11::{LoadError, ModuleOptions, Pkcs11Module},
};

use crate::{
    common::{own_process, softhsm::SoftHsm},
    softhsm::{in_own_process, load, options, rig},
    test_name,
};

fn error_of(path: &std::path::Path, options: ModuleOptions) -> LoadError {
    Pkcs11Module::load(path, options).map(drop).unwrap_err()
}

#[test]
fn a_missing_file_is_named() {
    let error = error_of("/nowhere/libvendor.so".as_ref(), options());
    assert_eq!(error.to_string(), "there is no PKCS#11 module at /nowhere/libvendor.so; install it, or correct the path");
}

#[test]
fn a_file_that_is_no_library_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("module.so");
    fs::write(&path, "not a library").unwrap();
    let error = error_of(&path, options());
    assert!(matches!(&error, LoadError::NotLoadable { .. }), "{error:?}");
    assert!(error.to_string().contains("it must be a shared library for this machine"), "{error}");
}

#[test]
fn a_library_of_another_kind_is_refused() {
    // Any shared library but a PKCS#11 module: the test binary itself needs libc.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().filter_map(|line| line.split_whitespace().last()).find(|path| path.contains("/libc.so")).unwrap();
    assert!(matches!(error_of(libc.as_ref(), options()), LoadError::NotPkcs11(_)));
}

#[test]
fn a_softhsm_without_its_configuration_says_what_to_look_at() {
    own_process::run(
        test_name!(),
        |directory| vec![("SOFTHSM2_CONF", directory.join("missing.conf").into_os_string())],
        || {
            let error = error_of(&SoftHsm::module(), options()).to_string();
            assert!(error.contains("CKR_GENERAL_ERROR from C_Initialize"), "{error}");
            assert!(error.contains("SOFTHSM2_CONF must name a file"), "{error}");
        },
    );
}

#[test]
fn a_module_is_loaded_once_at_a_time() {
    in_own_process(test_name!(), || {
        let first = load();
        assert!(matches!(error_of(&SoftHsm::module(), options()), LoadError::AlreadyInitialised(_)));
        assert_eq!(first.tokens().unwrap().len(), 1, "the second attempt has not finalised the first");
        drop(first);
        assert_eq!(load().tokens().unwrap().len(), 1);
    });
}

#[test]
fn a_module_lives_as_long_as_its_last_session() {
    in_own_process(test_name!(), || {
        let rig = rig();
        let mut driver = rig.logged_in();
        drop(rig);
        assert_eq!(driver.check_presence(), Ok(()));
        assert_eq!(driver.list_keys(), Ok(Vec::new()));
        drop(driver);
        assert_eq!(load().tokens().unwrap().len(), 1, "it was finalised with the session");
    });
}

#[test]
fn a_module_works_without_the_systems_locks() {
    in_own_process(test_name!(), || {
        let module = Pkcs11Module::load(&SoftHsm::module(), ModuleOptions { os_locking: false, ..options() }).unwrap();
        assert_eq!(module.tokens().unwrap().len(), 1);
    });
}

#[test]
fn init_args_reach_the_module() {
    in_own_process(test_name!(), || {
        // SoftHSM takes none, and says so: they arrived.
        let with_args = |text: &str| ModuleOptions { init_args: Some(text.to_owned()), ..options() };
        let error = error_of(&SoftHsm::module(), with_args("configdir='/tmp'")).to_string();
        assert!(error.contains("CKR_ARGUMENTS_BAD from C_Initialize") && error.contains("init_args"), "{error}");
        assert_eq!(error_of(&SoftHsm::module(), with_args("a\0b")), LoadError::InitArgs);
        assert_eq!(load().tokens().unwrap().len(), 1);
    });
}
