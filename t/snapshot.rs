//! Tests for `push_snapshot`: what outlives a restart, and what happens when the file is not as it should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::pipe::{fcntl_setpipe_size, pipe_with, PipeFlags};
use support::disk::Tiny;
use support::event_source::EventSource;
use support::nginx::binary;
use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::{on_1_and_4_workers, process, wait, Client, Config, Cursor, Nginx, Request, Signal};

on_1_and_4_workers!(
    messages_and_cursors_survive_a_restart,
    a_quick_stop_saves_as_well,
    event_source_clients_go_on_after_a_restart,
    messages_in_files_survive_a_restart,
    a_file_that_is_gone_is_a_message_that_is_missed,
    messages_expire_while_nothing_runs,
    deleted_channels_stay_deleted_and_ids_go_on,
    many_restarts_leave_nothing_behind,
    a_snapshot_is_used_once,
    a_start_that_was_cut_off_is_made_good_by_the_next,
    what_is_restored_is_told_in_the_log_of_the_configuration,
    a_start_that_ends_before_its_workers_run_loses_nothing,
    a_start_that_a_signal_ends_loses_nothing,
    what_was_restored_stays_until_a_worker_runs,
    nothing_is_left_once_workers_run,
    workers_without_rights_leave_nothing_old,
    a_killed_worker_costs_the_snapshot_nothing,
    after_all_was_killed_nothing_old_comes_back,
    who_comes_back_in_the_second_of_a_crash_is_told,
    a_reload_restores_nothing,
    what_is_no_good_snapshot_is_set_aside,
    a_file_that_cannot_be_read_keeps_nothing_from_starting,
    a_directory_that_is_not_there_is_told_of,
    a_full_disk_is_told_of,
    a_smaller_zone_keeps_the_newest_and_warns,
    an_upgraded_binary_goes_on_without_the_old_ones_messages,
    an_upgrade_that_is_taken_back_costs_nothing,
    an_upgrade_that_is_taken_back_costs_no_file,
    what_an_upgrade_has_left_that_was_taken_back_hides_no_crash,
    a_start_waits_for_who_still_ends,
    a_snapshot_is_locked_while_nginx_runs,
    a_lock_ends_with_its_master,
    a_reload_moves_the_lock,
    who_has_lost_the_lock_writes_nothing,
);

const PATH: &str = "push_snapshot state/messages;";

fn config(workers: usize) -> Config {
    Config::push(workers)
        .http(PATH)
        .http("client_max_body_size 8m; push_message_buffer_length 100;")
}

/// Starts nginx with a directory for the snapshot.
fn start(workers: usize) -> Nginx {
    start_with(config(workers))
}

fn start_with(config: Config) -> Nginx {
    let mut nginx = Nginx::start(config);
    fs::create_dir(nginx.dir().join("state")).unwrap();
    nginx.restart(Signal::QUIT);
    // Without the directory, nginx has complained.
    for name in ["error.log", "stderr"] {
        fs::write(nginx.dir().join(name), "").unwrap();
    }
    nginx
}

fn snapshot(nginx: &Nginx) -> PathBuf {
    nginx.dir().join("state/messages")
}

fn lock(nginx: &Nginx) -> PathBuf {
    nginx.dir().join("state/messages.lock")
}

/// The names in the snapshot's directory.
fn all_names(nginx: &Nginx) -> Vec<String> {
    let entries = fs::read_dir(nginx.dir().join("state")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The same without the lock, which is there while nginx runs, and after it was killed.
fn names(nginx: &Nginx) -> Vec<String> {
    let mut names = all_names(nginx);
    names.retain(|name| name != "messages.lock");
    names
}

/// The same, once a worker has answered.
fn names_while_serving(nginx: &Nginx) -> Vec<String> {
    nginx.get("/worker").expect_status(200);
    names(nginx)
}

/// A start that comes to nothing.
fn starting(nginx: &Nginx) -> Command {
    let mut command = Command::new(binary());
    command.arg("-p").arg(nginx.dir()).arg("-c").arg(nginx.dir().join("nginx.conf"));
    command.arg("-e").arg(nginx.dir().join("error.log"));
    // What a start that fails has taken, nginx leaves to the kernel.
    command.env("ASAN_OPTIONS", "detect_odr_violation=0:detect_leaks=0");
    command.stderr(Stdio::null());
    command
}

/// In seconds.
fn unix_time() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Ends all processes as a crash does.
fn kill_all(nginx: &Nginx) {
    // The master first: it must start no successors.
    let all = [vec![nginx.master()], nginx.workers()].concat();
    for &pid in &all {
        process::signal(pid, Signal::KILL);
    }
    // The port is in use until the last of them has gone, the master too.
    nginx.wait_gone(&all);
    // So that the next start is not taken for this one.
    fs::remove_file(nginx.dir().join("nginx.pid")).unwrap();
}

fn messages_and_cursors_survive_a_restart(workers: usize) {
    let mut nginx = start(workers);
    let ids: Vec<String> = (0..20).map(|number| format!("channel-{number}")).collect();
    for id in &ids {
        for body in ["one", "two", "three"] {
            nginx.publish(id, format!("{body} in {id}"));
        }
    }
    let before: Vec<_> = ids.iter().map(|id| nginx.poll_all(id)).collect();
    nginx.stop(Signal::QUIT);
    assert_eq!(names(&nginx), ["messages"]);
    let mode = fs::metadata(snapshot(&nginx)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(nginx.error_log().contains("push: saved 60 messages of 20 channels to "));
    nginx.start_again();
    assert!(nginx.error_log().contains("push: restored 60 messages of 20 channels from "));
    assert_eq!(names_while_serving(&nginx), [""; 0]);
    for (id, before) in ids.iter().zip(&before) {
        let after = nginx.poll_all(id);
        assert_eq!(after.len(), 3);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.bytes_without_date(), before.bytes_without_date());
        }
        let response = nginx.poll(id, &Cursor::after(&before[0])).expect_status(200);
        assert_eq!(response.text(), format!("two in {id}"));
        assert_eq!(response.header("Push-Missed"), None);
    }
    // Who was waiting waits again, and gets what is next.
    let last = Cursor::after(&before[0][2]);
    let mut waiting = nginx.park_after(&ids[0], &last);
    nginx.publish(&ids[0], "four").expect_status(201);
    let response = waiting.response().expect_status(200);
    assert_eq!((response.text(), response.header("Push-Missed")), ("four", None));
    assert!(Cursor::after(&response).id() > last.id());
}

fn a_quick_stop_saves_as_well(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    let _held: Vec<Client> = (0..5).map(|_| nginx.park("b")).collect();
    nginx.restart(Signal::TERM);
    assert_eq!(nginx.queue("a"), ["one"]);
    assert_eq!(nginx.subscribers("b"), 0);
}

#[test]
fn a_single_process_saves_and_restores() {
    let mut nginx = Nginx::start(config(1).without_master());
    fs::create_dir(nginx.dir().join("state")).unwrap();
    nginx.publish("a", "one");
    nginx.publish("large", pattern(2 << 20));
    nginx.restart(Signal::QUIT);
    assert_eq!(nginx.queue("a"), ["one"]);
    assert_same_bytes(&nginx.poll_all("large")[0].body, &pattern(2 << 20));
}

#[test]
fn an_absolute_path_is_taken_as_it_is() {
    let other = tempfile::tempdir().unwrap();
    let path = other.path().join("messages");
    let text = format!("push_snapshot {};", path.display());
    let mut nginx = Nginx::start(Config::push(1).http(&text));
    nginx.publish("a", "one");
    nginx.stop(Signal::QUIT);
    assert!(path.exists());
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["one"]);
}

