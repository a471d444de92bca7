//! What was published, what subscribers were told, and what must hold between the two.
//!
//! A writer publishes its messages one after the other, each until it is acknowledged. Where an attempt ended with a broken
//! connection, nobody knows whether the message was taken; the next attempt has another mark, so that nothing may come
//! twice.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// A message: whose it is, which of its writer's, and at which attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The writer.
    pub writer: usize,
    /// Its messages have the numbers from 0 on.
    pub number: usize,
    /// The attempts of each message have the numbers from 0 on.
    pub attempt: usize,
}

/// What every format has to escape, or must not touch.
const DELICATE: &str = "Gr\u{fc}\u{df}e \"<\\>&' ";

impl Mark {
    /// The message's body, of at least so many bytes.
    pub fn body(self, length: usize) -> String {
        let Mark { writer, number, attempt } = self;
        format!("{writer} {number} {attempt} {length} {DELICATE}{}", filling(number, length))
    }

    /// Reads a body. Panics unless it is just as it was published.
    #[track_caller]
    pub fn of(body: &str) -> Self {
        let mut parts = body.splitn(5, ' ');
        let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
        let found = (number(), number(), number(), number());
        let start = || body.chars().take(100).collect::<String>();
        let (Some(writer), Some(number), Some(attempt), Some(length)) = found else {
            panic!("nobody has published this: {:?}", start());
        };
        let rest = parts.next().and_then(|rest| rest.strip_prefix(DELICATE));
        assert!(rest == Some(filling(number, length)), "{} bytes of {:?}", body.len(), start());
        Mark { writer, number, attempt }
    }
}

fn filling(number: usize, length: usize) -> &'static str {
    static FILLING: OnceLock<String> = OnceLock::new();
    let all = FILLING.get_or_init(|| {
        let letters = (0..100_000_usize).map(|at| char::from(b'a' + (at * at / 7 % 26) as u8));
        letters.collect()
    });
    &all[number % 97..][..length]
}

/// What a writer has published to each of its channels.
#[derive(Clone, Debug)]
pub struct Written {
    /// Who.
    pub writer: usize,
    /// Where.
    pub channels: Vec<String>,
    /// For each message, which attempt was acknowledged. Those before it are unknown.
    pub acknowledged: Vec<usize>,
}

impl Written {
    fn is_acknowledged(&self, mark: &Mark) -> bool {
        self.acknowledged.get(mark.number) == Some(&mark.attempt)
    }

    /// Whether the worker may have died when the message was in some of its channels and not yet in all.
    fn may_be_in_some(&self, mark: &Mark) -> bool {
        self.channels.len() > 1 && !self.is_acknowledged(mark)
    }
}

/// What a subscriber was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A message.
    Message(Mark),
    /// Messages were missed before the next one.
    Gap {
        /// How many.
        missed: u64,
        /// It may have been more.
        at_least: bool,
    },
    /// It begins again with the oldest message, for it could not say where it was.
    Anew,
}

/// All that a subscriber was told, in this order.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who, for messages to people.
    pub who: String,
    /// The channels.
    pub channels: Vec<String>,
    /// What.
    pub entries: Vec<Entry>,
}

impl Record {
    /// What was told between two beginnings.
    fn parts(&self) -> impl DoubleEndedIterator<Item = &[Entry]> {
        self.entries.split(|entry| *entry == Entry::Anew)
    }

    /// How many messages.
    pub fn messages(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Message(_))).count()
    }

    /// How many it was told that it has missed.
    pub fn missed(&self) -> u64 {
        let missed = |entry: &Entry| match entry {
            Entry::Gap { missed, .. } => *missed,
            _ => 0,
        };
        self.entries.iter().map(missed).sum()
    }
}

