//! Tests for where a subscriber without a cursor begins (`push_first_message`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::event_source::EventSource;
use support::push::subscriber;
use support::streams::Kind;
use support::{on_1_and_4_workers, wait, Client, Config, Cursor, Nginx, Request, Response, Signal};

on_1_and_4_workers!(
    the_location_says_where_to_begin,
    a_client_may_say_it_where_the_location_takes_its_word,
    a_cursor_counts_more,
    what_makes_no_sense_is_told,
    one_can_begin_at_a_time,
    a_time_to_come_is_the_next_message,
    several_channels_begin_alike,
    an_interval_poll_for_what_is_new_gets_it,
    who_has_waited_in_vain_goes_on_where_it_was,
    who_waited_for_some_of_the_last_goes_on_as_well,
    of_several_channels_the_place_is_told_as_well,
    a_script_is_told_its_place_with_the_end,
    no_cache_brings_a_place_as_well,
    a_reload_passes_over_nothing_for_those_without_a_cursor,
    another_zone_size_passes_over_nothing_either,
    a_place_outlives_a_restart,
    who_begins_with_the_oldest_gets_no_place,
);

fn start(workers: usize, value: &str) -> Nginx {
    Nginx::start(Config::push(workers).subscriber(&format!("push_first_message {value};")))
}

fn publish(nginx: &Nginx, count: usize) {
    for number in 1..=count {
        nginx.publish("a", number.to_string());
    }
}

/// The body that a poll gets at once, or nothing if it waits.
fn first(nginx: &Nginx, target: &str) -> Option<String> {
    let mut client = nginx.client();
    let before = nginx.subscribers("a");
    client.send(&Request::get(target));
    wait::until_true("an answer", || client.has_bytes() || nginx.subscribers("a") > before);
    let body = client.has_bytes().then(|| client.response().expect_status(200).text().to_owned());
    drop(client);
    nginx.wait_for_subscribers("a", before);
    body
}

fn the_location_says_where_to_begin(workers: usize) {
    for (value, body) in [
        ("oldest", Some("1")),
        ("newest", None),
        ("1", Some("1")),
        ("3", Some("3")),
        ("5", Some("5")),
        ("6", None),
        ("-1", Some("5")),
        ("-3", Some("3")),
        ("-50", Some("1")),
        ("-0", None),
    ] {
        let nginx = start(workers, value);
        publish(&nginx, 5);
        assert_eq!(first(&nginx, &subscriber("a")).as_deref(), body, "{value}");
        let mut stream = Kind::JsonLines.listen(nginx.port(), "a");
        if let Some(body) = body {
            let from: usize = body.parse().unwrap();
            (from..=5).for_each(|number| drop(stream.expect_message(&number.to_string())));
        }
        nginx.wait_for_subscribers("a", 1);
        nginx.publish("a", "6").expect_status(201);
        stream.expect_message("6");
    }
}

fn a_client_may_say_it_where_the_location_takes_its_word(workers: usize) {
    let nginx = start(workers, "-$arg_last newest");
    publish(&nginx, 5);
    let target = |argument: &str| format!("{}&{argument}", subscriber("a"));
    assert_eq!(first(&nginx, &target("last=2")).as_deref(), Some("4"));
    assert_eq!(first(&nginx, &target("last=")), None);
    assert_eq!(first(&nginx, &subscriber("a")), None);
    let mut stream = Kind::EventSource.listen_on(nginx.client(), &target("last=2"), None);
    stream.expect_message("4");
    stream.expect_message("5");
}

fn a_cursor_counts_more(workers: usize) {
    let nginx = start(workers, "newest");
    publish(&nginx, 3);
    let cursor = {
        let mut stream = Kind::EventSource.listen(nginx.port(), "a");
        nginx.wait_for_subscribers("a", 1);
        nginx.publish("a", "4");
        stream.expect_message("4").unwrap()
    };
    nginx.publish("a", "5");
    Kind::EventSource.listen_after(nginx.port(), "a", &cursor).expect_message("5");
    let (time, tag) = cursor.split_once(':').unwrap();
    let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time.parse().unwrap());
    let cursor = Cursor::new(&httpdate::fmt_http_date(date), tag);
    assert_eq!(nginx.poll("a", &cursor).expect_status(200).text(), "5");
}

