//! A worker that does what its hints say, as `src/worker.rs` does, forgets nobody: whoever waits when all that it was told of
//! is done has nothing to get.

use proptest::prelude::*;

use super::*;
use crate::hub::{Hub, Key, Slice, Waiter};
use crate::message::Life;

const CHANNELS: [&[u8]; 3] = [b"a", b"b", b"c"];

#[derive(Clone, Debug)]
enum Step {
    /// Somebody publishes, anywhere.
    Publish(usize),
    Delete(usize),
    /// Somebody comes to this worker for what is new.
    Come(usize),
    /// One of those that wait goes.
    Leave(usize),
    /// The worker takes its mail.
    ReadMail,
    /// It looks at one slice.
    Serve(usize),
    /// Hints were lost.
    Alarm,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize).prop_map(Step::Publish),
        1 => (0..3_usize).prop_map(Step::Delete),
        6 => (0..3_usize).prop_map(Step::Come),
        3 => any::<usize>().prop_map(Step::Leave),
        3 => Just(Step::ReadMail),
        4 => (1..3_usize).prop_map(Step::Serve),
        1 => Just(Step::Alarm),
    ]
}

struct Worker {
    world: World,
    slot: SlotRef,
    hub: Hub<()>,
}

impl Worker {
    fn new() -> Self {
        let mut world = World::new(1024);
        let slot = world.join(0);
        Worker { world, slot, hub: Hub::default() }
    }

    fn come(&mut self, id: &[u8]) {
        let (channel, cursor, reign) = self.world.wait(id, self.slot);
        let has_moved = self.world.with(|zone, _| zone.is_told(channel, self.slot));
        let (seq, deadline) = (cursor.seq, u64::MAX);
        let key = self.hub.add(Waiter { channel, seq, since: 0, reign, deadline, connection: () });
        if has_moved {
            self.hub.fell_behind(key);
        }
    }

    fn leave(&mut self, key: Key) {
        let Some(waiter) = self.hub.remove(key) else { return };
        self.world.with(|zone, now| zone.leave(waiter.channel, self.slot, 1, now));
    }

    fn read_mail(&mut self) -> bool {
        let mail = self.world.with(|zone, _| zone.take_mail(self.slot));
        if mail.look_at_all {
            self.hub.moved_all();
        }
        mail.moved.iter().for_each(|life| self.hub.moved(*life));
        mail != Mail::default()
    }

    /// Whoever has something to get leaves with it.
    fn serve(&mut self, max: usize) -> bool {
        let Some(slice) = self.hub.next_slice(max) else { return false };
        let Slice { channel, keys } = &slice;
        self.world.with(|zone, _| zone.look(*channel, self.slot));
        for key in keys {
            if self.answer(*key) != Answer::UpToDate {
                self.leave(*key);
            }
        }
        self.hub.pass(&slice);
        true
    }

    fn answer(&mut self, key: Key) -> Answer {
        let waiter = *self.hub.get(key).unwrap();
        self.world.with(|zone, now| zone.next(waiter.channel, waiter.cursor(), waiter.reign, now))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish(channel) => {
                self.world.publish(say(CHANNELS[channel], &[b"x"]));
            }
            Step::Delete(channel) => {
                self.world.with(|zone, now| zone.delete(CHANNELS[channel], now));
            }
            Step::Come(channel) => self.come(CHANNELS[channel]),
            Step::Leave(place) => {
                let keys = self.hub.keys();
                if !keys.is_empty() {
                    self.leave(keys[place % keys.len()]);
                }
            }
            Step::ReadMail => {
                self.read_mail();
            }
            Step::Serve(max) => {
                self.serve(max);
            }
            Step::Alarm => self.world.with(|zone, _| zone.alarm()),
        }
    }
}

proptest! {
    #![proptest_config(config(400))]
    #[test]
    fn nobody_waits_for_what_is_there(steps in prop::collection::vec(step(), 1..60)) {
        let mut worker = Worker::new();
        for step in &steps {
            worker.step(step);
        }
        while worker.read_mail() || worker.serve(1) {}
        for key in worker.hub.keys() {
            prop_assert_eq!(worker.answer(key), Answer::UpToDate);
        }
        // And whatever comes now is told.
        for id in CHANNELS {
            worker.world.publish(say(id, &[b"y"]));
        }
        while worker.read_mail() || worker.serve(1) {}
        prop_assert!(worker.hub.is_empty());
        let lives: Vec<Life> = worker.world.with(|zone, _| zone.take_mail(worker.slot)).moved;
        prop_assert!(lives.is_empty());
    }
}
