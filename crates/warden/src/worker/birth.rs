//! How the process of a worker begins.
//!
//! As by `posix_spawn`: until its program runs, the child works on our own memory, and the thread that
//! started it waits for that (`CLONE_VM`, `CLONE_VFORK`). So what has to be done before any program
//! may run, in whatever language it is written, costs no copy of our memory. Refused: the standard
//! library's `pre_exec`, which forks, so that every page that we touch afterwards is copied; programs
//! that tie themselves to their parent, as not all do; and a launcher, since a second exec costs what
//! the fork did.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString, c_char, c_int, c_void},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStringExt as _, process::ExitStatusExt as _},
    },
    process::ExitStatus,
    ptr,
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};

use super::{WorkerSpec, records::MARK};

/// Stack of the child until its program runs, which has one of its own. The search for the program
/// holds one path at a time, at most 4 KiB.
const STACK_BYTES: usize = 64 << 10;
/// Time between two looks at a child that is dead already, or about to be.
const LOOK: Duration = Duration::from_millis(1);

/// A child that is not reaped yet; killed when it is dropped as such.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    reaped: bool,
}

/// What we hold of a child.
#[derive(Debug)]
pub(super) struct Ends {
    /// Readable when the child has ended.
    pub(super) exit: OwnedFd,
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Child {
    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Waits until it can be reaped, which is at once if its descriptor was readable.
    pub(super) async fn reap(&mut self) -> io::Result<ExitStatus> {
        loop {
            let looked = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG);
            if let Ok(None) = looked {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            // Whatever came of it, from now on the number may be a stranger's.
            self.reaped = true;
            let (_, status) = looked?.ok_or(io::ErrorKind::NotFound)?;
            return Ok(ExitStatus::from_raw(status.as_raw()));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            // Until it is reaped the number is its own; gone already is fine.
            rustix::process::kill_process(self.pid, Signal::KILL).ok();
        }
    }
}

/// All that the child needs, made before it exists: it may neither allocate nor lock.
struct Plan {
    program: CString,
    arguments: Words,
    environment: Words,
    dir: CString,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    parent: Pid,
    /// Why it could not become the program; 0 as long as it may.
    failed: AtomicI32,
}

/// Texts as C wants a list of them.
struct Words {
    /// Ends with a null pointer.
    pointers: Vec<*const c_char>,
    /// What they point to.
    _texts: Vec<CString>,
}

impl Words {
    fn of(texts: impl Iterator<Item = OsString>) -> io::Result<Self> {
        let texts = texts
            .map(|text| Ok(CString::new(text.into_vec())?))
            .collect::<io::Result<Vec<CString>>>()?;
        let mut pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        pointers.push(ptr::null());
        Ok(Self { pointers, _texts: texts })
    }
}

impl Plan {
    fn of(spec: &WorkerSpec, mark: &str) -> io::Result<(Self, OwnedFd, OwnedFd, OwnedFd)> {
        let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        variables.extend(spec.env.iter().map(|(name, value)| (name.clone().into(), value.into())));
        variables.insert(MARK.into(), mark.into());
        let environment = variables.into_iter().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        });
        let program = spec.program.clone().into_os_string();
        let arguments =
            std::iter::once(program.clone()).chain(spec.args.iter().map(OsString::from));
        let (stdin, our_stdin) = io::pipe()?;
        let (our_stdout, stdout) = io::pipe()?;
        let (our_stderr, stderr) = io::pipe()?;
        let plan = Self {
            arguments: Words::of(arguments)?,
            environment: Words::of(environment)?,
            program: CString::new(program.into_vec())?,
            dir: CString::new(spec.dir.clone().into_os_string().into_vec())?,
            stdin: above_standard(stdin.into())?,
            stdout: above_standard(stdout.into())?,
            stderr: above_standard(stderr.into())?,
            parent: rustix::process::getpid(),
            failed: AtomicI32::new(0),
        };
        Ok((plan, our_stdin.into(), our_stdout.into(), our_stderr.into()))
    }
}

