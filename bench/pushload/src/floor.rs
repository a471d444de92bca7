//! The physical reference: the cheapest server that can do the job.
//!
//! It holds raw TCP connections in epoll and, for every message, writes one block of prepared
//! bytes to each subscriber with plain send(2). No timers, no buffers, no real HTTP parsing.
//! It speaks every subscriber kind, so it also serves as the test bed for the client code.

use crate::bytes::{find, parse_u64, push_u64};
use crate::client::Kind;
use crate::sys::{self, Epoll, Fd, EPOLLIN, EPOLLOUT};
use crate::ws;
use std::io;
use std::rc::Rc;

/// Damage done on purpose, to test that the client notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// One message is not sent to one subscriber.
    Drop,
    /// One message is sent twice to one subscriber.
    Dup,
    /// Two messages change places for one subscriber.
    Swap,
    /// One byte of one message is changed.
    Corrupt,
    /// Every block goes out in two halves, the second after all first halves.
    Split,
    /// Long polls: every reply closes the connection.
    Close,
}

impl Fault {
    /// The fault of this name.
    pub fn parse(s: &str) -> Option<Fault> {
        Some(match s {
            "none" => Fault::None,
            "drop" => Fault::Drop,
            "dup" => Fault::Dup,
            "swap" => Fault::Swap,
            "corrupt" => Fault::Corrupt,
            "split" => Fault::Split,
            "close" => Fault::Close,
            _ => return None,
        })
    }
}

/// How the floor server runs.
#[derive(Clone)]
pub struct FloorCfg {
    pub kind: Kind,
    pub workers: u32,
    pub channels: u32,
    pub subs: u32,
    pub fault: Fault,
    pub cpus: Vec<usize>,
}

/// A floor server that runs.
pub struct Floor {
    pub pids: Vec<i32>,
    pub sub_port: u16,
    pub pub_port: u16,
}

/// The message with this sequence number is the one damaged.
const FAULT_SEQ: usize = 5;
const LISTEN: u64 = u64::MAX;
const PUB_LISTEN: u64 = u64::MAX - 1;
const RELAY: u64 = u64::MAX - 2;
const EPOLLEXCLUSIVE: u32 = 1 << 28;

/// Forks the server's processes.
pub fn start(cfg: &FloorCfg) -> io::Result<Floor> {
    let (listen, sub_port) = sys::tcp_listen(4096)?;
    let (pub_listen, pub_port) = sys::tcp_listen(64)?;
    let mut relays = Vec::new();
    for _ in 1..cfg.workers {
        relays.push(sys::seqpacket_pair(4 << 20)?);
    }
    let mut pids = Vec::new();
    for w in 0..cfg.workers {
        let tx: Vec<Fd> = if w == 0 { relays.iter().map(|r| r.0).collect() } else { Vec::new() };
        let rx = (w > 0).then(|| relays[w as usize - 1].1);
        let c = cfg.clone();
        pids.push(sys::fork(move || {
            match Worker::new(c, w, listen, (w == 0).then_some(pub_listen), tx, rx) {
                Ok(mut w) => w.run(),
                Err(e) => {
                    eprintln!("floor: {e}");
                    1
                }
            }
        })?);
    }
    for fd in [listen, pub_listen].into_iter().chain(relays.into_iter().flat_map(|r| [r.0, r.1])) {
        sys::close(fd);
    }
    Ok(Floor { pids, sub_port, pub_port })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    New,
    Sub,
    Pub,
}

struct Conn {
    fd: Fd,
    role: Role,
    chan: u32,
    /// Polls: the next message to send.
    next: u32,
    inbuf: Vec<u8>,
    out: Vec<u8>,
}

#[derive(Default)]
struct Channel {
    subs: Vec<u32>,
    count: usize,
    /// Polls only: what was published, ready to send.
    history: Vec<Rc<[u8]>>,
    /// Fault::Swap: the block held back.
    held: Option<Rc<[u8]>>,
}

struct Worker {
    cfg: FloorCfg,
    ep: Epoll,
    listen: Fd,
    quota: usize,
    open: usize,
    pub_listen: Option<Fd>,
    tx: Vec<Fd>,
    rx: Option<Fd>,
    conns: Vec<Conn>,
    free: Vec<u32>,
    channels: Vec<Channel>,
    buf: Vec<u8>,
}

