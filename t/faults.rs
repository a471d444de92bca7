//! Workers that die, or stop for a while, at every point of what they do; with a module that was built with the feature
//! `faults` (`make test-faults`).
//!
//! `PUSH_FAULTS_POINTS` says how many points are tried, drawn at random (all), `PUSH_FAULTS_PAUSE` for how many
//! milliseconds a worker stops (200), and `PUSH_FAULTS_SEED` repeats the order of a run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use support::process::{self, Signal};
use support::push::{publisher, subscriber};
use support::random::{self, Random};
use support::streams::{self, Kind};
use support::{load, wait, Client, Config, Nginx, Request};

/// What the module's register holds, in words of 8 bytes (`src/nginx/faults.rs`).
mod register {
    pub const ORDER: u64 = 0;
    pub const POINT: u64 = 1;
    pub const COUNTDOWN: u64 = 2;
    pub const VICTIM: u64 = 3;
    pub const IS_CHECKING: u64 = 4;
    pub const CHECKS: u64 = 5;
    pub const DAMAGES: u64 = 6;
    pub const WALL: u64 = 7;
    pub const MONO: u64 = 8;
    pub const THEN: u64 = 9;
    pub const FIRST_POINT: u64 = 16;
    pub const POINTS: u64 = 2048;
    pub const POINT_WORDS: u64 = 12;
}

/// What is to happen to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Die = 1,
    Stop = 2,
}

/// The register of a running nginx.
struct Register(File);

/// A point that some worker has come to.
struct Point {
    number: u64,
    passes: u64,
    name: String,
}

impl Register {
    /// Makes a register, and has the workers use it.
    fn of(nginx: &Nginx) -> Self {
        let path = nginx.dir().join("push-faults");
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        let words = register::FIRST_POINT + register::POINTS * register::POINT_WORDS;
        file.set_len(words * 8).unwrap();
        nginx.wait_gone(&nginx.reload());
        let log = nginx.error_log();
        assert!(log.contains("faults can be ordered"), "not a build with `faults`:\n{log}");
        Register(file)
    }

    fn get(&self, word: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, word * 8).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, word: u64, value: u64) {
        self.0.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
    }

    fn points(&self) -> Vec<Point> {
        let point = |number| {
            let first = register::FIRST_POINT + number * register::POINT_WORDS;
            let mut name = [0; 8 * (register::POINT_WORDS as usize - 2)];
            self.0.read_exact_at(&mut name, (first + 2) * 8).unwrap();
            let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
            Point { number, passes: self.get(first + 1), name }
        };
        (0..register::POINTS).map(point).filter(|point| point.passes > 0).collect()
    }

    fn point(&self, name: &str) -> Option<Point> {
        self.points().into_iter().find(|point| point.name.ends_with(name))
    }

    /// Has something happen to the worker that comes to the point as the `countdown`th from now on.
    /// Afterwards, if there is a point `then`, it happens there too.
    fn order(&self, order: Order, point: u64, countdown: u64, then: Option<u64>) {
        self.set(register::VICTIM, 0);
        self.set(register::THEN, then.map_or(0, |number| number + 1));
        self.set(register::POINT, point);
        self.set(register::COUNTDOWN, countdown);
        self.set(register::ORDER, order as u64);
    }

    /// The worker that it has happened to.
    fn victim(&self) -> Option<i32> {
        let pid = self.get(register::VICTIM);
        (pid != 0).then(|| i32::try_from(pid).unwrap())
    }

    /// Takes the order back, unless it has been obeyed.
    fn withdraw(&self) {
        self.set(register::ORDER, 0);
    }
}

