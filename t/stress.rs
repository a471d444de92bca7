//! Everything at once, in rounds: subscribers by every transport who keep a record, publishers by every means, clients that
//! read slowly, vanish and talk nonsense, a zone that is full, while workers are replaced, killed and stopped and nginx is
//! started anew. Each record is checked, and after the last rounds, in which workers live on, memory and descriptors are what
//! they were.
//!
//! `PUSH_STRESS_SECONDS` says for how long (10), `PUSH_STRESS_SEED` makes everybody do the same again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::books::{assert_complete, assert_told, Entry, Mark, Record, Written};
use support::keepers::{self, Keeper, Kept, Ports, Way, END, RESUMABLE};
use support::nginx::{build, has_or_skip, make_certificate};
use support::push::publisher;
use support::random::{self, Random};
use support::tls::{end_tunnels, Tunnel};
use support::wild::{self, misbehave};
use support::writers::{Pen, Writer};
use support::{process, wait, Config, Nginx, Request, Signal};

const WORKERS: usize = 2;
/// How many clients misbehave at a time.
const WILD: u64 = 16;
/// The zone's size, and another one.
const SIZES: [&str; 2] = ["6m", "8m"];
/// Bytes that a worker has for itself when nobody is there. What is in use then takes 3 MB.
const AT_REST: u64 = 16 << 20;
/// With how many messages the channel that fills the zone begins.
const FIRST: usize = 240;

fn config(tls: Option<&Path>, size: &str) -> Config {
    let listen = tls.map_or(String::new(), |dir| {
        let dir = dir.display();
        let listen = match (build().has("http_v2"), build().version()) {
            (true, 1_025_001..) => "http2 on; listen 127.0.0.1:@port2@ ssl sndbuf=16k;",
            (true, _) => "listen 127.0.0.1:@port2@ ssl http2 sndbuf=16k;",
            (false, _) => "listen 127.0.0.1:@port2@ ssl sndbuf=16k;",
        };
        format!("{listen} ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;")
    });
    Config::push(WORKERS)
        .main("worker_shutdown_timeout 2s;")
        .listen("sndbuf=16k")
        .http(&format!("push_shared_memory_size {size}; push_snapshot @dir@/state/messages;"))
        .http("push_channel_id_split_delimiter ',';")
        .http("push_max_message_buffer_length 100000; push_message_timeout 1h;")
        .http("client_body_buffer_size 32k; client_max_body_size 2m;")
        .http("send_timeout 1s; client_header_timeout 2s; client_body_timeout 2s; keepalive_timeout 2s; lingering_timeout 1s;")
        .server(&listen)
        .server("location = /ring { push_publisher; push_channel_id $arg_id; push_max_message_buffer_length 40; }")
        .server(&wild::locations())
        .server(&keepers::locations("push_ping_interval 1s; push_subscriber_timeout 4s;"))
}

/// What has happened.
#[derive(Debug, Default)]
struct Sum {
    published: usize,
    again: usize,
    delivered: usize,
    missed: u64,
    connections: usize,
    /// Gone because the zone was full.
    evicted: u64,
    /// Gone because newer ones have come to a channel that keeps few.
    outnumbered: u64,
    reloads: usize,
    sizes: usize,
    kills: usize,
    stops: usize,
    restarts: usize,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages published ({} attempts more), {} delivered, {} evicted, {} outnumbered, {} told as missed, {} \
             connections of subscribers, {} reloads and {} of another size, {} kills, {} stops, {} restarts",
            self.published,
            self.again,
            self.delivered,
            self.evicted,
            self.outnumbered,
            self.missed,
            self.connections,
            self.reloads,
            self.sizes,
            self.kills,
            self.stops,
            self.restarts
        )
    }
}

struct Soak {
    nginx: Nginx,
    ports: Ports,
    tls: Option<tempfile::TempDir>,
    seed: u64,
    random: Random,
    round: u64,
    sum: Sum,
    /// How many messages of one size the zone held at first.
    room: u64,
}