fn what_makes_no_sense_is_told(workers: usize) {
    let nginx = start(workers, "$arg_from");
    publish(&nginx, 1);
    for bad in ["0", "x", "--1", "@x", "1%20"] {
        let response = nginx.get(&format!("/sub?id=a&from={bad}")).expect_status(400);
        assert!(response.text().starts_with("push_first_message does not understand"), "{bad}");
    }
    let check = Nginx::check(&Config::push(1).subscriber("push_first_message last;"));
    assert!(!check.success);
    assert!(check.text.contains("invalid value \"last\" in \"push_first_message\""));
}

fn one_can_begin_at_a_time(workers: usize) {
    let nginx = start(workers, "@$arg_since newest");
    nginx.publish("a", "1");
    let mut stream = Kind::JsonLines.listen_on(nginx.client(), "/sub?id=a&since=1", None);
    let id = stream.expect_message("1").unwrap();
    let second: u64 = id.split(':').next().unwrap().parse().unwrap();
    let since = |time: u64| first(&nginx, &format!("/sub?id=a&since={time}"));
    assert_eq!(since(second).as_deref(), Some("1"));
    assert_eq!(since(second + 1), None);
    assert_eq!(since(0).as_deref(), Some("1"));
}

fn a_time_to_come_is_the_next_message(workers: usize) {
    let nginx = start(workers, "@4102444800");
    publish(&nginx, 2);
    let mut client = nginx.park("a");
    let mut stream = Kind::EventSource.listen(nginx.port(), "a");
    nginx.wait_for_subscribers("a", 2);
    nginx.publish("a", "3").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "3");
    stream.expect_message("3");
}

fn several_channels_begin_alike(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .http("push_channel_id_split_delimiter ',';")
            .subscriber("push_first_message -2;"),
    );
    for number in 0..8 {
        nginx.publish(["a", "b"][number % 2], number.to_string());
    }
    let mut stream = Kind::WebSocket.listen(nginx.port(), "a,b");
    for number in 4..8 {
        stream.expect_message(&number.to_string());
    }
}

/// A location that answers at once, beside the one that waits.
fn start_interval(workers: usize, text: &str) -> Nginx {
    let location = format!(
        "location /interval {{ push_subscriber interval-poll; push_channel_id $arg_id; {text} }}"
    );
    let config = Config::push(workers).http("push_channel_id_split_delimiter ',';");
    Nginx::start(config.server(&location))
}

fn interval(nginx: &Nginx, id: &str, cursor: &Cursor) -> Response {
    nginx.request(&cursor.apply(Request::get(&format!("/interval?id={id}"))))
}

/// Polls up to the first reply without a message; returns the bodies, and where to go on.
fn all_after(poll: impl Fn(&Cursor) -> Response, mut cursor: Cursor) -> (Vec<String>, Cursor) {
    let mut bodies = Vec::new();
    loop {
        let response = poll(&cursor);
        assert_eq!(response.header("Push-Missed"), None);
        cursor = Cursor::after(&response);
        if response.status == 304 {
            return (bodies, cursor);
        }
        bodies.push(response.expect_status(200).text().to_owned());
    }
}

