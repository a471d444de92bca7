//! Publishing to several channels, and following several.

use super::*;

impl Test {
    pub(super) fn publish(&mut self, op: &Op) {
        let &Op::Publish {
            ref channels,
            size,
            type_len,
            event,
            file,
            max,
            min,
            timeout,
            channel_timeout,
            delete_when_received,
        } = op
        else {
            return;
        };
        let now = self.world.now;
        let content_type = vec![b't'; type_len];
        let event: &[u8] = if event { b"event" } else { b"" };
        let bodies: Vec<Vec<u8>> = (0..channels.len() as u64)
            .map(|more| match file {
                true => format!("/file/{:0size$}", self.model.messages + more, size = size + 1)
                    .into_bytes(),
                false => (0..size).map(|byte| (byte * 31 + size) as u8).collect(),
            })
            .collect();
        let pieces: Vec<[&[u8]; 2]> = bodies
            .iter()
            .map(|body| body.split_at(body.len() / 2))
            .map(|(one, other)| [one, other])
            .collect();
        let content = |place: usize| match file {
            true => Content::File { path: &bodies[place], len: size as u64 },
            false => Content::Pieces(&pieces[place]),
        };
        let publications: Vec<Publication<'_>> = channels
            .iter()
            .enumerate()
            .map(|(place, name)| Publication {
                id: NAMES[*name],
                content_type: &content_type,
                event,
                content: content(place),
                max_messages: max,
                min_messages: min,
                message_timeout: timeout,
                channel_timeout,
                delete_when_received,
            })
            .collect();
        let (answer, wake, left) = self.with(|zone, now| {
            let answer = match &publications[..] {
                [publication] => zone.publish(publication, now).map(|published| vec![published]),
                several => zone.publish_all(several, now),
            };
            (answer, zone.take_wake(), zone.lives())
        });
        let model = &mut self.model;
        model.turn(now);
        let new = channels.iter().filter(|name| model.find(**name).is_none()).count();
        if !model.make_place(new, channels, &left) {
            return assert_eq!(answer, Err(PublishError::TooManyChannels));
        }
        let deadline = if timeout == 0 { u64::MAX } else { now.mono + timeout };
        let transient = max == 0;
        for ((name, body), published) in channels.iter().zip(&bodies).zip(answer.unwrap()) {
            let at = model.find(*name);
            let at = at.unwrap_or_else(|| model.create(*name, channel_timeout, now));
            model.drop_expired(at, now);
            let id = published.id;
            model.expect_id(at, id, now);
            model.messages += 1;
            let order = model.messages;
            let channel = &mut model.channels[at];
            let seq = channel.next_seq;
            channel.next_seq += 1;
            channel.idle = false;
            model.given.push(Given { name: *name, id, life: channel.life, seq });
            channel.log.push(Stored {
                seq,
                id,
                order,
                content_type: content_type.clone(),
                event: event.to_vec(),
                body: body.clone(),
                is_file: file,
                transient,
                delete_when_received: delete_when_received && !transient,
                min,
                deadline: match transient {
                    true => deadline.min(now.mono + TRANSIENT_TIMEOUT),
                    false => deadline,
                },
            });
            for (is_transient, limit) in [(false, max as usize), (true, TRANSIENT_MAX as usize)] {
                let matching = |message: &Stored| message.transient == is_transient;
                while (is_transient || limit > 0)
                    && model.channels[at].log.iter().filter(|message| matching(message)).count()
                        > limit
                {
                    let place = model.channels[at].log.iter().position(matching).unwrap();
                    model.remove(at, place, now);
                }
            }
            model.channels[at].timeout = channel_timeout;
            assert_eq!(published.info, model.info(at, now));
            model.notify(at);
        }
        assert_eq!(sorted(wake), sorted(std::mem::take(&mut model.wake)));
    }

    pub(super) fn follow(&mut self, names: &[usize], position: &Where, hold: usize, wish: Wish) {
        let Some(worker) = self.model.worker(hold).map(|worker| worker.clone()) else { return };
        let now = self.world.now;
        let positions: Vec<Position> =
            names.iter().map(|name| self.position(*name, position)).collect();
        let wishes: Vec<Subscription<'_>> = names
            .iter()
            .zip(&positions)
            .map(|(name, position)| subscription(*name, *position, Some(&worker), wish))
            .collect();
        let (answer, wake, left) =
            self.with(|zone, now| (zone.follow_all(&wishes, now), zone.take_wake(), zone.lives()));
        let model = &mut self.model;
        model.turn(now);
        // All are asked before anything happens.
        for name in names {
            let admitted = match model.find(*name) {
                Some(at) => model.admit(at, wish),
                None if wish.authorized_only => Err(Refusal::NotAuthorized),
                None => Ok(()),
            };
            if let Err(refusal) = admitted {
                assert_eq!(answer, Err(refusal));
                return assert!(wake.is_empty());
            }
        }
        let new = names.iter().filter(|name| model.find(**name).is_none()).count();
        if !model.make_place(new, names, &left) {
            return assert_eq!(answer, Err(Refusal::TooManyChannels));
        }
        let entered: Vec<Entered> = names
            .iter()
            .zip(&positions)
            .map(|(name, position)| {
                model.enter(*name, *position, wish, Some(worker.key), true, now).unwrap()
            })
            .collect();
        let places = answer.unwrap();
        assert_eq!(places.len(), names.len());
        for (one, place) in entered.iter().zip(&places) {
            one.verify_place(place, now);
        }
        self.followers.push(Follower {
            worker: worker.key,
            slot: worker.slot,
            channels: places.iter().map(|place| place.channel).collect(),
            standing: Standing::new(&places),
        });
        assert_eq!(sorted(wake), sorted(std::mem::take(&mut self.model.wake)));
    }