/// What is done to nginx in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Kill,
    Reload,
    Stop,
    Resize,
    Restart,
    Several,
}

impl Soak {
    fn start(seed: u64) -> Self {
        let tls = has_or_skip("http_ssl").then(|| tempfile::tempdir().expect("a directory"));
        let certificate = tls.as_ref().map(|dir| dir.path().join("tls"));
        certificate.iter().for_each(|dir| make_certificate(dir));
        let nginx = Nginx::start(config(certificate.as_deref(), SIZES[0]));
        fs::create_dir(nginx.dir().join("state")).expect("a new directory");
        let ports = Ports {
            plain: nginx.port(),
            tls: tls.as_ref().map(|_| Tunnel::to(nginx.port2()).port()),
            http2: (tls.is_some() && has_or_skip("http_v2"))
                .then(|| Tunnel::to_http2(nginx.port2()).port()),
        };
        let random = Random::new(seed, 0);
        let mut soak =
            Soak { nginx, ports, tls, seed, random, round: 0, sum: Sum::default(), room: 0 };
        soak.room = soak.room();
        soak
    }

    /// How many messages the zone holds when there is nothing else in it.
    fn room(&self) -> u64 {
        let mut client = self.nginx.client();
        let request = Request::post("/pub?id=room", "r".repeat(16_000));
        for _ in 0..550 {
            // nginx closes a connection on which nothing has come for two seconds.
            let reply = wait::until("an answer", || {
                let reply = client.try_request(&request).ok();
                if reply.is_none() {
                    client = self.nginx.client();
                }
                reply
            });
            reply.expect_status(202);
        }
        let stored = self.nginx.messages("room");
        self.delete("room");
        stored
    }

    fn delete(&self, id: &str) {
        self.nginx.request(&Request::new("DELETE", &publisher(id)));
    }

    /// A random generator for somebody in this round.
    fn random(&self, number: u64) -> Random {
        Random::new(self.seed, (self.round << 16) + number)
    }

    fn id(&self, name: &str) -> String {
        format!("{name}{}", self.round)
    }

