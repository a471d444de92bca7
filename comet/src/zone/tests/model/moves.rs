//! Moving to another zone, at once or through a snapshot.

use super::*;

impl Op {
    /// Whether all goes to another zone, from which deaths take their own ways.
    pub(super) fn is_move(&self) -> bool {
        matches!(self, Op::Carry { .. } | Op::Restart { .. })
    }
}

impl Test {
    pub(super) fn carry(&mut self, blocks: usize) {
        let mut world = World::new(blocks);
        world.now = self.world.now;
        let carried = self.with(|old, now| {
            let mut zone = Zone::format(&mut world.memory, [8, 9], now).unwrap();
            let carried = zone.carry_from(old, now);
            assert_eq!(zone.check(), Ok(()));
            assert!(zone.take_trash().is_empty());
            // Nobody gets in any more, and what belongs to the other zone stays.
            assert!(old.is_closed());
            let refused = old.publish(&say(NAMES[0], &[b"x"]), now);
            assert_eq!(refused, Err(PublishError::Closing));
            let refused = old.subscribe(&ask(NAMES[0], Position::Oldest), now);
            assert_eq!(refused, Err(Refusal::Closing));
            assert_eq!(old.delete(NAMES[0], now), None);
            old.sweep(now, |_| false);
            carried
        });
        self.model.turn(self.world.now);
        self.move_to(world);
        let messages: usize = self.model.channels.iter().map(|channel| channel.log.len()).sum();
        let channels = self.model.channels.len() as u32;
        assert_eq!(carried, Carried { channels, messages: messages as u32, dropped: 0 });
    }

    pub(super) fn restart(&mut self, blocks: usize, away: u64, damage: (usize, u8)) {
        let mut snapshot = Vec::new();
        let token = self.model.lives;
        self.with(|zone, now| zone.save(token, Remaining::Nobody, now, &mut snapshot)).unwrap();
        let mut damaged = snapshot.clone();
        let (place, bits) = damage;
        let place = place % damaged.len();
        damaged[place] ^= bits;
        assert!(Snapshot::read(&damaged).is_err());
        assert!(Snapshot::read(&snapshot[..place]).is_err());
        let snapshot = Snapshot::read(&snapshot).unwrap();
        assert_eq!(snapshot.token(), token);
        let then = self.world.now;
        let mut world = World::new(blocks);
        world.now = Now { wall: then.wall + away, mono: 7_000 };
        let mut zone = Zone::format(&mut world.memory, [10, 11], world.now).unwrap();
        let restored = zone.restore(&snapshot, world.now, &mut |_, _| true);
        assert_eq!(zone.check(), Ok(()));
        self.trash.extend(zone.take_trash());
        drop(zone);
        let model = &mut self.model;
        model.turn(then);
        // Who may have begun in between, and left no snapshot, has given no id of a later second.
        if then.wall.max(model.newest_time) < world.now.wall {
            model.newest_time = world.now.wall + 1;
        }
        let mut expired = 0;
        for channel in &mut model.channels {
            channel.requested =
                world.now.mono.saturating_sub(then.mono - channel.requested + 1000 * away);
            for message in std::mem::take(&mut channel.log) {
                let left = message.deadline.saturating_sub(then.mono);
                let is_wanted = !message.transient && left > 0 && !channel.deleted;
                if is_wanted && left > 1000 * away {
                    let deadline = match message.deadline {
                        u64::MAX => u64::MAX,
                        _ => world.now.mono + left - 1000 * away,
                    };
                    channel.log.push(Stored { deadline, ..message });
                    continue;
                }
                expired += u32::from(is_wanted);
                channel.dropped_seconds.insert(message.id.time);
                if message.is_file {
                    model.trash.push(message.body);
                }
            }
        }
        self.move_to(world);
        let messages: usize = self.model.channels.iter().map(|channel| channel.log.len()).sum();
        let (channels, messages) = (self.model.channels.len() as u32, messages as u32);
        let expected = Restored { channels, messages, expired, ..Restored::default() };
        assert_eq!(restored, expected);
    }

    /// The rest stays behind: workers, subscribers, and what was deleted.
    fn move_to(&mut self, world: World) {
        self.world = world;
        self.waiters.clear();
        self.followers.clear();
        let now = self.world.now;
        let model = &mut self.model;
        model.workers.clear();
        model.wake.clear();
        model.wheel = now.mono / 1000;
        model.scan = false;
        model.recovered = 0;
        while let Some(at) = model.channels.iter().position(|channel| channel.deleted) {
            model.drop_channel(at);
        }
        for at in 0..model.channels.len() {
            let channel = &mut model.channels[at];
            channel.counts.clear();
            channel.reign = 0;
            // It was made anew, before its messages came.
            let log = std::mem::take(&mut channel.log);
            model.rest(at, now);
            model.channels[at].idle = log.is_empty();
            model.channels[at].log = log;
        }
        // Making them has taken lives, which are not given again.
        model.lives += model.channels.len() as u64;
        assert_eq!(self.world.with(|zone, _| zone.header.lives), model.lives);
        (0..3).for_each(|worker| self.join(worker));
    }
}