#[test]
fn a_test_of_the_configuration_leaves_the_snapshot_alone() {
    let mut nginx = start(1);
    nginx.publish("a", "one");
    nginx.stop(Signal::QUIT);
    assert!(nginx.run(&["-t"]).success);
    assert_eq!(names(&nginx), ["messages"]);
    nginx.start_again();
    assert!(nginx.run(&["-t"]).success);
    assert_eq!(nginx.queue("a"), ["one"]);
}

#[test]
fn a_start_that_fails_leaves_the_snapshot_to_the_next() {
    let mut nginx = start(1);
    nginx.tolerate("bind()");
    nginx.publish("a", "one");
    nginx.stop(Signal::QUIT);
    let taken = TcpListener::bind(("127.0.0.1", nginx.port())).unwrap();
    let status = starting(&nginx).status();
    assert!(!status.unwrap().success());
    assert_eq!(names(&nginx), ["messages"]);
    drop(taken);
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["one"]);
}

#[test]
fn without_the_directive_nothing_is_written() {
    let mut nginx = Nginx::start(Config::push(1));
    nginx.publish("a", "one");
    nginx.restart(Signal::QUIT);
    assert_eq!(nginx.messages("a"), 0);
    assert!(!nginx.error_log().contains("push: saved"));
}

fn event_source_clients_go_on_after_a_restart(workers: usize) {
    let mut nginx = start(workers);
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let mut source = EventSource::open(nginx.port(), &subscriber("a"));
    source.expect_message("one");
    let id = source.expect_message("two");
    nginx.restart(Signal::QUIT);
    let mut source = EventSource::open_after(nginx.port(), &subscriber("a"), &id);
    let third = source.expect_message("three");
    nginx.wait_for_subscribers("a", 1);
    nginx.publish("a", "four").expect_status(201);
    let fourth = source.expect_message("four");
    assert!(third != fourth);
}

fn messages_in_files_survive_a_restart(workers: usize) {
    let mut nginx = start(workers);
    for number in 0..3 {
        nginx.publish("a", pattern((1 << 20) + number));
        nginx.publish("b", format!("small {number}"));
    }
    assert_eq!(nginx.spooled().len(), 3);
    for round in 0..3 {
        nginx.restart(Signal::QUIT);
        // The directory goes on, and what comes now does not drive out what was there.
        nginx.publish("c", pattern(1 << 20));
        for (number, response) in nginx.poll_all("a").iter().enumerate() {
            assert_same_bytes(&response.body, &pattern((1 << 20) + number));
        }
        assert_eq!(nginx.messages("a"), 3);
        assert_eq!(nginx.messages("c"), 1 + round);
    }
    for id in ["a", "c"] {
        nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
    }
    assert_eq!(nginx.spooled(), Vec::<PathBuf>::new());
    assert_eq!(nginx.messages("b"), 3);
}

fn a_file_that_is_gone_is_a_message_that_is_missed(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    nginx.publish("a", pattern(1 << 20));
    nginx.publish("a", "three");
    let one = Cursor::after(&nginx.poll("a", &Cursor::none()));
    nginx.stop(Signal::QUIT);
    fs::remove_file(&nginx.spooled()[0]).unwrap();
    nginx.start_again();
    assert!(nginx.error_log().contains("[error]"));
    assert!(nginx.error_log().contains("1 were in files that are gone"));
    let response = nginx.poll("a", &one).expect_status(200);
    assert_eq!((response.text(), response.header("Push-Missed")), ("three", Some("1")));
}

