//! Runs the whole tool against its built-in server, clean and with faults.

#![allow(clippy::unwrap_used)]

use std::process::Command;

/// (exit code, JSON text).
fn run(args: &str) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_pushload"))
        .args(args.split_whitespace())
        .args(["--json", "--quiet", "--timeout", "60"])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.starts_with('{'), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    (out.status.code().unwrap(), text)
}

/// A number anywhere in the JSON text, by its key.
fn num(json: &str, key: &str) -> f64 {
    let k = format!("\"{key}\":");
    let at = json.find(&k).unwrap_or_else(|| panic!("no {key} in {json}")) + k.len();
    let end = json[at..].find([',', '}']).unwrap() + at;
    json[at..end].parse().unwrap_or_else(|_| panic!("{key} in {json}"))
}

const KINDS: [&str; 6] = ["chunked", "sse", "ws", "longpoll", "icomet-stream", "icomet-poll"];

#[test]
fn every_kind_is_clean() {
    for kind in KINDS {
        for more in
            ["", "--fault split --size 1000", "--procs 3 --workers 2 --channels 4 --warmup 8"]
        {
            let (code, j) = run(&format!("floor --kind {kind} --subs 40 --messages 60 {more}"));
            assert_eq!(code, 0, "{kind} {more}: {j}");
            assert_eq!(num(&j, "delivered"), num(&j, "expected"));
            assert_eq!(num(&j, "dead"), 0.0);
        }
    }
}

#[test]
fn large_messages_arrive_in_pieces() {
    for kind in KINDS {
        let (code, j) = run(&format!("floor --kind {kind} --subs 5 --messages 10 --size 700000"));
        assert_eq!(code, 0, "{kind}: {j}");
        assert_eq!(num(&j, "delivered"), 50.0);
    }
}

#[test]
fn faults_are_noticed() {
    for kind in ["chunked", "sse", "ws", "icomet-stream"] {
        // One subscriber per channel is hit, once.
        for (fault, key) in [
            ("drop", "lost"),
            ("dup", "duplicates"),
            ("swap", "out_of_order"),
            ("corrupt", "corrupt"),
        ] {
            let (code, j) = run(&format!(
                "floor --kind {kind} --subs 20 --channels 2 --messages 40 --drain 0.3 --fault {fault}"
            ));
            assert_eq!(code, 1, "{kind} {fault}: {j}");
            assert_eq!(num(&j, key), 2.0, "{kind} {fault}: {j}");
            let lost = if matches!(fault, "drop" | "corrupt") { 2.0 } else { 0.0 };
            assert_eq!(num(&j, "lost"), lost, "{kind} {fault}: {j}");
            assert_eq!(num(&j, "delivered"), 400.0 - lost);
        }
    }
}

#[test]
fn closing_after_every_poll_is_survived() {
    let (code, j) = run("floor --kind longpoll --subs 10 --messages 20 --fault close");
    assert_eq!(code, 0, "{j}");
    assert_eq!(num(&j, "delivered"), 200.0);
    assert!(num(&j, "reconnects") >= 190.0, "{j}");
}

#[test]
fn park() {
    let (code, j) = run("floor --park --subs 200 --hold 0.3");
    assert_eq!(code, 0, "{j}");
    assert_eq!(num(&j, "established"), 200.0);
    assert_eq!(num(&j, "server_fds"), 1.0);
}

#[test]
fn paced_publishing_takes_its_time() {
    let (code, j) = run("floor --kind chunked --subs 10 --messages 50 --rate 100");
    assert_eq!(code, 0, "{j}");
    let s = num(&j[j.find("\"publish\"").unwrap()..], "seconds");
    assert!(s >= 0.48, "{s}");
}

#[test]
fn servers_that_close_or_refuse_are_reported() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for s in listener.incoming() {
            drop(s);
        }
    });
    let (code, j) = run(&format!("park --sub http://{addr}/ --subs 3 --hold 1"));
    assert_eq!(code, 1, "{j}");
    // A connection may be closed before all are established.
    assert!(num(&j, "dead") >= 1.0, "{j}");
    let (code, j) = run(&format!("park --kind sse --sub http://{addr}/ --subs 3 --hold 0"));
    assert_eq!(code, 1, "{j}");
    assert!(j.contains("only 0 of 3 subscribers established"), "{j}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, j) = run(&format!("park --sub http://{free}/ --subs 3 --hold 0"));
    assert_eq!(code, 1, "{j}");
    assert!(j.contains("refused"), "{j}");
}
