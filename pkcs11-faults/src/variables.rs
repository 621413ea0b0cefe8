//! The environment variables that a module process reads, once, when the module is first used.

/// Path of the real module. Needed.
pub const MODULE: &str = "PKCS11_FAULTS_MODULE";
/// Path of the bench's control socket.
pub const CONTROL: &str = "PKCS11_FAULTS_CONTROL";
/// Path of a file with requests, one JSON line each, which are done before the first call. Not together with [`CONTROL`].
pub const SCRIPT: &str = "PKCS11_FAULTS_SCRIPT";
/// Path of the token-side log, which is appended to.
pub const LOG: &str = "PKCS11_FAULTS_LOG";
/// Path of a file that keeps PIN tries across processes. Only with [`SCRIPT`]; a bench keeps them itself.
pub const STATE: &str = "PKCS11_FAULTS_STATE";