fn new_random() -> Random {
    Random::new(random::seed("PUSH_FAULTS_SEED"), 0)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

const WORKERS: usize = 3;
/// Channels whose messages are not accounted for.
const WILD: [&str; 4] = ["w0", "w1", "w2", "w3"];
/// One whose name does not fit into a block.
const LONG: &str =
    "wild-with-a-name-of-more-than-seventy-bytes-so-that-it-goes-on-in-a-block-of-its-own-in-the-zone";
/// Where they are used, each in another way.
const PLACES: [&str; 6] = ["few", "brief", "received", "large", "transient", "last"];

fn config() -> Config {
    let location = |name: &str, directives: &str| {
        format!("location /{name} {{ push_pubsub; push_channel_id $arg_id; {directives} }}")
    };
    Config::push(WORKERS)
        .http("push_shared_memory_size 400k; push_channel_id_split_delimiter ',';")
        .http("push_max_message_buffer_length 1000; push_message_timeout 1h; push_channel_timeout 1s;")
        .http("client_body_buffer_size 8k; keepalive_timeout 2s;")
        .server(&location("few", "push_max_message_buffer_length 3;"))
        .server(&location("brief", "push_message_timeout 1s;"))
        .server(&location("received", "push_delete_oldest_received_message on;"))
        .server(&location("large", "client_body_in_file_only clean;"))
        .server(&location("transient", "push_store_messages off;"))
        .server(&location("last", "push_subscriber_concurrency last;"))
}

/// Uses channels in all ways until it is over. Broken connections are no surprise.
fn disturb(mut random: Random, port: u16, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let _ = act(&mut random, port);
    }
}

fn act(random: &mut Random, port: u16) -> io::Result<()> {
    let mut client = Client::try_connect(port)?;
    for _ in 0..8 {
        let place = random.one_of(&PLACES);
        let id = random.one_of(&WILD);
        let more = if random.below(4) == 0 { format!(",w1,{LONG}") } else { String::new() };
        let target = format!("/{place}?id={id}{more}");
        let length = random.one_of(&[10, 200, 3000]);
        let request = match random.below(16) {
            0..=8 => Request::post(&target, "w".repeat(length)),
            9 => Request::new("DELETE", &target),
            10 => Request::get(&publisher(id)),
            // These wait in the zone's books, and are gone.
            11 | 12 => return wait_a_moment(random, client, &from_the_future(&target)),
            13 => {
                let request = Request::get(&target).header("Accept", "text/event-stream");
                return wait_a_moment(random, client, &request);
            }
            _ => return wait_a_moment(random, client, &Request::get(&target)),
        };
        let response = client.try_request(&request)?;
        assert!(response.status < 500 || response.status == 507, "{}", response.head);
    }
    Ok(())
}

fn from_the_future(target: &str) -> Request {
    Request::get(target)
        .header("If-Modified-Since", "Fri, 31 Dec 2100 23:59:59 GMT")
        .header("If-None-Match", "0")
}

fn wait_a_moment(random: &mut Random, mut client: Client, request: &Request) -> io::Result<()> {
    client.try_send_bytes(&request.to_bytes())?;
    thread::sleep(random.time(50));
    Ok(())
}

/// Publishes to two channels until it is over, while clients of several kinds follow them; then everything must have
/// arrived.
struct Record {
    ids: [String; 2],
    over: AtomicBool,
}

impl Record {
    fn new(round: usize) -> Self {
        let ids = [0, 1].map(|channel| format!("record-{round}-{channel}"));
        Record { ids, over: AtomicBool::new(false) }
    }

    /// Does something meanwhile, and checks the record.
    fn keep(&self, nginx: &mut Nginx, act: impl FnOnce(&mut Nginx)) {
        const KINDS: [Kind; 3] = [Kind::EventSource, Kind::WebSocket, Kind::JsonLines];
        let port = nginx.port();
        let both = self.ids.join(",");
        let lists = [self.ids[0].as_str(), self.ids[1].as_str(), both.as_str()];
        let (acknowledged, received) = thread::scope(|scope| {
            let followers = lists.map(|list| {
                let streams =
                    KINDS.map(|kind| scope.spawn(move || streams::follow(kind, port, list)));
                let poll = scope.spawn(move || load::follow(port, list));
                streams.into_iter().chain([poll]).collect::<Vec<_>>()
            });
            let publishers = [0, 1].map(|channel| {
                let id = &self.ids[channel];
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    while !self.over.load(Ordering::Relaxed) {
                        let name = format!("{id}-{}", acknowledged.len());
                        acknowledged.extend(load::publish(port, id, &name, 1));
                        thread::sleep(Duration::from_millis(10));
                    }
                    acknowledged
                })
            });
            act(nginx);
            self.over.store(true, Ordering::Relaxed);
            let acknowledged = publishers.map(|publisher| publisher.join().unwrap());
            self.ids.iter().for_each(|id| load::publish_end(port, id));
            let received = followers
                .map(|group| group.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>());
            (acknowledged, received)
        });
        load::assert_complete(&acknowledged[..1], &received[0]);
        load::assert_complete(&acknowledged[1..], &received[1]);
        load::assert_complete(&acknowledged, &received[2]);
        for id in &self.ids {
            nginx.wait_for_subscribers(id, 0);
            nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
        }
    }
}