    fn keeper<'a>(
        &self,
        over: &'a AtomicBool,
        ways: &[Way],
        names: &[&str],
        number: usize,
    ) -> Keeper<'a> {
        let is_there = |way: &&Way| {
            self.ports.http2.is_some() || !matches!(way, Way::Http2Script | Way::Http2EventSource)
        };
        Keeper {
            ways: ways.iter().filter(is_there).copied().collect(),
            channels: names.iter().map(|name| self.id(name)).collect(),
            slow: false,
            restless: true,
            ports: self.ports,
            over,
            random: self.random(1000 + number as u64),
        }
    }

    /// Who must get everything, and who must get everything or be told.
    fn keepers<'a>(&self, over: &'a AtomicBool) -> [Vec<Keeper<'a>>; 2] {
        let several: Vec<Way> = RESUMABLE.into_iter().filter(|way| *way != Way::Control).collect();
        let mut complete: Vec<(Vec<Way>, Vec<&str>, bool)> = Vec::new();
        let mut told = Vec::new();
        for way in RESUMABLE.into_iter().chain([Way::Stream, Way::Bare]) {
            complete.push((vec![way], vec!["a"], false));
        }
        complete.push((RESUMABLE.to_vec(), vec!["b"], false));
        complete.push((RESUMABLE.to_vec(), vec!["b"], true));
        complete.push((vec![Way::Bare], vec!["b"], true));
        for way in [Way::Control, Way::Meta, Way::EventSource, Way::Stream, Way::LongPoll] {
            complete.push((vec![way], vec!["a", "b"], false));
        }
        complete.push((several.clone(), vec!["a", "b"], false));
        complete.push((several.clone(), vec!["a", "b"], true));
        for way in RESUMABLE.into_iter().chain([Way::Stream, Way::Bare]) {
            told.push((vec![way], vec!["p"], true));
        }
        told.push((RESUMABLE.to_vec(), vec!["p"], false));
        told.push((RESUMABLE.to_vec(), vec!["p"], true));
        told.push((RESUMABLE.to_vec(), vec!["q"], false));
        told.push((RESUMABLE.to_vec(), vec!["q"], true));
        told.push((vec![Way::Stream], vec!["q"], true));
        told.push((vec![Way::Meta], vec!["q"], true));
        told.push((several.clone(), vec!["p", "q"], true));
        told.push((several.clone(), vec!["p", "q"], false));
        let mut number = 0;
        let mut make = |all: Vec<(Vec<Way>, Vec<&str>, bool)>| -> Vec<Keeper<'a>> {
            let keepers = all.into_iter().filter_map(|(ways, names, slow)| {
                number += 1;
                // Half of them, and the others in the next round.
                let is_in = (number as u64 + self.round) & 1 == 0;
                let keeper = Keeper { slow, ..self.keeper(over, &ways, &names, number) };
                Some(keeper).filter(|keeper| is_in && !keeper.ways.is_empty())
            });
            keepers.collect()
        };
        [make(complete), make(told)]
    }

    fn writer<'a>(
        &self,
        number: usize,
        pen: Pen,
        names: &[&str],
        lengths: &'a [usize],
    ) -> Writer<'a> {
        Writer {
            pen,
            port: self.ports.plain,
            location: "/pub",
            channels: names.iter().map(|name| self.id(name)).collect(),
            number,
            lengths,
            first: 0,
            pause: 40,
            random: self.random(2000 + number as u64),
        }
    }

    /// Those of the channels where nothing is lost; and those of a channel that keeps few messages, and of one that fills the
    /// zone.
    fn writers(&self) -> [Vec<Writer<'static>>; 2] {
        const SMALL: &[usize] = &[0, 100, 100, 100, 100, 1000];
        // Some are put into files.
        const FILES: &[usize] = &[0, 0, 100, 100, 100, 100, 100, 100, 100, 300, 300, 1000, 60_000];
        const LARGE: &[usize] = &[1000, 28_000];
        let tls = self.ports.tls.unwrap_or(self.ports.plain);
        [
            vec![
                self.writer(0, Pen::Post, &["a"], FILES),
                Writer { port: tls, ..self.writer(1, Pen::Socket, &["a"], SMALL) },
                self.writer(2, Pen::Control, &["b"], SMALL),
                self.writer(3, Pen::Kept, &["b"], FILES),
                self.writer(4, Pen::Kept, &["a", "b"], FILES),
                self.writer(5, Pen::Socket, &["a", "b"], SMALL),
            ],
            vec![
                Writer { location: "/ring", pause: 5, ..self.writer(6, Pen::Kept, &["p"], SMALL) },
                Writer { first: FIRST, ..self.writer(7, Pen::Socket, &["q"], LARGE) },
            ],
        ]
    }

    /// A round of so long at least, and until everybody has what there is.
    fn round(&mut self, time: Duration, is_disturbed: bool) {
        self.round += 1;
        let acts = if is_disturbed { self.acts(time) } else { Vec::new() };
        let until = Instant::now() + time;
        let over = AtomicBool::new(false);
        let mut kept = [Vec::new(), Vec::new()];
        let mut written = [Vec::new(), Vec::new()];
        let ports = [self.ports.plain, self.ports.plain, self.ports.plain];
        let ports = [&ports[..], self.ports.tls.as_slice()].concat();
        thread::scope(|scope| {
            let at_end = Over(&over);
            for client in 0..WILD {
                let port = ports[client as usize % ports.len()];
                let mut random = self.random(client);
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let _ = misbehave(&mut random, port);
                    }
                });
            }
            let keepers = self.keepers(&over).map(|all| {
                let all = all.into_iter();
                all.map(|keeper| scope.spawn(move || keeper.keep())).collect::<Vec<_>>()
            });
            let writers = self.writers().map(|all| {
                let over = &over;
                let spawn = |writer: Writer<'static>| scope.spawn(move || writer.write(over));
                all.into_iter().map(spawn).collect::<Vec<_>>()
            });
            self.disturb(until, &acts);
            drop(at_end);
            written = writers.map(|all| all.into_iter().map(|one| one.join().unwrap()).collect());
            for (number, name) in ["a", "b", "p", "q"].iter().enumerate() {
                self.writer(END + number, Pen::Post, &[name], &[]).write_one();
            }
            kept = keepers.map(|all| all.into_iter().map(|one| one.join().unwrap()).collect());
        });
        let records = kept.map(|all| self.count_kept(all));
        self.count_written(&written);
        assert_complete(&written[0], &records[0]);
        records[1].iter().for_each(|record| assert_told(&written[1], record));
        self.settle();
    }

    fn count_kept(&mut self, kept: Vec<Kept>) -> Vec<Record> {
        self.sum.connections += kept.iter().map(|kept| kept.connections).sum::<usize>();
        let records: Vec<Record> = kept.into_iter().flat_map(|kept| kept.records).collect();
        self.sum.delivered += records.iter().map(Record::messages).sum::<usize>();
        self.sum.missed += records.iter().map(Record::missed).sum::<u64>();
        records
    }

    fn count_written(&mut self, written: &[Vec<Written>; 2]) {
        for one in written.iter().flatten() {
            self.sum.published += one.acknowledged.len();
            self.sum.again += one.acknowledged.iter().sum::<usize>();
        }
        for one in &written[1] {
            let stored = self.nginx.messages(&one.channels[0]);
            let dropped = (one.acknowledged.len() as u64 + 1).saturating_sub(stored);
            match one.channels[0].starts_with('q') {
                true => self.sum.evicted += dropped,
                false => self.sum.outnumbered += dropped,
            }
        }
    }

    /// Waits until everybody has gone, and checks that they have left nothing in the zone and on disk.
    fn settle(&mut self) {
        for name in ["a", "b", "p", "q"] {
            let id = self.id(name);
            self.nginx.wait_for_subscribers(&id, 0);
            self.nginx.request(&Request::new("DELETE", &publisher(&id))).expect_status(200);
        }
        for id in wild::CHANNELS.into_iter().chain(["lobby"]) {
            self.nginx.wait_for_subscribers(id, 0);
            self.delete(id);
        }
        self.wait_for_settled_workers();
        // Places of more workers than there were at first take a little.
        let room = self.room();
        assert!(room + 4 >= self.room, "{room} of {} after round {}", self.room, self.round);
        eprintln!("round {}: room for {room} of {}; {}", self.round, self.room, self.sum);
    }

    fn disturb(&mut self, until: Instant, acts: &[Act]) {
        let mut acts = acts.iter().copied();
        while Instant::now() < until {
            thread::sleep(self.random.time(1200));
            if let Some(act) = acts.next() {
                self.act(act);
            }
        }
        for act in acts {
            self.act(act);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Kill => self.kill(&[]),
            Act::Reload => {
                self.nginx.reload();
                self.sum.reloads += 1;
            }
            Act::Several => {
                (0..3).for_each(|_| self.nginx.signal(Signal::HUP));
                self.sum.reloads += 1;
            }
            Act::Stop => {
                let stopped = self.random.one_of(&self.nginx.workers());
                process::signal(stopped, Signal::STOP);
                thread::sleep(self.random.time(700));
                if self.random.chance(30) {
                    self.kill(&[stopped]);
                }
                process::signal(stopped, Signal::CONT);
                self.sum.stops += 1;
            }
            Act::Resize => {
                for size in [SIZES[1], SIZES[0]] {
                    let tls = self.tls.as_ref().map(|dir| dir.path().join("tls"));
                    self.nginx.reconfigure(config(tls.as_deref(), size));
                    let old = self.nginx.reload();
                    self.sum.sizes += 1;
                    if self.random.chance(50) {
                        self.nginx.wait_gone(&old);
                    }
                }
            }
            Act::Restart => {
                self.nginx.restart(Signal::QUIT);
                self.sum.restarts += 1;
            }
        }
    }

    /// Kills a worker, but none of these.
    fn kill(&mut self, but: &[i32]) {
        let mut workers = self.nginx.workers();
        workers.retain(|pid| !but.contains(pid));
        if !workers.is_empty() {
            self.nginx.kill_worker(self.random.one_of(&workers));
            self.sum.kills += 1;
        }
    }
}

