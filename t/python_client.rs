//! Tests for `examples/`: a client that prints what is published, and a script that publishes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::SystemTime;

use support::config::project_file;
use support::push::{publisher, subscriber};
use support::{on_1_and_4_workers, wait, Config, Nginx};

on_1_and_4_workers!(
    prints_messages_in_order,
    goes_on_after_a_reload,
    works_without_etags_as_the_old_one_did,
    ends_after_the_wanted_number_of_messages,
    prints_what_the_shell_script_publishes,
);

/// A running client and the lines that it prints.
struct PythonClient {
    process: Child,
    lines: Receiver<String>,
}

impl PythonClient {
    fn start(nginx: &Nginx, id: &str, options: &[&str]) -> Self {
        let mut process = Command::new("python3")
            .arg("-u")
            .arg(project_file("examples/client.py"))
            .args(options)
            .arg(format!("http://127.0.0.1:{}{}", nginx.port(), subscriber(id)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs; on Debian: apt-get install python3");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        PythonClient { process, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(wait::patience()).expect("a line")
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn prints_messages_in_order(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let bodies: Vec<String> = (0..5).map(|number| format!("message {number}")).collect();
    // Before it starts, all at once, and one by one.
    nginx.publish("a", bodies[0].as_str());
    let client = PythonClient::start(&nginx, "a", &[]);
    assert_eq!(client.line(), bodies[0]);
    nginx.publish("a", bodies[1].as_str());
    nginx.publish("a", bodies[2].as_str());
    assert_eq!([client.line(), client.line()], bodies[1..3]);
    for body in &bodies[3..] {
        nginx.wait_for_subscribers("a", 1);
        nginx.publish("a", body.as_str()).expect_status(201);
        assert_eq!(client.line(), *body);
    }
}

fn goes_on_after_a_reload(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    nginx.publish("a", "one");
    let client = PythonClient::start(&nginx, "a", &[]);
    assert_eq!(client.line(), "one");
    nginx.wait_for_subscribers("a", 1);
    let old = nginx.reload();
    nginx.wait_gone(&old);
    nginx.publish("a", "two");
    assert_eq!(client.line(), "two");
}

fn works_without_etags_as_the_old_one_did(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let client = PythonClient::start(&nginx, "a", &["--date-only"]);
    for body in ["one", "two", "three"] {
        nginx.wait_for_subscribers("a", 1);
        // Messages that share a second are beyond a client that looks at the date alone; and in the second of the start, ids
        // are of the next one.
        let before = SystemTime::now();
        let second = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
        };
        wait::until_true("the next second", || second(SystemTime::now()) > second(before));
        nginx.publish("a", body).expect_status(201);
        assert_eq!(client.line(), body);
    }
}

fn ends_after_the_wanted_number_of_messages(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    for body in ["one", "two", "three"] {
        nginx.publish("a", body);
    }
    let mut client = PythonClient::start(&nginx, "a", &["--count", "2"]);
    assert_eq!([client.line(), client.line()], ["one", "two"]);
    assert!(client.process.wait().expect("it is our child").success());
}

fn prints_what_the_shell_script_publishes(workers: usize) {
    let nginx = Nginx::start(Config::push(workers));
    let client = PythonClient::start(&nginx, "a", &[]);
    let mut script = Command::new(project_file("examples/publish.sh"))
        .arg(format!("http://127.0.0.1:{}{}", nginx.port(), publisher("a")))
        .stdin(Stdio::piped())
        .spawn()
        .expect("the script runs");
    let lines = ["first", "second line", "  @third & 100%", "last"];
    let mut input = script.stdin.take().expect("a pipe");
    input.write_all(lines.join("\n").as_bytes()).expect("the script reads");
    drop(input);
    assert!(script.wait().expect("it is our child").success());
    for line in lines {
        assert_eq!(client.line(), line);
    }
}
