//! Tests for several channels in one request: subscribing, publishing, asking and deleting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{json, Value};
use support::event_source::EventSource;
use support::lines::{json_request, Lines};
use support::push::{assert_same_bytes, pattern, publisher, subscriber};
use support::streams::{self, End, Kind, News, Why};
use support::websocket::Handshake;
use support::{load, on_1_and_4_workers, wait, Config, Cursor, Nginx, Request, Response};

on_1_and_4_workers!(
    polls_get_the_messages_of_all_channels_in_publishing_order,
    a_poll_waits_for_a_message_of_any_channel,
    polls_begin_anew_where_their_cursor_says,
    a_cursor_of_another_number_of_channels_is_told_of_a_gap,
    a_cursor_of_several_channels_is_told_of_a_gap_in_one,
    a_reload_sends_away_with_a_cursor_of_several_channels,
    a_cursor_is_good_for_the_same_channels_in_another_order,
    a_cursor_may_come_in_the_query,
    an_interval_poll_takes_several_channels_too,
    several_values_name_several_channels,
    a_list_of_one_channel_is_that_channel,
    too_many_channels_are_refused,
    streams_get_all_channels_in_order_and_resume_with_one_id,
    every_format_says_which_channel_a_message_came_from,
    missed_messages_of_all_channels_are_told,
    what_is_gone_from_a_quiet_channel_keeps_nobody_from_the_others,
    a_deleted_channel_is_left_and_the_others_go_on,
    who_has_lost_a_channel_is_told_what_it_missed_of_its_next_life,
    deleting_all_channels_ends_the_subscription,
    a_channel_that_one_may_not_have_refuses_all,
    subscribers_are_counted_in_each_channel,
    publishing_to_several_channels_is_one_request,
    a_large_message_goes_to_several_channels,
    several_channels_are_told_of_and_deleted_together,
    a_websocket_publishes_to_all_its_channels,
    nothing_is_lost_in_reloads_under_load,
    nothing_is_lost_when_workers_are_killed,
    different_lists_with_a_common_channel_all_get_its_messages,
    a_slow_reader_of_several_channels_is_told_what_it_has_missed,
);

const DELIMITER: &str = "push_channel_id_split_delimiter ',';";

fn config(workers: usize, text: &str) -> Config {
    Config::push(workers).http(DELIMITER).publisher(text).subscriber(text)
}

fn start(workers: usize, text: &str) -> Nginx {
    Nginx::start(config(workers, text))
}

fn delete(nginx: &Nginx, id: &str) {
    nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
}

/// Publishes these bodies to these channels, one after the other.
fn publish_all(nginx: &Nginx, messages: &[(&str, &str)]) {
    for (id, body) in messages {
        nginx.publish(id, *body);
    }
}

fn polls_get_the_messages_of_all_channels_in_publishing_order(workers: usize) {
    let nginx = start(workers, "");
    let order = [("b", "1"), ("a", "2"), ("c", "3"), ("a", "4"), ("b", "5"), ("a", "6")];
    publish_all(&nginx, &order);
    let mut cursor = Cursor::none();
    for (id, body) in order {
        let response = nginx.poll("a,b,c", &cursor).expect_status(200);
        assert_eq!(response.text(), body);
        assert_eq!(response.header("Push-Channel"), Some(id));
        assert_eq!(response.header("Push-Missed"), None);
        cursor = Cursor::after(&response);
        // One tag for each channel, and brackets for the one that the message came from.
        let tags: Vec<&str> = cursor.etag.as_deref().unwrap().split(',').collect();
        assert_eq!(tags.len(), 3);
        let from = ["a", "b", "c"].iter().position(|name| *name == id).unwrap();
        for (place, tag) in tags.iter().enumerate() {
            assert_eq!(tag.starts_with('['), place == from, "{tags:?}");
        }
    }
}

fn a_poll_waits_for_a_message_of_any_channel(workers: usize) {
    let nginx = start(workers, "");
    let mut cursor = Cursor::none();
    let mut client = nginx.client();
    for (id, body) in [("a", "1"), ("b", "2"), ("b", "3"), ("a", "4")] {
        let request = cursor.apply(Request::get(&subscriber("a,b")));
        client.send(&request);
        nginx.wait_for_subscribers("a", 1);
        nginx.wait_for_subscribers("b", 1);
        nginx.publish(id, body).expect_status(201);
        let response = client.response().expect_status(200);
        assert_eq!((response.text(), response.header("Push-Channel")), (body, Some(id)));
        cursor = Cursor::after(&response);
        nginx.wait_for_subscribers("a", 0);
        nginx.wait_for_subscribers("b", 0);
    }
}

