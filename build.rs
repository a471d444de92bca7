//! Passes on what nginx-sys found out about the nginx that the module is built for.
//!
//! * `cfg(nginx_1_23)`: nginx 1.23.0 or later, where headers of one name form a linked list
//!   (`ngx_table_elt_t.next`) and `headers_in` holds list heads instead of arrays.
//! * `PUSH_NGINX_BUILD_DIR`, `PUSH_NGINX_VERSION`: for the tests in `t/`, by `env!`. The first is
//!   nginx's build directory (with the feature `vendored` it holds a runnable `nginx`), the second
//!   is e.g. `nginx/1.28.3`.

use std::env;
use std::error::Error;

/// `nginx_version` of nginx 1.23.0, the first one with linked headers.
const LINKED_HEADERS: u32 = 1_023_000;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(nginx_1_23)");

    if dependency("VERSION_NUMBER")?.parse::<u32>()? >= LINKED_HEADERS {
        println!("cargo::rustc-cfg=nginx_1_23");
    }
    println!("cargo::rustc-env=PUSH_NGINX_BUILD_DIR={}", dependency("BUILD_DIR")?);
    println!("cargo::rustc-env=PUSH_NGINX_VERSION={}", dependency("VERSION")?);
    Ok(())
}

/// What the build script of nginx-sys says under `key`.
fn dependency(key: &str) -> Result<String, String> {
    let name = format!("DEP_NGINX_{key}");
    env::var(&name).map_err(|error| format!("{name}: {error} (nginx-sys should have set it)"))
}
