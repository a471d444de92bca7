//! What the tests in this directory stand on: a real nginx, a client that shows every byte, and
//! the words that a test about channels is written in.
//!
//! * [`config`]: the configuration that a test starts nginx with.
//! * [`nginx`]: starts it in a directory of its own, stops it, and reads its logs.
//! * [`http`]: requests, replies and connections.
//! * [`push`]: publish, park, poll: the module's protocol on top of [`http`].
//! * [`load`]: many publishers and subscribers at once, and the books that they keep.
//! * [`keepers`], [`writers`]: subscribers and publishers by every means, under whatever happens; [`books`]: what must hold of
//!   what they have written down.
//! * [`wild`]: clients that do not behave.
//! * [`random`]: what can be repeated with a seed.
//! * [`body`]: a reply's body that comes bit by bit.
//! * [`event_source`], [`lines`], [`websocket`]: clients for streams; [`streams`]: all of them as one.
//! * [`deflate`]: how far back compressed data refers.
//! * [`disk`]: a disk that is soon full.
//! * [`tls`]: lets a client of plain connections speak to a port with TLS.
//! * [`process`]: signals, workers, open files.
//! * [`http2`], [`webdriver`]: the two other protocols that some tests speak.
//! * [`wait`]: every wait has a condition and a limit.

// Each file in t/ is a crate of its own and uses only some of this.
#![allow(dead_code, unused_imports)]

pub mod body;
pub mod books;
pub mod config;
pub mod deflate;
pub mod disk;
pub mod event_source;
pub mod http;
pub mod http2;
pub mod keepers;
pub mod lines;
pub mod load;
pub mod nginx;
pub mod process;
pub mod push;
pub mod random;
pub mod streams;
pub mod tls;
pub mod wait;
pub mod webdriver;
pub mod websocket;
pub mod wild;
pub mod writers;

pub use config::Config;
pub use http::{Client, Request, Response};
pub use nginx::Nginx;
pub use process::Signal;
pub use push::{Cursor, Info};

/// Makes two tests of each function: one with a single worker, one with four.
///
/// Stands at the head of a file as its table of contents. The functions take the number of workers.
#[allow(unused_macros)]
macro_rules! on_1_and_4_workers {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn on_1_worker() {
                super::$name(1);
            }

            #[test]
            fn on_4_workers() {
                super::$name(4);
            }
        }
    )+};
}
#[allow(unused_imports)]
pub(crate) use on_1_and_4_workers;
