//! What those who wait get: decided for a slice of them at a time, while the zone's lock is held.

use std::rc::Rc;

use comet::clock::Now;
use comet::config::Settings;
use comet::hub::{Hub, Key, Slice, Waiter};
use comet::many::{Member, Standing};
use comet::message::Missed;
use comet::poll::PollForm;
use comet::subscriber::{self as replies, Refusal};
use comet::transport::End;
use comet::zone::{self, ChannelRef, SlotRef};

use super::reader::{Found, Read, Reader};
use super::{farewell, Counted, Deliveries, Delivery, Seat};
use crate::copies::Unreadable;
use crate::nginx::parking::Answer;
use crate::prepared::Prepared;
use crate::press::{Look, Reached, Step};
use crate::stream::come_back_later;

/// What those at the same place in the log get.
#[derive(Clone)]
enum Outlook {
    /// Nothing yet.
    Nothing,
    /// A poll's answer.
    Answer(Answer),
    /// A stream's messages, and whether there are more.
    Messages(Rc<Look>, bool),
    /// The end of a stream.
    End(End),
}

/// Decides what a slice's subscribers get, and takes those who leave off the books, also the zone's.
pub(super) fn decide(
    reader: &mut Reader<'_, '_>,
    hub: &mut Hub<Seat>,
    slice: &Slice,
    slot: SlotRef,
) -> Deliveries {
    // Whatever is published from here on comes with a new hint.
    reader.zone.look(slice.channel, slot);
    let mut deliveries = Vec::with_capacity(slice.keys.len());
    let mut left = 0;
    // Nearly all are at the same place: the log is asked once for all of them.
    let mut last: Option<(_, Outlook)> = None;
    for key in &slice.keys {
        let Some(waiter) = hub.get(*key) else { continue };
        let seat = waiter.connection.clone();
        let stays = seat.flow.is_some();
        if seat.flow.is_some_and(|flow| flow.blocked) || slice.channel == ChannelRef::NOWHERE {
            continue;
        }
        let look = (stays, seat.form, std::ptr::from_ref(seat.parked.settings()));
        let place = (waiter.seq, waiter.reign, look, (seat.is_vague, seat.moves));
        let outlook = match &last {
            Some((known, outlook)) if *known == place => outlook.clone(),
            _ => {
                let outlook =
                    if stays { of_stream(reader, waiter) } else { of_poll(reader, waiter) };
                last = Some((place, outlook.clone()));
                outlook
            }
        };
        left += u32::from(hand_out(hub, &mut deliveries, *key, seat, outlook, reader.now));
    }
    hub.pass(slice);
    reader.received.dedup();
    reader.zone.leave(slice.channel, slot, left, reader.now);
    deliveries
}

/// As [`decide`], for subscribers of several channels.
pub(super) fn decide_for_many(
    reader: &mut Reader<'_, '_>,
    hub: &mut Hub<Seat>,
    slice: &Slice,
    members: &Rc<[Member]>,
    slot: SlotRef,
) -> Deliveries {
    let now = reader.now;
    for member in members.iter() {
        reader.zone.look(member.channel, slot);
    }
    let mut deliveries = Vec::with_capacity(slice.keys.len());
    /// Who stands so and gets its messages in such a way gets this, and stands so afterwards.
    type Known = (Rc<Standing>, Kind, (Outlook, Rc<Standing>));
    type Kind = (bool, PollForm, bool, *const Settings);
    // Nearly all stand at the same places.
    let mut last: Option<Known> = None;
    for key in &slice.keys {
        let Some(waiter) = hub.get(*key) else { continue };
        let seat = waiter.connection.clone();
        let Some(standing) = seat.standing.clone() else { continue };
        if seat.flow.is_some_and(|flow| flow.blocked) {
            continue;
        }
        let settings = std::ptr::from_ref(seat.parked.settings());
        let kind = (seat.flow.is_some(), seat.form, seat.moves, settings);
        let (outlook, come) = match &last {
            Some((known, known_kind, (outlook, come)))
                if *known_kind == kind && (Rc::ptr_eq(known, &standing) || *known == standing) =>
            {
                (outlook.clone(), Rc::clone(come))
            }
            _ => {
                let (outlook, come) = of_many(reader, members, &standing, &seat);
                let come = Rc::new(come);
                let of_known = (outlook.clone(), Rc::clone(&come));
                last = Some((Rc::clone(&standing), kind, of_known));
                (outlook, come)
            }
        };
        // Channels that were deleted take only themselves out.
        for ((member, before), after) in members.iter().zip(&standing.0).zip(&come.0) {
            if after.has_left() && !before.has_left() {
                reader.zone.leave(member.channel, slot, 1, now);
            }
        }
        if let (Outlook::Nothing, Some(seat)) = (&outlook, hub.connection_mut(*key)) {
            seat.standing = Some(Rc::clone(&come));
        }
        if hand_out(hub, &mut deliveries, *key, seat, outlook, now) {
            let counted = Counted::Many(Rc::clone(members), come);
            counted.each(|channel| reader.zone.leave(channel, slot, 1, now));
        }
    }
    hub.pass(slice);
    reader.received.dedup();
    deliveries
}