impl Worker {
    fn new(
        cfg: FloorCfg,
        index: u32,
        listen: Fd,
        pub_listen: Option<Fd>,
        tx: Vec<Fd>,
        rx: Option<Fd>,
    ) -> io::Result<Worker> {
        sys::raise_nofile();
        if let Some(&cpu) = cfg.cpus.get(index as usize % cfg.cpus.len().max(1)) {
            sys::pin_to_cpu(cpu)?;
        }
        let ep = Epoll::new()?;
        ep.add(listen, EPOLLIN | EPOLLEXCLUSIVE, LISTEN)?;
        if let Some(fd) = pub_listen {
            ep.add(fd, EPOLLIN, PUB_LISTEN)?;
        }
        if let Some(fd) = rx {
            ep.add(fd, EPOLLIN, RELAY)?;
        }
        let quota = cfg.subs.div_ceil(cfg.workers) as usize;
        let channels = (0..cfg.channels).map(|_| Channel::default()).collect();
        Ok(Worker {
            ep,
            listen,
            quota,
            open: 0,
            pub_listen,
            tx,
            rx,
            conns: Vec::with_capacity(quota + 64),
            free: Vec::new(),
            channels,
            buf: vec![0; 1 << 20],
            cfg,
        })
    }

    fn run(&mut self) -> i32 {
        let mut events = sys::events(1024);
        loop {
            let n = match self.ep.wait(&mut events, 3_600_000_000_000) {
                Ok(n) => n,
                Err(_) => return 1,
            };
            for e in &events[..n] {
                let (ev, data) = (e.events, e.u64);
                match data {
                    LISTEN => self.accept(),
                    PUB_LISTEN => {
                        if let Some(listen) = self.pub_listen {
                            while let Ok(fd) = sys::accept(listen) {
                                self.add(fd, Role::Pub);
                            }
                        }
                    }
                    RELAY => self.relayed(),
                    i => self.event(i as usize, ev),
                }
            }
        }
    }

    fn accept(&mut self) {
        // A few at a time, so that workers share the load.
        for _ in 0..16 {
            if self.open >= self.quota {
                // Full: leave the rest to the other workers.
                let _ = self.ep.remove(self.listen);
                return;
            }
            match sys::accept(self.listen) {
                Ok(fd) => {
                    self.open += 1;
                    self.add(fd, Role::New);
                }
                Err(_) => return,
            }
        }
    }

    fn add(&mut self, fd: Fd, role: Role) {
        sys::set_nodelay(fd);
        let c = Conn { fd, role, chan: 0, next: 0, inbuf: Vec::new(), out: Vec::new() };
        let i = match self.free.pop() {
            Some(i) => {
                self.conns[i as usize] = c;
                i
            }
            None => {
                self.conns.push(c);
                self.conns.len() as u32 - 1
            }
        };
        let _ = self.ep.add(fd, EPOLLIN, i as u64);
    }

    fn drop_conn(&mut self, i: usize) {
        let c = &mut self.conns[i];
        if c.fd < 0 {
            return;
        }
        sys::close(c.fd);
        c.fd = -1;
        let (role, chan) = (c.role, c.chan as usize);
        if role != Role::Pub {
            if self.open == self.quota {
                let _ = self.ep.add(self.listen, EPOLLIN | EPOLLEXCLUSIVE, LISTEN);
            }
            self.open -= 1;
        }
        if role == Role::Sub {
            self.channels[chan].subs.retain(|&s| s != i as u32);
        }
        self.free.push(i as u32);
    }

    fn event(&mut self, i: usize, ev: u32) {
        if self.conns[i].fd < 0 {
            return;
        }
        if ev & EPOLLOUT != 0 {
            let c = &mut self.conns[i];
            match sys::send(c.fd, &c.out) {
                Ok(n) => {
                    c.out.drain(..n);
                    if c.out.is_empty() {
                        c.out = Vec::new();
                        let _ = self.ep.modify(c.fd, EPOLLIN, i as u64);
                    }
                }
                Err(e) if sys::would_block(&e) => {}
                Err(_) => return self.drop_conn(i),
            }
        }
        if ev & !EPOLLOUT == 0 {
            return;
        }
        let mut buf = std::mem::take(&mut self.buf);
        match sys::recv(self.conns[i].fd, &mut buf) {
            Ok(0) => self.drop_conn(i),
            Ok(n) => self.input(i, &buf[..n]),
            Err(e) if sys::would_block(&e) => {}
            Err(_) => self.drop_conn(i),
        }
        self.buf = buf;
    }

