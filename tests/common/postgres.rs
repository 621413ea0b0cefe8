//! A private PostgreSQL server: its own cluster in a temporary directory, reached through a Unix socket there.
//!
//! The system's own cluster is not used. PostgreSQL refuses to run as root, so a test that is root gives the directory to an unprivileged user.
//! The server ends with the test's process, however that ends: a shell holds it and waits for the end of a pipe.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use uuid::Uuid;

/// Where distributions put the server's programs.
const PROGRAMS: [&str; 3] = ["/usr/lib/postgresql", "/usr/pgsql", "/usr/local"];
/// After so long a server that does not start has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Users that the server may run as where the test is root.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A server, running or stopped.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    /// As whom it runs; `None` for the test's own user.
    user: Option<(String, u32, u32)>,
    directory: TempDir,
    keeper: Option<Child>,
    settings: Vec<String>,
}

impl Postgres {
    /// The server that all tests of one program share.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Postgres> = OnceLock::new();
        SERVER.get_or_init(Self::start_new)
    }

    /// A new server of the test's own, which it may stop and kill.
    pub fn start_new() -> Self {
        Self::with_settings(&[])
    }

    /// A new server with settings of `postgresql.conf` (`name=value`).
    pub fn with_settings(settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("sealgate-pg-").tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let user = rustix::process::geteuid().is_root().then(unprivileged_user);
        if let Some((_, uid, gid)) = &user {
            chown(directory.path(), Some(*uid), Some(*gid)).expect("a directory for the server");
        }
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = Self { programs: programs(), user, directory, keeper: None, settings };
        server.init();
        server.start();
        server
    }

    /// A new server that takes TLS connections on a port of this machine, with a certificate for `name` from a CA of its own. Returns the port
    /// and the CA's certificate.
    pub fn with_tls(name: &str) -> (Self, u16, PathBuf) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let mut server = Self::with_settings(&[]);
        server.stop();
        let ca = server.make_certificates(name);
        let file = |file: &str| server.directory.path().join(file).display().to_string();
        let settings =
            ["ssl=on".to_owned(), format!("ssl_cert_file={}", file("server.pem")), format!("ssl_key_file={}", file("server.key"))];
        server.settings.extend(settings);
        // The socket stays where it is found; only connections over the network go by the port.
        server.settings.extend(["listen_addresses=127.0.0.1".to_owned(), format!("port={port}")]);
        server.start();
        (server, port, ca)
    }

    fn make_certificates(&self, name: &str) -> PathBuf {
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj '/CN=Database CA' && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj '/CN={name}' && \
             printf 'subjectAltName=DNS:{name}' > san && \
             openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem && \
             chmod 600 server.key && chmod 644 ca.pem"
        );
        let output = self.as_user(Path::new("sh")).args(["-c", &script]).output().expect("sh");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        self.directory.path().join("ca.pem")
    }

    fn init(&self) {
        let server = self;
        let data = server.data();
        let arguments = ["--auth=trust", "--username=sealgate", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--pgdata"];
        let output = server.program("initdb").args(arguments).arg(&data).output().expect("initdb starts");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The directory of its socket, its log and its data; the server's user may write here.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it again, and waits until it takes connections.
    pub fn start(&mut self) {
        assert!(self.keeper.is_none(), "the server runs already");
        // `read` ends when the test lets go of the pipe; unless it says that it will start the server again, nothing is left.
        let script = r#"dir=$1; shift; "$@" & pid=$!; echo started; read -r word; kill -QUIT $pid 2>/dev/null; wait $pid
            [ "$word" = keep ] || rm -rf "$dir""#;
        let socket = self.directory.path().display().to_string();
        let server = self.programs.join("postgres");
        let mut command = self.as_user(Path::new("sh"));
        command.args(["-c", script, "sh", &socket]).arg(server).arg("-D").arg(self.data());
        // Nobody pulls the plug of a test: what counts is that a process which is killed loses nothing.
        let fixed = ["listen_addresses=", "fsync=off", "max_connections=200", "timezone=UTC", "log_min_messages=warning"];
        for setting in
            fixed.iter().map(ToString::to_string).chain([format!("unix_socket_directories={socket}")]).chain(self.settings.clone())
        {
            command.arg("-c").arg(setting);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("a log");
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("a shell");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        self.keeper = Some(keeper);
        self.wait_until_ready();
    }

    /// Stops it as an operator does: connections are ended, nothing is lost.
    pub fn stop(&mut self) {
        self.signal("INT");
        self.wait_for_end();
    }

    /// Kills it, with all of its processes, as a crash does.
    pub fn kill(&mut self) {
        self.signal("QUIT");
        self.wait_for_end();
    }

    /// Stops every process of the server where it stands, or lets them go on: a server that hangs.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "STOP" } else { "CONT" };
        let master = self.pid();
        let children = Command::new("pgrep").args(["-P", &master]).output().expect("pgrep");
        for pid in String::from_utf8_lossy(&children.stdout).split_whitespace().chain([master.as_str()]) {
            let _ = Command::new("kill").args(["-s", signal, pid]).status();
        }
    }

    /// Makes a new, empty database and returns its URL.
    pub fn new_database(&self) -> String {
        let name = format!("t{}", Uuid::new_v4().simple());
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://sealgate@/{database}?host={}&port={}", self.directory.path().display(), self.port())
    }

    fn port(&self) -> String {
        let port = self.settings.iter().find_map(|setting| setting.strip_prefix("port="));
        port.unwrap_or("5432").to_owned()
    }

    /// Runs SQL in a database, by its name or its URL, and returns what `psql` prints: rows, columns separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let url = if database.contains("://") { database.to_owned() } else { self.url(database) };
        let output = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "-v", "ON_ERROR_STOP=1", "--dbname", &url, "--command", sql])
            .output()
            .expect("psql starts");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn pid(&self) -> String {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).expect("a server that runs");
        file.lines().next().expect("a pid").to_owned()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args(["-s", signal, &self.pid()]).status().expect("kill").success());
    }

    fn wait_for_end(&mut self) {
        let mut keeper = self.keeper.take().expect("a server that runs");
        let data = self.data();
        wait(|| !data.join("postmaster.pid").exists() || !self.lives(), || "the server does not end".to_owned());
        writeln!(keeper.stdin.take().expect("a pipe"), "keep").expect("a shell that listens");
        keeper.wait().expect("the shell's end");
        // A server that was killed leaves its lock behind.
        let _ = fs::remove_file(data.join("postmaster.pid"));
    }

    fn lives(&self) -> bool {
        fs::read_to_string(self.data().join("postmaster.pid")).is_ok_and(|file| {
            let pid = file.lines().next().unwrap_or_default().to_owned();
            Path::new("/proc").join(pid).exists()
        })
    }

    fn wait_until_ready(&mut self) {
        let ready = self.programs.join("pg_isready");
        let (socket, port) = (self.directory.path().to_owned(), self.port());
        let is_ready = || {
            let mut ask = Command::new(&ready);
            ask.arg("--quiet").args(["--port", &port]).arg("--host").arg(&socket).stdin(Stdio::null());
            ask.status().is_ok_and(|status| status.success())
        };
        let log = self.log_file();
        wait(is_ready, || format!("the server does not start: {}", fs::read_to_string(&log).unwrap_or_default()));
    }

    fn program(&self, name: &str) -> Command {
        self.as_user(&self.programs.join(name))
    }

    fn as_user(&self, program: &Path) -> Command {
        let mut command = match &self.user {
            None => Command::new(program),
            Some((_, uid, gid)) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups").arg(program);
                command
            }
        };
        command.current_dir(self.directory.path()).env("LC_ALL", "C.UTF-8").env_remove("PGOPTIONS");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// Asks until it is so; a server tells nobody that it is up.
fn wait(is_so: impl Fn() -> bool, complaint: impl Fn() -> String) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{}", complaint());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The directory of the newest server that is installed; a test without it would prove nothing.
fn programs() -> PathBuf {
    let versions =
        PROGRAMS.iter().filter_map(|root| fs::read_dir(root).ok()).flatten().filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let mut found: Vec<_> = versions.chain([PathBuf::from("/usr/bin")]).filter(|bin| bin.join("initdb").exists()).collect();
    found.sort_by_key(|bin| bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok()));
    found.pop().unwrap_or_else(|| panic!("PostgreSQL is needed for this test and is not installed: apt-get install postgresql"))
}

fn unprivileged_user() -> (String, u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let entry = |user: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
        let mut fields = line.split(':').skip(2);
        Some((user.to_owned(), fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    USERS.iter().find_map(|user| entry(user)).expect("a user that is not root")
}
