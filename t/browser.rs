//! Tests for the pages in a real browser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::webdriver::{Browser, Wishes};
use support::{wait, Config, Nginx};

fn start(example: &str) -> (Nginx, String) {
    let nginx = Nginx::start(Config::example(example));
    let base = format!("http://localhost:{}", nginx.port());
    (nginx, base)
}

/// Waits until the list shows the text.
#[track_caller]
fn expect_message(browser: &Browser, text: &str) {
    let list = browser.element("#messages");
    wait::until_true("the message in the list", || browser.text(&list).contains(text));
}

/// Waits until the page says that it receives.
#[track_caller]
fn expect_receiving(browser: &Browser) {
    browser.element("#status[data-state=waiting]");
}

#[test]
fn a_message_published_with_the_form_appears_in_the_list() {
    let (nginx, base) = start("quickstart.conf");
    let browser = Browser::start(Wishes::default());
    browser.open(&base);
    expect_receiving(&browser);
    assert_eq!(browser.elements("#messages li").len(), 0);
    // Text that would do harm as markup.
    for text in ["first <b>message</b> & more", "second"] {
        browser.type_into(&browser.element("#message"), text);
        browser.click(&browser.element("#publish button[type=submit]"));
        expect_message(&browser, text);
        wait::until_true("an empty field", || {
            browser.run("return document.querySelector('#message').value") == ""
        });
    }
    assert_eq!(browser.elements("#messages li").len(), 2);
    // What others publish arrives too.
    nginx.publish("demo", "from elsewhere");
    expect_message(&browser, "from elsewhere");
    assert_eq!(browser.console_errors(), [""; 0]);
}

#[test]
fn the_page_receives_what_was_published_before() {
    let (nginx, base) = start("quickstart.conf");
    for text in ["one", "two", "three"] {
        nginx.publish("demo", text);
    }
    let browser = Browser::start(Wishes::default());
    browser.open(&base);
    wait::until_true("three messages", || browser.elements("#messages li").len() == 3);
    // A form that was sent without JavaScript is shown as its text.
    let form = support::Request::post("/pub?id=demo", "message=from+a+form%21")
        .header("Content-Type", "application/x-www-form-urlencoded");
    nginx.request(&form);
    expect_message(&browser, "from a form!");
}

#[test]
fn the_channel_can_be_changed() {
    let (nginx, base) = start("quickstart.conf");
    let browser = Browser::start(Wishes::default());
    browser.open(&base);
    expect_receiving(&browser);
    let channel = browser.element("#channel");
    browser.clear(&channel);
    browser.type_into(&channel, "other");
    browser.click(&browser.element("#switch button"));
    nginx.wait_for_subscribers("other", 1);
    nginx.wait_for_subscribers("demo", 0);
    nginx.publish("demo", "for the old channel");
    nginx.publish("other", "for the new channel");
    expect_message(&browser, "for the new channel");
    assert_eq!(browser.elements("#messages li").len(), 1);
}

#[test]
fn the_page_goes_on_after_a_reload_of_nginx() {
    let (nginx, base) = start("quickstart.conf");
    let browser = Browser::start(Wishes::default());
    browser.open(&base);
    nginx.publish("demo", "before");
    expect_message(&browser, "before");
    nginx.wait_for_subscribers("demo", 1);
    let old = nginx.reload();
    nginx.publish("demo", "after");
    expect_message(&browser, "after");
    assert_eq!(browser.elements("#messages li").len(), 2);
    // It may keep a connection open that nginx waits for.
    drop(browser);
    nginx.wait_gone(&old);
}

/// The page, receiving by a transport.
fn open_by(base: &str, transport: &str) -> Browser {
    let browser = Browser::start(Wishes::default());
    browser.open(&format!("{base}/?transport={transport}"));
    expect_receiving(&browser);
    browser
}

/// The first lines of all messages, oldest first.
fn texts(browser: &Browser) -> Vec<String> {
    let script = "return [...document.querySelectorAll('#messages li')].reverse()
        .map((row) => (row.querySelector('.text') || row).textContent)";
    let list = browser.run(script);
    let rows = list.as_array().expect("a list");
    rows.iter().map(|row| row.as_str().expect("text").to_owned()).collect()
}

