//! Thin wrappers over the system calls the tool needs.

use std::ffi::c_void;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Deref;

/// A file descriptor; -1 is none.
pub type Fd = i32;

/// There is something to read, or the other side is gone.
pub const EPOLLIN: u32 = libc::EPOLLIN as u32;
/// There is room to write, or a connect has ended.
pub const EPOLLOUT: u32 = libc::EPOLLOUT as u32;
/// Linux: bind to an address now and to a port at connect time (libc does not export it for every target).
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;

/// Turns the kernel's -1 into the error that `errno` names.
fn check(ret: i32) -> io::Result<i32> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// A clock's time in nanoseconds.
fn clock(id: i32) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a live timespec; the callers pass clocks that every Linux has.
    unsafe { libc::clock_gettime(id, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// CLOCK_MONOTONIC in nanoseconds: the same clock in every process.
#[inline]
pub fn now_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, in nanoseconds.
pub fn realtime_offset_ns() -> u64 {
    let a = now_ns();
    let r = clock(libc::CLOCK_REALTIME);
    let b = now_ns();
    r - (a + b) / 2
}

/// CPU time of this process in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Sleeps for nanoseconds (less if a signal comes).
pub fn sleep_ns(ns: u64) {
    let t = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    // SAFETY: `t` is a live timespec, and a null pointer says that nobody wants the rest.
    unsafe { libc::nanosleep(&t, std::ptr::null_mut()) };
}

/// Sleeps for milliseconds.
pub fn sleep_ms(ms: u64) {
    sleep_ns(ms * 1_000_000)
}

/// Wakes from sleeps with microsecond instead of 50 µs slack.
pub fn fine_timers() {
    // SAFETY: this option takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000, 0, 0, 0) };
}

/// Raises the soft fd limit to the hard one and returns it.
pub fn raise_nofile() -> u64 {
    let mut r = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: all three calls get a live rlimit.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut r);
        r.rlim_cur = r.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &r);
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut r);
    }
    r.rlim_cur
}

/// Keeps this process on one CPU. Fails if there is no such CPU.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: a cpu_set_t is a bit mask, so zeros are a value of it; the bit lies in it (checked above), and the
    // size passed is its size.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(0, size_of_val(&set), &set)).map(|_| ())
    }
}

/// An epoll instance. It lives as long as its process.
pub struct Epoll(Fd);

/// Room for the events of one wait.
pub type Events = Vec<libc::epoll_event>;

/// Room for `n` events.
pub fn events(n: usize) -> Events {
    vec![libc::epoll_event { events: 0, u64: 0 }; n]
}

impl Epoll {
    /// A new, empty one.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: takes a number only.
        check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Epoll)
    }

    fn ctl(&self, op: i32, fd: Fd, events: u32, data: u64) -> io::Result<()> {
        let mut e = libc::epoll_event { events, u64: data };
        // SAFETY: `e` lives through the call; the kernel checks both descriptors.
        check(unsafe { libc::epoll_ctl(self.0, op, fd, &mut e) }).map(|_| ())
    }

    /// Watches `fd`; its events come with `data`.
    pub fn add(&self, fd: Fd, events: u32, data: u64) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_ADD, fd, events, data)
    }

    /// Watches `fd` for other events.
    pub fn modify(&self, fd: Fd, events: u32, data: u64) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_MOD, fd, events, data)
    }

    /// Does not watch `fd` any more.
    pub fn remove(&self, fd: Fd) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits up to `timeout` nanoseconds; an interrupted wait returns 0 events.
    pub fn wait(&self, events: &mut Events, timeout: u64) -> io::Result<usize> {
        let t = libc::timespec {
            tv_sec: (timeout / 1_000_000_000) as i64,
            tv_nsec: (timeout % 1_000_000_000) as i64,
        };
        // SAFETY: the pointer and the length describe `events`, which is ours to write; `t` lives through the call.
        let n = unsafe {
            libc::epoll_pwait2(
                self.0,
                events.as_mut_ptr(),
                events.len() as i32,
                &t,
                std::ptr::null(),
            )
        };
        if n < 0 {
            let e = io::Error::last_os_error();
            if e.kind() == io::ErrorKind::Interrupted {
                return Ok(0);
            }
            return Err(e);
        }
        Ok(n as usize)
    }
}

