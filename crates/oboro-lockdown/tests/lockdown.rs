//! Processes that lock themselves down and then try what they may not do.
//!
//! A test starts this file's binary again, as a process of its own that plays the part
//! which a variable names, on its only thread; that is why the harness is another one.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use libtest_mimic::{Arguments, Trial};
use nix::errno::Errno;
use oboro_lockdown::{Degree, Extent, Forbidden, Lockdown, LockdownError, Report};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const PART: &str = "OBORO_LOCKDOWN_PART";
const FOLDER: &str = "OBORO_LOCKDOWN_FOLDER";
const PORTS: &str = "OBORO_LOCKDOWN_PORTS";

fn main() {
    if let Ok(part) = std::env::var(PART) {
        return play(&part);
    }
    let tests: &[(&str, fn())] = &[
        ("every_measure_has_its_line", every_measure_has_its_line),
        (
            "fail_measures_that_are_demanded_but_not_complete",
            fail_measures_that_are_demanded_but_not_complete,
        ),
        (
            "fail_folder_to_write_that_does_not_exist",
            fail_folder_to_write_that_does_not_exist,
        ),
        ("fail_files_outside", fail_files_outside),
        ("fail_other_ports", fail_other_ports),
        ("fail_other_programs", fail_other_programs),
        ("fail_core_dump", fail_core_dump),
        ("fail_other_sockets", fail_other_sockets),
        (
            "local_sockets_where_one_is_named",
            local_sockets_where_one_is_named,
        ),
        (
            "fail_namespaces_mounts_and_memory_of_others",
            fail_namespaces_mounts_and_memory_of_others,
        ),
        (
            "fail_memory_written_and_executed",
            fail_memory_written_and_executed,
        ),
        ("fail_being_traced", fail_being_traced),
        (
            "fail_from_threads_started_before_and_after",
            fail_from_threads_started_before_and_after,
        ),
        ("a_server_still_works", a_server_still_works),
        (
            "fail_other_programs_end_the_process_where_asked",
            fail_other_programs_end_the_process_where_asked,
        ),
    ];
    let trials = tests
        .iter()
        .map(|&(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Whether this kernel has Landlock and seccomp; a skipped test says so, and fails in
/// continuous integration.
fn offered() -> bool {
    let output = run("report", tempfile::tempdir().unwrap(), &[]);
    let complete = String::from_utf8_lossy(&output.stdout).contains("COMPLETE");
    assert!(
        complete || std::env::var("CI").as_deref() != Ok("true"),
        "this kernel does not offer every measure: {output:?}"
    );
    if !complete {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: this kernel does not offer every measure"
        );
    }
    complete
}

fn command(part: &str, folder: impl AsRef<Path>, ports: &[u16]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    command
        .env(PART, part)
        .env(FOLDER, folder.as_ref())
        .env(PORTS, ports.join(","))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    command
}

fn run(part: &str, folder: impl AsRef<Path>, ports: &[u16]) -> Output {
    command(part, folder, ports).output().unwrap()
}

/// Runs a part that must succeed.
fn passes(part: &str) {
    passes_with(part, &[]);
}

fn passes_with(part: &str, ports: &[u16]) {
    if !offered() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("read")).unwrap();
    fs::create_dir(folder.path().join("write")).unwrap();
    fs::write(folder.path().join("read/file"), "content").unwrap();
    fs::write(folder.path().join("secret"), "content").unwrap();
    let output = run(part, &folder, ports);
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn play(part: &str) {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let ports: Vec<u16> = std::env::var(PORTS)
        .unwrap()
        .split(',')
        .filter_map(|port| port.parse().ok())
        .collect();
    match part {
        "report" => report(),
        "files" => files(&folder),
        "ports" => listening_and_connecting(&ports),
        "programs" => programs(&folder),
        "dumps" => dumps(&folder),
        "sockets" => sockets(&folder),
        "local" => local_sockets(&folder),
        "tracing" => tracing(&folder),
        "namespaces" => namespaces(&folder),
        "executable" => executable_memory(&folder),
        "demanded" => demanded(&folder),
        "threads" => threads(&folder),
        "server" => server(&folder),
        "killed" => killed(&folder),
        "crash" => crash(&folder),
        "wait" => wait(&folder),
        "tracer" => tracer(&folder),
        other => panic!("there is no part '{other}'"),
    }
}

/// Locked down as a server: one folder to read, one to write.
fn lock(folder: &Path) -> Report {
    lockdown(folder).apply(Degree::BestEffort).unwrap()
}

fn lockdown(folder: &Path) -> Lockdown {
    Lockdown::new()
        .read([folder.join("read"), "/proc".into(), "/etc/hosts".into()])
        .write([folder.join("write")])
}

fn refused<T>(result: std::io::Result<T>) {
    match result {
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
        Ok(_) => panic!("it was allowed"),
    }
}

fn report() {
    let report = Lockdown::new().apply(Degree::BestEffort).unwrap();
    println!("{report}");
    if report
        .measures
        .iter()
        .all(|measure| measure.degree == Extent::Full || measure.name == "memory not swapped")
    {
        println!("COMPLETE");
    }
}

fn every_measure_has_its_line() {
    if !offered() {
        return;
    }
    let output = run("report", tempfile::tempdir().unwrap(), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "no core dumps: yes",
        "not dumpable, not traceable by its user: yes",
        "memory not swapped: ",
        "no new privileges: yes",
        "other files and TCP ports closed: yes (Landlock ABI ",
        "other system calls closed: yes (seccomp, all threads: ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

fn fail_measures_that_are_demanded_but_not_complete() {
    passes("demanded");
}

fn demanded(folder: &Path) {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let earlier = std::thread::spawn(move || wait.recv());
    let result = lockdown(folder).apply(Degree::Require);
    match result {
        Err(LockdownError::Incomplete(report)) => {
            assert!(!report.is_complete());
            let text = LockdownError::Incomplete(report).to_string();
            assert!(text.contains("1 thread was running"), "{text}");
        }
        // From kernel 7.0 on the other thread is restricted, too.
        other => assert!(other.unwrap().is_complete()),
    }
    drop(stop);
    assert!(earlier.join().unwrap().is_err());
}

fn fail_folder_to_write_that_does_not_exist() {
    let path = "/oboro-no-such-folder";
    assert_eq!(
        Lockdown::new().write([path]).apply(Degree::BestEffort),
        Err(LockdownError::Missing(path.to_owned()))
    );
}

fn fail_files_outside() {
    passes("files");
}

fn files(folder: &Path) {
    let at = |path: &str| folder.join(path);
    std::os::unix::fs::symlink(at("secret"), at("write/link")).unwrap();
    lock(folder);
    assert_eq!(fs::read_to_string(at("read/file")).unwrap(), "content");
    refused(fs::read(at("secret")));
    refused(fs::read("/etc/passwd"));
    refused(fs::read_dir("/"));
    // Nor by a link, nor out of the folder it lies in.
    refused(fs::read(at("write/link")));
    refused(fs::read(at("write/../secret")));
    refused(fs::write(at("read/file"), "other"));
    refused(fs::write(at("read/new"), "other"));
    refused(fs::write(at("new"), "other"));
    refused(fs::remove_file(at("secret")));
    fs::create_dir(at("write/below")).unwrap();
    fs::write(at("write/below/new"), "other").unwrap();
    fs::rename(at("write/below/new"), at("write/renamed")).unwrap();
    assert_eq!(fs::read_to_string(at("write/renamed")).unwrap(), "other");
    refused(fs::rename(at("write/renamed"), at("renamed")));
    refused(fs::rename(at("secret"), at("write/secret")));
    refused(std::os::unix::fs::symlink("/", at("write/root")));
    fs::remove_file(at("write/renamed")).unwrap();
    fs::remove_dir(at("write/below")).unwrap();
    // Another time gives up more, never less.
    let _ = Lockdown::new().read(["/"]).apply(Degree::BestEffort);
    refused(fs::read(at("secret")));
}

fn fail_other_ports() {
    let listeners: Vec<TcpListener> = (0..2)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    let ports: Vec<u16> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect();
    passes_with("ports", &ports);
}

fn listening_and_connecting(ports: &[u16]) {
    let [allowed, other] = ports else {
        panic!("two ports are needed");
    };
    let local = Ipv4Addr::LOCALHOST;
    Lockdown::new()
        .bind([0])
        .connect([*allowed])
        .apply(Degree::BestEffort)
        .unwrap();
    TcpStream::connect((local, *allowed)).unwrap();
    refused(TcpStream::connect((local, *other)));
    refused(TcpListener::bind((local, *other)));
    TcpListener::bind((local, 0)).unwrap();
}

fn fail_other_programs() {
    passes("programs");
}

fn programs(folder: &Path) {
    lockdown(folder)
        .read(["/bin", "/usr", "/lib", "/lib64"])
        .apply(Degree::BestEffort)
        .unwrap();
    refused(Command::new("/bin/true").spawn());
    // In its own place, too.
    refused::<()>(Err(Command::new("/bin/true").exec()));
}

fn fail_core_dump() {
    passes("dumps");
    if !offered() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("write")).unwrap();
    let status = run("crash", &folder, &[]).status;
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
}

fn dumps(folder: &Path) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    lock(folder);
    assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    // Not even for an administrator.
    refused(setrlimit(Resource::Core, unlimited).map_err(Into::into));
    refused(
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
            .map_err(Into::into),
    );
}

fn crash(folder: &Path) {
    lock(folder);
    std::process::abort();
}

fn fail_other_sockets() {
    passes("sockets");
}

fn sockets(folder: &Path) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket, socketpair};
    // A service of this user's that would do for the process what it may not do itself.
    let service = folder.join("service");
    let _listener = std::os::unix::net::UnixListener::bind(&service).unwrap();
    std::os::unix::net::UnixStream::connect(&service).unwrap();
    lock(folder);
    refused(std::os::unix::net::UnixStream::connect(&service));
    refused(std::os::unix::net::UnixDatagram::unbound());
    // Datagrams of a pair can be sent elsewhere.
    for kind in [SocketType::DGRAM, SocketType::SEQPACKET] {
        let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        refused(pair.map_err(Into::into));
    }
    std::os::unix::net::UnixStream::pair().unwrap();
    for family in [
        AddressFamily::NETLINK,
        AddressFamily::PACKET,
        AddressFamily::VSOCK,
        AddressFamily::BLUETOOTH,
    ] {
        refused(socket(family, SocketType::RAW, None).map_err(Into::into));
    }
    socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
}