/// Says that it is over when it is dropped, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a process has when no client is there.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Bytes.
    memory: u64,
    descriptors: usize,
}

impl Rest {
    fn of(pid: i32) -> Self {
        // A worker takes the lock of a directory when it first puts a message there.
        let mut open = process::descriptors(pid);
        // It looks now and then how much memory it has.
        open.retain(|target| !target.ends_with("/lock") && !target.ends_with("/statm"));
        // A sanitizer keeps what is free.
        let memory = if process::is_watched(pid) { 0 } else { process::private_memory(pid) };
        Rest { memory, descriptors: open.len() }
    }
}

/// Panics unless processes have at the end what they had before, with some slack for what the allocator keeps.
fn assert_flat(who: &str, rests: &[Vec<Rest>]) {
    const SLACK: u64 = 8 << 20;
    const BOUND: u64 = 160 << 20;
    const WARM: usize = 10;
    let most = |rests: &[Vec<Rest>]| rests.iter().flatten().map(|rest| rest.memory).max();
    let (before, after) = rests.split_at(rests.len().div_ceil(2));
    let (before, after) = (most(before).unwrap_or_default(), most(after).unwrap_or_default());
    eprintln!("{who}: {} kB at most, then {} kB", before >> 10, after >> 10);
    assert!(before.max(after) < BOUND, "the memory of {who}: {rests:?}");
    // A process takes some rounds to have what it will keep: copies of messages, and what the allocator has for its crowds.
    if rests.len() >= WARM {
        assert!(after <= before + before / 4 + SLACK, "the memory of {who}: {rests:?}");
    }
}

