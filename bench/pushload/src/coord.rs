//! The coordinator: forks clients and publisher, drives the phases, takes the readings.

use crate::client::{self, ClientCfg, Kind};
use crate::hist::Hist;
use crate::http::{HttpParser, Item};
use crate::msg::Codec;
use crate::plan::Plan;
use crate::probe::{self, ProbeCfg};
use crate::procfs::{self, Cpu, Everyone, Kernel, Mem};
use crate::publisher::{self, Mode, PubCfg};
use crate::report::Outcome;
use crate::shared::{self, total, Control, Receipt, Receipts, Slot, C};
use crate::sys::{self, Shared};
use crate::template::{UrlTemplate, Values};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

/// What a run measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    Fanout,
    Publish,
    Park,
}

impl Command {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Command::Fanout => "fanout",
            Command::Publish => "publish",
            Command::Park => "park",
        }
    }
}

/// A whole run. Times end in their unit; limits of 0 mean none.
pub struct RunCfg {
    pub command: Command,
    pub label: String,
    pub kind: Kind,
    pub plan: Plan,
    pub sub_url: Option<UrlTemplate>,
    pub sub_headers: Vec<u8>,
    pub pub_url: Option<UrlTemplate>,
    pub pub_headers: Vec<u8>,
    pub pub_mode: Mode,
    pub pub_conns: usize,
    pub rate: f64,
    pub window: u64,
    pub duration_ms: u64,
    pub procs: u32,
    pub client_cpus: Vec<usize>,
    pub connect_rate: f64,
    pub connect_window: u32,
    pub per_ip: u32,
    pub connect_timeout_ms: u64,
    pub settle_ms: u64,
    pub hold_ms: u64,
    pub drain_ms: u64,
    pub timeout_ms: u64,
    pub ready: Option<(UrlTemplate, String)>,
    /// A small page that is asked for while messages go out, and how often.
    pub probe: Option<UrlTemplate>,
    pub probe_every_ns: u64,
    pub server_pids: Vec<i32>,
    /// The server is our own child (floor) and ends with the run.
    pub own_server: bool,
    pub rx_timestamps: bool,
    pub allow_partial: bool,
    pub quiet: bool,
    pub icomet_seq: u64,
    pub parked_on_send: bool,
}

/// All readings at one moment.
#[derive(Clone, Default)]
pub struct Snap {
    pub mem: Mem,
    pub kernel: Kernel,
}

/// CPU readings at one moment.
pub struct CpuSnap {
    pub at: u64,
    pub server: Cpu,
    pub clients: Vec<Cpu>,
    pub publisher: Cpu,
    pub own_ns: u64,
    pub machine: (u64, u64, u64),
    pub everyone: Everyone,
}

struct Run<'a> {
    cfg: &'a RunCfg,
    ctl: &'static Control,
    clients: &'static [Slot],
    publisher: &'static [Slot],
    /// None or one.
    probe: &'static [Slot],
    /// The longest wait of the probe per message, in nanoseconds.
    probe_worst: &'static [AtomicU64],
    pids: Vec<i32>,
    deadline: u64,
    last_progress: u64,
}

const QUIET_STEP_MS: u64 = 50;
/// How long a server has, at least, to give memory back when its clients have gone.
const GIVES_BACK_MS: u64 = 3000;
/// A server using less than this share of a CPU counts as quiet.
const QUIET_SHARE: f64 = 0.03;

/// Does a run from start to end; what went wrong is in the outcome.
pub fn run(cfg: &RunCfg) -> Outcome {
    let mut out = Outcome::new(cfg);
    if let Err(e) = run_inner(cfg, &mut out) {
        out.errors.push(e);
    }
    if cfg.own_server {
        for &p in &cfg.server_pids {
            end_child(p);
        }
    }
    out.judge();
    out
}

/// Kills and reaps a child.
fn end_child(pid: i32) {
    sys::kill(pid);
    while sys::try_wait(pid).is_none() {
        sys::sleep_ms(1);
    }
}

