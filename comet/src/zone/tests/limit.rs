//! Tests for a limit to the number of channels.

use proptest::prelude::*;

use super::*;
use crate::publisher::PublishError;

const MAX: u32 = 3;
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];

#[derive(Clone, Debug)]
enum Op {
    Publish(usize),
    PublishAll(Vec<usize>),
    Poll(usize),
    Follow(Vec<usize>),
    Leave(usize),
    Delete(usize),
    Pass(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let names = || proptest::sample::subsequence((0..NAMES.len()).collect::<Vec<_>>(), 1..=4);
    let op = prop_oneof![
        3 => (0..NAMES.len()).prop_map(Op::Publish),
        2 => names().prop_map(Op::PublishAll),
        3 => (0..NAMES.len()).prop_map(Op::Poll),
        3 => names().prop_map(Op::Follow),
        3 => any::<usize>().prop_map(Op::Leave),
        2 => (0..NAMES.len()).prop_map(Op::Delete),
        2 => (1..4000u64).prop_map(Op::Pass),
    ];
    proptest::collection::vec(op, 1..60)
}

/// What is known of a channel from outside.
type Seen = [Option<(u64, u64)>; NAMES.len()];

struct Test {
    world: World,
    slot: SlotRef,
    waiting: Vec<Vec<ChannelRef>>,
}

impl Test {
    fn limited<R>(&mut self, act: impl FnOnce(&mut Zone<'_>, Now) -> R) -> R {
        self.world.with(|zone, now| {
            zone.limit_channels(MAX);
            act(zone, now)
        })
    }

    /// The messages and subscribers of all channels, and how many channels the zone counts.
    fn look(&mut self) -> (Seen, u32) {
        self.limited(|zone, now| {
            let info = |id| zone.info(id, now).map(|info| (info.messages, info.subscribers));
            (NAMES.map(info), zone.usage().channels)
        })
    }

    /// Whether these channels may be there together with all that are not idle.
    fn fits(&mut self, names: &[usize]) -> bool {
        let (seen, count) = self.look();
        let idle = (0..NAMES.len())
            .filter(|name| seen[*name] == Some((0, 0)) && !names.contains(name))
            .count();
        let new = names.iter().filter(|name| seen[**name].is_none()).count();
        new == 0 || count as usize - idle + new <= MAX as usize
    }

    fn follow(&mut self, names: &[usize]) {
        let fits = self.fits(names);
        let before = self.look();
        let slot = self.slot;
        let wishes: Vec<_> = names
            .iter()
            .map(|name| Subscription { hold: Some(slot), ..ask(NAMES[*name], Position::Oldest) })
            .collect();
        match self.limited(|zone, now| zone.follow_all(&wishes, now)) {
            Ok(places) => {
                assert!(fits);
                // None of them has given way to another.
                let (seen, _) = self.look();
                assert!(names.iter().all(|name| seen[*name].is_some_and(|(_, n)| n > 0)));
                self.waiting.push(places.iter().map(|place| place.channel).collect());
            }
            Err(refusal) => {
                assert_eq!((refusal, fits), (Refusal::TooManyChannels, false));
                assert_eq!(self.look(), before);
            }
        }
    }

    fn publish(&mut self, names: &[usize]) {
        let fits = self.fits(names);
        let before = self.look();
        let publications: Vec<_> = names.iter().map(|name| say(NAMES[*name], &[b"x"])).collect();
        match self.limited(|zone, now| zone.publish_all(&publications, now)) {
            Ok(published) => assert!(fits && published.len() == names.len()),
            Err(error) => {
                assert_eq!((error, fits), (PublishError::TooManyChannels, false));
                assert_eq!(self.look(), before);
            }
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Publish(name) => self.publish(&[*name]),
            Op::PublishAll(names) => self.publish(names),
            Op::Poll(name) => {
                let fits = self.fits(&[*name]);
                let wish = ask(NAMES[*name], Position::Oldest);
                let answer = self.limited(|zone, now| zone.subscribe(&wish, now));
                assert_eq!(answer.is_ok(), fits, "{answer:?}");
            }
            Op::Follow(names) => self.follow(names),
            Op::Leave(place) => {
                if self.waiting.is_empty() {
                    return;
                }
                let channels = self.waiting.swap_remove(place % self.waiting.len());
                let slot = self.slot;
                self.limited(|zone, now| {
                    channels.iter().for_each(|channel| zone.leave(*channel, slot, 1, now));
                });
            }
            Op::Delete(name) => {
                self.limited(|zone, now| zone.delete(NAMES[*name], now));
            }
            Op::Pass(ms) => self.world.pass(*ms),
        }
        let (_, count) = self.look();
        assert!(count <= MAX, "{count} channels");
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn there_are_never_more_channels_and_who_fits_is_served(ops in ops()) {
        let mut world = World::new(512);
        let slot = world.join(0);
        let mut test = Test { world, slot, waiting: Vec::new() };
        for op in &ops {
            test.run(op);
        }
    }
}

#[test]
fn without_a_limit_there_is_any_number() {
    let mut world = World::new(512);
    for name in NAMES {
        world.publish(say(name, &[b"x"]));
    }
    assert_eq!(world.with(|zone, _| zone.usage().channels), 6);
}

#[test]
fn a_limit_below_what_there_is_keeps_what_there_is() {
    let mut world = World::new(512);
    for name in NAMES {
        world.publish(say(name, &[b"x"]));
    }
    let mut publish = |name: &'static [u8]| {
        world.with(|zone, now| {
            zone.limit_channels(MAX);
            zone.publish(&say(name, &[b"y"]), now).map(|published| published.info.messages)
        })
    };
    assert_eq!(publish(b"f"), Ok(2));
    assert_eq!(publish(b"g"), Err(PublishError::TooManyChannels));
}

#[test]
#[cfg_attr(miri, ignore = "takes long in Miri")]
fn far_too_many_channels_go_a_few_at_a_time() {
    let mut world = World::new(8192);
    for number in 0..2000u32 {
        let mut zone = Zone::enter(&mut world.memory, world.now).unwrap();
        let name = number.to_string();
        zone.publish(
            &Publication { message_timeout: 1, ..say(name.as_bytes(), &[b"x"]) },
            world.now,
        )
        .unwrap();
    }
    world.pass(1000);
    world.sweep();
    let mut before = world.with(|zone, _| zone.usage().channels);
    assert_eq!(before, 2000);
    // A reload has lowered the limit.
    for number in 0..40u32 {
        let name = format!("new {number}");
        world.with(|zone, now| {
            zone.limit_channels(100);
            zone.publish(&say(name.as_bytes(), &[b"x"]), now).unwrap();
        });
        let channels = world.with(|zone, _| zone.usage().channels);
        assert_eq!(channels, before.saturating_sub(255).max(100), "{number}");
        before = channels;
    }
    assert_eq!(before, 100);
    // Where too few are idle, nobody comes and nobody goes.
    let refused = world.with(|zone, now| {
        zone.limit_channels(30);
        zone.publish(&say(b"one more", &[b"x"]), now)
    });
    assert_eq!(refused, Err(PublishError::TooManyChannels));
    assert_eq!(world.with(|zone, _| zone.usage().channels), 100);
}