/// Panics unless the check finds something wrong with the record.
fn assert_found(what: &str, check: impl FnOnce() + std::panic::UnwindSafe) {
    assert!(std::panic::catch_unwind(check).is_err(), "not found: {what}");
}

#[test]
fn the_books_show_what_is_wrong() {
    let mark = |number, attempt| Entry::Message(Mark { writer: 1, number, attempt });
    let gap = |missed| Entry::Gap { missed, at_least: false };
    let record = |entries: &[Entry]| Record {
        who: "somebody".to_owned(),
        channels: vec!["a".to_owned()],
        entries: entries.to_vec(),
    };
    // The first attempt of the third message may have been taken or not.
    let written =
        [Written { writer: 1, channels: vec!["a".to_owned()], acknowledged: vec![0, 0, 1, 0] }];
    let all = [mark(0, 0), mark(1, 0), mark(2, 1), mark(3, 0)];
    let more = [mark(0, 0), mark(1, 0), mark(2, 0), mark(2, 1), mark(3, 0)];
    let anew = [&all[..2], &[Entry::Anew], &all].concat();
    assert_complete(&written, &[record(&all), record(&all), record(&anew)]);
    assert_complete(&written, &[record(&more)]);
    for (what, entries) in [
        ("lost", vec![all[0], all[2], all[3]]),
        ("the last is lost", vec![all[0], all[1], all[2]]),
        ("twice", vec![all[0], all[1], all[1], all[2], all[3]]),
        ("late", vec![all[0], all[2], all[1], all[3]]),
        ("a gap", vec![all[0], gap(1), all[1], all[2], all[3]]),
        ("another order before", [&[all[1], Entry::Anew], &all[..]].concat()),
    ] {
        assert_found(what, || assert_complete(&written, &[record(&entries)]));
    }
    assert_found("two orders", || assert_complete(&written, &[record(&all), record(&more)]));
    for entries in [
        vec![all[0], gap(1), all[2], all[3]],
        // Two or three.
        vec![all[0], gap(2), all[3]],
        vec![all[0], gap(3), all[3]],
        vec![all[2], Entry::Anew, all[0], all[1]],
    ] {
        assert_told(&written, &record(&entries));
    }
    for (what, entries) in [
        ("silence", vec![all[0], all[2]]),
        ("too few", vec![all[0], gap(1), all[3]]),
        ("too many", vec![all[0], gap(4), all[3]]),
        ("none was missed", vec![all[0], gap(1), all[1]]),
        ("late", vec![all[1], all[0]]),
        ("twice", vec![all[0], all[0]]),
    ] {
        assert_found(what, || assert_told(&written, &record(&entries)));
    }
}