fn polls_begin_anew_where_their_cursor_says(workers: usize) {
    let nginx = start(workers, "");
    let count = 12;
    for number in 0..count {
        nginx.publish(["a", "b", "c"][number % 3], number.to_string());
    }
    // From each position, a client that comes anew gets the rest.
    let mut cursors = vec![Cursor::none()];
    for number in 0..count {
        let response = nginx.poll("a,b,c", cursors.last().unwrap()).expect_status(200);
        assert_eq!(response.text(), number.to_string());
        cursors.push(Cursor::after(&response));
    }
    for (first, cursor) in cursors.iter().enumerate().take(count) {
        for quoted in [false, true] {
            let cursor = match (&cursor.etag, quoted) {
                (Some(etag), true) => cursor.with_etag(&format!("W/\"{etag}\"")),
                _ => cursor.clone(),
            };
            let response = nginx.poll("a,b,c", &cursor).expect_status(200);
            assert_eq!(response.text(), first.to_string());
            assert_eq!(response.header("Push-Missed"), None);
        }
    }
}

fn a_cursor_of_another_number_of_channels_is_told_of_a_gap(workers: usize) {
    let nginx = start(workers, "");
    let one = {
        nginx.publish("a", "1");
        Cursor::after(&nginx.poll("a", &Cursor::none()).expect_status(200))
    };
    let mut client = nginx.client();
    client.send(&one.apply(Request::get(&subscriber("a,b"))));
    nginx.wait_for_subscribers("b", 1);
    // In a later second: what is of this one may have been seen.
    let (second, _) = one.id();
    wait::until_true("a later second", || {
        nginx.publish("c", "tick");
        let last = Cursor::after(&nginx.poll("c", &Cursor::none()).expect_status(200));
        nginx.request(&Request::new("DELETE", &publisher("c")));
        last.id().0 > second
    });
    nginx.publish("b", "2").expect_status(201);
    let reply = client.response().expect_status(200);
    assert_eq!(reply.text(), "2");
    assert_eq!(reply.header("Push-Missed"), Some("0;at-least"));
    // Told once, for all channels.
    let cursor = Cursor::after(&reply);
    nginx.publish("a", "3");
    let response = nginx.poll("a,b", &cursor).expect_status(200);
    assert_eq!((response.text(), response.header("Push-Missed")), ("3", None));
}

fn a_cursor_of_several_channels_is_told_of_a_gap_in_one(workers: usize) {
    let nginx = start(workers, "push_first_message newest;");
    // The last two of one second.
    let (_stream, id) = wait::until("three messages", || {
        publish_all(&nginx, &[("a", "1"), ("b", "2"), ("a", "3")]);
        let mut stream = Kind::EventSource.listen_after(nginx.port(), "a,b", "1:-,-");
        let [_, second, third] = ["1", "2", "3"].map(|text| stream.expect_message(text).unwrap());
        if second.split_once(':').unwrap().0 == third.split_once(':').unwrap().0 {
            return Some((stream, second));
        }
        drop(stream);
        for id in ["a", "b"] {
            nginx.request(&Request::new("DELETE", &publisher(id))).expect_status(200);
        }
        None
    });
    let (time, tags) = id.split_once(':').unwrap();
    let second = time.parse().unwrap();
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    let target = subscriber("a");
    let by_headers = |tag: &str| Cursor::new(&date, tag).apply(Request::get(&target));
    let requests = [
        by_headers(tags),
        by_headers(&format!("\"{tags}\"")),
        by_headers(&format!("W/\"{tags}\"")),
        Request::get(&target).header("Last-Event-ID", &id),
        Request::get(&format!("{target}&last_event_id={id}")),
    ];
    // What is of that second may have been seen: these wait for a later one, and then come too late.
    let mut waiting = requests.each_ref().map(|request| {
        let mut client = nginx.client();
        client.send(request);
        client
    });
    nginx.wait_for_subscribers("a", requests.len() as u64 + 1);
    wait::until_second_after(second);
    nginx.publish("a", "4").expect_status(201);
    let waited: Vec<Response> = waiting.iter_mut().map(|client| client.response()).collect();
    nginx.publish("a", "5");
    let at_once = requests.iter().map(|request| nginx.request(request));
    for reply in waited.into_iter().chain(at_once) {
        let reply = reply.expect_status(200);
        assert_eq!(reply.text(), "4");
        assert_eq!(reply.header("Push-Missed"), Some("0;at-least"), "{}", reply.head);
        // Told once.
        let next = nginx.poll("a", &Cursor::after(&reply)).expect_status(200);
        assert_eq!((next.text(), next.header("Push-Missed")), ("5", None));
    }
    let mut events = EventSource::open(nginx.port(), &format!("{target}&last_event_id={id}"));
    let gap = events.event();
    assert_eq!((gap.name.as_str(), gap.data.as_str()), ("gap", "{\"missed\":0,\"at_least\":true}"));
    events.expect_message("4");
}

