//! Orders that travel as records. Whoever can write the ring can put any bytes there, so decoding takes nothing on trust.

use std::ptr::NonNull;

use crosslane_core::record::{PopError, Ring};
use crosslane_core::wait::Spin;
use crosslane_core::{OwnerId, WakeMode};

/// What one program tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// So many of it, at this price each.
    Buy { symbol: String, quantity: u32, cents: u64 },
    /// An earlier order is taken back.
    Cancel { order: u64 },
}

const BUY: u8 = 1;
const CANCEL: u8 = 2;

impl Order {
    /// The record of this order.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Buy { symbol, quantity, cents } => {
                out.push(BUY);
                out.extend(quantity.to_le_bytes());
                out.extend(cents.to_le_bytes());
                // A symbol is short: more than 255 bytes are cut by whoever makes it.
                out.push(symbol.len() as u8);
                out.extend(&symbol.as_bytes()[..symbol.len() & 0xff]);
            }
            Self::Cancel { order } => {
                out.push(CANCEL);
                out.extend(order.to_le_bytes());
            }
        }
        out
    }

    /// The order of this record; `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            BUY => {
                let (quantity, rest) = rest.split_first_chunk()?;
                let (cents, rest) = rest.split_first_chunk()?;
                let (len, rest) = rest.split_first()?;
                let symbol =
                    if cfg!(feature = "planted") { &rest[..usize::from(*len)] } else { rest.get(..usize::from(*len))? };
                let whole = symbol.len() == rest.len();
                let symbol = String::from_utf8(symbol.to_vec()).ok().filter(|_| whole)?;
                Some(Self::Buy { symbol, quantity: u32::from_le_bytes(*quantity), cents: u64::from_le_bytes(*cents) })
            }
            CANCEL => Some(Self::Cancel { order: u64::from_le_bytes(rest.try_into().ok()?) }),
            _ => None,
        }
    }
}

/// Room for a ring, aligned as it must be.
#[repr(C, align(128))]
struct Memory([u8; 2048]);

/// What the fuzzer runs: `data` is cut into records, each of which goes through the ring and is decoded. What decodes
/// must be the same after it was encoded again and has gone through the ring once more.
///
/// # Panics
/// If it is not the same, or if anything else panics.
pub fn run(data: &[u8]) {
    let mut memory = Memory([0; 2048]);
    let len = size_of_val(&memory.0);
    let start = NonNull::from(&mut memory).cast();
    // SAFETY: aligned, as long as said, and used for nothing but the ring while that is in use.
    let ring = unsafe { Ring::init(start, len, 1024, WakeMode::Polling) }.expect("fits");
    let spin = |index| Spin::new(OwnerId::new(index, 1).expect("small"));
    let mut writer = ring.writer(spin(0)).expect("vacant");
    let mut reader = ring.reader(spin(1)).expect("vacant");
    let mut buffer = [0; 1024];
    let mut rest = data;
    while let Some((len, more)) = rest.split_first() {
        let (record, behind) = more.split_at(more.len().min(usize::from(*len)));
        rest = behind;
        writer.try_push(record).expect("an empty ring has room");
        let len = reader.try_pop_into(&mut buffer).expect("just pushed");
        if let Some(order) = Order::decode(&buffer[..len]) {
            writer.try_push(&order.encode()).expect("an empty ring has room");
            let len = reader.try_pop_into(&mut buffer).expect("just pushed");
            assert_eq!(Order::decode(&buffer[..len]), Some(order), "changed on its way");
        }
        assert_eq!(reader.try_pop_into(&mut buffer), Err(PopError::Empty));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_passes() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/messages");
        let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            run(&std::fs::read(file).unwrap());
        }
    }

    #[test]
    fn orders_come_back() {
        for order in [Order::Buy { symbol: "ABC".into(), quantity: 3, cents: 1999 }, Order::Cancel { order: u64::MAX }]
        {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        assert_eq!(Order::decode(&[BUY, 0, 0]), None);
    }
}