fn sockaddr(a: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: the structure consists of numbers, so zeros are a value of it.
    let mut s: libc::sockaddr_in = unsafe { mem::zeroed() };
    s.sin_family = libc::AF_INET as u16;
    s.sin_port = a.port().to_be();
    s.sin_addr.s_addr = u32::from_ne_bytes(a.ip().octets());
    s
}

/// Sets a socket option whose value is the plain number or C structure `v`.
fn set_opt<T>(fd: Fd, level: i32, name: i32, v: &T) -> io::Result<()> {
    let len = size_of::<T>() as u32;
    // SAFETY: the pointer and the length describe `v`; the kernel reads no more than that.
    check(unsafe { libc::setsockopt(fd, level, name, (v as *const T).cast(), len) }).map(|_| ())
}

fn tcp_socket() -> io::Result<Fd> {
    // SAFETY: takes numbers only.
    check(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    })
}

/// Starts a non-blocking connect, from `src` if given (port chosen at connect time).
pub fn tcp_connect(src: Option<Ipv4Addr>, dst: SocketAddrV4) -> io::Result<Fd> {
    let fd = tcp_socket()?;
    let r = (|| {
        set_opt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32)?;
        if let Some(ip) = src {
            set_opt(fd, libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &1i32)?;
            let a = sockaddr(SocketAddrV4::new(ip, 0));
            // SAFETY: `a` is a live sockaddr_in, which is 16 bytes long.
            check(unsafe { libc::bind(fd, (&a as *const libc::sockaddr_in).cast(), 16) })?;
        }
        let a = sockaddr(dst);
        // SAFETY: `a` is a live sockaddr_in, which is 16 bytes long.
        match check(unsafe { libc::connect(fd, (&a as *const libc::sockaddr_in).cast(), 16) }) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
            _ => Ok(()),
        }
    })();
    match r {
        Ok(()) => Ok(fd),
        Err(e) => {
            close(fd);
            Err(e)
        }
    }
}

/// The error that a socket has come to, for instance of a connect in the background.
pub fn socket_error(fd: Fd) -> io::Result<()> {
    let (mut e, mut len) = (0i32, 4u32);
    // SAFETY: `e` has the 4 bytes that `len` says.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&mut e as *mut i32).cast(),
            &mut len,
        )
    })?;
    if e == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(e))
    }
}

/// Listens on a loopback port the kernel picks; returns the socket and the port.
pub fn tcp_listen(backlog: i32) -> io::Result<(Fd, u16)> {
    let fd = tcp_socket()?;
    let mut a = sockaddr(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let p: *mut libc::sockaddr_in = &mut a;
    let mut len = 16u32;
    // SAFETY: `p` points to `a`, which lives to the end of the function and has the 16 bytes that `len` says.
    check(unsafe { libc::bind(fd, p.cast(), len) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::listen(fd, backlog) })?;
    // SAFETY: as for bind; the kernel writes at most `len` bytes.
    check(unsafe { libc::getsockname(fd, p.cast(), &mut len) })?;
    Ok((fd, u16::from_be(a.sin_port)))
}

/// Accepts a connection, non-blocking.
pub fn accept(fd: Fd) -> io::Result<Fd> {
    let null = std::ptr::null_mut::<libc::sockaddr>();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null pointers say that nobody wants the address.
    check(unsafe { libc::accept4(fd, null, null.cast(), flags) })
}

/// Sends small segments at once, if the socket can do that.
pub fn set_nodelay(fd: Fd) {
    let _ = set_opt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32);
}