fn messages_expire_while_nothing_runs(workers: usize) {
    // They must still be there when nginx ends, which takes long where it is watched.
    let seconds = wait::patience().as_secs() / 5;
    let config = config(workers).server(&format!(
        "location = /short {{ push_publisher; push_channel_id $arg_id; push_message_timeout {seconds}s; }}",
    ));
    let mut nginx = Nginx::start(config);
    fs::create_dir(nginx.dir().join("state")).unwrap();
    nginx.publish("a", "one");
    let one = Cursor::after(&nginx.poll("a", &Cursor::none()));
    nginx.publish_at("/short?id=a", "two");
    nginx.publish_at("/short?id=a", pattern(1 << 20));
    nginx.publish("a", "four");
    nginx.stop(Signal::QUIT);
    let saved = fs::metadata(snapshot(&nginx)).unwrap().modified().unwrap();
    wait::until_true("the end of two messages", || {
        saved.elapsed().unwrap().as_secs() >= seconds + 2
    });
    nginx.start_again();
    assert!(nginx.error_log().contains("; 2 have expired meanwhile"), "{}", nginx.error_log());
    assert_eq!(nginx.queue("a"), ["one", "four"]);
    assert_eq!(nginx.spooled(), Vec::<PathBuf>::new());
    let response = nginx.poll("a", &one).expect_status(200);
    assert_eq!((response.text(), response.header("Push-Missed")), ("four", Some("2")));
}

fn deleted_channels_stay_deleted_and_ids_go_on(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    nginx.publish("a", "two");
    let last = Cursor::after(&nginx.poll_all("a")[1]);
    nginx.publish("b", "other");
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    nginx.restart(Signal::QUIT);
    nginx.get(&publisher("a")).expect_status(404);
    assert_eq!(nginx.queue("b"), ["other"]);
    nginx.publish("a", "three");
    let response = nginx.poll("a", &last).expect_status(200);
    assert_eq!(response.text(), "three");
    assert!(Cursor::after(&response).id() > last.id());
}

fn many_restarts_leave_nothing_behind(workers: usize) {
    let mut nginx = start(workers);
    let mut last = (0, 0);
    for round in 0..6 {
        nginx.publish("a", format!("message {round}"));
        let responses = nginx.poll_all("a");
        assert_eq!(responses.len(), round + 1);
        let id = Cursor::after(&responses[round]).id();
        assert!(id > last);
        last = id;
        nginx.restart(if round % 2 == 0 { Signal::QUIT } else { Signal::TERM });
        assert_eq!(names_while_serving(&nginx), [""; 0]);
    }
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
}

fn a_snapshot_is_used_once(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    nginx.restart(Signal::QUIT);
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    nginx.restart(Signal::QUIT);
    nginx.get(&publisher("a")).expect_status(404);
}

fn a_start_that_was_cut_off_is_made_good_by_the_next(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    nginx.stop(Signal::QUIT);
    let taken = snapshot(&nginx).with_extension("taken");
    fs::rename(snapshot(&nginx), &taken).unwrap();
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["one"]);
    assert_eq!(names(&nginx), [""; 0]);
    nginx.publish("a", "two");
    nginx.stop(Signal::QUIT);
    // What is newer counts.
    fs::copy(snapshot(&nginx), &taken).unwrap();
    nginx.start_again();
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    nginx.stop(Signal::QUIT);
    fs::write(&taken, "old").unwrap();
    nginx.start_again();
    nginx.get(&publisher("a")).expect_status(404);
    assert_eq!(names(&nginx), [""; 0]);
}

/// Publishes messages of all kinds, of which [`expect_stored`] knows.
fn store(nginx: &Nginx) {
    nginx.publish("a", "one");
    nginx.publish("large", pattern(1 << 20));
    nginx.publish("gone", "gone");
    nginx.request(&Request::new("DELETE", &publisher("gone"))).expect_status(200);
}

fn expect_stored(nginx: &Nginx) {
    assert_eq!(nginx.queue("a"), ["one"]);
    assert_same_bytes(&nginx.poll_all("large")[0].body, &pattern(1 << 20));
    nginx.get(&publisher("gone")).expect_status(404);
}

fn what_is_restored_is_told_in_the_log_of_the_configuration(workers: usize) {
    let configured = config(workers).main("error_log @dir@/configured.log notice;");
    let mut nginx = start(workers);
    store(&nginx);
    nginx.stop(Signal::QUIT);
    nginx.reconfigure(configured);
    nginx.start_again();
    let log = fs::read_to_string(nginx.dir().join("configured.log")).unwrap();
    assert!(log.contains("push: restored 2 messages"), "{log}");
}

fn a_start_that_ends_before_its_workers_run_loses_nothing(workers: usize) {
    for config in [config(workers), config(workers).without_master()] {
        let mut nginx = Nginx::start(config);
        fs::create_dir(nginx.dir().join("state")).unwrap();
        nginx.tolerate("nginx.pid");
        store(&nginx);
        nginx.stop(Signal::QUIT);
        // nginx has restored the messages when it finds that it cannot write its pid.
        let pid_file = nginx.dir().join("nginx.pid");
        fs::create_dir(&pid_file).unwrap();
        for round in 1..=3 {
            assert!(!starting(&nginx).status().unwrap().success());
            assert_eq!(nginx.error_log().matches("push: restored 2 messages").count(), round);
            assert_eq!(names(&nginx), ["messages.taken"]);
        }
        fs::remove_dir(&pid_file).unwrap();
        nginx.start_again();
        expect_stored(&nginx);
        assert_eq!(names(&nginx), [""; 0]);
        nginx.restart(Signal::QUIT);
        expect_stored(&nginx);
    }
}

