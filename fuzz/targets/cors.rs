//! Which pages of other origins may ask.
#![no_main]

use comet::cors::{is_origin, Policy, Verdict};
use fuzz::lines;
use libfuzzer_sys::fuzz_target;

/// What follows the scheme.
fn authority(origin: &[u8]) -> Option<&[u8]> {
    let at = origin.windows(3).position(|part| part == b"://")?;
    origin.get(at + 3..)
}

/// The name without its port.
fn host_name(authority: &[u8]) -> &[u8] {
    authority.split(|byte| *byte == b':').next().unwrap_or_default()
}

fuzz_target!(|data: &[u8]| {
    let [credentials, origin, host, one, other] = lines(data);
    let credentials = credentials == Some(b"1");
    let origins: Vec<&[u8]> = one.into_iter().chain(other).collect();
    let policy = Policy { origins, credentials };
    let verdict = policy.judge(origin, host);
    for (_, value) in policy.fields(verdict) {
        assert!(!value.iter().any(u8::is_ascii_control));
    }
    let Some(origin) = origin else { return assert_eq!(verdict, Verdict::Own) };
    let loud = origin.to_ascii_uppercase();
    let is_same = std::mem::discriminant(&policy.judge(Some(&loud), host))
        == std::mem::discriminant(&verdict);
    assert!(is_same || origin == b"null" || policy.origins.contains(&&b"null"[..]));
    match verdict {
        Verdict::Own => {
            let (name, host) = (authority(origin).unwrap(), host.unwrap());
            let is_equal = host_name(name).eq_ignore_ascii_case(host_name(host));
            assert!(is_equal || name.starts_with(b"[") && host.starts_with(b"["));
        }
        Verdict::Allowed(told) => {
            assert!(told == origin || (told == b"*" && !credentials));
            if policy.origins.contains(&&b"*"[..]) || origin == b"null" {
                return;
            }
            let authority = authority(origin).unwrap();
            assert!(!authority.iter().any(|byte| b"/?#@\\*, ".contains(byte)));
            assert!(policy.origins.iter().any(|listed| is_origin(listed)));
        }
        Verdict::Refused => {
            assert!(
                !policy.origins.contains(&origin)
                    || !is_origin(origin)
                    || origin == b"self"
                    || is_wildcard(origin)
                    || origin == b"*"
            );
        }
    }
});

/// Whether a listed origin stands for others.
fn is_wildcard(origin: &[u8]) -> bool {
    authority(origin).is_some_and(|authority| authority.starts_with(b"*"))
}
