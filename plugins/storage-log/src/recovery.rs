//! Reads a folder without changing anything in it: the newest sound checkpoint, and the log behind it.
//!
//! Used at start and by `check`. Whatever speaks against opening a folder is found here, before the first write.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::{self, Checkpoint, ReadError};
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Damage, OpenError};
use crate::format::record::Record;
use crate::format::{FORMAT_VERSION, FileHeader, FileKind, HEADER_BYTES, HEADER_COPY_OFFSET, HeaderError};
use crate::index::pieces::SegmentId;
use crate::index::{Added, Entry, Index, Segment, local_runs};
use crate::names::{self, Named};
use crate::scan::{Walk, Walked};

/// What a folder holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) store: u64,
    pub(crate) index: Index,
    pub(crate) next_batch: u64,
    /// All batches below this one were durable before the broker ended.
    pub(crate) promised_batch: u64,
    /// The part of the last segment that may never have reached the disk, though it can be read: from and to.
    pub(crate) unsynced: Option<(SegmentId, u64, u64)>,
    /// The newest number that a checkpoint has, sound or not.
    pub(crate) checkpoint_number: u64,
    /// Checkpoints that cannot be read.
    pub(crate) damaged_checkpoints: Vec<u64>,
    pub(crate) checkpoints: Vec<u64>,
    /// The segments behind the checkpoint, whose contents are to be synced before they are served.
    pub(crate) tail: Vec<SegmentId>,
    /// What is wrong.
    pub(crate) damage: Vec<Damage>,
    /// What a crash has left, and was never promised.
    pub(crate) torn: Vec<Damage>,
    pub(crate) recycled: Vec<(SegmentId, u64)>,
    /// Files that nothing refers to.
    pub(crate) leftovers: Vec<String>,
    /// Names and lengths of all files.
    pub(crate) files: BTreeMap<String, u64>,
}

/// `None` when the folder is new.
pub(crate) fn load(disk: &dyn Disk, verify: bool) -> Result<Option<Loaded>, OpenError> {
    let folder = disk.title();
    let files: BTreeMap<String, u64> =
        disk.list().map_err(|error| OpenError::io(&folder, "listing it", error))?.into_iter().collect();
    let names = Names::sort(&folder, &files)?;
    let Some(found) = newest(disk, &folder, &names, verify)? else { return Ok(None) };
    let (checkpoint, damaged_checkpoints) = found;
    let mut loader = Loader { disk, folder, verify, store: checkpoint.head.store, names: &names, files: &files };
    let mut loaded = Loaded {
        store: checkpoint.head.store,
        next_batch: checkpoint.head.next_batch,
        promised_batch: checkpoint.head.next_batch,
        unsynced: None,
        checkpoint_number: names.checkpoints.last().copied().unwrap_or(checkpoint.head.number),
        checkpoints: names.checkpoints.iter().copied().collect(),
        damage: damaged_checkpoints
            .iter()
            .map(|number| Damage {
                file: names::checkpoint(*number),
                offset: 0,
                bytes: files.get(&names::checkpoint(*number)).copied().unwrap_or_default(),
                what: "checkpoint cannot be read; an older one stands in for it".to_owned(),
            })
            .collect(),
        damaged_checkpoints,
        tail: Vec::new(),
        torn: Vec::new(),
        recycled: names
            .recycled
            .iter()
            .map(|id| (*id, files.get(&names::recycled(*id)).copied().unwrap_or(0)))
            .collect(),
        leftovers: names.temporary.clone(),
        files: files.clone(),
        index: Index::default(),
    };
    let (next_batch, segment) = (checkpoint.head.next_batch, checkpoint.head.segment);
    loaded.index = checkpoint.index;
    loader.settled_segments(&mut loaded, segment)?;
    loader.tail(&mut loaded, segment, next_batch)?;
    Ok(Some(loaded))
}

/// Applies one record of the log to the index.
pub(crate) fn apply(
    index: &mut Index,
    segment: SegmentId,
    record: &Record<'_>,
    offset: u64,
    length: usize,
    is_live: bool,
) {
    match record {
        Record::Message(message) => {
            let targets = message.targets();
            let bytes = length as u64 / (targets.len() as u64).max(1);
            for (queue, seq) in targets {
                let entry = Entry {
                    seq,
                    offset: u32::try_from(offset).unwrap_or(u32::MAX),
                    length: u32::try_from(length).unwrap_or(u32::MAX),
                };
                index.add(segment, &Added { queue, entry, bytes }, is_live);
            }
        }
        _ if !is_live => {}
        Record::Settle(ranges) => ranges.iter().for_each(|(queue, first, last)| index.settle(queue, first, last)),
        Record::Delete(queue) => index.delete(*queue),
        Record::Mark(marks) => marks.iter().for_each(|(queue, last)| index.mark(queue, last)),
        Record::PutMeta { key, value } => index.put_meta(key, Some(value)),
        Record::DropMeta { key } => index.put_meta(key, None),
    }
}