fn run_inner(cfg: &RunCfg, out: &mut Outcome) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    let plan = &cfg.plan;
    let n_procs = if plan.subs > 0 { cfg.procs as usize } else { 0 };
    let publishing = plan.messages > 0;
    // SAFETY: these types consist of atomics.
    let (ctl, clients, publisher, probe, pub_ts, probe_worst) = unsafe {
        (
            Shared::<Control>::zeroed(1).map_err(io)?.slice(),
            Shared::<Slot>::zeroed(n_procs).map_err(io)?.slice(),
            Shared::<Slot>::zeroed(1).map_err(io)?.slice(),
            Shared::<Slot>::zeroed(usize::from(cfg.probe.is_some())).map_err(io)?.slice(),
            Shared::<AtomicU64>::zeroed(plan.messages as usize).map_err(io)?.slice(),
            Shared::<AtomicU64>::zeroed(plan.messages as usize).map_err(io)?.slice(),
        )
    };
    let mut receipts = Receipts::new();
    for _ in 0..n_procs {
        receipts.push(
            // SAFETY: a receipt consists of atomics.
            unsafe { Shared::<Receipt>::zeroed(plan.messages as usize) }.map_err(io)?.slice(),
        );
    }
    let mut run = Run {
        cfg,
        ctl: &ctl[0],
        clients,
        publisher,
        probe,
        probe_worst,
        pids: Vec::new(),
        deadline: sys::now_ns() + cfg.timeout_ms * 1_000_000,
        last_progress: 0,
    };
    for &p in &cfg.server_pids {
        if !procfs::alive(p) {
            return Err(format!("server process {p} does not exist"));
        }
    }
    let r = run.spawn(&receipts, pub_ts, publishing).map_err(io);
    let r = r.and_then(|()| run.measure(out, &receipts, pub_ts, publishing));
    run.stop();
    for (i, name) in shared::COUNTER_NAMES.iter().enumerate() {
        let slots = run.clients.iter().chain(run.publisher).chain(run.probe);
        out.counters.push((name, slots.map(|s| s.get_at(i)).sum()));
    }
    out.take_notes(run.clients.iter().chain(run.publisher).chain(run.probe));
    r?;
    // What the server keeps once everybody has left.
    if plan.subs > 0 && !cfg.server_pids.is_empty() {
        // A server may look once a second for what to give back, and does nothing before that.
        let at_least = if cfg.command == Command::Park { GIVES_BACK_MS } else { 0 };
        run.wait_quiet(cfg.settle_ms.max(at_least), 5000);
        out.closed = Some(run.snap());
    }
    for &p in &cfg.server_pids {
        if !procfs::alive(p) {
            out.errors.push(format!("server process {p} died during the run"));
        }
    }
    Ok(())
}

