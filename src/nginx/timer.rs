//! Things to be done later: at a time, or in the next turn of the event loop.

use std::ptr;

use nginx_sys::{
    ngx_add_timer, ngx_connection_t, ngx_cycle, ngx_del_timer, ngx_delete_posted_event,
    ngx_event_t, ngx_msec_t, ngx_post_event, ngx_posted_next_events,
};

/// Calls a function at a time or in the next turn of the event loop. One for each purpose, for the life of the worker.
#[derive(Clone, Copy, Debug)]
pub struct Timer(&'static Source);

#[derive(Debug)]
#[repr(C)]
struct Source {
    /// nginx's debug log wants to print the descriptor of every event's connection.
    connection: *mut ngx_connection_t,
    event: *mut ngx_event_t,
    callback: fn(),
}

impl Timer {
    /// Makes a timer. It lives as long as the process and does not keep it from exiting.
    pub fn new(callback: fn()) -> Self {
        // SAFETY: all zeros is how nginx makes both (`ngx_calloc`): numbers, null pointers, flags and `None`s.
        let (mut connection, mut event): (Box<ngx_connection_t>, Box<ngx_event_t>) =
            unsafe { (Box::new(std::mem::zeroed()), Box::new(std::mem::zeroed())) };
        connection.fd = -1;
        event.handler = Some(fire);
        // SAFETY: `ngx_cycle` is set before any worker starts.
        event.log = unsafe { (*ngx_cycle).log };
        event.set_cancelable(1);
        let source = Box::leak(Box::new(Source {
            connection: Box::leak(connection),
            event: Box::leak(event),
            callback,
        }));
        // SAFETY: both were leaked above, so they live for ever. nginx reads `data` as a connection only for its `fd`
        // (`ngx_event_ident`); our handler gets the source from the connection's own `data`.
        unsafe {
            (*source.event).data = source.connection.cast();
            (*source.connection).data = ptr::from_mut(source).cast();
        }
        Timer(source)
    }

    /// Calls the function after so many milliseconds; what was set before is forgotten.
    pub fn set(&self, delay: u64) {
        // SAFETY: the event lives for ever, and its timer fields are only touched by nginx's own functions.
        unsafe {
            if (*self.0.event).timer_set() != 0 {
                ngx_del_timer(self.0.event);
            }
            ngx_add_timer(self.0.event, delay as ngx_msec_t);
        }
    }

    /// Calls the function in the next turn of the event loop, after what has come in meanwhile.
    pub fn post(&self) {
        // SAFETY: the queue is nginx's own and initialised before workers start (`ngx_event_process_init`).
        unsafe { ngx_post_event(self.0.event, &raw mut ngx_posted_next_events) };
    }

    /// Forgets what was set and posted.
    pub fn stop(&self) {
        // SAFETY: as in `set` and `post`; an event is in a queue exactly while `posted` is set.
        unsafe {
            if (*self.0.event).timer_set() != 0 {
                ngx_del_timer(self.0.event);
            }
            if (*self.0.event).posted() != 0 {
                ngx_delete_posted_event(self.0.event);
            }
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