fn a_start_that_a_signal_ends_loses_nothing(workers: usize) {
    let mut nginx = start(workers);
    store(&nginx);
    nginx.stop(Signal::QUIT);
    nginx.reconfigure(config(workers).main("error_log stderr notice;"));
    // nginx writes a line to its file, and then to a pipe that has room for two: the second line says that the messages are
    // restored, and at its third nginx stands still, with no handlers for signals yet.
    let (_pipe, stderr) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).unwrap();
    fcntl_setpipe_size(&stderr, 2 * rustix::param::page_size()).unwrap();
    let before = nginx.error_log().len();
    let mut master = starting(&nginx).stderr(stderr).spawn().unwrap();
    wait::until_true("the line after that of the messages", || {
        let log = nginx.error_log().split_off(before);
        log.split_once("push: restored").is_some_and(|(_, rest)| rest.lines().count() > 1)
    });
    // Others, such as QUIT, a shell may have told its children to ignore.
    process::signal(i32::try_from(master.id()).unwrap(), Signal::TERM);
    assert_eq!(master.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    assert_eq!(names(&nginx), ["messages.taken"]);
    nginx.reconfigure(config(workers));
    nginx.start_again();
    expect_stored(&nginx);
    assert_eq!(names(&nginx), [""; 0]);
}

fn what_was_restored_stays_until_a_worker_runs(workers: usize) {
    // A worker that finds no such directory ends, and the master starts no other.
    let broken = config(workers).main("working_directory @dir@/none;");
    let mut nginx = start(workers);
    nginx.tolerate("chdir(");
    nginx.tolerate("exited with fatal code 2");
    nginx.tolerate("exited with code 2");
    store(&nginx);
    let mut rounds = 0;
    for end in [Signal::KILL, Signal::TERM, Signal::HUP] {
        nginx.stop(Signal::QUIT);
        nginx.reconfigure(broken.clone());
        let mut master = starting(&nginx).spawn().unwrap();
        rounds += workers;
        wait::until_true("the end of all workers", || {
            nginx.error_log().matches("exited with fatal code 2").count() == rounds
        });
        assert_eq!(names(&nginx), ["messages.taken"]);
        nginx.reconfigure(config(workers));
        let pid = i32::try_from(master.id()).unwrap();
        process::signal(pid, end);
        if end == Signal::HUP {
            expect_stored(&nginx);
            assert_eq!(names(&nginx), [""; 0]);
            process::signal(pid, Signal::QUIT);
        }
        master.wait().unwrap();
        let left = if end == Signal::KILL { "messages.taken" } else { "messages" };
        assert_eq!(names(&nginx), [left]);
        nginx.start_again();
        expect_stored(&nginx);
        assert_eq!(names(&nginx), [""; 0]);
    }
}

fn nothing_is_left_once_workers_run(workers: usize) {
    for config in [config(workers), config(workers).daemon(), config(workers).without_master()] {
        let mut nginx = Nginx::start(config);
        fs::create_dir(nginx.dir().join("state")).unwrap();
        store(&nginx);
        nginx.restart(Signal::QUIT);
        expect_stored(&nginx);
        assert_eq!(names(&nginx), [""; 0]);
        kill_all(&nginx);
        nginx.start_again();
        nginx.get(&publisher("a")).expect_status(404);
        assert_eq!(names(&nginx), [""; 0]);
    }
}

fn workers_without_rights_leave_nothing_old(workers: usize) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root has workers of another user");
        return;
    }
    let mut nginx = Nginx::start(config(workers).main("user nobody root;"));
    for name in ["", "state"] {
        let path = nginx.dir().join(name);
        let _ = fs::create_dir(&path);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let expect_empty = |nginx: &Nginx| {
        assert_eq!(names_while_serving(nginx), ["messages.taken"]);
        assert_eq!(fs::metadata(nginx.dir().join("state/messages.taken")).unwrap().len(), 0);
    };
    store(&nginx);
    nginx.stop(Signal::QUIT);
    let saved = fs::read(snapshot(&nginx)).unwrap();
    nginx.start_again();
    expect_stored(&nginx);
    expect_empty(&nginx);
    // A successor does no harm.
    nginx.kill_worker(nginx.workers()[0]);
    expect_empty(&nginx);
    let old = nginx.reload();
    nginx.wait_gone(&old);
    assert_eq!(names_while_serving(&nginx), [""; 0]);
    nginx.restart(Signal::QUIT);
    expect_empty(&nginx);
    nginx.stop(Signal::TERM);
    assert_eq!(names(&nginx), ["messages"]);
    nginx.start_again();
    expect_stored(&nginx);
    expect_empty(&nginx);
    kill_all(&nginx);
    nginx.start_again();
    nginx.get(&publisher("a")).expect_status(404);
    assert_eq!(names(&nginx), [""; 0]);
    nginx.stop(Signal::QUIT);
    // A snapshot goes before, also one that is no good.
    fs::write(snapshot(&nginx).with_extension("taken"), "").unwrap();
    fs::write(snapshot(&nginx), &saved[1..]).unwrap();
    nginx.start_again();
    assert_eq!(names_while_serving(&nginx), ["messages.bad"]);
    let log = nginx.error_log();
    // The first start had no directory.
    let is_error = |line: &&str| line.contains("[error]") && !line.contains("messages.lock");
    let mut errors = log.lines().filter(is_error);
    assert!(errors.all(|line| line.contains("is not a snapshot")), "{log}");
}

fn a_killed_worker_costs_the_snapshot_nothing(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    let workers = nginx.workers();
    nginx.kill_worker(workers[0]);
    nginx.restart(Signal::QUIT);
    assert_eq!(nginx.queue("a"), ["one"]);
}

fn after_all_was_killed_nothing_old_comes_back(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    nginx.publish("a", pattern(1 << 20));
    nginx.restart(Signal::QUIT);
    assert_eq!(nginx.messages("a"), 2);
    kill_all(&nginx);
    nginx.start_again();
    nginx.get(&publisher("a")).expect_status(404);
    // What was left on disk goes with the next that comes there.
    nginx.publish("b", pattern(1 << 20));
    assert_eq!(nginx.spooled().len(), 1);
}

