//! Every fault, at every moment, in both isolations, one after the other in gateways that are never restarted.
//!
//! The token-side log of `pkcs11-faults` is the truth: no accepted job is lost, none is signed twice, no PIN try is spent, and another
//! module's signatures go on meanwhile. How long the recovery takes is printed and never asserted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod rig;
mod soak;

use common::own_process;
use faults::{Cure, FAULTS, Moment};
use rig::{Isolated, Rig};

/// Every fault that can be cured in this isolation, at this moment.
fn run(moment: Moment, isolated: Isolated) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = Rig::start(isolated).await;
        for fault in FAULTS {
            if fault.cure == Cure::ProcessOnly && isolated == Isolated::Thread {
                continue;
            }
            rig.suffer(fault, moment).await;
        }
        rig.end().await;
    });
}

macro_rules! matrix {
    ($($process:ident, $thread:ident: $moment:expr;)*) => {$(
        #[test]
        fn $process() {
            run($moment, Isolated::Process);
        }

        #[test]
        fn $thread() {
            own_process::run(test_name!(), Rig::environment_of_a_process, || run($moment, Isolated::Thread));
        }
    )*};
}

matrix! {
    a_process_heals_from_every_fault_while_it_is_idle, a_thread_heals_from_every_fault_while_it_is_idle: Moment::Idle;
    a_process_heals_from_every_fault_with_jobs_queued, a_thread_heals_from_every_fault_with_jobs_queued: Moment::Queued;
    a_process_heals_from_every_fault_in_c_sign, a_thread_heals_from_every_fault_in_c_sign: Moment::InSign;
    a_process_heals_from_every_fault_at_login, a_thread_heals_from_every_fault_at_login: Moment::AtLogin;
    a_process_heals_from_every_fault_at_discovery, a_thread_heals_from_every_fault_at_discovery: Moment::AtDiscovery;
}
