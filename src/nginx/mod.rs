//! The only code that knows nginx, and the only code that may be unsafe.
//!
//! What it leans on, and where nginx promises it:
//!
//! * A worker is one thread; handlers run one after another (`ngx_process_cycle.c`). So statics need no locks, and a
//!   pointer that a handler gets is valid until the handler ends the request or returns to the event loop.
//! * A request lives while `r->main->count` is not 0, and its cleanup handlers run before its pool is destroyed
//!   (`ngx_http_request.c`: `ngx_http_free_request`, `ngx_http_terminate_request`).
//! * A pool's cleanup handlers run before its memory is freed (`ngx_palloc.c`: `ngx_destroy_pool`).
//! * A zone that is reused across a reload keeps its address and contents; every process of both cycles maps it at the
//!   same address, because they were forked from the master that mapped it (`ngx_cycle.c`: `ngx_init_cycle`).
//! * When a worker dies, the master releases the mutex of each slab pool of its cycle that the worker held (`ngx_process.c`:
//!   `ngx_unlock_mutexes`). For what that leaves open, see [`mutex`].
//! * `ngx_process_slot` is unique among all living processes of all cycles (`ngx_process.c`: `ngx_spawn_process`).
//! * At the start of a graceful shutdown the read handler of every idle connection is called with `c->close` set
//!   (`ngx_connection.c`: `ngx_close_idle_connections`).
#![allow(unsafe_code)]

pub mod clock;
pub mod conf;
mod directive;
#[cfg(feature = "faults")]
mod faults;
pub mod log;
mod module;
mod mutex;
mod origins;
pub mod parking;
pub mod pool;
pub mod process;
pub mod request;
mod socket;
pub mod text;
pub mod timer;
pub mod values;
pub mod wake;
pub mod zone;
