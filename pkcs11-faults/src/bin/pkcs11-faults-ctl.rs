//! The bench from a shell: start it, arm faults, pull tokens, act at the PIN pad, wait for events. Replies are printed as they come, in JSON.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use pkcs11_faults::{
    bench::Bench,
    control::{Control, ControlError},
    event::{Awaited, StepName},
    fault::{Crash, Effect, Fault, Moment, Times, Wait},
    function::{Function, FunctionSet},
    protocol::{PersonAct, Reply, Request},
    rv::Rv,
    script,
    token::{PinPolicy, Reader},
    variables,
};

/// Controls the bench that faulty PKCS#11 modules ask what to do.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The bench's control socket.
    #[arg(long, env = variables::CONTROL)]
    socket: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs a bench until it is told to stop.
    Serve(Serve),
    /// Ends the bench.
    Stop,
    /// Arms a fault.
    Arm(Arm),
    /// Disarms a fault.
    Disarm { id: u64 },
    /// Pulls a token out.
    Remove {
        #[command(flatten)]
        which: Which,
        /// What calls on its sessions get until the removal is noticed.
        #[arg(long, default_value = "CKR_DEVICE_REMOVED")]
        answer: Rv,
        /// Its reader goes with it, so that its slot is not listed any more.
        #[arg(long)]
        with_reader: bool,
    },
    /// Puts a token in.
    Insert {
        #[command(flatten)]
        which: Which,
        /// Into the slot with this number.
        #[arg(long)]
        slot: Option<u64>,
    },
    /// Gives a token's slot another number.
    Renumber {
        #[command(flatten)]
        which: Which,
        slot: u64,
    },
    /// Ends all sessions.
    ExpireSessions {
        #[command(flatten)]
        which: Which,
        /// What calls on them get.
        #[arg(long, default_value = "CKR_SESSION_HANDLE_INVALID")]
        answer: Rv,
    },
    /// Logs the user out.
    Logout {
        #[command(flatten)]
        which: Which,
    },
    /// Makes functions fail until the module is initialised again.
    Poison {
        #[arg(long, default_value = "CKR_GENERAL_ERROR")]
        answer: Rv,
        /// Functions, with commas between; all but C_Initialize and C_Finalize without this.
        #[arg(value_delimiter = ',')]
        on: Vec<Function>,
    },
    /// Counts PIN tries.
    Pin {
        #[command(flatten)]
        which: Which,
        /// A policy in JSON: {"tries":3,"shows":["count_low","final_try","locked"],"last_answer":"CKR_PIN_INCORRECT","locked_answer":"CKR_PIN_LOCKED"}.
        policy: Option<String>,
    },
    /// Sets how many PIN tries are left.
    PinLeft { serial: String, left: u64 },
    /// Gives a token a PIN pad.
    PinPad {
        #[command(flatten)]
        which: Which,
        /// Takes it away again.
        #[arg(long)]
        off: bool,
    },
    /// Acts at the PIN pad.
    Person(Person),
    /// Makes keys want a login for each signature.
    AlwaysAuthenticate {
        #[command(flatten)]
        which: Which,
        /// CKA_IDs in hex, with commas between; none for no key.
        #[arg(value_delimiter = ',')]
        keys: Vec<String>,
    },
    /// Limits the sessions of a process.
    SessionLimit {
        #[command(flatten)]
        which: Which,
        /// None takes the limit away.
        max: Option<u64>,
    },
    /// Reports events of functions without a fault, too.
    Watch {
        #[arg(value_delimiter = ',', required = true)]
        on: Vec<Function>,
    },
    /// Lets calls go on that hang.
    Release { on: Option<Function> },
    /// Waits for an event: entered, held, person, left or died.
    Wait(Waiting),
    /// Prints events, one a line.
    Events {
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Prints what is armed and what is going on.
    Status,
    /// Takes all faults away.
    Reset,
    /// Sends a request in JSON.
    Send { request: String },
}

