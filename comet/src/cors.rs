//! Pages of other origins (CORS): who may ask, and what browsers are told about it.
//!
//! An origin is `scheme://host` or `scheme://host:port`, as browsers send it in `Origin`. Where a location has a [`Policy`],
//! it is judged before anything else happens: browsers send simple requests, such as forms, and WebSocket handshakes
//! without asking first.

use std::net::Ipv6Addr;
use std::str;

use crate::reply::Reply;

/// Any origin.
pub const ANY: &[u8] = b"*";
/// The origin of a page that has none: a file, or a frame in a sandbox.
const OPAQUE: &[u8] = b"null";
/// No other origin.
const OWN: &[u8] = b"self";
/// The headers of our replies that scripts may read.
const EXPOSED: &[u8] = b"Last-Modified, Etag, Push-Missed, Push-Channel";
/// How long a browser may remember what it was told, in seconds: as long as any does.
const MAX_AGE: &[u8] = b"7200";

/// Which origins a location is for, besides its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy<'a> {
    /// Those of `push_cors_origin`, evaluated: an origin, `https://*.example.com`, `*` or `null`. Anything else means
    /// nobody, as `self` and an empty value do.
    pub origins: Vec<&'a [u8]>,
    /// `push_cors_credentials`.
    pub credentials: bool,
}

/// What a policy says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It comes from no page, or from one of the same origin.
    Own,
    /// It comes from another origin, and may. This is what the browser is told: `*`, or the origin.
    Allowed(&'a [u8]),
    /// It comes from another origin, and may not.
    Refused,
}

/// A header field of a reply.
pub type Field<'a> = (&'static str, &'a [u8]);

impl Policy<'_> {
    /// Whether everybody is told the same.
    fn is_public(&self) -> bool {
        !self.credentials && self.origins.contains(&ANY)
    }

    /// Judges a request by its `Origin` and `Host`.
    pub fn judge<'a>(&self, origin: Option<&'a [u8]>, host: Option<&[u8]>) -> Verdict<'a> {
        let Some(text) = origin else { return Verdict::Own };
        // What is no word cannot come from a browser, and is not sent back.
        if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
            return Verdict::Refused;
        }
        let origin = Origin::parse(text);
        if origin.zip(host).is_some_and(|(origin, host)| origin.is_at(host)) {
            return Verdict::Own;
        }
        if self.is_public() {
            return Verdict::Allowed(ANY);
        }
        let is_allowed = self.origins.iter().any(|allowed| match *allowed {
            ANY => true,
            OPAQUE => text == OPAQUE,
            allowed => origin.is_some_and(|origin| origin.matches(allowed)),
        });
        match is_allowed {
            true => Verdict::Allowed(text),
            false => Verdict::Refused,
        }
    }

    /// What every reply says to browsers and caches.
    pub fn fields<'a>(&self, verdict: Verdict<'a>) -> Vec<Field<'a>> {
        let mut fields: Vec<Field<'a>> = Vec::new();
        let public = self.is_public();
        if !public {
            fields.push(("Vary", b"Origin"));
        }
        let origin = match verdict {
            Verdict::Allowed(origin) => Some(origin),
            // A cache may give the reply to others.
            Verdict::Own => public.then_some(ANY),
            Verdict::Refused => None,
        };
        if let Some(origin) = origin {
            fields.push(("Access-Control-Allow-Origin", origin));
            if self.credentials {
                fields.push(("Access-Control-Allow-Credentials", b"true"));
            }
            fields.push(("Access-Control-Expose-Headers", EXPOSED));
        }
        fields
    }
}

/// What scripts of other origins may send to a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The methods.
    pub methods: &'static [u8],
    /// The headers, besides those that need no leave.
    pub headers: &'static [u8],
}

/// What a browser is told that asks before it sends a request; [`Policy::fields`] say to whom.
pub fn preflight(access: Access) -> Reply {
    Reply::empty(200)
        .header("Access-Control-Allow-Methods", access.methods)
        .header("Access-Control-Allow-Headers", access.headers)
        .header("Access-Control-Max-Age", MAX_AGE)
}

