//! The module's protocol: publish, park, poll, and channel info.

use super::http::{Client, Request, Response};
use super::{wait, Nginx};

/// Where a subscriber is: what it sends back to get the next message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Goes into `If-Modified-Since`.
    pub last_modified: Option<String>,
    /// Goes into `If-None-Match`.
    pub etag: Option<String>,
}

impl Cursor {
    /// The beginning of the queue: a client without a cursor.
    pub fn none() -> Self {
        Cursor::default()
    }

    /// A cursor made by hand.
    pub fn new(last_modified: &str, etag: &str) -> Self {
        Cursor { last_modified: Some(last_modified.to_owned()), etag: Some(etag.to_owned()) }
    }

    /// What comes after this message.
    #[track_caller]
    pub fn after(response: &Response) -> Self {
        let header = |name| {
            let value = response.header(name);
            value.unwrap_or_else(|| panic!("no {name}:\n{}", response.head)).to_owned()
        };
        Cursor { last_modified: Some(header("Last-Modified")), etag: Some(header("Etag")) }
    }

    /// The same cursor with another tag.
    pub fn with_etag(&self, etag: &str) -> Self {
        Cursor { etag: Some(etag.to_owned()), ..self.clone() }
    }

    /// The cursor of a client that knows nothing of `Etag`.
    pub fn without_etag(&self) -> Self {
        Cursor { etag: None, ..self.clone() }
    }

    /// Adds the cursor's header fields.
    pub fn apply(&self, mut request: Request) -> Request {
        if let Some(value) = &self.last_modified {
            request = request.header("If-Modified-Since", value);
        }
        if let Some(value) = &self.etag {
            request = request.header("If-None-Match", value);
        }
        request
    }

    /// The message id as numbers: seconds since 1970, and the tag.
    pub fn id(&self) -> (u64, u32) {
        let date = self.last_modified.as_deref().expect("a cursor with a date");
        let date = httpdate::parse_http_date(date).expect("a HTTP date");
        let seconds = date.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let tag = self.etag.as_deref().expect("a cursor with a tag");
        (seconds, tag.parse().expect("a tag is a plain number"))
    }
}

/// Channel info, as the publisher location gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Messages in the queue.
    pub messages: u64,
    /// Seconds since the last subscriber request.
    pub requested: u64,
    /// Subscribers that wait now.
    pub subscribers: u64,
}

impl Info {
    /// Reads info in any of the four formats: the numbers come in the same order only in three.
    pub fn parse_text(text: &str) -> Self {
        let number = |name: &str| {
            let rest = text.split(name).nth(1).unwrap_or_else(|| panic!("no {name:?} in {text:?}"));
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or_else(|_| panic!("no number after {name:?} in {text:?}"))
        };
        Info {
            messages: number("queued messages: "),
            requested: number("last requested: "),
            subscribers: number("active subscribers: "),
        }
    }

    /// Reads the JSON form of the info.
    pub fn parse_json(text: &str) -> Self {
        let value: serde_json::Value = serde_json::from_str(text).expect("info is JSON");
        let number = |name: &str| {
            value[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {text}"))
        };
        Info {
            messages: number("messages"),
            requested: number("requested"),
            subscribers: number("subscribers"),
        }
    }
}

/// The target of the publisher location.
pub fn publisher(id: &str) -> String {
    format!("/pub?id={id}")
}

/// The target of the subscriber location.
pub fn subscriber(id: &str) -> String {
    format!("/sub?id={id}")
}

impl Nginx {
    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(self.port())
    }

    /// A connection to each worker, with the worker's pid.
    ///
    /// Connects until it has met every worker; a connection stays with the worker that took it.
    pub fn client_of_each_worker(&self, workers: usize) -> Vec<(String, Client)> {
        let mut clients: Vec<(String, Client)> = Vec::new();
        // Connections to workers that are known already stay open: a worker with many connections
        // is less eager to accept the next.
        let mut spare = Vec::new();
        wait::until_true("a connection to each worker", || {
            let mut client = self.client();
            let pid = client.request(&Request::get("/worker")).text().to_owned();
            match clients.iter().any(|(known, _)| *known == pid) {
                true => spare.push(client),
                false => clients.push((pid, client)),
            }
            clients.len() == workers
        });
        clients
    }

    /// Sends a request on a new connection.
    #[track_caller]
    pub fn request(&self, request: &Request) -> Response {
        self.client().request(request)
    }

