//! icomet's replies: JSON objects `{"type":…,"cname":…,"seq":…,"content":…}`, one per line, in an
//! array, or wrapped in a JSONP callback. Whatever lies outside of the objects is skipped.

use crate::bytes::parse_u64;

/// Finds iComet's JSON objects in any pieces of the stream.
#[derive(Default)]
pub struct IcometParser {
    carry: Vec<u8>,
}

/// One object.
#[derive(Debug, PartialEq, Eq)]
pub struct Obj<'a> {
    pub kind: &'a [u8],
    pub seq: u64,
    /// As on the wire (JSON escapes not undone).
    pub content: &'a [u8],
}

impl IcometParser {
    /// Reports every complete object; None for one that is not of icomet's form.
    pub fn feed(&mut self, input: &[u8], mut obj: impl FnMut(Option<Obj>)) {
        if self.carry.is_empty() {
            let rest = scan(input, &mut obj);
            self.carry.extend_from_slice(&input[input.len() - rest..]);
        } else {
            let mut buf = std::mem::take(&mut self.carry);
            buf.extend_from_slice(input);
            let rest = scan(&buf, &mut obj);
            let done = buf.len() - rest;
            buf.drain(..done);
            self.carry = buf;
        }
    }

    /// At the end of a reply: true if an object was cut off.
    pub fn finish(&mut self) -> bool {
        let cut = !self.carry.is_empty();
        self.carry.clear();
        cut
    }
}

/// Returns how many bytes at the end belong to an object that is not complete.
fn scan(data: &[u8], obj: &mut impl FnMut(Option<Obj>)) -> usize {
    let (mut depth, mut start, mut in_str, mut esc) = (0u32, 0, false, false);
    for (i, &b) in data.iter().enumerate() {
        if in_str {
            match b {
                _ if esc => esc = false,
                b'\\' => esc = true,
                b'"' => in_str = false,
                _ => {}
            }
            continue;
        }
        match b {
            b'"' if depth > 0 => in_str = true,
            b'{' => {
                if depth == 0 {
                    start = i;
                }
                depth += 1;
            }
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    obj(parse(&data[start..=i]));
                }
            }
            _ => {}
        }
    }
    if depth > 0 {
        data.len() - start
    } else {
        0
    }
}

/// A flat object of strings and numbers.
fn parse(s: &[u8]) -> Option<Obj<'_>> {
    let mut o = Obj { kind: b"", seq: 0, content: b"" };
    let mut at = 1;
    loop {
        skip_space(s, &mut at);
        if s.get(at) == Some(&b'}') {
            return None; // empty
        }
        let key = string(s, &mut at)?;
        skip_space(s, &mut at);
        if s.get(at) != Some(&b':') {
            return None;
        }
        at += 1;
        skip_space(s, &mut at);
        if s.get(at) == Some(&b'"') {
            let v = string(s, &mut at)?;
            match key {
                b"type" => o.kind = v,
                b"content" => o.content = v,
                b"seq" => o.seq = parse_u64(v)?,
                _ => {}
            }
        } else {
            let from = at;
            while !matches!(s.get(at)?, b',' | b'}' | b' ') {
                at += 1;
            }
            if key == b"seq" {
                o.seq = parse_u64(&s[from..at])?;
            }
        }
        skip_space(s, &mut at);
        match s.get(at)? {
            b',' => at += 1,
            b'}' => return (!o.kind.is_empty()).then_some(o),
            _ => return None,
        }
    }
}

fn skip_space(s: &[u8], at: &mut usize) {
    while matches!(s.get(*at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        *at += 1;
    }
}

fn string<'a>(s: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    if s.get(*at) != Some(&b'"') {
        return None;
    }
    *at += 1;
    let from = *at;
    loop {
        match s.get(*at)? {
            b'\\' => *at += 2,
            b'"' => {
                *at += 1;
                return Some(&s[from..*at - 1]);
            }
            _ => *at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Got = Vec<Option<(String, u64, String)>>;

    fn run(wire: &[u8], step: usize) -> (Got, bool) {
        let mut p = IcometParser::default();
        let mut got = Vec::new();
        for c in wire.chunks(step) {
            p.feed(c, |o| {
                got.push(o.map(|o| {
                    (
                        String::from_utf8_lossy(o.kind).into_owned(),
                        o.seq,
                        String::from_utf8_lossy(o.content).into_owned(),
                    )
                }))
            });
        }
        (got, p.finish())
    }

    #[test]
    fn lines_arrays_jsonp() {
        let wire = br#"{"type":"next_seq","cname":"a","seq":3,"content":""}
icomet_cb([{"type":"data","cname":"a\"}","seq":"4","content":"x\\\"{"},{ "type" : "noop" , "seq" : 5 }]);
"#;
        for step in 1..=wire.len() {
            let (got, cut) = run(wire, step);
            assert!(!cut);
            assert_eq!(
                got,
                [
                    Some(("next_seq".into(), 3, "".into())),
                    Some(("data".into(), 4, r#"x\\\"{"#.into())),
                    Some(("noop".into(), 5, "".into())),
                ]
            );
        }
    }

    #[test]
    fn bad_and_cut() {
        assert_eq!(run(b"{}{\"a\":1}{\"type\":\"data\",\"seq\":x}", 100).0, [None, None, None]);
        assert!(run(b"{\"type\":\"da", 3).1);
    }
}
