//! The table of directives, from an operator's point of view: each directive is written and the settings are read.

#![allow(clippy::panic, clippy::indexing_slicing)]

use comet::config::{
    Apply, Args, Concurrency, ConfigError, Contexts, Directive, LocationConf, MainConf, Role,
    Settings, Valued, Warning, DIRECTIVES,
};
use comet::poll::PollForm;
use comet::transport::Transports;
use proptest::prelude::*;

/// One line of a block.
type Line<'a> = (&'a str, &'a [&'a str]);

/// Reads the lines of one block. Unknown directives fail the test.
fn block(lines: &[Line]) -> Result<(MainConf, LocationConf), ConfigError> {
    let (mut main, mut location) = (MainConf::default(), LocationConf::default());
    for (name, args) in lines {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        match find(name).unwrap_or_else(|| panic!("no directive {name}")).apply {
            Apply::Main(apply) => apply(&mut main, &args)?,
            Apply::Location(apply) | Apply::Values(_, apply) => apply(&mut location, &args)?,
        }
    }
    Ok((main, location))
}

fn find(name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| directive.name == name)
}

fn location(lines: &[Line]) -> Result<LocationConf, ConfigError> {
    block(lines).map(|(_, location)| location)
}

/// The settings of the innermost of `blocks`, the outermost first.
fn nested(blocks: &[&[Line]]) -> Result<(Settings, Vec<Warning>), ConfigError> {
    let mut outer = LocationConf::default();
    let mut warnings = Vec::new();
    for lines in blocks {
        let mut inner = location(lines)?;
        warnings = inner.merge(&outer)?;
        outer = inner;
    }
    Ok((outer.settings(), warnings))
}

fn settings(lines: &[Line]) -> Settings {
    nested(&[lines]).unwrap_or_else(|error| panic!("{error}")).0
}

fn error(lines: &[Line]) -> String {
    match nested(&[lines]) {
        Ok(_) => String::from("no error"),
        Err(error) => error.to_string(),
    }
}

/// A value that every directive with one value takes.
fn sample(directive: &Directive) -> &'static [&'static str] {
    match directive.name {
        "push_publisher" | "push_subscriber" | "push_pubsub" => &[],
        "push_subscriber_concurrency" => &["last"],
        "push_park" => &["plain"],
        "push_poll_messages" => &["joined"],
        "push_cors_origin" => &["https://app.example.com", "$allowed"],
        _ if directive.syntax.contains("on | off") => &["on"],
        _ => &["10"],
    }
}

#[test]
fn the_table_has_every_directive_of_nhpm_where_nhpm_has_it() {
    let (h, sl) = (Contexts::HTTP, Contexts::SERVER.and(Contexts::LOCATION));
    let hsl = h.and(sl);
    let expected = [
        ("push_publisher", sl, Args::Any),
        ("push_subscriber", sl, Args::Any),
        ("push_subscriber_concurrency", hsl, Args::One),
        ("push_store_messages", hsl, Args::One),
        ("push_max_reserved_memory", h, Args::One),
        ("push_min_message_buffer_length", hsl, Args::One),
        ("push_max_message_buffer_length", hsl, Args::One),
        ("push_message_buffer_length", hsl, Args::One),
        ("push_delete_oldest_received_message", hsl, Args::One),
        ("push_message_timeout", hsl, Args::One),
        ("push_subscriber_timeout", hsl, Args::One),
        ("push_channel_timeout", hsl, Args::One),
        ("push_authorized_channels_only", hsl, Args::One),
        ("push_channel_group", sl, Args::One),
        ("push_max_channel_id_length", hsl, Args::One),
        ("push_max_channel_subscribers", hsl, Args::One),
        ("push_ignore_queue_on_no_cache", hsl, Args::One),
        // Ours.
        ("push_channel_id", hsl.and(Contexts::LOCATION_IF), Args::Some),
        ("push_shared_memory_size", h, Args::One),
        ("push_max_channels", h, Args::One),
        ("push_snapshot", h, Args::One),
        ("push_park", hsl, Args::One),
        ("push_pubsub", sl, Args::Any),
        ("push_ping_interval", hsl, Args::One),
        ("push_eventsource_retry", hsl, Args::One),
        ("push_stream_separator", hsl, Args::One),
        ("push_websocket_deflate", hsl, Args::One),
        ("push_websocket_info", hsl, Args::One),
        ("push_poll_messages", hsl, Args::One),
        ("push_channel_id_split_delimiter", hsl, Args::One),
        ("push_first_message", hsl, Args::Some),
        ("push_websocket_channels", hsl, Args::Some),
        ("push_cors_origin", hsl, Args::Some),
        ("push_cors_credentials", hsl, Args::One),
    ];
    for (name, contexts, args) in expected {
        let found = find(name).map(|directive| (directive.contexts, directive.args));
        assert_eq!(found, Some((contexts, args)), "{name}");
    }
    assert_eq!(DIRECTIVES.len(), expected.len());
}

