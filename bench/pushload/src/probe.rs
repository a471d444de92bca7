//! The probe: one client that sends a small request at a steady pace while messages go out, to see how long
//! others wait for a worker that is busy with a fan-out.
//!
//! A wait lasts from sending until the reply is in the probe's socket (the kernel's timestamp), so the probe's own
//! turn on the CPU is not in it. A request that could not be sent because the one before was still out counts with
//! the wait it would have had; otherwise a long stall would be one sample among thousands of short ones.

use crate::hist::Hist;
use crate::http::{HttpParser, Item};
use crate::plan::Plan;
use crate::shared::{Control, Counters, Receipts, Slot, C, EXIT, FINISH};
use crate::sys::{self, Epoll, Fd, EPOLLIN, EPOLLOUT};
use crate::template::{UrlTemplate, Values};
use std::sync::atomic::{AtomicU64, Ordering::*};

/// What the probe does.
pub struct ProbeCfg {
    /// A small page of the server under test.
    pub url: UrlTemplate,
    pub plan: Plan,
    /// From one request to the next, in nanoseconds.
    pub every_ns: u64,
    pub cpu: Option<usize>,
}

/// A reply that takes longer than this is given up.
const TIMEOUT_NS: u64 = 30_000_000_000;

struct Probe<'a> {
    cfg: &'a ProbeCfg,
    receipts: &'a Receipts,
    pub_ts: &'a [AtomicU64],
    /// The longest wait during each message's fan-out, in nanoseconds.
    worst: &'a [AtomicU64],
    /// Waits during fan-outs, and between them.
    during: Hist,
    between: Hist,
    /// The first message that is not known to have ended before the latest request.
    message: usize,
    request: Vec<u8>,
    /// CLOCK_REALTIME - CLOCK_MONOTONIC.
    offset: u64,
}

/// Runs the probe's process. `worst` gets one value per message of the plan.
pub fn run(
    cfg: &ProbeCfg,
    ctl: &Control,
    slot: &'static Slot,
    receipts: &Receipts,
    pub_ts: &[AtomicU64],
    worst: &[AtomicU64],
) -> i32 {
    sys::raise_nofile();
    sys::fine_timers();
    slot.pid.store(sys::pid(), Release);
    if let Some(cpu) = cfg.cpu {
        let _ = sys::pin_to_cpu(cpu);
    }
    slot.ready.store(1, Release);
    let mut request = b"GET ".to_vec();
    cfg.url.render(&mut request, Values::default());
    request.extend_from_slice(format!(" HTTP/1.1\r\nHost: {}\r\n\r\n", cfg.url.host).as_bytes());
    let mut probe = Probe {
        cfg,
        receipts,
        pub_ts,
        worst,
        during: Hist::default(),
        between: Hist::default(),
        message: cfg.plan.warmup as usize,
        request,
        offset: sys::realtime_offset_ns(),
    };
    while ctl.go.load(Acquire) == 0 && ctl.phase() < FINISH {
        sys::sleep_ms(1);
    }
    if let Err(why) = probe.main_loop(ctl) {
        slot.note(&format!("probe: {why}"));
        let mut counters = Counters::default();
        counters.inc(C::probe_errors);
        counters.publish(slot);
    }
    probe.during.store(&slot.latency);
    probe.between.store(&slot.arrival);
    slot.finished.store(1, Release);
    while ctl.phase() < EXIT {
        sys::sleep_ms(2);
    }
    0
}