    pub(super) fn read(&mut self, follower: usize) {
        if self.followers.is_empty() {
            return;
        }
        let place = follower % self.followers.len();
        let Follower { worker, slot, channels, standing } = self.followers[place].clone();
        let now = self.world.now;
        let (answer, copy) = self.with(|zone, now| {
            channels.iter().for_each(|channel| zone.look(*channel, slot));
            let answer = zone.next_of_many(&channels, &standing, now);
            let copy = match &answer {
                ManyAnswer::Message { next, .. } => Some(zone.copy(next)),
                _ => None,
            };
            (answer, copy)
        });
        let model = &mut self.model;
        let ats: Vec<Option<usize>> =
            channels.iter().map(|channel| model.by_life({ channel.life }.0)).collect();
        for at in ats.iter().flatten() {
            if let Some(count) = model.channels[*at].counts.get_mut(&worker) {
                count.notified = false;
            }
        }
        let seats: Vec<(usize, u64, Option<&Channel>)> = ats
            .iter()
            .zip(&standing.0)
            .enumerate()
            .filter(|(_, (_, stand))| !stand.has_left())
            .map(|(from, (at, stand))| (from, stand.seq, at.map(|at| &model.channels[at])))
            .collect();
        let alive = |channel: &&Channel, from: u64, upto: u64| -> Option<Stored> {
            let mut log = channel.log.iter();
            let is_it = |message: &&Stored| message.seq > from && message.seq <= upto;
            log.find(|message| is_it(message) && message.is_alive(now)).cloned()
        };
        let unseen = seats.iter().filter_map(|(from, seq, channel)| {
            Some((*from, alive(channel.as_ref()?, *seq, u64::MAX)?))
        });
        let expected = unseen.min_by_key(|(_, message)| message.order);
        let is_conflict = seats.iter().any(|(from, _, channel)| {
            channel
                .is_some_and(|channel| !channel.deleted && channel.reign != standing.0[*from].reign)
        });
        let gone =
            seats.iter().find(|(_, _, channel)| channel.is_none_or(|channel| channel.deleted));
        match (answer, expected) {
            (
                ManyAnswer::Message { from, next, standing: come },
                Some((expected_from, expected)),
            ) => {
                assert_eq!(from, expected_from);
                expected.verify(&copy.unwrap(), { channels[from].life }.0);
                // What it has gone past is what it got, and what it is told that it has missed; and that is not there.
                let mut passed = 0;
                for (place, seq, channel) in &seats {
                    let come = come.0[*place];
                    assert!(come.seq >= *seq && come.id >= standing.0[*place].id);
                    passed += come.seq - seq;
                    let upto = if *place == from { come.seq - 1 } else { come.seq };
                    let skipped = channel.and_then(|channel| alive(&channel, *seq, upto));
                    assert!(skipped.is_none(), "{skipped:?} is lost");
                }
                assert_eq!(come.0[from].seq, expected.seq);
                assert_eq!(next.missed.count, passed - 1);
                self.followers[place].standing = come;
            }
            (ManyAnswer::Conflict, None) => {
                assert!(is_conflict);
                let follower = self.followers.remove(place);
                self.unfollow(&follower);
            }
            (ManyAnswer::Gone { from }, None) => {
                assert!(!is_conflict);
                assert_eq!(gone.map(|(from, ..)| *from), Some(from));
                let left = standing.without(from);
                match left.is_over() {
                    true => drop(self.followers.remove(place)),
                    false => self.followers[place].standing = left,
                }
                self.leave(channels[from], slot, worker);
            }
            (ManyAnswer::UpToDate, None) => assert!(!is_conflict && gone.is_none()),
            (answer, expected) => panic!("{answer:?}, not {expected:?}"),
        }
    }

    pub(super) fn unfollow(&mut self, follower: &Follower) {
        for (channel, stand) in follower.channels.iter().zip(&follower.standing.0) {
            if !stand.has_left() {
                self.leave(*channel, follower.slot, follower.worker);
            }
        }
    }
}

impl Model {
    /// Verifies the id of a channel's next message.
    fn expect_id(&mut self, at: usize, id: MessageId, now: Now) {
        if let Some(last) = self.last_ids.insert(self.channels[at].name, id) {
            assert!(id > last);
            // Never before the newest message of any channel.
            let wall = now.wall.max(self.newest_time);
            let expected = match wall > last.time {
                true => MessageId { time: wall, tag: 0 },
                false => MessageId { tag: last.tag + 1, ..last },
            };
            // Channels that have died in this second may have raised it.
            assert!(id >= expected);
            assert!(id == expected || self.channels[at].next_seq == 1);
        }
        assert!(id.time >= self.newest_time);
        self.newest_time = id.time;
    }
}

impl Entered {
    /// Verifies the place of a subscriber that stays.
    fn verify_place(&self, place: &Followed, now: Now) {
        assert_eq!({ place.channel.life }.0, self.channel.life);
        assert_eq!(place.cursor.life, { place.channel.life });
        assert_eq!(place.reign, self.reign);
        match &self.expected {
            Some(expected) => {
                assert_eq!(place.cursor.seq, expected.seq - 1);
                self.verify_missed(expected, place.missed);
            }
            None => {
                self.verify_seen(place.cursor.seq);
                assert_eq!(place.missed.count, 0);
                self.verify_vague(place.missed.at_least);
            }
        }
        assert!(place.came_with <= place.id);
        for message in self.channel.log.iter().filter(|message| message.is_alive(now)) {
            assert_eq!(message.id > place.id, message.seq > place.cursor.seq);
        }
    }
}