fn who_comes_back_in_the_second_of_a_crash_is_told(workers: usize) {
    let nginx = start(workers);
    let started = unix_time();
    wait::until_true("a later second", || unix_time() > started);
    nginx.publish("a", "seen");
    let cursor = Cursor::after(&nginx.poll("a", &Cursor::none()).expect_status(200));
    nginx.publish("a", "lost");
    // Most often it starts in the second in which they were published.
    expect_told_after_a_crash(nginx, &cursor);
}

/// Whoever comes with this cursor after a crash is told that something may be missing, and gets what is new.
fn expect_told_after_a_crash(mut nginx: Nginx, cursor: &Cursor) {
    kill_all(&nginx);
    nginx.start_again();
    nginx.publish("a", "new");
    let response = nginx.poll("a", cursor).expect_status(200);
    assert_eq!((response.text(), response.header("Push-Missed")), ("new", Some("0;at-least")));
}

fn a_reload_restores_nothing(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    nginx.stop(Signal::QUIT);
    let bytes = fs::read(snapshot(&nginx)).unwrap();
    nginx.start_again();
    nginx.request(&Request::new("DELETE", &publisher("a"))).expect_status(200);
    fs::write(snapshot(&nginx), &bytes).unwrap();
    for size in ["32m", "4m"] {
        nginx.reconfigure(config(workers).http(&format!("push_shared_memory_size {size};")));
        let old = nginx.reload();
        nginx.wait_gone(&old);
        nginx.get(&publisher("a")).expect_status(404);
        assert_eq!(names(&nginx), ["messages"]);
    }
}

fn what_is_no_good_snapshot_is_set_aside(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    nginx.stop(Signal::QUIT);
    let good = fs::read(snapshot(&nginx)).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 4;
    let mut newer = good.clone();
    newer[8] = 9;
    for (bytes, complaint) in [
        (damaged, "is damaged: its checksum is wrong"),
        (good[..good.len() - 5].to_vec(), "is cut off, or something was added"),
        ([&good[..], b"\n"].concat(), "is cut off, or something was added"),
        (Vec::new(), "is not a snapshot"),
        (b"<html>".to_vec(), "is not a snapshot"),
        (newer, "is a snapshot of format 9, made by another version"),
    ] {
        fs::write(snapshot(&nginx), &bytes).unwrap();
        nginx.start_again();
        let path = snapshot(&nginx).display().to_string();
        let log = nginx.error_log();
        let line = log.lines().rfind(|line| line.contains("[error]")).expect("a complaint");
        assert!(line.contains(&format!("push: the snapshot {path} {complaint}")), "{line}");
        let outcome = format!("; its messages are not restored; it is now {path}.bad");
        assert!(line.contains(&outcome), "{line}");
        assert_eq!(names(&nginx), ["messages.bad"]);
        assert_eq!(fs::read(format!("{path}.bad")).unwrap(), bytes);
        nginx.get(&publisher("a")).expect_status(404);
        nginx.stop(Signal::QUIT);
    }
    fs::write(snapshot(&nginx), &good).unwrap();
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["one"]);
}

fn a_file_that_cannot_be_read_keeps_nothing_from_starting(workers: usize) {
    let mut nginx = start(workers);
    nginx.stop(Signal::QUIT);
    fs::remove_file(snapshot(&nginx)).unwrap();
    let made = Command::new("mkfifo").arg(snapshot(&nginx)).status().unwrap();
    assert!(made.success());
    nginx.start_again();
    assert!(nginx.error_log().contains("cannot be read: not a regular file"));
    nginx.stop(Signal::QUIT);
    fs::remove_file(snapshot(&nginx)).unwrap();
    fs::create_dir(snapshot(&nginx)).unwrap();
    nginx.start_again();
    nginx.publish("a", "one");
    nginx.stop(Signal::QUIT);
    assert!(nginx.error_log().contains("push: cannot save the messages to "));
    assert_eq!(names(&nginx), ["messages"]);
}

fn a_directory_that_is_not_there_is_told_of(workers: usize) {
    let mut nginx = Nginx::start(config(workers));
    nginx.publish("a", "one");
    nginx.stop(Signal::QUIT);
    let path = snapshot(&nginx);
    let complaint = format!(
        "push: cannot save the messages to {}, they are lost: No such file",
        path.display()
    );
    assert!(nginx.error_log().contains(&complaint), "{}", nginx.error_log());
    nginx.start_again();
    assert_eq!(nginx.messages("a"), 0);
}

fn a_full_disk_is_told_of(workers: usize) {
    let mut nginx = start(workers);
    let Some(_tiny) = Tiny::mount(nginx.dir().join("state"), "size=64k") else { return };
    for number in 0..20 {
        nginx.publish("a", pattern(10_000 + number));
    }
    nginx.stop(Signal::QUIT);
    let log = nginx.error_log();
    assert!(log.contains("they are lost: No space left on device"), "{log}");
    assert_eq!(names(&nginx), [""; 0]);
    nginx.start_again();
    nginx.publish("a", "small");
    nginx.restart(Signal::QUIT);
    assert_eq!(nginx.queue("a"), ["small"]);
}

