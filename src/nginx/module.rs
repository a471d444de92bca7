//! The module as nginx sees it, and what happens at each point of its life.

use std::ffi::{c_char, c_void, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use comet::config::Warning;
use nginx_sys::{
    ngx_conf_t, ngx_cycle_t, ngx_http_add_variable, ngx_http_get_variable_index, ngx_http_module_t,
    ngx_http_request_t, ngx_http_variable_value_t, ngx_int_t, ngx_module_t, ngx_pagesize,
    ngx_str_t, ngx_test_config, ngx_uint_t, NGX_ERROR, NGX_HTTP_MODULE, NGX_HTTP_VAR_CHANGEABLE,
    NGX_OK,
};

use super::conf::{self, Main};
use super::log::{self, Level};
use super::{directive, origins, parking, process, text, wake, zone};
use crate::{snapshot, spool, worker};

const OK: ngx_int_t = NGX_OK as ngx_int_t;
const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;

/// The variable that names the channel where `push_channel_id` does not.
const CHANNEL_ID: &[u8] = b"push_channel_id";

static CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(conf::create_main),
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(conf::create_location),
    merge_loc_conf: Some(conf::merge_location),
};

/// The module.
#[no_mangle]
pub static mut ngx_http_push_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast(),
    commands: (&raw mut directive::COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_module: Some(init_module),
    init_process: Some(init_process),
    exit_process: Some(exit_process),
    exit_master: Some(exit_master),
    ..ngx_module_t::default()
};

/// What `load_module` looks for: the modules in this file.
#[no_mangle]
pub static mut ngx_modules: [*const ngx_module_t; 2] =
    [&raw const ngx_http_push_module, ptr::null()];

/// Their names.
#[no_mangle]
pub static mut ngx_module_names: [*const c_char; 2] =
    [c"ngx_http_push_module".as_ptr(), ptr::null()];

/// Where they want to stand among the others: anywhere.
#[no_mangle]
pub static mut ngx_module_order: [*const c_char; 1] = [ptr::null()];

/// Makes `$push_channel_id` known, so that `set` may set it, and a configuration that never does loads all the same.
unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    let mut name: ngx_str_t = text::borrowed(CHANNEL_ID);
    // SAFETY: nginx passes the configuration that it is about to read, and copies the name.
    unsafe {
        let variable = ngx_http_add_variable(cf, &mut name, NGX_HTTP_VAR_CHANGEABLE as ngx_uint_t);
        if variable.is_null() {
            return ERROR;
        }
        if (*variable).get_handler.is_none() {
            (*variable).get_handler = Some(unset_variable);
        }
    }
    OK
}

/// The value of `$push_channel_id` where nobody has set it.
unsafe extern "C" fn unset_variable(
    _request: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    // SAFETY: nginx passes a place for the value.
    unsafe { (*value).set_not_found(1) };
    OK
}

unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    // SAFETY: nginx has just read `http`.
    let Some(main) = (unsafe { conf::main_of(cf) }) else { return ERROR };
    if !main.used {
        return OK;
    }
    // SAFETY: set before any configuration is read.
    let (size, warning) = main.said.zone_size(unsafe { ngx_pagesize });
    if let Some(warning @ Warning::ZoneRaised { .. }) = warning {
        // SAFETY: nginx's own configuration.
        unsafe { log::configuration(cf, Level::Warn, &warning.to_string()) };
    }
    let mut name: ngx_str_t = text::borrowed(CHANNEL_ID);
    // SAFETY: nginx's own configuration; the address of a static serves as the zone's tag.
    unsafe {
        main.channel_id = ngx_http_get_variable_index(cf, &mut name);
        main.zone = zone::add(cf, size, (&raw mut ngx_http_push_module).cast::<c_void>());
    }
    if main.has_origins {
        // SAFETY: this is postconfiguration.
        unsafe { origins::install() };
    }
    // SAFETY: this is postconfiguration.
    let installed = unsafe { parking::install(cf) };
    if installed && main.channel_id != ERROR && main.zone.is_some() {
        OK
    } else {
        ERROR
    }
}

