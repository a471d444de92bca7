//! Tests for directives: where they may stand, what they take, and what an operator is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::process;
use support::{Config, Nginx};

/// The places where a directive may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    Main,
    Events,
    Http,
    Server,
    Location,
    ServerIf,
    LocationIf,
    LimitExcept,
    Upstream,
}

use Context::{Events, Http, LimitExcept, Location, LocationIf, Main, Server, ServerIf, Upstream};

const EVERYWHERE: [Context; 9] =
    [Main, Events, Http, Server, Location, ServerIf, LocationIf, LimitExcept, Upstream];

const H: &[Context] = &[Http];
const HSL: &[Context] = &[Http, Server, Location];
const SL: &[Context] = &[Server, Location];
const HSLI: &[Context] = &[Http, Server, Location, LocationIf];

/// Name, a value that loads, contexts in which it is allowed.
const DIRECTIVES: [(&str, &str, &[Context]); 25] = [
    ("push_publisher", "", SL),
    ("push_subscriber", "long-poll", SL),
    ("push_subscriber_concurrency", "last", HSL),
    ("push_store_messages", "on", HSL),
    ("push_max_reserved_memory", "32M", H),
    ("push_shared_memory_size", "32M", H),
    ("push_max_channels", "100", H),
    ("push_min_message_buffer_length", "1", HSL),
    ("push_max_message_buffer_length", "10", HSL),
    ("push_message_buffer_length", "10", HSL),
    ("push_delete_oldest_received_message", "on", HSL),
    ("push_message_timeout", "2h", HSL),
    ("push_subscriber_timeout", "1m", HSL),
    ("push_channel_timeout", "5s", HSL),
    ("push_authorized_channels_only", "on", HSL),
    ("push_channel_group", "group", SL),
    ("push_max_channel_id_length", "512", HSL),
    ("push_max_channel_subscribers", "100", HSL),
    ("push_ignore_queue_on_no_cache", "on", HSL),
    ("push_channel_id", "$arg_id", HSLI),
    ("push_cors_origin", "https://a.example $arg_origin", HSL),
    ("push_cors_credentials", "on", HSL),
    ("push_channel_id_split_delimiter", ",", HSL),
    ("push_first_message", "-$arg_last", HSL),
    ("push_websocket_channels", "room_*", HSL),
];

/// Those that take several values.
const LISTS: [&str; 4] =
    ["push_channel_id", "push_cors_origin", "push_first_message", "push_websocket_channels"];

fn config_with(context: Context, text: &str) -> Config {
    let config = Config::bare();
    match context {
        Main => config.main(text),
        Events => config.events(text),
        Http => config.http(text),
        Server => config.server(text),
        Location => config.server(&format!("location /x {{ {text} }}")),
        ServerIf => config.server(&format!("if ($arg_x) {{ {text} }}")),
        LocationIf => config.server(&format!("location /x {{ if ($arg_x) {{ {text} }} }}")),
        LimitExcept => config.server(&format!("location /x {{ limit_except GET {{ {text} }} }}")),
        Upstream => config.http(&format!("upstream x {{ server 127.0.0.1:1; {text} }}")),
    }
}

fn directive(name: &str, value: &str) -> String {
    match value {
        "" => format!("{name};"),
        _ => format!("{name} {value};"),
    }
}

