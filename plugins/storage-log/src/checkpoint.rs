//! A checkpoint: the state at one place of the log, so that only what follows is replayed.
//!
//! ```text
//! header | next batch u64, segment u64 (that this batch goes to)
//! segments u64: id u64, first batch u64, next batch u64, end u64, file bytes u64, salt u64, damaged u64,
//!                torn u64: from u64, to u64
//! meta u64: key length u32, key, value length u32, value
//! queues u64: queue u64, groups u64: first u64, pieces u32, length u32, pieces as `index::packed` has them
//! marks u64: queue u64, last u64
//! ```
//!
//! Format 1 had pieces (first u64, last u64, bytes u64, segment u32, entry u32) in place of groups, and no marks.
//!
//! Two are kept. Segments are removed only when they are dead in both, so that the older one can stand in for the newer.
//! Neither writing nor reading has more than a part of the file in memory.

use std::io;
use std::ops::Deref;

use crate::disk::DiskFile;
use crate::format::{FileHeader, FileKind, HEADER_BYTES, HeaderError, Reader};
use crate::index::pieces::{Piece, Pieces, SegmentId};
use crate::index::{Index, Segment};

/// What a checkpoint says.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) head: Head,
    pub(crate) index: Index,
}

/// What a checkpoint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) store: u64,
    pub(crate) number: u64,
    /// The first batch that is not part of it.
    pub(crate) next_batch: u64,
    /// The segment that this batch goes to, or would have gone to.
    pub(crate) segment: SegmentId,
}

/// Writes a checkpoint into an empty file; answers its length. `index` is asked for part after part, so that reads need
/// not wait for all of it. Nobody but readers, who give up what is damaged, changes it meanwhile.
pub(crate) fn write<I: Deref<Target = Index>>(
    file: &dyn DiskFile,
    head: &Head,
    index: impl Fn() -> I,
) -> io::Result<u64> {
    let mut out = Writer { file, position: HEADER_BYTES as u64, crc: 0, part: Vec::new() };
    out.u64s(&[head.next_batch, head.segment.into()]);
    let (mut queues, marks) = write_small(&mut out, &index());
    let mut after = None;
    loop {
        let mut count = 0;
        {
            let index = index();
            let bounds = (
                after.as_ref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
                std::ops::Bound::Unbounded,
            );
            let mut last = None;
            for (key, value) in index.meta.range::<Vec<u8>, _>(bounds) {
                out.counted(key);
                out.counted(value);
                count += 1;
                last = Some(key);
                if out.is_long() {
                    break;
                }
            }
            after = last.cloned();
        }
        if count == 0 {
            break;
        }
        out.flush()?;
    }
    // In ascending order, so that the same state gives the same file.
    queues.sort_unstable();
    out.u64s(&[queues.len() as u64]);
    let mut rest = queues.into_iter().peekable();
    while rest.peek().is_some() {
        {
            let index = index();
            while let Some(queue) = rest.next_if(|_| !out.is_long()) {
                match index.queues.get(&queue) {
                    Some(pieces) => write_queue(&mut out, queue, pieces),
                    None => out.u64s(&[queue, 0]),
                }
            }
        }
        out.flush()?;
    }
    out.u64s(&[marks.len() as u64]);
    for (queue, last) in marks {
        out.u64s(&[queue, last]);
    }
    out.flush()?;
    let Writer { position, crc, .. } = out;
    let fields = [position - HEADER_BYTES as u64, crc.into(), 0, 0];
    let header = FileHeader { store: head.store, number: head.number, fields };
    file.write_at(&header.encode(FileKind::Checkpoint), 0)?;
    Ok(position)
}

type Marks = Vec<(u64, u64)>;

/// Segments and the number of metadata entries; answers which queues there are, and their marks.
fn write_small(out: &mut Writer<'_>, index: &Index) -> (Vec<u64>, Marks) {
    out.u64s(&[index.segments.len() as u64]);
    for (id, state) in &index.segments {
        let damaged = u64::from(state.is_damaged);
        out.u64s(&[
            (*id).into(),
            state.first_batch,
            state.next_batch,
            state.end,
            state.file_bytes,
            state.salt,
            damaged,
        ]);
        out.u64s(&[state.torn.len() as u64]);
        state.torn.iter().for_each(|(from, to)| out.u64s(&[*from, *to]));
    }
    out.u64s(&[index.meta.len() as u64]);
    let mut marks: Marks = index.marks.iter().map(|(queue, last)| (*queue, *last)).collect();
    marks.sort_unstable();
    (index.live_queues().collect(), marks)
}

fn write_queue(out: &mut Writer<'_>, queue: u64, pieces: &Pieces) {
    out.u64s(&[queue, pieces.groups().count() as u64]);
    for (first, count, packed) in pieces.groups() {
        out.u64s(&[first]);
        out.u32(count);
        out.counted(packed.bytes());
    }
}