fn a_reload_sends_away_with_a_cursor_of_several_channels(workers: usize) {
    let nginx = start(workers, "");
    let cursor = Cursor::new("Fri, 20 Nov 2026 10:00:00 GMT", "[0],-");
    let mut client = nginx.park_after("a", &cursor);
    nginx.reload();
    let reply = client.response().expect_status(304);
    assert_eq!(Cursor::after(&reply), cursor);
}

fn a_cursor_is_good_for_the_same_channels_in_another_order(workers: usize) {
    let nginx = start(workers, "push_message_buffer_length 100;");
    let lists = ["a,b,c", "c,b,a", "b,c,a", "a,c,b"];
    for number in 0..24 {
        nginx.publish(["a", "b", "a", "c"][number % 4], number.to_string());
    }
    let mut cursor = Cursor::none();
    for number in 0..24 {
        let response = nginx.poll(lists[number % 4], &cursor).expect_status(200);
        assert_eq!(response.text(), number.to_string());
        assert_eq!(response.header("Push-Missed"), None);
        cursor = Cursor::after(&response);
    }
    let mut id: Option<String> = None;
    for number in 0..24 {
        let target = subscriber(lists[number % 4]);
        let mut stream = Kind::WebSocket.listen_on(nginx.client(), &target, id.as_deref());
        id = stream.expect_message(&number.to_string());
    }
}

fn a_cursor_may_come_in_the_query(workers: usize) {
    let nginx = start(workers, "");
    publish_all(&nginx, &[("a", "1"), ("b", "2"), ("a", "3")]);
    let mut stream = EventSource::open(nginx.port(), &subscriber("a,b"));
    stream.expect_message("1");
    let id = stream.expect_message("2");
    for encoded in [id.clone(), id.replace(',', "%2C").replace('[', "%5B").replace(']', "%5D")] {
        let target = format!("{}&last_event_id={encoded}", subscriber("a,b"));
        assert_eq!(nginx.get(&target).expect_status(200).text(), "3");
        EventSource::open(nginx.port(), &target).expect_message("3");
    }
}

fn an_interval_poll_takes_several_channels_too(workers: usize) {
    let nginx = Nginx::start(config(workers, "").transports("interval-poll"));
    let response = nginx.poll("a,b", &Cursor::none()).expect_status(304);
    assert_eq!(response.header("Etag"), None);
    publish_all(&nginx, &[("b", "1"), ("a", "2")]);
    let mut cursor = Cursor::none();
    for body in ["1", "2"] {
        let response = nginx.poll("a,b", &cursor).expect_status(200);
        assert_eq!(response.text(), body);
        cursor = Cursor::after(&response);
    }
    let response = nginx.poll("a,b", &cursor).expect_status(304);
    assert_eq!(response.header("Etag"), cursor.etag.as_deref());
    assert_eq!(nginx.subscribers("a") + nginx.subscribers("b"), 0);
}

fn several_values_name_several_channels(workers: usize) {
    let nginx = Nginx::start(Config::push(workers).server(
        "location /two { push_subscriber; push_channel_id a $arg_x; }
         location /both { push_subscriber; push_channel_id_split_delimiter --; push_channel_id a--b $arg_x; }",
    ));
    publish_all(&nginx, &[("a", "1"), ("x", "2"), ("b", "3")]);
    let bodies = |target: &str, count: usize| {
        let mut stream = EventSource::open(nginx.port(), target);
        (0..count).map(|_| stream.event().data).collect::<Vec<_>>()
    };
    assert_eq!(bodies("/two?x=x", 2), ["1", "2"]);
    assert_eq!(bodies("/both?x=x", 3), ["1", "2", "3"]);
    // Without a value there is one channel less, and its name is not told.
    let response = nginx.get("/two").expect_status(200);
    assert_eq!((response.text(), response.header("Push-Channel")), ("1", None));
}