fn an_interval_poll_for_what_is_new_gets_it(workers: usize) {
    let nginx = start_interval(workers, "push_first_message newest;");
    nginx.publish("a", "old");
    // One of the channels has a message, the other has never had one.
    for id in ["a", "b"] {
        let response = interval(&nginx, id, &Cursor::none()).expect_status(304);
        let mut cursor = Cursor::after(&response);
        assert!(cursor.id().0 > 1_700_000_000, "{}", response.head);
        for round in 0..2 {
            let sent: Vec<_> = (0..3).map(|number| format!("{round}-{number}")).collect();
            sent.iter().for_each(|body| drop(nginx.publish(id, body.as_str())));
            let (got, next) = all_after(|cursor| interval(&nginx, id, cursor), cursor);
            assert_eq!(got, sent);
            cursor = next;
        }
    }
}

fn who_has_waited_in_vain_goes_on_where_it_was(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers).subscriber("push_first_message newest; push_subscriber_timeout 1s;"),
    );
    nginx.publish("a", "old");
    for id in ["a", "b"] {
        let response = nginx.poll(id, &Cursor::none()).expect_status(304);
        nginx.publish(id, "1");
        nginx.publish(id, "2");
        let first = nginx.poll(id, &Cursor::after(&response)).expect_status(200);
        let second = nginx.poll(id, &Cursor::after(&first)).expect_status(200);
        assert_eq!((first.text(), second.text()), ("1", "2"));
        // It has a cursor of its own now, and keeps it.
        let end = nginx.poll(id, &Cursor::after(&second)).expect_status(304);
        assert_eq!(end.header("Etag"), None);
    }
}

fn who_waited_for_some_of_the_last_goes_on_as_well(workers: usize) {
    for value in ["-1", "4"] {
        let nginx = start_interval(workers, &format!("push_first_message {value};"));
        let response = interval(&nginx, "a", &Cursor::none()).expect_status(304);
        (1..=5).for_each(|number| drop(nginx.publish("a", number.to_string())));
        let poll = |cursor: &Cursor| interval(&nginx, "a", cursor);
        assert_eq!(all_after(poll, Cursor::after(&response)).0, ["1", "2", "3", "4", "5"]);
    }
}

fn of_several_channels_the_place_is_told_as_well(workers: usize) {
    let nginx = start_interval(workers, "push_first_message newest;");
    nginx.publish("a", "old");
    nginx.publish("b", "old");
    nginx.publish("b", "old");
    for ids in ["a,b,c", "c,b,a"] {
        let response = interval(&nginx, ids, &Cursor::none()).expect_status(304);
        let sent = ["a", "b", "c", "a"].map(|id| {
            nginx.publish(id, format!("to {id}"));
            format!("to {id}")
        });
        let poll = |cursor: &Cursor| interval(&nginx, ids, cursor);
        assert_eq!(all_after(poll, Cursor::after(&response)).0, sent);
    }
    let nginx = Nginx::start(
        Config::push(workers)
            .http("push_channel_id_split_delimiter ',';")
            .subscriber("push_first_message newest; push_subscriber_timeout 1s;"),
    );
    nginx.publish("b", "old");
    let response = nginx.poll("a,b", &Cursor::none()).expect_status(304);
    nginx.publish("a", "1");
    nginx.publish("b", "2");
    let first = nginx.poll("a,b", &Cursor::after(&response)).expect_status(200);
    let second = nginx.poll("a,b", &Cursor::after(&first)).expect_status(200);
    assert_eq!((first.text(), second.text()), ("1", "2"));
}

fn a_script_is_told_its_place_with_the_end(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .transports("long-poll jsonp")
            .subscriber("push_first_message newest; push_subscriber_timeout 1s;"),
    );
    nginx.publish("a", "old");
    let response = nginx.get("/sub?id=a&callback=f").expect_status(200);
    let id = response
        .text()
        .strip_prefix("/**/f([{\"end\":\"timeout\",\"id\":\"")
        .and_then(|rest| rest.strip_suffix("\"}]);\n"))
        .unwrap_or_else(|| panic!("{}", response.text()));
    nginx.publish("a", "1");
    let script = nginx.get(&format!("/sub?id=a&callback=f&last_event_id={id}")).expect_status(200);
    assert!(script.text().contains("\"data\":\"1\""), "{}", script.text());
    assert!(!script.text().contains("missed"), "{}", script.text());
}

