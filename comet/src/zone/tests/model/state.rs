//! What a zone holds, as a reader of its documentation would keep it: no blocks, no links, no hash table.

use super::*;

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub seq: u64,
    pub id: MessageId,
    /// The place among the messages of all channels.
    pub order: u64,
    pub content_type: Vec<u8>,
    pub event: Vec<u8>,
    pub body: Vec<u8>,
    /// The body is the path of a file.
    pub is_file: bool,
    pub transient: bool,
    pub delete_when_received: bool,
    pub min: u32,
    pub deadline: u64,
}

/// Waiting subscribers of a worker's one generation.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    pub waiting: u32,
    pub notified: bool,
    pub busy: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub name: usize,
    pub life: u64,
    pub log: Vec<Stored>,
    pub next_seq: u64,
    pub requested: u64,
    pub timeout: u32,
    /// The second in which the idle timer fires.
    pub timer: Option<u64>,
    /// May give way to others.
    pub idle: bool,
    pub counts: BTreeMap<u64, Count>,
    pub reign: u32,
    pub deleted: bool,
    pub dropped_seconds: BTreeSet<u64>,
    /// What was dropped may have been forgotten.
    pub vague: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    /// Unique to the generation.
    pub key: u64,
    pub index: usize,
    pub slot: SlotRef,
    pub pid: u32,
    pub is_alive: bool,
    pub mail: Vec<u64>,
    pub overflow: bool,
    pub signaled: bool,
}

/// An id that was given: to which channel, life and sequence number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub name: usize,
    pub id: MessageId,
    pub life: u64,
    pub seq: u64,
}

#[derive(Clone, Default)]
pub(super) struct Model {
    /// Living channels and deleted ones that are still served.
    pub channels: Vec<Channel>,
    pub lives: u64,
    pub messages: u64,
    pub workers: Vec<Worker>,
    pub keys: u64,
    pub wheel: u64,
    pub scan: bool,
    pub wake: Vec<u32>,
    /// Files that have been given back.
    pub trash: Vec<Vec<u8>>,
    pub last_ids: BTreeMap<usize, MessageId>,
    pub newest_time: u64,
    pub given: Vec<Given>,
    pub recovered: u64,
    /// How many channels there may be; 0 for any number.
    pub limit: u32,
}

/// What a subscriber that is admitted gets.
pub(super) struct Entered {
    pub channel: Channel,
    pub expected: Option<Stored>,
    /// The true number of the last message at or before its position.
    pub seen: Option<u64>,
    /// Whether the zone has to know that number.
    pub is_known: bool,
    /// Whether its position is a message's.
    pub is_real: bool,
    /// Whether former lives of the channel have given ids after its position.
    pub is_of_former: bool,
    /// Whether no life that is over has, of any channel.
    pub is_clean: bool,
    pub reign: u32,
}

impl Model {
    pub fn find(&self, name: usize) -> Option<usize> {
        self.channels.iter().position(|channel| channel.name == name && !channel.deleted)
    }

    pub fn by_life(&self, life: u64) -> Option<usize> {
        self.channels.iter().position(|channel| channel.life == life)
    }

