//! A gateway as an operator runs it: `sealgate serve` on a configuration file, at an address that stays the same from start to start.
//!
//! Its token was made by `sealgate dev`; before SoftHSM stands `pkcs11-faults`, whose log tells what the token was really asked.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use pkcs11_faults::{log::Log, module_path, variables};
use tempfile::TempDir;
use toml::{Table, Value};

use super::{
    program::{Gateway, dev_json, path_in, sealgate},
    softhsm::SoftHsm,
};

/// Below the ports that systems give to outgoing connections, so that none of those takes the address while the gateway is down.
const PORTS: std::ops::Range<u16> = 18_000..28_000;

/// A folder with everything that the gateway needs.
pub struct Site {
    directory: TempDir,
    config: Table,
    /// Where it serves.
    pub url: String,
    /// The API key of its caller.
    pub api_key: String,
}

impl Site {
    /// Makes the folder and the token.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        let dev_dir = directory.path().join("dev");
        let dev_gateway = Gateway::dev(&dev_dir);
        let dev = dev_json(&dev_dir);
        assert!(dev_gateway.stop().0.success());
        let mut config: Table = fs::read_to_string(path_in(&dev["config"])).expect("a configuration").parse().expect("TOML");
        // Sites of one process look in different places; those of others have another start.
        static SITES: AtomicUsize = AtomicUsize::new(0);
        let first = std::process::id() as usize * 7 + SITES.fetch_add(100, Ordering::SeqCst);
        let port = PORTS.cycle().skip(first % PORTS.len()).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        let address = format!("127.0.0.1:{}", port.expect("a free port"));
        config["listener"][0]["address"] = address.clone().into();
        let module = config["module"][0].as_table_mut().expect("a module");
        module.insert("path".to_owned(), text(&module_path().expect("the module of pkcs11-faults")));
        module.insert("sees_new_tokens".to_owned(), true.into());
        let api_key = dev["api_key"].as_str().expect("a key").to_owned();
        let mut site = Self { directory, config, url: format!("http://{address}"), api_key };
        site.set_variable(variables::MODULE, &SoftHsm::module());
        site.use_folder("data");
        site
    }

    /// From the next start on the gateway's own files, and the token's log, are in another folder.
    pub fn use_folder(&mut self, name: &str) {
        let folder = self.directory.path().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        self.config["data_dir"] = text(&folder.join("data"));
        self.set_variable(variables::LOG, &folder.join("token.log"));
        self.write();
    }

    /// Sets a variable of the module's process.
    pub fn set_variable(&mut self, name: &str, value: &Path) {
        self.config["module"][0]["env"].as_table_mut().expect("an environment").insert(name.to_owned(), text(value));
        self.write();
    }

    /// Sets a field of a section.
    pub fn set(&mut self, section: &str, field: &str, value: impl Into<Value>) {
        let section = self.config.entry(section).or_insert_with(|| Table::new().into());
        section.as_table_mut().expect("a section").insert(field.to_owned(), value.into());
        self.write();
    }

    fn write(&self) {
        fs::write(self.config_file(), self.config.to_string()).expect("a configuration");
    }

    /// The configuration.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("gateway.toml")
    }

    /// The folder of the site, for more than the gateway's files.
    pub fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// The gateway's own folder.
    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(self.config["data_dir"].as_str().expect("a path"))
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.data_dir().join("sealgate.db")
    }

    /// What the token was asked.
    pub fn token_log(&self) -> Log {
        Log::read(&self.data_dir().with_file_name("token.log")).expect("the token's log")
    }

    /// Starts the gateway and waits until it takes requests.
    pub fn serve(&self) -> Gateway {
        // A line for each signature would drown the warnings.
        Gateway::start(sealgate().env("SEALGATE_LOG", "warn").args(["serve", "--config"]).arg(self.config_file()))
    }
}

fn text(path: &Path) -> Value {
    path.to_str().expect("a path in UTF-8").into()
}
