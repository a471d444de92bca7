//! Server-Sent Events (EventSource) parser, after the WHATWG rules, fed with arbitrary pieces.

use crate::bytes::find_byte;

/// Reads events from any pieces of the stream (HTML standard, section 9.2.6).
#[derive(Default)]
pub struct SseParser {
    /// A line that is not complete yet.
    line: Vec<u8>,
    /// Data lines of the current event (joined with \n).
    data: Vec<u8>,
    has_data: bool,
    /// The current event carries an id: line.
    has_id: bool,
    /// The last byte was \r, so a \n that follows belongs to it.
    after_cr: bool,
    started: bool,
}

/// One dispatched event.
pub struct Event<'a> {
    pub data: &'a [u8],
    /// The event had an id: line of its own.
    pub has_id: bool,
}

impl SseParser {
    /// Takes the next piece of the stream, reports complete events.
    pub fn feed(&mut self, mut input: &[u8], mut event: impl FnMut(Event)) {
        if self.after_cr && !input.is_empty() {
            if input[0] == b'\n' {
                input = &input[1..];
            }
            self.after_cr = false;
        }
        // A single data line that lies whole in `input` is not copied.
        let mut direct: Option<&[u8]> = None;
        while !input.is_empty() {
            let Some((len, next)) = self.line_end(input) else {
                self.line.extend_from_slice(input);
                break;
            };
            let (head, rest) = (&input[..len], &input[next..]);
            input = rest;
            if self.line.is_empty() {
                self.take_line(head, &mut direct, true, &mut event);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(head);
                // Only the first line of a feed can continue an older one: `direct` is empty here.
                self.take_line(&line, &mut None, false, &mut event);
                line.clear();
                if line.capacity() <= 4096 {
                    self.line = line;
                }
            }
        }
        if let Some(d) = direct {
            self.data.extend_from_slice(d);
        }
    }

    /// Length of the line and where the next one starts.
    fn line_end(&mut self, input: &[u8]) -> Option<(usize, usize)> {
        let nl = find_byte(input, b'\n');
        match find_byte(&input[..nl.unwrap_or(input.len())], b'\r') {
            Some(cr) if cr + 1 == input.len() => {
                self.after_cr = true;
                Some((cr, cr + 1))
            }
            Some(cr) if input[cr + 1] == b'\n' => Some((cr, cr + 2)),
            Some(cr) => Some((cr, cr + 1)),
            None => nl.map(|n| (n, n + 1)),
        }
    }

    fn take_line<'a>(
        &mut self,
        line: &'a [u8],
        direct: &mut Option<&'a [u8]>,
        may_borrow: bool,
        event: &mut impl FnMut(Event),
    ) {
        let mut line = line;
        if !self.started {
            self.started = true;
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if self.has_data {
                let data = direct.take().unwrap_or(&self.data);
                event(Event { data, has_id: self.has_id });
            }
            self.data.clear();
            self.has_data = false;
            self.has_id = false;
            return;
        }
        let (name, value) = match find_byte(line, b':') {
            Some(0) => return, // comment
            Some(c) => (&line[..c], line[c + 1..].strip_prefix(b" ").unwrap_or(&line[c + 1..])),
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                if let Some(d) = direct.take() {
                    self.data.extend_from_slice(d);
                }
                if self.has_data {
                    self.data.push(b'\n');
                    self.data.extend_from_slice(value);
                } else if may_borrow {
                    *direct = Some(value);
                } else {
                    self.data.extend_from_slice(value);
                }
                self.has_data = true;
            }
            b"id" if !value.contains(&0) => self.has_id = true,
            _ => {} // event:, retry:, unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(wire: &[u8], step: usize) -> Vec<(String, bool)> {
        let mut p = SseParser::default();
        let mut got = Vec::new();
        for c in wire.chunks(step) {
            p.feed(c, |e| got.push((String::from_utf8_lossy(e.data).into_owned(), e.has_id)));
        }
        got
    }

    #[test]
    fn events_in_any_pieces() {
        let wire =
            b"\xef\xbb\xbf: hi\n\nid: 1:0\ndata: one\n\nevent: x\ndata: two\ndata:\ndata:  2b\nid: 2\n\n\
            retry: 5\n\ndata\n\n:ping\ndata:last\r\n\r\ndata: cr\r\rdata: never";
        for step in 1..=wire.len() {
            let got = run(wire, step);
            let want: Vec<(String, bool)> =
                [("one", true), ("two\n\n 2b", true), ("", false), ("last", false), ("cr", false)]
                    .iter()
                    .map(|&(d, h)| (d.to_string(), h))
                    .collect();
            assert_eq!(got, want, "step {step}");
        }
    }
}
