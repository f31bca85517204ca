//! The real program, killed right before its n-th change of the file system.
//!
//! It is traced (ptrace(2)): every system call that changes files or makes them durable is a moment to stop at. All threads
//! count together.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How a run came to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Killed,
    /// The moment did not come.
    Exited(i32),
}

/// System calls that change something whatever their arguments are.
const CHANGES: &[libc::c_long] = &[
    libc::SYS_linkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_ftruncate,
    libc::SYS_utimensat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_copy_file_range,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
];

/// Writing to an open file: of interest where it is one of the bucket.
const WRITES: &[libc::c_long] = &[libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64, libc::SYS_pwritev];

/// A system call that begins: its number and its first and third argument.
#[cfg(target_arch = "x86_64")]
fn beginning(thread: Pid) -> Option<(libc::c_long, u64, u64)> {
    let registers = ptrace::getregs(thread).ok()?;
    // The kernel puts this there before it looks at the number.
    let begins = registers.rax == (-i64::from(libc::ENOSYS)).cast_unsigned();
    begins.then(|| (registers.orig_rax.cast_signed(), registers.rdi, registers.rdx))
}

#[cfg(target_arch = "aarch64")]
fn beginning(thread: Pid) -> Option<(libc::c_long, u64, u64)> {
    let registers = ptrace::getregs(thread).ok()?;
    // Of both stops of a call this is the one with x7 = 0 (ptrace(2) of arm64).
    let begins = registers.regs[7] == 0;
    begins.then(|| (registers.regs[8].cast_signed(), registers.regs[0], registers.regs[2]))
}

fn changes_files(thread: Pid, bucket: &Path) -> bool {
    let Some((number, first, third)) = beginning(thread) else { return false };
    if number == libc::SYS_openat {
        return third & libc::O_CREAT as u64 != 0;
    }
    if WRITES.contains(&number) {
        let target = std::fs::read_link(format!("/proc/{thread}/fd/{first}"));
        return target.is_ok_and(|target| target.starts_with(bucket));
    }
    CHANGES.contains(&number)
}

/// Runs a command until it is about to make the change of that number. Whatever it says goes nowhere.
pub fn run_until(command: &Command, bucket: &Path, at: usize) -> Ended {
    // Only the thread that started a process may trace it, and it must not have other children.
    std::thread::scope(|scope| scope.spawn(|| trace(command, bucket, at)).join().unwrap())
}

fn trace(command: &Command, bucket: &Path, at: usize) -> Ended {
    let mut stopped = Command::new("sh");
    stopped.args(["-c", r#"kill -STOP $$; exec "$0" "$@""#]).arg(command.get_program()).args(command.get_args());
    stopped.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    stopped.current_dir(command.get_current_dir().unwrap());
    stopped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Pid::from_raw(stopped.spawn().unwrap().id().cast_signed());
    assert_eq!(waitpid(process, Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(process, Signal::SIGSTOP)));
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::seize(process, options).unwrap();
    kill(process, Signal::SIGCONT).unwrap();
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let mut changes = 0;
    loop {
        let (thread, signal) = match waitpid(Pid::from_raw(-1), Some(flags)).unwrap() {
            WaitStatus::Exited(pid, code) if pid == process => return Ended::Exited(code),
            WaitStatus::Signaled(pid, ..) if pid == process => return Ended::Killed,
            WaitStatus::PtraceSyscall(thread) => {
                if changes_files(thread, bucket) {
                    if changes == at {
                        kill(process, Signal::SIGKILL).unwrap();
                    }
                    changes += 1;
                }
                (thread, None)
            }
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            _ => continue,
        };
        // A thread may be gone by now.
        match ptrace::syscall(thread, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