/// The main configuration of a cycle, if the module is in use there.
///
/// # Safety
///
/// `cycle` must be one whose configuration was read.
unsafe fn used_in<'a>(cycle: *mut ngx_cycle_t) -> Option<&'a Main> {
    // SAFETY: `http` has a context if it is configured, and it has what `create_main` has returned.
    unsafe {
        let context = *(*cycle).conf_ctx.add(nginx_sys::ngx_http_module.index);
        let context: *mut nginx_sys::ngx_http_conf_ctx_t = context.cast();
        let main = *context.as_ref()?.main_conf.add(ngx_http_push_module.ctx_index);
        main.cast::<Main>().as_ref().filter(|main| main.used)
    }
}

/// In the master (or the only process), when a configuration has been accepted and before workers are forked.
unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx passes the new cycle; under `nginx -t` nothing is started.
    let (main, only_testing) = unsafe { (used_in(cycle), ngx_test_config != 0) };
    if only_testing {
        // SAFETY: nginx passes the new cycle.
        let path = main.and_then(|main| unsafe { snapshot_path(cycle, main) });
        path.iter().for_each(|path| snapshot::check(path));
        return OK;
    }
    // SAFETY: this is init_module.
    unsafe { log::begin(cycle) };
    snapshot::clear_spent();
    let Some(main) = main else {
        snapshot::give_up();
        return OK;
    };
    #[cfg(feature = "faults")]
    // SAFETY: this is init_module.
    unsafe {
        super::faults::start(cycle);
    }
    process::outlive_file_limits();
    // SAFETY: this is init_module. An error would end the master, and with it all that runs: workers do without.
    if let Err(error) = wake::prepare(unsafe { process::slots_needed(cycle) }) {
        log::cycle(
            Level::Error,
            &format!("push: eventfd() failed, workers will notice messages late: {error}"),
        );
    }
    if let Some(zone) = main.zone {
        // SAFETY: this is init_module, and the zone is initialised.
        unsafe { zone::carry_over(cycle, zone) };
        // SAFETY: as above.
        let (path, new) = unsafe { (snapshot_path(cycle, main), zone::begun_in(cycle, zone)) };
        match (path, new) {
            (Some(path), Some(new)) => snapshot::begin(&path, new, process::is_upgrade()),
            (Some(path), None) => snapshot::go_on(&path),
            (None, _) => snapshot::give_up(),
        }
        // Before the workers of the cycle before can go.
        // SAFETY: as above.
        if let Some(zone) = unsafe { zone::attach(zone, 0) } {
            // SAFETY: as above; a cycle's paths live in its pool.
            spool::hold_all(unsafe { process::temporary_directories(cycle) }, zone.token);
        }
    }
    OK
}

/// Where the snapshot is.
///
/// # Safety
///
/// `cycle` must be living, and `main` its configuration.
unsafe fn snapshot_path(cycle: *mut ngx_cycle_t, main: &Main) -> Option<PathBuf> {
    // SAFETY: a cycle's prefix is set before its configuration is read, and lives in its pool.
    let prefix = unsafe { text::bytes((*cycle).prefix) };
    let path = main.said.snapshot()?;
    Some(Path::new(OsStr::from_bytes(prefix)).join(OsStr::from_bytes(path)))
}

unsafe extern "C" fn init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    if process::has_master() {
        snapshot::leave_to_master();
    }
    if !process::serves_requests() {
        return OK;
    }
    snapshot::spend();
    // SAFETY: nginx passes this worker's cycle, whose zones are mapped.
    let zone = unsafe {
        used_in(cycle).and_then(|main| zone::attach(main.zone?, main.said.max_channels()))
    };
    if let Some(zone) = zone {
        // SAFETY: as above.
        spool::begin(unsafe { process::temporary_directories(cycle) }, zone.token);
        worker::start(zone);
    }
    OK
}

unsafe extern "C" fn exit_process(_cycle: *mut ngx_cycle_t) {
    worker::stop();
}

/// In the master (or the only process), when all workers have gone.
unsafe extern "C" fn exit_master(cycle: *mut ngx_cycle_t) {
    snapshot::clear_spent();
    // SAFETY: nginx passes the running cycle; its pool, zones and logs are still there (`ngx_master_process_exit`).
    let (path, zone) = unsafe {
        let Some(main) = used_in(cycle) else { return };
        let zone = main.zone.and_then(|zone| zone::attach(zone, 0));
        (snapshot_path(cycle, main), zone)
    };
    if let (Some(path), Some(zone)) = (path, zone) {
        if process::has_successor() {
            snapshot::leave_to_successor(&path);
        } else {
            snapshot::save(&path, zone);
        }
    }
    snapshot::give_up();
}