    pub fn worker(&mut self, index: usize) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.index == index)
    }

    pub fn subscribers(&self, channel: &Channel) -> u64 {
        let keys: BTreeSet<u64> = self.workers.iter().map(|worker| worker.key).collect();
        let live = channel.counts.iter().filter(|(key, _)| keys.contains(key));
        live.map(|(_, count)| u64::from(count.waiting)).sum()
    }

    pub fn info(&self, at: usize, now: Now) -> ChannelInfo {
        let channel = &self.channels[at];
        ChannelInfo {
            messages: channel.log.iter().filter(|message| !message.transient).count() as u64,
            requested: ((now.mono - channel.requested) / 1000) as i64,
            subscribers: self.subscribers(channel),
        }
    }

    /// A channel goes with all that it has.
    pub fn drop_channel(&mut self, at: usize) {
        for message in self.channels.remove(at).log {
            if message.is_file {
                self.trash.push(message.body);
            }
        }
    }

    /// Life of a channel after something has gone from it; true if that ended it.
    pub fn rest(&mut self, at: usize, now: Now) -> bool {
        let is_waited_for = self.subscribers(&self.channels[at]) > 0;
        let wheel = self.wheel;
        let channel = &mut self.channels[at];
        channel.idle = channel.log.is_empty() && !is_waited_for;
        if is_waited_for {
            return false;
        }
        if channel.deleted {
            self.drop_channel(at);
            return true;
        }
        if channel.log.is_empty() {
            let due = (now.mono + 1000 * u64::from(channel.timeout)).div_ceil(1000);
            channel.timer = Some(due.max(wheel + 1));
        }
        false
    }

    pub fn remove(&mut self, at: usize, place: usize, now: Now) -> bool {
        let message = self.channels[at].log.remove(place);
        self.channels[at].dropped_seconds.insert(message.id.time);
        if message.is_file {
            self.trash.push(message.body);
        }
        self.channels[at].log.is_empty() && self.rest(at, now)
    }

    pub fn turn(&mut self, now: Now) {
        for second in self.wheel + 1..=now.mono / 1000 {
            let mut life = 0;
            while let Some(at) = self.next_life(life) {
                life = self.channels[at].life;
                let due = |message: &Stored| message.deadline.div_ceil(1000) <= second;
                let mut gone = false;
                while !gone {
                    let Some(place) = self.channels[at].log.iter().position(due) else { break };
                    gone = self.remove(at, place, now);
                }
                if gone {
                    continue;
                }
                let channel = &mut self.channels[at];
                if channel.timer.is_some_and(|timer| timer <= second) {
                    channel.timer = None;
                    let due = channel.requested + 1000 * u64::from(channel.timeout);
                    let is_busy = !channel.log.is_empty() || channel.deleted;
                    if is_busy || self.subscribers(&self.channels[at]) > 0 {
                        continue;
                    }
                    if due > now.mono {
                        self.channels[at].timer = Some(due.div_ceil(1000));
                    } else {
                        self.drop_channel(at);
                    }
                }
            }
            self.wheel = second;
        }
    }

    /// The channel with the lowest life above this one.
    fn next_life(&self, life: u64) -> Option<usize> {
        let later = self.channels.iter().filter(|channel| channel.life > life);
        self.by_life(later.map(|channel| channel.life).min()?)
    }

    pub fn drop_expired(&mut self, at: usize, now: Now) {
        while self.channels[at].log.first().is_some_and(|first| first.deadline <= now.mono) {
            assert!(!self.remove(at, 0, now));
        }
    }

    pub fn create(&mut self, name: usize, timeout: u32, now: Now) -> usize {
        self.lives += 1;
        self.channels.push(Channel {
            name,
            life: self.lives,
            log: Vec::new(),
            next_seq: 1,
            requested: now.mono,
            timeout,
            timer: None,
            idle: false,
            counts: BTreeMap::new(),
            reign: 0,
            deleted: false,
            dropped_seconds: BTreeSet::new(),
            vague: false,
        });
        let at = self.channels.len() - 1;
        self.rest(at, now);
        at
    }

    /// Whether so many channels more may be there. Idle ones give way, and which of them the zone says: `left` are the lives
    /// that it has kept.
    pub fn make_place(&mut self, new: usize, kept: &[usize], left: &BTreeSet<u64>) -> bool {
        let wanted = self.channels.len() + new;
        if new == 0 || self.limit == 0 || wanted <= self.limit as usize {
            return true;
        }
        let surplus = wanted - self.limit as usize;
        let can_go: Vec<u64> = self
            .channels
            .iter()
            .filter(|channel| channel.idle && !kept.contains(&channel.name))
            .map(|channel| channel.life)
            .collect();
        if can_go.len() < surplus {
            assert!(can_go.iter().all(|life| left.contains(life)), "gone for nothing");
            return false;
        }
        let gone: Vec<u64> = can_go.into_iter().filter(|life| !left.contains(life)).collect();
        assert_eq!(gone.len(), surplus);
        for life in gone {
            let at = self.by_life(life).unwrap();
            self.drop_channel(at);
        }
        true
    }

    pub fn notify(&mut self, at: usize) {
        let life = self.channels[at].life;
        for worker in &mut self.workers {
            let Some(count) = self.channels[at].counts.get_mut(&worker.key) else {
                continue;
            };
            if count.waiting == 0 || count.notified {
                continue;
            }
            count.notified = true;
            worker.mail.push(life);
            if !worker.signaled {
                worker.signaled = true;
                self.wake.push(worker.index as u32);
            }
        }
    }

    pub fn retire(&mut self, index: usize) {
        self.workers.retain(|worker| worker.index != index);
        self.scan = true;
    }

    pub fn sweep(&mut self, now: Now) {
        self.turn(now);
        let dead: Vec<usize> = self
            .workers
            .iter()
            .filter(|worker| !worker.is_alive)
            .map(|worker| worker.index)
            .collect();
        dead.into_iter().for_each(|index| self.retire(index));
        let mut at = 0;
        while at < self.channels.len() {
            let look = self.scan && !self.channels[at].idle || self.channels[at].deleted;
            if !(look && self.rest(at, now)) {
                at += 1;
            }
        }
        self.scan = false;
    }

    /// Sequence number of the last message of a life at or before an id.
    pub fn seen(&self, life: u64, id: MessageId) -> u64 {
        let given = self.given.iter().filter(|given| given.life == life && given.id <= id);
        given.map(|given| given.seq).max().unwrap_or(0)
    }

    /// Admits a subscriber to a channel that is there.
    pub fn enter(
        &mut self,
        name: usize,
        position: Position,
        wish: Wish,
        worker: Option<u64>,
        stays: bool,
        now: Now,
    ) -> Result<Entered, Refusal> {
        let at = match self.find(name) {
            Some(at) => at,
            None => self.create(name, wish.channel_timeout, now),
        };
        self.admit(at, wish)?;
        self.drop_expired(at, now);
        let channel = &mut self.channels[at];
        channel.requested = now.mono;
        channel.timeout = wish.channel_timeout;
        let expected = first_for(&channel.log, position, now).cloned();
        let channel = channel.clone();
        if let Some(key) = worker.filter(|_| stays || expected.is_none()) {
            self.channels[at].counts.entry(key).or_default().waiting += 1;
        }
        let mut reign = channel.reign;
        if wish.concurrency == Concurrency::Last {
            reign += 1;
            self.channels[at].reign = reign;
            self.notify(at);
        }
        self.rest(at, now);
        let (seen, is_real) = match position {
            Position::After(id) => {
                (Some(self.seen(channel.life, id)), self.given.iter().any(|given| given.id == id))
            }
            _ => (None, false),
        };
        let is_known = is_real && channel.dropped_seconds.len() <= 14 && !channel.vague;
        let after = match position {
            Position::After(id) => Some(id),
            _ => None,
        };
        let is_over =
            |life| self.channels.iter().all(|channel| channel.life != life || channel.deleted);
        let over: Vec<Given> = self
            .given
            .iter()
            .filter(|given| after.is_some_and(|id| given.id > id) && is_over(given.life))
            .copied()
            .collect();
        let wants_all = after.is_none_or(|id| id.time == 0);
        let is_of_former = !wants_all && over.iter().any(|given| given.name == name);
        let is_clean = over.is_empty();
        Ok(Entered { channel, expected, seen, is_known, is_real, is_of_former, is_clean, reign })
    }

    /// Whether a channel that is there has a place for one more.
    pub fn admit(&self, at: usize, wish: Wish) -> Result<(), Refusal> {
        let waiting = self.subscribers(&self.channels[at]);
        if waiting > 0 && wish.max > 0 && waiting >= u64::from(wish.max) {
            return Err(Refusal::TooManySubscribers);
        }
        if waiting > 0 && wish.concurrency == Concurrency::First {
            return Err(Refusal::Conflict);
        }
        Ok(())
    }

    /// Takes a subscriber off a channel.
    pub fn leave(&mut self, life: u64, worker: u64, now: Now) {
        let Some(at) = self.by_life(life) else {
            return;
        };
        if let Some(count) = self.channels[at].counts.get_mut(&worker) {
            count.waiting = count.waiting.saturating_sub(1);
            if count.waiting == 0 {
                self.channels[at].counts.remove(&worker);
            }
        }
        self.rest(at, now);
    }
}