/// The files of a folder by kind.
#[derive(Debug, Default)]
struct Names {
    segments: BTreeSet<SegmentId>,
    indexes: BTreeSet<SegmentId>,
    checkpoints: BTreeSet<u64>,
    recycled: BTreeSet<SegmentId>,
    temporary: Vec<String>,
}

impl Names {
    fn sort(folder: &str, files: &BTreeMap<String, u64>) -> Result<Self, OpenError> {
        let mut names = Self::default();
        let mut foreign = Vec::new();
        for name in files.keys() {
            match names::parse(name) {
                Named::Segment(id) => drop(names.segments.insert(id)),
                Named::Index(id) => drop(names.indexes.insert(id)),
                Named::Checkpoint(number) => drop(names.checkpoints.insert(number)),
                Named::Recycled(id) => drop(names.recycled.insert(id)),
                Named::Temporary => names.temporary.push(name.clone()),
                Named::Other => {}
                Named::Foreign => foreign.push(name.clone()),
            }
        }
        if !foreign.is_empty() {
            let count = foreign.len();
            foreign.truncate(FOREIGN_SHOWN);
            if count > foreign.len() {
                foreign.push(format!("and {} more", count - foreign.len()));
            }
            return Err(OpenError::Foreign { folder: folder.to_owned(), names: foreign });
        }
        Ok(names)
    }
}

/// The newest checkpoint that can be read, and the numbers of those that cannot.
fn newest(
    disk: &dyn Disk,
    folder: &str,
    names: &Names,
    verify: bool,
) -> Result<Option<(Checkpoint, Vec<u64>)>, OpenError> {
    let mut damaged = Vec::new();
    for number in names.checkpoints.iter().rev() {
        let name = names::checkpoint(*number);
        let failed = |error| OpenError::io(folder, "reading a checkpoint", error);
        let file = disk.open(&name, Access::Read).map_err(failed)?;
        match checkpoint::read(&*file, verify) {
            Ok(checkpoint) if checkpoint.head.number == *number => return Ok(Some((checkpoint, damaged))),
            Ok(_) | Err(ReadError::Header(HeaderError::Damaged)) => damaged.push(*number),
            Err(ReadError::Header(HeaderError::Newer(found))) => return Err(newer(folder, name, found)),
            Err(ReadError::Io(error)) => return Err(failed(error)),
        }
    }
    if damaged.is_empty() && names.segments.is_empty() {
        return Ok(None);
    }
    let files = damaged.into_iter().map(names::checkpoint).collect();
    Err(OpenError::NoCheckpoint { folder: folder.to_owned(), files })
}

fn newer(folder: &str, file: String, found: u32) -> OpenError {
    OpenError::Newer { folder: folder.to_owned(), file, found, known: FORMAT_VERSION }
}

/// A segment behind the checkpoint, and what its walk found.
struct Tail {
    id: SegmentId,
    first_batch: u64,
    /// From its header: all batches below this one were durable when it was made.
    promised: u64,
    walked: Walked,
}

struct Loader<'a> {
    disk: &'a dyn Disk,
    folder: String,
    verify: bool,
    store: u64,
    names: &'a Names,
    files: &'a BTreeMap<String, u64>,
}