#[derive(Args)]
struct Serve {
    /// Keeps PIN tries in this file, beyond the bench's own life.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Plays this script first.
    #[arg(long)]
    script: Option<PathBuf>,
}

#[derive(Args)]
struct Which {
    /// Serial number or label; all tokens without it.
    #[arg(long)]
    token: Option<String>,
}

#[derive(Args)]
struct Arm {
    #[command(flatten)]
    which: Which,
    /// Lets so many calls through first.
    #[arg(long, default_value_t = 0)]
    skip: u64,
    /// Meets so many calls, or `every` one.
    #[arg(long, default_value = "1", value_parser = times)]
    times: Times,
    /// Acts after the real module has done its work.
    #[arg(long)]
    after: bool,
    /// Ends when this function has succeeded.
    #[arg(long)]
    until: Option<Function>,
    /// Counts and meets length queries, too.
    #[arg(long)]
    length_queries: bool,
    /// Functions, with commas between, or `any`.
    #[arg(value_parser = functions)]
    on: FunctionSet,
    /// What happens: return=CKR_…, wait=MILLISECONDS, wait=release, wait=for_ever, crash=abort, crash=segfault, crash=kill, crash=STATUS, flip_bit,
    /// remove, attempt=connect:ADDRESS:PORT, attempt=read:FILE, attempt=write:FILE, attempt=run:PROGRAM, attempt=signal:PID.
    #[arg(value_parser = effect, required = true)]
    effects: Vec<Effect>,
}

#[derive(Args)]
struct Person {
    #[command(flatten)]
    which: Which,
    /// Types this PIN.
    #[arg(long, required_unless_present = "answer", conflicts_with = "answer")]
    enter: Option<String>,
    /// Lets the login end with this answer; CKR_FUNCTION_CANCELED is the cancel key.
    #[arg(long)]
    answer: Option<Rv>,
}

#[derive(Args)]
struct Waiting {
    #[arg(value_parser = step)]
    step: StepName,
    function: Option<Function>,
    /// Only events after this one.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// Milliseconds.
    #[arg(long, default_value_t = 60_000)]
    timeout: u64,
}

fn functions(text: &str) -> Result<FunctionSet, String> {
    if text == "any" {
        return Ok(FunctionSet::any());
    }
    text.split(',').map(|name| name.parse::<Function>().map_err(|error| error.to_string())).collect()
}

fn times(text: &str) -> Result<Times, String> {
    if text == "every" { Ok(Times::Every) } else { text.parse().map(Times::Count).map_err(|_| "a number, or `every`".to_owned()) }
}

fn step(text: &str) -> Result<StepName, String> {
    serde_json::from_value(text.into()).map_err(|_| "entered, held, person, left or died".to_owned())
}

fn effect(text: &str) -> Result<Effect, String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let effect = match (name, value) {
        ("flip_bit", "") => Some(Effect::FlipBit),
        ("remove", "") => Some(Effect::Remove),
        ("return", rv) => Some(Effect::Return(rv.parse().map_err(|error: pkcs11_faults::rv::UnknownRv| error.to_string())?)),
        ("wait", "release") => Some(Effect::Wait(Wait::Release)),
        ("wait", "for_ever") => Some(Effect::Wait(Wait::ForEver)),
        ("wait", ms) => ms.parse().ok().map(|ms| Effect::Wait(Wait::Ms(ms))),
        ("crash", "abort") => Some(Effect::Crash(Crash::Abort)),
        ("crash", "segfault") => Some(Effect::Crash(Crash::Segfault)),
        ("crash", "kill") => Some(Effect::Crash(Crash::Kill)),
        ("attempt", attempt) => {
            Some(Effect::Attempt(attempt.parse().map_err(|error: pkcs11_faults::attempt::NoAttempt| error.to_string())?))
        }
        ("crash", status) => status.parse().ok().map(|status| Effect::Crash(Crash::Exit(status))),
        _ => None,
    };
    effect.ok_or_else(|| "not an effect; see `pkcs11-faults-ctl arm --help`".to_owned())
}

