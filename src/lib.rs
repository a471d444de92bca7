//! HTTP push for nginx: this crate is the nginx module, `ngx_http_push_module.so`.
//!
//! # Architecture
//!
//! A *channel* is a log in a shared memory zone. A *subscriber* is a cursor into that log and a connection. A *publisher*
//! appends to the log and hints to the workers that have subscribers of the channel; each of them reads the log and
//! serves its own. No worker owns a channel, so any may die; no message is queued for anybody, so a slow or absent client
//! costs no memory.
//!
//! ```text
//! POST ─► publisher ─► zone.publish ── hint: "this channel moved" ──┐      reply 201 or 202 with channel info
//!                        │ (under the zone's lock)                  │ per worker: mailbox in the zone, eventfd
//!                        ▼                                          ▼
//!                   log in the zone ◄── zone.next(cursor) ── worker: hub of parked requests ─► reply to each
//!                        ▲
//! GET ──► subscriber ────┘ a message: reply now; none: park
//! ```
//!
//! The code is in two crates:
//!
//! * `comet` is the engine: what channels, messages, cursors and configurations are, as plain safe Rust without nginx,
//!   sockets or a clock. Read it from its own `lib.rs` on. All that can be tested without nginx is there.
//! * this crate is the edge. It turns nginx's calls into calls of comet, and comet's answers into nginx's output.
//!
//! | here | what it does |
//! |---|---|
//! | `publisher`, `subscriber` | the content handlers: from a request to a reply, or to a parked request |
//! | `stream`, `talk` | subscribers that stay, from the choice of a format to the parked stream; what WebSocket clients say |
//! | `worker` | what one worker keeps: who waits, copies of messages, timers; serves those whose channel moved |
//! | `worker::outlook`, `worker::reader` | what those who wait get, decided for a slice of them at a time; the log, read for them under the lock |
//! | `control` | a WebSocket whose client changes its channels by control frames (`push.json`) |
//! | `channel` | which channels a request is about |
//! | `cors` | refuses pages of other origins, and answers browsers that ask whether they may |
//! | `copies` | a worker's own copies of messages, shared by all replies that carry them |
//! | `formats`, `press` | the formats of streams, by number; renders what they get, once for all who get the same |
//! | `prepared` | replies ready to be sent, one for all who get the same, in the form of their poll |
//! | `memory` | refuses what there is no memory for, before it is taken |
//! | `spool`, `leftovers` | large messages in files; what dead workers have left of them |
//! | `snapshot` | the file in which everything outlives a restart |
//! | `nginx` | the only code that knows nginx, and the only unsafe code: the module table, configuration, requests, parking, timers, wake-ups, the zone and its lock |
//!
//! # Life
//!
//! * Configuration: each directive is a row in `comet::config::DIRECTIVES`; `nginx::directive` makes nginx's table of it. If
//!   no location publishes or subscribes, nothing of what follows happens.
//! * Master: `nginx::module` asks for the zone, makes eventfds for all workers that may come, and, if a reload changes the
//!   zone's size, moves the channels over.
//! * Worker: takes a slot in the zone (`worker::start`), listens to its eventfd, ticks once a second, and gives the slot up at its
//!   end. If it is killed, its successor in the slot, or any other worker's tick, makes its subscribers count no more.
//! * Stream: the head goes out through nginx's filters, the request is parked (`nginx::parking`), and the worker knows its place
//!   in the log. When the channel moves, the worker copies what is new out of the zone, renders it once for each format and
//!   sends it. What a connection does not take waits in its outbox; until that has gone, nothing else is rendered for it, and
//!   then the worker looks into the log for it alone. At the end, the access log gets its line.
//! * Several channels: the subscriber is counted in each, and waits in a *bundle*, a line for all who have the same channels.
//!   When one of them moves, the worker takes the oldest message of any that it has not seen, by the zone-wide stamp.
//! * Start and end: the master takes the snapshot back before workers start (`init_module`), the first of them empties the file
//!   (`init_process`), and the master writes it when they have all gone (`exit_master`).
//! * Reload: the zone stays. Old workers send their long-polls away with 304 and their position, some at a time, and then end their
//!   streams over a second.
mod channel;
mod control;
mod copies;
mod cors;
mod formats;
mod leftovers;
mod memory;
mod nginx;
mod prepared;
mod press;
mod publisher;
mod snapshot;
mod spool;
mod stream;
mod subscriber;
mod talk;
mod worker;