/// The messages among these entries. Panics if there is anything else.
#[track_caller]
fn marks(who: &str, entries: &[Entry]) -> Vec<Mark> {
    let marks = entries.iter().enumerate().map(|(at, entry)| match entry {
        Entry::Message(mark) => *mark,
        other => {
            let before = &entries[at.saturating_sub(3)..at];
            panic!("{who} was told of {other:?} after {before:?}")
        }
    });
    marks.collect()
}

/// Panics unless every subscriber has all that was acknowledged, once and in the order of its writer, and all agree on one
/// order; and nobody was told of a gap.
#[track_caller]
pub fn assert_complete(written: &[Written], records: &[Record]) {
    let mut orders: HashMap<Vec<String>, (String, Vec<Mark>)> = HashMap::new();
    for record in records {
        let who = &record.who;
        let mut parts = record.parts().rev().map(|part| marks(who, part));
        let all = parts.next().expect("a part");
        for part in parts {
            let end = part.len().min(all.len());
            assert_same(who, &part, "the same when it began anew", &all[..end]);
        }
        let once = without_copies(record, written, &all);
        match orders.get(&record.channels) {
            None => drop(orders.insert(record.channels.clone(), (who.clone(), once))),
            Some((other, expected)) => assert_same(who, &once, other, expected),
        }
    }
    for (channels, (who, order)) in &orders {
        assert_all_acknowledged(who, channels, order, written);
        for channel in channels {
            let key = vec![channel.clone()];
            let Some((other, expected)) = orders.get(&key) else { continue };
            let is_on = |mark: &&Mark| {
                let writer = writer(written, mark);
                writer.channels.contains(channel) && !writer.may_be_in_some(mark)
            };
            let own: Vec<Mark> = order.iter().filter(is_on).copied().collect();
            let expected: Vec<Mark> = expected.iter().filter(is_on).copied().collect();
            assert_same(&format!("{who}, of {channel},"), &own, other, &expected);
        }
    }
}

#[track_caller]
fn writer<'a>(written: &'a [Written], mark: &Mark) -> &'a Written {
    let found = written.iter().find(|written| written.writer == mark.writer);
    found.unwrap_or_else(|| panic!("a message of another channel: {mark:?}"))
}

/// A message that was published to several of the subscriber's channels comes once for each, and nothing between.
#[track_caller]
fn without_copies(record: &Record, written: &[Written], all: &[Mark]) -> Vec<Mark> {
    let mut once = Vec::new();
    let mut at = 0;
    while let Some(mark) = all.get(at) {
        let writer = writer(written, mark);
        let is_ours = |channel: &&String| record.channels.contains(channel);
        let copies = writer.channels.iter().filter(is_ours).count();
        let found = all[at..].iter().take_while(|other| *other == mark).count();
        let is_right = found == copies || writer.may_be_in_some(mark) && found < copies;
        assert!(is_right, "{}: {found} copies of {mark:?}, not {copies}", record.who);
        once.push(*mark);
        at += found;
    }
    let distinct: HashSet<&Mark> = once.iter().collect();
    assert_eq!(distinct.len(), once.len(), "{} got a message twice", record.who);
    once
}

#[track_caller]
fn assert_same(who: &str, found: &[Mark], other: &str, expected: &[Mark]) {
    let differs = expected.iter().zip(found).position(|(a, b)| a != b);
    let near = |marks: &[Mark]| {
        let at = differs.unwrap_or(0);
        format!("{:?}", marks.iter().skip(at.saturating_sub(2)).take(6).collect::<Vec<_>>())
    };
    assert!(
        differs.is_none() && found.len() == expected.len(),
        "{who} and {other} have seen {} and {} messages, different ones at {differs:?}: {} and {}",
        found.len(),
        expected.len(),
        near(found),
        near(expected),
    );
}

