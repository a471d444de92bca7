//! The result of a run, as JSON and as text.

use crate::coord::{Command, CpuSnap, RunCfg, Snap};
use crate::hist::Hist;
use crate::json::Json;
use crate::procfs::{self, Cpu, Mem};
use crate::shared::{Slot, C, COUNTER_NAMES};
use std::fmt::Write;

/// All that a run found out. Times end in their unit.
#[derive(Default)]
pub struct Outcome {
    // What was asked for.
    command: &'static str,
    label: String,
    kind: &'static str,
    subs: u64,
    channels: u64,
    messages: u64,
    warmup: u64,
    size: u64,
    rate: f64,
    window: u64,
    pub_conns: u64,
    procs: u64,
    server_pids: Vec<i32>,
    expected: u64,

    pub ok: bool,
    pub errors: Vec<String>,
    pub notes: Vec<String>,

    pub connect_s: f64,
    pub established: u64,
    pub ready_count: Option<u64>,
    pub connect_server_cpu: Cpu,
    /// (listen overflows, retransmitted segments).
    pub connect_trouble: (u64, u64),
    pub run_trouble: (u64, u64),

    pub base: Snap,
    pub parked: Snap,
    pub held: Snap,
    pub end: Snap,
    pub closed: Option<Snap>,
    pub hold_s: f64,
    pub hold_server_cpu: Cpu,

    pub measured_delivered: u64,
    pub measured_acked: u64,
    pub active_s: f64,
    pub publish_s: f64,
    pub latency: Hist,
    pub arrival: Hist,
    pub completion: Hist,
    pub ack: Hist,
    pub lag: Hist,
    /// Waits of the probe during fan-outs and between them, and the longest one of each fan-out.
    pub probe_during: Hist,
    pub probe_between: Hist,
    pub probe_worst: Vec<u64>,
    pub counters: Vec<(&'static &'static str, u64)>,

    cpu: Option<CpuUse>,
}

/// CPU use from the first measured publish until all is quiet.
struct CpuUse {
    wall_s: f64,
    server: Cpu,
    clients_s: f64,
    publisher_s: f64,
    own_s: f64,
    busiest_client_s: f64,
    /// Machine-wide busy time that is not ours (ticks: short runs are rough).
    others_s: f64,
    ksoftirqd_s: f64,
    others: Vec<(String, u64)>,
    machine_busy: f64,
    steal: f64,
}

