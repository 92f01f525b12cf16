//! Looking at a folder without changing it: is everything what was written, and how much is there.

use std::fmt;
use std::path::Path;

use plugin_api::storage::Recovered;

use crate::checkpoint;
use crate::disk::{Access, Disk, RealDisk};
use crate::error::{Damage, OpenError};
use crate::index::{Index, Segment, lay_out};
use crate::log::lock_to_read;
use crate::names;
use crate::recovery::{self, Loaded};
use crate::scan::Walk;
use crate::sidecar::{self, SidecarError};

/// What [`check`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// The folder.
    pub folder: String,
    /// How many segments were read.
    pub segments: u64,
    /// How many commits are sound.
    pub frames: u64,
    /// How many records are in them.
    pub records: u64,
    /// How many bytes of frames were read.
    pub bytes: u64,
    /// Live messages, counted once for each queue.
    pub live_messages: u64,
    /// Commits that were being written when a broker ended. Nothing in them was promised.
    pub torn: Vec<Damage>,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
}

impl CheckReport {
    /// Whether everything is what was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for damage in &self.damage {
            writeln!(f, "damaged: {damage}")?;
        }
        for torn in &self.torn {
            writeln!(f, "torn, nothing promised: {torn}")?;
        }
        let verdict =
            if self.is_sound() { "sound".to_owned() } else { format!("{} damaged places", self.damage.len()) };
        write!(
            f,
            "{}: {verdict}; {} segments, {} commits, {} records, {} bytes, {} live messages",
            self.folder, self.segments, self.frames, self.records, self.bytes, self.live_messages
        )
    }
}

/// What [`stats`] counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsReport {
    /// The folder.
    pub folder: String,
    /// Segments with frames.
    pub segments: u64,
    /// Emptied files that wait for being used again.
    pub recycled: u64,
    /// All files together.
    pub file_bytes: u64,
    /// What live messages take of the segments.
    pub live_bytes: u64,
    /// Live messages, counted once for each queue.
    pub live_messages: u64,
    /// Queues with live messages.
    pub queues: u64,
    /// Runs of live messages, 32 bytes of memory each.
    pub runs: u64,
    /// Metadata entries.
    pub meta_entries: u64,
}

impl fmt::Display for StatsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, segments, recycled, file_bytes, live_bytes, live_messages, queues, runs, meta_entries } =
            self;
        writeln!(f, "{folder}")?;
        writeln!(f, "  messages      {live_messages} in {queues} queues, {live_bytes} bytes, {runs} runs")?;
        writeln!(f, "  definitions   {meta_entries}")?;
        write!(f, "  files         {file_bytes} bytes, {segments} segments, {recycled} recycled")
    }
}

/// What a start would find in a folder that no broker is using: definitions, and which messages there are.
///
/// # Errors
/// When the folder cannot be read as one of ours.
pub fn contents(folder: &Path) -> Result<Recovered, OpenError> {
    let (loaded, _lock) = open(&RealDisk::new(folder))?;
    Ok(loaded.index.recovered())
}

/// Reads and verifies every frame of a folder that no broker is using.
///
/// # Errors
/// When the folder cannot be read as one of ours; damage is no error but in the report.
pub fn check(folder: &Path) -> Result<CheckReport, OpenError> {
    check_disk(&RealDisk::new(folder))
}

/// Counts what is in a folder that no broker is using.
///
/// # Errors
/// When the folder cannot be read as one of ours.
pub fn stats(folder: &Path) -> Result<StatsReport, OpenError> {
    stats_disk(&RealDisk::new(folder))
}

/// As [`stats`], on any disk.
///
/// # Errors
/// See [`stats`].
pub fn stats_disk(disk: &dyn Disk) -> Result<StatsReport, OpenError> {
    let (loaded, _lock) = open(disk)?;
    let index = &loaded.index;
    Ok(StatsReport {
        folder: disk.title(),
        segments: index.segments.len() as u64,
        recycled: loaded.recycled.len() as u64,
        file_bytes: loaded.files.values().sum(),
        live_bytes: index.live_bytes(),
        live_messages: index.live_count(),
        queues: index.live_queues().count() as u64,
        runs: index.queues.values().map(|pieces| pieces.iter().count() as u64).sum(),
        meta_entries: index.meta.len() as u64,
    })
}