fn every_message_once_and_in_order(transport: &str) {
    let (mut nginx, base) = start("quickstart.conf");
    nginx.tolerate("exited on signal 9");
    let browser = open_by(&base, transport);
    nginx.wait_for_subscribers("demo", 1);
    let mut expected: Vec<String> = Vec::new();
    let publish = |nginx: &Nginx, expected: &mut Vec<String>| {
        let text = format!("message <{}>\n\u{e4}", expected.len());
        nginx.publish("demo", text.as_str());
        expected.push(text);
    };
    publish(&nginx, &mut expected);
    nginx.reload();
    (0..3).for_each(|_| publish(&nginx, &mut expected));
    wait::until_true("the messages of the reload", || texts(&browser) == expected);
    for worker in nginx.workers() {
        nginx.kill_worker(worker);
    }
    (0..3).for_each(|_| publish(&nginx, &mut expected));
    wait::until_true("the messages after the death", || texts(&browser) == expected);
    publish(&nginx, &mut expected);
    wait::until_true("the last message", || texts(&browser) == expected);
}

#[test]
fn event_source_brings_every_message_once_and_in_order() {
    every_message_once_and_in_order("eventsource");
}

#[test]
fn websockets_bring_every_message_once_and_in_order() {
    every_message_once_and_in_order("websocket");
}

#[test]
fn fetch_brings_every_message_once_and_in_order() {
    every_message_once_and_in_order("fetch");
}

#[test]
fn transports_can_be_switched() {
    let (nginx, base) = start("quickstart.conf");
    let browser = open_by(&base, "long-poll");
    nginx.publish("demo", "kept");
    for transport in ["eventsource", "websocket", "fetch", "long-poll"] {
        browser.run(&format!(
            "const select = document.querySelector('#transport');
             select.value = '{transport}'; select.dispatchEvent(new Event('change'))"
        ));
        wait::until_true("what was published before", || texts(&browser) == ["kept"]);
        expect_receiving(&browser);
        // The former one has gone.
        nginx.wait_for_subscribers("demo", 1);
    }
    assert_eq!(browser.console_errors(), [""; 0]);
}

#[test]
fn a_deletion_is_shown_by_all_streams() {
    for transport in ["eventsource", "websocket", "fetch"] {
        let (nginx, base) = start("quickstart.conf");
        let browser = open_by(&base, transport);
        nginx.wait_for_subscribers("demo", 1);
        browser.run(
            "window.states = [];
             const status = document.querySelector('#status');
             new MutationObserver(() => states.push(status.dataset.state))
                 .observe(status, { attributes: true });
             return null;",
        );
        nginx.request(&support::Request::new("DELETE", "/pub?id=demo")).expect_status(200);
        wait::until_true("another try", || {
            browser.run("return states.includes('retrying')") == true
        });
        // The page comes again, to a new channel.
        expect_receiving(&browser);
        nginx.publish("demo", "anew");
        wait::until_true("a message of the new channel", || texts(&browser) == ["anew"]);
    }
}

#[test]
fn a_gap_is_shown_by_event_source_and_fetch() {
    for transport in ["eventsource", "fetch"] {
        let (mut nginx, base) = start("quickstart.conf");
        nginx.tolerate("exited on signal 9");
        let browser = open_by(&base, transport);
        nginx.publish("demo", "first");
        wait::until_true("a message", || texts(&browser) == ["first"]);
        // The page's connection is lost, and more is published than the channel keeps (50).
        for worker in nginx.workers() {
            nginx.kill_worker(worker);
        }
        let batch: Vec<String> = (0..60).map(|number| format!("later {number}")).collect();
        for text in &batch {
            nginx.publish("demo", text.as_str());
        }
        wait::until_true("the rest", || texts(&browser).last() == batch.last());
        let seen = texts(&browser);
        let gap = seen.iter().position(|text| text.contains("gone before"));
        // Unless the browser was back before the first ones had to go.
        match gap {
            Some(place) => assert!(seen.len() - place > 10, "{seen:?}"),
            None => assert_eq!(seen.len(), 61, "{seen:?}"),
        }
    }
}