fn s(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

impl Outcome {
    /// An outcome without figures.
    pub fn new(cfg: &RunCfg) -> Outcome {
        let p = &cfg.plan;
        Outcome {
            command: cfg.command.name(),
            label: cfg.label.clone(),
            kind: if cfg.command == Command::Publish { "none" } else { cfg.kind.name() },
            subs: p.subs as u64,
            channels: p.channels as u64,
            messages: p.messages,
            warmup: p.warmup,
            size: p.size as u64,
            rate: cfg.rate,
            window: cfg.window,
            pub_conns: cfg.pub_conns as u64,
            procs: cfg.procs as u64,
            server_pids: cfg.server_pids.clone(),
            expected: p.expected(),
            ..Default::default()
        }
    }

    /// Puts in the CPU use between two readings; `ours` are all processes that belong to the run.
    pub fn set_cpu(&mut self, before: &CpuSnap, after: &CpuSnap, ours: &[i32]) {
        let clients: Vec<Cpu> =
            after.clients.iter().zip(&before.clients).map(|(a, b)| a.since(*b)).collect();
        let (softirq, others) = after.everyone.others_since(&before.everyone, ours);
        let all = (after.machine.2 - before.machine.2).max(1) as f64;
        let busy = after.machine.0 - before.machine.0;
        let server = after.server.since(before.server);
        let publisher = after.publisher.since(before.publisher);
        let own = after.own_ns - before.own_ns;
        let clients_ns: u64 = clients.iter().map(|c| c.ns).sum();
        self.cpu = Some(CpuUse {
            wall_s: s(after.at - before.at),
            server,
            clients_s: s(clients_ns),
            publisher_s: s(publisher.ns),
            own_s: s(own),
            busiest_client_s: clients.iter().map(|c| s(c.ns)).fold(0.0, f64::max),
            others_s: (s(busy) - s(server.ns + publisher.ns + clients_ns + own)).max(0.0),
            ksoftirqd_s: s(softirq),
            others,
            machine_busy: busy as f64 / all,
            steal: (after.machine.1 - before.machine.1) as f64 / all,
        });
    }

    /// Collects the remarks of the processes.
    pub fn take_notes<'a>(&mut self, slots: impl Iterator<Item = &'a Slot>) {
        for slot in slots {
            let t = slot.note_text();
            if !t.is_empty() {
                self.notes.push(t);
            }
        }
    }

    fn counter(&self, c: C) -> u64 {
        self.counters.iter().find(|x| *x.0 == COUNTER_NAMES[c as usize]).map_or(0, |x| x.1)
    }

    /// Decides whether the run was clean.
    pub fn judge(&mut self) {
        for (c, text) in [
            (C::lost, "messages lost"),
            (C::duplicates, "duplicates"),
            (C::late, "messages out of order"),
            (C::corrupt, "corrupt messages"),
            (C::foreign, "messages of another channel or run"),
            (C::http_errors, "HTTP error replies"),
            (C::protocol_errors, "protocol errors"),
            (C::dead, "subscribers gave up"),
            (C::ack_errors, "publishes not answered with 2xx"),
            (C::pub_errors, "publisher connection errors"),
            (C::probe_errors, "probe failures"),
        ] {
            let n = self.counter(c);
            if n > 0 {
                self.errors.push(format!("{n} {text}"));
            }
        }
        if let Some(c) = &self.cpu {
            // utime+stime counts in ticks; a large difference means the exact clock missed something.
            let (a, b) = (s(c.server.ns), s(c.server.tick_ns()));
            if (a - b).abs() > 0.05 * a.max(b) + 0.05 {
                self.notes
                    .push(format!("server CPU: schedstat says {a:.2} s, utime+stime {b:.2} s"));
            }
            let busiest = self.busiest(c).unwrap_or(0.0);
            if self.active_s.max(self.publish_s) > 0.2 && busiest > 0.9 {
                self.notes.push(format!(
                    "a client process was busy {:.0} % of the time: the generator limits this run",
                    100.0 * busiest
                ));
            }
            if c.others_s > 0.1 * c.wall_s + 0.1 {
                self.notes.push(format!(
                    "disturbed: other processes used {:.2} s of CPU in {:.2} s, among them {}",
                    c.others_s,
                    c.wall_s,
                    c.others
                        .iter()
                        .map(|(n, t)| format!("{n} {:.2}", s(*t)))
                        .collect::<Vec<_>>()
                        .join(", ")
                ));
            }
        }
        self.ok = self.errors.is_empty();
    }

    /// The run got as far as parking its subscribers.
    fn have_parked(&self) -> bool {
        self.subs > 0 && self.parked.kernel.slab > 0
    }

    fn conns(&self) -> f64 {
        self.established.max(1) as f64
    }

    fn delivery_rate(&self) -> Option<f64> {
        ratio(self.measured_delivered as f64, self.active_s)
    }

    /// Deliveries per second while a message is going out; known only if messages do not overlap.
    fn burst_rate(&self) -> Option<f64> {
        if self.rate == 0.0 && self.window != 1 {
            return None;
        }
        ratio(self.subs as f64 / self.channels.max(1) as f64, s(self.completion.quantile(0.5)))
    }

    /// Busy share of the busiest client process (subscribers or publisher) while messages flowed.
    fn busiest(&self, c: &CpuUse) -> Option<f64> {
        ratio(c.busiest_client_s.max(c.publisher_s), self.active_s.max(self.publish_s))
    }

    fn client_share(&self) -> Option<f64> {
        let c = self.cpu.as_ref()?;
        let client = c.clients_s + c.publisher_s;
        ratio(client, client + s(c.server.ns))
    }

    /// The result as one line of JSON.
    pub fn to_json(&self) -> String {
        let mut j = Json::obj();
        j.put("tool", concat!("pushload ", env!("CARGO_PKG_VERSION")))
            .put("command", self.command)
            .put("label", self.label.as_str())
            .put("kind", self.kind)
            .put("subs", self.subs)
            .put("channels", self.channels)
            .put("messages", self.messages - self.warmup)
            .put("warmup", self.warmup)
            .put("size", self.size)
            .put("rate", self.rate)
            .put("window", self.window)
            .put("pub_conns", self.pub_conns)
            .put("procs", self.procs)
            .put("ok", self.ok)
            .put("errors", strings(&self.errors))
            .put("notes", strings(&self.notes));
        if self.subs > 0 {
            j.put("connect", self.json_connect());
        }
        if self.messages > 0 && self.subs > 0 {
            j.put("delivery", self.json_delivery());
            j.put("latency_us", hist(&self.latency));
            if self.arrival.count() > 0 {
                j.put("arrival_us", hist(&self.arrival));
            }
            j.put("completion_us", hist(&self.completion));
        }
        if self.messages > 0 {
            let mut p = Json::obj();
            p.put("acked", self.measured_acked)
                .put("seconds", self.publish_s)
                .put("per_second", ratio(self.measured_acked as f64, self.publish_s))
                .put("ack_us", hist(&self.ack))
                .put("lag_us", hist(&self.lag));
            j.put("publish", p);
        }
        if self.probe_during.count() + self.probe_between.count() > 0 {
            let mut worst = self.probe_worst.clone();
            worst.sort_unstable();
            let mut p = Json::obj();
            p.put("during_us", hist(&self.probe_during))
                .put("between_us", hist(&self.probe_between))
                .put("fanouts", worst.len())
                .put("worst_p50_us", worst.get(worst.len() / 2).map(|&w| us(w)));
            j.put("probe", p);
        }
        if let Some(c) = &self.cpu {
            j.put("cpu", self.json_cpu(c));
        }
        if self.hold_s > 0.0 {
            let mut h = Json::obj();
            h.put("seconds", self.hold_s)
                .put("server_cpu_s", s(self.hold_server_cpu.ns))
                .put("disconnects", self.counter(C::disconnects));
            j.put("hold", h);
        }
        if self.have_parked() {
            j.put("memory", self.json_memory());
        }
        let (kernel, cpus, cc) = procfs::machine();
        let mut m = Json::obj();
        m.put("kernel", kernel).put("cpus", cpus).put("congestion_control", cc);
        j.put("machine", m);
        let mut c = Json::obj();
        for (name, v) in &self.counters {
            if !name.ends_with("_ns") {
                c.put(name, *v);
            }
        }
        j.put("counters", c);
        let mut text = String::new();
        j.write(&mut text);
        text
    }

    fn json_connect(&self) -> Json {
        let mut j = Json::obj();
        j.put("established", self.established)
            .put("seconds", self.connect_s)
            .put("per_second", ratio(self.established as f64, self.connect_s))
            .put("server_cpu_s", s(self.connect_server_cpu.ns))
            .put("server_us_per_conn", s(self.connect_server_cpu.ns) * 1e6 / self.conns())
            .put("listen_overflows", self.connect_trouble.0)
            .put("retransmits", self.connect_trouble.1);
        if let Some(n) = self.ready_count {
            j.put("server_says", n);
        }
        j
    }

    fn json_delivery(&self) -> Json {
        let mut j = Json::obj();
        j.put("expected", self.expected)
            .put("delivered", self.counter(C::delivered))
            .put("measured", self.measured_delivered)
            .put("lost", self.counter(C::lost))
            .put("duplicates", self.counter(C::duplicates))
            .put("out_of_order", self.counter(C::late))
            .put("corrupt", self.counter(C::corrupt))
            .put("foreign", self.counter(C::foreign))
            .put("seconds", self.active_s)
            .put("per_second", self.delivery_rate())
            .put("burst_per_second", self.burst_rate())
            .put("retransmits", self.run_trouble.1);
        j
    }

    fn json_cpu(&self, c: &CpuUse) -> Json {
        let per = if self.subs > 0 { self.measured_delivered } else { self.measured_acked } as f64;
        let mut j = Json::obj();
        j.put("wall_s", c.wall_s)
            .put("server_s", s(c.server.ns))
            .put("server_ticks_s", s(c.server.tick_ns()))
            .put("server_user_share", ratio(c.server.user_ns as f64, c.server.tick_ns() as f64))
            .put("client_s", c.clients_s)
            .put("publisher_s", c.publisher_s)
            .put("coordinator_s", c.own_s)
            .put("others_s", c.others_s)
            .put("ksoftirqd_s", c.ksoftirqd_s)
            .put("machine_busy", c.machine_busy)
            .put("steal", c.steal)
            .put("client_share", self.client_share())
            .put("busiest_client", self.busiest(c));
        let unit = if self.subs > 0 { "delivery" } else { "publish" };
        j.put(&format!("server_us_per_{unit}"), ratio(s(c.server.ns) * 1e6, per));
        j.put(&format!("client_us_per_{unit}"), ratio(c.clients_s * 1e6, per));
        j.put("publisher_us_per_publish", ratio(c.publisher_s * 1e6, self.measured_acked as f64));
        j
    }

    fn json_memory(&self) -> Json {
        let mut j = Json::obj();
        let mut server = Json::obj();
        server.put("processes", self.server_pids.len());
        for (name, snap) in self.snaps() {
            server.put(name, mem(&snap.mem));
        }
        j.put("server", server);
        j.put("per_conn", {
            let mut o = Json::obj();
            for (k, v) in self.per_conn() {
                o.put(k, v);
            }
            o
        });
        let mut kernel = Json::obj();
        for (name, snap) in self.snaps() {
            let k = &snap.kernel;
            let mut o = Json::obj();
            o.put("slab", k.slab)
                .put("slab_unreclaimable", k.slab_unreclaimable)
                .put("tcp_inuse", k.tcp_inuse)
                .put("tcp_alloc", k.tcp_alloc)
                .put("tcp_mem", k.tcp_mem)
                .put("page_tables", k.page_tables)
                .put("available", k.available);
            kernel.put(name, o);
        }
        j.put("kernel", kernel);
        let mut slabs = Json::obj();
        for (name, b) in self.parked.kernel.grown(&self.base.kernel, 12) {
            slabs.put(&name, b as f64 / self.conns());
        }
        j.put("slab_per_conn", slabs);
        j
    }

    fn snaps(&self) -> Vec<(&'static str, &Snap)> {
        let mut v = vec![("base", &self.base), ("parked", &self.parked)];
        if self.hold_s > 0.0 {
            v.push(("held", &self.held));
        }
        if self.messages > 0 {
            v.push(("end", &self.end));
        }
        if let Some(c) = &self.closed {
            v.push(("closed", c));
        }
        v
    }

    /// Growth from before connecting to parked, per connection, in bytes.
    fn per_conn(&self) -> Vec<(&'static str, f64)> {
        let (a, b) = (&self.base, &self.parked);
        let d = |x: u64, y: u64| (y as f64 - x as f64) / self.conns();
        let mut v = Vec::new();
        if !self.server_pids.is_empty() {
            v.push(("user_anon", d(a.mem.pss_anon, b.mem.pss_anon)));
            v.push(("user_shmem", d(a.mem.pss_shmem, b.mem.pss_shmem)));
            v.push(("user_pss", d(a.mem.pss, b.mem.pss)));
            v.push(("server_fds", d(a.mem.fds, b.mem.fds)));
        }
        v.push(("kernel_sockets", d(a.kernel.sockets(), b.kernel.sockets())));
        v.push(("kernel_slab", d(a.kernel.slab, b.kernel.slab)));
        v.push(("kernel_tcp_mem", d(a.kernel.tcp_mem, b.kernel.tcp_mem)));
        v.push(("kernel_page_tables", d(a.kernel.page_tables, b.kernel.page_tables)));
        v.push(("machine_all", d(b.kernel.available, a.kernel.available)));
        v
    }

    /// The result for people.
    pub fn to_text(&self) -> String {
        let mut t = String::new();
        let _ = writeln!(
            t,
            "{}{}: {} subs ({}) on {} channels, {} messages of {} bytes (+{} warm-up){}",
            self.command,
            if self.label.is_empty() { String::new() } else { format!(" [{}]", self.label) },
            self.subs,
            self.kind,
            self.channels,
            self.messages - self.warmup,
            self.size,
            self.warmup,
            if self.rate > 0.0 { format!(", {}/s", self.rate) } else { String::new() }
        );
        if self.subs > 0 && self.connect_s > 0.0 {
            let _ = writeln!(
                t,
                "connect     {} in {:.2} s = {:.0}/s, server CPU {:.1} us each; listen overflows {}, retransmits {}{}",
                self.established,
                self.connect_s,
                self.established as f64 / self.connect_s,
                s(self.connect_server_cpu.ns) * 1e6 / self.conns(),
                self.connect_trouble.0,
                self.connect_trouble.1,
                self.ready_count
                    .map(|n| format!("; the server says {n}"))
                    .unwrap_or_default(),
            );
        }
        if self.messages > 0 && self.subs > 0 {
            let _ = writeln!(
                t,
                "delivered   {} of {}: lost {}, duplicates {}, out of order {}, corrupt {}, foreign {}",
                self.counter(C::delivered),
                self.expected,
                self.counter(C::lost),
                self.counter(C::duplicates),
                self.counter(C::late),
                self.counter(C::corrupt),
                self.counter(C::foreign),
            );
            let _ = writeln!(
                t,
                "rate        {:.0} deliveries/s over {:.2} s{}",
                self.delivery_rate().unwrap_or(0.0),
                self.active_s,
                self.burst_rate()
                    .map(|r| format!("; {r:.0}/s within a fan-out (median)"))
                    .unwrap_or_default()
            );
            let _ = writeln!(t, "latency us  {}", hist_text(&self.latency));
            if self.arrival.count() > 0 {
                let _ = writeln!(t, "arrival us  {}", hist_text(&self.arrival));
            }
            let _ = writeln!(t, "complete us {}", hist_text(&self.completion));
        }
        if self.messages > 0 {
            let _ = writeln!(
                t,
                "publish     {} in {:.2} s = {:.0}/s on {} connections",
                self.measured_acked,
                self.publish_s,
                ratio(self.measured_acked as f64, self.publish_s).unwrap_or(0.0),
                self.pub_conns
            );
            let _ = writeln!(t, "ack us      {}", hist_text(&self.ack));
            if self.rate > 0.0 {
                let _ = writeln!(t, "pub lag us  {}", hist_text(&self.lag));
            }
        }
        if self.probe_during.count() > 0 {
            let _ = writeln!(t, "probe us    {} (during fan-outs)", hist_text(&self.probe_during));
        }
        if let Some(c) = &self.cpu {
            self.text_cpu(&mut t, c);
        }
        if self.hold_s > 0.0 {
            let _ = writeln!(
                t,
                "hold        {:.1} s: server CPU {:.3} s, disconnects {}",
                self.hold_s,
                s(self.hold_server_cpu.ns),
                self.counter(C::disconnects)
            );
        }
        if self.have_parked() {
            self.text_memory(&mut t);
        }
        let odd: Vec<String> = [
            C::poll_timeouts,
            C::empty_replies,
            C::reconnects,
            C::disconnects,
            C::connect_failed,
            C::gaps,
            C::pub_reconnects,
        ]
        .iter()
        .filter(|c| self.counter(**c) > 0)
        .map(|c| format!("{} {}", COUNTER_NAMES[*c as usize], self.counter(*c)))
        .collect();
        if !odd.is_empty() {
            let _ = writeln!(t, "also        {}", odd.join(", "));
        }
        for n in &self.notes {
            let _ = writeln!(t, "note        {n}");
        }
        for e in &self.errors {
            let _ = writeln!(t, "ERROR       {e}");
        }
        let _ = writeln!(t, "{}", if self.ok { "OK" } else { "FAILED" });
        t
    }

    fn text_cpu(&self, t: &mut String, c: &CpuUse) {
        let (n, unit) = if self.subs > 0 {
            (self.measured_delivered, "delivery")
        } else {
            (self.measured_acked, "publish")
        };
        let per = |s: f64| ratio(s * 1e6, n as f64).unwrap_or(0.0);
        if !self.server_pids.is_empty() {
            let _ = writeln!(
                t,
                "server CPU  {:.3} s ({:.0} % user) = {:.2} us per {unit}, {:.0} % of one core",
                s(c.server.ns),
                100.0 * ratio(c.server.user_ns as f64, c.server.tick_ns() as f64).unwrap_or(0.0),
                per(s(c.server.ns)),
                100.0 * s(c.server.ns) / c.wall_s
            );
        }
        let client_s = if self.subs > 0 { c.clients_s } else { c.publisher_s };
        let _ = writeln!(
            t,
            "client CPU  {client_s:.3} s = {:.2} us per {unit}; publisher {:.3} s; client share {:.0} %; busiest process {:.0} % busy",
            per(client_s),
            c.publisher_s,
            100.0 * self.client_share().unwrap_or(0.0),
            100.0 * self.busiest(c).unwrap_or(0.0)
        );
        let _ = writeln!(
            t,
            "machine     {:.0} % busy, steal {:.1} %, others {:.2} s, ksoftirqd {:.3} s, coordinator {:.3} s, wall {:.2} s",
            100.0 * c.machine_busy,
            100.0 * c.steal,
            c.others_s,
            c.ksoftirqd_s,
            c.own_s,
            c.wall_s
        );
    }

    fn text_memory(&self, t: &mut String) {
        let mb = |b: u64| b as f64 / 1048576.0;
        if !self.server_pids.is_empty() {
            for (name, snap) in self.snaps() {
                let m = &snap.mem;
                let _ = writeln!(
                    t,
                    "server MiB  {name:<7} rss {:.1}, pss {:.1} (anon {:.1}, shmem {:.1}, file {:.1}), fds {:?}",
                    mb(m.rss),
                    mb(m.pss),
                    mb(m.pss_anon),
                    mb(m.pss_shmem),
                    mb(m.pss_file),
                    m.fds_each
                );
            }
        }
        let per: Vec<String> = self
            .per_conn()
            .iter()
            .filter(|x| x.0 != "server_fds")
            .map(|(k, v)| format!("{k} {v:.0}"))
            .collect();
        let _ = writeln!(t, "bytes/conn  {} (kernel: both ends)", per.join(", "));
    }
}

