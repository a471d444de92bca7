//! Rust values in nginx's pools.

use std::ffi::c_void;

use nginx_sys::{ngx_pool_cleanup_add, ngx_pool_t};

/// Moves a value into a pool, which drops it before its memory is freed. Null if the pool has no memory.
///
/// # Safety
///
/// `pool` must be a living pool, and whoever uses the pointer must stop before the pool is destroyed.
pub unsafe fn keep<T>(pool: *mut ngx_pool_t, value: T) -> *mut T {
    extern "C" fn drop_kept<T>(data: *mut c_void) {
        // SAFETY: made by Box::into_raw below; nginx calls a cleanup handler once.
        drop(unsafe { Box::from_raw(data.cast::<T>()) });
    }
    // SAFETY: the caller promises a living pool.
    let cleanup = unsafe { ngx_pool_cleanup_add(pool, 0) };
    if cleanup.is_null() {
        return std::ptr::null_mut();
    }
    let kept = Box::into_raw(Box::new(value));
    // SAFETY: just allocated, and checked.
    unsafe {
        (*cleanup).data = kept.cast();
        (*cleanup).handler = Some(drop_kept::<T>);
    }
    kept
}