/// Why a checkpoint cannot be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    Header(HeaderError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(crate) fn read(file: &dyn DiskFile, verify: bool) -> Result<Checkpoint, ReadError> {
    const DAMAGED: ReadError = ReadError::Header(HeaderError::Damaged);
    let mut source = Source::new(file, 0)?;
    let header = source.take(HEADER_BYTES)?.ok_or(DAMAGED)?;
    let version = FileHeader::version(header).unwrap_or_default();
    let header = FileHeader::decode(header, FileKind::Checkpoint, verify).map_err(ReadError::Header)?;
    let [length, crc, ..] = header.fields;
    if verify && (source.left() != length || u64::from(source.checksum()?) != crc) {
        return Err(DAMAGED);
    }
    let mut source = Source::new(file, HEADER_BYTES as u64)?;
    let read = if version > 1 { read_body(&mut source, &header) } else { read_body_1(&mut source, &header) };
    let mut checkpoint = match (read, source.failure) {
        (_, Some(error)) => return Err(error.into()),
        (read, None) => read.ok_or(DAMAGED)?,
    };
    checkpoint.index.count_live();
    Ok(checkpoint)
}

fn read_body(source: &mut Source<'_>, header: &FileHeader) -> Option<Checkpoint> {
    let mut index = Index::default();
    let head = read_head(source, header)?;
    read_small(source, &mut index)?;
    for _ in 0..source.u64()? {
        let queue = source.u64()?;
        let mut pieces = Pieces::default();
        let mut before = None;
        for _ in 0..source.u64()? {
            let (first, count) = (source.u64()?, source.u32()?);
            before = Some(pieces.push_group(before, first, count as usize, source.counted()?)?);
        }
        if !pieces.is_empty() {
            index.queues.insert(queue, pieces);
        }
    }
    for _ in 0..source.u64()? {
        let (queue, last) = (source.u64()?, source.u64()?);
        index.marks.insert(queue, last);
    }
    Some(Checkpoint { head, index })
}

fn read_body_1(source: &mut Source<'_>, header: &FileHeader) -> Option<Checkpoint> {
    let mut index = Index::default();
    let head = read_head(source, header)?;
    read_small(source, &mut index)?;
    for _ in 0..source.u64()? {
        let queue = source.u64()?;
        let mut pieces = Pieces::default();
        for _ in 0..source.u64()? {
            let (first, last, bytes) = (source.u64()?, source.u64()?, source.u64()?);
            let piece = Piece { last, bytes, segment: source.u32()?, entry: source.u32()? };
            let is_behind = pieces.last().is_none_or(|last| last < first);
            (is_behind && first <= last).then(|| pieces.put(first, piece))?;
        }
        index.queues.insert(queue, pieces);
    }
    Some(Checkpoint { head, index })
}

fn read_head(source: &mut Source<'_>, header: &FileHeader) -> Option<Head> {
    let (next_batch, segment) = (source.u64()?, SegmentId::try_from(source.u64()?).ok()?);
    Some(Head { store: header.store, number: header.number, next_batch, segment })
}

/// Segments and metadata.
fn read_small(source: &mut Source<'_>, index: &mut Index) -> Option<()> {
    for _ in 0..source.u64()? {
        let id = SegmentId::try_from(source.u64()?).ok()?;
        let (first_batch, next_batch, end) = (source.u64()?, source.u64()?, source.u64()?);
        let (file_bytes, salt, is_damaged) = (source.u64()?, source.u64()?, source.u64()? != 0);
        let torn = (0..source.u64()?).map_while(|_| Some((source.u64()?, source.u64()?))).collect();
        let state = Segment { salt, first_batch, next_batch, end, file_bytes, torn, is_damaged, ..Segment::default() };
        index.segments.insert(id, state);
    }
    for _ in 0..source.u64()? {
        let key = source.counted()?.to_vec();
        let value = source.counted()?.to_vec();
        index.meta.insert(key, value);
    }
    Some(())
}

/// Gathers what is written to the file in parts.
struct Writer<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    crc: u32,
    part: Vec<u8>,
}

impl Writer<'_> {
    fn u64s(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.part.extend_from_slice(&number.to_le_bytes()));
    }

    fn u32(&mut self, number: usize) {
        self.part.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn counted(&mut self, bytes: &[u8]) {
        self.u32(bytes.len());
        self.part.extend_from_slice(bytes);
    }

    const fn is_long(&self) -> bool {
        self.part.len() >= PART_BYTES
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.part, self.position)?;
        self.crc = crc32c::crc32c_append(self.crc, &self.part);
        self.position += self.part.len() as u64;
        self.part.clear();
        Ok(())
    }
}

/// Takes a file apart from its front.
struct Source<'a> {
    file: &'a dyn DiskFile,
    /// Where the next part begins, and where the file ends.
    position: u64,
    end: u64,
    part: Vec<u8>,
    taken: usize,
    /// Why there was nothing more, other than that the file has ended.
    failure: Option<io::Error>,
}

impl<'a> Source<'a> {
    fn new(file: &'a dyn DiskFile, position: u64) -> io::Result<Self> {
        let end = file.length()?;
        Ok(Self { file, position, end, part: Vec::new(), taken: 0, failure: None })
    }

