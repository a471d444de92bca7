//! The formats in which this worker sends messages, by number, so that a waiting client knows its own in two bytes.

use std::rc::Rc;

use comet::transport::Format;

/// The number of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatId(u16);

/// All formats that were asked for. There are few: one for each transport, and what a configuration and the parameters of
/// WebSockets make of them.
#[derive(Debug, Default)]
pub struct Formats(Vec<Rc<Format>>);

impl Formats {
    /// The number of a format.
    pub fn id_of(&mut self, format: Format) -> FormatId {
        let place = self.0.iter().position(|known| **known == format).unwrap_or_else(|| {
            self.0.push(Rc::new(format));
            self.0.len() - 1
        });
        FormatId(place as u16)
    }

    /// The format with this number.
    pub fn get(&self, id: FormatId) -> Option<Rc<Format>> {
        self.0.get(usize::from(id.0)).cloned()
    }
}