fn a_smaller_zone_keeps_the_newest_and_warns(workers: usize) {
    let config = |size| {
        config(workers)
            .http("client_body_buffer_size 64k;")
            .http(&format!("push_shared_memory_size {size};"))
    };
    let mut nginx = Nginx::start(config("8m"));
    fs::create_dir(nginx.dir().join("state")).unwrap();
    nginx.publish("thin", "one");
    for number in 0..100 {
        nginx.publish("fat", format!("{number:03}{}", "x".repeat(15_000)));
    }
    nginx.stop(Signal::QUIT);
    nginx.reconfigure(config("1m"));
    nginx.start_again();
    let log = nginx.error_log();
    let line = log.lines().rfind(|line| line.contains("push: restored")).unwrap();
    assert!(line.contains("[error]"), "{line}");
    assert!(line.contains("found no room, the oldest of the largest channels"), "{line}");
    assert_eq!(nginx.queue("thin"), ["one"]);
    let queue = nginx.queue("fat");
    assert!((30..100).contains(&queue.len()), "{}", queue.len());
    for (body, number) in queue.iter().zip(100 - queue.len()..) {
        assert!(body.starts_with(&format!("{number:03}x")), "message {number}");
    }
}

/// Starts an nginx whose binary is upgraded, with a message, and a new master. Returns that.
fn upgrade(workers: usize) -> (Nginx, i32) {
    upgrade_with(workers, &["one".into()])
}

/// The same with these messages in channel `a`.
fn upgrade_with(workers: usize, bodies: &[Vec<u8>]) -> (Nginx, i32) {
    // nginx takes the signal only as a daemon.
    // A memory checker is told what to do in the environment, which nginx does not pass on by itself.
    let config = config(workers).daemon().main("env ASAN_OPTIONS; env LSAN_OPTIONS;");
    let nginx = start_with(config);
    bodies.iter().for_each(|body| drop(nginx.publish("a", body.as_slice())));
    nginx.signal(Signal::USR2);
    let pid = |name: &str| -> Option<i32> {
        fs::read_to_string(nginx.dir().join(name)).ok()?.trim().parse().ok()
    };
    let old = nginx.master();
    let new = wait::until("the new master and its workers", || {
        pid("nginx.pid").filter(|&new| {
            new != old
                && pid("nginx.pid.oldbin").is_some()
                && process::children(new).len() == workers
        })
    });
    assert!(!nginx.error_log().contains("push: waiting for"), "{}", nginx.error_log());
    (nginx, new)
}

fn an_upgraded_binary_goes_on_without_the_old_ones_messages(workers: usize) {
    let (mut nginx, new) = upgrade(workers);
    let old = nginx.master();
    nginx.signal(Signal::QUIT);
    wait::until_true("the end of the old master", || !process::is_running(old));
    let complaint = "for another nginx goes on in place of this one";
    assert!(nginx.error_log().contains(complaint), "{}", nginx.error_log());
    assert_eq!(names(&nginx), [""; 0]);
    assert_eq!(nginx.messages("a"), 0);
    nginx.publish("a", "two");
    process::signal(new, Signal::QUIT);
    wait::until_true("the end of the new master", || !process::is_running(new));
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["two"]);
}

fn an_upgrade_that_is_taken_back_costs_nothing(workers: usize) {
    let (mut nginx, new) = upgrade(workers);
    process::signal(new, Signal::QUIT);
    nginx.wait_gone(&[new]);
    // The old one has its lock again.
    assert_eq!(all_names(&nginx), ["messages", "messages.lock"]);
    nginx.publish("a", "two");
    nginx.stop(Signal::QUIT);
    assert_eq!(all_names(&nginx), ["messages"]);
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["one", "two"]);
}

fn an_upgrade_that_is_taken_back_costs_no_file(workers: usize) {
    let large = pattern(1 << 20);
    let (nginx, new) = upgrade_with(workers, std::slice::from_ref(&large));
    nginx.signal(Signal::WINCH);
    let masters_alone = || process::children(nginx.master()) == [new];
    wait::until_true("the end of the old workers", masters_alone);
    // It comes to the new ones, which remove what nobody needs.
    nginx.publish("a", pattern(2 << 20));
    nginx.signal(Signal::HUP);
    let all = workers + 1;
    wait::until_true("the old master's workers", || process::children(nginx.master()).len() == all);
    process::signal(new, Signal::QUIT);
    nginx.wait_gone(&[new]);
    let messages = nginx.poll_all("a");
    assert_eq!(messages.len(), 1);
    assert_same_bytes(&messages[0].body, &large);
    // What the new one has left goes when the old one's workers come there the next time.
    let old = nginx.reload();
    wait::until_true("the end of what was left", || nginx.spooled().len() == 1);
    nginx.wait_gone(&old);
    assert_same_bytes(&nginx.poll_all("a")[0].body, &large);
}

fn what_an_upgrade_has_left_that_was_taken_back_hides_no_crash(workers: usize) {
    let (mut nginx, new) = upgrade(workers);
    // In the second of a start, ids are of the next one.
    let started = unix_time();
    wait::until_true("a later second", || unix_time() > started);
    process::signal(new, Signal::QUIT);
    wait::until_true("the old master alone", || {
        let pid = fs::read_to_string(nginx.dir().join("nginx.pid"));
        pid.is_ok_and(|pid| pid.trim() == nginx.master().to_string())
    });
    // Most often in the second in which the new one has written its snapshot.
    nginx.publish("a", "seen");
    let all = nginx.poll_all("a");
    let [before, cursor] = [Cursor::after(&all[0]), Cursor::after(&all[1])];
    nginx.publish("a", "lost");
    kill_all(&nginx);
    nginx.start_again();
    nginx.publish("a", "new");
    let expect_told = |nginx: &Nginx, cursor: &Cursor| {
        let response = nginx.poll("a", cursor).expect_status(200);
        assert_eq!((response.text(), response.header("Push-Missed")), ("new", Some("0;at-least")));
    };
    for cursor in [&before, &cursor] {
        expect_told(&nginx, cursor);
    }
    // Also those who come only when nginx has ended and begun again in good order.
    for _ in 0..2 {
        nginx.restart(Signal::QUIT);
        expect_told(&nginx, &cursor);
    }
}

