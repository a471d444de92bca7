//! Many publishers and subscribers at once, and the books that they keep.
//!
//! A connection may break during a reload or when a worker is killed. Then a publisher does not
//! know whether its message was taken. It tries again with another body, so that a message
//! may be missing or not, but never counts twice.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::http::{Client, Request};
use super::push::{publisher, subscriber, Cursor};

/// Tells threads to end when it goes: also when a test fails, which would wait for them for ever.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The body that tells a follower to end.
pub const END: &str = "end";

/// Publishes `count` messages, each on a connection of its own, until each is acknowledged.
///
/// Returns the bodies that were acknowledged, in order.
pub fn publish(port: u16, id: &str, name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| publish_one(port, id, &format!("{name}-{number}"))).collect()
}

/// Publishes [`END`].
pub fn publish_end(port: u16, id: &str) {
    while try_publish(port, id, END).is_none() {
        thread::sleep(Duration::from_millis(5));
    }
}

fn publish_one(port: u16, id: &str, name: &str) -> String {
    const ATTEMPTS: usize = 1000;
    for attempt in 0..ATTEMPTS {
        let body = format!("{name}-{attempt}");
        if try_publish(port, id, &body).is_some() {
            return body;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{name} was not acknowledged in {ATTEMPTS} attempts");
}

fn try_publish(port: u16, id: &str, body: &str) -> Option<()> {
    let request = Request::post(&publisher(id), body).header("Connection", "close");
    let response = Client::try_connect(port).ok()?.try_request(&request).ok()?;
    let ok = response.status == 201 || response.status == 202;
    assert!(ok, "not accepted:\n{}", response.head);
    Some(())
}

/// Follows a channel from its oldest message to [`END`], reconnecting as often as it takes.
///
/// Panics if the server says that messages were missed.
pub fn follow(port: u16, id: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut cursor = Cursor::none();
    let mut connection: Option<Client> = None;
    loop {
        let Some(mut client) = connection.take().or_else(|| Client::try_connect(port).ok()) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let request = cursor.apply(Request::get(&subscriber(id)));
        // A broken connection: the reply is lost, so ask again for the same.
        let Ok(response) = client.try_request(&request) else {
            continue;
        };
        match response.status {
            200 => {
                assert_eq!(response.header("Push-Missed"), None, "after {:?}", bodies.last());
                cursor = Cursor::after(&response);
                let body = response.text().to_owned();
                if body == END {
                    return bodies;
                }
                bodies.push(body);
            }
            304 => assert!(client.is_closing(), "held for ever, but released:\n{}", response.head),
            _ => panic!("unexpected reply:\n{}", response.head),
        }
        if !client.is_closing() {
            connection = Some(client);
        }
    }
}

/// Panics unless every follower has every acknowledged message once, each publisher's messages
/// are in the order in which they were published, and all followers saw one and the same order.
#[track_caller]
pub fn assert_complete(acknowledged: &[Vec<String>], received: &[Vec<String>]) {
    let first = received.first().expect("at least one follower");
    for (number, other) in received.iter().enumerate().skip(1) {
        let differs = first.iter().zip(other).position(|(a, b)| a != b);
        assert_eq!(differs, None, "follower {number} saw another order");
        assert_eq!(other.len(), first.len(), "follower {number} saw another number of messages");
    }
    let distinct: HashSet<&String> = first.iter().collect();
    assert_eq!(distinct.len(), first.len(), "a message was received twice");
    for published in acknowledged {
        let own: HashSet<&String> = published.iter().collect();
        let seen: Vec<&String> = first.iter().filter(|body| own.contains(body)).collect();
        let sent: Vec<&String> = published.iter().collect();
        assert_eq!(seen, sent, "a publisher's messages");
    }
}