/// The request comes from an origin that may not.
pub fn refused() -> Reply {
    let sentence =
        "The origin of the page that sent this request is not one of those in push_cors_origin.";
    Reply::text(403, sentence.as_bytes())
}

/// Whether a value of `push_cors_origin` without variables can be meant.
pub fn is_origin(value: &[u8]) -> bool {
    [ANY, OPAQUE, OWN].contains(&value) || Pattern::parse(value).is_some()
}

/// An origin that names a host.
#[derive(Clone, Copy, Debug)]
struct Origin<'a> {
    scheme: &'a [u8],
    host: Host<'a>,
    /// Nothing if the scheme has none by itself.
    port: Option<u16>,
}

/// The name of a host, or its address.
#[derive(Clone, Copy, Debug)]
enum Host<'a> {
    Name(&'a [u8]),
    Address(Ipv6Addr),
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Host::Name(one), Host::Name(other)) => one.eq_ignore_ascii_case(other),
            (Host::Address(one), Host::Address(other)) => one == other,
            _ => false,
        }
    }
}

/// A value of `push_cors_origin` that names a host.
struct Pattern<'a> {
    origin: Origin<'a>,
    /// Whether all names that end with the host's are meant, and not itself.
    is_suffix: bool,
}

impl<'a> Pattern<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (scheme, rest) = split_scheme(text)?;
        let (is_suffix, authority) = match rest {
            [b'*', b'.', base @ ..] => (true, base),
            _ => (false, rest),
        };
        let origin = Origin::new(scheme, authority)?;
        let can_be_suffix = matches!(origin.host, Host::Name(_));
        (can_be_suffix || !is_suffix).then_some(Pattern { origin, is_suffix })
    }
}

impl<'a> Origin<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (scheme, authority) = split_scheme(text)?;
        Origin::new(scheme, authority)
    }

    fn new(scheme: &'a [u8], authority: &'a [u8]) -> Option<Self> {
        let (host, port) = split_authority(authority)?;
        Some(Origin { scheme, host, port: port.or(default_port(scheme)) })
    }

    /// Whether this is where a request was sent to that says `host`.
    ///
    /// The scheme is not compared: where TLS ends in front of nginx, pages have `https` and nginx sees `http`. Pages of the
    /// same host and port are as trusted as its other content.
    fn is_at(&self, host: &[u8]) -> bool {
        let Some(default) = default_port(self.scheme) else { return false };
        let Some((host, port)) = split_authority(host) else { return false };
        self.host == host && self.port == Some(port.unwrap_or(default))
    }

    fn matches(&self, allowed: &[u8]) -> bool {
        let Some(Pattern { origin, is_suffix }) = Pattern::parse(allowed) else { return false };
        let is_host = match (self.host, origin.host) {
            (Host::Name(name), Host::Name(suffix)) if is_suffix => is_below(name, suffix),
            (host, other) => host == other,
        };
        is_host && self.port == origin.port && self.scheme.eq_ignore_ascii_case(origin.scheme)
    }
}

/// Whether `name` is a subdomain of `domain`.
fn is_below(name: &[u8], domain: &[u8]) -> bool {
    let start = name.len().checked_sub(domain.len()).and_then(|at| name.split_at_checked(at));
    start.is_some_and(|(labels, end)| {
        labels.len() > 1 && labels.ends_with(b".") && end.eq_ignore_ascii_case(domain)
    })
}

fn split_scheme(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b':')?;
    let (scheme, rest) = text.split_at_checked(end)?;
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    rest.strip_prefix(b"://").filter(|_| is_scheme).map(|rest| (scheme, rest))
}

fn default_port(scheme: &[u8]) -> Option<u16> {
    if scheme.eq_ignore_ascii_case(b"http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case(b"https") {
        Some(443)
    } else {
        None
    }
}

