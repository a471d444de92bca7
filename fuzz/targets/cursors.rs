//! Where a subscriber says that it is: ids, arguments, dates and tags; of one channel and of several.
#![no_main]

use comet::message::{ManyId, MessageId, Position, Seen};
use comet::wire::http::{
    cursors_of, date, is_field_value, parse_date, position, position_of, wants_fresh, MAX_DATE,
};
use comet::wire::id::Cursors;
use fuzz::lines;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [count, id, args, since, tag] = lines(data);
    let channels = 1 + usize::from(count.and_then(<[u8]>::first).copied().unwrap_or(0)) % 8;
    let args = args.unwrap_or_default();

    match position_of(id, args, since, tag) {
        Position::Oldest => {}
        Position::After(id) => {
            let after = Position::After(id);
            assert_ne!(id.time, 0);
            let text = id.to_string();
            assert_eq!(position_of(Some(text.as_bytes()), args, since, tag), after);
            let argument = format!("last_event_id={text}");
            assert_eq!(position_of(None, argument.as_bytes(), since, tag), after);
            if id.time <= MAX_DATE {
                let (date, tag) = (date(id.time), id.tag.to_string());
                assert_eq!(position(Some(date.as_bytes()), Some(tag.as_bytes())), after);
            }
        }
        Position::Past(time) => {
            assert_ne!(time, 0);
            let text = format!("{time}:-,[0]");
            let past = Position::Past(time);
            assert_eq!(position_of(Some(text.as_bytes()), args, since, tag), past);
            let argument = format!("last_event_id={text}");
            assert_eq!(position_of(None, argument.as_bytes(), since, tag), past);
        }
        other => panic!("{other:?}"),
    }
    if let Some(time) = since.and_then(parse_date) {
        assert!(time <= MAX_DATE);
        assert_eq!(parse_date(date(time).as_bytes()), Some(time));
    }
    if let Some(cursors) = cursors_of(id, args, since, tag, channels) {
        assert_eq!(cursors.positions.len(), channels);
        for position in cursors.positions {
            assert!(matches!(
                position,
                Position::Oldest | Position::After(_) | Position::Anew { .. }
            ));
        }
    }

    // What is written can be read.
    let bytes = |value: Option<&[u8]>| value.unwrap_or_default().to_vec();
    let tags: Box<[Seen]> = (0..channels)
        .map(|place| {
            let byte = |at: usize| bytes(id).get(4 * place + at).copied();
            match (byte(0), byte(1), byte(2), byte(3)) {
                (Some(b'x'), Some(time), Some(tag), _) => {
                    Seen::Lost(MessageId { time: time.into(), tag: tag.into() })
                }
                (Some(a), Some(b), Some(c), Some(d)) => {
                    Seen::UpTo(u32::from_le_bytes([a, b, c, d]))
                }
                _ => Seen::Before,
            }
        })
        .collect();
    let time = bytes(since).iter().fold(2, |time: u64, byte| time << 8 | u64::from(*byte));
    let many = ManyId { time, tags: tags.clone(), from: channels / 2 };
    let expected = tags.iter().map(|tag| match tag {
        Seen::UpTo(tag) => Position::After(MessageId { time, tag: *tag }),
        Seen::Before => Position::since(time),
        Seen::Lost(lost) => Position::Anew { time, lost: *lost },
    });
    let expected = Cursors { positions: expected.collect(), is_foreign: false };
    assert_eq!(Cursors::parse(many.to_string().as_bytes(), channels), Some(expected));

    wants_fresh(id, since);
    assert_eq!(
        is_field_value(args),
        !args.iter().any(|byte| *byte != b'\t' && byte.is_ascii_control())
    );
});