/// A client that keeps nginx from ending, for it does not read what it has asked for.
fn park_slow(nginx: &Nginx) -> Client {
    nginx.publish("large", pattern(LARGE));
    let mut slow = nginx.client();
    slow.limit_receive_buffer(16 << 10);
    slow.send(&Request::get(&subscriber("large")));
    slow.head_response().expect_status(200);
    slow
}

const LARGE: usize = 6 << 20;

/// A master that was started in the place of another one. If the test fails, it ends with its workers.
struct Beside(Child);

impl Beside {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn wait_until_serving(&self, nginx: &Nginx, workers: usize) {
        wait::until_true("workers", || process::children(self.pid()).len() == workers);
        nginx.get("/worker").expect_status(200);
    }

    fn end(mut self) {
        process::signal(self.pid(), Signal::QUIT);
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            let workers = process::children(self.pid());
            let _ = self.0.kill();
            workers.iter().for_each(|&pid| process::signal(pid, Signal::KILL));
        }
    }
}

/// Tells nginx to quit, which it cannot yet, and starts another one in its place.
fn start_beside(nginx: &Nginx) -> Beside {
    nginx.signal(Signal::QUIT);
    wait::until_true("a closed port", || TcpStream::connect(("127.0.0.1", nginx.port())).is_err());
    Beside(starting(nginx).spawn().unwrap())
}

fn a_start_waits_for_who_still_ends(workers: usize) {
    let mut nginx = start_with(config(workers).listen("sndbuf=16k"));
    nginx.publish("a", "one");
    let slow = park_slow(&nginx);
    let second = start_beside(&nginx);
    let path = snapshot(&nginx).display().to_string();
    let line = format!(
        "push: waiting for another nginx, which still ends, to save its messages to {path}"
    );
    wait::until_true("one that waits", || nginx.error_log().contains(&line));
    assert_eq!(all_names(&nginx), ["messages.lock"]);
    drop(slow);
    nginx.wait_for_exit();
    second.wait_until_serving(&nginx, workers);
    assert_eq!(nginx.queue("a"), ["one"]);
    assert_same_bytes(&nginx.poll_all("large")[0].body, &pattern(LARGE));
    assert_eq!(all_names(&nginx), ["messages.lock"]);
    nginx.publish("a", "two");
    second.end();
    assert_eq!(all_names(&nginx), ["messages"]);
    assert!(!nginx.error_log().contains("[error]"), "{}", nginx.error_log());
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["one", "two"]);
}

/// An nginx with a message, the client that keeps it from ending, and the nginx that has begun without it: that takes as long
/// as a start waits.
fn two_beside_each_other() -> (Nginx, Client, Beside) {
    let mut nginx = start_with(config(1).listen("sndbuf=16k"));
    // nginx removes it when it ends, whoever has written it.
    nginx.tolerate("nginx.pid");
    nginx.publish("a", "one");
    let slow = park_slow(&nginx);
    let second = start_beside(&nginx);
    second.wait_until_serving(&nginx, 1);
    (nginx, slow, second)
}

#[test]
fn who_ends_after_its_successor_does_not_overwrite_what_that_has_saved() {
    let (mut nginx, slow, second) = two_beside_each_other();
    nginx.publish("a", "two");
    second.end();
    assert_eq!(all_names(&nginx), ["messages"]);
    drop(slow);
    nginx.wait_for_exit();
    assert!(nginx.error_log().contains("push: messages are not saved to "));
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["two"]);
}

#[test]
fn a_start_does_not_wait_for_ever() {
    let (mut nginx, slow, second) = two_beside_each_other();
    let path = snapshot(&nginx).display().to_string();
    let complaint = format!("push: another nginx still uses {path} after 10 seconds");
    assert!(nginx.error_log().contains(&complaint), "{}", nginx.error_log());
    nginx.get(&publisher("a")).expect_status(404);
    nginx.publish("a", "two");
    drop(slow);
    nginx.wait_for_exit();
    let complaint = format!("push: messages are not saved to {path}, for another nginx goes on");
    assert!(nginx.error_log().contains(&complaint), "{}", nginx.error_log());
    assert_eq!(all_names(&nginx), ["messages.lock"]);
    second.end();
    assert_eq!(all_names(&nginx), ["messages"]);
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["two"]);
}

/// Whether some process has locked a file.
fn is_locked(path: &Path) -> bool {
    File::open(path).unwrap().try_lock().is_err()
}

fn a_snapshot_is_locked_while_nginx_runs(workers: usize) {
    for config in [config(workers), config(workers).daemon(), config(workers).without_master()] {
        let mut nginx = start_with(config);
        for signal in [Signal::QUIT, Signal::TERM] {
            nginx.get("/worker").expect_status(200);
            assert_eq!(all_names(&nginx), ["messages.lock"]);
            let file = fs::metadata(lock(&nginx)).unwrap();
            assert_eq!((file.permissions().mode() & 0o7777, file.len()), (0o600, 0));
            assert!(is_locked(&lock(&nginx)));
            if nginx.workers() != [nginx.master()] {
                nginx.wait_gone(&nginx.reload());
            }
            assert_eq!(fs::metadata(lock(&nginx)).unwrap().ino(), file.ino());
            assert!(is_locked(&lock(&nginx)));
            nginx.stop(signal);
            assert_eq!(all_names(&nginx), ["messages"]);
            nginx.start_again();
        }
    }
}