#[test]
fn the_table_can_be_read_by_the_compiler() {
    const COUNT: usize = DIRECTIVES.len();
    const FIRST: &str = DIRECTIVES[0].name;
    const IN_IF: bool = DIRECTIVES[3].contexts.contains(Contexts::LOCATION_IF);
    assert_eq!((COUNT, FIRST, IN_IF), (34, "push_publisher", true));
}

#[test]
fn obsolete_directives_are_unknown() {
    for name in ["push_min_message_recipients", "push_buffer_size", "push_queue_messages"] {
        assert!(find(name).is_none(), "{name}");
    }
}

#[test]
fn the_table_documents_itself() {
    for directive in DIRECTIVES {
        let Directive { name, syntax, default, doc, .. } = directive;
        assert!(name.starts_with("push_"), "{name}");
        assert_eq!(syntax.split(' ').next(), Some(*name));
        assert!(!default.is_empty(), "{name}");
        assert!(doc.ends_with('.') && !doc.contains("  ") && !doc.contains('\n'), "{name}: {doc}");
        assert_eq!(DIRECTIVES.iter().filter(|other| other.name == *name).count(), 1);
        assert_eq!(directive.args == Args::None, syntax == name, "{name}");
        assert_eq!(directive.args == Args::Any, syntax.contains('['), "{name}");
        let for_all = matches!(directive.apply, Apply::Main(_));
        assert_eq!(for_all, directive.contexts == Contexts::HTTP, "{name}");
    }
}