impl Probe<'_> {
    fn main_loop(&mut self, ctl: &Control) -> Result<(), String> {
        let io = |e: std::io::Error| e.to_string();
        let ep = Epoll::new().map_err(io)?;
        let fd = sys::tcp_connect(None, self.cfg.url.addr).map_err(io)?;
        ep.add(fd, EPOLLIN | EPOLLOUT, 0).map_err(io)?;
        wait(&ep)?;
        sys::socket_error(fd).map_err(io)?;
        ep.modify(fd, EPOLLIN, 0).map_err(io)?;
        sys::enable_rx_timestamps(fd).map_err(io)?;
        let mut due = sys::now_ns();
        while ctl.phase() < FINISH {
            let now = sys::now_ns();
            if due > now {
                sys::sleep_ns(due - now);
            }
            let sent = sys::now_ns();
            let arrived = self.ask(&ep, fd)?;
            self.account(sent, arrived);
            due = arrived.max(sent) + self.cfg.every_ns;
        }
        sys::close(fd);
        Ok(())
    }

    /// One request; returns when its reply was in the socket.
    fn ask(&self, ep: &Epoll, fd: Fd) -> Result<u64, String> {
        let io = |e: std::io::Error| e.to_string();
        if sys::send(fd, &self.request).map_err(io)? != self.request.len() {
            return Err("the request did not fit into the socket".into());
        }
        let mut parser = HttpParser::default();
        let mut buf = [0; 4096];
        loop {
            wait(ep)?;
            let (n, at) = sys::recv_stamped(fd, &mut buf).map_err(io)?;
            let at = at.map_or_else(sys::now_ns, |at| at - self.offset);
            if n == 0 {
                return Err("closed by the server".into());
            }
            let mut input = &buf[..n];
            loop {
                match parser.next(&mut input).map_err(|e| format!("HTTP: {e:?}"))? {
                    Item::NeedMore => break,
                    Item::Head(h) if !(200..300).contains(&h.status) => {
                        return Err(format!("HTTP status {}", h.status));
                    }
                    Item::Head(_) | Item::Data(_) => {}
                    Item::End => return Ok(at),
                }
            }
        }
    }

    /// Records a wait, and those of the requests that should have gone out meanwhile.
    fn account(&mut self, sent: u64, arrived: u64) {
        let mut from = sent;
        loop {
            self.record(from, arrived.saturating_sub(from));
            from += self.cfg.every_ns;
            if from >= arrived {
                return;
            }
        }
    }

    fn record(&mut self, sent: u64, wait: u64) {
        while self.ended(self.message).is_some_and(|end| end < sent) {
            self.message += 1;
        }
        let published = self.pub_ts.get(self.message).map_or(0, |t| t.load(Acquire));
        if published == 0 || published > sent + wait {
            return self.between.record(wait);
        }
        self.during.record(wait);
        if let Some(worst) = self.worst.get(self.message) {
            worst.fetch_max(wait, AcqRel);
        }
    }

    /// When the last subscriber had a message.
    fn ended(&self, message: usize) -> Option<u64> {
        if message as u64 >= self.cfg.plan.messages {
            return None;
        }
        let got: u64 = self.receipts.iter().map(|r| r[message].count()).sum();
        let due = self.cfg.plan.subs_of(self.cfg.plan.at(message as u64).0);
        (got >= due).then(|| self.receipts.iter().map(|r| r[message].last_ns()).max().unwrap_or(0))
    }
}

/// Waits until the socket has something.
fn wait(ep: &Epoll) -> Result<(), String> {
    let end = sys::now_ns() + TIMEOUT_NS;
    let mut events = sys::events(1);
    loop {
        let left = end.saturating_sub(sys::now_ns());
        if left == 0 {
            return Err("no reply".into());
        }
        if ep.wait(&mut events, left).map_err(|e| e.to_string())? > 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Receipt;

    const MS: u64 = 1_000_000;

    #[test]
    fn waits_belong_to_the_fanout_they_touch() {
        let plan = Plan { run: 0, subs: 1, channels: 1, messages: 2, warmup: 0, size: 64 };
        let url = UrlTemplate::parse("http://127.0.0.1:1/", 0).unwrap();
        let cfg = ProbeCfg { url, plan, every_ns: 2 * MS, cpu: None };
        let receipts: Vec<&'static [Receipt]> =
            vec![Box::leak(Box::new([Receipt::default(), Receipt::default()]))];
        let times = [(); 2].map(|()| AtomicU64::new(0));
        let worst = [(); 2].map(|()| AtomicU64::new(0));
        let mut probe = Probe {
            cfg: &cfg,
            receipts: &receipts,
            pub_ts: &times,
            worst: &worst,
            during: Hist::default(),
            between: Hist::default(),
            message: 0,
            request: Vec::new(),
            offset: 0,
        };
        probe.account(100 * MS, 101 * MS);
        assert_eq!((probe.during.count(), probe.between.count()), (0, 1));
        // Message 0 goes out at 105 ms and has not arrived: a wait of 7 ms holds up requests at 106, 108 and 110 ms.
        times[0].store(105 * MS, Release);
        probe.account(104 * MS, 111 * MS);
        assert_eq!((probe.during.count(), probe.between.count()), (4, 1));
        assert_eq!(worst[0].load(Acquire), 7 * MS);
        receipts[0][0].add(112 * MS);
        // It arrived at 112 ms, so a later request waits for nothing; the next message begins a new fan-out.
        probe.account(113 * MS, 114 * MS);
        assert_eq!(probe.between.count(), 2);
        times[1].store(115 * MS, Release);
        probe.account(116 * MS, 117 * MS);
        assert_eq!(worst.map(|w| w.into_inner()), [7 * MS, MS]);
    }
}