/// As [`check`], on any disk.
///
/// # Errors
/// See [`check`].
pub fn check_disk(disk: &dyn Disk) -> Result<CheckReport, OpenError> {
    let (mut loaded, _lock) = open(disk)?;
    let failed = |error| OpenError::io(&disk.title(), "reading it", error);
    let mut report = CheckReport {
        folder: disk.title(),
        live_messages: loaded.index.live_count(),
        damage: std::mem::take(&mut loaded.damage),
        torn: std::mem::take(&mut loaded.torn),
        ..CheckReport::default()
    };
    let unread: Vec<u64> =
        loaded.checkpoints.iter().copied().filter(|number| !loaded.damaged_checkpoints.contains(number)).collect();
    for number in unread {
        let name = names::checkpoint(number);
        let file = disk.open(&name, Access::Read).map_err(failed)?;
        let bytes = file.length().map_err(failed)?;
        if checkpoint::read(&*file, true).is_err() {
            let what = "the checkpoint cannot be read".to_owned();
            report.damage.push(Damage { file: name, offset: 0, bytes, what });
        }
    }
    for (id, state) in &loaded.index.segments {
        check_segment(disk, &loaded, *id, state, &mut report).map_err(failed)?;
    }
    report.damage.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    report.damage.dedup();
    Ok(report)
}

fn check_segment(
    disk: &dyn Disk,
    loaded: &Loaded,
    id: u32,
    state: &Segment,
    report: &mut CheckReport,
) -> std::io::Result<()> {
    let file = disk.open(&names::segment(id), Access::Read)?;
    let walk = Walk { segment: id, salt: state.salt, first_batch: state.first_batch, verify: true };
    let resident = Segment { resident: Some(plugin_api::hash::Map::default()), ..Segment::default() };
    let mut index = Index::default();
    index.segments.insert(id, resident);
    let walked = walk.run(&*file, |_, offset, record, length| {
        recovery::apply(&mut index, id, record, offset, length, false);
    })?;
    report.segments += 1;
    report.frames += walked.frames.len() as u64;
    report.records += walked.records;
    report.bytes += walked.end;
    // The segments of the tail have been judged when they were loaded.
    if !loaded.tail.contains(&id) {
        let mut tell = |offset, bytes, (from, to): (u64, u64)| {
            let what = format!("commits {from} to {} cannot be read", to.saturating_sub(1));
            report.damage.push(Damage { file: names::segment(id), offset, bytes, what });
        };
        let gaps = walked.gaps.iter().filter(|gap| !state.torn.contains(&gap.batches));
        gaps.for_each(|gap| tell(gap.offset, gap.bytes, gap.batches));
        if walked.next_batch < state.next_batch {
            tell(walked.end, 0, (walked.next_batch, state.next_batch));
        }
    }
    let name = names::index(id);
    if !loaded.files.contains_key(&name) {
        return Ok(());
    }
    let resident = index.segments.remove(&id).and_then(|state| state.resident).unwrap_or_default();
    let (runs, entries) = lay_out(&resident);
    let entries: Vec<(u32, u32)> = entries.iter().map(|entry| (entry.offset, entry.length)).collect();
    let what = match sidecar::load(disk, loaded.store, id, true) {
        Ok(found) if found == (runs, entries) => return Ok(()),
        Ok(_) if walked.gaps.is_empty() && walked.next_batch >= state.next_batch => {
            "the index does not fit its segment".to_owned()
        }
        // What the index knows more has been told above.
        Ok(_) => return Ok(()),
        Err(SidecarError::Damaged) => "the index cannot be read; the broker makes it again from its segment".to_owned(),
        Err(SidecarError::Newer(version)) => format!("the index has the unknown format {version}"),
        Err(SidecarError::Io(error)) => return Err(error),
    };
    let bytes = loaded.files.get(&name).copied().unwrap_or_default();
    report.damage.push(Damage { file: name, offset: 0, bytes, what });
    Ok(())
}

/// Reads a folder with a lock that lets others read, too, if the folder has ever been locked.
fn open(disk: &dyn Disk) -> Result<(Loaded, Option<Box<dyn Send + Sync>>), OpenError> {
    let lock = lock_to_read(disk)?;
    let loaded = recovery::load(disk, true)?.ok_or_else(|| OpenError::Empty { folder: disk.title() })?;
    Ok((loaded, lock))
}
