//! Things to be done later: at a time, or in the next turn of the event loop.

use std::ptr::NonNull;

use nginx_sys::{
    ngx_add_timer, ngx_connection_t, ngx_cycle, ngx_del_timer, ngx_delete_posted_event,
    ngx_event_t, ngx_msec_t, ngx_post_event, ngx_posted_events, ngx_posted_next_events,
};

/// Calls a function at a time or in the next turn of the event loop. Dropping it forgets what was set.
#[derive(Debug)]
pub struct Timer(NonNull<Source>);

#[derive(Debug)]
struct Source {
    /// nginx's debug log wants to print the descriptor of every event's connection.
    connection: ngx_connection_t,
    event: ngx_event_t,
    callback: fn(),
}

impl Timer {
    /// Makes a timer. It does not keep a worker from exiting.
    pub fn new(callback: fn()) -> Self {
        let timer = Self::holding(callback);
        // SAFETY: the event lives as long as the timer.
        unsafe { (*timer.event()).set_cancelable(1) };
        timer
    }

    /// Makes a timer that keeps a worker from exiting while it is set.
    pub fn holding(callback: fn()) -> Self {
        // SAFETY: all zeros is how nginx makes both (`ngx_calloc`): numbers, null pointers, flags and `None`s.
        let (mut connection, mut event): (ngx_connection_t, ngx_event_t) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        connection.fd = -1;
        event.handler = Some(fire);
        // SAFETY: `ngx_cycle` is set before any worker starts.
        event.log = unsafe { (*ngx_cycle).log };
        let source = Box::into_raw(Box::new(Source { connection, event, callback }));
        // SAFETY: just allocated, and freed only by `drop`. nginx reads `data` as a connection only for its `fd`
        // (`ngx_event_ident`); our handler gets the source from the connection's own `data`.
        unsafe {
            (*source).event.data = (&raw mut (*source).connection).cast();
            (*source).connection.data = source.cast();
            Timer(NonNull::new_unchecked(source))
        }
    }

    fn event(&self) -> *mut ngx_event_t {
        // SAFETY: the source lives as long as the timer.
        unsafe { &raw mut (*self.0.as_ptr()).event }
    }

    /// Calls the function after so many milliseconds; what was set before is forgotten.
    pub fn set(&self, delay: u64) {
        // SAFETY: the event lives as long as the timer, and its timer fields are only touched by nginx's own functions.
        unsafe {
            if (*self.event()).timer_set() != 0 {
                ngx_del_timer(self.event());
            }
            ngx_add_timer(self.event(), delay as ngx_msec_t);
        }
    }

    /// Calls the function in the next turn of the event loop, after what has come in meanwhile.
    pub fn post(&self) {
        // SAFETY: the queue is nginx's own and initialised before workers start (`ngx_event_process_init`).
        unsafe { ngx_post_event(self.event(), &raw mut ngx_posted_next_events) };
    }

    /// Calls the function at the end of this turn of the event loop, before anything new comes in.
    pub fn post_now(&self) {
        // SAFETY: as in `post`.
        unsafe { ngx_post_event(self.event(), &raw mut ngx_posted_events) };
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let event = self.event();
        // SAFETY: as in `set` and `post`; an event is in a queue exactly while `posted` is set, and nowhere afterwards. The
        // source was made by `Box::into_raw`.
        unsafe {
            if (*event).timer_set() != 0 {
                ngx_del_timer(event);
            }
            if (*event).posted() != 0 {
                ngx_delete_posted_event(event);
            }
            drop(Box::from_raw(self.0.as_ptr()));
        }
    }
}

unsafe extern "C" fn fire(event: *mut ngx_event_t) {
    // SAFETY: nginx passes the event that was made in `Timer::new`, whose data has been set there.
    let callback = unsafe {
        let connection: *mut ngx_connection_t = (*event).data.cast();
        (*(*connection).data.cast::<Source>()).callback
    };
    callback();
}
