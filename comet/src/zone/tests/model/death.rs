//! A process dies in the zone. What it was about to do is done or not, thing by thing, and life goes on.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use super::*;

impl Test {
    /// Does something, unless death comes first.
    pub(super) fn run_and_die(&mut self, op: &Op, death: Death) {
        let before = self.clone();
        let mut after = self.clone();
        after.act(op);
        self.death = Some(death);
        match catch_unwind(AssertUnwindSafe(|| self.act(op))) {
            Ok(()) => {}
            Err(cause) if cause.is::<super::super::Death>() => {
                // What it wanted to throw away is left to the next start.
                self.trash.clear();
                self.death = None;
                self.waiters = before.waiters;
                self.followers = before.followers;
                self.model = self.recovered(&before.model, &after.model);
            }
            Err(cause) => resume_unwind(cause),
        }
    }

    /// The model of the zone as it is found: everything is as it was before, or as it was to be.
    fn recovered(&mut self, before: &Model, after: &Model) -> Model {
        let mut model = before.clone();
        let now = self.world.now;
        let (trash, wake) = self.world.with(|zone, _| {
            model.recovered += 1;
            assert_eq!(zone.usage().counters.recovered, model.recovered);
            model.find_workers(after, zone);
            model.channels.clear();
            for at in zone.channels() {
                let channel = model.found_channel(before, after, zone, at);
                model.channels.push(channel);
            }
            model.channels.sort_by_key(|channel| channel.life);
            for lost in before.channels.iter().filter(|channel| !channel.deleted) {
                let is_left =
                    after.by_life(lost.life).is_some_and(|at| !after.channels[at].deleted);
                assert!(!is_left || model.by_life(lost.life).is_some(), "{lost:?} is lost");
            }
            model.keys = after.keys;
            model.messages = after.messages;
            model.lives = zone.header.lives;
            assert!((before.lives..=after.lives).contains(&model.lives));
            model.newest_time = zone.header.newest_time;
            assert!((before.newest_time..=after.newest_time).contains(&model.newest_time));
            (zone.take_trash(), zone.take_wake())
        });
        let kept = model.channels.iter().flat_map(|channel| &channel.log);
        let kept: Vec<&Vec<u8>> = kept.map(|message| &message.body).collect();
        assert!(trash.iter().all(|path| !kept.contains(&path)), "{trash:?} is still in use");
        let living = model.workers.iter().map(|worker| worker.index as u32);
        assert_eq!(sorted(wake), sorted(living.collect()));
        for given in &after.given[before.given.len()..] {
            let is_found = model.by_life(given.life).is_some_and(|at| {
                model.channels[at].log.iter().any(|message| message.seq == given.seq)
            });
            if is_found {
                model.given.push(*given);
                model.last_ids.insert(given.name, given.id);
            }
        }
        model.scan = true;
        model.wheel = now.mono / 1000;
        let lives: Vec<u64> = model.channels.iter().map(|channel| channel.life).collect();
        for life in lives {
            let at = model.by_life(life).unwrap();
            let is_left = !model.rest(at, now);
            assert!(is_left, "a deleted channel that nobody waits on was to go with the recovery");
        }
        model
    }
}

impl Model {
    /// A worker is there with its old generation or with the new one, or not at all.
    fn find_workers(&mut self, after: &Model, zone: &Zone<'_>) {
        let all: Vec<Worker> = self.workers.iter().chain(&after.workers).cloned().collect();
        self.workers.clear();
        for at in zone.slots() {
            let slot = *zone.get::<SlotHead>(at);
            if slot.pid == 0 {
                continue;
            }
            let is_it = |worker: &&Worker| {
                worker.slot == SlotRef { at, generation: slot.generation }
                    && worker.pid == slot.pid
                    && worker.index as u32 == slot.index
            };
            let found = all.iter().find(is_it).expect("a worker that nobody knows");
            self.workers.push(Worker {
                mail: vec![],
                overflow: true,
                signaled: true,
                ..found.clone()
            });
        }
    }

    fn found_channel(&self, before: &Model, after: &Model, zone: &Zone<'_>, at: At) -> Channel {
        let head = *zone.get::<ChannelHead>(at);
        let of = |model: &Model| model.by_life(head.life).map(|at| model.channels[at].clone());
        let (old, new) = (of(before), of(after));
        let known: Vec<&Channel> = old.iter().chain(&new).collect();
        assert!(!known.is_empty(), "a channel that nobody has begun");
        let is_either = |test: &dyn Fn(&Channel) -> bool| known.iter().any(|channel| test(channel));
        // Made by who has died, it may have had the beginning of its life only.
        let is_new = old.is_none();
        assert!(is_either(&|channel| channel.requested == head.requested));
        assert!(is_either(&|channel| channel.timeout == head.timeout));
        assert!(is_new || is_either(&|channel| channel.reign == head.reign));
        let first = old.as_ref().map_or(1, |old| old.next_seq);
        let last = new.as_ref().map_or(u64::MAX, |new| new.next_seq);
        assert!((first..=last).contains(&head.next_seq), "{} of {first} to {last}", head.next_seq);

        let mut log = Vec::new();
        for message in zone.messages_of(at) {
            let mut stored = known.iter().flat_map(|channel| &channel.log);
            let stored = stored.find(|stored| stored.seq == message.cursor.seq);
            let stored = stored.expect("a message that nobody has published");
            stored.verify(&message, head.life);
            log.push(stored.clone());
        }
        if let (Some(old), Some(new)) = (&old, &new) {
            let stays = |message: &&Stored| new.log.iter().any(|other| other.seq == message.seq);
            for message in old.log.iter().filter(stays) {
                assert!(log.iter().any(|found| found.seq == message.seq), "{message:?} is lost");
            }
        }
        let mut counts = BTreeMap::new();
        for worker in &self.workers {
            let waiting = zone.waiting(at, worker.slot);
            let of = |channel: &&Channel| {
                channel.counts.get(&worker.key).map_or(0, |count| count.waiting)
            };
            // Who is refused by the last of several channels has been in the first.
            let most = known.iter().map(of).max().unwrap_or(0) + 1;
            let least = known.iter().map(of).min().filter(|_| !is_new).unwrap_or(0);
            assert!(
                (least..=most).contains(&waiting),
                "{waiting} of {least} to {most} subscribers"
            );
            if waiting > 0 {
                counts.insert(worker.key, Count { waiting, ..Count::default() });
            }
        }
        let seconds = known.iter().flat_map(|channel| &channel.dropped_seconds).copied();
        Channel {
            name: known[0].name,
            life: head.life,
            log,
            next_seq: head.next_seq,
            requested: head.requested,
            timeout: head.timeout,
            timer: None,
            idle: false,
            counts,
            reign: head.reign,
            deleted: head.flags & record::DELETED != 0,
            dropped_seconds: seconds.collect(),
            vague: true,
        }
    }
}

impl Zone<'_> {
    /// The subscribers of a worker that wait on a channel.
    fn waiting(&self, channel: At, slot: SlotRef) -> u32 {
        let entries = self.entry_places(channel).map(|place| self.entry(place));
        let own =
            entries.filter(|entry| (entry.slot, entry.generation) == (slot.at, slot.generation));
        own.map(|entry| entry.subscribers()).sum()
    }
}