impl Run<'_> {
    fn spawn(
        &mut self,
        receipts: &Receipts,
        pub_ts: &'static [AtomicU64],
        publishing: bool,
    ) -> std::io::Result<()> {
        let cfg = self.cfg;
        let plan = &cfg.plan;
        let procs = self.clients.len() as u64;
        let cpu = |i: usize| {
            (!cfg.client_cpus.is_empty()).then(|| cfg.client_cpus[i % cfg.client_cpus.len()])
        };
        for i in 0..procs {
            let first = (plan.subs as u64 * i / procs) as u32;
            let end = (plan.subs as u64 * (i + 1) / procs) as u32;
            let c = ClientCfg {
                kind: cfg.kind,
                url: cfg.sub_url.clone().expect("fanout and park have a subscriber URL"),
                headers: cfg.sub_headers.clone(),
                plan: plan.clone(),
                codec: Codec::new(plan.run, plan.size),
                first,
                count: end - first,
                window: (cfg.connect_window / procs as u32).max(1),
                connect_rate: cfg.connect_rate / procs as f64,
                per_ip: cfg.per_ip,
                rx_timestamps: cfg.rx_timestamps,
                cpu: cpu(i as usize),
                icomet_seq: cfg.icomet_seq,
                parked_on_send: cfg.parked_on_send,
            };
            let (ctl, slot, recv) = (self.ctl, &self.clients[i as usize], receipts[i as usize]);
            let pid = sys::fork(|| client::run(&c, ctl, slot, recv))?;
            slot.pid.store(pid, Release);
            self.pids.push(pid);
        }
        if publishing {
            let c = PubCfg {
                url: cfg.pub_url.clone().expect("publishing needs a URL"),
                mode: cfg.pub_mode,
                headers: cfg.pub_headers.clone(),
                plan: plan.clone(),
                codec: Codec::new(plan.run, plan.size),
                conns: cfg.pub_conns,
                rate: cfg.rate,
                window: cfg.window,
                any_conn: cfg.command == Command::Publish,
                duration_ns: cfg.duration_ms * 1_000_000,
                cpu: cpu(self.clients.len()),
            };
            let (ctl, slot) = (self.ctl, &self.publisher[0]);
            let pid = sys::fork(|| publisher::run(&c, ctl, slot, receipts, pub_ts))?;
            slot.pid.store(pid, Release);
            self.pids.push(pid);
        }
        if let (Some(url), [slot]) = (&cfg.probe, self.probe) {
            let c = ProbeCfg {
                url: url.clone(),
                plan: plan.clone(),
                every_ns: cfg.probe_every_ns,
                cpu: cpu(self.clients.len() + 1),
            };
            let (ctl, worst) = (self.ctl, self.probe_worst);
            let pid = sys::fork(|| probe::run(&c, ctl, slot, receipts, pub_ts, worst))?;
            slot.pid.store(pid, Release);
            self.pids.push(pid);
        }
        Ok(())
    }

    fn measure(
        &mut self,
        out: &mut Outcome,
        receipts: &Receipts,
        pub_ts: &'static [AtomicU64],
        publishing: bool,
    ) -> Result<(), String> {
        let cfg = self.cfg;
        let plan = &cfg.plan;
        let slots: Vec<&Slot> = self
            .clients
            .iter()
            .chain(publishing.then(|| &self.publisher[0]))
            .chain(self.probe)
            .collect();
        self.until(10_000, "processes do not start", |_| {
            slots.iter().all(|s| s.ready.load(Acquire) == 1)
        })?;
        sys::sleep_ms(50);
        out.base = self.snap();
        let trouble = procfs::tcp_trouble();

        // Connect.
        let cpu0 = self.cpu();
        let t0 = cpu0.at;
        self.ctl.set_phase(shared::CONNECT);
        if plan.subs > 0 {
            let connected =
                self.until(cfg.connect_timeout_ms, "not all subscribers got through", |r| {
                    r.progress("connecting", total(r.clients, C::established), plan.subs as u64);
                    total(r.clients, C::established) + total(r.clients, C::dead) >= plan.subs as u64
                });
            out.connect_s = (sys::now_ns() - t0) as f64 / 1e9;
            let up =
                total(self.clients, C::established).saturating_sub(total(self.clients, C::dead));
            out.established = up;
            if up < plan.subs as u64 {
                out.errors.push(format!("only {up} of {} subscribers established", plan.subs));
                if !cfg.allow_partial {
                    return connected.and(Err("giving up; --allow-partial goes on".into()));
                }
            }
            self.wait_quiet(cfg.settle_ms, 10_000);
            if let Some((url, key)) = &cfg.ready {
                out.ready_count = Some(self.wait_ready(url, key, up)?);
            }
        }
        let cpu1 = self.cpu();
        out.connect_server_cpu = cpu1.server.since(cpu0.server);
        let t = procfs::tcp_trouble();
        out.connect_trouble = (t.0 - trouble.0, t.1 - trouble.1);
        out.parked = self.snap();

        // Hold.
        if cfg.hold_ms > 0 {
            let before = self.cpu();
            let end = before.at + cfg.hold_ms * 1_000_000;
            self.until(cfg.hold_ms + 5000, "hold", |r| {
                let now = sys::now_ns();
                r.progress("holding, ms left", end.saturating_sub(now) / 1_000_000, cfg.hold_ms);
                now >= end
            })?;
            let after = self.cpu();
            out.hold_s = (after.at - before.at) as f64 / 1e9;
            out.hold_server_cpu = after.server.since(before.server);
            out.held = self.snap();
        }

        // Publish.
        if publishing {
            self.publish_and_wait(out, pub_ts, receipts)?;
            let t = procfs::tcp_trouble();
            out.run_trouble = (t.0 - trouble.0, t.1 - trouble.1);
            out.end = self.snap();
        }

        // Tally.
        self.ctl.set_phase(shared::FINISH);
        self.until(30_000, "processes do not finish", |_| {
            slots.iter().all(|s| s.finished.load(Acquire) == 1)
        })?;
        for s in self.clients {
            out.latency.add_shared(&s.latency);
            out.arrival.add_shared(&s.arrival);
        }
        if let [slot] = self.probe {
            out.probe_during.add_shared(&slot.latency);
            out.probe_between.add_shared(&slot.arrival);
            out.probe_worst = self
                .probe_worst
                .iter()
                .skip(plan.warmup as usize)
                .map(|w| w.load(Acquire))
                .filter(|&w| w > 0)
                .collect();
        }
        if publishing {
            out.ack.add_shared(&self.publisher[0].latency);
            out.lag.add_shared(&self.publisher[0].arrival);
        }
        Ok(())
    }

    fn publish_and_wait(
        &mut self,
        out: &mut Outcome,
        pub_ts: &'static [AtomicU64],
        receipts: &Receipts,
    ) -> Result<(), String> {
        let cfg = self.cfg;
        let plan = &cfg.plan;
        let p = &self.publisher[0];
        self.ctl.set_phase(shared::RUN);
        if plan.warmup > 0 {
            let want = plan.deliveries(plan.warmup);
            self.until(cfg.drain_ms + 60_000, "warm-up does not finish", |r| {
                p.get(C::acked) + p.get(C::pub_errors) >= plan.warmup
                    && (plan.subs == 0 || total(r.clients, C::delivered) >= want)
            })?;
            self.wait_quiet(100, 3000);
        }
        let before = self.cpu();
        let delivered_before = total(self.clients, C::delivered);
        let acked_before = p.get(C::acked);
        self.ctl.go.store(1, Release);
        let expected = plan.expected();
        let (mut best, mut best_at) = (0, sys::now_ns());
        loop {
            self.check()?;
            let acked = p.get(C::acked);
            let delivered = total(self.clients, C::delivered);
            self.progress(
                if plan.subs > 0 { "delivered" } else { "acknowledged" },
                if plan.subs > 0 { delivered } else { acked },
                if plan.subs > 0 { expected } else { plan.messages },
            );
            let published_all = p.finished.load(Acquire) == 1;
            if published_all && (plan.subs == 0 || delivered >= expected) {
                break;
            }
            let now = sys::now_ns();
            if delivered + acked > best {
                (best, best_at) = (delivered + acked, now);
            } else if now - best_at > cfg.drain_ms * 1_000_000 {
                out.notes.push(format!("no progress for {} ms: counting what came", cfg.drain_ms));
                break;
            }
            sys::sleep_ms(5);
        }
        // Let duplicates show up, and let the server finish its work on the last message.
        self.wait_quiet(cfg.settle_ms.min(200), 3000);
        let after = self.cpu();
        out.measured_delivered = total(self.clients, C::delivered) - delivered_before;
        out.measured_acked = p.get(C::acked) - acked_before;
        let first = p.get(C::first_pub_ns);
        let last = self.clients.iter().map(|s| s.get(C::last_recv_ns)).max().unwrap_or(0);
        out.active_s = last.saturating_sub(first) as f64 / 1e9;
        out.publish_s = p.get(C::last_ack_ns).saturating_sub(first) as f64 / 1e9;
        // Until the last subscriber had a message.
        let mut completion = Hist::default();
        for i in plan.warmup as usize..plan.messages as usize {
            let ts = pub_ts[i].load(Acquire);
            let got: u64 = receipts.iter().map(|r| r[i].count()).sum();
            let last = receipts.iter().map(|r| r[i].last_ns()).max().unwrap_or(0);
            if got >= plan.subs_of(plan.at(i as u64).0) && last > ts {
                completion.record(last - ts);
            }
        }
        out.completion = completion;
        let mut ours = cfg.server_pids.clone();
        ours.extend(&self.pids);
        ours.push(sys::pid());
        out.set_cpu(&before, &after, &ours);
        Ok(())
    }

    /// Waits for `cond`, at most `ms`, with all general checks.
    fn until(
        &mut self,
        ms: u64,
        what: &str,
        mut cond: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), String> {
        let end = sys::now_ns() + ms * 1_000_000;
        while !cond(self) {
            self.check()?;
            if sys::now_ns() > end {
                return Err(format!("{what} (waited {ms} ms)"));
            }
            sys::sleep_ms(2);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        if sys::now_ns() > self.deadline {
            return Err(format!("--timeout of {} ms reached", self.cfg.timeout_ms));
        }
        for &p in &self.pids {
            if let Some(code) = sys::try_wait(p) {
                self.pids.retain(|&x| x != p);
                return Err(format!("a client process ended early (code {code})"));
            }
        }
        Ok(())
    }

    fn progress(&mut self, what: &str, n: u64, of: u64) {
        let now = sys::now_ns();
        if !self.cfg.quiet && now - self.last_progress > 1_000_000_000 {
            if self.last_progress > 0 {
                eprintln!("  {what} {n}/{of}");
            }
            self.last_progress = now;
        }
    }

    /// Waits at least `min_ms`, then until the server uses next to no CPU, at most `max_ms`.
    fn wait_quiet(&self, min_ms: u64, max_ms: u64) {
        let start = sys::now_ns();
        let mut last = procfs::cpu(&self.cfg.server_pids).ns;
        let mut quiet = 0;
        loop {
            sys::sleep_ms(QUIET_STEP_MS.min(min_ms.max(1)));
            let waited = (sys::now_ns() - start) / 1_000_000;
            let now = procfs::cpu(&self.cfg.server_pids).ns;
            if (now.saturating_sub(last) as f64) < QUIET_SHARE * QUIET_STEP_MS as f64 * 1e6 {
                quiet += 1;
            } else {
                quiet = 0;
            }
            last = now;
            if (waited >= min_ms && quiet >= 3) || waited >= max_ms.max(min_ms) {
                return;
            }
        }
    }

    /// Polls a status page until the number after `key` reaches `want`.
    fn wait_ready(&mut self, url: &UrlTemplate, key: &str, want: u64) -> Result<u64, String> {
        let mut seen = 0;
        let url = url.clone();
        self.until(30_000, "the status page never showed all subscribers", |_| {
            if let Ok(body) = http_get(&url) {
                seen = number_after(&body, key).unwrap_or(0);
            }
            if seen < want {
                sys::sleep_ms(100);
            }
            seen >= want
        })
        .map_err(|e| format!("{e}: {key:?} is {seen}, expected {want}"))?;
        Ok(seen)
    }

    fn snap(&self) -> Snap {
        Snap { mem: procfs::memory(&self.cfg.server_pids), kernel: procfs::kernel() }
    }

    fn cpu(&self) -> CpuSnap {
        CpuSnap {
            at: sys::now_ns(),
            server: procfs::cpu(&self.cfg.server_pids),
            clients: self.clients.iter().map(|s| procfs::cpu_of(s.pid.load(Acquire))).collect(),
            publisher: match self.publisher[0].pid.load(Acquire) {
                0 => Cpu::default(),
                p => procfs::cpu_of(p),
            },
            own_ns: sys::process_cpu_ns()
                + self.probe.iter().map(|s| procfs::cpu_of(s.pid.load(Acquire)).ns).sum::<u64>(),
            machine: procfs::machine_cpu(),
            everyone: Everyone::read(),
        }
    }

    /// Ends all our processes: asks, waits, then kills.
    fn stop(&mut self) {
        self.ctl.set_phase(shared::EXIT);
        let end = sys::now_ns() + 10_000_000_000;
        while !self.pids.is_empty() && sys::now_ns() < end {
            self.pids.retain(|&p| sys::try_wait(p).is_none());
            sys::sleep_ms(2);
        }
        for &p in &self.pids {
            end_child(p);
        }
        self.pids.clear();
    }
}

