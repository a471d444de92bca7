//! From the table of directives to nginx's: one setter serves them all.

use std::ffi::{c_char, c_void};

use comet::config::{Apply, Args, Contexts, Directive, Role, Valued, DIRECTIVES};
use nginx_sys::{
    ngx_command_t, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_core_module,
    ngx_str_t, ngx_uint_t, NGX_CONF_1MORE, NGX_CONF_ANY, NGX_CONF_NOARGS, NGX_CONF_TAKE1,
    NGX_HTTP_LIF_CONF, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MAIN_CONF,
    NGX_HTTP_POST, NGX_HTTP_SRV_CONF,
};

use super::conf::{self, CONF_ERROR, CONF_OK};
use super::log::{self, Level};
use super::values::Values;
use super::{request, text};

const COUNT: usize = DIRECTIVES.len();
/// Longer than the longest name, for nginx compares names up to a NUL (`ngx_conf_handler`).
const NAME_SIZE: usize = 48;

/// The names, each ended by a NUL.
static NAMES: [[u8; NAME_SIZE]; COUNT] = names();

const fn names() -> [[u8; NAME_SIZE]; COUNT] {
    let mut names = [[0; NAME_SIZE]; COUNT];
    let mut rest = DIRECTIVES;
    let mut free: &mut [[u8; NAME_SIZE]] = &mut names;
    while let ([directive, others @ ..], [name, later @ ..]) = (rest, free) {
        assert!(directive.name.len() < NAME_SIZE);
        let (name, _nul) = name.split_at_mut(directive.name.len());
        name.copy_from_slice(directive.name.as_bytes());
        rest = others;
        free = later;
    }
    names
}

/// nginx's table, ended by an empty row.
pub(super) static mut COMMANDS: [ngx_command_t; COUNT + 1] = commands();

const fn commands() -> [ngx_command_t; COUNT + 1] {
    let mut commands = [const { ngx_command_t::empty() }; COUNT + 1];
    let mut rest = DIRECTIVES;
    let mut names: &[[u8; NAME_SIZE]] = &NAMES;
    let mut free: &mut [ngx_command_t] = &mut commands;
    while let ([directive, others @ ..], [name, unnamed @ ..], [command, later @ ..]) =
        (rest, names, free)
    {
        *command = ngx_command_t {
            name: text::borrowed(name.split_at(directive.name.len()).0),
            type_: type_of(directive),
            set: Some(set),
            conf: NGX_HTTP_LOC_CONF_OFFSET,
            offset: 0,
            post: std::ptr::null_mut(),
        };
        rest = others;
        names = unnamed;
        free = later;
    }
    commands
}

const fn type_of(directive: &Directive) -> ngx_uint_t {
    let mut bits = match directive.args {
        Args::None => NGX_CONF_NOARGS,
        Args::One => NGX_CONF_TAKE1,
        Args::Some => NGX_CONF_1MORE,
        Args::Any => NGX_CONF_ANY,
    };
    if directive.contexts.contains(Contexts::HTTP) {
        bits |= NGX_HTTP_MAIN_CONF;
    }
    if directive.contexts.contains(Contexts::SERVER) {
        bits |= NGX_HTTP_SRV_CONF;
    }
    if directive.contexts.contains(Contexts::LOCATION) {
        bits |= NGX_HTTP_LOC_CONF;
    }
    if directive.contexts.contains(Contexts::LOCATION_IF) {
        bits |= NGX_HTTP_LIF_CONF;
    }
    bits as ngx_uint_t
}

unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    command: *mut ngx_command_t,
    _conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the row of COMMANDS, and the words of the directive, which live in the configuration's pool.
    let (name, words) = unsafe {
        let words: &[ngx_str_t] = (*(*cf).args).as_slice();
        (text::bytes((*command).name), words)
    };
    // SAFETY: as above.
    let words: Vec<&[u8]> =
        words.iter().skip(1).map(|word| unsafe { text::bytes(*word) }).collect();
    let Some(directive) = DIRECTIVES.iter().find(|row| row.name.as_bytes() == name) else {
        return CONF_ERROR;
    };
    // SAFETY: nginx is reading a block inside `http`; both references end with this function.
    let (Some(main), Some(location)) =
        (unsafe { conf::main_of(cf) }, unsafe { conf::location_of(cf) })
    else {
        return CONF_ERROR;
    };
    let before = location.said.role;
    let result = match directive.apply {
        Apply::Main(apply) => apply(&mut main.said, &words),
        Apply::Location(apply) | Apply::Values(_, apply) => apply(&mut location.said, &words),
    };
    if let Err(error) = result {
        // SAFETY: nginx's own configuration.
        unsafe { log::configuration(cf, Level::Emergency, &error.to_string()) };
        return CONF_ERROR;
    }
    if let (None, Some(role)) = (before, location.said.role) {
        main.used = true;
        // SAFETY: nginx is reading this block.
        unsafe { install(cf, role) };
    }
    if let Apply::Values(which, _) = directive.apply {
        // SAFETY: nginx is reading this directive.
        let Some(values) = (unsafe { Values::compile(cf) }) else { return CONF_ERROR };
        location.values.set(which, values);
        main.has_origins |= which == Valued::CorsOrigin;
    }
    CONF_OK
}

/// Makes the content handler that belongs to a role that of the block that is being read.
///
/// # Safety
///
/// `cf` must be nginx's, inside `http`.
unsafe fn install(cf: *mut ngx_conf_t, role: Role) {
    let handler = match role {
        Role::Publisher => request::publisher_handler(),
        Role::Subscriber => request::subscriber_handler(),
        Role::Both => request::pubsub_handler(),
    };
    // SAFETY: the caller's promise.
    unsafe { (*core_of(cf)).handler = handler };
}

/// Has what a `limit_except` block lets pass served as its location serves everything else: nginx takes the content handler
/// from the block.
///
/// # Safety
///
/// `cf` must be nginx's, merging the block with a location of this role.
pub(super) unsafe fn serve_limited(cf: *mut ngx_conf_t, role: Option<Role>) {
    // SAFETY: the caller's promise: while a block is merged, the context is its own (`ngx_http_merge_locations`).
    unsafe {
        let core = core_of(cf);
        if let (Some(role), true) = (role, (*core).lmt_excpt() != 0 && (*core).handler.is_none()) {
            install(cf, role);
        }
    }
}

/// Whether some may send other requests to the block that is being merged, but no POST (`limit_except`). nginx asks that of a
/// location; an `if` in it takes the location's place when that has been asked already, and does not say so itself.
///
/// # Safety
///
/// As for [`serve_limited`]; `around` is what this says of the block around it.
pub(super) unsafe fn limits_post(cf: *mut ngx_conf_t, around: bool) -> bool {
    // SAFETY: as in `serve_limited`.
    unsafe {
        let core = core_of(cf);
        let is_if = (*core).noname() != 0 && (*core).lmt_excpt() == 0;
        (*core).limit_except & NGX_HTTP_POST != 0 || is_if && around
    }
}

/// nginx's own configuration of the block that is being read or merged.
///
/// # Safety
///
/// `cf` must be nginx's, inside `http`.
unsafe fn core_of(cf: *mut ngx_conf_t) -> *mut ngx_http_core_loc_conf_t {
    // SAFETY: the core module is there, and its location configuration is of this type.
    unsafe {
        let context: *mut ngx_http_conf_ctx_t = (*cf).ctx.cast();
        (*(*context).loc_conf.add(ngx_http_core_module.ctx_index)).cast()
    }
}