fn local_sockets_where_one_is_named() {
    passes("local");
}

fn local_sockets(folder: &Path) {
    let service = folder.join("service");
    let _listener = std::os::unix::net::UnixListener::bind(&service).unwrap();
    lockdown(folder)
        .write([&service])
        .apply(Degree::BestEffort)
        .unwrap();
    std::os::unix::net::UnixStream::connect(&service).unwrap();
}

fn fail_namespaces_mounts_and_memory_of_others() {
    passes("namespaces");
}

fn namespaces(folder: &Path) {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    let parent = nix::unistd::getppid();
    lock(folder);
    for flags in [CloneFlags::CLONE_NEWUSER, CloneFlags::CLONE_NEWNS] {
        assert_eq!(unshare(flags), Err(Errno::EPERM));
    }
    let none = None::<&str>;
    assert_eq!(
        mount(Some("none"), "/tmp", Some("tmpfs"), MsFlags::empty(), none),
        Err(Errno::EPERM)
    );
    let mut bytes = [0; 8];
    let mut local = [std::io::IoSliceMut::new(&mut bytes)];
    let remote = [RemoteIoVec {
        base: 0x1000,
        len: 8,
    }];
    assert_eq!(
        process_vm_readv(parent, &mut local, &remote),
        Err(Errno::EPERM)
    );
    assert_eq!(nix::sys::ptrace::traceme(), Err(Errno::EPERM));
    assert_eq!(
        nix::sys::signal::kill(parent, nix::sys::signal::Signal::SIGCONT),
        Err(Errno::EPERM)
    );
    refused(std::os::unix::fs::chroot("/"));
}

