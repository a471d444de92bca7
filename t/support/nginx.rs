//! A real nginx in a directory of its own.

use std::collections::hash_map::RandomState;
use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{self, Signal};
use super::{wait, Config};

/// The nginx to test with: `PUSH_TEST_NGINX`, or the one in the search path.
pub fn binary() -> PathBuf {
    std::env::var_os("PUSH_TEST_NGINX").map_or_else(|| PathBuf::from("nginx"), PathBuf::from)
}

/// The module to test: `PUSH_TEST_MODULE`, or the library that cargo built with this test.
///
/// Cargo refreshes the copy in `deps`, where the test itself is, and not always the one above it.
pub fn module_path() -> PathBuf {
    if let Some(path) = std::env::var_os("PUSH_TEST_MODULE") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("the test is a file");
    test.with_file_name("libngx_http_push_module.so")
}

/// What `nginx -V` says.
pub struct Build {
    text: String,
}

/// Asks the binary once how it was built.
pub fn build() -> &'static Build {
    static BUILD: OnceLock<Build> = OnceLock::new();
    BUILD.get_or_init(|| {
        let output = Command::new(binary()).arg("-V").output().unwrap_or_else(|error| {
            panic!("cannot run {} (set PUSH_TEST_NGINX): {error}", binary().display())
        });
        Build { text: String::from_utf8_lossy(&output.stderr).into_owned() }
    })
}

impl Build {
    /// The version as a number, for example 1022001 for 1.22.1.
    pub fn version(&self) -> u32 {
        let text = self.text.split("nginx/").nth(1).expect("nginx -V names a version");
        let mut numbers = text
            .split(|c: char| !c.is_ascii_digit())
            .map(|part| part.parse::<u32>().expect("a version is numbers"));
        let mut next = || numbers.next().expect("a version has three parts");
        next() * 1_000_000 + next() * 1_000 + next()
    }

    /// Whether a module that nginx leaves out by default was built, for example `http_ssl`.
    pub fn has(&self, module: &str) -> bool {
        self.text.contains(&format!("--with-{module}_module"))
    }

    /// Whether a module that nginx builds by default was left out, for example `fastcgi`.
    pub fn lacks(&self, module: &str) -> bool {
        self.text.contains(&format!("--without-http_{module}_module"))
    }
}

/// True if the nginx under test has the module; otherwise says so, and the test should end.
pub fn has_or_skip(module: &str) -> bool {
    let has = build().has(module);
    if !has {
        eprintln!("SKIPPED: {} was built without {module}", binary().display());
    }
    has
}

