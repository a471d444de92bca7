//! Readings from /proc: CPU, memory, kernel objects.

use std::collections::HashMap;
use std::fs;

/// CPU time of a set of processes.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu {
    /// On-CPU time of all threads from schedstat, in nanoseconds (exact).
    pub ns: u64,
    /// utime and stime from stat, in nanoseconds (10 ms steps).
    pub user_ns: u64,
    pub sys_ns: u64,
}

impl Cpu {
    /// What was used after `before` was read.
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            ns: self.ns.saturating_sub(before.ns),
            user_ns: self.user_ns.saturating_sub(before.user_ns),
            sys_ns: self.sys_ns.saturating_sub(before.sys_ns),
        }
    }

    /// User and system time together.
    pub fn tick_ns(self) -> u64 {
        self.user_ns + self.sys_ns
    }
}

fn number(s: Option<&str>) -> u64 {
    s.and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// Fields of /proc/PID/stat after the command name: (comm, fields from "state" on).
fn stat(pid: i32) -> Option<(String, Vec<String>)> {
    let s = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&s)
}

fn parse_stat(s: &str) -> Option<(String, Vec<String>)> {
    let (open, close) = (s.find('(')?, s.rfind(')')?);
    let fields = s[close + 1..].split_whitespace().map(String::from).collect();
    Some((s[open + 1..close].to_string(), fields))
}

/// The process is there, and not a zombie.
pub fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(_, f)| f.first().is_some_and(|s| s != "Z"))
}

/// A process's name, 15 bytes at most.
pub fn name(pid: i32) -> String {
    stat(pid).map(|s| s.0).unwrap_or_default()
}