fn a_list_of_one_channel_is_that_channel(workers: usize) {
    let nginx = start(workers, "");
    nginx.publish(",a,,a,", "1").expect_status(202);
    let response = nginx.poll(",a", &Cursor::none()).expect_status(200);
    assert_eq!((response.text(), response.header("Push-Channel")), ("1", None));
    assert_eq!(Cursor::after(&response).id().1, 0);
    nginx.get(&subscriber(",,")).expect_status(404);
    nginx.request(&Request::post(&publisher(","), "1")).expect_status(404);
}

fn too_many_channels_are_refused(workers: usize) {
    let nginx = start(workers, "");
    let list = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let response = nginx.get(&subscriber(&list(256))).expect_status(403);
    assert_eq!(response.text(), "The request names more than 255 channels.");
    nginx.request(&Request::post(&publisher(&list(256)), "x")).expect_status(403);
    nginx.publish(&list(255), "x").expect_status(202);
    let response = nginx.poll(&list(255), &Cursor::none()).expect_status(200);
    assert_eq!(response.text(), "x");
    let second = nginx.poll(&list(255), &Cursor::after(&response)).expect_status(200);
    assert_eq!(second.header("Push-Channel"), Some("1"));
}

fn streams_get_all_channels_in_order_and_resume_with_one_id(workers: usize) {
    let nginx = start(workers, "push_message_buffer_length 100;");
    for kind in [Kind::EventSource, Kind::WebSocket, Kind::JsonLines] {
        let ids = ["a", "b", "c"].map(|name| format!("{name}{kind:?}"));
        let list = ids.join(",");
        let mut ends = Vec::new();
        for number in 0..6 {
            nginx.publish(&ids[number % 3], format!("old {number}"));
        }
        let mut stream = kind.listen(nginx.port(), &list);
        for number in 0..6 {
            ends.push(stream.expect_message(&format!("old {number}")).unwrap());
        }
        for number in 0..6 {
            nginx.publish(&ids[(number * 2) % 3], format!("new {number}")).expect_status(201);
            ends.push(stream.expect_message(&format!("new {number}")).unwrap());
        }
        drop(stream);
        let all: Vec<String> =
            ["old", "new"].iter().flat_map(|w| (0..6).map(move |n| format!("{w} {n}"))).collect();
        for (place, id) in ends.iter().enumerate() {
            let mut stream = kind.listen_after(nginx.port(), &list, id);
            for body in &all[place + 1..] {
                stream.expect_message(body);
            }
        }
    }
}

fn every_format_says_which_channel_a_message_came_from(workers: usize) {
    let nginx = start(workers, "");
    publish_all(&nginx, &[("a", "1"), ("b", "2")]);
    let mut lines = Lines::open(nginx.port(), &json_request(&subscriber("a,b")));
    for (id, body) in [("a", "1"), ("b", "2")] {
        let value = lines.json();
        assert_eq!((&value["channel"], &value["data"]), (&json!(id), &json!(body)));
    }
    let mut stream = EventSource::open(nginx.port(), &subscriber("a,b"));
    let text = stream.bytes_until("data: 2\n\n");
    assert!(text.contains("\nchannel: a\ndata: 1\n\n"), "{text}");
    assert!(text.contains("\nchannel: b\ndata: 2\n\n"), "{text}");
    // The place of the brackets in the id is that of the channel in the list.
    let id = |text: &str, before: &str| {
        let end = text.find(before).unwrap();
        let start = text[..end].rfind("id: ").unwrap();
        text[start..end].to_owned()
    };
    assert!(id(&text, "channel: a").contains(":[0],"));
    assert!(id(&text, "channel: b").contains(",[0]\n"));
    // Of a single channel nobody needs to be told.
    let mut lines = Lines::open(nginx.port(), &json_request(&subscriber("a")));
    assert_eq!(lines.json().get("channel"), None);
}

