//! Tests for random operations on several channels and workers, against a simple model.
//!
//! A failing run prints its seed; `PUSH_TEST_SEED` repeats it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::random::{self, Random};
use support::{on_1_and_4_workers, Client, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(random_operations_agree_with_the_model);

/// How many messages a channel keeps.
const QUEUE: usize = 5;

/// What the model knows of a message.
struct Published {
    cursor: Cursor,
    body: Vec<u8>,
}

/// A channel as it should be.
#[derive(Default)]
struct Channel {
    /// All messages since the channel was last deleted; the newest `QUEUE` of them are stored.
    life: Vec<Published>,
    /// Cursors from before that.
    past: Vec<Cursor>,
    exists: bool,
}

impl Channel {
    fn stored(&self) -> &[Published] {
        &self.life[self.life.len().saturating_sub(QUEUE)..]
    }

    fn newest(&self) -> Cursor {
        let current = self.life.last().map(|message| &message.cursor);
        current.or(self.past.last()).cloned().unwrap_or_default()
    }
}

/// The model, the server, and the connections to its workers.
struct World {
    nginx: Nginx,
    workers: usize,
    clients: Vec<(String, Client)>,
    channels: Vec<Channel>,
    random: Random,
    published: usize,
}

impl World {
    fn start(workers: usize) -> Self {
        let nginx = Nginx::start(
            Config::push(workers)
                .http(&format!("push_message_buffer_length {QUEUE};"))
                .http("push_channel_timeout 1h; client_body_buffer_size 8k;")
                .server(
                    "location /interval {
                         push_subscriber interval-poll; set $push_channel_id $arg_id;
                     }",
                ),
        );
        let clients = nginx.client_of_each_worker(workers);
        let channels = (0..4).map(|_| Channel::default()).collect();
        let random = Random::new(random::seed("PUSH_TEST_SEED"), 0);
        World { nginx, workers, clients, channels, random, published: 0 }
    }

    /// Sends a request to any worker.
    fn request(&mut self, request: &Request) -> Response {
        let worker = self.random.below(self.clients.len());
        self.clients[worker].1.request(request)
    }

    fn interval_poll(&mut self, channel: usize, cursor: &Cursor) -> Response {
        self.request(&cursor.apply(Request::get(&format!("/interval?id={channel}"))))
    }

    fn step(&mut self) {
        let channel = self.random.below(self.channels.len());
        match self.random.below(100) {
            0..40 => self.publish(channel),
            40..75 => self.read(channel),
            75..85 => self.look(channel),
            85..92 => self.wait_and_publish(channel),
            92..98 => self.delete(channel),
            _ => self.reload(),
        }
    }

    fn new_body(&mut self) -> Vec<u8> {
        let length = self.random.one_of(&[0, 1, 20, 20, 300, 5_000, 8_192, 8_193, 60_000]);
        self.published += 1;
        [format!("{} ", self.published).into_bytes(), pattern(length)].concat()
    }

    fn publish(&mut self, channel: usize) {
        let body = self.new_body();
        let request = Request::post(&publisher(&channel.to_string()), body.clone());
        self.request(&request).expect_status(202);
        let response = self.interval_poll(channel, &self.channels[channel].newest());
        self.remember(channel, &response.expect_status(200), body);
    }

    /// The message was received by somebody who had the one before it.
    fn remember(&mut self, channel: usize, response: &Response, body: Vec<u8>) {
        assert_same_bytes(&response.body, &body);
        let cursor = Cursor::after(response);
        let channel = &mut self.channels[channel];
        let before = channel.newest();
        if before != Cursor::none() {
            assert!(cursor.id() > before.id(), "{cursor:?} after {before:?}");
        }
        channel.exists = true;
        channel.life.push(Published { cursor, body });
    }

    /// Reads with any cursor that was ever given, or with none.
    fn read(&mut self, number: usize) {
        let channel = &self.channels[number];
        let cursors: Vec<(Option<usize>, Cursor)> = [(None, Cursor::none())]
            .into_iter()
            .chain(channel.past.iter().map(|cursor| (None, cursor.clone())))
            .chain(channel.life.iter().enumerate().map(|(at, m)| (Some(at), m.cursor.clone())))
            .collect();
        let (position, cursor) = cursors[self.random.below(cursors.len())].clone();
        let response = self.interval_poll(number, &cursor);
        let channel = &mut self.channels[number];
        let oldest = channel.life.len() - channel.stored().len();
        let next = position.map_or(oldest, |position| oldest.max(position + 1));
        match channel.life.get(next) {
            None => {
                response.expect_status(304);
            }
            Some(expected) => {
                let response = response.expect_status(200);
                assert_same_bytes(&response.body, &expected.body);
                assert_eq!(Cursor::after(&response), expected.cursor);
                if let Some(position) = position {
                    check_missed(&response, next - position - 1);
                }
                if cursor == Cursor::none() {
                    assert_eq!(response.header("Push-Missed"), None);
                }
            }
        }
    }

    fn look(&mut self, channel: usize) {
        let id = channel.to_string();
        let info = self.nginx.info(&id);
        let channel = &self.channels[channel];
        if channel.exists {
            let info = info.expect("the channel");
            assert_eq!((info.messages, info.subscribers), (channel.stored().len() as u64, 0));
        }
    }

    fn wait_and_publish(&mut self, channel: usize) {
        let id = channel.to_string();
        let cursor = self.channels[channel].newest();
        let worker = self.random.below(self.clients.len());
        let request = cursor.apply(Request::get(&subscriber(&id)));
        self.nginx.park_request(&mut self.clients[worker].1, &id, &request);
        let body = self.new_body();
        // On a connection of its own: the waiting one may be the one that would be picked.
        self.nginx.publish(&id, body.clone()).expect_status(201);
        let response = self.clients[worker].1.response().expect_status(200);
        self.remember(channel, &response, body);
        self.nginx.wait_for_subscribers(&id, 0);
    }

    fn delete(&mut self, channel: usize) {
        let request = Request::new("DELETE", &publisher(&channel.to_string()));
        let response = self.request(&request);
        let channel = &mut self.channels[channel];
        if channel.exists {
            response.expect_status(200);
        }
        channel.past.extend(channel.life.drain(..).map(|message| message.cursor));
        channel.exists = false;
    }

    fn reload(&mut self) {
        let old = self.nginx.reload();
        self.nginx.wait_gone(&old);
        self.clients = self.nginx.client_of_each_worker(self.workers);
    }
}

/// The header tells the exact number, or a lower bound of it.
fn check_missed(response: &Response, expected: usize) {
    match response.header("Push-Missed") {
        None => assert_eq!(expected, 0, "missed in silence"),
        Some(text) => match text.strip_suffix(";at-least") {
            None => assert_eq!(text, expected.to_string()),
            Some(bound) => {
                let bound: usize = bound.parse().expect("a number");
                assert!(bound <= expected, "{bound} is not a lower bound of {expected}");
            }
        },
    }
}

fn random_operations_agree_with_the_model(workers: usize) {
    let mut world = World::start(workers);
    for _ in 0..1500 {
        world.step();
    }
}