/// The first message for who asks to begin there.
fn first_for(log: &[Stored], position: Position, now: Now) -> Option<&Stored> {
    let mut stored = log.iter().filter(|message| !message.transient);
    match position {
        Position::Newest => None,
        Position::Oldest => stored.find(|message| message.is_alive(now)),
        Position::Nth(place) => {
            stored.filter(|message| message.is_alive(now)).nth(place.saturating_sub(1) as usize)
        }
        Position::Last(count) => {
            let others = stored.clone().count().saturating_sub(count as usize);
            stored.skip(others).find(|message| message.is_alive(now))
        }
        Position::After(_) | Position::Past(_) | Position::Anew { .. } => {
            log.iter().find(|message| message.is_alive(now) && Some(message.id) > position.id())
        }
    }
}

impl Stored {
    pub fn is_alive(&self, now: Now) -> bool {
        self.deadline > now.mono
    }

    /// Verifies a copy of the message.
    pub fn verify(&self, message: &Message, life: u64) {
        assert_eq!(message.id, self.id);
        assert_eq!(message.cursor, Cursor { life: Life(life), seq: self.seq });
        assert_eq!(&*message.content_type, self.content_type);
        assert_eq!(&*message.event, self.event);
        assert_eq!(bytes(message), self.body);
        assert_eq!(matches!(message.body, Body::File { .. }), self.is_file);
        assert_eq!(message.delete_when_received, self.delete_when_received);
    }
}