/// The page that shows one technique, and `push.js` all of them, through a reload and the death of all workers.
fn a_page_shows_everything(page: &str, open: &str) {
    let (mut nginx, base) = start("quickstart.conf");
    let browser = Browser::start(Wishes::default());
    browser.open(&base);
    browser.click(&browser.element(&format!("a[href='{page}']")));
    let status = || browser.run("return document.querySelector('#status').textContent");
    let expect = |expected: &[&str]| {
        let rows = || {
            browser.run("return [...document.querySelectorAll('#messages li')].map((row) => row.textContent)")
        };
        wait::until_true("the messages", || {
            rows().as_array().is_some_and(|rows| rows.len() >= expected.len())
        });
        let rows = rows();
        let rows = rows.as_array().expect("a list");
        assert_eq!(rows.len(), expected.len(), "{page}: {rows:?}");
        for (row, text) in rows.iter().zip(expected) {
            assert!(row.as_str().expect("a text").contains(text), "{page}: {row} {text}");
        }
        wait::until_true("the status", || status().as_str().expect("a text").contains(open));
    };
    expect(&[]);
    browser.type_into(&browser.element("input[name=message]"), "<b>one</b>");
    browser.click(&browser.element("form button"));
    expect(&["<b>one</b>"]);
    nginx.reload();
    nginx.publish("demo", "two");
    expect(&["<b>one</b>", "two"]);
    nginx.wait_for_subscribers("demo", 1);
    for worker in nginx.workers() {
        nginx.kill_worker(worker);
    }
    nginx.publish("demo", "three");
    expect(&["<b>one</b>", "two", "three"]);
}

#[test]
fn every_technique_has_its_page() {
    a_page_shows_everything("long-poll.html", "waiting");
    a_page_shows_everything("eventsource.html", "waiting");
    a_page_shows_everything("websocket.html", "waiting");
    a_page_shows_everything("stream.html", "waiting");
    a_page_shows_everything("client.html", "open, websocket");
}

#[test]
fn the_forever_iframe_has_its_page() {
    let (nginx, base) = start("quickstart.conf");
    let browser = Browser::start(Wishes::default());
    browser.open(&format!("{base}/classic.html?by=iframe"));
    let list = browser.element("#messages");
    nginx.wait_for_subscribers("demo", 1);
    browser.type_into(&browser.element("input[name=message]"), "one");
    browser.click(&browser.element("form button"));
    expect_message(&browser, "message=one");
    nginx.reload();
    nginx.publish("demo", "<b>two</b>");
    expect_message(&browser, "<b>two</b>");
    assert_eq!(browser.text(&list).lines().count(), 2);
    // Until its old worker has sent it away, it is one of that.
    let status = browser.element("#status");
    wait::until_true("the end of the old page", || browser.text(&status) == "ended: shutdown");
    nginx.wait_for_subscribers("demo", 1);
    nginx.request(&support::Request::new("DELETE", "/pub?id=demo")).expect_status(200);
    wait::until_true("the end", || browser.text(&status) == "ended: deleted");
}

#[test]
fn jsonp_has_its_page() {
    let (mut nginx, base) = start("quickstart.conf");
    let browser = Browser::start(Wishes::default());
    browser.open(&format!("{base}/classic.html?by=jsonp"));
    let list = browser.element("#messages");
    nginx.wait_for_subscribers("demo", 1);
    nginx.publish("demo", "one");
    expect_message(&browser, "one");
    nginx.reload();
    nginx.publish("demo", "<b>two</b>");
    expect_message(&browser, "<b>two</b>");
    nginx.wait_for_subscribers("demo", 1);
    for worker in nginx.workers() {
        nginx.kill_worker(worker);
    }
    nginx.publish("demo", "three");
    expect_message(&browser, "three");
    assert_eq!(browser.text(&list).lines().count(), 3);
    nginx.wait_for_subscribers("demo", 1);
    nginx.request(&support::Request::new("DELETE", "/pub?id=demo")).expect_status(200);
    let status = browser.element("#status");
    wait::until_true("the end", || browser.text(&status) == "ended: deleted");
}