    /// Bytes that have not been taken.
    const fn left(&self) -> u64 {
        self.end - self.position + (self.part.len() - self.taken) as u64
    }

    /// The checksum of all that has not been taken, which is taken.
    fn checksum(&mut self) -> io::Result<u32> {
        let mut crc = crc32c::crc32c(self.part.get(self.taken..).unwrap_or_default());
        self.taken = self.part.len();
        while self.position < self.end {
            let wanted = usize::try_from(self.left()).unwrap_or(usize::MAX).min(PART_BYTES);
            let Some(bytes) = self.take(wanted)? else { break };
            crc = crc32c::crc32c_append(crc, bytes);
        }
        Ok(crc)
    }

    /// The next bytes; none when the file ends before.
    fn take(&mut self, count: usize) -> io::Result<Option<&[u8]>> {
        if self.left() < count as u64 {
            return Ok(None);
        }
        if self.part.len() - self.taken < count {
            self.part.drain(..self.taken);
            self.taken = 0;
            let had = self.part.len();
            let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
            self.part.resize(had + (count - had).max(PART_BYTES).min(left), 0);
            let found = self.file.read_at(self.part.get_mut(had..).unwrap_or_default(), self.position)?;
            self.part.truncate(had + found);
            self.position += found as u64;
        }
        let bytes = self.part.get(self.taken..).and_then(|rest| rest.get(..count));
        if bytes.is_some() {
            self.taken += count;
        }
        Ok(bytes)
    }

    fn some(&mut self, count: usize) -> Option<&[u8]> {
        // Written out, since the borrow of what is taken must not reach the place for the error.
        match self.take(count) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => {
                self.failure = Some(error);
                return None;
            }
        }
        self.part.get(self.taken.checked_sub(count)?..self.taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Reader(self.some(4)?).u32()
    }

    fn u64(&mut self) -> Option<u64> {
        Reader(self.some(8)?).u64()
    }

    fn counted(&mut self) -> Option<&[u8]> {
        let count = self.u32()?;
        self.some(count as usize)
    }
}

/// How much is written and read at once.
const PART_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::sim::SimDisk;

    #[test]
    fn checkpoint_reads_back_and_every_flipped_bit_is_noticed() {
        let mut index = Index::default();
        index.put_meta(b"k", Some(b"v"));
        index.segments.insert(3, Segment { salt: 1, end: 99, next_batch: 8, ..Segment::default() });
        let piece = Piece { last: 9, bytes: 100, segment: 3, entry: 4 };
        index.queues.insert(7, [(5, piece)].into_iter().collect());
        index.mark(7, 6);
        index.mark(8, 1);
        let (disk, head) = (SimDisk::new(1), Head { store: 11, number: 12, next_batch: 8, segment: 3 });
        let file = disk.create("checkpoint").unwrap();
        let length = write(&*file, &head, || &index).unwrap();
        assert_eq!(file.length().unwrap(), length);
        let found = read(&*file, true).unwrap();
        assert_eq!((found.head, found.index.marks), (head, index.marks));
        assert_eq!((found.index.meta, found.index.queues[&7].from(0).next()), (index.meta, Some((5, piece))));
        assert_eq!((found.index.segments[&3].live_count, found.index.segments[&3].salt), (5, 1));
        let again = || disk.open("checkpoint", crate::disk::Access::Read).map(|file| read(&*file, true));
        for bit in 0..length * 8 {
            disk.flip("checkpoint", bit);
            assert!(matches!(again(), Ok(Err(ReadError::Header(HeaderError::Damaged)))), "bit {bit}");
            disk.flip("checkpoint", bit);
        }
        let whole = disk.contents("checkpoint").unwrap();
        for length in 0..whole.len() {
            disk.put("checkpoint", &whole[..length]);
            assert!(again().unwrap().is_err(), "cut at {length}");
        }
    }

    #[test]
    fn large_state_is_written_and_read_in_parts() {
        let mut index = Index::default();
        for key in 0..20_000_u32 {
            index.put_meta(&key.to_le_bytes(), Some(&[key as u8; 50]));
        }
        index.put_meta(b"long", Some(&vec![9; 3 * PART_BYTES]));
        for queue in 0..20_000 {
            let piece = |last| Piece { last, bytes: last, segment: queue as u32, entry: 4 };
            let pieces: Pieces = [(5, piece(9)), (queue + 20, piece(queue + 30))].into_iter().collect();
            index.queues.insert(queue, pieces);
        }
        let (disk, head) = (SimDisk::new(1), Head { store: 11, number: 12, next_batch: 8, segment: 3 });
        let file = disk.create("checkpoint").unwrap();
        write(&*file, &head, || &index).unwrap();
        let found = read(&*file, true).unwrap().index;
        assert!(found.meta == index.meta && found.queues.len() == 20_000);
        let is_same = |(queue, pieces): (&u64, &Pieces)| pieces.iter().eq(index.queues[queue].iter());
        assert!(found.queues.iter().all(is_same));
    }
}