fn missed_messages_of_all_channels_are_told(workers: usize) {
    let nginx = start(workers, "push_message_buffer_length 2;");
    publish_all(&nginx, &[("a", "1"), ("b", "1")]);
    let mut stream = EventSource::open(nginx.port(), &subscriber("a,b"));
    stream.expect_message("1");
    let id = stream.expect_message("1");
    drop(stream);
    let cursor = {
        let first = nginx.poll("a,b", &Cursor::none()).expect_status(200);
        Cursor::after(&nginx.poll("a,b", &Cursor::after(&first)).expect_status(200))
    };
    for number in 0..5 {
        publish_all(&nginx, &[("a", &format!("a{number}")), ("b", &format!("b{number}"))]);
    }
    // Three of each channel have gone.
    let mut stream = Kind::JsonLines.listen_after(nginx.port(), "a,b", &id);
    assert_eq!(stream.next(), News::Gap { missed: 6, at_least: false });
    for body in ["a3", "b3", "a4", "b4"] {
        stream.expect_message(body);
    }
    let plain = nginx.request(&Request::get(&subscriber("a,b")).header("Last-Event-ID", &id));
    assert_eq!(plain.header("Push-Missed"), Some("6"));
    // With polls the count is complete once the last message is there.
    let (mut cursor, mut missed) = (cursor, 0);
    for body in ["a3", "b3", "a4", "b4"] {
        let response = nginx.poll("a,b", &cursor).expect_status(200);
        assert_eq!(response.text(), body);
        missed += response.header("Push-Missed").map_or(0, |count| count.parse().unwrap());
        cursor = Cursor::after(&response);
    }
    assert_eq!(missed, 6);
}

fn what_is_gone_from_a_quiet_channel_keeps_nobody_from_the_others(workers: usize) {
    let nginx = Nginx::start(config(workers, "").server(
        "location /brief { push_publisher; set $push_channel_id $arg_id; push_message_timeout 1s; }",
    ));
    publish_all(&nginx, &[("quiet", "seen"), ("a", "seen")]);
    let mut stream = EventSource::open(nginx.port(), &subscriber("a,quiet"));
    stream.expect_message("seen");
    let id = stream.expect_message("seen");
    drop(stream);
    nginx.publish_at("/brief?id=quiet", "gone");
    nginx.wait_for_messages("quiet", 1);
    // Who has no words for it later is told at once; the others with the next message.
    let mut waiting = Kind::WebSocket.listen_after(nginx.port(), "a,quiet", &id);
    assert_eq!(waiting.response().header("Push-Missed"), Some("1"));
    let mut words = Kind::EventSource.listen_after(nginx.port(), "a,quiet", &id);
    nginx.wait_for_subscribers("quiet", 2);
    publish_all(&nginx, &[("a", "1"), ("a", "2")]);
    for body in ["1", "2"] {
        waiting.expect_message(body);
    }
    assert_eq!(words.next(), News::Gap { missed: 1, at_least: false });
    words.expect_message("1");
    words.expect_message("2");
    let mut again = Kind::WebSocket.listen_after(nginx.port(), "a,quiet", &id);
    assert_eq!(again.response().header("Push-Missed"), Some("1"));
    let first = again.expect_message("1").unwrap();
    again.expect_message("2");
    publish_all(&nginx, &[("a", "3"), ("quiet", "back")]);
    again.expect_message("3");
    again.expect_message("back");
    // What was told is not told again.
    let mut later = Kind::WebSocket.listen_after(nginx.port(), "a,quiet", &first);
    assert_eq!(later.response().header("Push-Missed"), None);
    for body in ["2", "3", "back"] {
        later.expect_message(body);
    }
}

fn a_deleted_channel_is_left_and_the_others_go_on(workers: usize) {
    let nginx = start(workers, "");
    for kind in [Kind::EventSource, Kind::WebSocket, Kind::JsonLines] {
        let mut stream = kind.listen(nginx.port(), "a,b,c");
        nginx.wait_for_subscribers("c", 1);
        nginx.publish("a", "last words");
        delete(&nginx, "a");
        stream.expect_message("last words");
        // Nchan's protocol has no word for it.
        if kind != Kind::WebSocket {
            assert_eq!(stream.next(), News::Left("a".into()));
        }
        nginx.publish("b", "still here").expect_status(201);
        stream.expect_message("still here");
        // Its next life is another channel.
        nginx.publish("a", "new life").expect_status(202);
        nginx.publish("c", "end").expect_status(201);
        stream.expect_message("end");
        assert_eq!(nginx.subscribers("a"), 0);
        drop(stream);
        nginx.wait_for_subscribers("b", 0);
        for id in ["a", "b", "c"] {
            delete(&nginx, id);
        }
    }
    let mut client = nginx.client();
    client.send(&Request::get(&subscriber("a,b")));
    nginx.wait_for_subscribers("b", 1);
    delete(&nginx, "a");
    client.expect_silence();
    nginx.publish("b", "for the poll").expect_status(201);
    assert_eq!(client.response().expect_status(200).text(), "for the poll");
}

