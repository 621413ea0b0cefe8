//! The fence around system calls: seccomp filters, which hold for all threads of the process and cannot be taken away.
//!
//! Two filters can be had, each a list of what is denied; the rest is allowed, for nobody knows all that a vendor's module and its libraries
//! call. What is denied fails with `EPERM` and kills nobody. Invariant: neither filter can be walked around by what the other denies.

use std::collections::BTreeMap;

use libc::{AF_NETLINK, AF_UNIX, CLONE_THREAD, ENOSYS, EPERM, c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter_all_threads, sock_filter,
};

/// Ways to do something that no filter sees, or to have another process of the same user do it.
const WAYS_AROUND: &[c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
];

/// What no driver of a token needs.
const NEEDLESS: &[c_long] = &[
    // Programs; see also `forking`.
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    // Mounts, namespaces and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // The kernel itself.
    libc::SYS_kexec_load,
    #[cfg(not(target_arch = "riscv64"))]
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_personality,
    libc::SYS_syslog,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    // Keys that the kernel keeps for the user.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Signals to other processes; see also `signals`.
    libc::SYS_tkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Denies every socket but those of this machine and of its kernel.
pub(super) fn deny_network() -> Result<(), String> {
    raise(network()?, EPERM)
}

/// Denies what no driver of a token needs.
pub(super) fn restrict() -> Result<(), String> {
    raise(needless()?, EPERM)?;
    // Its flags stand in memory, where no filter can look; the C library then takes `clone`, whose flags can be seen.
    raise(always(&[libc::SYS_clone3]), ENOSYS)
}

fn network() -> Result<Rules, String> {
    let mut rules = always(WAYS_AROUND);
    let elsewhere = rule(vec![differs(0, AF_UNIX)?, differs(0, AF_NETLINK)?])?;
    rules.insert(libc::SYS_socket, vec![elsewhere]);
    Ok(rules)
}

fn needless() -> Result<Rules, String> {
    let mut rules = always(WAYS_AROUND);
    rules.append(&mut always(NEEDLESS));
    rules.append(&mut signals()?);
    // A new thread has this flag, a new process has not.
    let thread = CLONE_THREAD.unsigned_abs().into();
    let forking = condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![rule(vec![forking])?]);
    Ok(rules)
}

/// Signals to others than this process, which may send itself what `abort` sends.
fn signals() -> Result<Rules, String> {
    let own = c_int::try_from(std::process::id()).map_err(|error| error.to_string())?;
    let others = || Ok::<_, String>(vec![rule(vec![differs(0, own)?])?]);
    let calls = [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];
    calls.into_iter().map(|call| Ok((call, others()?))).collect()
}

fn always(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| error.to_string())
}

fn differs(argument: u8, value: c_int) -> Result<SeccompCondition, String> {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value.unsigned_abs().into())
}

fn condition(argument: u8, length: SeccompCmpArgLen, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, length, operator, value).map_err(|error| error.to_string())
}

/// Has the kernel answer the calls in `rules` with `errno`.
fn raise(rules: Rules, errno: c_int) -> Result<(), String> {
    let refused = |error: &dyn std::fmt::Display| {
        format!("`no_network` and `restrict_system_calls` need seccomp filters, which this system does not grant: {error}")
    };
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| refused(&error))?;
    let denied = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture).map_err(|error| refused(&error))?;
    let program = BpfProgram::try_from(filter).map_err(|error| refused(&error))?;
    apply_filter_all_threads(&without_x32(program)).map_err(|error| refused(&error))
}

/// Puts before a filter that calls with the numbers of x32, a second set for the same architecture, do not exist.
#[cfg(target_arch = "x86_64")]
fn without_x32(program: BpfProgram) -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let step = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k };
    // The call's number is the first word of what a filter is given.
    let load = step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    let is_x32 = step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32);
    let answer = step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | ENOSYS.unsigned_abs());
    [vec![load, is_x32, answer], program].concat()
}

#[cfg(not(target_arch = "x86_64"))]
fn without_x32(program: BpfProgram) -> BpfProgram {
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_stands_in_two_lists() {
        let rules = needless().unwrap();
        assert_eq!(rules.len(), WAYS_AROUND.len() + NEEDLESS.len() + 4 + 1);
    }
}