/// The same descriptor under a number that is not one of the child's three, which would be
/// overwritten: only in a process that was started without them.
fn above_standard(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() > 2 {
        return Ok(descriptor);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?)
}

/// Starts the program in a process group of its own; it dies with the thread that called this.
pub(super) fn spawn(spec: &WorkerSpec, mark: &str) -> io::Result<(Child, Ends)> {
    let (plan, stdin, stdout, stderr) = Plan::of(spec, mark)?;
    let (pid, exit) = clone(&plan)?;
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    let failed = plan.failed.load(Ordering::Acquire);
    if failed != 0 {
        // It is on its way out, and runs nothing of ours any more.
        rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
        return Err(io::Error::from_raw_os_error(failed));
    }
    Ok((Child { pid, reaped: false }, Ends { exit, stdin, stdout, stderr }))
}

#[expect(
    unsafe_code,
    reason = "no safe call starts a process and does something before its program"
)]
fn clone(plan: &Plan) -> io::Result<(c_int, OwnedFd)> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut stack = Vec::<MaybeUninit<u128>>::with_capacity(STACK_BYTES / size_of::<u128>());
    let mut pidfd: c_int = -1;
    let all = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: each set is a plain value, and all that is asked for is to fill or to apply it.
    let (mut all, mut ours) = unsafe { (all.assume_init(), all.assume_init()) };
    // A handler of ours must not run in the child, which would do its work on our memory.
    // SAFETY: as above.
    let blocked = unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut ours)
    };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    // SAFETY: the stack is used downwards from the end of memory that we own and that nobody reads;
    // its end is aligned to 16 bytes. It and the plan outlive the child's use of them: this thread
    // goes on when the child's program runs or the child is dead. `in_child` gets the plan it expects,
    // and the kernel writes the descriptor to a number of ours.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity());
        libc::clone(
            in_child,
            top.cast(),
            flags,
            ptr::from_ref(plan).cast_mut().cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    let error = io::Error::last_os_error();
    // SAFETY: as above.
    let restored =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const ours, ptr::null_mut()) };
    debug_assert_eq!(restored, 0, "a mask that was in force is put back");
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: the kernel has opened it for us, and nobody else knows it.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Runs in the child, on our memory, beside our other threads.
#[expect(unsafe_code, reason = "it is given what C passes on")]
extern "C" fn in_child(plan: *mut c_void) -> c_int {
    // SAFETY: it is the plan that `clone` was given, which lives until we are a program or dead, and
    // whose only field that changes is an atomic.
    let plan = unsafe { &*plan.cast::<Plan>() };
    let error = match prepare(plan) {
        Ok(()) => become_program(plan),
        Err(error) => error.raw_os_error(),
    };
    plan.failed.store(error, Ordering::Release);
    127
}

/// Only system calls: no memory is taken or given back, no lock is taken, nothing panics.
fn prepare(plan: &Plan) -> rustix::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Our parent may have died before the line above; then no signal will ever come.
    if rustix::process::getppid() != Some(plan.parent) {
        return Err(rustix::io::Errno::SRCH);
    }
    rustix::process::setpgid(None, None)?;
    // Gigabytes of core for each crash would fill the disk of an unattended machine.
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::stdio::dup2_stdin(plan.stdin.as_fd())?;
    rustix::stdio::dup2_stdout(plan.stdout.as_fd())?;
    rustix::stdio::dup2_stderr(plan.stderr.as_fd())?;
    rustix::process::chdir(plan.dir.as_c_str())
}