#[test]
fn the_clients_transports_can_be_chosen() {
    let (nginx, base) = start("quickstart.conf");
    let browser = Browser::start(Wishes::default());
    browser.open(&format!("{base}/client.html?channel=other"));
    nginx.publish("other", "one");
    let status = browser.element("#status");
    for (transport, next) in
        [("websocket", "eventsource"), ("eventsource", "stream"), ("stream", "long-poll")]
    {
        wait::until_true(transport, || browser.text(&status) == format!("open, {transport}"));
        browser.click(&browser.element(&format!("[value={transport}]")));
        wait::until_true(next, || browser.text(&status) == format!("open, {next}"));
        nginx.wait_for_subscribers("other", 1);
        nginx.publish("other", next);
        wait::until_true("the message", || {
            browser.text(&browser.element("#messages li:last-child")).contains(next)
        });
    }
    assert_eq!(browser.elements("#messages li").len(), 4);
    assert_eq!(browser.console_errors(), [""; 0]);
}

#[test]
fn the_pages_can_be_read_in_a_minute() {
    for page in ["long-poll", "eventsource", "websocket", "stream", "client", "classic"] {
        let path = support::config::project_file(&format!("nginx-conf/html/{page}.html"));
        let lines = std::fs::read_to_string(path).expect("a page").lines().count();
        assert!(lines < 60, "{page}: {lines} lines");
    }
}

#[test]
fn the_form_works_without_javascript() {
    let (nginx, base) = start("quickstart.conf");
    let browser = Browser::start(Wishes { without_javascript: true, ..Wishes::default() });
    browser.open(&base);
    assert_eq!(browser.text(&browser.element("#status")), "needs JavaScript");
    browser.type_into(&browser.element("#message"), "plain form");
    browser.click(&browser.element("#publish button[type=submit]"));
    wait::until_true("the publisher's answer", || browser.url().ends_with("/pub?id=demo"));
    let answer = browser.text(&browser.element("body"));
    // A browser accepts XML before plain text, as NHPM's users know.
    assert!(answer.contains("<messages>1</messages>"), "{answer}");
    let message = nginx.get("/sub?id=demo").expect_status(200);
    assert_eq!(message.text(), "message=plain+form");
    assert_eq!(message.header("Content-Type"), Some("application/x-www-form-urlencoded"));
}

#[test]
fn the_pages_fit_a_phone() {
    for (example, path) in [("quickstart.conf", "/"), ("chat.conf", "/chat.html")] {
        let (_nginx, base) = start(example);
        let browser = Browser::start(Wishes { phone_width: Some(360), ..Wishes::default() });
        browser.open(&format!("{base}{path}"));
        assert_eq!(browser.run("return window.innerWidth"), 360, "{example}: a viewport is set");
        let long = "a".repeat(500);
        browser.type_into(&browser.element("#message"), &long);
        if let Some(name) = browser.elements("#name").first() {
            browser.type_into(name, "somebody");
        }
        browser.click(&browser.element("#publish button[type=submit]"));
        wait::until_true("the message", || !browser.elements("#messages li").is_empty());
        let width = browser.run("return document.documentElement.scrollWidth");
        assert_eq!(width, 360, "{example}: no scrolling to the side");
        for element in ["#publish", "#message", "#messages", "#status"] {
            assert!(browser.is_visible(&browser.element(element)), "{example}: {element}");
        }
    }
}

#[test]
fn two_people_chat() {
    let (_nginx, base) = start("chat.conf");
    let people = [Browser::start(Wishes::default()), Browser::start(Wishes::default())];
    for (browser, name) in people.iter().zip(["Ada", "Grace"]) {
        browser.open(&base);
        assert!(browser.url().ends_with("/chat.html"), "{}", browser.url());
        browser.clear(&browser.element("#name"));
        browser.type_into(&browser.element("#name"), name);
        expect_receiving(browser);
    }
    for (number, speaker) in [0, 1, 0].into_iter().enumerate() {
        let words = format!("sentence {number} <i>");
        let speaking = &people[speaker];
        speaking.type_into(&speaking.element("#message"), &words);
        speaking.click(&speaking.element("#publish button[type=submit]"));
        for browser in &people {
            expect_message(browser, &words);
        }
    }
    for browser in &people {
        let list = browser.text(&browser.element("#messages"));
        assert!(list.contains("Ada") && list.contains("Grace"), "{list}");
        assert_eq!(browser.console_errors(), [""; 0]);
    }
}
