//! The configuration that a test starts nginx with.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::nginx;

/// Builds an `nginx.conf`. Texts may contain `@dir@`, the test's directory, and `@port@` and
/// `@port2@`, two free ports; the server listens on the first.
#[derive(Clone, Debug)]
pub struct Config {
    workers: usize,
    module: bool,
    master_process: bool,
    daemon: bool,
    listen: String,
    main: String,
    events: String,
    http: String,
    server: String,
    publisher: Option<String>,
    subscriber: Option<String>,
    transports: String,
    /// A whole file in place of all the above, from the project's examples.
    example: Option<String>,
}

impl Config {
    /// The module loaded but not used: one server that answers `/worker` with the worker's pid.
    pub fn bare() -> Self {
        Config {
            workers: 1,
            module: true,
            master_process: true,
            daemon: false,
            listen: String::new(),
            main: String::new(),
            events: String::new(),
            http: String::new(),
            server: String::new(),
            publisher: None,
            subscriber: None,
            transports: String::new(),
            example: None,
        }
    }

    /// A file in `nginx-conf/`, as `make run` starts it but on free ports and with two workers.
    pub fn example(name: &str) -> Self {
        let path = project_file(&format!("nginx-conf/{name}"));
        let text = fs::read_to_string(&path).expect("an example");
        assert!(text.contains("worker_processes auto;"), "{name}: the test sets their number");
        assert!(!text.contains("daemon"), "{name}: the test sets it");
        let text = text
            .replace("worker_processes auto;", "worker_processes 2;")
            .replace("logs/", "")
            .replace(":8080", ":@port@")
            .replace(":8443", ":@port@")
            .replace(":8081", ":@port2@");
        Config { workers: 2, example: Some(text), ..Config::bare() }
    }

    /// Puts into the prefix what the examples expect there.
    pub(super) fn prepare(&self, prefix: &Path) {
        if self.example.is_none() {
            return;
        }
        fs::create_dir(prefix.join("modules")).expect("a new directory");
        symlink(nginx::module_path(), prefix.join("modules/ngx_http_push_module.so"))
            .expect("a link to the module");
        symlink(project_file("nginx-conf/html"), prefix.join("html")).expect("a link to the pages");
        nginx::make_certificate(&prefix.join("tls"));
    }

    /// A publisher location `/pub` and a subscriber location `/sub`, channel by `?id=`.
    pub fn push(workers: usize) -> Self {
        Config {
            workers,
            publisher: Some(String::new()),
            subscriber: Some(String::new()),
            ..Config::bare()
        }
    }

    /// The number of worker processes.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Leaves out `load_module`.
    pub fn without_module(mut self) -> Self {
        self.module = false;
        self
    }

    /// One process that is master and worker.
    pub fn without_master(mut self) -> Self {
        self.master_process = false;
        self
    }

    /// The master goes into the background.
    pub fn daemon(mut self) -> Self {
        self.daemon = true;
        self
    }

    /// Adds parameters to the `listen` directive, such as `reuseport`.
    pub fn listen(mut self, parameters: &str) -> Self {
        self.listen.push(' ');
        self.listen.push_str(parameters);
        self
    }

    /// Adds text outside of all blocks.
    pub fn main(mut self, text: &str) -> Self {
        push_line(&mut self.main, text);
        self
    }

    /// Adds text to the events block.
    pub fn events(mut self, text: &str) -> Self {
        push_line(&mut self.events, text);
        self
    }

    /// Adds text to the http block.
    pub fn http(mut self, text: &str) -> Self {
        push_line(&mut self.http, text);
        self
    }

    /// Adds text to the server block.
    pub fn server(mut self, text: &str) -> Self {
        push_line(&mut self.server, text);
        self
    }

    /// Adds text to the location `/pub`.
    pub fn publisher(mut self, text: &str) -> Self {
        push_line(self.publisher.get_or_insert_default(), text);
        self
    }

    /// Adds text to the location `/sub`.
    pub fn subscriber(mut self, text: &str) -> Self {
        push_line(self.subscriber.get_or_insert_default(), text);
        self
    }

    /// Says which transports `/sub` serves: the words after `push_subscriber`.
    pub fn transports(mut self, words: &str) -> Self {
        self.transports = words.to_owned();
        self
    }

    /// Every reply names the worker that made it: `X-Worker: PID`.
    pub fn naming_workers(self) -> Self {
        self.server("add_header X-Worker $pid always;")
    }

    pub(super) fn is_daemon(&self) -> bool {
        self.daemon
    }

    pub(super) fn has_master(&self) -> bool {
        self.master_process
    }

    pub(super) fn worker_count(&self) -> usize {
        self.workers
    }

    /// The text of the file.
    pub fn render(&self, dir: &Path, ports: [u16; 2]) -> String {
        let substitute = |text: String| {
            text.replace("@dir@", &dir.display().to_string())
                .replace("@port@", &ports[0].to_string())
                .replace("@port2@", &ports[1].to_string())
        };
        // Workers of a root master would run as nobody, who cannot write to the directory.
        let is_set = self.main.contains("user ");
        let is_root = rustix::process::geteuid().is_root();
        let user = if is_root && !is_set { "user root;" } else { "" };
        if let Some(example) = &self.example {
            return substitute(format!("daemon off;\n{user}\n{example}"));
        }
        let load_module = match self.module {
            true => format!("load_module {};", nginx::module_path().display()),
            false => String::new(),
        };
        let temp_paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .filter(|name| !nginx::build().lacks(name))
            .map(|name| format!("    {name}_temp_path @dir@/temp_{name};\n"))
            .collect();
        let park = match env::var("PUSH_TEST_PARK") {
            Ok(way) if self.subscriber.is_some() && !self.http.contains("push_park") => {
                format!("    push_park {way};\n")
            }
            _ => String::new(),
        };
        let connections = match self.events.contains("worker_connections") {
            true => "",
            false => "    worker_connections 4096;\n",
        };
        let location = |path: &str, kind: &str, text: &Option<String>| match text {
            Some(text) => format!(
                "location {path} {{ set $push_channel_id $arg_id; {kind};\n{text}        }}\n"
            ),
            None => String::new(),
        };
        substitute(format!(
            "{load_module}\n{user}\n\
             worker_processes {workers};\n\
             daemon {daemon};\n\
             master_process {master};\n\
             pid @dir@/nginx.pid;\n\
             error_log @dir@/error.log info;\n\
             {main}\
             events {{\n{connections}{events}}}\n\
             http {{\n\
             {temp_paths}\
             {space}log_format test '$request_method $request_uri $status $body_bytes_sent';\n\
             {space}access_log @dir@/access.log test;\n\
             {space}keepalive_requests 100000;\n\
             {http}{park}\
             {space}server {{\n\
             {space}    listen 127.0.0.1:@port@{listen};\n\
             {space}    location = /worker {{ access_log off; return 200 $pid; }}\n\
             {space}    {publisher}\
             {space}    {subscriber}\
             {server}\
             {space}}}\n}}\n",
            space = "    ",
            workers = self.workers,
            daemon = on_off(self.daemon),
            master = on_off(self.master_process),
            main = self.main,
            events = self.events,
            http = self.http,
            listen = self.listen,
            publisher = location("/pub", "push_publisher", &self.publisher),
            subscriber =
                location("/sub", &format!("push_subscriber {}", self.transports), &self.subscriber),
            server = self.server,
        ))
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn on_off(on: bool) -> &'static str {
    if on {
        "on"
    } else {
        "off"
    }
}

/// A file of the project.
pub fn project_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