/// A host and, if there is one, a port: of an origin, or of a `Host` header.
fn split_authority(text: &[u8]) -> Option<(Host<'_>, Option<u16>)> {
    let in_brackets = text.strip_prefix(b"[").and_then(|rest| {
        let end = rest.iter().position(|byte| *byte == b']')?;
        let (address, rest) = rest.split_at_checked(end)?;
        Some((address, rest.get(1..)?))
    });
    let (host, rest) = match in_brackets {
        Some((address, rest)) => (Host::Address(str::from_utf8(address).ok()?.parse().ok()?), rest),
        None => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let (name, rest) = text.split_at_checked(end)?;
            (is_name(name).then_some(Host::Name(name))?, rest)
        }
    };
    match rest.split_first() {
        None => Some((host, None)),
        Some((b':', digits)) if digits.iter().all(u8::is_ascii_digit) => {
            Some((host, Some(str::from_utf8(digits).ok()?.parse().ok()?)))
        }
        Some(_) => None,
    }
}

/// Whether these are labels with dots between them, and maybe one at the end.
fn is_name(name: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let labels = name.strip_suffix(b".").unwrap_or(name);
    labels.split(|byte| *byte == b'.').all(|label| !label.is_empty() && label.iter().all(is_letter))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::Verdict::{Allowed, Own, Refused};
    use super::*;
    use crate::reply::{ReplyBody, MISSED_HEADER};
    use crate::subscriber::CHANNEL_HEADER;

    const HOST: Option<&[u8]> = Some(b"push.example.com");

    fn policy<'a>(origins: &[&'a str]) -> Policy<'a> {
        let origins = origins.iter().map(|origin| origin.as_bytes()).collect();
        Policy { origins, credentials: false }
    }

    fn with_credentials<'a>(origins: &[&'a str]) -> Policy<'a> {
        Policy { credentials: true, ..policy(origins) }
    }

    fn judge<'a>(origins: &[&str], origin: &'a str) -> Verdict<'a> {
        policy(origins).judge(Some(origin.as_bytes()), HOST)
    }

    #[track_caller]
    fn expect_allowed(origins: &[&str], origin: &str) {
        assert_eq!(judge(origins, origin), Allowed(origin.as_bytes()), "{origin} of {origins:?}");
    }

    #[track_caller]
    fn expect_refused(origins: &[&str], origin: &str) {
        assert_eq!(judge(origins, origin), Refused, "{origin} of {origins:?}");
    }

    #[test]
    fn self_is_no_other_origin() {
        assert!(is_origin(b"self"));
        expect_refused(&["self"], "https://app.example.com");
        expect_refused(&["self"], "self");
        assert_eq!(judge(&["self"], "https://push.example.com"), Own);
    }

    #[test]
    fn what_no_page_sends_passes() {
        assert_eq!(policy(&[]).judge(None, HOST), Own);
        assert_eq!(policy(&[""]).judge(None, None), Own);
    }

    #[test]
    fn a_listed_origin_passes() {
        let listed = ["https://app.example.com", "http://localhost:8080", "https://[2001:db8::1]"];
        for origin in [
            "https://app.example.com",
            "HTTPS://App.Example.COM",
            "https://app.example.com:443",
            "http://localhost:8080",
            "https://[2001:db8::1]",
            "https://[2001:DB8:0::0:1]:443",
        ] {
            expect_allowed(&listed, origin);
        }
        expect_allowed(&["HTTPS://APP.example.com:443"], "https://app.example.com");
        expect_allowed(&["chrome-extension://abcdef"], "chrome-extension://abcdef");
    }

    #[test]
    fn what_only_resembles_a_listed_origin_is_refused() {
        let listed = ["https://example.com", "http://localhost:8080", "https://[2001:db8::1]"];
        for origin in [
            "http://example.com",
            "https://example.com:8443",
            "https://example.com:0443x",
            "https://example.com:",
            "https://example.com:65979",
            "https://example.com.",
            "https://example.com.evil.org",
            "https://evil-example.com",
            "https://www.example.com",
            "https://example.com/",
            "https://example.com/path",
            "https://example.com?https://example.com",
            "https://example.com#",
            "https://user@example.com",
            "https://example.com@evil.org",
            "https://example.com:443@evil.org",
            "https://evil.org\\.example.com",
            "https://example.com,https://evil.org",
            "https://example.com https://evil.org",
            "https:example.com",
            "https:/example.com",
            "//example.com",
            "://example.com",
            "example.com",
            "https://",
            "https://*",
            "https://*.example.com",
            "https://[2001:db8::2]",
            "https://[2001:db8::1",
            "https://[2001:db8::1]x",
            "https://2001:db8::1",
            "http://localhost",
            "http://localhost:80",
            "http://localhost:8080\r\nX: y",
            "null",
            "file://",
            "*",
            "",
            "https://ex\u{e4}mple.com",
        ] {
            expect_refused(&listed, origin);
        }
    }

    #[test]
    fn a_wildcard_is_for_subdomains() {
        let listed = ["https://*.example.com", "http://*.test:8080"];
        for origin in [
            "https://a.example.com",
            "https://a.b.example.com",
            "https://A.EXAMPLE.com",
            "https://a.example.com:443",
            "http://x.test:8080",
        ] {
            expect_allowed(&listed, origin);
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "https://evil-example.com",
            "https://a.example.com.evil.org",
            "https://a.example.com.",
            "https://evil.org/a.example.com",
            "https://evil.org#.example.com",
            "https://evil.org:443.example.com",
            "https://a@b.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "http://x.test",
            "http://[::1].test:8080",
            "https://*.example.com",
        ] {
            expect_refused(&listed, origin);
        }
    }

    #[test]
    fn a_value_that_is_no_origin_is_for_nobody() {
        for value in [
            "",
            "example.com",
            "https://example.com/",
            "https://*",
            "https://*.[::1]",
            "*.example.com",
        ] {
            for origin in ["https://example.com", "https://a.example.com", "null", "https://[::1]"]
            {
                expect_refused(&[value], origin);
            }
        }
    }

    #[test]
    fn pages_without_an_origin_pass_only_if_that_is_listed() {
        expect_refused(&["https://example.com"], "null");
        expect_allowed(&["null"], "null");
        expect_refused(&["null"], "https://example.com");
        assert_eq!(judge(&["*"], "null"), Allowed(b"*"));
    }

    #[test]
    fn the_same_host_and_port_pass_whatever_the_scheme() {
        let judge = |origin: &'static str, host: &str| {
            policy(&[]).judge(Some(origin.as_bytes()), Some(host.as_bytes()))
        };
        for (origin, host) in [
            ("http://example.com", "example.com"),
            ("http://example.com", "example.com:80"),
            ("http://example.com:80", "example.com"),
            ("https://example.com", "example.com"),
            ("https://example.com", "example.com:443"),
            ("https://EXAMPLE.com:8443", "example.COM:8443"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[0:0::1]:8080"),
            ("http://example.com.", "example.com."),
        ] {
            assert_eq!(judge(origin, host), Own, "{origin} at {host}");
        }
        for (origin, host) in [
            ("http://example.com", "example.com:443"),
            ("https://example.com", "example.com:80"),
            ("http://example.com:8080", "example.com"),
            ("http://example.com", "example.com:8080"),
            ("http://evil.org", "example.com"),
            ("http://example.com.", "example.com"),
            ("http://example.com@evil.org", "example.com"),
            ("http://127.0.0.1", "localhost"),
            ("capacitor://localhost", "localhost"),
            ("http://example.com", ""),
            ("http://", ""),
            ("null", "null"),
        ] {
            assert_eq!(judge(origin, host), Refused, "{origin} at {host}");
        }
        assert_eq!(policy(&[]).judge(Some(b"http://example.com"), None), Refused);
    }

    #[test]
    fn everybody_may_mean_everybody_with_a_proper_origin() {
        assert_eq!(judge(&["https://example.com", "*"], "https://evil.org"), Allowed(b"*"));
        assert_eq!(judge(&["*"], "file://"), Allowed(b"*"));
        for origin in ["", "http://a\tb", "http://a\u{7f}", "http://a b", "\u{e4}"] {
            expect_refused(&["*"], origin);
        }
        let origin = b"https://example.com";
        assert_eq!(with_credentials(&["*"]).judge(Some(origin), HOST), Allowed(origin));
    }

    #[test]
    fn replies_say_who_may_read_them() {
        let origin: &[u8] = b"https://example.com";
        let expose = ("Access-Control-Expose-Headers", EXPOSED);
        let (vary, allow) = (("Vary", &b"Origin"[..]), "Access-Control-Allow-Origin");
        let listed = policy(&["https://example.com"]);
        assert_eq!(listed.fields(Own), [vary]);
        assert_eq!(listed.fields(Refused), [vary]);
        assert_eq!(listed.fields(Allowed(origin)), [vary, (allow, origin), expose]);
        let trusted = with_credentials(&["*"]);
        let credentials = ("Access-Control-Allow-Credentials", &b"true"[..]);
        assert_eq!(trusted.fields(Own), [vary]);
        assert_eq!(trusted.fields(Allowed(origin)), [vary, (allow, origin), credentials, expose]);
        let public = policy(&["*"]);
        assert_eq!(public.fields(Own), [(allow, ANY), expose]);
        assert_eq!(public.fields(Allowed(ANY)), [(allow, ANY), expose]);
        assert_eq!(public.fields(Refused), []);
    }

    #[test]
    fn our_own_headers_are_exposed() {
        let exposed = str::from_utf8(EXPOSED).unwrap();
        for name in [MISSED_HEADER, CHANNEL_HEADER, "Last-Modified", "Etag"] {
            assert!(exposed.split(", ").any(|exposed| exposed == name), "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_directive() {
        let reply = refused();
        assert_eq!((reply.status, reply.headers.len()), (403, 0));
        let ReplyBody::Bytes(text) = reply.body else { unreachable!("a sentence") };
        assert!(String::from_utf8_lossy(&text).contains("push_cors_origin"));
    }

    #[test]
    fn values_are_checked() {
        for value in [
            "*",
            "null",
            "https://a.example",
            "http://localhost:8080",
            "https://*.a.example:8443",
            "http://[::1]",
        ] {
            assert!(is_origin(value.as_bytes()), "{value}");
        }
        for value in [
            "",
            "a.example",
            "https://a.example/",
            "*.a.example",
            "https://*",
            "http://a:b",
            "http://a:70000",
            "NULL",
        ] {
            assert!(!is_origin(value.as_bytes()), "{value}");
        }
    }

    fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        proptest::sample::select(values)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        #[cfg_attr(miri, ignore = "takes long in Miri")]
        fn no_client_can_write_a_header(origin: Vec<u8>, host: Vec<u8>, listed: Vec<u8>, credentials: bool) {
            for origins in [vec![&listed[..]], vec![&origin[..]], vec![ANY]] {
                let policy = Policy { origins, credentials };
                let verdict = policy.judge(Some(&origin), Some(&host));
                for (_, value) in policy.fields(verdict) {
                    prop_assert!(!value.iter().any(u8::is_ascii_control), "{value:?}");
                }
                if let Allowed(told) = verdict {
                    prop_assert!(told == origin || told == ANY);
                }
            }
        }

        #[test]
        #[cfg_attr(miri, ignore = "takes long in Miri")]
        fn only_what_is_listed_passes(
            scheme in one_of(&["https", "HTTPS", "http", "https:", "xhttps", ""]),
            user in one_of(&["", "", "", "u@", "example.com@", "example.com:443@"]),
            label in one_of(&["", "", "a.", "a.b.", ".", "evil-", "evil.org/", "evil.org?", "a.."]),
            domain in one_of(&["example.com", "Example.COM", "example.com.", "example.com.evil.org", "example.co", "[::1]"]),
            port in one_of(&["", "", ":443", ":80", ":", ":4430", ":443x"]),
            end in one_of(&["", "", "", "/", "/.example.com", "?", "#", "\\", " ", "\r\n"]),
        ) {
            let origin = format!("{scheme}://{user}{label}{domain}{port}{end}");
            let proper = scheme.eq_ignore_ascii_case("https")
                && (user, end) == ("", "")
                && domain.eq_ignore_ascii_case("example.com")
                && ["", ":443"].contains(&port);
            let expected = |passes: bool| if passes { Allowed(origin.as_bytes()) } else { Refused };
            prop_assert_eq!(judge(&["https://example.com"], &origin), expected(proper && label.is_empty()));
            let is_below = ["a.", "a.b."].contains(&label);
            prop_assert_eq!(judge(&["https://*.example.com"], &origin), expected(proper && is_below));
        }
    }
}
