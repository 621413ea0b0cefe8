//! Many replugs and crashes in one gateway: nothing is left behind by any of them.

use std::{fs, io::Write as _, path::Path, time::Duration};

use pkcs11_faults::{
    fault::{Crash, Fault},
    function::Function,
};
use sealgate::domain::token::SlotState;

use super::rig::{Isolated, Rig};

/// Rounds of five replugs and a crash: in CI, and with `scripts/test.sh --long`.
const ROUNDS: (usize, usize) = (4, 200);

/// Rounds after which every lazily made thing has been made.
const WARM_UP: usize = 2;

/// Jobs are forgotten so soon after their end, and permits so soon, that memory shows what is leaked and not what is kept.
const RETENTION: Duration = Duration::from_secs(10);
const PERMITS: Duration = Duration::from_secs(60);

/// More memory than that, in KiB, and something was leaked, however many rounds there were.
const GROWN_MAX: usize = 20_000;

/// What a process holds.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    children: usize,
}

impl Holdings {
    fn now() -> Self {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        Self {
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            children: children.map(|pids| pids.split_whitespace().count()).sum(),
        }
    }

    fn exceeds(&self, other: &Self) -> bool {
        self.descriptors > other.descriptors || self.threads > other.threads || self.children > other.children
    }
}

fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What was held at the start of each round, a line a round: `target/tmp/soak.tsv`.
struct Report(fs::File);

impl Report {
    fn new() -> Self {
        let mut file = fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak.tsv")).unwrap();
        writeln!(file, "rounds\tdescriptors\tthreads\tchildren\tresident_kib").unwrap();
        Self(file)
    }

    fn line(&mut self, rounds: usize) {
        let Holdings { descriptors, threads, children } = Holdings::now();
        writeln!(self.0, "{rounds}\t{descriptors}\t{threads}\t{children}\t{}", resident_kib()).unwrap();
    }
}

#[test]
fn replugs_and_crashes_leave_nothing_behind() {
    // In a process of its own: the other tests' threads and descriptors are not ours.
    super::own_process::run(
        crate::test_name!(),
        |_| Vec::new(),
        || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(2).enable_all().build().unwrap();
            runtime.block_on(soak());
        },
    );
}

async fn soak() {
    let rounds = if std::env::var_os("SEALGATE_TEST_LONG").is_some() { ROUNDS.1 } else { ROUNDS.0 };
    let rig = Rig::keeping(Isolated::Process, RETENTION, PERMITS).await;
    let mut before = None;
    let mut report = Report::new();
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            before = Some((Holdings::now(), resident_kib()));
        }
        report.line(round);
        for _ in 0..5 {
            rig.control.remove(None).unwrap();
            rig.until(|state| state == SlotState::Absent).await;
            rig.control.insert(None).unwrap();
            rig.until(|state| state == SlotState::Ready).await;
        }
        let epoch = rig.victim().epoch();
        rig.control.arm(Fault::on(Function::C_GetSlotInfo).crashes(Crash::Kill)).unwrap();
        let victim = rig.victim();
        rig.until(|state| state == SlotState::Ready && victim.epoch() > epoch).await;
        rig.sign_until_signed("soak").await;
    }
    let (holdings, memory) = before.unwrap();
    // The last child's threads and pipes go a moment after it.
    let settled = async {
        while Holdings::now().exceeds(&holdings) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), settled).await;
    assert!(in_time.is_ok(), "{:?} after {rounds} rounds, {holdings:?} before", Holdings::now());
    report.line(WARM_UP + rounds);
    let grown = resident_kib().saturating_sub(memory);
    assert!(grown < GROWN_MAX, "{grown} KiB more after {rounds} rounds");
    rig.end().await;
}