/// A port that nothing listens on.
///
/// Below the range that the kernel takes for outgoing connections, so that no client of another
/// test gets it before nginx does.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let random = RandomState::new().build_hasher().finish();
        AtomicU16::new((random % u64::from(COUNT)) as u16)
    });
    loop {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Makes a key and a certificate for localhost in a new directory: `key.pem`, `cert.pem`.
pub fn make_certificate(dir: &Path) {
    fs::create_dir(dir).expect("a new directory");
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .expect("openssl runs; on Debian: apt-get install openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A running nginx. Dropping it stops it and fails the test if its log has an alarm.
pub struct Nginx {
    dir: TempDir,
    ports: [u16; 2],
    config: Config,
    /// The process that was started: the master, or gone when it is a daemon.
    child: Child,
    master: i32,
    tolerated: Vec<String>,
    stopped: bool,
}

impl Nginx {
    /// Starts nginx and returns when it accepts connections.
    pub fn start(mut config: Config) -> Self {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            let dir = tempfile::Builder::new().prefix("push-test-").tempdir().expect("a directory");
            let ports = [free_port(), free_port()];
            config.prepare(dir.path());
            let text = config.render(dir.path(), ports);
            fs::write(dir.path().join("nginx.conf"), &text).expect("the directory is ours");
            let mut child = spawn(dir.path());
            if let Some(master) = wait_until_ready(&mut child, dir.path(), ports[0], &config) {
                let mut nginx = Nginx {
                    dir,
                    ports,
                    config,
                    child,
                    master,
                    tolerated: Vec::new(),
                    stopped: false,
                };
                if process::is_under_valgrind(master) {
                    nginx.tolerate("setrlimit(RLIMIT_NOFILE");
                }
                // Somebody else had the port for a moment, and may be who has answered.
                if !nginx.error_log().contains("bind() to") {
                    return nginx;
                }
                nginx.stopped = true;
                nginx.kill();
                config = nginx.config.clone();
                continue;
            }
            let log = read(&dir.path().join("error.log")) + &read(&dir.path().join("stderr"));
            assert!(log.contains("bind()"), "nginx does not start:\n{text}\n{log}");
        }
        panic!("no free port in {ATTEMPTS} attempts");
    }

    /// Runs `nginx -t` on a configuration.
    pub fn check(config: &Config) -> CheckResult {
        let dir = tempfile::tempdir().expect("a directory");
        let text = config.render(dir.path(), [free_port(), free_port()]);
        fs::write(dir.path().join("nginx.conf"), text).expect("the directory is ours");
        CheckResult::of(command(dir.path()).arg("-t").output().expect("nginx starts"))
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// The port that `@port2@` stands for.
    pub fn port2(&self) -> u16 {
        self.ports[1]
    }

    /// The directory with the configuration, the logs and the temporary files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The pid of the master; of the only process with `master_process off`.
    pub fn master(&self) -> i32 {
        self.master
    }

    /// The pids of the workers, old and new ones during a reload.
    pub fn workers(&self) -> Vec<i32> {
        match self.config.has_master() {
            true => process::children(self.master),
            false => vec![self.master],
        }
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.master, signal);
    }

    /// Kills a worker as the kernel would when memory runs out, and waits for its successor.
    pub fn kill_worker(&mut self, worker: i32) {
        self.tolerate("exited on signal 9");
        // The master says so when it frees the lock of a worker that died holding it.
        self.tolerate("was locked by");
        process::signal(worker, Signal::KILL);
        let expected = self.config.worker_count();
        wait::until_true("a worker in place of the killed one", || {
            let workers = self.workers();
            !workers.contains(&worker) && workers.len() >= expected
        });
    }

    /// Writes another configuration, for the next reload.
    pub fn reconfigure(&mut self, config: Config) {
        let text = config.render(self.dir(), self.ports);
        // At once, for the master may be reading it: a reload before this one need not be over.
        let new = self.dir().join("nginx.conf.new");
        fs::write(&new, text).expect("the directory is ours");
        fs::rename(new, self.dir().join("nginx.conf")).expect("the directory is ours");
        self.config = config;
    }

    /// Reloads, waits for the new workers, and returns the pids of the old ones.
    pub fn reload(&self) -> Vec<i32> {
        let old = self.workers();
        self.signal(Signal::HUP);
        let expected = self.config.worker_count();
        wait::until_true("new workers after a reload", || {
            self.workers().iter().filter(|pid| !old.contains(pid)).count() == expected
        });
        old
    }

    /// Ends nginx with a signal, and waits until it has ended.
    pub fn stop(&mut self, signal: Signal) {
        // The master kills workers that take more than a second, and a tool that watches them takes longer to report.
        if signal == Signal::TERM {
            if process::is_watched(self.master) {
                self.tolerate("exited on signal 9");
            }
            let (workers, start, mut ready) = (self.workers(), Instant::now(), Ready::default());
            while !ready.saw_all(&workers) && start.elapsed() < wait::patience() {
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.signal(signal);
        self.wait_for_exit();
    }

    /// Starts nginx again after its end, in the same directory and on the same ports.
    pub fn start_again(&mut self) {
        self.child = spawn(self.dir.path());
        let master =
            wait_until_ready(&mut self.child, self.dir.path(), self.ports[0], &self.config);
        self.master =
            master.unwrap_or_else(|| panic!("nginx does not start:\n{}", self.error_log()));
        self.stopped = false;
    }

    /// Ends nginx with a signal and starts it again.
    pub fn restart(&mut self, signal: Signal) {
        self.stop(signal);
        self.start_again();
    }

    /// Waits until all of these processes have ended.
    pub fn wait_gone(&self, pids: &[i32]) {
        wait::until_true("the end of processes", || {
            !pids.iter().any(|&pid| process::is_running(pid))
        });
    }

    /// Runs the binary with this nginx's configuration and more arguments, such as `-s quit`.
    pub fn run(&self, arguments: &[&str]) -> CheckResult {
        CheckResult::of(command(self.dir()).args(arguments).output().expect("nginx starts"))
    }

    /// Log lines with this text do not fail the test.
    pub fn tolerate(&mut self, text: &str) {
        self.tolerated.push(text.to_owned());
    }

    /// The error log up to now, and what was written to stderr.
    pub fn error_log(&self) -> String {
        read(&self.dir().join("error.log")) + &read(&self.dir().join("stderr"))
    }

    /// The access log up to now: `METHOD TARGET STATUS BODY_BYTES` per line.
    pub fn access_log(&self) -> Vec<String> {
        read(&self.dir().join("access.log")).lines().map(str::to_owned).collect()
    }

    /// Waits until the access log has these lines, in any order, and no other.
    pub fn expect_access_log(&self, expected: &[&str]) {
        let mut expected: Vec<String> = expected.iter().map(|&line| line.to_owned()).collect();
        expected.sort();
        wait::until_true("the access log lines", || self.access_log().len() >= expected.len());
        let mut found = self.access_log();
        found.sort();
        assert_eq!(found, expected);
    }

    /// Waits for the end of all processes, after a signal to end was sent.
    pub fn wait_for_exit(&mut self) {
        self.stopped = true;
        let workers = self.workers();
        let start = Instant::now();
        while process::is_running(self.master) && start.elapsed() < wait::patience() {
            let _ = self.child.try_wait();
            thread::sleep(Duration::from_millis(5));
        }
        if process::is_running(self.master) {
            self.kill();
            panic!("nginx does not end\n{}", self.error_log());
        }
        let status = self.child.wait().expect("it was our child");
        assert!(status.success(), "nginx ended with {status}\n{}", self.error_log());
        self.wait_gone(&workers);
        let alarms = self.alarms();
        let message = alarms.join("\n");
        assert!(alarms.is_empty(), "alarms in the log:\n{message}\n\n{}", self.error_log());
    }

    /// The files in which bodies of messages are.
    pub fn spooled(&self) -> Vec<PathBuf> {
        fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let text = path.to_string_lossy();
                if path.is_dir() {
                    walk(&path, found);
                } else if text.contains("/temp_client_body/push-") && !text.ends_with("/lock") {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir(), &mut found);
        found
    }

    fn alarms(&self) -> Vec<String> {
        const ALARMS: [&str; 6] =
            ["[alert]", "[emerg]", "[crit]", "panicked", "Sanitizer", "exited on signal"];
        self.error_log()
            .lines()
            .filter(|line| {
                let bad_exit = line.contains("exited with code ") && !line.ends_with("code 0");
                bad_exit || ALARMS.iter().any(|alarm| line.contains(alarm))
            })
            .filter(|line| !self.tolerated.iter().any(|text| line.contains(text.as_str())))
            .map(str::to_owned)
            .collect()
    }

    /// The last resort: master first, so that it starts no new workers.
    fn kill(&mut self) {
        let workers = self.workers();
        process::signal(self.master, Signal::KILL);
        for worker in workers {
            process::signal(worker, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Workers that have been seen waiting for events. Where there is much to do they never all wait at once.
#[derive(Default)]
struct Ready(HashSet<i32>);

impl Ready {
    /// Looks again.
    fn saw_all(&mut self, workers: &[i32]) -> bool {
        self.0.extend(workers.iter().filter(|&&pid| process::waits_for_events(pid)));
        workers.iter().all(|pid| self.0.contains(pid))
    }
}

fn print_end(lines: &[impl std::fmt::Display], most: usize) {
    for line in lines.iter().skip(lines.len().saturating_sub(most)) {
        eprintln!("{line}");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        if thread::panicking() {
            self.kill();
            let config = read(&self.dir().join("nginx.conf"));
            eprintln!("--- configuration\n{config}\n--- error log (end)");
            let log = self.error_log();
            print_end(&log.lines().collect::<Vec<_>>(), 100);
            eprintln!("--- access log (end)");
            print_end(&self.access_log(), 20);
            return;
        }
        self.signal(Signal::QUIT);
        self.wait_for_exit();
    }
}

/// How a run of the nginx binary with a command ended.
#[derive(Debug)]
pub struct CheckResult {
    /// Whether it exited with 0.
    pub success: bool,
    /// What it printed on both outputs.
    pub text: String,
}

impl CheckResult {
    fn of(output: Output) -> Self {
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        CheckResult { success: output.status.success(), text }
    }
}

fn spawn(dir: &Path) -> Child {
    let stderr = File::options().create(true).append(true).open(dir.join("stderr"));
    command(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.expect("the directory is ours"))
        .spawn()
        .expect("nginx starts")
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    // Before it has read the configuration, nginx would complain to its compiled-in log file.
    command.arg("-e").arg(dir.join("error.log"));
    command
}

/// The pid of the master, or nothing when nginx has ended.
fn wait_until_ready(child: &mut Child, dir: &Path, port: u16, config: &Config) -> Option<i32> {
    let start = Instant::now();
    let mut ready = Ready::default();
    while start.elapsed() < wait::patience() {
        let ended = child.try_wait().expect("it is our child");
        if ended.is_some_and(|status| !config.is_daemon() || !status.success()) {
            return None;
        }
        let pid = read(&dir.join("nginx.pid")).trim().parse().ok();
        // They have joined each other, and none does so in the middle of a test.
        let mut has_workers = |pid| {
            let workers = process::children(pid);
            let are_there = workers.len() == config.worker_count();
            !config.has_master() || are_there && ready.saw_all(&workers)
        };
        let accepts = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        // A daemon whose parent is still there ignores some signals.
        let is_alone = ended.is_some() || !config.is_daemon();
        if let Some(pid) = pid.filter(|&pid| is_alone && has_workers(pid) && accepts()) {
            return Some(pid);
        }
        thread::sleep(Duration::from_millis(5));
    }
    // Workers outlive a master that is killed.
    let master = match config.is_daemon() {
        true => read(&dir.join("nginx.pid")).trim().parse().ok(),
        false => child.id().try_into().ok(),
    };
    for pid in master.into_iter().flat_map(|pid| [vec![pid], process::children(pid)].concat()) {
        process::signal(pid, Signal::KILL);
    }
    let _ = child.wait();
    panic!("nginx is not ready after {:?}", wait::patience());
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