#[test]
fn documented_defaults_are_the_defaults() {
    for directive in DIRECTIVES {
        let name = directive.name;
        if ["—", "$push_channel_id"].contains(&directive.default) {
            continue;
        }
        // As nginx reads a quoted string.
        let said = directive.default.trim_matches('"').replace("\\n", "\n");
        let (main, said) = block(&[(name, &[&said])]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(said.settings(), Settings::default(), "{name}");
        assert_eq!(main.zone_size(4096), MainConf::default().zone_size(4096), "{name}");
    }
}

#[test]
fn every_directive_may_be_said_once_in_a_block() {
    for directive in DIRECTIVES {
        let line = (directive.name, sample(directive));
        assert!(block(&[line]).is_ok(), "{}", directive.name);
        assert_eq!(
            block(&[line, line]).map(|_| ()),
            Err(ConfigError::Duplicate { directive: directive.name })
        );
        assert_eq!(
            ConfigError::Duplicate { directive: directive.name }.to_string(),
            format!("\"{}\" directive is duplicate: it is allowed once in a block", directive.name)
        );
    }
}

#[test]
fn every_error_names_the_directive_and_what_is_allowed() {
    for directive in DIRECTIVES {
        for args in [&[][..], &["\u{1}?"][..], &["1", "2"][..]] {
            let args: Vec<&[u8]> = args.iter().map(|arg: &&str| arg.as_bytes()).collect();
            let result = match directive.apply {
                Apply::Main(apply) => apply(&mut MainConf::default(), &args),
                Apply::Location(apply) | Apply::Values(_, apply) => {
                    apply(&mut LocationConf::default(), &args)
                }
            };
            if let Err(error) = result {
                let text = error.to_string();
                assert!(text.contains(&format!("\"{}\"", directive.name)), "{text}");
                assert!(text.contains("allowed is "), "{text}");
            } else {
                let is_text = [
                    "push_channel_id_split_delimiter",
                    "push_channel_group",
                    "push_stream_separator",
                    "push_snapshot",
                ]
                .contains(&directive.name);
                let takes_it = match directive.args {
                    Args::None | Args::Any => args.is_empty(),
                    Args::One => args.len() == 1 && is_text,
                    Args::Some => !args.is_empty(),
                };
                assert!(takes_it, "{} {args:?}", directive.name);
            }
        }
    }
}

#[test]
fn bad_values_are_told() {
    for (name, value) in [
        ("push_subscriber", "webpocket"),
        ("push_pubsub", "streams"),
        ("push_ping_interval", "often"),
        ("push_eventsource_retry", "-1"),
        ("push_websocket_deflate", "maybe"),
        ("push_websocket_info", "1"),
        ("push_poll_messages", "all"),
        ("push_subscriber", "multi"),
        ("push_subscriber", "json"),
        ("push_cors_origin", "https://app.example.com/"),
        ("push_cors_credentials", "true"),
        ("push_subscriber", ""),
        ("push_subscriber", "long-polling"),
        ("push_subscriber_concurrency", "none"),
        ("push_park", "compactly"),
        ("push_store_messages", "yes"),
        ("push_max_reserved_memory", "lots"),
        ("push_shared_memory_size", "-1"),
        ("push_snapshot", ""),
        ("push_snapshot", "/var/lib/"),
        ("push_min_message_buffer_length", "-1"),
        ("push_max_message_buffer_length", "1k"),
        ("push_message_buffer_length", "ten"),
        ("push_delete_oldest_received_message", "1"),
        ("push_message_timeout", "500ms"),
        ("push_subscriber_timeout", "1h1h"),
        ("push_channel_timeout", "99999999999999999999"),
        ("push_authorized_channels_only", "true"),
        ("push_max_channel_id_length", "9223372036854775808"),
        ("push_max_channel_id_length", "0"),
        ("push_max_channel_subscribers", ""),
        ("push_ignore_queue_on_no_cache", "o"),
    ] {
        let text = match block(&[(name, &[value])]) {
            Ok(_) => panic!("{name} takes {value}"),
            Err(error) => error.to_string(),
        };
        let start = format!("invalid value \"{value}\" in \"{name}\": allowed is ");
        assert!(text.len() > start.len() && text.starts_with(&start), "{text}");
    }
}

#[test]
fn the_publisher_directive_makes_a_publisher() {
    assert_eq!(location(&[("push_publisher", &[])]).map(|c| c.role), Ok(Some(Role::Publisher)));
}

#[test]
fn a_publisher_location_takes_websockets_if_it_says_so() {
    for (args, expected) in [
        (&[][..], true),
        (&["http"][..], false),
        (&["websocket"][..], true),
        (&["HTTP", "WebSockets"][..], true),
        (&["ws", "http"][..], true),
    ] {
        let outer = ("push_publisher", args);
        let conf = location(&[outer]).map(|c| c.settings().publisher_websocket);
        assert_eq!(conf, Ok(expected), "{args:?}");
        // A location in it says for itself, and what an `if` is for holds there too.
        let inner = nested(&[&[], &[outer], &[("push_publisher", &[])]]);
        assert_eq!(inner.map(|(s, _)| s.publisher_websocket), Ok(true));
        let within = nested(&[&[], &[outer], &[]]);
        assert_eq!(within.map(|(s, _)| s.publisher_websocket), Ok(expected));
    }
    let text = error(&[("push_publisher", &["eventsource"])]);
    assert!(text.contains("\"push_publisher\""), "{text}");
}

#[test]
fn the_subscriber_directive_takes_transports_by_all_their_names() {
    let stream = Transports::STREAM.and(Transports::JSON_LINES);
    let multipart = Transports::MULTIPART.and(Transports::MIXED_REPLACE);
    for (args, transports) in [
        (&[][..], Transports::DEFAULT),
        (&["long-poll"][..], Transports::LONG_POLL),
        (&["long"][..], Transports::LONG_POLL),
        (&["L"][..], Transports::LONG_POLL),
        (&["longpoll"][..], Transports::LONG_POLL),
        (&["interval-poll"][..], Transports::INTERVAL_POLL),
        (&["I"][..], Transports::INTERVAL_POLL),
        (&["Interval"][..], Transports::INTERVAL_POLL),
        (&["poll"][..], Transports::INTERVAL_POLL),
        (&["intervalpoll"][..], Transports::INTERVAL_POLL),
        (&["eventsource", "es", "sse", "event-source"][..], Transports::EVENT_SOURCE),
        (&["websocket"][..], Transports::WEBSOCKET),
        (&["WebSockets", "ws"][..], Transports::WEBSOCKET),
        (&["stream"][..], stream),
        (&["http-raw-stream", "l"][..], stream.and(Transports::LONG_POLL)),
        (&["jsonp"][..], Transports::JSONP),
        (&["iframe"][..], Transports::IFRAME),
        (&["htmlfile"][..], Transports::IFRAME),
        (&["multipart"][..], multipart),
        (&["Multipart-Mixed", "jsonp"][..], multipart.and(Transports::JSONP)),
    ] {
        for (name, role) in [("push_subscriber", Role::Subscriber), ("push_pubsub", Role::Both)] {
            let conf = location(&[(name, args)]);
            assert_eq!(conf.as_ref().map(|c| c.role), Ok(Some(role)));
            assert_eq!(conf.map(|c| c.settings().transports), Ok(transports), "{args:?}");
        }
    }
}

#[test]
fn a_location_has_one_role() {
    let (publisher, subscriber) = (("push_publisher", &[][..]), ("push_subscriber", &["i"][..]));
    for (lines, text) in [
        (
            [publisher, subscriber],
            "\"push_subscriber\" cannot be in the same block as \"push_publisher\"",
        ),
        (
            [subscriber, publisher],
            "\"push_publisher\" cannot be in the same block as \"push_subscriber\"",
        ),
    ] {
        let found = error(&lines);
        assert!(found.starts_with(text), "{found}");
    }
}

#[test]
fn concurrency_takes_the_beginning_of_a_word() {
    for (word, concurrency) in [
        ("last", Concurrency::Last),
        ("L", Concurrency::Last),
        ("first", Concurrency::First),
        ("fir", Concurrency::First),
        ("broadcast", Concurrency::Broadcast),
        ("B", Concurrency::Broadcast),
    ] {
        let found = settings(&[("push_subscriber_concurrency", &[word])]).concurrency;
        assert_eq!(found, concurrency, "{word}");
    }
}

#[test]
fn each_value_reaches_its_setting() {
    let found = settings(&[
        ("push_min_message_buffer_length", &["2"]),
        ("push_max_message_buffer_length", &["20"]),
        ("push_delete_oldest_received_message", &["on"]),
        ("push_message_timeout", &["2h"]),
        ("push_subscriber_timeout", &["1m30s"]),
        ("push_channel_timeout", &["0"]),
        ("push_authorized_channels_only", &["ON"]),
        ("push_channel_group", &["chat $x"]),
        ("push_max_channel_id_length", &["64"]),
        ("push_max_channel_subscribers", &["3"]),
        ("push_ignore_queue_on_no_cache", &["on"]),
        ("push_poll_messages", &["multi"]),
    ]);
    let expected = Settings {
        min_messages: 2,
        max_messages: 20,
        delete_oldest_received: true,
        message_timeout_ms: 7_200_000,
        subscriber_timeout_ms: 90_000,
        channel_timeout_ms: 0,
        authorized_only: true,
        group: b"chat $x".to_vec(),
        max_id_length: 64,
        max_subscribers: 3,
        ignore_queue_on_no_cache: true,
        poll_form: PollForm::Multipart,
        ..Settings::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn values_with_variables_are_left_to_the_edge() {
    let conf = location(&[("push_channel_id", &["$arg_id-$host", "b"])]);
    assert_eq!(conf.map(|conf| conf.valued), Ok(vec![Valued::ChannelId]));
    let conf = location(&[("push_first_message", &["-$arg_last", "newest"])]);
    assert_eq!(conf.map(|conf| conf.valued), Ok(vec![Valued::FirstMessage]));
}

#[test]
fn where_to_begin_is_checked_as_far_as_it_is_known() {
    for good in ["oldest", "newest", "3", "-3", "@1700000000", "$anything"] {
        assert!(location(&[("push_first_message", &[good])]).is_ok(), "{good}");
    }
    for bad in ["0", "last", "+1", "@now"] {
        assert_eq!(
            error(&[("push_first_message", &["newest", bad])]),
            format!(
                "invalid value \"{bad}\" in \"push_first_message\": allowed is \"oldest\", \"newest\", N (the N-th oldest \
                 message), -N (the last N messages), @T (those since the second T after 1970), and variables"
            )
        );
    }
}

#[test]
fn one_length_sets_both_bounds() {
    let found = settings(&[("push_message_buffer_length", &["5"])]);
    assert_eq!((found.min_messages, found.max_messages), (5, 5));
}

#[test]
fn one_length_excludes_its_two_parts_in_the_same_block() {
    let whole = ("push_message_buffer_length", &["5"][..]);
    for name in ["push_min_message_buffer_length", "push_max_message_buffer_length"] {
        let part = (name, &["5"][..]);
        for (lines, second, first) in
            [([whole, part], name, whole.0), ([part, whole], whole.0, name)]
        {
            let found = error(&lines);
            let text = format!("\"{second}\" cannot be in the same block as \"{first}\"");
            assert!(found.starts_with(&text), "{found}");
        }
    }
}

#[test]
fn one_length_and_its_parts_go_together_in_different_blocks() {
    let found = nested(&[
        &[("push_message_buffer_length", &["5"])],
        &[("push_max_message_buffer_length", &["9"])],
    ]);
    assert_eq!(found.map(|(s, _)| (s.min_messages, s.max_messages)), Ok((5, 9)));
}

#[test]
fn contradicting_bounds_are_an_error_that_names_both() {
    for text in [
        error(&[
            ("push_min_message_buffer_length", &["5"]),
            ("push_max_message_buffer_length", &["4"]),
        ]),
        nested(&[
            &[("push_min_message_buffer_length", &["5"])],
            &[],
            &[("push_max_message_buffer_length", &["4"])],
        ])
        .map_or_else(|error| error.to_string(), |_| String::new()),
    ] {
        assert!(text.contains("\"push_max_message_buffer_length\" is 4"), "{text}");
        assert!(text.contains("\"push_min_message_buffer_length\", which is 5"), "{text}");
    }
}

#[test]
fn storing_nothing_wins_in_its_block_in_either_order() {
    let (off, length) =
        (("push_store_messages", &["off"][..]), ("push_max_message_buffer_length", &["20"][..]));
    for lines in [[off, length], [length, off]] {
        let found = nested(&[&lines]);
        let warning = Warning::StoreOffWins { directive: "push_max_message_buffer_length" };
        assert_eq!(
            found.map(|(s, warnings)| (s.min_messages, s.max_messages, warnings)),
            Ok((0, 0, vec![warning]))
        );
    }
}

#[test]
fn storing_does_not_undo_storing_nothing_further_out() {
    let found =
        nested(&[&[("push_store_messages", &["off"])], &[("push_store_messages", &["on"])]]);
    assert_eq!(found.map(|(s, _)| (s.min_messages, s.max_messages)), Ok((0, 0)));
}

#[test]
fn the_configuration_of_nhpms_guide_loads() {
    let http = block(&[("push_max_reserved_memory", &["32M"])]);
    assert_eq!(http.map(|(main, _)| main.zone_size(4096)), Ok((33_554_432, None)));
    let publisher = nested(&[
        &[],
        &[],
        &[
            ("push_publisher", &[]),
            ("push_store_messages", &["on"]),
            ("push_message_timeout", &["2h"]),
            ("push_max_message_buffer_length", &["20"]),
        ],
    ]);
    let expected =
        Settings { message_timeout_ms: 7_200_000, max_messages: 20, ..Settings::default() };
    assert_eq!(publisher, Ok((expected, vec![])));
    let subscriber = nested(&[
        &[],
        &[],
        &[("push_subscriber", &[]), ("push_subscriber_concurrency", &["broadcast"])],
    ]);
    assert_eq!(subscriber, Ok((Settings::default(), vec![])));
}

#[test]
fn an_if_block_has_the_settings_of_the_location_around_it() {
    let found = nested(&[
        &[],
        &[("push_channel_group", &["g"])],
        &[("push_subscriber", &["interval-poll"]), ("push_subscriber_timeout", &["5"])],
        &[("push_channel_id", &["other"])],
    ]);
    let expected = Settings {
        transports: Transports::INTERVAL_POLL,
        group: b"g".to_vec(),
        subscriber_timeout_ms: 5_000,
        ..Settings::default()
    };
    assert_eq!(found, Ok((expected, vec![])));
}

proptest! {
    #[test]
    fn no_value_panics(row in 0..DIRECTIVES.len(), args: Vec<Vec<u8>>, twice: bool) {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let (mut main, mut location) = (MainConf::default(), LocationConf::default());
        for _ in 0..=usize::from(twice) {
            let result = match DIRECTIVES[row].apply {
                Apply::Main(apply) => apply(&mut main, &args),
                Apply::Location(apply) | Apply::Values(_, apply) => apply(&mut location, &args),
            };
            if let Err(error) = result {
                prop_assert!(error.to_string().contains(DIRECTIVES[row].name));
            }
        }
        location.settings();
    }

    #[test]
    fn almost_right_values_do_not_panic(row in 0..DIRECTIVES.len(),
        arg in "[0-9]{0,20}[yMwdhmskg ]{0,2}[0-9]{0,3}[ms]?",
    ) {
        let args: &[&[u8]] = &[arg.as_bytes()];
        let (mut main, mut location) = (MainConf::default(), LocationConf::default());
        let _ = match DIRECTIVES[row].apply {
            Apply::Main(apply) => apply(&mut main, args),
            Apply::Location(apply) | Apply::Values(_, apply) => apply(&mut location, args),
        };
        let (size, _) = main.zone_size(4096);
        prop_assert!(size >= 8 * 4096 && size % 4096 == 0);
        location.settings();
    }

    #[test]
    fn times_mean_seconds(days in 0_u64..1000, hours in 0_u64..24, seconds in 0_u64..3600) {
        let text = format!("{days}d{hours}h{seconds}");
        let found = settings(&[("push_message_timeout", &[text.as_str()])]).message_timeout_ms;
        prop_assert_eq!(found, ((days * 24 + hours) * 3600 + seconds) * 1000);
    }

    #[test]
    fn the_minimum_is_never_above_the_maximum(
        levels in prop::collection::vec(
            (prop::option::of(0_u64..20), prop::option::of(0_u64..20), any::<Option<bool>>()),
            1..4,
        ),
    ) {
        let mut outer = LocationConf::default();
        for (min_messages, max_messages, store_messages) in levels {
            let mut inner = LocationConf::default();
            inner.store_messages = store_messages;
            inner.min_messages = min_messages;
            inner.max_messages = max_messages;
            if inner.merge(&outer).is_err() {
                return Ok(());
            }
            let settings = inner.settings();
            prop_assert!(settings.min_messages <= settings.max_messages);
            outer = inner;
        }
    }
}