impl Loader<'_> {
    /// Segments before the checkpoint's: they must be there if anything in them is live; they are not read.
    fn settled_segments(&mut self, loaded: &mut Loaded, first_of_tail: SegmentId) -> Result<(), OpenError> {
        let known: Vec<SegmentId> = loaded.index.segments.keys().copied().filter(|id| *id < first_of_tail).collect();
        for id in known {
            if !self.names.segments.contains(&id) {
                if loaded.index.segments.get(&id).is_some_and(|state| state.live_count > 0) {
                    return Err(OpenError::MissingSegment { folder: self.folder.clone(), file: names::segment(id) });
                }
                loaded.index.segments.remove(&id);
                continue;
            }
            if loaded.index.segments.get(&id).is_some_and(|state| state.is_damaged) {
                let what = "was found damaged before; `broker store check` tells where".to_owned();
                loaded.damage.push(Damage { file: names::segment(id), offset: 0, bytes: 0, what });
            }
            let file = self.open(id)?;
            let header = self.header(id, &*file, &mut loaded.damage)?;
            if let (Some(header), Some(state)) = (header, loaded.index.segments.get_mut(&id)) {
                [state.first_batch, state.salt, ..] = header.fields;
            }
            let needs_index = loaded.index.segments.get(&id).is_some_and(|state| state.live_count > 0);
            if needs_index && !self.names.indexes.contains(&id) {
                reindex(&mut loaded.index, id, &*file, self.verify, &mut loaded.damage)
                    .map_err(|error| OpenError::io(&self.folder, "reading a segment", error))?;
            }
        }
        let is_known = |id: &SegmentId| *id >= first_of_tail || loaded.index.segments.contains_key(id);
        let unknown = self.names.segments.iter().filter(|id| !is_known(id)).map(|id| names::segment(*id));
        loaded.leftovers.extend(unknown);
        let has_segment = |id: &SegmentId| self.names.segments.contains(id) && is_known(id);
        loaded.leftovers.extend(self.names.indexes.iter().filter(|id| !has_segment(id)).map(|id| names::index(*id)));
        Ok(())
    }

    /// The checkpoint's segment and all later ones: read, and applied from the checkpoint's batch on.
    fn tail(&mut self, loaded: &mut Loaded, first: SegmentId, next_batch: u64) -> Result<(), OpenError> {
        let ids: Vec<SegmentId> = self.names.segments.range(first..).copied().collect();
        for (id, expected) in ids.iter().zip(first..) {
            if *id != expected {
                return Err(OpenError::MissingSegment { folder: self.folder.clone(), file: names::segment(expected) });
            }
        }
        if ids.is_empty() && loaded.index.segments.contains_key(&first) {
            return Err(OpenError::MissingSegment { folder: self.folder.clone(), file: names::segment(first) });
        }
        let mut walks = Vec::new();
        for id in &ids {
            let file = self.open(*id)?;
            let header = self.header(*id, &*file, &mut loaded.damage)?;
            let known = loaded.index.segments.get(id).cloned();
            let [first_batch, salt, promised, _] = match (header, &known) {
                (Some(header), _) => header.fields,
                (None, Some(state)) => [state.first_batch, state.salt, 0, 0],
                // Nothing in it can be believed. Its batches are counted by the next segment.
                (None, None) => [loaded.next_batch, 0, 0, 0],
            };
            let mut state = known.unwrap_or_default();
            state.file_bytes = self.files.get(&names::segment(*id)).copied().unwrap_or_default();
            state.is_damaged |= header.is_none();
            loaded
                .index
                .segments
                .insert(*id, Segment { first_batch, salt, resident: Some(plugin_api::hash::Map::default()), ..state });
            let walk = Walk { segment: *id, salt, first_batch, verify: self.verify };
            let index = &mut loaded.index;
            let walked = walk
                .run(&*file, |batch, offset, record, length| {
                    apply(index, *id, record, offset, length, batch >= next_batch);
                })
                .map_err(|error| OpenError::io(&self.folder, "reading a segment", error))?;
            loaded.next_batch = loaded.next_batch.max(walked.next_batch);
            walks.push(Tail { id: *id, first_batch, promised, walked });
        }
        self.judge(loaded, &walks, first, next_batch);
        loaded.tail = ids;
        Ok(())
    }

    /// Tells damage from what a crash has left.
    fn judge(&self, loaded: &mut Loaded, walks: &[Tail], first: SegmentId, next_batch: u64) {
        // Read from the end, since each segment's header tells what was durable of the one before.
        let mut following: Option<(u64, u64)> = None;
        for Tail { id, first_batch, promised: promised_before, walked } in walks.iter().rev() {
            let promised = next_batch.max(walked.synced).max(following.map_or(0, |(_, promised)| promised));
            if following.is_none() {
                loaded.promised_batch = promised;
                let first = walked.frames.iter().find(|(batch, _)| *batch >= promised);
                loaded.unsynced = first.map(|(_, offset)| (*id, *offset, walked.end));
            }
            let following_batch = following.map(|(first_batch, _)| first_batch);
            let expected = following_batch.unwrap_or(if *id == first { next_batch } else { 0 });
            let mut is_damaged = false;
            let mut tell = |gap: (u64, u64, u64, u64), is_promised: bool| {
                let (offset, bytes, from, to) = gap;
                let file = names::segment(*id);
                let what = if is_promised {
                    format!("commits {from} to {} cannot be read", to.saturating_sub(1))
                } else {
                    format!("commits {from} to {} were being written when the broker ended", to.saturating_sub(1))
                };
                let damage = Damage { file, offset, bytes, what };
                is_damaged |= is_promised;
                if is_promised { loaded.damage.push(damage) } else { loaded.torn.push(damage) }
            };
            let mut torn = Vec::new();
            for gap in &walked.gaps {
                let (from, to) = gap.batches;
                tell((gap.offset, gap.bytes, from, to), from < promised);
                if from >= promised {
                    torn.push((from, to));
                }
            }
            if walked.next_batch < expected {
                tell((walked.end, 0, walked.next_batch, expected), true);
            } else if walked.is_torn {
                tell((walked.end, 0, walked.next_batch, walked.next_batch + 1), false);
            }
            if let Some(state) = loaded.index.segments.get_mut(id) {
                state.end = walked.end;
                state.next_batch = walked.next_batch.max(expected);
                state.is_damaged |= is_damaged;
                state.torn = torn;
            }
            following = Some((*first_batch, *promised_before));
            if is_damaged && *id == first {
                // Pieces of the checkpoint count entries from the segment's start, of which some are gone.
                relink(&mut loaded.index, *id, &mut loaded.damage);
            }
        }
        loaded.damage.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    }

    fn open(&self, id: SegmentId) -> Result<std::sync::Arc<dyn DiskFile>, OpenError> {
        self.disk
            .open(&names::segment(id), Access::Read)
            .map_err(|error| OpenError::io(&self.folder, "opening a segment", error))
    }

    /// The first sound copy of a segment's header; damage is told once.
    fn header(
        &self,
        id: SegmentId,
        file: &dyn DiskFile,
        damage: &mut Vec<Damage>,
    ) -> Result<Option<FileHeader>, OpenError> {
        let name = names::segment(id);
        let mut found = None;
        for offset in [0, HEADER_COPY_OFFSET] {
            let mut bytes = [0; HEADER_BYTES];
            let count = file
                .read_at(&mut bytes, offset)
                .map_err(|error| OpenError::io(&self.folder, "reading a segment", error))?;
            match FileHeader::decode(bytes.get(..count).unwrap_or_default(), FileKind::Segment, self.verify) {
                Ok(header) if header.store != self.store || header.number != u64::from(id) => {
                    return Err(OpenError::Mixed { folder: self.folder.clone(), file: name });
                }
                Ok(header) => found = found.or(Some(header)),
                Err(HeaderError::Newer(version)) => return Err(newer(&self.folder, name, version)),
                Err(HeaderError::Damaged) => {
                    let what = "the segment's header cannot be read".to_owned();
                    damage.push(Damage { file: name.clone(), offset, bytes: HEADER_BYTES as u64, what });
                }
            }
        }
        Ok(found)
    }
}