/// Panics unless the configuration is refused with a message that has all of these words.
#[track_caller]
fn expect_refusal(config: &Config, words: &[&str]) {
    let check = Nginx::check(config);
    assert!(!check.success, "loads, but should not; expected words: {words:?}");
    let message = check.text.lines().find(|line| line.contains("[emerg]")).unwrap_or_default();
    for word in words {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
    assert!(message.contains("nginx.conf:"), "the line of the file is named: {message:?}");
}

#[track_caller]
fn expect_loads(config: &Config) {
    let check = Nginx::check(config);
    assert!(check.success, "{}", check.text);
    assert!(!check.text.contains("[warn]"), "{}", check.text);
}

#[test]
fn every_directive_loads_where_it_is_allowed() {
    for (name, value, contexts) in DIRECTIVES {
        for &context in contexts {
            let check = Nginx::check(&config_with(context, &directive(name, value)));
            assert!(check.success, "{name} in {context:?}: {}", check.text);
        }
    }
}

#[test]
fn every_directive_is_refused_elsewhere_by_name() {
    for (name, value, contexts) in DIRECTIVES {
        for context in EVERYWHERE.into_iter().filter(|context| !contexts.contains(context)) {
            let check = Nginx::check(&config_with(context, &directive(name, value)));
            assert!(!check.success, "{name} loads in {context:?}");
            let named = format!("\"{name}\"");
            assert!(check.text.contains(&named), "{name} in {context:?}: {}", check.text);
        }
    }
}

#[test]
fn bad_values_are_refused_with_what_is_allowed() {
    for (name, allowed, values) in [
        ("push_subscriber", &["long-poll", "interval-poll"][..], &["x", "''", "long-polling"][..]),
        (
            "push_subscriber_concurrency",
            &["last", "first", "broadcast"],
            &["x", "''", "lasting", "1"],
        ),
        ("push_store_messages", &["on", "off"], &["x", "''", "1", "yes"]),
        ("push_delete_oldest_received_message", &["on", "off"], &["x", "''", "true"]),
        ("push_authorized_channels_only", &["on", "off"], &["x", "''"]),
        ("push_ignore_queue_on_no_cache", &["on", "off"], &["x", "''"]),
        ("push_max_reserved_memory", &["size"], &["x", "''", "-1", "3x", "1.5m"]),
        ("push_shared_memory_size", &["size"], &["x", "''", "-1", "99999999999999999999"]),
        ("push_max_channels", &["number"], &["x", "''", "-1", "1k"]),
        ("push_min_message_buffer_length", &["number"], &["x", "''", "-1", "1k"]),
        ("push_max_message_buffer_length", &["number"], &["x", "''", "-1", "1.5"]),
        ("push_message_buffer_length", &["number"], &["x", "''", "-1", "99999999999999999999"]),
        ("push_max_channel_id_length", &["number"], &["x", "''", "-1", "0"]),
        ("push_max_channel_subscribers", &["number"], &["x", "''", "-1"]),
        ("push_message_timeout", &["time"], &["x", "''", "-1", "2x", "99999999999999999999y"]),
        ("push_subscriber_timeout", &["time"], &["x", "''", "-1s"]),
        ("push_channel_timeout", &["time"], &["x", "''", "1h1h"]),
        ("push_first_message", &["oldest", "newest", "-N"], &["x", "0", "-x", "newest @now"]),
        ("push_websocket_channels", &["*"], &["**", "a*b", "*a", "a* a*b"]),
    ] {
        let (_, _, contexts) = DIRECTIVES.iter().find(|row| row.0 == name).expect("a directive");
        for value in values {
            let config = config_with(contexts[0], &directive(name, value));
            let check = Nginx::check(&config);
            assert!(!check.success, "{name} {value} loads");
            let shows = |word: &&str| {
                // Numbers may be called whole numbers or numbers of bytes.
                check.text.contains(*word)
            };
            let words: Vec<&str> = allowed.iter().copied().filter(|word| !shows(word)).collect();
            assert!(words.is_empty(), "{name} {value}: no {words:?} in {}", check.text);
            assert!(check.text.contains(&format!("\"{name}\"")), "{name} {value}: {}", check.text);
        }
    }
}

#[test]
fn a_wrong_number_of_values_is_refused_by_name() {
    for (name, value, contexts) in DIRECTIVES {
        let more = match LISTS.contains(&name) {
            true => format!(" {value}").repeat(255),
            false => String::from(" more"),
        };
        let mut wrong = vec![format!("{name} {value}{more};")];
        if !["push_publisher", "push_subscriber"].contains(&name) {
            wrong.push(format!("{name};"));
        }
        for text in wrong {
            let check = Nginx::check(&config_with(contexts[0], &text));
            assert!(!check.success, "{text} loads");
            assert!(check.text.contains(&format!("\"{name}\"")), "{text} {}", check.text);
        }
    }
}

#[test]
fn some_directives_take_up_to_255_values() {
    for name in LISTS {
        let (_, value, contexts) =
            DIRECTIVES.iter().find(|row| row.0 == name).expect("a directive");
        for count in [2, 255] {
            let first = value.split(' ').next().expect("a word");
            let text = format!("{name}{};", format!(" {first}").repeat(count));
            expect_loads(&config_with(contexts[0], &text));
        }
    }
}

#[test]
fn duplicates_are_refused_by_name() {
    for (name, value, contexts) in DIRECTIVES {
        for &context in contexts {
            let text = directive(name, value).repeat(2);
            expect_refusal(&config_with(context, &text), &[&format!("\"{name}\""), "duplicate"]);
        }
    }
}

#[test]
fn conflicts_are_refused_by_name() {
    for (context, text, words) in [
        (
            Location,
            "push_publisher; push_subscriber;",
            &["\"push_publisher\"", "\"push_subscriber\""],
        ),
        (
            Server,
            "push_subscriber; push_publisher;",
            &["\"push_publisher\"", "\"push_subscriber\""],
        ),
        (
            Http,
            "push_max_reserved_memory 1m; push_shared_memory_size 1m;",
            &["\"push_max_reserved_memory\"", "\"push_shared_memory_size\""],
        ),
        (
            Location,
            "push_message_buffer_length 5; push_max_message_buffer_length 10;",
            &["\"push_message_buffer_length\"", "\"push_max_message_buffer_length\""],
        ),
        (
            Location,
            "push_min_message_buffer_length 5; push_message_buffer_length 10;",
            &["\"push_message_buffer_length\"", "\"push_min_message_buffer_length\""],
        ),
    ] {
        expect_refusal(&config_with(context, text), words);
    }
}

#[test]
fn a_maximum_below_the_minimum_is_refused() {
    let names = ["push_max_message_buffer_length", "push_min_message_buffer_length"];
    let text = "push_min_message_buffer_length 5; push_max_message_buffer_length 4;";
    for context in [Http, Server, Location] {
        let check = Nginx::check(&config_with(context, text));
        assert!(!check.success, "loads in {context:?}");
        assert!(names.iter().all(|name| check.text.contains(name)), "{}", check.text);
    }
    let check = Nginx::check(
        &Config::bare()
            .http("push_min_message_buffer_length 5;")
            .server("location /x { push_max_message_buffer_length 4; }"),
    );
    assert!(!check.success, "an inherited minimum counts");
    assert!(names.iter().all(|name| check.text.contains(name)), "{}", check.text);
    assert!(check.text.contains("in location \"/x\""), "{}", check.text);
    let check = Nginx::check(&config_with(Server, text));
    assert!(check.text.contains("in a server"), "{}", check.text);
}

#[test]
fn values_may_be_the_beginning_of_a_word_in_either_case() {
    for value in ["", "long-poll", "LONG-POLL", "long", "l", "interval-poll", "interval", "i", "I"]
    {
        expect_loads(&config_with(Location, &directive("push_subscriber", value)));
    }
    for value in ["last", "l", "LAST", "first", "f", "broadcast", "Broad", "b"] {
        expect_loads(&config_with(Location, &directive("push_subscriber_concurrency", value)));
    }
}

#[test]
fn values_in_all_forms_of_nginx_load() {
    for (name, values) in [
        ("push_max_reserved_memory", &["1048576", "512k", "512K", "3m", "3M"][..]),
        ("push_message_timeout", &["0", "10", "10s", "1h30m", "'1h 30m'", "1d", "1M", "1y"]),
        ("push_store_messages", &["on", "off", "ON", "Off"]),
        ("push_channel_id", &["x", "$arg_id", "'$arg_a/$arg_b'", "\"a b\"", "''"]),
    ] {
        for value in values {
            expect_loads(&config_with(Http, &directive(name, value)));
        }
    }
}

#[test]
fn an_unknown_variable_in_a_channel_id_is_refused() {
    // nginx itself finds this out, at the end and without the line of the file.
    let check = Nginx::check(&config_with(Location, "push_channel_id $no_such_variable;"));
    assert!(!check.success, "loads");
    assert!(check.text.contains("\"no_such_variable\""), "{}", check.text);
}

#[test]
fn the_configuration_of_the_nhpm_guide_loads() {
    let config = Config::bare().http("push_max_reserved_memory 32M;").server(
        "location /pub { set $push_channel_id $arg_id; push_publisher;
           push_store_messages on; push_message_timeout 2h; push_max_message_buffer_length 20; }
         location /sub { push_subscriber; push_subscriber_concurrency broadcast;
           set $push_channel_id $arg_id; default_type text/plain; }",
    );
    expect_loads(&config);
    let nginx = Nginx::start(config);
    let mut waiting = nginx.park("a");
    nginx.publish("a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

#[test]
fn a_configuration_that_never_sets_the_id_loads_without_a_warning() {
    expect_loads(&Config::bare().server("location /sub { push_subscriber; }"));
}

#[test]
fn a_server_can_be_a_publisher_as_a_whole() {
    let config = Config::bare()
        .http("push_channel_id $arg_id;")
        .server("push_publisher; location /sub { push_subscriber; }");
    let nginx = Nginx::start(config);
    let mut waiting = nginx.park_at("/sub?id=a", "/?id=a");
    nginx.publish_at("/anything?id=a", "one").expect_status(201);
    assert_eq!(waiting.response().expect_status(200).text(), "one");
}

#[test]
fn inner_blocks_inherit_and_override() {
    let nginx = Nginx::start(Config::push(1).http("push_max_message_buffer_length 2;").server(
        "push_max_message_buffer_length 3;
             location /outer {
                 push_max_message_buffer_length 4;
                 location /outer/pub { push_publisher; push_channel_id $arg_id; }
             }",
    ));
    for (target, length) in [("/pub?id=a", 3), ("/outer/pub?id=b", 4)] {
        for _ in 0..10 {
            nginx.publish_at(target, "message");
        }
        assert_eq!(nginx.info_at(target).expect("the channel").messages, length);
    }
}

/// What a process of nginx holds: shared mappings and eventfds.
fn holdings(nginx: &Nginx) -> Vec<(Vec<usize>, usize)> {
    let of = |pid: i32| {
        let descriptors = process::descriptors(pid);
        let eventfds = descriptors.iter().filter(|name| name.contains("[eventfd]")).count();
        (process::shared_mappings(pid), eventfds)
    };
    let mut pids = nginx.workers();
    pids.push(nginx.master());
    pids.into_iter().map(of).collect()
}

#[test]
fn a_module_that_is_loaded_and_not_configured_does_nothing() {
    let without = Nginx::start(Config::bare().workers(2).without_module());
    let loaded = Nginx::start(Config::bare().workers(2));
    // The first request makes sure that the workers have got as far as they get.
    let settled = |nginx: &Nginx| nginx.client_of_each_worker(2).len();
    assert_eq!((settled(&without), settled(&loaded)), (2, 2));
    assert_eq!(holdings(&loaded), holdings(&without));
    let configured = Nginx::start(Config::push(2));
    settled(&configured);
    assert_ne!(holdings(&configured), holdings(&without), "this test sees a zone");
}

#[test]
fn settings_without_a_location_are_no_configuration_either() {
    let without = Nginx::start(Config::bare());
    let nginx = Nginx::start(Config::bare().http("push_message_timeout 1h;"));
    nginx.get("/worker").expect_status(200);
    without.get("/worker").expect_status(200);
    assert_eq!(holdings(&nginx), holdings(&without));
}

#[test]
fn testing_a_configuration_leaves_nothing_behind() {
    for text in ["", "push_max_reserved_memory 64m;"] {
        expect_loads(&Config::push(4).http(text));
    }
}
