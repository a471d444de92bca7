//! nginx's strings.

use nginx_sys::{ngx_str_t, u_char};

/// The bytes of a string. An empty one may have a null pointer.
///
/// # Safety
///
/// A non-empty string's bytes must stay valid and unchanged for `'a`.
pub unsafe fn bytes<'a>(text: ngx_str_t) -> &'a [u8] {
    if text.len == 0 || text.data.is_null() {
        return &[];
    }
    // SAFETY: the caller promises that `data` names `len` bytes.
    unsafe { std::slice::from_raw_parts(text.data, text.len) }
}

/// A string that borrows. nginx must not write to it nor keep it for longer than the bytes live.
pub const fn borrowed(bytes: &[u8]) -> ngx_str_t {
    ngx_str_t { len: bytes.len(), data: bytes.as_ptr() as *mut u_char }
}
