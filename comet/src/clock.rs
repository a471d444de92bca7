//! Time as an argument: nothing in this crate reads a clock.

/// The two clocks that the engine is told with every call.
///
/// Ids are made from [`wall`](Now::wall), because that is what `Last-Modified` says. Everything that lasts (message
/// timeouts, channel timeouts, how long a subscriber may wait) is measured on [`mono`](Now::mono), which never steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970-01-01 00:00:00 UTC. May step in either direction.
    pub wall: u64,
    /// Milliseconds of a clock that all workers share and that only goes forward.
    pub mono: u64,
}