/// A pair of connected Unix sockets that keep record boundaries (blocking).
pub fn seqpacket_pair(bufsize: i32) -> io::Result<(Fd, Fd)> {
    let mut fds = [0i32; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    for fd in fds {
        let _ = set_opt(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bufsize);
    }
    Ok((fds[0], fds[1]))
}

/// Reads what is there; 0 is the end of the stream.
#[inline]
pub fn recv(fd: Fd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `buf`, which is ours to write.
    let n = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

/// Asks for the arrival time of received data (software timestamps by the kernel).
pub fn enable_rx_timestamps(fd: Fd) -> io::Result<()> {
    let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
    set_opt(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &flags)
}

/// Like `recv`, with the CLOCK_REALTIME arrival time of the last byte if the kernel gave one.
pub fn recv_stamped(fd: Fd, buf: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
    #[repr(align(8))]
    struct Control([u8; 128]);
    let mut control = Control([0; 128]);
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: a msghdr of zeros is an empty one; the pointers and lengths put into it describe `iov`, `buf` and
    // `control`, which outlive the call. The CMSG functions stay within `msg_control` as the kernel filled it, and a
    // message of this type begins with a timespec (read unaligned: the kernel promises no more).
    unsafe {
        let mut m: libc::msghdr = mem::zeroed();
        m.msg_iov = &mut iov;
        m.msg_iovlen = 1;
        m.msg_control = control.0.as_mut_ptr().cast();
        m.msg_controllen = control.0.len();
        let n = libc::recvmsg(fd, &mut m, 0);
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut c = libc::CMSG_FIRSTHDR(&m);
        let mut at = None;
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_TIMESTAMPING {
                let t: libc::timespec = std::ptr::read_unaligned(libc::CMSG_DATA(c).cast());
                if t.tv_sec != 0 {
                    at = Some(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64);
                }
            }
            c = libc::CMSG_NXTHDR(&m, c);
        }
        Ok((n as usize, at))
    }
}

/// Writes what the socket takes; a broken connection is an error and no signal.
#[inline]
pub fn send(fd: Fd, buf: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `buf`.
    let n = unsafe { libc::send(fd, buf.as_ptr().cast(), buf.len(), libc::MSG_NOSIGNAL) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

/// The socket has nothing to read, no room to write, or is not connected yet.
pub fn would_block(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EAGAIN) | Some(libc::ENOTCONN))
}

/// Closes a descriptor; the caller must not use it again.
pub fn close(fd: Fd) {
    // SAFETY: takes a number only. No owner of a descriptor in this program closes by itself, so none is closed twice.
    unsafe { libc::close(fd) };
}

/// Closes with a reset, so that no TIME_WAIT entry is left.
pub fn close_reset(fd: Fd) {
    let l = libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = set_opt(fd, libc::SOL_SOCKET, libc::SO_LINGER, &l);
    close(fd);
}

/// Anonymous memory shared with all processes forked later. `T` must be valid when all zero.
pub struct Shared<T: 'static>(&'static [T]);

impl<T: 'static> Shared<T> {
    /// # Safety
    /// `T` must be made of atomics only (valid when zero, sound to share between processes).
    pub unsafe fn zeroed(n: usize) -> io::Result<Shared<T>> {
        let len = (n * size_of::<T>()).max(1);
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that is there.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is page-aligned, holds `n` of `T`, is all zero (valid by the caller's promise), and
        // is never unmapped.
        Ok(Shared(unsafe { std::slice::from_raw_parts(p as *const c_void as *const T, n) }))
    }

    /// The mapping lives until the process ends.
    pub fn slice(&self) -> &'static [T] {
        self.0
    }
}

impl<T: 'static> Deref for Shared<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.0
    }
}

/// Forks a child that runs `f` and exits with its result; it dies with its parent.
pub fn fork(f: impl FnOnce() -> i32) -> io::Result<i32> {
    let parent = pid();
    // SAFETY: this program has one thread, so the child finds no lock held by a thread that is not there.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        // SAFETY: these calls take numbers only.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            if libc::getppid() != parent {
                libc::_exit(1);
            }
        }
        let code = f();
        // SAFETY: does not return; what the child inherited needs no destructor.
        unsafe { libc::_exit(code) };
    }
    Ok(pid)
}

/// Reaps a child: None while it runs, else its exit code (128 + signal if killed).
pub fn try_wait(pid: i32) -> Option<i32> {
    let mut st = 0;
    // SAFETY: `st` lives through the call.
    let r = unsafe { libc::waitpid(pid, &mut st, libc::WNOHANG) };
    if r == 0 {
        return None;
    }
    if r < 0 {
        return Some(0); // reaped before
    }
    Some(if libc::WIFEXITED(st) { libc::WEXITSTATUS(st) } else { 128 + libc::WTERMSIG(st) })
}

/// Kills a child of ours.
pub fn kill(pid: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// This process.
pub fn pid() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getpid() }
}