fn spawn_disturbers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    random: &mut Random,
    port: u16,
    over: &'scope AtomicBool,
) {
    let seed = random.below(usize::MAX) as u64;
    for number in 0..6 {
        let random = Random::new(seed, number);
        scope.spawn(move || disturb(random, port, over));
    }
}

fn assert_undamaged(nginx: &Nginx, register: &Register) {
    if register.get(register::DAMAGES) > 0 {
        let log = nginx.error_log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("damaged")).collect();
        panic!("{}", lines.join("\n"));
    }
    assert!(register.get(register::CHECKS) > 0, "nothing was verified");
}

/// How many messages of 3000 bytes the zone holds when there is nothing else in it.
fn room(nginx: &Nginx) -> u64 {
    for _ in 0..200 {
        nginx.request(&Request::post("/pub?id=room", "r".repeat(3000))).expect_status(202);
    }
    let stored = nginx.messages("room");
    nginx.request(&Request::new("DELETE", "/pub?id=room")).expect_status(200);
    stored
}

/// Lets workers die or stop at every point while everything goes on.
fn walk(order: Order) {
    let pause = Duration::from_millis(number("PUSH_FAULTS_PAUSE").unwrap_or(200));
    let mut random = new_random();
    let mut nginx = Nginx::start(config());
    let register = Register::of(&nginx);
    let room_before = room(&nginx);
    nginx.tolerate("exited on signal 9");
    // The master says so when it frees the lock of a worker that died holding it.
    nginx.tolerate("was locked by");
    register.set(register::IS_CHECKING, 1);
    let over = AtomicBool::new(false);
    let mut reached: BTreeMap<String, bool> = BTreeMap::new();
    thread::scope(|scope| {
        let port = nginx.port();
        spawn_disturbers(scope, &mut random, port, &over);
        // Which points there are.
        Record::new(0).keep(&mut nginx, |nginx| {
            for _ in 0..4 {
                thread::sleep(Duration::from_millis(500));
                let old = nginx.reload();
                nginx.wait_gone(&old);
            }
        });
        let mut points = register.points();
        random.shuffle(&mut points);
        points.truncate(number("PUSH_FAULTS_POINTS").map_or(usize::MAX, |count| count as usize));
        for (round, chunk) in points.chunks(10).enumerate() {
            Record::new(1 + round).keep(&mut nginx, |nginx| {
                for point in chunk {
                    let countdown = 1 + random.below(point.passes.clamp(1, 10) as usize) as u64;
                    register.order(order, point.number, countdown, None);
                    let is_reached = await_victim(nginx, &register, pause);
                    reached.insert(point.name.clone(), is_reached);
                }
            });
            assert_undamaged(&nginx, &register);
        }
        over.store(true, Ordering::Relaxed);
    });
    for id in WILD.into_iter().chain([LONG]) {
        nginx.wait_for_subscribers(id, 0);
        nginx.request(&Request::new("DELETE", &publisher(id)));
    }
    let missed: Vec<&String> =
        reached.iter().filter(|(_, reached)| !**reached).map(|(name, _)| name).collect();
    eprintln!(
        "{order:?}: {} points, {} of them not reached again: {missed:?}; the zone was verified {} times",
        reached.len(),
        missed.len(),
        register.get(register::CHECKS),
    );
    assert!(missed.len() * 5 <= reached.len(), "too few points were reached");
    // Channels that had nobody and nothing go by themselves.
    wait::until_true("room for as much as before", || room(&nginx) + 2 >= room_before);
    assert_undamaged(&nginx, &register);
    // Nor are there files without messages, once their workers are gone and others have come.
    for _ in 0..2 {
        let old = nginx.reload();
        nginx.wait_gone(&old);
    }
    wait::until_true("an end of what was left", || nginx.spooled().is_empty());
}

