//! Points at which a test build may die or stop: the feature `faults`.
//!
//! A point is a place in the source that calls [`point`], or calls a function that hands its caller on to it: each commit
//! of the zone and each write to one of its blocks, and what the edge names. What happens there is up to the hook that
//! the edge has set. In all other builds nothing is left of them.

#[cfg(feature = "faults")]
use std::panic::Location;
#[cfg(feature = "faults")]
use std::sync::OnceLock;

/// What is called at each point, with what happens there and its place in the source.
#[cfg(feature = "faults")]
pub type Hook = fn(&'static str, &'static Location<'static>);

#[cfg(feature = "faults")]
static HOOK: OnceLock<Hook> = OnceLock::new();

/// Has `hook` called at each point from now on. Only the first call counts.
#[cfg(feature = "faults")]
pub fn at_each_point(hook: Hook) {
    let _ = HOOK.set(hook);
}

/// The process may die here, or stop for a while. `what` tells points of the same place apart.
#[cfg_attr(feature = "faults", track_caller)]
#[inline(always)]
pub fn point(what: &'static str) {
    #[cfg(feature = "faults")]
    if let Some(hook) = HOOK.get() {
        hook(what, Location::caller());
    }
    #[cfg(not(feature = "faults"))]
    let _ = what;
}
