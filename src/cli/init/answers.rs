//! What `init` was told: by its arguments, at the terminal, by default.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::Args;
use crate::{
    cli::{Usage, secret},
    config::DEFAULT_PORT,
    domain::{ids::OperatorName, key_uri::Pkcs11Uri},
};

/// Where distributions put OpenSC, which knows most cards.
const OPENSC: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so", "/usr/lib64/opensc-pkcs11.so"];

/// Everything that is needed.
pub(super) struct Answers {
    pub(super) module: PathBuf,
    pub(super) module_env: Vec<(String, String)>,
    pub(super) token: Option<Pkcs11Uri>,
    pub(super) pin_file: Option<PathBuf>,
    pub(super) listen: SocketAddr,
    pub(super) hosts: Vec<String>,
    /// Certificate and key that were given.
    pub(super) tls: Option<(PathBuf, PathBuf)>,
    pub(super) operator: OperatorName,
    pub(super) password_file: Option<PathBuf>,
}

impl Answers {
    /// Takes the arguments and asks for the rest, if it may.
    pub(super) fn of(args: &Args) -> anyhow::Result<Self> {
        let ask = !args.yes;
        if ask && !io::stdin().is_terminal() {
            return Err(Usage("there is no terminal to ask at; say everything with arguments, and --yes".to_owned()).into());
        }
        let module = match &args.module {
            Some(module) => module.clone(),
            None => asked(ask, "PKCS#11 library of the token", known_module())?
                .context("name the PKCS#11 library of the token with --module FILE")?,
        };
        let listen = match args.listen {
            Some(listen) => listen,
            None => asked(ask, "address to listen on", Some(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))))?
                .context("name an address with --listen")?,
        };
        let operator = match &args.operator {
            Some(operator) => operator.clone(),
            None => asked(ask, "name of the first operator", "admin".parse().ok())?.context("name the operator with --operator")?,
        };
        let mut hosts = args.hosts.clone();
        if hosts.is_empty() && !listen.ip().is_loopback() {
            hosts.extend(asked::<String>(ask, "name under which other machines reach the gateway", None)?);
        }
        let answers = Self {
            module: absolute(&module)?,
            module_env: args.module_env.clone(),
            token: args.token.clone(),
            pin_file: args.pin_file.as_deref().map(absolute).transpose()?,
            listen,
            hosts,
            tls: args.tls_certificate.as_deref().map(absolute).transpose()?.zip(args.tls_key.as_deref().map(absolute).transpose()?),
            operator,
            password_file: args.operator_password_file.clone(),
        };
        answers.check()?;
        Ok(answers)
    }

    /// Whether other machines can reach the gateway, or TLS was asked for.
    pub(super) fn wants_tls(&self) -> bool {
        self.tls.is_some() || !self.listen.ip().is_loopback()
    }

    /// What can be found wrong before anything is made.
    fn check(&self) -> anyhow::Result<()> {
        if !self.module.is_file() {
            bail!("{} is no library; name the PKCS#11 library of the token with --module FILE", self.module.display());
        }
        if let Some(file) = &self.pin_file {
            secret::pin_from_file(file)?;
        }
        if let Some(file) = &self.password_file {
            secret::password_from_file(file)?;
        }
        if self.wants_tls() && self.tls.is_none() && self.hosts.is_empty() && self.listen.ip().is_unspecified() {
            bail!("the gateway's certificate needs a name: say under which one it is reached with --host NAME");
        }
        Ok(())
    }
}

fn known_module() -> Option<PathBuf> {
    OPENSC.into_iter().map(PathBuf::from).find(|path| path.is_file())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

/// The answer at the terminal, or the default; `None` where there is neither.
fn asked<T>(ask: bool, question: &str, default: Option<T>) -> anyhow::Result<Option<T>>
where
    T: std::str::FromStr + Shown,
{
    if !ask {
        return Ok(default);
    }
    loop {
        let shown = default.as_ref().map_or_else(String::new, |default| format!(" [{}]", default.shown()));
        write!(io::stderr().lock(), "{question}{shown}: ").context("the terminal is gone")?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line).context("the terminal is gone")? == 0 {
            bail!("nothing was made: there was no answer");
        }
        let line = line.trim();
        if line.is_empty() {
            return Ok(default);
        }
        if let Ok(answer) = line.parse() {
            return Ok(Some(answer));
        }
        writeln!(io::stderr().lock(), "that is not understood").context("the terminal is gone")?;
    }
}

/// How a default is shown.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for PathBuf {
    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Shown for SocketAddr {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for OperatorName {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.clone()
    }
}