/// Notes what somebody gets; tells whether it leaves with that.
fn hand_out(
    hub: &mut Hub<Seat>,
    deliveries: &mut Deliveries,
    key: Key,
    seat: Seat,
    outlook: Outlook,
    now: Now,
) -> bool {
    let delivery = match outlook {
        Outlook::Nothing => return false,
        Outlook::Messages(look, more) => {
            reach(hub, key, &look, more, now);
            deliveries.push((key, seat, Delivery::Messages(look)));
            return false;
        }
        Outlook::Answer(answer) => Delivery::Answer(answer),
        Outlook::End(end) => Delivery::End(end),
    };
    hub.remove(key);
    deliveries.push((key, seat, delivery));
    true
}

/// Notes how far a stream has come.
fn reach(hub: &mut Hub<Seat>, key: Key, look: &Look, more: bool, now: Now) {
    match &look.place {
        Reached::Seq(seq) => hub.advance(key, *seq, now.mono),
        Reached::Standing(standing) => {
            hub.advance(key, 0, now.mono);
            if let Some(seat) = hub.connection_mut(key) {
                seat.standing = Some(Rc::clone(standing));
            }
        }
    }
    if more {
        hub.fell_behind(key);
    }
}

/// What a poll gets.
fn of_poll(reader: &mut Reader<'_, '_>, waiter: &Waiter<Seat>) -> Outlook {
    let seat = &waiter.connection;
    let end = loop {
        let answer = reader.zone.next(waiter.channel, waiter.cursor(), waiter.reign, reader.now);
        let mut next = match answer {
            zone::Answer::UpToDate => return Outlook::Nothing,
            zone::Answer::Message(next) => next,
            zone::Answer::Conflict => break replies::conflict(),
            zone::Answer::Gone => break replies::gone(),
        };
        next.missed.at_least |= seat.is_vague;
        let taken = reader.take_for_poll(&next, seat.form);
        let place = || {
            let cursor = waiter.cursor();
            farewell(seat.form, reader.zone.place_of(waiter.channel, cursor, reader.now))
        };
        match taken {
            Ok(steps) => return answer_with(seat, &steps, place),
            Err(Unreadable::Gone) => {}
            // It was to begin with what is new, and this is.
            Err(why) => return Outlook::Answer(unanswered(seat, why, seat.moves.then(place))),
        }
    };
    Outlook::Answer(Answer::Reply(Prepared::in_form(seat.form, end)))
}

/// A poll's answer. `place` is what it is told to come back to, if it has no cursor of its own.
fn answer_with(seat: &Seat, steps: &[Step], place: impl FnOnce() -> Rc<Prepared>) -> Outlook {
    let prepared = Prepared::with_messages(seat.form, steps, seat.parked.settings());
    Outlook::Answer(match prepared {
        Ok(prepared) => Answer::Reply(prepared),
        Err(why) => unanswered(seat, why, seat.moves.then(place)),
    })
}

/// The answer to a poll whose message cannot be sent. `place` is what it is told to come back to, if it has no cursor of its
/// own.
fn unanswered(seat: &Seat, why: Unreadable, place: Option<Rc<Prepared>>) -> Answer {
    match (why, place) {
        (Unreadable::NotNow, None) => {
            Answer::Reply(Prepared::in_form(seat.form, Refusal::Exhausted.reply()))
        }
        // The client is to come back, and will be told what it has missed; or, with its place, to wait a while.
        (_, place) => Answer::SentAway(place),
    }
}

/// What a stream gets: some messages, or its end.
fn of_stream(reader: &mut Reader<'_, '_>, waiter: &Waiter<Seat>) -> Outlook {
    let Read { steps, cursor, end, more } =
        reader.read_on(waiter.channel, waiter.cursor(), waiter.reign);
    if steps.is_empty() {
        return end.map_or(Outlook::Nothing, Outlook::End);
    }
    // The end comes after what there was before it.
    let place = Reached::Seq(cursor.seq);
    Outlook::Messages(Rc::new(Look { steps, left: Vec::new(), place }), more)
}

/// What a subscriber of several channels gets, and where it stands then.
fn of_many(
    reader: &mut Reader<'_, '_>,
    members: &[Member],
    stood: &Standing,
    seat: &Seat,
) -> (Outlook, Standing) {
    let stays = seat.flow.is_some();
    let Found { steps, left, standing, end, fails, more } =
        reader.gather(members, stood, stays || seat.form != PollForm::One);
    let end = end.or_else(|| fails.then(come_back_later));
    if stays {
        // The end comes after what there was before it.
        if !(steps.is_empty() && left.is_empty()) {
            let place = Reached::Standing(Rc::new(standing.clone()));
            return (Outlook::Messages(Rc::new(Look { steps, left, place }), more), standing);
        }
        return (end.map_or(Outlook::Nothing, Outlook::End), standing);
    }
    let reply = match end {
        _ if !steps.is_empty() => {
            let place = || Prepared::at_place(seat.form, &stood.place(), Missed::default());
            return (answer_with(seat, &steps, place), standing);
        }
        None => return (Outlook::Nothing, standing),
        Some(_) if fails => {
            let place = seat
                .moves
                .then(|| Prepared::at_place(seat.form, &stood.place(), Missed::default()));
            return (Outlook::Answer(unanswered(seat, Unreadable::NotNow, place)), standing);
        }
        Some(End::Conflict) => replies::conflict(),
        Some(_) => replies::gone(),
    };
    (Outlook::Answer(Answer::Reply(Prepared::in_form(seat.form, reply))), standing)
}