/// Finds the messages of a segment again by reading all of it; its entries are then resident.
pub(crate) fn reindex(
    index: &mut Index,
    id: SegmentId,
    file: &dyn DiskFile,
    verify: bool,
    damage: &mut Vec<Damage>,
) -> std::io::Result<()> {
    let Some(state) = index.segments.get_mut(&id) else { return Ok(()) };
    state.resident = Some(plugin_api::hash::Map::default());
    let walk = Walk { segment: id, salt: state.salt, first_batch: state.first_batch, verify };
    walk.run(file, |_, offset, record, length| apply(index, id, record, offset, length, false))?;
    relink(index, id, damage);
    Ok(())
}

/// Points the pieces of a segment to its resident entries, and tells which messages have none.
fn relink(index: &mut Index, id: SegmentId, damage: &mut Vec<Damage>) {
    let Some(runs) = index.segments.get(&id).and_then(|state| state.resident.as_ref()).map(local_runs) else { return };
    let lost = index.attach(id, &runs);
    if let Some(state) = index.segments.get_mut(&id) {
        state.is_damaged |= !lost.is_empty();
    }
    damage.extend(lost.into_iter().map(|(queue, first, last)| Damage {
        file: names::segment(id),
        offset: 0,
        bytes: 0,
        what: format!("messages {first} to {last} of queue {queue} are lost"),
    }));
}

/// How many strange files a sentence names.
const FOREIGN_SHOWN: usize = 3;