fn fail_memory_written_and_executed() {
    passes("executable");
}

fn executable_memory(folder: &Path) {
    use region::Protection;
    region::alloc(1, Protection::READ_WRITE_EXECUTE).unwrap();
    lock(folder);
    assert!(region::alloc(1, Protection::READ_WRITE_EXECUTE).is_err());
    region::alloc(1, Protection::READ_WRITE).unwrap();
}

/// By another program of the same user. Both run as `nobody` where the test runs as
/// `root`, who may trace anything.
fn fail_being_traced() {
    passes("tracing");
}

fn tracing(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // The part of both is played by a copy that `nobody` can start.
    let binary = folder.join("binary");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for path in [&binary, folder, &folder.join("write"), &folder.join("read")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut tracer = Command::new(binary);
    tracer.env(PART, "tracer").stdin(Stdio::null());
    if nix::unistd::Uid::effective().is_root() {
        tracer.uid(65_534).gid(65_534);
    }
    let output = tracer.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn tracer(folder: &Path) {
    for (part, expected) in [("wait", Err(Errno::EPERM)), ("wait open", Ok(()))] {
        let (part, open) = part
            .split_once(' ')
            .map_or((part, false), |(part, _)| (part, true));
        let mut target = command(part, folder, &[if open { 1 } else { 0 }])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut byte = [0];
        while !said.ends_with("READY")
            && target.stdout.as_mut().unwrap().read(&mut byte).unwrap() > 0
        {
            said.push(byte[0].into());
        }
        let pid = nix::unistd::Pid::from_raw(target.id().try_into().unwrap());
        assert_eq!(nix::sys::ptrace::attach(pid), expected, "{part}, {open}");
        assert_eq!(
            fs::File::open(format!("/proc/{pid}/mem")).is_ok(),
            expected.is_ok()
        );
        target.kill().unwrap();
        target.wait().unwrap();
    }
}

/// Waits to be traced; locked down unless the port is 1.
fn wait(folder: &Path) {
    if std::env::var(PORTS).unwrap() == "0" {
        lock(folder);
    }
    print!("READY");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

fn fail_from_threads_started_before_and_after() {
    passes("threads");
}

fn threads(folder: &Path) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let secret = folder.join("secret");
    let earlier = std::thread::spawn(move || {
        wait.recv().unwrap();
        (Command::new("/bin/true").spawn(), fs::read(secret))
    });
    let report = lock(folder);
    go.send(()).unwrap();
    let (program, file) = earlier.join().unwrap();
    refused(program);
    let files = &report.measures[4];
    // Kernels before 7.0 restrict files for this thread and later ones only, and then it
    // is said.
    match files.degree {
        Extent::Partly => assert!(files.detail.contains("1 thread was running"), "{files}"),
        _ => refused(file),
    }
    let secret = folder.join("secret");
    let later = std::thread::spawn(|| (Command::new("/bin/true").spawn(), fs::read(secret)));
    let (program, file) = later.join().unwrap();
    refused(program);
    refused(file);
}

fn a_server_still_works() {
    passes("server");
}

fn server(folder: &Path) {
    lockdown(folder)
        .bind([0])
        .apply(Degree::BestEffort)
        .unwrap();
    // What connects comes from the same process here, so the port cannot be known before;
    // the other side is a socket of the machine.
    let write = folder.join("write");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        assert!(listener.local_addr().unwrap().port() > 0);
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        drop((ours, theirs));
        let mut hangup =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
        tokio::time::timeout(Duration::from_millis(5), hangup.recv())
            .await
            .unwrap_err();
        let accepted = tokio::time::timeout(Duration::from_millis(5), listener.accept()).await;
        assert!(accepted.is_err());
        tokio::fs::write(write.join("from-tokio"), "content")
            .await
            .unwrap();
        let names = tokio::net::lookup_host("localhost:80").await.unwrap();
        assert!(names.count() > 0);
        tokio::task::spawn_blocking(move || atomic_write(&write))
            .await
            .unwrap();
    });
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(4)
        .build()
        .unwrap();
    let sum: u64 = pool.install(|| {
        use rayon::prelude::*;
        (0..1_000_000_u64).into_par_iter().sum()
    });
    assert_eq!(sum, 499_999_500_000);
    let mut random = [0; 32];
    getrandom::fill(&mut random).unwrap();
    assert_ne!(random, [0; 32]);
    assert!(
        fs::read_to_string("/proc/self/status")
            .unwrap()
            .contains("VmRSS")
    );
    assert!(std::thread::available_parallelism().is_ok());
    // A panic unwinds and prints as ever.
    assert!(std::thread::spawn(|| panic!("meant")).join().is_err());
}