/// Gives the error, if it returns.
#[expect(unsafe_code, reason = "signals are put back, and the program is run, by calls of C")]
fn become_program(plan: &Plan) -> c_int {
    // SAFETY: the child has its own table of signals; all pointers are to values on our stack, or to
    // lists in the plan that end with a null pointer. `sigaction`, `sigprocmask` and `execvpe` are
    // what `posix_spawn` itself calls at this place. They set `errno` of the thread that waits for us,
    // which reads it after calls of its own only.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        for signal in 1..=libc::SIGRTMAX() {
            if libc::sigaction(signal, ptr::null(), &raw mut action) != 0 {
                continue;
            }
            // What was ignored when we were started stays so; the broken pipe we ignore ourselves.
            let is_ours = action.sa_sigaction != libc::SIG_DFL
                && (action.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE);
            if is_ours {
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
        }
        let mut none = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::execvpe(
            plan.program.as_ptr(),
            plan.arguments.pointers.as_ptr(),
            plan.environment.pointers.as_ptr(),
        );
        *libc::__errno_location()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;

    /// What a script says, run as a worker in this folder.
    fn said(dir: &Path, script: &str) -> String {
        let mut spec = WorkerSpec::new("sh", dir, String::new());
        spec.args = vec!["-c".into(), script.into()];
        spec.env = vec![("HOME".into(), "elsewhere".into())];
        output(&spec)
    }

    fn output(spec: &WorkerSpec) -> String {
        let (mut child, ends) = spawn(spec, "mark").unwrap();
        let mut text = String::new();
        std::fs::File::from(ends.stdout).read_to_string(&mut text).unwrap();
        let status = wait(child.reap()).unwrap();
        assert!(status.success(), "{status}: {text}");
        text
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn a_child_has_its_own_group_its_folder_its_variables_and_no_cores() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "cut -d' ' -f5 /proc/self/stat; echo $$; pwd; echo $HOME $WARDEN_WORKER; ulimit -c";
        let text = said(dir.path(), script);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], lines[1], "the group is the shell's");
        let folder = dir.path().canonicalize().unwrap();
        assert_eq!(lines[2..], [folder.to_str().unwrap(), "elsewhere mark", "0"]);
    }

    #[test]
    fn no_signal_is_blocked_and_none_ignored_that_was_not_before_us() {
        let masks = "Sig(Blk|Ign)";
        let dir = tempfile::tempdir().unwrap();
        let text = said(dir.path(), &format!("grep -E '^{masks}' /proc/self/status"));
        let hex = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!(hex(&text, "SigBlk:"), 0);
        let ours = fs_err::read_to_string("/proc/self/status").unwrap();
        let pipe = 1 << (libc::SIGPIPE - 1);
        assert_eq!(hex(&text, "SigIgn:"), hex(&ours, "SigIgn:") & !pipe);
    }

    #[test]
    fn what_is_no_program_is_an_error_and_leaves_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |program: &str| {
            spawn(&WorkerSpec::new(program, dir.path(), String::new()), "mark").unwrap_err().kind()
        };
        assert_eq!(refused("no-such-program"), io::ErrorKind::NotFound);
        assert_eq!(refused("/etc/passwd"), io::ErrorKind::PermissionDenied);
        assert_eq!(refused("a\0b"), io::ErrorKind::InvalidInput);
        let nowhere = WorkerSpec::new("true", dir.path().join("nowhere"), String::new());
        assert_eq!(spawn(&nowhere, "mark").unwrap_err().kind(), io::ErrorKind::NotFound);
        let thread = rustix::thread::gettid().as_raw_pid();
        let children = fs_err::read_to_string(format!("/proc/self/task/{thread}/children"));
        assert_eq!(children.unwrap(), "");
    }

    #[test]
    fn a_script_that_names_no_interpreter_is_one_of_the_shell() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs_err::write(&script, "echo \"$1\"\n").unwrap();
        fs_err::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let mut spec = WorkerSpec::new(&script, dir.path(), String::new());
        spec.args = vec!["one word".into()];
        assert_eq!(output(&spec), "one word\n");
    }

    #[test]
    fn a_child_that_nobody_takes_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = WorkerSpec::new("sleep", dir.path(), String::new());
        spec.args = vec!["1000".into()];
        let (child, _ends) = spawn(&spec, "mark").unwrap();
        let pid = child.pid;
        drop(child);
        let (_, status) =
            rustix::process::waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(libc::SIGKILL));
    }
}