fn who_has_lost_a_channel_is_told_what_it_missed_of_its_next_life(workers: usize) {
    let nginx = start(workers, "");
    let next_second = || {
        let second = || UNIX_EPOCH.elapsed().unwrap().as_secs();
        let now = second();
        wait::until_true("the next second", || second() > now);
    };
    // In the second of the start, ids are of the next one.
    next_second();
    for kind in [Kind::EventSource, Kind::WebSocket, Kind::JsonLines] {
        publish_all(&nginx, &[("a", "seen"), ("b", "seen")]);
        let mut stream = kind.listen(nginx.port(), "a,b");
        stream.expect_message("seen");
        stream.expect_message("seen");
        delete(&nginx, "a");
        if kind != Kind::WebSocket {
            assert_eq!(stream.next(), News::Left("a".into()));
        }
        nginx.publish("a", "new life").expect_status(202);
        next_second();
        nginx.publish("b", "other").expect_status(201);
        let id = stream.expect_message("other").unwrap();
        nginx.publish("a", "more");
        drop(stream);
        let mut stream = kind.listen_after(nginx.port(), "a,b", &id);
        match kind {
            Kind::WebSocket => {
                assert_eq!(stream.response().header("Push-Missed"), Some("0;at-least"));
            }
            _ => assert_eq!(stream.next(), News::Gap { missed: 0, at_least: true }),
        }
        stream.expect_message("more");
        drop(stream);
        delete(&nginx, "a");
        delete(&nginx, "b");
        nginx.wait_for_subscribers("b", 0);
    }
    publish_all(&nginx, &[("a", "seen"), ("b", "seen")]);
    let first = nginx.poll("a,b", &Cursor::none());
    let cursor = Cursor::after(&nginx.poll("a,b", &Cursor::after(&first)));
    let mut client = nginx.client();
    client.send(&cursor.apply(Request::get(&subscriber("a,b"))));
    nginx.wait_for_subscribers("b", 1);
    delete(&nginx, "a");
    nginx.publish("a", "new life").expect_status(202);
    next_second();
    nginx.publish("b", "other").expect_status(201);
    let other = client.response().expect_status(200);
    assert_eq!(other.text(), "other");
    nginx.publish("a", "more");
    let back = nginx.poll("a,b", &Cursor::after(&other)).expect_status(200);
    assert_eq!((back.text(), back.header("Push-Missed")), ("more", Some("0;at-least")));
    nginx.publish("b", "and more");
    let next = nginx.poll("a,b", &Cursor::after(&back)).expect_status(200);
    assert_eq!((next.text(), next.header("Push-Missed")), ("and more", None));
}

fn deleting_all_channels_ends_the_subscription(workers: usize) {
    let nginx = start(workers, "");
    for kind in [Kind::EventSource, Kind::WebSocket, Kind::JsonLines] {
        let mut stream = kind.listen(nginx.port(), "a,b");
        nginx.wait_for_subscribers("b", 1);
        delete(&nginx, "a");
        nginx.wait_for_subscribers("a", 0);
        if kind != Kind::WebSocket {
            assert_eq!(stream.next(), News::Left("a".into()));
        }
        delete(&nginx, "b");
        stream.expect_end(Why::Deleted);
        // Both at once: the first may be told by itself, or with the end.
        for _ in 0..10 {
            let mut stream = kind.listen(nginx.port(), "a,b");
            nginx.wait_for_subscribers("b", 1);
            delete(&nginx, "a,b");
            let mut news = stream.next();
            if let News::Left(channel) = &news {
                assert_eq!(channel, "a");
                news = stream.next();
            }
            let why = Some(Why::Deleted);
            assert_eq!(news, News::End(End { why, orderly: true }), "{kind:?}");
        }
    }
    let mut client = nginx.client();
    client.send(&Request::get(&subscriber("a,b")));
    nginx.wait_for_subscribers("b", 1);
    nginx.request(&Request::new("DELETE", &publisher("a,b"))).expect_status(200);
    client.response().expect_status(410);
}

