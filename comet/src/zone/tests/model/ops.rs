//! What is done in a sequence.

use super::*;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Publish {
        /// One, or several at once.
        channels: Vec<usize>,
        size: usize,
        type_len: usize,
        event: bool,
        file: bool,
        max: u32,
        min: u32,
        timeout: u64,
        channel_timeout: u32,
        delete_when_received: bool,
    },
    Subscribe {
        channel: usize,
        position: Where,
        hold: Option<usize>,
        wish: Wish,
    },
    /// Takes a place in each of some channels, to stay.
    Follow {
        channels: Vec<usize>,
        position: Where,
        hold: usize,
        wish: Wish,
    },
    /// Looks for a waiting subscriber; who gets an answer leaves.
    Next {
        waiter: usize,
        received: bool,
    },
    /// Looks for a subscriber that stays.
    Read {
        follower: usize,
    },
    /// A worker has looked for some of those who wait with this one, and not for all.
    Look {
        waiter: usize,
        looking: bool,
    },
    Leave {
        waiter: usize,
    },
    Unfollow {
        follower: usize,
    },
    Delete {
        channel: usize,
    },
    Info {
        channel: usize,
    },
    Pass {
        ms: u64,
    },
    Clock {
        by: i64,
    },
    Join {
        worker: usize,
    },
    Part {
        worker: usize,
    },
    /// A worker dies outside of the zone.
    Kill {
        worker: usize,
    },
    Sweep,
    Mail {
        worker: usize,
    },
    /// From now on there may be so many channels; 0 for any number.
    Limit {
        max: u32,
    },
    /// Everything goes to a zone of another size.
    Carry {
        size: usize,
    },
    /// Everything goes through a snapshot, which is first damaged and refused.
    Restart {
        size: usize,
        away: u64,
        damage: (usize, u8),
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub authorized_only: bool,
    pub max: u32,
    pub concurrency: Concurrency,
    pub channel_timeout: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Where {
    Oldest,
    Newest,
    Nth(u32),
    Last(u32),
    /// After a message that there was once, or still is.
    Real(usize),
    /// After an id that may never have been given.
    Made(usize, i64, u32),
}

/// At which commit point or write of an operation the process dies that does it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Death {
    Commit(u32),
    Write(u32),
}

pub(super) fn ops() -> impl Strategy<Value = Vec<(Op, Option<Death>)>> {
    let channel = || 0..NAMES.len();
    let several = || {
        let all: Vec<usize> = (0..NAMES.len()).collect();
        proptest::sample::subsequence(all, 1..=NAMES.len()).prop_shuffle()
    };
    let worker = || 0..WORKERS;
    let idle = || prop_oneof![Just(0u32), Just(1), Just(5), Just(60)];
    let position = || {
        prop_oneof![
            2 => Just(Where::Oldest),
            1 => Just(Where::Newest),
            1 => (0u32..5).prop_map(Where::Nth),
            1 => (0u32..5).prop_map(Where::Last),
            4 => any::<usize>().prop_map(Where::Real),
            1 => (any::<usize>(), -2i64..3, 0u32..4).prop_map(|(a, b, c)| Where::Made(a, b, c)),
        ]
    };
    let size = prop_oneof![Just(0usize), 0..50usize, 0..400usize];
    let max = prop_oneof![2 => Just(0u32), 3 => 1..4u32, 3 => Just(50)];
    let timeout =
        prop_oneof![3 => Just(0u64), 2 => 1..6000u64, 1 => (1..8u64).prop_map(|s| s * 1000)];
    let concurrency = prop_oneof![
        4 => Just(Concurrency::Broadcast),
        1 => Just(Concurrency::Last),
        1 => Just(Concurrency::First)
    ];
    let channels = prop_oneof![3 => channel().prop_map(|channel| vec![channel]), 1 => several()];
    let file = proptest::bool::weighted(0.2);
    let publish = (
        (channels, size, 0..60usize, any::<bool>(), file),
        (max, 0..3u32, timeout, idle(), any::<bool>()),
    )
        .prop_map(|((channels, size, type_len, event, file), options)| {
            let (max, min, timeout, channel_timeout, delete_when_received) = options;
            Op::Publish {
                channels,
                size,
                type_len,
                event,
                file,
                max,
                min,
                timeout,
                channel_timeout,
                delete_when_received,
            }
        });
    let hold = prop_oneof![1 => Just(None), 3 => worker().prop_map(Some)];
    let authorized = proptest::bool::weighted(0.1);
    let limit = prop_oneof![4 => Just(0u32), 1 => 1..3u32];
    let wish = (authorized, limit, concurrency, idle()).prop_map(
        |(authorized_only, max, concurrency, channel_timeout)| Wish {
            authorized_only,
            max,
            concurrency,
            channel_timeout,
        },
    );
    let wish = wish.boxed();
    let subscribe =
        (channel(), position(), hold, wish.clone()).prop_map(|(channel, position, hold, wish)| {
            Op::Subscribe { channel, position, hold, wish }
        });
    let follow = (several(), position(), worker(), wish)
        .prop_map(|(channels, position, hold, wish)| Op::Follow { channels, position, hold, wish });
    let size = || 0..SIZES.len();
    let restart = (size(), prop_oneof![Just(0u64), 0..10u64], any::<usize>(), 1..=u8::MAX)
        .prop_map(|(size, away, place, bits)| Op::Restart { size, away, damage: (place, bits) });
    let op = prop_oneof![
        20 => publish,
        20 => subscribe,
        8 => follow,
        16 => (any::<usize>(), any::<bool>())
            .prop_map(|(waiter, received)| Op::Next { waiter, received }),
        16 => any::<usize>().prop_map(|follower| Op::Read { follower }),
        4 => (any::<usize>(), any::<bool>())
            .prop_map(|(waiter, looking)| Op::Look { waiter, looking }),
        4 => any::<usize>().prop_map(|waiter| Op::Leave { waiter }),
        3 => any::<usize>().prop_map(|follower| Op::Unfollow { follower }),
        2 => channel().prop_map(|channel| Op::Delete { channel }),
        4 => channel().prop_map(|channel| Op::Info { channel }),
        8 => prop_oneof![1..900u64, Just(1000), 1..9000u64].prop_map(|ms| Op::Pass { ms }),
        2 => (-5i64..6).prop_map(|by| Op::Clock { by }),
        2 => worker().prop_map(|worker| Op::Join { worker }),
        2 => worker().prop_map(|worker| Op::Part { worker }),
        2 => worker().prop_map(|worker| Op::Kill { worker }),
        6 => Just(Op::Sweep),
        8 => worker().prop_map(|worker| Op::Mail { worker }),
        2 => prop_oneof![1 => Just(0u32), 1 => 2..7u32].prop_map(|max| Op::Limit { max }),
        1 => size().prop_map(|size| Op::Carry { size }),
        1 => restart,
    ];
    let when = || prop_oneof![0..6u32, 0..40u32];
    let death = prop_oneof![
        20 => Just(None),
        1 => when().prop_map(|when| Some(Death::Commit(when))),
        1 => when().prop_map(|when| Some(Death::Write(when))),
    ];
    // Miri takes its time.
    let most = if cfg!(miri) { 16 } else { 120 };
    proptest::collection::vec((op, death), 1..most)
}
