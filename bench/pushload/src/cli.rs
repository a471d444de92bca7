//! Command line.

use crate::client::Kind;
use crate::coord::{Command, RunCfg};
use crate::floor::{self, Fault, Floor, FloorCfg};
use crate::msg;
use crate::plan::Plan;
use crate::procfs;
use crate::publisher::Mode;
use crate::sys;
use crate::template::UrlTemplate;
use std::collections::BTreeMap;

/// What `--help` prints.
pub const HELP: &str = include_str!("help.txt");

/// Options that take no value.
const SWITCHES: &[&str] = &[
    "pub-body",
    "pub-query",
    "json",
    "quiet",
    "rx-timestamps",
    "allow-partial",
    "park",
    "publish",
    "help",
];

const VALUES: &[&str] = &[
    "sub",
    "pub",
    "kind",
    "subs",
    "channels",
    "messages",
    "warmup",
    "rate",
    "size",
    "window",
    "duration",
    "pub-conns",
    "conns",
    "header",
    "pub-header",
    "server-pids",
    "server-master",
    "procs",
    "client-cpus",
    "server-cpus",
    "connect-rate",
    "connect-window",
    "connect-timeout",
    "per-ip",
    "settle",
    "hold",
    "drain",
    "timeout",
    "ready-url",
    "ready-key",
    "probe",
    "probe-every",
    "parked-on",
    "label",
    "run-id",
    "seq",
    "workers",
    "fault",
];

/// Raw options: each may be given several times.
struct Args(BTreeMap<String, Vec<String>>);

impl Args {
    fn parse(args: &[String]) -> Result<Args, String> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut it = args.iter();
        while let Some(a) = it.next() {
            let Some(opt) = a.strip_prefix("--") else {
                return Err(format!("unexpected argument {a:?}"));
            };
            let (name, inline) = match opt.split_once('=') {
                Some((n, v)) => (n, Some(v.to_string())),
                None => (opt, None),
            };
            let value = if SWITCHES.contains(&name) {
                inline.unwrap_or_default()
            } else if VALUES.contains(&name) {
                match inline {
                    Some(v) => v,
                    None => it.next().ok_or_else(|| format!("--{name} needs a value"))?.clone(),
                }
            } else {
                return Err(format!("unknown option --{name}"));
            };
            map.entry(name.to_string()).or_default().push(value);
        }
        Ok(Args(map))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|v| v.last()).map(|s| s.as_str())
    }

    fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], |v| v.as_slice())
    }

    fn num<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.get(name) {
            None => Ok(default),
            Some(v) => v.parse().map_err(|_| format!("--{name}: bad number {v:?}")),
        }
    }

    /// Seconds, as milliseconds.
    fn ms(&self, name: &str, default_s: f64) -> Result<u64, String> {
        let s: f64 = self.num(name, default_s)?;
        if !(0.0..=86_400.0).contains(&s) {
            return Err(format!("--{name}: 0 to 86400 seconds"));
        }
        Ok((s * 1000.0) as u64)
    }

    fn list<T: std::str::FromStr>(&self, name: &str) -> Result<Vec<T>, String> {
        self.get(name)
            .unwrap_or("")
            .split([',', ' '])
            .filter(|s| !s.is_empty())
            .map(|s| s.parse().map_err(|_| format!("--{name}: bad number {s:?}")))
            .collect()
    }

    fn headers(&self, name: &str) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for h in self.all(name) {
            if !h.contains(':') || h.contains(['\r', '\n']) {
                return Err(format!("--{name}: {h:?} is not a header line"));
            }
            out.extend_from_slice(h.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Ok(out)
    }
}

/// A run, and how to print its result.
pub struct Invocation {
    pub run: RunCfg,
    pub json: bool,
}

/// What a command line asks for.
pub enum Parsed {
    Help,
    Run(Box<Invocation>),
}