fn strings(v: &[String]) -> Vec<Json> {
    v.iter().map(|x| Json::from(x.as_str())).collect()
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// The quantiles of a histogram's curve.
const CURVE: [f64; 15] =
    [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

/// A histogram's figures in microseconds.
fn hist(h: &Hist) -> Json {
    let mut j = Json::obj();
    j.put("count", h.count())
        .put("mean", h.mean() / 1e3)
        .put("min", us(h.min()))
        .put("p50", us(h.quantile(0.5)))
        .put("p90", us(h.quantile(0.9)))
        .put("p99", us(h.quantile(0.99)))
        .put("p999", us(h.quantile(0.999)))
        .put("max", us(h.max()))
        .put("curve", Vec::from(CURVE.map(|q| Json::from(us(h.quantile(q))))));
    j
}

fn hist_text(h: &Hist) -> String {
    format!(
        "p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}, mean {:.0}",
        us(h.quantile(0.5)),
        us(h.quantile(0.9)),
        us(h.quantile(0.99)),
        us(h.quantile(0.999)),
        us(h.max()),
        h.mean() / 1e3
    )
}

fn mem(m: &Mem) -> Json {
    let mut j = Json::obj();
    j.put("rss", m.rss)
        .put("pss", m.pss)
        .put("pss_anon", m.pss_anon)
        .put("pss_shmem", m.pss_shmem)
        .put("pss_file", m.pss_file)
        .put("fds", m.fds)
        .put("fds_each", m.fds_each.iter().map(|&n| Json::from(n)).collect::<Vec<_>>());
    j
}