#[track_caller]
fn assert_all_acknowledged(who: &str, channels: &[String], order: &[Mark], written: &[Written]) {
    for one in written {
        if !one.channels.iter().any(|channel| channels.contains(channel)) {
            continue;
        }
        let own: Vec<&Mark> = order.iter().filter(|mark| mark.writer == one.writer).collect();
        let backwards = own.windows(2).find(|pair| pair[0] >= pair[1]);
        assert_eq!(backwards, None, "{who} has seen another order than the writer's");
        let is_known = |mark: &&&Mark| one.is_acknowledged(mark);
        let seen: Vec<usize> = own.iter().filter(is_known).map(|mark| mark.number).collect();
        let missing = (0..one.acknowledged.len()).find(|number| seen.get(*number) != Some(number));
        assert_eq!(missing, None, "{who}: the first that is missing of writer {}", one.writer);
    }
}

/// How the attempts of a writer that is alone on its channel are numbered.
struct Attempts {
    /// The first attempt of each message, and one more for the end.
    first: Vec<usize>,
    /// The attempts that were acknowledged.
    acknowledged: Vec<usize>,
}

impl Attempts {
    fn of(written: &Written) -> Self {
        let mut first = vec![0];
        let mut acknowledged = Vec::new();
        for attempt in &written.acknowledged {
            let start = first.last().copied().unwrap_or_default();
            acknowledged.push(start + attempt);
            first.push(start + attempt + 1);
        }
        Attempts { first, acknowledged }
    }

    fn place(&self, mark: &Mark) -> usize {
        self.first[mark.number] + mark.attempt
    }

    /// How many messages between two that have come there are at least and at most.
    fn between(&self, from: Option<usize>, to: usize) -> (u64, u64) {
        let start = from.map_or(0, |from| from + 1);
        let below = |end: usize| self.acknowledged.partition_point(|place| *place < end);
        ((below(to) - below(start)) as u64, (to - start) as u64)
    }
}

/// Panics unless the subscriber has got messages in their order and none twice, and was told of all that it has not got.
///
/// Each channel has one writer. Of one channel, the number must be right wherever it is said to be. Of several, it must not be
/// too small in the sum: a stream tells at its beginning of all its channels, and who leaves it after a message is told again
/// of what lies behind that.
#[track_caller]
pub fn assert_told(written: &[Written], record: &Record) {
    let who = &record.who;
    let attempts: HashMap<usize, Attempts> =
        written.iter().map(|one| (one.writer, Attempts::of(one))).collect();
    for part in record.parts() {
        let mut last: HashMap<usize, usize> = HashMap::new();
        // Since the last message of each writer.
        let mut told: HashMap<usize, bool> = HashMap::new();
        let mut gap: Option<(u64, bool)> = None;
        let (mut sum, mut is_exact, mut missing) = (0, true, 0);
        for entry in part {
            let mark = match entry {
                Entry::Message(mark) => mark,
                Entry::Gap { missed, at_least } => {
                    gap = Some((*missed, *at_least));
                    sum += missed;
                    is_exact &= !at_least;
                    told.values_mut().for_each(|told| *told = true);
                    continue;
                }
                Entry::Anew => continue,
            };
            let attempts = attempts.get(&mark.writer);
            let attempts = attempts.unwrap_or_else(|| panic!("{who}: whose is {mark:?}?"));
            let (place, before) = (attempts.place(mark), last.get(&mark.writer).copied());
            assert!(before < Some(place), "{who} got {mark:?} twice or late");
            let (least, most) = attempts.between(before, place);
            if before.is_some() {
                missing += least;
                let is_told = told.get(&mark.writer) == Some(&true);
                assert!(least == 0 || is_told, "{who} missed {least} in silence before {mark:?}");
            }
            if let (Some((missed, at_least)), 1) = (gap, record.channels.len()) {
                let is_enough = at_least || before.is_none() || missed >= least;
                assert!(
                    missed <= most && is_enough,
                    "{who} was told {missed} (at least: {at_least}) before {mark:?}, where {least} to {most} are missing"
                );
            }
            gap = None;
            last.insert(mark.writer, place);
            told.insert(mark.writer, false);
        }
        assert!(sum >= missing || !is_exact, "{who} was told of {sum} where {missing} are missing");
    }
}