fn a_channel_that_one_may_not_have_refuses_all(workers: usize) {
    let nginx = start(workers, "push_authorized_channels_only on; push_max_channel_subscribers 1;");
    nginx.publish("a", "1");
    nginx.get(&subscriber("a,b")).expect_status(403);
    assert_eq!(nginx.subscribers("a"), 0);
    nginx.publish("b", "1");
    let held = Kind::EventSource.listen(nginx.port(), "b");
    nginx.wait_for_subscribers("b", 1);
    nginx.get(&subscriber("a,b")).expect_status(403);
    assert_eq!(nginx.subscribers("a"), 0);
    drop(held);
    nginx.wait_for_subscribers("b", 0);
    let mut stream = Kind::EventSource.listen(nginx.port(), "a,b");
    stream.expect_message("1");
}

fn subscribers_are_counted_in_each_channel(workers: usize) {
    let nginx = start(workers, "");
    let counts = |expected: [u64; 3]| {
        for (id, count) in ["a", "b", "c"].iter().zip(expected) {
            nginx.wait_for_subscribers(id, count);
        }
    };
    let first = Kind::EventSource.listen(nginx.port(), "a,b");
    let second = Kind::WebSocket.listen(nginx.port(), "b,c");
    let mut third = nginx.client();
    third.send(&Request::get(&subscriber("a,c")));
    counts([2, 2, 2]);
    drop(first);
    counts([1, 1, 2]);
    drop(third);
    counts([0, 1, 1]);
    drop(second);
    counts([0, 0, 0]);
}

fn publishing_to_several_channels_is_one_request(workers: usize) {
    let nginx = start(workers, "");
    let mut one = Kind::EventSource.listen(nginx.port(), "b");
    let mut all = Kind::EventSource.listen(nginx.port(), "a,b");
    nginx.wait_for_subscribers("b", 2);
    let request = Request::post(&publisher("a,b,c"), "hello")
        .header("Accept", "application/json")
        .header("Content-Type", "text/plain");
    let response = nginx.request(&request).expect_status(201);
    let infos: Value = serde_json::from_str(response.text()).unwrap();
    let expected = [("a", 1), ("b", 2), ("c", 0)];
    for (info, (id, subscribers)) in infos.as_array().unwrap().iter().zip(expected) {
        assert_eq!((&info["channel"], &info["messages"]), (&json!(id), &json!(1)));
        assert_eq!(info["subscribers"], json!(subscribers));
    }
    one.expect_message("hello");
    // Once for each of its channels.
    all.expect_message("hello");
    all.expect_message("hello");
    assert_eq!(nginx.queue("c"), ["hello"]);
}

fn a_large_message_goes_to_several_channels(workers: usize) {
    let nginx =
        Nginx::start(config(workers, "client_max_body_size 8m; client_body_buffer_size 16k;"));
    let body = pattern(300_000);
    nginx.publish("a,b,c", body.clone()).expect_status(202);
    delete(&nginx, "a");
    for id in ["b", "c"] {
        assert_same_bytes(&nginx.poll(id, &Cursor::none()).expect_status(200).body, &body);
    }
    delete(&nginx, "b");
    delete(&nginx, "c");
    let left = || {
        let temporary = nginx.dir().join("temp_client_body");
        let directories = std::fs::read_dir(temporary).unwrap().flatten();
        directories
            .filter_map(|entry| std::fs::read_dir(entry.path()).ok())
            .flat_map(|files| files.flatten())
            .filter(|file| file.file_name() != "lock")
            .count()
    };
    wait::until_true("no files", || left() == 0);
}

fn several_channels_are_told_of_and_deleted_together(workers: usize) {
    let nginx = start(workers, "");
    nginx.get(&publisher("a,b")).expect_status(404);
    publish_all(&nginx, &[("a", "1"), ("b", "1"), ("b", "2")]);
    let request = Request::get(&publisher("a,x,b")).header("Accept", "text/json");
    let response = nginx.request(&request).expect_status(200);
    let infos: Value = serde_json::from_str(response.text()).unwrap();
    let told: Vec<_> = infos.as_array().unwrap().iter().map(|info| &info["channel"]).collect();
    assert_eq!(told, [&json!("a"), &json!("b")]);
    assert_eq!(infos[1]["messages"], json!(2));
    nginx.request(&Request::new("DELETE", &publisher("a,x,b"))).expect_status(200);
    nginx.request(&Request::new("DELETE", &publisher("a,x,b"))).expect_status(404);
    assert_eq!(nginx.messages("a") + nginx.messages("b"), 0);
}