fn a_lock_ends_with_its_master(workers: usize) {
    let mut nginx = start(workers);
    let (master, workers) = (nginx.master(), nginx.workers());
    process::signal(master, Signal::KILL);
    nginx.wait_gone(&[master]);
    wait::until_true("an end of the lock", || !is_locked(&lock(&nginx)));
    assert!(workers.iter().all(|&pid| process::is_running(pid)));
    nginx.get("/worker").expect_status(200);
    workers.iter().for_each(|&pid| process::signal(pid, Signal::KILL));
    nginx.wait_gone(&workers);
    fs::remove_file(nginx.dir().join("nginx.pid")).unwrap();
    nginx.start_again();
    nginx.stop(Signal::QUIT);
    assert_eq!(all_names(&nginx), ["messages"]);
}

fn a_reload_moves_the_lock(workers: usize) {
    let other = Config::push(workers).http("push_snapshot state/other;");
    let without = Config::push(workers);
    let unused = Config::bare().workers(workers).http(PATH);
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    for (config, expected) in [
        (other, "other.lock"),
        (config(workers), "messages.lock"),
        (without, ""),
        (config(workers), "messages.lock"),
        (unused, ""),
        (config(workers), "messages.lock"),
    ] {
        nginx.reconfigure(config);
        nginx.wait_gone(&nginx.reload());
        let names = all_names(&nginx);
        assert_eq!(names.concat(), expected);
        assert!(names.iter().all(|_| is_locked(&nginx.dir().join("state").join(expected))));
    }
    nginx.stop(Signal::QUIT);
    assert_eq!(all_names(&nginx), ["messages"]);
    assert!(!nginx.error_log().contains("[error]"), "{}", nginx.error_log());
}

fn who_has_lost_the_lock_writes_nothing(workers: usize) {
    let mut nginx = start(workers);
    nginx.publish("a", "one");
    // This is another nginx.
    fs::remove_file(lock(&nginx)).unwrap();
    let file = File::create(lock(&nginx)).unwrap();
    file.lock().unwrap();
    nginx.wait_gone(&nginx.reload());
    let complaint = "; unless it ends first, messages will be lost when this one ends";
    assert!(nginx.error_log().contains(complaint), "{}", nginx.error_log());
    nginx.stop(Signal::QUIT);
    let complaint = "push: messages are not saved to ";
    assert!(nginx.error_log().contains(complaint), "{}", nginx.error_log());
    assert_eq!(all_names(&nginx), ["messages.lock"]);
    drop(file);
    nginx.start_again();
    nginx.publish("a", "two");
    // Another one that has ended, or been killed.
    fs::remove_file(lock(&nginx)).unwrap();
    drop(File::create(lock(&nginx)).unwrap());
    nginx.stop(Signal::QUIT);
    assert_eq!(all_names(&nginx), ["messages"]);
    nginx.start_again();
    assert_eq!(nginx.queue("a"), ["two"]);
}

#[test]
fn what_is_no_lock_is_left_alone() {
    let mut nginx = start(1);
    nginx.stop(Signal::QUIT);
    let (lock, precious) = (lock(&nginx), nginx.dir().join("precious"));
    let nowhere = nginx.dir().join("nowhere");
    fs::write(&precious, "precious").unwrap();
    let made_pipe = || Command::new("mkfifo").arg(&lock).status().unwrap();
    let makers: [&dyn Fn(); 5] = [
        &|| fs::create_dir(&lock).unwrap(),
        &|| assert!(made_pipe().success()),
        &|| symlink(&precious, &lock).unwrap(),
        &|| symlink(&nowhere, &lock).unwrap(),
        &|| fs::write(&lock, "precious").unwrap(),
    ];
    for (round, make) in makers.iter().enumerate() {
        make();
        let id = fs::symlink_metadata(&lock).unwrap().ino();
        nginx.start_again();
        let complaint = format!(
            "push: \"push_snapshot\" {}: cannot use {}: ",
            snapshot(&nginx).display(),
            lock.display()
        );
        // In the log, and on the console.
        let log = fs::read_to_string(nginx.dir().join("error.log")).unwrap();
        assert_eq!(log.matches(&complaint).count(), round + 1, "{log}");
        assert_eq!(nginx.messages("a"), round as u64);
        nginx.publish("a", "more");
        nginx.stop(Signal::QUIT);
        assert_eq!(all_names(&nginx), ["messages", "messages.lock"]);
        assert_eq!(fs::symlink_metadata(&lock).unwrap().ino(), id);
        assert!(!nowhere.exists());
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock)).unwrap();
    }
}

#[test]
fn a_directory_that_is_not_there_is_told_of_at_once() {
    let mut nginx = Nginx::start(config(1));
    let path = snapshot(&nginx).display().to_string();
    let complaint = |reason: &str| {
        format!(
            "push: \"push_snapshot\" {path}: cannot create {path}.lock: {reason}; messages will be lost when nginx ends"
        )
    };
    let is_missing = complaint("No such file or directory (os error 2)");
    assert!(nginx.error_log().contains(&is_missing), "{}", nginx.error_log());
    let test = nginx.run(&["-t"]);
    assert!(test.success && test.text.contains(&is_missing), "{}", test.text);
    // A file in its place.
    let state = nginx.dir().join("state");
    fs::write(&state, "").unwrap();
    let test = nginx.run(&["-t"]);
    let is_file = complaint("Not a directory (os error 20)");
    assert!(test.success && test.text.contains(&is_file), "{}", test.text);
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    let test = nginx.run(&["-t"]);
    assert!(test.success && !test.text.contains("push:"), "{}", test.text);
    assert_eq!(all_names(&nginx), [""; 0]);
    // A reload makes it good.
    nginx.wait_gone(&nginx.reload());
    assert_eq!(all_names(&nginx), ["messages.lock"]);
    nginx.stop(Signal::QUIT);
    assert_eq!(all_names(&nginx), ["messages"]);
}
