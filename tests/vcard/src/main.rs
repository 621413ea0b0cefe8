//! A virtual smart card for tests: `vcard openpgp|piv STATEFILE [port] [ms per APDU]`.
//!
//! It puts itself into the virtual reader of `vpcd` on this machine. Killing it is pulling the card; starting it again with the same state file is
//! putting the same card back. It prints `inserted` when the reader has powered it up.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for scripts: what it says is its interface")]

mod apdu;
mod backend;
mod cards;
#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use rustix::net::sockopt::{set_tcp_nodelay, set_tcp_quickack};
use vpicc::{Connection, DEFAULT_PORT, VSmartCard};

use cards::{Kind, Memory};

const USAGE: &str = "usage: vcard openpgp|piv STATEFILE [port] [ms per APDU]";

struct Arguments {
    kind: Kind,
    state: PathBuf,
    port: u16,
    delay: Duration,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let kind = words.next()?.parse().ok()?;
        let state = words.next()?.into();
        let port = words.next().map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
        let delay = words.next().map_or(Some(0), |delay| delay.parse().ok()).map(Duration::from_millis)?;
        words.next().is_none().then_some(Self { kind, state, port, delay })
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse(env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vcard: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let memory = Memory::in_files(&arguments.state)?;
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, arguments.port))
        .map_err(|error| io::Error::new(error.kind(), format!("no vpcd on port {}: {error}", arguments.port)))?;
    cards::with_card(arguments.kind, memory, arguments.delay, |card| serve(stream, card))
}

/// Answers the reader until it goes away.
fn serve(stream: TcpStream, card: &mut dyn VSmartCard) -> io::Result<()> {
    set_tcp_nodelay(&stream, true)?;
    let mut connection = Connection::from(stream.try_clone()?);
    let mut card = Announced { card, announced: false };
    loop {
        // vpcd sends length and content of a message apart. Unless the first is acknowledged at once, each message takes 40 ms. The kernel
        // forgets this setting by and by.
        set_tcp_quickack(&stream, true)?;
        match connection.poll(&mut card) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
    }
}

/// Says so when the reader powers the card up for the first time.
struct Announced<'a> {
    card: &'a mut dyn VSmartCard,
    announced: bool,
}

impl VSmartCard for Announced<'_> {
    fn atr(&self) -> &[u8] {
        self.card.atr()
    }

    fn power_on(&mut self) {
        self.card.power_on();
        if !self.announced {
            self.announced = true;
            println!("inserted");
            // Whoever waits for the line reads a pipe. Nobody may be there any more.
            let _ = io::stdout().flush();
        }
    }

    fn power_off(&mut self) {
        self.card.power_off();
    }

    fn reset(&mut self) {
        self.card.reset();
    }

    fn execute(&mut self, apdu: &[u8]) -> Vec<u8> {
        self.card.execute(apdu)
    }
}