/// Reads a command line; the error is a sentence for the user. With `floor`, starts that server.
pub fn parse(args: &[String]) -> Result<Parsed, String> {
    let Some(command) = args.first() else {
        return Ok(Parsed::Help);
    };
    if matches!(command.as_str(), "help" | "--help" | "-h") {
        return Ok(Parsed::Help);
    }
    let a = Args::parse(&args[1..])?;
    if a.has("help") {
        return Ok(Parsed::Help);
    }
    let (cmd, with_floor) = match command.as_str() {
        "fanout" => (Command::Fanout, false),
        "publish" => (Command::Publish, false),
        "park" => (Command::Park, false),
        "floor" if a.has("park") => (Command::Park, true),
        "floor" if a.has("publish") => (Command::Publish, true),
        "floor" => (Command::Fanout, true),
        other => return Err(format!("unknown command {other:?}; see --help")),
    };
    let run = run_cfg(&a, cmd, with_floor)?;
    Ok(Parsed::Run(Box::new(Invocation { run, json: a.has("json") })))
}

fn run_cfg(a: &Args, cmd: Command, with_floor: bool) -> Result<RunCfg, String> {
    let nofile = sys::raise_nofile();
    let per_proc = (nofile.saturating_sub(500)).min(18_000) as u32;
    let kind = match a.get("kind") {
        Some(k) => Kind::parse(k).ok_or_else(|| format!("unknown --kind {k:?}"))?,
        None if cmd == Command::Park => Kind::LongPoll,
        None if with_floor => Kind::Chunked,
        None if cmd == Command::Publish => Kind::Chunked,
        None => return Err("--kind is missing".into()),
    };
    let plan = plan(a, cmd)?;
    let procs = if plan.subs == 0 {
        0
    } else {
        let p: u32 = a.num("procs", plan.subs.div_ceil(per_proc))?;
        if plan.subs.div_ceil(p.max(1)) > per_proc {
            return Err(format!(
                "{} subscribers need at least {} processes (fd limit {nofile})",
                plan.subs,
                plan.subs.div_ceil(per_proc)
            ));
        }
        p.clamp(1, plan.subs)
    };
    let (mut sub, mut publish) = (a.get("sub").map(String::from), a.get("pub").map(String::from));
    let mut server_pids = server_pids(a)?;
    if with_floor {
        if sub.is_some() || publish.is_some() || !server_pids.is_empty() {
            return Err("floor brings its own server: no --sub, --pub, --server-…".into());
        }
        let f = start_floor(a, kind, &plan, per_proc)?;
        sub = Some(format!(
            "http://127.0.0.1:{}/s?c={{idx}}{}",
            f.sub_port,
            if kind == Kind::IcometPoll { "&seq={seq}" } else { "" }
        ));
        publish = Some(format!("http://127.0.0.1:{}/p?c={{idx}}", f.pub_port));
        server_pids = f.pids;
    }
    let url = |name: &str, v: Option<String>, needed: bool| match v {
        Some(u) => UrlTemplate::parse(&u, plan.run).map(Some).map_err(|e| format!("--{name}: {e}")),
        None if needed => Err(format!("--{name} is missing")),
        None => Ok(None),
    };
    let sub_url = url("sub", sub, plan.subs > 0)?;
    let pub_url = url("pub", publish, plan.messages > 0)?;
    for (name, u) in [("sub", &sub_url), ("pub", &pub_url)] {
        if u.as_ref().is_some_and(|u| plan.channels > 1 && !u.has_chan()) {
            return Err(format!(
                "--{name}: several channels, but no {{chan}} or {{idx}} in the URL"
            ));
        }
    }
    if kind == Kind::IcometPoll && sub_url.as_ref().is_some_and(|u| !u.has_seq()) {
        return Err("--kind icomet-poll needs {seq} in --sub".into());
    }
    let pub_mode = if a.has("pub-query") { Mode::Query } else { Mode::Body };
    if let Some(u) = &pub_url {
        if u.has_msg() != (pub_mode == Mode::Query) {
            return Err("--pub-query needs {msg} in --pub, --pub-body must not have it".into());
        }
    }
    let ready = match (a.get("ready-url"), a.get("ready-key")) {
        (Some(u), Some(k)) => Some((UrlTemplate::parse(u, plan.run)?, k.to_string())),
        (None, None) => None,
        _ => return Err("--ready-url and --ready-key go together".into()),
    };
    let probe = match a.get("probe") {
        Some(_) if cmd != Command::Fanout => return Err("--probe is for fanout".into()),
        Some(u) => Some(UrlTemplate::parse(u, plan.run)?),
        None => None,
    };
    let probe_every_ns = (a.num("probe-every", 1.0f64)?.clamp(0.05, 1000.0) * 1e6) as u64;
    let pub_conns = match cmd {
        Command::Publish => a.num("conns", 16usize)?,
        _ => a.num("pub-conns", 1usize)?,
    };
    if pub_conns == 0 || pub_conns as u64 > nofile - 100 {
        return Err("bad number of publisher connections".into());
    }
    let parked_on_send = match a.get("parked-on") {
        None => kind == Kind::LongPoll,
        Some("sent") => true,
        Some("head") => false,
        Some(o) => return Err(format!("--parked-on: sent or head, not {o:?}")),
    };
    // Nothing comes back that would show how far the server is, so go easy on its accept queue.
    let default_rate = if parked_on_send { 5000.0 } else { 0.0 };
    Ok(RunCfg {
        command: cmd,
        label: a.get("label").unwrap_or(if with_floor { "floor" } else { "" }).to_string(),
        kind,
        sub_url,
        sub_headers: a.headers("header")?,
        pub_url,
        pub_headers: a.headers("pub-header")?,
        pub_mode,
        pub_conns,
        rate: positive(a, "rate", 0.0)?,
        window: a.num("window", 0)?,
        duration_ms: a.ms("duration", 0.0)?,
        procs,
        client_cpus: a.list("client-cpus")?,
        connect_rate: positive(a, "connect-rate", default_rate)?,
        connect_window: a.num("connect-window", 256)?,
        per_ip: a.num("per-ip", 10_000u32)?.clamp(1, 28_000),
        connect_timeout_ms: a.ms("connect-timeout", 120.0)?,
        settle_ms: a.ms("settle", 0.3)?,
        hold_ms: if cmd == Command::Park { a.ms("hold", 5.0)? } else { a.ms("hold", 0.0)? },
        drain_ms: a.ms("drain", 10.0)?,
        timeout_ms: a.ms("timeout", 600.0)?,
        ready,
        probe,
        probe_every_ns,
        server_pids,
        own_server: with_floor,
        rx_timestamps: a.has("rx-timestamps"),
        allow_partial: a.has("allow-partial"),
        quiet: a.has("quiet"),
        icomet_seq: a.num("seq", 1)?,
        parked_on_send,
        plan,
    })
}