fn a_websocket_publishes_to_all_its_channels(workers: usize) {
    let nginx = start(workers, "");
    let mut socket =
        Handshake::to(&publisher("a,b")).header("Accept", "text/json").open(nginx.port());
    socket.send_text("hello");
    let infos: Value = serde_json::from_str(socket.message().as_text()).unwrap();
    assert_eq!((&infos[0]["channel"], &infos[1]["channel"]), (&json!("a"), &json!("b")));
    assert_eq!((nginx.queue("a"), nginx.queue("b")), (vec!["hello".into()], vec!["hello".into()]));
}

/// Publishers on three channels, and followers of all of them, while `disturb` is at work.
fn under_load(nginx: &mut Nginx, disturb: impl FnOnce(&mut Nginx)) {
    const IDS: [&str; 3] = ["a", "b", "c"];
    const EACH: usize = 150;
    let port = nginx.port();
    let list = IDS.join(",");
    let list = list.as_str();
    let (acknowledged, received) = thread::scope(|scope| {
        let kinds = [Kind::EventSource, Kind::WebSocket, Kind::JsonLines];
        let followers: Vec<_> = (0..12)
            .map(|number| scope.spawn(move || streams::follow(kinds[number % 3], port, list)))
            .chain((0..4).map(|_| scope.spawn(move || load::follow(port, list))))
            .collect();
        let publishers: Vec<_> =
            IDS.map(|id| scope.spawn(move || load::publish(port, id, id, EACH))).into();
        disturb(nginx);
        let acknowledged: Vec<Vec<String>> =
            publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        load::publish_end(port, "b");
        let received: Vec<Vec<String>> =
            followers.into_iter().map(|follower| follower.join().unwrap()).collect();
        (acknowledged, received)
    });
    load::assert_complete(&acknowledged, &received);
}

const LONG_LOG: &str = "push_message_buffer_length 100000;";

fn nothing_is_lost_in_reloads_under_load(workers: usize) {
    let mut nginx = start(workers, LONG_LOG);
    under_load(&mut nginx, |nginx| {
        for _ in 0..3 {
            let old = nginx.reload();
            nginx.wait_gone(&old);
        }
    });
}

fn nothing_is_lost_when_workers_are_killed(workers: usize) {
    let mut nginx = start(workers, LONG_LOG);
    under_load(&mut nginx, |nginx| {
        for kill in 0..4 {
            let pids = nginx.workers();
            nginx.kill_worker(pids[kill % pids.len()]);
        }
    });
}

fn different_lists_with_a_common_channel_all_get_its_messages(workers: usize) {
    let nginx = start(workers, "");
    let mut all: Vec<_> = (0..30)
        .map(|number| {
            let list = format!("room,user{number}");
            (number, Kind::JsonLines.listen(nginx.port(), &list))
        })
        .collect();
    let mut room = Kind::EventSource.listen(nginx.port(), "room");
    nginx.wait_for_subscribers("room", 31);
    nginx.publish("room", "for all").expect_status(201);
    for number in 0..30 {
        nginx.publish(&format!("user{number}"), format!("for {number}")).expect_status(201);
    }
    room.expect_message("for all");
    for (number, stream) in &mut all {
        stream.expect_message("for all");
        stream.expect_message(&format!("for {number}"));
        stream.expect_silence();
    }
    drop(all);
    nginx.wait_for_subscribers("room", 1);
    nginx.wait_for_subscribers("user7", 0);
}

fn a_slow_reader_of_several_channels_is_told_what_it_has_missed(workers: usize) {
    const COUNT: usize = 400;
    let nginx = start(workers, "push_message_buffer_length 20; client_max_body_size 8m;");
    let mut client = nginx.client();
    client.limit_receive_buffer(128 << 10);
    let mut stream = Kind::JsonLines.listen_on(client, &subscriber("a,b"), None);
    nginx.wait_for_subscribers("b", 1);
    let body = |number: usize| format!("{number}:{}", "x".repeat(100_000));
    for number in 0..COUNT {
        nginx.publish(["a", "b"][number % 2], body(number)).expect_status(201);
    }
    let (mut got, mut missed, mut last) = (0, 0, None);
    while got + missed < COUNT {
        match stream.next() {
            News::Message { data, .. } => {
                let number: usize = data.split(':').next().unwrap().parse().unwrap();
                assert!(last < Some(number));
                (got, last) = (got + 1, Some(number));
            }
            News::Gap { missed: count, at_least: false } => missed += count as usize,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((got + missed, last), (COUNT, Some(COUNT - 1)));
    assert!(missed > 0 && got >= 20);
}