/// Waits until it has happened to a worker, and makes it good; false if no worker comes to the point.
fn await_victim(nginx: &mut Nginx, register: &Register, pause: Duration) -> bool {
    let begin = Instant::now();
    let mut has_reloaded = false;
    loop {
        if let Some(victim) = register.victim() {
            // It says who it is before it dies or stops.
            wait::until_true("its death or stop", || {
                process::is_stopped(victim) || !process::is_running(victim)
            });
            if process::is_running(victim) {
                thread::sleep(pause);
                process::signal(victim, Signal::CONT);
            }
            wait::until_true("workers", || nginx.workers().len() >= WORKERS);
            return true;
        }
        // Some are on the way to the end.
        if begin.elapsed() > Duration::from_millis(700) && !has_reloaded {
            register.set(register::COUNTDOWN, 1);
            nginx.signal(Signal::HUP);
            has_reloaded = true;
        }
        if begin.elapsed() > Duration::from_secs(2) {
            register.withdraw();
            thread::sleep(Duration::from_millis(1));
            match register.victim() {
                Some(_) => continue,
                None => return false,
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_worker_may_die_at_every_point() {
    walk(Order::Die);
}

#[test]
fn a_worker_may_stop_at_every_point() {
    walk(Order::Stop);
}

/// A worker dies while it changes the zone, and the next one while it puts the zone in order.
#[test]
fn a_worker_may_die_in_the_middle_of_a_recovery() {
    let mut random = new_random();
    let mut nginx = Nginx::start(config());
    let register = Register::of(&nginx);
    nginx.tolerate("exited on signal 9");
    nginx.tolerate("was locked by");
    register.set(register::IS_CHECKING, 1);
    let over = AtomicBool::new(false);
    let mut deaths = 0;
    thread::scope(|scope| {
        spawn_disturbers(scope, &mut random, nginx.port(), &over);
        let mut tried = HashSet::new();
        for round in 0.. {
            let points = register.points();
            let is_recovery = |point: &&Point| point.name.contains("zone/recover.rs");
            let mut new: Vec<&Point> = points.iter().filter(is_recovery).collect();
            new.retain(|point| tried.insert(point.number));
            // Where workers come all the time.
            let mut commits: Vec<&Point> =
                points.iter().filter(|point| point.name.ends_with("commit")).collect();
            commits.sort_by_key(|point| Reverse(point.passes));
            commits.truncate(6);
            if round > 1 && new.is_empty() {
                break;
            }
            Record::new(round).keep(&mut nginx, |nginx| {
                // The first deaths show which points there are.
                thread::sleep(Duration::from_millis(500));
                for number in new.iter().map(|point| Some(point.number)).chain([None; 4]) {
                    let Some(first) = commits.get(random.below(commits.len().max(1))) else {
                        break;
                    };
                    register.order(Order::Die, first.number, 1, number);
                    let begin = Instant::now();
                    let is_over = || register.get(register::ORDER) == 0;
                    while !is_over() && begin.elapsed() < Duration::from_secs(2) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    deaths += u64::from(is_over() && number.is_some());
                    register.withdraw();
                    wait::until_true("workers", || nginx.workers().len() >= WORKERS);
                }
            });
            assert_undamaged(&nginx, &register);
        }
        over.store(true, Ordering::Relaxed);
    });
    eprintln!("{deaths} deaths in recoveries");
    assert!(deaths >= 3, "only {deaths} workers died in a recovery");
}

/// Seconds that the clock is wrong by.
const STEPS: [i64; 9] = [0, -1, 1, -3600, 3600, -86_400, 2, 86_400, 0];

#[test]
fn steps_of_the_clock_lose_nothing_and_change_no_order() {
    let mut nginx = Nginx::start(config());
    let register = Register::of(&nginx);
    register.set(register::IS_CHECKING, 1);
    let mut mono = 0;
    for round in 0..2 {
        Record::new(round).keep(&mut nginx, |_| {
            for step in STEPS {
                register.set(register::WALL, step as u64);
                thread::sleep(Duration::from_millis(150));
                // As if the machine had slept.
                mono += 5_000;
                register.set(register::MONO, mono);
                thread::sleep(Duration::from_millis(50));
            }
        });
        assert_undamaged(&nginx, &register);
    }
}

/// Who waits for the lock is not left waiting by a worker that dies after it has released it, and before it wakes anybody.
#[test]
fn nobody_waits_to_be_woken_by_the_dead() {
    let mut nginx = Nginx::start(Config::push(2));
    let register = Register::of(&nginx);
    nginx.tolerate("exited on signal 9");
    nginx.publish("a", "one");
    let number = |name: &str| register.point(name).unwrap().number;
    let waits = || register.point("waiting for the lock").map_or(0, |point| point.passes);
    let mut has_died = false;
    // The first round shows where it happens. In a later one, who waits may just be looking for itself, and nobody is woken.
    for is_deadly in [false, true, true, true] {
        let mut clients = nginx.client_of_each_worker(2);
        let before = waits();
        register.order(Order::Stop, number("lock taken"), 1, None);
        for (_, client) in &mut clients {
            client.send(&Request::post(&publisher("a"), "more"));
        }
        wait::until_true("one with the lock", || register.victim().is_some());
        let victim = register.victim().unwrap();
        wait::until_true("one that waits for it", || waits() > before);
        if is_deadly {
            register.order(Order::Die, number("about to wake who waits"), 1, None);
        }
        process::signal(victim, Signal::CONT);
        for (pid, client) in &mut clients {
            if !is_deadly || *pid != victim.to_string() {
                client.response().expect_status(202);
            }
        }
        has_died = !process::is_running(victim);
        if has_died {
            break;
        }
        register.withdraw();
    }
    assert!(has_died, "nobody was to be woken");
    wait::until_true("another worker", || nginx.workers().len() == 2);
}

/// nginx's master knows nothing of a zone that was replaced, and releases no lock there.
#[test]
fn an_old_worker_may_die_with_the_lock_of_a_zone_that_was_replaced() {
    let config =
        |size: &str| Config::push(WORKERS).http(&format!("push_shared_memory_size {size};"));
    let mut nginx = Nginx::start(config("1m"));
    let register = Register::of(&nginx);
    nginx.tolerate("exited on signal 9");
    // The master says so of a new one, if that was faster.
    nginx.tolerate("was locked by");
    nginx.publish("b", "one");
    let taken = register.point("lock taken").unwrap().number;
    for size in ["2m", "1m"].into_iter().cycle() {
        let mut clients = nginx.client_of_each_worker(WORKERS);
        for (_, client) in &mut clients {
            nginx.park_request(client, "a", &Request::get(&subscriber("a")));
        }
        // They do nothing until the new ones have come.
        let old = nginx.workers();
        old.iter().for_each(|pid| process::stop(*pid));
        nginx.reconfigure(config(size));
        nginx.reload();
        register.order(Order::Die, taken, 1, None);
        old.iter().for_each(|pid| process::signal(*pid, Signal::CONT));
        wait::until_true("a death", || register.victim().is_some());
        let victim = register.victim().unwrap();
        for (pid, client) in &mut clients {
            if *pid != victim.to_string() {
                client.response().expect_status(304);
            }
        }
        nginx.wait_gone(&old);
        wait::until_true("all workers", || nginx.workers().len() == WORKERS);
        if old.contains(&victim) {
            break;
        }
    }
    assert!(nginx.error_log().contains("which is gone"));
}

/// While the master moves the channels to a zone of another size, it takes no note of deaths, and may wait for the lock of one
/// who has died just then.
#[test]
fn a_reload_does_not_wait_for_the_dead() {
    let config = |size: &str| Config::push(1).http(&format!("push_shared_memory_size {size};"));
    let mut nginx = Nginx::start(config("1m"));
    let register = Register::of(&nginx);
    nginx.tolerate("exited on signal 9");
    nginx.publish("a", "one");
    register.order(Order::Stop, register.point("lock taken").unwrap().number, 1, None);
    let mut client = nginx.client();
    client.send(&Request::post(&publisher("a"), "never published"));
    wait::until_true("one with the lock", || register.victim().is_some());
    let victim = register.victim().unwrap();
    assert_eq!(nginx.workers(), [victim]);
    nginx.reconfigure(config("2m"));
    nginx.signal(Signal::HUP);
    // From here on the master learns of nothing until it has moved the channels.
    wait::until_true("the new zone", || {
        process::shared_mappings(nginx.master()).contains(&(2 << 20))
    });
    process::signal(victim, Signal::KILL);
    wait::until_true("a new worker", || {
        // One look: between two of them the victim ends.
        let workers = nginx.workers();
        workers.len() == 1 && workers != [victim]
    });
    assert!(nginx.error_log().contains(&format!("was locked by {victim}, which is gone")));
    nginx.publish("a", "two").expect_status(202);
    assert_eq!(nginx.queue("a"), ["one", "two"]);
}
