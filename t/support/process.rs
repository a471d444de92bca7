//! Processes by pid: signals, children, limits, open files, memory mappings.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpStream};
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::{kill_process, Pid, Rlimit};

use super::wait;

pub use rustix::process::{Resource, Signal};

/// Sends a signal. A process that has just gone is no error.
pub fn signal(pid: i32, signal: Signal) {
    let target = Pid::from_raw(pid).expect("a pid is not zero");
    match kill_process(target, signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => panic!("cannot send {signal:?} to {pid}: {error}"),
    }
}

/// Stops a worker as it waits for events, and holds nothing that others wait for.
pub fn stop(pid: i32) {
    wait::until_true("the worker stands still", || {
        signal(pid, Signal::STOP);
        wait::until_true("it has stopped", || is_stopped(pid) || !is_running(pid));
        let waits = waits_for_events(pid);
        if !waits {
            signal(pid, Signal::CONT);
        }
        waits
    });
}

/// Whether a worker waits for events, or did so when it stopped: it has joined the others, and holds nothing. Where nothing
/// tells, it does.
pub fn waits_for_events(pid: i32) -> bool {
    let waits = [
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select,
        libc::SYS_epoll_pwait,
        libc::SYS_ppoll,
        libc::SYS_pselect6,
    ];
    match fs::read_to_string(format!("/proc/{pid}/syscall")) {
        Ok(text) => text
            .split(' ')
            .next()
            .is_none_or(|number| waits.iter().any(|wait| wait.to_string() == number)),
        Err(_) => true,
    }
}

/// Whether the process runs. One that has ended and waits for its parent does not.
pub fn is_running(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != "Z" && stat.state != "X")
}

/// Whether the process has been stopped.
pub fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state == "T")
}

/// Whether the process waits for something at this moment.
pub fn is_waiting(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state == "S")
}

/// The running children of a process, in ascending order.
pub fn children(parent: i32) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| stat(pid).is_some_and(|stat| stat.parent == parent && stat.state != "Z"))
        .collect();
    pids.sort_unstable();
    pids
}

struct Stat {
    state: String,
    parent: i32,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the command is in brackets and may hold spaces and brackets itself.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some(Stat { state: fields.next()?.to_owned(), parent: fields.next()?.parse().ok()? })
}

/// What the process's descriptors are open on, for example `anon_inode:[eventfd]`.
pub fn descriptors(pid: i32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect()
}

/// How many connections the process has to others, also such as the other side has ended.
pub fn connections(pid: i32) -> usize {
    let net = |name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let (unix, tcp, tcp6) = (net("unix"), net("tcp"), net("tcp6"));
    let between = unix.lines().filter_map(|line| line.split_whitespace().nth(6));
    let listening = tcp.lines().chain(tcp6.lines()).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(3) == Some(&"0A")).then(|| columns.get(9).copied()).flatten()
    });
    let others: HashSet<&str> = between.chain(listening).collect();
    let open = descriptors(pid);
    let sockets =
        open.iter().filter_map(|target| target.strip_prefix("socket:[")?.strip_suffix(']'));
    sockets.filter(|number| !others.contains(number)).count()
}

/// What the kernel knows of both ends of a connection over loopback: a line for each that there is, with its state, bytes to
/// send and to read, and timers.
pub fn tcp_ends(socket: &TcpStream) -> io::Result<String> {
    let name = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let (here, there) = (name(socket.local_addr()?), name(socket.peer_addr()?));
    let table = fs::read_to_string("/proc/net/tcp")?;
    let ends = [format!(" {here} {there} "), format!(" {there} {here} ")];
    let is_end = |line: &&str| ends.iter().any(|end| line.contains(end.as_str()));
    Ok(table.lines().filter(is_end).fold(String::new(), |all, line| all + line + "\n"))
}

/// The sizes in bytes of the memory that the process shares with others, in ascending order.
pub fn shared_mappings(pid: i32) -> Vec<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut sizes: Vec<usize> = maps
        .lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|flags| flags.ends_with('s')))
        .filter_map(|line| {
            let (from, to) = line.split_whitespace().next()?.split_once('-')?;
            let from = usize::from_str_radix(from, 16).ok()?;
            Some(usize::from_str_radix(to, 16).ok()? - from)
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

/// Lets this process open at least `wanted` files, if its hard limit allows that.
pub fn allow_open_files(wanted: u64) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current < wanted {
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        assert!(raised >= wanted, "this test opens {wanted} files, the limit is {raised}");
        let limit = Rlimit { current: Some(raised), maximum: limit.maximum };
        rustix::process::setrlimit(Resource::Nofile, limit).expect("below the hard limit");
    }
}

/// Lets a process have so much of a resource and no more, as if it had used up the rest.
pub fn limit(pid: i32, resource: Resource, most: u64) {
    let maximum = rustix::process::getrlimit(resource).maximum;
    set_limit(pid, resource, Rlimit { current: Some(most), maximum });
}

/// Lets a process have as much of a resource as this one.
pub fn lift_limit(pid: i32, resource: Resource) {
    set_limit(pid, resource, rustix::process::getrlimit(resource));
}

fn set_limit(pid: i32, resource: Resource, limit: Rlimit) {
    match rustix::process::prlimit(Pid::from_raw(pid), resource, limit) {
        Ok(_) | Err(Errno::SRCH) => {}
        Err(error) => panic!("cannot limit {resource:?} of {pid}: {error}"),
    }
}

/// The number that a descriptor gets if none below it is free.
pub fn next_descriptor(pid: i32) -> u64 {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    numbers.max().expect("open files") + 1
}

/// The size in bytes of a process's address space; nothing if it has ended.
pub fn address_space(pid: i32) -> Option<u64> {
    figure(pid, "VmSize:")
}

/// Whether a tool that watches memory keeps figures about it from meaning anything.
pub fn is_watched(pid: i32) -> bool {
    maps(pid).contains("libasan") || is_under_valgrind(pid)
}

/// Whether the process runs under valgrind, which keeps the uppermost descriptors for itself and lets nobody change their
/// limit.
pub fn is_under_valgrind(pid: i32) -> bool {
    maps(pid).contains("valgrind")
}

fn maps(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process")
}

/// The memory in bytes that only this process has, without what it shares and what files hold.
pub fn private_memory(pid: i32) -> u64 {
    figure(pid, "RssAnon:").expect("the process runs, on Linux 4.5 or later")
}

fn figure(pid: i32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