    /// Sends a GET request on a new connection.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.request(&Request::get(target))
    }

    /// The reply of the first worker that has a connection to spare: those that have none close it before they read
    /// anything.
    pub fn once_served(&self, request: &Request) -> Response {
        wait::until("service", || {
            Client::try_connect(self.port()).and_then(|mut client| client.try_request(request)).ok()
        })
    }

    /// Waits until nobody waits on the channel any more, where workers had no connections left.
    pub fn wait_for_end_of_flood(&self, id: &str) {
        let info = Request::get(&publisher(id)).header("Accept", "application/json");
        wait::until_true("nobody of the flood waits", || {
            let response = self.once_served(&info);
            response.status == 404 || Info::parse_json(response.text()).subscribers == 0
        });
    }

    /// Publishes a message of type `text/plain` through `/pub`.
    #[track_caller]
    pub fn publish(&self, id: &str, body: impl Into<Vec<u8>>) -> Response {
        self.publish_at(&publisher(id), body)
    }

    /// Publishes a message of type `text/plain`. Panics unless it is accepted.
    #[track_caller]
    pub fn publish_at(&self, target: &str, body: impl Into<Vec<u8>>) -> Response {
        let request = Request::post(target, body).header("Content-Type", "text/plain");
        let response = self.request(&request);
        let ok = response.status == 201 || response.status == 202;
        assert!(ok, "not accepted:\n{}{}", response.head, response.text());
        response
    }

    /// The channel's info; nothing if there is no such channel.
    #[track_caller]
    pub fn info(&self, id: &str) -> Option<Info> {
        self.info_at(&publisher(id))
    }

    /// The channel's info through any publisher location.
    #[track_caller]
    pub fn info_at(&self, target: &str) -> Option<Info> {
        let response = self.request(&Request::get(target).header("Accept", "application/json"));
        match response.status {
            404 => None,
            _ => Some(Info::parse_json(response.expect_status(200).text())),
        }
    }

    /// The number of messages in the channel's queue; 0 if there is no channel.
    pub fn messages(&self, id: &str) -> u64 {
        self.info(id).map_or(0, |info| info.messages)
    }

    /// The number of waiting subscribers; 0 if there is no channel.
    pub fn subscribers(&self, id: &str) -> u64 {
        self.info(id).map_or(0, |info| info.subscribers)
    }

    /// Waits until so many subscribers wait on the channel.
    #[track_caller]
    pub fn wait_for_subscribers(&self, id: &str, count: u64) {
        wait::until_true(&format!("{count} subscribers on {id}"), || self.subscribers(id) == count);
    }

    /// Waits until so many messages are in the channel's queue.
    #[track_caller]
    pub fn wait_for_messages(&self, id: &str, count: u64) {
        wait::until_true(&format!("{count} messages on {id}"), || self.messages(id) == count);
    }

    /// Polls, for a reply that comes at once or soon.
    #[track_caller]
    pub fn poll(&self, id: &str, cursor: &Cursor) -> Response {
        self.request(&cursor.apply(Request::get(&subscriber(id))))
    }

    /// Polls until a message comes that is the last one of the queue. Panics on a 304.
    #[track_caller]
    pub fn poll_all(&self, id: &str) -> Vec<Response> {
        let mut client = self.client();
        let mut cursor = Cursor::none();
        (0..self.messages(id))
            .map(|_| {
                let request = cursor.apply(Request::get(&subscriber(id)));
                let response = client.request(&request).expect_status(200);
                cursor = Cursor::after(&response);
                response
            })
            .collect()
    }

    /// The bodies of all messages in the queue, oldest first.
    #[track_caller]
    pub fn queue(&self, id: &str) -> Vec<String> {
        self.poll_all(id).iter().map(|response| response.text().to_owned()).collect()
    }

    /// A subscriber without a cursor that waits.
    #[track_caller]
    pub fn park(&self, id: &str) -> Client {
        self.park_after(id, &Cursor::none())
    }

    /// A subscriber that waits for what comes after the cursor.
    #[track_caller]
    pub fn park_after(&self, id: &str, cursor: &Cursor) -> Client {
        let mut client = self.client();
        self.park_request(&mut client, id, &cursor.apply(Request::get(&subscriber(id))));
        client
    }

    /// A subscriber that waits at any subscriber location of a channel.
    #[track_caller]
    pub fn park_at(&self, subscriber: &str, publisher: &str) -> Client {
        let count = || self.info_at(publisher).map_or(0, |info| info.subscribers);
        let before = count();
        let mut client = self.client();
        client.send(&Request::get(subscriber));
        wait::until_true("one more subscriber", || count() == before + 1);
        client.expect_silence();
        client
    }

    /// Sends a request that must wait on the channel, and returns when it does.
    ///
    /// No other subscriber of the channel may come or go meanwhile.
    #[track_caller]
    pub fn park_request(&self, client: &mut Client, id: &str, request: &Request) {
        let before = self.subscribers(id);
        client.send(request);
        self.wait_for_subscribers(id, before + 1);
        client.expect_silence();
    }
}

/// A body of this length in which every place can be told from its neighbours.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31) ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// Panics unless both are equal, without printing megabytes.
#[track_caller]
pub fn assert_same_bytes(left: &[u8], right: &[u8]) {
    assert_eq!(left.len(), right.len(), "lengths differ");
    if let Some(at) = left.iter().zip(right).position(|(l, r)| l != r) {
        panic!("the bytes differ from {at} on");
    }
}