fn positive(a: &Args, name: &str, default: f64) -> Result<f64, String> {
    let v: f64 = a.num(name, default)?;
    if !v.is_finite() || v < 0.0 {
        return Err(format!("--{name}: must not be negative"));
    }
    Ok(v)
}

fn plan(a: &Args, cmd: Command) -> Result<Plan, String> {
    let subs = match cmd {
        Command::Publish => 0,
        _ => a.num("subs", 100u32)?,
    };
    let channels: u32 = a.num("channels", 1)?;
    let warmup: u64 = if cmd == Command::Park { 0 } else { a.num("warmup", 0)? };
    let messages: u64 = match cmd {
        Command::Park => 0,
        Command::Publish => a.num("messages", 10_000u64)?,
        Command::Fanout => a.num("messages", 100u64)?,
    };
    if messages == 0 && cmd != Command::Park {
        return Err("--messages must not be 0 (to only hold connections, use park)".into());
    }
    let messages = messages + warmup;
    let size: usize = a.num("size", 100)?;
    if subs == 0 && cmd != Command::Publish {
        return Err("--subs must not be 0".into());
    }
    if subs > 2_000_000 || messages > 20_000_000 {
        return Err("at most 2,000,000 subscribers and 20,000,000 messages".into());
    }
    if channels == 0 || channels as u64 > msg::MAX_CHANNELS {
        return Err(format!("--channels: 1 to {}", msg::MAX_CHANNELS));
    }
    if messages.div_ceil(channels as u64) > msg::MAX_SEQ {
        return Err(format!("more than {} messages on a channel", msg::MAX_SEQ));
    }
    if !(msg::MIN_SIZE..=16 << 20).contains(&size) {
        return Err(format!("--size: {} bytes to 16 MiB", msg::MIN_SIZE));
    }
    let run = match a.get("run-id") {
        Some(h) => {
            u16::from_str_radix(h, 16).map_err(|_| "--run-id: up to 4 hex digits".to_string())?
        }
        // Differs from run to run, so that old messages in the server are told apart.
        None => (sys::now_ns() / 1_000_000) as u16 ^ (sys::pid() as u16).rotate_left(8),
    };
    Ok(Plan { run, subs, channels, messages, warmup, size })
}