fn all_pids() -> Vec<i32> {
    let Ok(dir) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// `master` and all its descendants.
pub fn tree(master: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = all_pids()
        .into_iter()
        .filter_map(|p| Some((p, stat(p)?.1.get(1)?.parse().ok()?)))
        .collect();
    let mut out = vec![master];
    let mut i = 0;
    while i < out.len() {
        let parent = out[i];
        out.extend(parents.iter().filter(|p| p.1 == parent).map(|p| p.0));
        i += 1;
    }
    out
}

fn sched_ns(path: &str) -> u64 {
    number(fs::read_to_string(path).ok().as_deref().and_then(|s| s.split_whitespace().next()))
}

/// CPU time of one process, all threads; zero if it is gone.
pub fn cpu_of(pid: i32) -> Cpu {
    let mut c = Cpu::default();
    if let Some((_, f)) = stat(pid) {
        c.user_ns = number(f.get(11).map(|s| s.as_str())) * tick_ns();
        c.sys_ns = number(f.get(12).map(|s| s.as_str())) * tick_ns();
    }
    if let Ok(dir) = fs::read_dir(format!("/proc/{pid}/task")) {
        for t in dir.flatten() {
            c.ns += sched_ns(&format!("{}/schedstat", t.path().display()));
        }
    }
    c
}

/// CPU time of several processes together.
pub fn cpu(pids: &[i32]) -> Cpu {
    pids.iter().map(|&p| cpu_of(p)).fold(Cpu::default(), |a, b| Cpu {
        ns: a.ns + b.ns,
        user_ns: a.user_ns + b.user_ns,
        sys_ns: a.sys_ns + b.sys_ns,
    })
}

/// CPU time of everything on the machine, to see who else was running.
pub struct Everyone(HashMap<i32, (u64, String)>);

impl Everyone {
    /// Reads all processes there are.
    pub fn read() -> Everyone {
        Everyone(all_pids().into_iter().map(|p| (p, (cpu_of(p).ns, name(p)))).collect())
    }

    /// Time used since `before` by processes not in `ours`: by ksoftirqd, and the largest users.
    /// Processes that came and went in between are not seen.
    pub fn others_since(&self, before: &Everyone, ours: &[i32]) -> (u64, Vec<(String, u64)>) {
        let mut by_name: HashMap<&str, u64> = HashMap::new();
        for (pid, (ns, name)) in &self.0 {
            if !ours.contains(pid) {
                let d = ns.saturating_sub(before.0.get(pid).map_or(0, |b| b.0));
                if d > 0 {
                    *by_name.entry(name).or_default() += d;
                }
            }
        }
        let softirq = by_name.iter().filter(|x| x.0.starts_with("ksoftirqd")).map(|x| x.1).sum();
        let mut v: Vec<_> = by_name.into_iter().map(|(n, t)| (n.to_string(), t)).collect();
        v.sort_by_key(|x| std::cmp::Reverse(x.1));
        v.truncate(3);
        (softirq, v)
    }
}

/// (busy, steal, all) of all CPUs together, in nanoseconds of CPU time.
pub fn machine_cpu() -> (u64, u64, u64) {
    let s = fs::read_to_string("/proc/stat").unwrap_or_default();
    let f: Vec<u64> = s
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(1)
        .map(|x| x.parse().unwrap_or(0))
        .collect();
    if f.len() < 8 {
        return (0, 0, 0);
    }
    let all: u64 = f[..8].iter().sum();
    let t = tick_ns();
    ((all - f[3] - f[4]) * t, f[7] * t, all * t)
}

/// Nanoseconds of a clock tick.
fn tick_ns() -> u64 {
    // SAFETY: takes a number only.
    1_000_000_000 / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64
}

/// Memory of a set of processes in bytes.
#[derive(Clone, Default, Debug)]
pub struct Mem {
    pub rss: u64,
    pub pss: u64,
    pub pss_anon: u64,
    pub pss_shmem: u64,
    pub pss_file: u64,
    pub fds: u64,
    /// Open files of each process, in the order of the pids.
    pub fds_each: Vec<u64>,
}

/// Lines "Key:   123 kB" as bytes.
fn kb_lines(text: &str) -> HashMap<&str, u64> {
    text.lines()
        .filter_map(|l| {
            let (k, v) = l.split_once(':')?;
            let n: u64 = v.split_whitespace().next()?.parse().ok()?;
            Some((k, n * 1024))
        })
        .collect()
}

/// Sums over processes (`/proc/PID/smaps_rollup`).
pub fn memory(pids: &[i32]) -> Mem {
    let mut m = Mem::default();
    for &p in pids {
        let Ok(text) = fs::read_to_string(format!("/proc/{p}/smaps_rollup")) else {
            continue;
        };
        let v = kb_lines(&text);
        let get = |k: &str| v.get(k).copied().unwrap_or(0);
        m.rss += get("Rss");
        m.pss += get("Pss");
        m.pss_anon += get("Pss_Anon");
        m.pss_shmem += get("Pss_Shmem");
        m.pss_file += get("Pss_File");
        let fds = fs::read_dir(format!("/proc/{p}/fd")).map_or(0, |d| d.count() as u64);
        m.fds += fds;
        m.fds_each.push(fds);
    }
    m
}

/// Kernel-side memory, machine-wide.
#[derive(Clone, Default, Debug)]
pub struct Kernel {
    pub slab: u64,
    pub slab_unreclaimable: u64,
    pub available: u64,
    pub page_tables: u64,
    pub tcp_inuse: u64,
    pub tcp_alloc: u64,
    pub tcp_mem: u64,
    /// Bytes per slab cache (root only).
    pub slabs: HashMap<String, u64>,
}

/// Reads `/proc/meminfo`, `sockstat` and `slabinfo`.
pub fn kernel() -> Kernel {
    let mut k = Kernel::default();
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let v = kb_lines(&text);
    let get = |n: &str| v.get(n).copied().unwrap_or(0);
    k.slab = get("Slab");
    k.slab_unreclaimable = get("SUnreclaim");
    k.available = get("MemAvailable");
    k.page_tables = get("PageTables");
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    if let Some(l) = text.lines().find_map(|l| l.strip_prefix("TCP:")) {
        let w: Vec<&str> = l.split_whitespace().collect();
        let after =
            |n: &str| number(w.iter().position(|x| *x == n).and_then(|i| w.get(i + 1)).copied());
        // SAFETY: takes a number only.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
        k.tcp_inuse = after("inuse");
        k.tcp_alloc = after("alloc");
        k.tcp_mem = after("mem") * page;
    }
    let text = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    for l in text.lines().skip(2) {
        let w: Vec<&str> = l.split_whitespace().collect();
        if w.len() > 4 {
            k.slabs.insert(w[0].to_string(), number(Some(w[2])) * number(Some(w[3])));
        }
    }
    k
}

/// Slab caches that hold sockets and what belongs to them. (Their dentries share a cache with all
/// other files, so they are left out: 192 bytes per socket.)
const SOCKET_CACHES: &[&str] = &[
    "TCP",
    "sock_inode_cache",
    "filp",
    "lsm_file_cache",
    "eventpoll_epi",
    "eventpoll_pwq",
    "ep_head",
    "request_sock_TCP",
    "tcp_bind_bucket",
    "tcp_bind2_bucket",
    "skbuff_head_cache",
    "skbuff_small_head",
    "skbuff_fclone_cache",
];

impl Kernel {
    /// Bytes in caches that hold sockets.
    pub fn sockets(&self) -> u64 {
        SOCKET_CACHES.iter().filter_map(|n| self.slabs.get(*n)).sum()
    }

    /// The slab caches that grew most since `before`, in bytes.
    pub fn grown(&self, before: &Kernel, n: usize) -> Vec<(String, i64)> {
        let mut v: Vec<(String, i64)> = self
            .slabs
            .iter()
            .map(|(k, &b)| {
                let a = before.slabs.get(k).copied().unwrap_or(0);
                (k.clone(), b as i64 - a as i64)
            })
            .filter(|x| x.1 > 0)
            .collect();
        v.sort_by_key(|x| std::cmp::Reverse(x.1));
        v.truncate(n);
        v
    }
}

/// What the figures depend on: kernel release, CPUs, TCP congestion control.
pub fn machine() -> (String, usize, String) {
    let word = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_string();
    (
        word("/proc/sys/kernel/osrelease"),
        std::thread::available_parallelism().map_or(0, |n| n.get()),
        word("/proc/sys/net/ipv4/tcp_congestion_control"),
    )
}

/// Counters of the TCP stack that tell of trouble: (listen overflows, retransmitted segments).
pub fn tcp_trouble() -> (u64, u64) {
    let find = |file: &str, prefix: &str, name: &str| -> u64 {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with(prefix)).collect();
        if lines.len() < 2 {
            return 0;
        }
        let i = lines[0].split_whitespace().position(|x| x == name);
        number(i.and_then(|i| lines[1].split_whitespace().nth(i)))
    };
    (
        find("/proc/net/netstat", "TcpExt:", "ListenOverflows"),
        find("/proc/net/snmp", "Tcp:", "RetransSegs"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_odd_names() {
        let (n, f) = parse_stat("12 (a b) c) S 1 12 12 0 -1 4 5 6 7 8 9 10 11").unwrap();
        assert_eq!(n, "a b) c");
        assert_eq!(f[0], "S");
        assert_eq!(f[1], "1");
    }

    #[test]
    fn own_process() {
        let me = std::process::id() as i32;
        assert!(tree(me).contains(&me));
        assert!(alive(me));
        let m = memory(&[me]);
        assert!(m.rss > 0 && m.pss_anon > 0 && m.fds > 2);
        assert!(kernel().slab > 0);
        let before = cpu(&[me]);
        let mut x = 0u64;
        while cpu(&[me]).since(before).ns < 20_000_000 {
            x = x.wrapping_add(1);
        }
        assert!(x > 0);
    }

    #[test]
    fn kb() {
        let v = kb_lines("Rss:   12 kB\nnothing\nPss:\t3 kB\n");
        assert_eq!(v["Rss"], 12288);
        assert_eq!(v["Pss"], 3072);
    }
}
