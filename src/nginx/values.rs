//! Values of directives that may contain variables.

use std::ptr;

use comet::config::Valued;
use nginx_sys::{
    ngx_conf_t, ngx_http_compile_complex_value, ngx_http_compile_complex_value_t,
    ngx_http_complex_value, ngx_http_complex_value_t, ngx_http_request_t, ngx_int_t, ngx_palloc,
    ngx_str_t, NGX_OK,
};

use super::text;

/// The values of one directive, compiled. They live as long as the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    first: *mut ngx_http_complex_value_t,
    count: usize,
}

impl Values {
    /// Of a directive that was not said.
    pub const NONE: Values = Values { first: ptr::null_mut(), count: 0 };

    /// Whether the directive was not said.
    pub fn is_none(&self) -> bool {
        self.count == 0
    }

    /// Compiles the words of a directive after its name. Nothing if one of them is wrong, of which nginx has told, or if
    /// there is no memory.
    ///
    /// # Safety
    ///
    /// `cf` must be nginx's, reading that directive.
    pub unsafe fn compile(cf: *mut ngx_conf_t) -> Option<Values> {
        // SAFETY: the caller's promise: the words are an array in the configuration's pool; all zeros is how nginx
        // initialises the structure (`ngx_memzero`).
        unsafe {
            let count = (*(*cf).args).nelts - 1;
            let words = (*(*cf).args).elts.cast::<ngx_str_t>();
            let size = count * size_of::<ngx_http_complex_value_t>();
            let first: *mut ngx_http_complex_value_t = ngx_palloc((*cf).pool, size).cast();
            if first.is_null() {
                return None;
            }
            for index in 0..count {
                let mut compile: ngx_http_compile_complex_value_t = std::mem::zeroed();
                compile.cf = cf;
                compile.value = words.add(index + 1);
                compile.complex_value = first.add(index);
                if ngx_http_compile_complex_value(&mut compile) != NGX_OK as ngx_int_t {
                    return None;
                }
            }
            Some(Values { first, count })
        }
    }

    /// What the values are for a request; empty for one that cannot be had.
    ///
    /// # Safety
    ///
    /// `r` must be a living request of the configuration, and whoever uses the bytes must stop before it ends.
    pub unsafe fn of<'a>(&self, r: *mut ngx_http_request_t) -> Vec<&'a [u8]> {
        let value = |index| {
            let mut value = ngx_str_t { len: 0, data: ptr::null_mut() };
            // SAFETY: the caller's promise; there are `count` compiled values, whose bytes live in the request's pool, in its
            // variables, or in the configuration.
            unsafe {
                match ngx_http_complex_value(r, self.first.add(index), &mut value) {
                    code if code == NGX_OK as ngx_int_t => text::bytes(value),
                    _ => &[],
                }
            }
        };
        (0..self.count).map(value).collect()
    }
}

/// The values of all directives that may contain variables.
#[derive(Clone, Copy, Debug)]
pub struct AllValues([Values; Valued::COUNT]);

impl Default for AllValues {
    fn default() -> Self {
        AllValues([Values::NONE; Valued::COUNT])
    }
}

impl AllValues {
    /// Those of one directive.
    pub fn get(&self, which: Valued) -> Values {
        self.0.get(which as usize).copied().unwrap_or(Values::NONE)
    }

    /// Sets those of one directive.
    pub fn set(&mut self, which: Valued, values: Values) {
        if let Some(place) = self.0.get_mut(which as usize) {
            *place = values;
        }
    }

    /// Takes over from the block around this one what was not said here.
    pub fn inherit(&mut self, outer: &AllValues) {
        for (own, outer) in self.0.iter_mut().zip(outer.0) {
            if own.is_none() {
                *own = outer;
            }
        }
    }
}