#[test]
fn whoever_behaves_gets_everything_and_nothing_is_left_behind() {
    let seconds = std::env::var("PUSH_STRESS_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds: u64 = seconds.unwrap_or(10);
    let rounds = (seconds / 10).max(4);
    let calm = (rounds / 3).max(2);
    let time = Duration::from_secs(seconds) / rounds as u32;
    let mut soak = Soak::start(random::seed("PUSH_STRESS_SEED"));
    let mut master = Vec::new();
    for _ in 0..rounds - calm {
        soak.round(time, true);
        soak.wait_for_settled_workers();
        master.push(vec![Rest::of(soak.nginx.master())]);
    }
    assert_flat("the master", &master);
    soak.live_on(time, calm);
    soak.end();
    eprintln!("{}", soak.sum);
}

impl Soak {
    /// Rounds in which no worker ends: their memory and descriptors stay as they are.
    fn live_on(&mut self, time: Duration, rounds: u64) {
        let old = self.nginx.reload();
        self.nginx.wait_gone(&old);
        let workers = self.nginx.workers();
        let connections = || workers.iter().map(|pid| process::connections(*pid)).sum::<usize>();
        let mut client = self.nginx.client();
        client.request(&Request::get(&publisher("room")));
        assert_eq!(connections(), 1);
        let ends = process::tcp_ends(&client.socket().unwrap()).unwrap();
        assert_eq!(ends.lines().count(), 2, "{ends}");
        drop(client);
        let mut rests = Vec::new();
        for _ in 0..rounds {
            self.round(time, false);
            assert_eq!(self.nginx.workers(), workers, "a worker has gone by itself");
            end_tunnels();
            wait::until_true("the end of all connections", || connections() == 0);
            wait::until_true("the end of what nobody uses", || {
                workers.iter().all(|pid| Rest::of(*pid).memory < AT_REST)
            });
            rests.push(workers.iter().map(|pid| Rest::of(*pid)).collect::<Vec<_>>());
        }
        let descriptors =
            |rest: &Vec<Rest>| -> Vec<usize> { rest.iter().map(|rest| rest.descriptors).collect() };
        assert_eq!(rests.last().map(descriptors), rests.first().map(descriptors));
        assert_flat("a worker", &rests);
    }

    /// Ends nginx, and starts it once more: the first message in a file makes the new workers look for those of dead ones.
    fn end(&mut self) {
        self.nginx.restart(Signal::QUIT);
        self.nginx.publish("last", "f".repeat(100_000));
        self.delete("last");
        wait::until_true("the end of all files", || self.nginx.spooled().is_empty());
    }

    fn wait_for_settled_workers(&self) {
        wait::until_true("the end of the old workers", || self.nginx.workers().len() == WORKERS);
    }

    /// What is done in a round: everything at first, and then what comes.
    fn acts(&mut self, time: Duration) -> Vec<Act> {
        const ALL: [Act; 6] =
            [Act::Kill, Act::Reload, Act::Stop, Act::Resize, Act::Several, Act::Restart];
        const OFTEN: [Act; 8] = [
            Act::Kill,
            Act::Kill,
            Act::Reload,
            Act::Reload,
            Act::Stop,
            Act::Stop,
            Act::Several,
            Act::Resize,
        ];
        let count = (time.as_secs() as usize).max(3);
        let done = 3 * (self.round as usize - 1);
        let mut acts: Vec<Act> = ALL.into_iter().skip(done).take(3).collect();
        while acts.len() < count {
            acts.push(self.random.one_of(&OFTEN));
        }
        acts
    }
}