fn server_pids(a: &Args) -> Result<Vec<i32>, String> {
    let mut pids: Vec<i32> = a.list("server-pids")?;
    for m in a.all("server-master") {
        let m: i32 = m.parse().map_err(|_| format!("--server-master: bad pid {m:?}"))?;
        if !procfs::alive(m) {
            return Err(format!("--server-master: no process {m}"));
        }
        pids.extend(procfs::tree(m));
    }
    pids.sort();
    pids.dedup();
    Ok(pids)
}

fn start_floor(a: &Args, kind: Kind, plan: &Plan, per_proc: u32) -> Result<Floor, String> {
    let fault = a.get("fault").unwrap_or("none");
    let fault = Fault::parse(fault).ok_or_else(|| format!("unknown --fault {fault:?}"))?;
    if fault == Fault::Close && kind != Kind::LongPoll {
        return Err("--fault close is for longpoll".into());
    }
    if kind.is_poll() && !matches!(fault, Fault::None | Fault::Close | Fault::Split) {
        return Err("this --fault is for streaming kinds".into());
    }
    let workers: u32 = a.num("workers", plan.subs.div_ceil(per_proc))?;
    let cfg = FloorCfg {
        kind,
        workers: workers.clamp(1, 64),
        channels: plan.channels,
        subs: plan.subs,
        fault,
        cpus: a.list("server-cpus")?,
    };
    floor::start(&cfg).map_err(|e| format!("floor server: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Result<Box<Invocation>, String> {
        let v: Vec<String> = s.split_whitespace().map(String::from).collect();
        match parse(&v)? {
            Parsed::Run(i) => Ok(i),
            Parsed::Help => Err("help".into()),
        }
    }

    #[test]
    fn good() {
        let i = p(
            "fanout --kind sse --sub http://127.0.0.1:1/{chan} --pub=http://127.0.0.1:1/p/{chan} \
            --subs 50000 --channels 10 --messages 20 --warmup 5 --rate 10 --size 64 --json",
        )
        .unwrap();
        assert!(i.json);
        assert_eq!(i.run.plan.messages, 25);
        assert!(i.run.procs >= 3);
        let i =
            p("publish --pub http://127.0.0.1:1/{chan}?m={msg} --pub-query --channels 5 --conns 3")
                .unwrap();
        assert_eq!((i.run.plan.subs, i.run.pub_conns, i.run.procs), (0, 3, 0));
        let i = p("park --sub http://127.0.0.1:1/ --subs 10 --hold 1.5").unwrap();
        assert_eq!((i.run.hold_ms, i.run.plan.messages), (1500, 0));
    }

    #[test]
    fn bad() {
        for s in [
            "fanout",
            "nothing",
            "fanout --kind x --sub http://127.0.0.1/ --pub http://127.0.0.1/",
            "fanout --kind sse --sub http://127.0.0.1/ --pub http://127.0.0.1/ --channels 2",
            "fanout --kind sse --sub http://127.0.0.1/ --pub http://127.0.0.1/ --pub-query",
            "fanout --kind sse --sub http://127.0.0.1/ --pub http://127.0.0.1/ --size 5",
            "fanout --kind sse --sub http://127.0.0.1/ --pub http://127.0.0.1/ --rate -1",
            "fanout --kind sse --sub http://127.0.0.1/ --pub http://127.0.0.1/ --frob 1",
            "fanout --kind icomet-poll --sub http://127.0.0.1/ --pub http://127.0.0.1/",
            "floor --sub http://127.0.0.1/",
            "publish --pub http://8.8.8.8/",
        ] {
            assert!(p(s).is_err(), "{s}");
        }
    }
}
