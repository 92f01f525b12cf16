//! Pieces that nothing has happened to for a while, in a few bytes each instead of 32.
//!
//! ```text
//! each piece: first, counted from the end of the one before | count less 1 | bytes | segment | entry
//! ```
//!
//! All are numbers of variable length (seven bits a byte, the last without the top bit); segment and entry are told as what
//! they differ by from those of the piece before, with the sign in the lowest bit. Neighbours differ by little.

use super::pieces::{Piece, Placed};

/// Some consecutive pieces of one queue. The position of the first stands elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed(Box<[u8]>);

impl Packed {
    /// Packs pieces that ascend and do not overlap.
    pub(crate) fn new(pieces: &[Placed]) -> Self {
        let mut out = Vec::with_capacity(pieces.len() * USUAL_BYTES);
        let mut before = Before::start(pieces.first().map_or(0, |(first, _)| *first));
        for (first, piece) in pieces {
            put(&mut out, first.wrapping_sub(before.next));
            put(&mut out, piece.last.wrapping_sub(*first));
            put(&mut out, piece.bytes);
            put_signed(&mut out, i64::from(piece.segment) - before.segment);
            put_signed(&mut out, i64::from(piece.entry) - before.entry);
            before.step(piece);
        }
        Self(out.into_boxed_slice())
    }

    /// Packed pieces as they were written somewhere, and their last position, if they are `count` sound ones.
    pub(crate) fn parse(first: u64, count: usize, bytes: &[u8]) -> Option<(Self, u64)> {
        let mut pieces = Unpack { rest: bytes, before: Before::start(first) };
        let mut before: Option<u64> = None;
        for _ in 0..count {
            let (first, piece) = pieces.next()?;
            if before.is_some_and(|before| first <= before) || piece.last < first {
                return None;
            }
            before = Some(piece.last);
        }
        before.filter(|_| pieces.rest.is_empty()).map(|last| (Self(bytes.into()), last))
    }

    pub(crate) const fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The pieces, of which the first begins at `first`.
    pub(crate) const fn iter(&self, first: u64) -> Unpack<'_> {
        Unpack { rest: &self.0, before: Before::start(first) }
    }
}

/// Gives packed pieces back.
pub(crate) struct Unpack<'a> {
    rest: &'a [u8],
    before: Before,
}

impl Iterator for Unpack<'_> {
    type Item = Placed;

    fn next(&mut self) -> Option<Placed> {
        let rest = &mut self.rest;
        let first = self.before.next.wrapping_add(take(rest)?);
        let last = first.wrapping_add(take(rest)?);
        let bytes = take(rest)?;
        let segment = self.before.segment.wrapping_add(take_signed(rest)?);
        let entry = self.before.entry.wrapping_add(take_signed(rest)?);
        let piece = Piece { last, bytes, segment: u32::try_from(segment).ok()?, entry: u32::try_from(entry).ok()? };
        self.before.step(&piece);
        Some((first, piece))
    }
}

/// What the numbers of a piece are told from.
struct Before {
    next: u64,
    segment: i64,
    entry: i64,
}

impl Before {
    const fn start(first: u64) -> Self {
        Self { next: first, segment: 0, entry: 0 }
    }

    fn step(&mut self, piece: &Piece) {
        *self = Self { next: piece.last.wrapping_add(1), segment: piece.segment.into(), entry: piece.entry.into() };
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, others) = rest.split_first()?;
        *rest = others;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_signed(rest: &mut &[u8]) -> Option<i64> {
    let number = take(rest)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

/// What a piece of a few messages takes among its neighbours.
const USUAL_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_and_neighbours_take_few_bytes() {
        let piece = |last, bytes, segment, entry| Piece { last, bytes, segment, entry };
        let odd = [
            (5, piece(5, 0, 0, 0)),
            (6, piece(1 << 40, u64::MAX, u32::MAX, u32::MAX)),
            (u64::MAX - 1, piece(u64::MAX, 1, 7, 0)),
        ];
        let packed = Packed::new(&odd);
        assert_eq!(packed.iter(5).collect::<Vec<_>>(), odd);
        assert_eq!(Packed::parse(5, 3, packed.bytes()), Some((packed.clone(), u64::MAX)));
        for count in [0, 2, 4] {
            assert_eq!(Packed::parse(5, count, packed.bytes()), None, "{count} pieces");
        }
        assert_eq!(Packed::parse(6, 3, packed.bytes()), None, "positions that pass the end");
        let usual: Vec<Placed> =
            (0..64).map(|n| (n * 3, piece(n * 3 + 2, 3300 + n, n as u32 + 9, 15_000 + n as u32 % 5))).collect();
        let packed = Packed::new(&usual);
        assert_eq!(packed.iter(0).collect::<Vec<_>>(), usual);
        assert!(packed.bytes().len() < 64 * 7, "{} bytes", packed.bytes().len());
    }
}