/// As states are written: a temporary file, flushed, renamed; and read at a position.
fn atomic_write(folder: &Path) {
    use std::os::unix::fs::FileExt;
    let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    file.as_file().sync_all().unwrap();
    file.persist(folder.join("state")).unwrap();
    fs::File::open(folder).unwrap().sync_all().unwrap();
    let mut bytes = [0; 16];
    let state = fs::File::open(folder.join("state")).unwrap();
    state.read_exact_at(&mut bytes, 50_000).unwrap();
    assert_eq!(bytes, [7; 16]);
}

fn fail_other_programs_end_the_process_where_asked() {
    if !offered() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("write")).unwrap();
    let output = run("killed", &folder, &[]);
    assert_eq!(output.status.signal(), Some(31), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("still here"));
}

fn killed(folder: &Path) {
    let lockdown = lockdown(folder).forbidden(Forbidden::Kills);
    lockdown.apply(Degree::BestEffort).unwrap();
    // Not on the list, but no sign of an attack.
    assert!(
        rustix::net::socket(
            rustix::net::AddressFamily::NETLINK,
            rustix::net::SocketType::RAW,
            None
        )
        .is_err()
    );
    println!("still here");
    std::io::stdout().flush().unwrap();
    let _ = nix::sys::ptrace::traceme();
}
