//! What the fuzz targets share: how bytes are read as fields of a request, and as a plan of what to do.
//!
//! Both are easy to write by hand, so that seeds are texts.

/// The lines of an input; what is not there is `None`.
pub fn lines<const N: usize>(data: &[u8]) -> [Option<&[u8]>; N] {
    let mut lines = data.splitn(N, |&byte| byte == b'\n');
    std::array::from_fn(|_| lines.next())
}

/// Bytes that say what to do. Digits mean themselves; when the bytes run out, all that follows is 0.
pub struct Plan<'a> {
    rest: &'a [u8],
}

impl<'a> Plan<'a> {
    /// Reads from the beginning.
    pub fn new(rest: &'a [u8]) -> Self {
        Plan { rest }
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte as it is.
    pub fn letter(&mut self) -> u8 {
        let Some((&byte, rest)) = self.rest.split_first() else { return b'0' };
        self.rest = rest;
        byte
    }

    /// A small number.
    pub fn number(&mut self) -> u64 {
        u64::from(self.letter().wrapping_sub(b'0'))
    }

    /// A number from 0 to 65025, the small ones in small steps.
    pub fn square(&mut self) -> u64 {
        self.number().pow(2)
    }

    /// A number below another one.
    pub fn below(&mut self, end: usize) -> usize {
        self.number() as usize % end
    }

    /// Yes for odd numbers.
    pub fn flag(&mut self) -> bool {
        self.number() % 2 == 1
    }

    /// At most so many bytes as they are.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}
