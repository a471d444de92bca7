//! How far back compressed data (RFC 1951) refers: what a decompressor's window must hold.
//!
//! A plain reading of the format, bit by bit. Decompressors keep more than the window that was
//! agreed on, and so do not notice data that refers too far back.

/// The largest distance in the data. Panics if it is no compressed data.
pub fn farthest(data: &[u8]) -> usize {
    let mut bits = Bits { data, at: 0 };
    let mut farthest = 0;
    // A message's end is an empty block that is left out, so the data may stop between blocks.
    while bits.left() >= 3 {
        let last = bits.take(1) == 1;
        match bits.take(2) {
            0 if bits.left() < 32 => break,
            0 => skip_stored(&mut bits),
            1 => {
                let lengths: Vec<usize> = (0..288)
                    .map(|symbol| match symbol {
                        0..=143 => 8,
                        144..=255 => 9,
                        256..=279 => 7,
                        _ => 8,
                    })
                    .collect();
                let codes = (Code::new(&lengths), Code::new(&[5; 30]));
                farthest = farthest.max(farthest_of_block(&mut bits, &codes));
            }
            2 => {
                let codes = read_codes(&mut bits);
                farthest = farthest.max(farthest_of_block(&mut bits, &codes));
            }
            kind => panic!("a block of kind {kind}"),
        }
        if last {
            break;
        }
    }
    farthest
}

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn left(&self) -> usize {
        self.data.len() * 8 - self.at
    }

    fn take(&mut self, count: usize) -> usize {
        let mut value = 0;
        for place in 0..count {
            value |= usize::from(self.data[self.at / 8] >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        value
    }
}

fn skip_stored(bits: &mut Bits<'_>) {
    bits.at = bits.at.next_multiple_of(8);
    let length = bits.take(16);
    assert_eq!(bits.take(16), length ^ 0xffff, "the length of a stored block");
    bits.at += length * 8;
}

/// A canonical Huffman code (3.2.2).
struct Code {
    /// How many codes have each length.
    counts: [usize; 16],
    /// The symbols in the order of their codes.
    symbols: Vec<usize>,
}

impl Code {
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().filter(|&&length| length > 0).for_each(|&length| counts[length] += 1);
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|&s| lengths[s] > 0).collect();
        symbols.sort_by_key(|&symbol| lengths[symbol]);
        Code { counts, symbols }
    }

    fn read(&self, bits: &mut Bits<'_>) -> usize {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code = code << 1 | bits.take(1);
            if code < first + count {
                return self.symbols[index + code - first];
            }
            index += count;
            first = (first + count) << 1;
        }
        panic!("a code that is none");
    }
}

fn read_codes(bits: &mut Bits<'_>) -> (Code, Code) {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let literals = bits.take(5) + 257;
    let distances = bits.take(5) + 1;
    let mut lengths = [0; 19];
    let count = bits.take(4) + 4;
    for &symbol in &ORDER[..count] {
        lengths[symbol] = bits.take(3);
    }
    let code = Code::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match code.read(bits) {
            16 => (*lengths.last().expect("a length to repeat"), 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            18 => (0, 11 + bits.take(7)),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    (Code::new(&lengths[..literals]), Code::new(&lengths[literals..]))
}

fn farthest_of_block(bits: &mut Bits<'_>, (literals, distances): &(Code, Code)) -> usize {
    let mut farthest = 0;
    loop {
        let symbol = literals.read(bits);
        match symbol {
            0..=255 => continue,
            256 => return farthest,
            // How long the copy is does not matter, but how many bits say so.
            257..=264 | 285 => {}
            265..=284 => {
                bits.take((symbol - 261) / 4);
            }
            _ => panic!("a length that is none"),
        }
        let distance = match distances.read(bits) {
            short @ 0..=3 => short + 1,
            symbol => {
                let extra = symbol / 2 - 1;
                ((2 + symbol % 2) << extra) + 1 + bits.take(extra)
            }
        };
        farthest = farthest.max(distance);
    }
}
