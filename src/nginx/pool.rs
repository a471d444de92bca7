//! Rust values in nginx's pools.

use std::ffi::c_void;
use std::rc::Rc;

use nginx_sys::{ngx_pool_cleanup_add, ngx_pool_t};

/// Moves a value into a pool, which drops it before its memory is freed. Null if the pool has no memory.
///
/// # Safety
///
/// `pool` must be a living pool, and whoever uses the pointer must stop before the pool is destroyed.
pub unsafe fn keep<T>(pool: *mut ngx_pool_t, value: T) -> *mut T {
    // SAFETY: the caller's promise.
    unsafe { own(pool, Box::new(value)) }
}

/// Gives a box to a pool, which drops it before its memory is freed. Null if the pool has no memory.
///
/// # Safety
///
/// As for [`keep`].
pub unsafe fn own<T>(pool: *mut ngx_pool_t, value: Box<T>) -> *mut T {
    extern "C" fn drop_kept<T>(data: *mut c_void) {
        // SAFETY: made by Box::into_raw below; nginx calls a cleanup handler once.
        drop(unsafe { Box::from_raw(data.cast::<T>()) });
    }
    // SAFETY: the caller promises a living pool.
    let cleanup = unsafe { ngx_pool_cleanup_add(pool, 0) };
    if cleanup.is_null() {
        return std::ptr::null_mut();
    }
    let kept = Box::into_raw(value);
    // SAFETY: just allocated, and checked.
    unsafe {
        (*cleanup).data = kept.cast();
        (*cleanup).handler = Some(drop_kept::<T>);
    }
    kept
}

/// Has a pool hold a share of a value until its memory is freed. Nothing if the pool has no memory.
///
/// # Safety
///
/// `pool` must be a living pool, and whoever uses the reference must stop before the pool is destroyed.
pub unsafe fn share<'a, T: 'a>(pool: *mut ngx_pool_t, value: Rc<T>) -> Option<&'a T> {
    extern "C" fn drop_share<T>(data: *mut c_void) {
        // SAFETY: made by Rc::into_raw below; nginx calls a cleanup handler once.
        drop(unsafe { Rc::from_raw(data.cast::<T>()) });
    }
    // SAFETY: the caller promises a living pool; the cleanup was just allocated, and checked.
    unsafe {
        let cleanup = ngx_pool_cleanup_add(pool, 0).as_mut()?;
        let shared = Rc::into_raw(value);
        cleanup.data = shared.cast_mut().cast();
        cleanup.handler = Some(drop_share::<T>);
        shared.as_ref()
    }
}