    fn input(&mut self, i: usize, data: &[u8]) {
        if self.conns[i].role == Role::Sub && !self.cfg.kind.is_poll() {
            return; // pongs and the like
        }
        if self.conns[i].inbuf.is_empty() {
            let used = self.requests(i, data);
            if used < data.len() && self.conns[i].fd >= 0 {
                self.conns[i].inbuf = data[used..].to_vec();
            }
        } else {
            let mut buf = std::mem::take(&mut self.conns[i].inbuf);
            buf.extend_from_slice(data);
            let used = self.requests(i, &buf);
            if used < buf.len() && self.conns[i].fd >= 0 {
                buf.drain(..used);
                self.conns[i].inbuf = buf;
            }
        }
    }

    /// Handles the complete requests in `data`; returns how much was used.
    fn requests(&mut self, i: usize, data: &[u8]) -> usize {
        let mut at = 0;
        while let Some(end) = find(&data[at..], b"\r\n\r\n") {
            let head = &data[at..at + end];
            let body_at = at + end + 4;
            let chan = number_after(head, b"c=").unwrap_or(0) as u32;
            if chan >= self.cfg.channels {
                self.drop_conn(i);
                return data.len();
            }
            if self.conns[i].role == Role::Pub {
                let len = number_after(head, b"Content-Length: ").unwrap_or(0) as usize;
                if data.len() - body_at < len {
                    return at;
                }
                self.publish(chan, &data[body_at..body_at + len]);
                self.send(i, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                at = body_at + len;
            } else {
                self.subscribe(i, chan, head);
                at = body_at;
            }
        }
        at
    }

    fn subscribe(&mut self, i: usize, chan: u32, head: &[u8]) {
        let kind = self.cfg.kind;
        let c = &mut self.conns[i];
        c.role = Role::Sub;
        c.chan = chan;
        match kind {
            Kind::LongPoll => c.next = number_after(head, b"If-None-Match: ").unwrap_or(0) as u32,
            Kind::IcometPoll => {
                c.next = (number_after(head, b"seq=").unwrap_or(1) as u32).saturating_sub(1)
            }
            _ => {}
        }
        let ch = &mut self.channels[chan as usize];
        if kind.is_poll() {
            match ch.history.get(c.next as usize).cloned() {
                Some(reply) => self.send(i, &reply),
                None => {
                    ch.subs.push(i as u32);
                    if kind == Kind::IcometPoll {
                        // Like icomet: a parked poller gets the head of its reply at once.
                        self.send(i, CHUNKED_HEAD);
                    }
                }
            }
            return;
        }
        ch.subs.push(i as u32);
        let answer: &[u8] = match kind {
            Kind::Sse => b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
            Kind::Ws => {
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            }
            _ => CHUNKED_HEAD,
        };
        self.send(i, answer);
    }

    fn relayed(&mut self) {
        let Some(rx) = self.rx else { return };
        let mut buf = std::mem::take(&mut self.buf);
        if let Ok(n) = sys::recv(rx, &mut buf) {
            if let Some((&chan, msg)) = buf[..n].split_first_chunk() {
                self.fan_out(u32::from_ne_bytes(chan), msg);
            }
        }
        self.buf = buf;
    }

    fn publish(&mut self, chan: u32, msg: &[u8]) {
        if !self.tx.is_empty() {
            let mut packet = chan.to_ne_bytes().to_vec();
            packet.extend_from_slice(msg);
            for &fd in &self.tx {
                let _ = sys::send(fd, &packet);
            }
        }
        self.fan_out(chan, msg);
    }

    fn fan_out(&mut self, chan: u32, msg: &[u8]) {
        let ch = &mut self.channels[chan as usize];
        let seq = ch.count;
        ch.count += 1;
        let block = self.frame(seq, msg);
        let poll = self.cfg.kind.is_poll();
        let ch = &mut self.channels[chan as usize];
        // Pollers leave the list when served; streams stay.
        let subs = std::mem::take(&mut ch.subs);
        if poll {
            ch.history.push(block.clone());
        }
        match self.cfg.fault {
            Fault::Split => {
                let half = block.len() / 2;
                for &s in &subs {
                    let skip = self.head_sent();
                    self.send(s as usize, &block[skip..half.max(skip)]);
                }
                for &s in &subs {
                    self.send(s as usize, &block[half.max(self.head_sent())..]);
                }
            }
            Fault::None | Fault::Close => {
                let skip = self.head_sent();
                for &s in &subs {
                    self.send(s as usize, &block[skip..]);
                }
            }
            fault => {
                for (k, &s) in subs.iter().enumerate() {
                    if k == 0 {
                        self.send_damaged(s as usize, chan, seq, &block, fault);
                    } else {
                        self.send(s as usize, &block);
                    }
                }
            }
        }
        if !poll {
            self.channels[chan as usize].subs = subs;
        }
    }

    /// A parked icomet poller has the head of its reply already.
    fn head_sent(&self) -> usize {
        if self.cfg.kind == Kind::IcometPoll {
            CHUNKED_HEAD.len()
        } else {
            0
        }
    }

    fn send_damaged(&mut self, i: usize, chan: u32, seq: usize, block: &Rc<[u8]>, fault: Fault) {
        match fault {
            Fault::Drop if seq == FAULT_SEQ => {}
            Fault::Dup if seq == FAULT_SEQ => {
                self.send(i, block);
                self.send(i, block);
            }
            Fault::Swap if seq == FAULT_SEQ => {
                self.channels[chan as usize].held = Some(block.clone())
            }
            Fault::Swap if seq == FAULT_SEQ + 1 => {
                self.send(i, block);
                if let Some(b) = self.channels[chan as usize].held.take() {
                    self.send(i, &b);
                }
            }
            Fault::Corrupt if seq == FAULT_SEQ => {
                let mut b = block.to_vec();
                // In the middle of the padding.
                if let Some(p) = find(&b, b"xxxx") {
                    b[p + 1] = b'y';
                }
                self.send(i, &b);
            }
            _ => self.send(i, block),
        }
    }

    /// The bytes that deliver a message, the same for every subscriber.
    fn frame(&self, seq: usize, msg: &[u8]) -> Rc<[u8]> {
        let mut b = Vec::with_capacity(msg.len() + 256);
        let close = self.cfg.fault == Fault::Close;
        match self.cfg.kind {
            Kind::Chunked => push_chunk(&mut b, msg),
            Kind::Sse => {
                b.extend_from_slice(b"id: ");
                push_u64(&mut b, seq as u64);
                b.extend_from_slice(b"\ndata: ");
                b.extend_from_slice(msg);
                b.extend_from_slice(b"\n\n");
            }
            Kind::Ws => {
                ws::push_server_head(&mut b, ws::OP_TEXT, msg.len());
                b.extend_from_slice(msg);
            }
            Kind::LongPoll => {
                b.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n");
                if close {
                    b.extend_from_slice(b"Connection: close\r\n");
                } else {
                    b.extend_from_slice(b"Content-Length: ");
                    push_u64(&mut b, msg.len() as u64);
                    b.extend_from_slice(b"\r\n");
                }
                b.extend_from_slice(b"Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\nEtag: ");
                push_u64(&mut b, seq as u64 + 1);
                b.extend_from_slice(b"\r\n\r\n");
                b.extend_from_slice(msg);
            }
            Kind::IcometStream | Kind::IcometPoll => {
                let mut j = b"{\"type\":\"data\",\"cname\":\"floor\",\"seq\":".to_vec();
                push_u64(&mut j, seq as u64 + 1);
                j.extend_from_slice(b",\"content\":\"");
                j.extend_from_slice(msg);
                j.extend_from_slice(b"\"}\n");
                if self.cfg.kind == Kind::IcometPoll {
                    b.extend_from_slice(CHUNKED_HEAD);
                    push_chunk(&mut b, &j);
                    b.extend_from_slice(b"0\r\n\r\n");
                } else {
                    push_chunk(&mut b, &j);
                }
            }
        }
        b.into()
    }

    fn send(&mut self, i: usize, data: &[u8]) {
        let c = &mut self.conns[i];
        if c.fd < 0 {
            return;
        }
        if !c.out.is_empty() {
            return c.out.extend_from_slice(data);
        }
        let n = match sys::send(c.fd, data) {
            Ok(n) => n,
            Err(e) if sys::would_block(&e) => 0,
            Err(_) => return, // the read side will see it
        };
        if n < data.len() {
            c.out = data[n..].to_vec();
            let _ = self.ep.modify(c.fd, EPOLLIN | EPOLLOUT, i as u64);
        } else if self.cfg.fault == Fault::Close && c.role == Role::Sub {
            self.drop_conn(i);
        }
    }
}

const CHUNKED_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";

fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The decimal number right after the first `key`.
fn number_after(hay: &[u8], key: &[u8]) -> Option<u64> {
    let at = find(hay, key)? + key.len();
    let rest = &hay[at..];
    let n = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    parse_u64(&rest[..n])
}