fn main() -> ExitCode {
    let Arguments { socket, verb } = Arguments::parse();
    let done = match verb {
        Verb::Serve(serve) => run(&socket, &serve),
        verb => request(verb).and_then(|request| send(&Control::new(&socket), &request)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pkcs11-faults-ctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(socket: &Path, serve: &Serve) -> Result<(), String> {
    let played = serve.script.as_deref().map_or(Ok(Vec::new()), script::read).map_err(|error| error.to_string())?;
    let bench = Bench::listen(socket, serve.state.as_deref()).map_err(|error| error.to_string())?;
    let control = bench.control();
    for (line, request) in played {
        control.send(&request).map_err(|error| format!("line {line} of the script: {error}"))?;
    }
    println!("listening at {}", socket.display());
    bench.wait_until_stopped();
    Ok(())
}

fn send(control: &Control, request: &Request) -> Result<(), String> {
    match control.send(request).map_err(|error: ControlError| error.to_string())? {
        Reply::TimedOut {} => return Err("the event did not come in time".to_owned()),
        Reply::Events { events } => {
            for event in events {
                println!("{}", json(&event)?);
            }
        }
        reply => println!("{}", json(&reply)?),
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

fn request(verb: Verb) -> Result<Request, String> {
    Ok(match verb {
        Verb::Serve(_) | Verb::Stop => Request::Stop {},
        Verb::Arm(arm) => Request::Arm { fault: arm.into() },
        Verb::Disarm { id } => Request::Disarm { id },
        Verb::Remove { which, answer, with_reader } => {
            Request::Remove { token: which.token, answer, reader: if with_reader { Reader::Goes } else { Reader::Stays } }
        }
        Verb::Insert { which, slot } => Request::Insert { token: which.token, slot },
        Verb::Renumber { which, slot } => Request::Renumber { token: which.token, slot },
        Verb::ExpireSessions { which, answer } => Request::ExpireSessions { token: which.token, answer },
        Verb::Logout { which } => Request::Logout { token: which.token },
        Verb::Poison { answer, on } => {
            Request::Poison { answer, on: if on.is_empty() { FunctionSet::any() } else { on.into_iter().collect() } }
        }
        Verb::Pin { which, policy } => Request::Pin { token: which.token, policy: policy.as_deref().map(pin_policy).transpose()? },
        Verb::PinLeft { serial, left } => Request::PinLeft { token: serial, left },
        Verb::PinPad { which, off } => Request::PinPad { token: which.token, present: !off },
        Verb::Person(Person { which, enter, answer }) => Request::Person {
            token: which.token,
            act: enter.map_or_else(|| PersonAct::Answers(answer.unwrap_or(Rv::FUNCTION_CANCELED)), PersonAct::Enters),
        },
        Verb::AlwaysAuthenticate { which, keys } => Request::AlwaysAuthenticate { token: which.token, keys },
        Verb::SessionLimit { which, max } => Request::SessionLimit { token: which.token, max },
        Verb::Watch { on } => Request::Watch { on: on.into_iter().collect() },
        Verb::Release { on } => Request::Release { on },
        Verb::Wait(Waiting { step, function, after, timeout }) => {
            Request::WaitFor { event: Awaited { step, function }, after, timeout_ms: timeout }
        }
        Verb::Events { after } => Request::Events { after },
        Verb::Status => Request::Status {},
        Verb::Reset => Request::Reset {},
        Verb::Send { request } => serde_json::from_str(&request).map_err(|error| format!("not a request: {error}"))?,
    })
}

fn pin_policy(text: &str) -> Result<PinPolicy, String> {
    serde_json::from_str(text).map_err(|error| format!("not a policy: {error}"))
}

impl From<Arm> for Fault {
    fn from(arm: Arm) -> Self {
        Self {
            on: arm.on,
            token: arm.which.token,
            skip: arm.skip,
            times: arm.times,
            moment: if arm.after { Moment::After } else { Moment::Before },
            effects: arm.effects,
            until: arm.until,
            length_queries: arm.length_queries,
        }
    }
}
