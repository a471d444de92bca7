//! URLs with placeholders.

use crate::bytes::push_u64;
use std::net::{Ipv4Addr, SocketAddrV4};

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(Vec<u8>),
    Chan,
    Index,
    Run,
    Sub,
    Seq,
    Msg,
}

/// What the placeholders stand for.
#[derive(Clone, Copy, Default)]
pub struct Values<'a> {
    pub chan: u32,
    pub sub: u32,
    pub seq: u64,
    pub msg: &'a [u8],
}

/// A parsed `http://127.x.y.z:port/path` template.
#[derive(Clone, Debug)]
pub struct UrlTemplate {
    pub addr: SocketAddrV4,
    pub host: String,
    path: Vec<Piece>,
    /// Channel names: `prefix` + index.
    prefix: Vec<u8>,
    run: Vec<u8>,
}

impl UrlTemplate {
    /// `run` makes channel names unique per run: {chan} is `pl<run>x<index>`.
    pub fn parse(url: &str, run: u16) -> Result<UrlTemplate, String> {
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("ws://"))
            .ok_or_else(|| format!("{url}: must start with http:// or ws://"))?;
        let (host, path) = match rest.find('/') {
            Some(i) => rest.split_at(i),
            None => (rest, "/"),
        };
        let (ip, port) = match host.split_once(':') {
            Some((h, p)) => (h, p.parse().map_err(|_| format!("{url}: bad port"))?),
            None => (host, 80u16),
        };
        let ip = if ip == "localhost" {
            Ipv4Addr::LOCALHOST
        } else {
            ip.parse().map_err(|_| format!("{url}: give an IPv4 address"))?
        };
        if !ip.is_loopback() {
            return Err(format!("{url}: only loopback addresses (127.0.0.0/8) are allowed"));
        }
        Ok(UrlTemplate {
            addr: SocketAddrV4::new(ip, port),
            host: host.to_string(),
            path: pieces(path)?,
            prefix: format!("pl{run:04x}x").into_bytes(),
            run: format!("{run:04x}").into_bytes(),
        })
    }

    /// The message itself is in the URL.
    pub fn has_msg(&self) -> bool {
        self.path.contains(&Piece::Msg)
    }

    /// The channel is in the URL.
    pub fn has_chan(&self) -> bool {
        self.path.contains(&Piece::Chan) || self.path.contains(&Piece::Index)
    }

    /// iComet's sequence number is in the URL.
    pub fn has_seq(&self) -> bool {
        self.path.contains(&Piece::Seq)
    }

    /// Appends the request target.
    pub fn render(&self, out: &mut Vec<u8>, v: Values) {
        for p in &self.path {
            match p {
                Piece::Text(t) => out.extend_from_slice(t),
                Piece::Chan => {
                    out.extend_from_slice(&self.prefix);
                    push_u64(out, v.chan as u64);
                }
                Piece::Index => push_u64(out, v.chan as u64),
                Piece::Run => out.extend_from_slice(&self.run),
                Piece::Sub => push_u64(out, v.sub as u64),
                Piece::Seq => push_u64(out, v.seq),
                Piece::Msg => out.extend_from_slice(v.msg),
            }
        }
    }
}

fn pieces(path: &str) -> Result<Vec<Piece>, String> {
    let mut out = Vec::new();
    let mut rest = path;
    while let Some(i) = rest.find('{') {
        let j = rest[i..].find('}').ok_or_else(|| format!("{path}: unclosed {{"))? + i;
        if i > 0 {
            out.push(Piece::Text(rest[..i].into()));
        }
        out.push(match &rest[i + 1..j] {
            "chan" => Piece::Chan,
            "idx" => Piece::Index,
            "run" => Piece::Run,
            "sub" => Piece::Sub,
            "seq" => Piece::Seq,
            "msg" => Piece::Msg,
            other => return Err(format!("{path}: unknown placeholder {{{other}}}")),
        });
        rest = &rest[j + 1..];
    }
    if !rest.is_empty() {
        out.push(Piece::Text(rest.into()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn render() {
        let t =
            UrlTemplate::parse("http://127.0.0.1:8080/s/{chan}?i={idx}&q={seq}&m={msg}{run}", 0xab)
                .unwrap();
        assert_eq!(t.addr.port(), 8080);
        assert_eq!(t.host, "127.0.0.1:8080");
        let mut v = Vec::new();
        t.render(&mut v, Values { chan: 12, sub: 1, seq: 3, msg: b"M" });
        assert_eq!(v, b"/s/pl00abx12?i=12&q=3&m=M00ab");
        assert!(t.has_chan() && t.has_seq() && t.has_msg());
    }

    #[test]
    fn refuses() {
        for u in [
            "http://10.0.0.1/",
            "https://127.0.0.1/",
            "http://example.com/",
            "http://127.0.0.1:x/",
            "http://127.0.0.1/{what}",
            "http://127.0.0.1/{chan",
        ] {
            assert!(UrlTemplate::parse(u, 0).is_err(), "{u}");
        }
        assert_eq!(UrlTemplate::parse("http://localhost", 0).unwrap().addr.port(), 80);
    }
}