/// A plain GET of a small page.
pub fn http_get(url: &UrlTemplate) -> Result<String, String> {
    let err = |e: std::io::Error| e.to_string();
    let limit = Duration::from_secs(5);
    let mut s = TcpStream::connect_timeout(&url.addr.into(), limit).map_err(err)?;
    s.set_read_timeout(Some(limit)).map_err(err)?;
    let mut req = b"GET ".to_vec();
    url.render(&mut req, Values::default());
    req.extend_from_slice(
        format!(" HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.host).as_bytes(),
    );
    s.write_all(&req).map_err(err)?;
    let mut parser = HttpParser::default();
    let mut body = Vec::new();
    let mut buf = [0u8; 16384];
    loop {
        let n = s.read(&mut buf).map_err(err)?;
        if n == 0 {
            break;
        }
        let mut input = &buf[..n];
        loop {
            match parser.next(&mut input).map_err(|e| format!("{e:?}"))? {
                Item::NeedMore => break,
                Item::Head(h) if h.status != 200 => {
                    return Err(format!("HTTP status {}", h.status))
                }
                Item::Head(_) => {}
                Item::Data(d) => body.extend_from_slice(d),
                Item::End => return Ok(String::from_utf8_lossy(&body).into_owned()),
            }
        }
        if body.len() > 1 << 20 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The first integer after `key`, skipping what is not a digit on the way (": ", quotes).
pub fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = &text[text.find(key)? + key.len()..];
    let digits: String = rest
        .chars()
        .skip_while(|c| !c.is_ascii_digit() && *c != '\n')
        .take_while(|c| c.is_ascii_digit())
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_pages() {
        assert_eq!(number_after("channels: 1\nsubscribers: 100\n", "subscribers"), Some(100));
        assert_eq!(number_after("{\"subscribers\": \"7\"}", "subscribers"), Some(7));
        assert_eq!(number_after("subscribers: none\n5", "subscribers"), None);
    }
}
