//! A real browser: Debian's chromium, driven through chromedriver's WebDriver interface
//! (<https://www.w3.org/TR/webdriver2/>), which is JSON over HTTP.

use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use serde_json::{json, Value};
use tempfile::TempDir;

use super::http::{Client, Request};
use super::{nginx, wait};

/// A browser with one window. Dropping it closes the browser.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// The browser's own directory, removed at the end.
    profile: TempDir,
    _turn: Turn,
}

/// How many browsers run. Tests wait most of the time; browsers do not, and more than a few keep each other from starting.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// That this browser is one of them.
struct Turn;

impl Turn {
    /// Waits until there are few enough. A test may have two browsers, but not two such tests.
    fn take() -> Self {
        let most = thread::available_parallelism().map_or(1, usize::from) + 1;
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = ENDED.wait_while(running, |running| *running >= most);
        *running.unwrap_or_else(PoisonError::into_inner) += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_all();
    }
}

/// What sort of browser to start.
#[derive(Clone, Copy, Default)]
pub struct Wishes {
    /// Pages run no scripts.
    pub without_javascript: bool,
    /// The window is a phone's: so many CSS pixels wide.
    pub phone_width: Option<u32>,
}

/// An element of the page, by WebDriver's reference.
pub struct Element(String);

const ELEMENT_KEY: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    /// Starts a browser. Panics if chromium or chromedriver is missing.
    pub fn start(wishes: Wishes) -> Self {
        for program in ["chromium", "chromedriver"] {
            let found = Command::new(program).arg("--version").output();
            assert!(
                found.is_ok_and(|output| output.status.success()),
                "{program} does not run; on Debian: apt-get install chromium chromium-driver"
            );
        }
        let turn = Turn::take();
        let port = nginx::free_port();
        let profile =
            tempfile::Builder::new().prefix("push-browser-").tempdir().expect("a directory");
        let driver = Command::new("chromedriver")
            .env("HOME", profile.path())
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut browser = Browser { driver, port, session: String::new(), profile, _turn: turn };
        wait::until_true("chromedriver", || Client::try_connect(port).is_ok());
        let reply = browser.call("POST", "/session", &browser.capabilities(wishes));
        browser.session = reply["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    fn capabilities(&self, wishes: Wishes) -> Value {
        let mut options = json!({
            "args": [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-proxy-server",
                format!("--user-data-dir={}", self.profile.path().display()),
            ],
        });
        if wishes.without_javascript {
            options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
        }
        if let Some(width) = wishes.phone_width {
            options["mobileEmulation"] = json!({
                "deviceMetrics": { "width": width, "height": 740, "pixelRatio": 2.0 },
            });
        }
        json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:chromeOptions": options,
        }}})
    }

    /// Loads a page and waits until it has been loaded.
    ///
    /// A browser that has only just started may stay at its first, empty document and say all the same that it went to
    /// the page, without a request to the server. Then it is told once more.
    pub fn open(&self, url: &str) {
        wait::until_true(&format!("the browser at {url}"), || {
            self.command("POST", "/url", &json!({ "url": url }));
            let here = self.run("return document.URL");
            let is_there = here.as_str().is_some_and(|here| here.starts_with("http"));
            if !is_there {
                eprintln!("the browser said that it opened {url}, and is at {here}");
            }
            is_there
        });
    }

    /// Goes away from the page, to an empty one.
    pub fn leave(&self) {
        self.command("POST", "/url", &json!({ "url": "about:blank" }));
    }

    /// Loads the page again.
    pub fn reload(&self) {
        self.command("POST", "/refresh", &json!({}));
    }

    /// The only element that a CSS selector matches, waiting until it is there.
    pub fn element(&self, selector: &str) -> Element {
        let found = wait::until(&format!("{selector} in the page"), || {
            let elements = self.elements(selector);
            (!elements.is_empty()).then_some(elements)
        });
        assert_eq!(found.len(), 1, "elements that match {selector}");
        found.into_iter().next().expect("one element")
    }

    /// All elements that match a CSS selector now.
    pub fn elements(&self, selector: &str) -> Vec<Element> {
        let query = json!({ "using": "css selector", "value": selector });
        let found = self.command("POST", "/elements", &query);
        let found = found.as_array().expect("a list of elements");
        found.iter().map(|e| Element(e[ELEMENT_KEY].as_str().expect("an id").to_owned())).collect()
    }

    /// Types into an element.
    pub fn type_into(&self, element: &Element, text: &str) {
        self.command("POST", &format!("/element/{}/value", element.0), &json!({ "text": text }));
    }

    /// Removes what an input element holds.
    pub fn clear(&self, element: &Element) {
        self.command("POST", &format!("/element/{}/clear", element.0), &json!({}));
    }

    /// Clicks.
    pub fn click(&self, element: &Element) {
        self.command("POST", &format!("/element/{}/click", element.0), &json!({}));
    }

    /// The text that a person sees in the element.
    pub fn text(&self, element: &Element) -> String {
        let text = self.command("GET", &format!("/element/{}/text", element.0), &Value::Null);
        text.as_str().expect("a text").to_owned()
    }

    /// Whether a person can see the element.
    pub fn is_visible(&self, element: &Element) -> bool {
        let path = format!("/element/{}/displayed", element.0);
        self.command("GET", &path, &Value::Null).as_bool().expect("yes or no")
    }

    /// The address of the page.
    pub fn url(&self) -> String {
        self.command("GET", "/url", &Value::Null).as_str().expect("a text").to_owned()
    }

    /// Runs a script's text as the body of a function and returns what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What the page has written to the console as warnings or errors.
    pub fn console_errors(&self) -> Vec<String> {
        let entries = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().expect("a list").iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut request = Request::new(method, path).header("Connection", "close");
        if method == "POST" {
            request = request
                .header("Content-Type", "application/json; charset=utf-8")
                .body(body.to_string());
        }
        let reply = Client::connect(self.port).request(&request);
        let value: Value = serde_json::from_slice(&reply.body).expect("a JSON reply");
        let value = value["value"].clone();
        assert_eq!(reply.status, 200, "{method} {path}: {value}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Also after a failed test: the driver leaves a browser running whose session goes on.
            let target = format!("/session/{}", self.session);
            let request = Request::new("DELETE", &target).header("Connection", "close");
            if let Ok(mut client) = Client::try_connect(self.port) {
                let _ = client.try_request(&request);
            }
        }
        super::process::signal(self.driver.id().cast_signed(), super::Signal::TERM);
        let _ = self.driver.wait();
    }
}
