//! A private SoftHSM: its own configuration file and token directory.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where Debian and Ubuntu, Fedora and others put the module.
const MODULE_PATHS: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
/// Where OpenSC's spy is found.
const SPY_PATHS: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/pkcs11-spy.so", "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so", "/usr/lib64/pkcs11/pkcs11-spy.so"];

/// Label of the fixture's token.
pub const TOKEN_LABEL: &str = "contract";
/// Its user PIN.
pub const USER_PIN: &str = "123456";
/// Its security officer's PIN.
pub const SO_PIN: &str = "12345678";

/// A SoftHSM configuration in a directory of the caller's.
#[derive(Debug, Clone)]
pub struct SoftHsm {
    directory: PathBuf,
}

impl SoftHsm {
    /// Makes a configuration without tokens in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self::with_setting(directory, "slots.mechanisms = ALL")
    }

    /// Makes a configuration with one more line, and without tokens.
    pub fn with_setting(directory: &Path, setting: &str) -> Self {
        let hsm = Self { directory: directory.to_owned() };
        fs::create_dir_all(hsm.token_directory()).expect("a token directory");
        let tokens = hsm.token_directory();
        let configuration =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n{setting}\n", tokens.display());
        fs::write(hsm.configuration(), configuration).expect("softhsm2.conf");
        hsm
    }

    /// The configuration that was made in `directory` before.
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The configuration that this process was started with.
    pub fn of_this_process() -> Self {
        let configuration = PathBuf::from(std::env::var_os("SOFTHSM2_CONF").expect("SOFTHSM2_CONF"));
        Self { directory: configuration.parent().expect("a directory").to_owned() }
    }

    /// The module, which must be installed: a test without it would prove nothing.
    pub fn module() -> PathBuf {
        installed(&MODULE_PATHS, "SoftHSM", "apt-get install softhsm2")
    }

    /// `softhsm2.conf`.
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("softhsm2.conf")
    }

    /// Where the tokens are kept, one directory each.
    pub fn token_directory(&self) -> PathBuf {
        self.directory.join("tokens")
    }

    /// What a process needs in its environment to use this configuration.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![("SOFTHSM2_CONF", self.configuration().into_os_string())]
    }

    /// Makes a token with [`USER_PIN`] and [`SO_PIN`], with SoftHSM's own tool.
    pub fn init_token(&self, label: &str) -> &Self {
        self.util(&["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", USER_PIN]);
        self
    }

    /// Brings a private key (PKCS#8, PEM) from outside onto the token.
    pub fn import_key(&self, pem: &Path, label: &str, id: &str) {
        let pem = pem.to_str().expect("a path in UTF-8");
        self.util(&["--import", pem, "--token", TOKEN_LABEL, "--label", label, "--id", id, "--pin", USER_PIN]);
    }

    /// Calls `pkcs11-tool`, logged in as the user: another program that uses the same token. Returns what it prints.
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> String {
        pkcs11_tool(&Self::module(), &self.environment(), arguments)
    }

    fn util(&self, arguments: &[&str]) {
        succeed(Command::new("softhsm2-util").args(arguments).envs(self.environment()), "apt-get install softhsm2");
    }
}

/// Calls `pkcs11-tool` with a module whose token is called [`TOKEN_LABEL`], logged in with [`USER_PIN`]. Returns what it prints.
pub fn pkcs11_tool(module: &Path, environment: &[(&'static str, OsString)], arguments: &[&str]) -> String {
    let mut command = Command::new("pkcs11-tool");
    command.arg("--module").arg(module).args(["--token-label", TOKEN_LABEL, "--login", "--pin", USER_PIN]);
    succeed(command.args(arguments).envs(environment.iter().cloned()), "apt-get install opensc")
}

fn succeed(command: &mut Command, remedy: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start ({error}); {remedy}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// OpenSC's pkcs11-spy: a module that logs every call (PINs, too) and passes it on.
pub fn spy_module() -> PathBuf {
    installed(&SPY_PATHS, "pkcs11-spy", "apt-get install opensc-pkcs11")
}

/// What the spy wants in the environment to stand before SoftHSM and log to `log`.
pub fn spy_environment(log: &Path) -> Vec<(&'static str, OsString)> {
    vec![("PKCS11SPY", SoftHsm::module().into_os_string()), ("PKCS11SPY_OUTPUT", log.as_os_str().to_owned())]
}

/// How often the spy saw this function called.
pub fn spy_count(log: &Path, function: &str) -> usize {
    let log = String::from_utf8_lossy(&fs::read(log).expect("the spy's log")).into_owned();
    let call = format!(": {function}");
    log.lines().filter(|line| line.ends_with(&call)).count()
}

/// The first of `paths` that exists; a test without it would prove nothing, so it fails and says what to do.
pub fn installed(paths: &[&str], what: &str, remedy: &str) -> PathBuf {
    let found = paths.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{what} is needed for this test and is not installed: {remedy} (looked for {})", paths.join(", ")))
}
