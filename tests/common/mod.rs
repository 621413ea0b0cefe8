//! What the integration tests share. Each test binary uses a part of it.
//!
//! A PKCS#11 module reads its configuration from the environment when it is initialised, once per process, and a process's environment
//! cannot be changed safely while its threads run. So a test that loads a module runs in a process of its own: [`own_process::run`] starts
//! the test binary again for that one test, with the environment that the test wants. [`softhsm::SoftHsm`] is a private SoftHSM
//! configuration for it, and for gateways that a test starts.

#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::print_stderr, clippy::unwrap_used)]

pub mod authority;
pub mod bank;
pub mod browser;
pub mod certificate;
pub mod client;
pub mod console;
pub mod daemon;
pub mod gateway;
pub mod kryoptic;
pub mod openssl;
pub mod own_process;
pub mod p11kit;
pub mod pcscd;
pub mod postgres;
pub mod program;
pub mod prometheus;
pub mod pyhanko;
pub mod site;
pub mod softhsm;
pub mod swtpm;
pub mod tls;
pub mod tsa;
pub mod vcard;
