//! System calls: a list of what a server makes, for seccomp.

use crate::{Forbidden, Measure};
use libc::c_long;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

const NAME: &str = "other system calls closed";

/// Calls that are allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // Files.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Threads and signals.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    // Time and waiting.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    // Network; `socket` has conditions.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // The process and the machine.
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Older forms of some of them, which the C library still uses on x86-64.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];

#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Calls that a server never makes; that one is made means that it is no longer one.
const NEVER: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

pub(crate) fn restrict(forbidden: Forbidden, local_sockets: bool) -> Measure {
    match apply(forbidden, local_sockets) {
        Ok(allowed) => {
            let others = match forbidden {
                Forbidden::Fails => "others fail",
                Forbidden::Kills => "others fail or end the process",
            };
            Measure::full(
                NAME,
                format!("seccomp, all threads: {allowed} system calls allowed, {others}"),
            )
        }
        Err(error) => Measure::none(NAME, format!("seccomp refuses: {error}")),
    }
}

/// Installs the filters; how many calls are allowed.
fn apply(forbidden: Forbidden, local_sockets: bool) -> Result<usize, Error> {
    let architecture = std::env::consts::ARCH.try_into().map_err(Error::Backend)?;
    let build = |rules: Rules, otherwise, listed| -> Result<BpfProgram, Error> {
        SeccompFilter::new(rules, otherwise, listed, architecture)
            .and_then(TryInto::try_into)
            .map_err(Error::Backend)
    };
    let list = allowed(local_sockets).map_err(Error::Backend)?;
    let count = list.len();
    let eperm = SeccompAction::Errno(libc::EPERM as u32);
    // A thread is started with clone3, whose flags lie in memory, out of a filter's reach.
    // Told that there is no such call, the C library uses clone, whose flags do not.
    let no_clone3 = build(
        unconditional(&[libc::SYS_clone3]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
    )?;
    let mut filters = vec![no_clone3];
    if forbidden == Forbidden::Kills {
        filters.push(build(
            unconditional(NEVER),
            SeccompAction::Allow,
            SeccompAction::KillProcess,
        )?);
    }
    // Last: it forbids to install another.
    filters.push(build(list, eperm, SeccompAction::Allow)?);
    for filter in &filters {
        seccompiler::apply_filter_all_threads(filter)?;
    }
    Ok(count)
}

fn unconditional(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn allowed(local_sockets: bool) -> Result<Rules, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let when = |argument, operator, value: i64| {
        // Arguments of these calls are 32 bits wide, whatever the register holds above.
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            operator,
            u64::from(value as u32),
        )
    };
    let mut rules = unconditional(ALLOWED);
    rules.extend(unconditional(ALLOWED_HERE));
    // The filter of clone3 decides about it.
    rules.extend(unconditional(&[libc::SYS_clone3]));
    let mut allow = |call, conditions: Vec<SeccompCondition>| {
        let rule = SeccompRule::new(conditions)?;
        rules.entry(call).or_default().push(rule);
        Ok::<_, seccompiler::BackendError>(())
    };
    // Threads, but no processes and no namespaces.
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
    allow(
        libc::SYS_clone,
        vec![when(
            0,
            MaskedEq(u64::from((thread | namespaces) as u32)),
            thread.into(),
        )?],
    )?;
    // No memory that can be both written and executed, and none made executable later.
    // What lies in a file can still be mapped to be executed, as libraries are.
    let write = u64::from(libc::PROT_WRITE as u32);
    let execute = u64::from(libc::PROT_EXEC as u32);
    allow(libc::SYS_mmap, vec![when(2, MaskedEq(execute), 0)?])?;
    allow(libc::SYS_mmap, vec![when(2, MaskedEq(write), 0)?])?;
    allow(libc::SYS_mprotect, vec![when(2, MaskedEq(execute), 0)?])?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        allow(libc::SYS_socket, vec![when(0, Eq, family.into())?])?;
    }
    // Behind a socket of this machine may be one that starts programs for whoever asks,
    // such as a service manager or a container engine, and Landlock closes none that has
    // a path.
    if local_sockets {
        allow(libc::SYS_socket, vec![when(0, Eq, libc::AF_UNIX.into())?])?;
    }
    // A pair of streams is connected for good; datagrams can be sent to others.
    const TYPE: u64 = 0xf;
    allow(
        libc::SYS_socketpair,
        vec![
            when(0, Eq, libc::AF_UNIX.into())?,
            when(1, MaskedEq(TYPE), libc::SOCK_STREAM.into())?,
        ],
    )?;
    // No typing into terminals.
    allow(
        libc::SYS_ioctl,
        vec![
            when(1, Ne, libc::TIOCSTI as i64)?,
            when(1, Ne, libc::TIOCLINUX as i64)?,
        ],
    )?;
    // Limits are read, not set: core dumps stay off for an administrator, too.
    let nothing = SeccompCondition::new(2, SeccompCmpArgLen::Qword, Eq, 0)?;
    allow(libc::SYS_prlimit64, vec![when(0, Eq, 0)?, nothing])?;
    // `abort` and panics raise signals in the process itself only.
    let own = i64::from(std::process::id());
    allow(libc::SYS_tgkill, vec![when(0, Eq, own)?])?;
    for option in [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_SET_VMA,
        libc::PR_GET_DUMPABLE,
        libc::PR_GET_NO_NEW_PRIVS,
    ] {
        allow(libc::SYS_prctl, vec![when(0, Eq, option.into())?])?;
    }
    Ok(rules)
}