fn no_cache_brings_a_place_as_well(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .subscriber("push_ignore_queue_on_no_cache on; push_subscriber_timeout 1s;"),
    );
    nginx.publish("a", "old");
    let fresh = Request::get(&subscriber("a")).header("Cache-Control", "no-cache");
    let (time, tag) = Cursor::after(&nginx.request(&fresh).expect_status(304)).id();
    nginx.publish("a", "1");
    // With no-cache, only an id by this name counts.
    let next = Request::get(&format!("{}&last_event_id={time}:{tag}", subscriber("a")))
        .header("Cache-Control", "no-cache");
    assert_eq!(nginx.request(&next).expect_status(200).text(), "1");
}

fn a_reload_passes_over_nothing_for_those_without_a_cursor(workers: usize) {
    let nginx = start(workers, "newest");
    nginx.publish("a", "old");
    let mut held: Vec<Client> = ["a", "a", "b"].map(|id| nginx.park(id)).into();
    let old = nginx.reload();
    let responses: Vec<_> =
        held.iter_mut().map(|client| client.response().expect_status(304)).collect();
    nginx.wait_gone(&old);
    nginx.publish("a", "1");
    nginx.publish("b", "1");
    for (id, response) in ["a", "a", "b"].iter().zip(&responses) {
        assert_eq!(response.header("Connection"), Some("close"));
        let next = nginx.poll(id, &Cursor::after(response)).expect_status(200);
        assert_eq!((next.text(), next.header("Push-Missed")), ("1", None));
    }
}

fn another_zone_size_passes_over_nothing_either(workers: usize) {
    let config = |size: &str| {
        Config::push(workers)
            .http(&format!("push_shared_memory_size {size};"))
            .subscriber("push_first_message newest;")
    };
    let mut nginx = Nginx::start(config("2m"));
    nginx.publish("a", "old");
    let mut held = ["a", "b"].map(|id| (id, nginx.park(id)));
    nginx.reconfigure(config("4m"));
    let old = nginx.reload();
    let places = held
        .each_mut()
        .map(|(id, client)| (*id, Cursor::after(&client.response().expect_status(304))));
    // As long as old workers listen, they refuse with a 503 what comes to them: their zone is closed.
    nginx.wait_gone(&old);
    for (id, place) in places {
        nginx.publish(id, "1");
        let next = nginx.poll(id, &place).expect_status(200);
        assert_eq!((next.text(), next.header("Push-Missed")), ("1", None));
    }
}

fn a_place_outlives_a_restart(workers: usize) {
    let config =
        Config::push(workers).subscriber("push_first_message newest; push_subscriber_timeout 1s;");
    let with_snapshot = config.clone().http("push_snapshot messages;");
    for (config, missed) in [(config, Some("0;at-least")), (with_snapshot, None)] {
        let mut nginx = Nginx::start(config);
        let place = Cursor::after(&nginx.poll("a", &Cursor::none()).expect_status(304));
        wait::until_second_after(place.id().0 + 1);
        nginx.restart(Signal::QUIT);
        nginx.publish("a", "1");
        let next = nginx.poll("a", &place).expect_status(200);
        assert_eq!((next.text(), next.header("Push-Missed")), ("1", missed));
    }
}

fn who_begins_with_the_oldest_gets_no_place(workers: usize) {
    let nginx = Nginx::start(
        Config::push(workers)
            .transports("long-poll eventsource")
            .subscriber("push_subscriber_timeout 1s;"),
    );
    let response = nginx.poll("a", &Cursor::none()).expect_status(304);
    assert_eq!((response.header("Last-Modified"), response.header("Etag")), (None, None));
    let mut stream = EventSource::open(nginx.port(), &subscriber("a"));
    assert!(!stream.bytes_until(": timeout\n\n").contains("id:"));
}
