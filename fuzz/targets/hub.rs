//! One worker's waiting subscribers against a simple model: nobody whom a message concerns is forgotten, and nobody is
//! served whom nothing concerns.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use comet::hub::{Hub, Key, Waiter};
use comet::many::Member;
use comet::message::Life;
use comet::zone::ChannelRef;
use fuzz::Plan;
use libfuzzer_sys::fuzz_target;

const CHANNELS: usize = 6;

fn channel(number: usize) -> ChannelRef {
    let mut channel = ChannelRef::NOWHERE;
    channel.life = Life(1 + number as u64);
    channel
}

/// What must hold of a subscriber.
struct Known {
    name: u64,
    channels: BTreeSet<usize>,
    deadline: u64,
    /// A channel has moved since it was served.
    is_due: bool,
    /// How often at most it may be served before something new happens.
    leave: u32,
}

#[derive(Default)]
struct Test {
    hub: Hub<u64>,
    known: BTreeMap<Key, Known>,
    names: u64,
    now: u64,
}

impl Test {
    fn add(&mut self, plan: &mut Plan<'_>) {
        self.names += 1;
        let deadline = match plan.number() {
            0 => u64::MAX,
            after => self.now + after,
        };
        let own = plan.below(CHANNELS);
        let waiter = Waiter {
            channel: channel(own),
            seq: 0,
            since: self.now,
            reign: 0,
            deadline,
            connection: self.names,
        };
        let bits = plan.number();
        let mut channels: BTreeSet<usize> =
            (0..CHANNELS).filter(|number| bits & 1 << number != 0).collect();
        let key = if channels.is_empty() {
            channels.insert(own);
            self.hub.add(waiter)
        } else {
            let member = |number: &usize| Member {
                channel: channel(*number),
                name: Rc::from(&[*number as u8][..]),
            };
            let members: Rc<[Member]> = channels.iter().map(member).collect();
            let key = self.hub.add_to_bundle(&members, waiter);
            let line = self.hub.get(key).unwrap().channel;
            assert_eq!(self.hub.members(line), Some(&members));
            key
        };
        let known = Known { name: self.names, channels, deadline, is_due: false, leave: 0 };
        assert!(self.known.insert(key, known).is_none());
    }

    fn some_key(&self, plan: &mut Plan<'_>) -> Option<Key> {
        let place = plan.below(self.known.len().max(1));
        self.known.keys().nth(place).copied()
    }

    fn remove(&mut self, key: Key) {
        let known = self.known.remove(&key).unwrap();
        let waiter = self.hub.remove(key).unwrap();
        assert_eq!((waiter.connection, waiter.deadline), (known.name, known.deadline));
        assert!(self.hub.remove(key).is_none());
    }

    fn moved(&mut self, number: usize) {
        self.hub.moved(channel(number).life);
        for known in self.known.values_mut().filter(|known| known.channels.contains(&number)) {
            known.is_due = true;
            known.leave = 2.min(known.leave + 1);
        }
    }

    /// Serves a slice as a worker does: some are answered and go, the others wait on.
    fn serve(&mut self, max: usize, plan: &mut Plan<'_>) -> bool {
        let Some(slice) = self.hub.next_slice(max) else {
            assert!(!self.hub.has_work());
            return false;
        };
        assert!(!slice.keys.is_empty() && slice.keys.len() <= max);
        let different: BTreeSet<Key> = slice.keys.iter().copied().collect();
        assert_eq!(different.len(), slice.keys.len());
        for key in &slice.keys {
            let known = self.known.get_mut(key).unwrap();
            let waiter = self.hub.get(*key).unwrap();
            assert_eq!(waiter.connection, known.name);
            let (line, own) = (waiter.channel.life, slice.channel.life);
            assert_eq!(line, own);
            known.leave = known.leave.checked_sub(1).expect("nothing concerns it");
            known.is_due = false;
        }
        for key in &slice.keys {
            match plan.below(4) {
                0 => self.remove(*key),
                1 => self.hub.advance(*key, 7, self.now),
                2 => {
                    self.hub.fell_behind(*key);
                    let known = self.known.get_mut(key).unwrap();
                    known.leave = 2.min(known.leave + 1);
                }
                _ => {}
            }
        }
        self.hub.pass(&slice);
        true
    }

    fn compare(&self) {
        assert_eq!(self.hub.len(), self.known.len());
        assert_eq!(self.hub.is_empty(), self.known.is_empty());
        let keys: Vec<Key> = self.known.keys().copied().collect();
        let mut found = self.hub.keys();
        found.sort();
        assert_eq!(found, keys);
        let mut deadlines: Vec<(u64, Key)> = self
            .known
            .iter()
            .map(|(key, known)| (known.deadline, *key))
            .filter(|(deadline, _)| *deadline != u64::MAX)
            .collect();
        deadlines.sort();
        assert_eq!(self.hub.next_deadline(), deadlines.first().map(|(deadline, _)| *deadline));
        deadlines.retain(|(deadline, _)| *deadline <= self.now);
        let overdue: Vec<Key> = deadlines.iter().map(|(_, key)| *key).collect();
        assert_eq!(self.hub.overdue(self.now, usize::MAX), overdue);
        for known in self.known.values().filter(|known| known.is_due) {
            assert!(self.hub.has_work());
            assert!(known.channels.iter().any(|number| self.hub.is_due(channel(*number).life)));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut plan = Plan::new(data.get(..1000).unwrap_or(data));
    let mut test = Test::default();
    while !plan.is_over() {
        match plan.letter() {
            b'a' => test.add(&mut plan),
            b'r' => {
                if let Some(key) = test.some_key(&mut plan) {
                    test.remove(key);
                }
            }
            b'm' => test.moved(plan.below(CHANNELS)),
            b'M' => {
                test.hub.moved_all();
                for known in test.known.values_mut() {
                    known.is_due = true;
                    known.leave = 2.min(known.leave + 1);
                }
            }
            b's' => {
                let max = 1 + plan.below(4);
                test.serve(max, &mut plan);
            }
            b'b' => {
                if let Some(key) = test.some_key(&mut plan) {
                    test.hub.fell_behind(key);
                    let known = test.known.get_mut(&key).unwrap();
                    known.leave = 2.min(known.leave + 1);
                }
            }
            b'd' => {
                let deadline = match plan.number() {
                    0 => u64::MAX,
                    after => test.now + after,
                };
                if let Some(key) = test.some_key(&mut plan) {
                    test.hub.set_deadline(key, deadline);
                    test.known.get_mut(&key).unwrap().deadline = deadline;
                }
            }
            b't' => test.now += plan.number(),
            b'h' => test.hub.shrink(),
            b'k' => {
                *test.hub.connection_mut(Key::NONE).unwrap_or(&mut 0) = 0;
            }
            _ => {}
        }
        test.compare();
    }
    // Everybody is served in the end, with a bounded number of turns.
    let mut quiet = Plan::new(b"");
    let turns = 3 * test.known.len() + 10;
    assert!((0..turns).any(|_| !test.serve(3, &mut quiet)));
    assert!(test.known.values().all(|known| !known.is_due));
    test.compare();
    let keys: Vec<Key> = test.known.keys().copied().collect();
    keys.into_iter().for_each(|key| test.remove(key));
    test.compare();
    assert!(test.hub.next_slice(10).is_none());
});
