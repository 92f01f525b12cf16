//! Opening a folder: lock, read, sync what is there, begin a new segment.

use std::io;
use std::sync::Arc;

use plugin_api::storage::StorageError;

use super::{Active, Log, Room, segments};
use crate::checkpoint::{self, Head};
use crate::disk::{Access, Disk, DiskFile, read_whole};
use crate::error::OpenError;
use crate::index::Index;
use crate::index::pieces::SegmentId;
use crate::names;
use crate::options::Options;
use crate::recovery::{self, Loaded};
use crate::shared::Shared;

impl Log {
    /// Opens a folder, or makes it one that holds nothing.
    ///
    /// # Errors
    /// What speaks against it; the folder is then as it was, but for the lock file in one that is ours.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let folder = disk.title();
        let names = disk.list().map_err(|error| OpenError::io(&folder, "listing it", error))?;
        if !names.iter().any(|(name, _)| name == names::LOCK) {
            // A folder of somebody else must not even get a lock file, nor one that is not in order.
            recovery::load(&*disk, options.verifies())?;
        }
        let lock = lock(&*disk, Access::Write)?;
        let loaded = recovery::load(&*disk, options.verifies())?;
        // For the sentence that another process shows; the lock itself is the operating system's. Nobody relies on it.
        let process = format!("{:<20}", std::process::id());
        drop(disk.open(names::LOCK, Access::Write).and_then(|file| file.write_at(process.as_bytes(), 0)));
        let (loaded, is_new) = match loaded {
            Some(loaded) => (loaded, false),
            None => (new_folder(&*disk, &options)?, true),
        };
        let failed = |error| OpenError::io(&folder, "preparing it", error);
        let mut log = Self::with(disk, options, lock, &loaded).map_err(failed)?;
        log.begin(loaded, is_new).map_err(|error| log.open_error(error))?;
        Ok(log)
    }

    fn with(disk: Arc<dyn Disk>, options: Options, lock: Box<dyn Send + Sync>, loaded: &Loaded) -> io::Result<Self> {
        let salts = segments::Salts::new(options.seed);
        let index = Index::default();
        let shared = Arc::new(Shared::new(disk, options, loaded.store, index));
        let nothing: Arc<dyn DiskFile> = Arc::new(NoFile);
        Ok(Self {
            shared,
            active: Active { id: 0, file: nothing, position: 0, capacity: 0, written: 0, salt: 0 },
            next_batch: loaded.next_batch,
            synced_batch: loaded.next_batch,
            promised_batch: loaded.promised_batch,
            pending: Vec::new(),
            since_checkpoint_bytes: 0,
            checkpoint_number: loaded.checkpoint_number,
            checkpoint_bytes: 0,
            is_checkpoint_sound: loaded.damaged_checkpoints.is_empty(),
            dead: Vec::new(),
            recycled: Vec::new(),
            has_unwritten: false,
            has_reserve: loaded.files.contains_key(names::RESERVE),
            has_room: loaded.files.contains_key(names::ROOM),
            unmaintained: super::Unmaintained::default(),
            salts,
            buffer: Vec::new(),
            _lock: lock,
        })
    }

    /// The first writes to the folder. The tail may have been read from the operating system's memory alone: it is written
    /// once more and synced before anything of it is served. A sync by itself would not do, since after a failed one a
    /// kernel takes pages that never reached the disk for clean.
    fn begin(&mut self, loaded: Loaded, is_new: bool) -> Result<(), StorageError> {
        let shared = Arc::clone(&self.shared);
        let failed = |error: io::Error| shared.fail("preparing the folder", &error);
        if let Some((id, from, to)) = loaded.unsynced {
            let rewritten = rewrite(&*shared.disk, id, from, to);
            rewritten.map_err(|error| self.no_room_or_failed("preparing the folder", &error))?;
        }
        for id in &loaded.tail {
            let file = shared.disk.open(&names::segment(*id), Access::Write).map_err(failed)?;
            shared.sync_data(&*file).map_err(failed)?;
        }
        shared.sync_folder().map_err(failed)?;
        for name in &loaded.leftovers {
            shared.disk.remove(name).map_err(failed)?;
        }
        for number in &loaded.damaged_checkpoints {
            let name = names::checkpoint(*number);
            shared.disk.rename(&name, &names::quarantined(&name)).map_err(failed)?;
        }
        loaded.damage.into_iter().for_each(|damage| shared.report(damage));
        for torn in &loaded.torn {
            plugin_api::host::log(plugin_api::host::Level::Info, crate::shared::TARGET, format_args!("{torn}"));
        }
        let last = loaded.index.segments.keys().next_back().copied().unwrap_or(0);
        let resident: Vec<_> =
            loaded.index.segments.iter().filter(|(_, state)| state.resident.is_some()).map(|(id, _)| *id).collect();
        *shared.index() = loaded.index;
        // Messages that come from now on may get positions below an old mark. The checkpoint below has it in writing.
        self.has_unwritten |= shared.index().trim_marks();
        self.keep_recycled(loaded.recycled)?;
        for id in resident {
            self.seal(id)?;
        }
        self.active = self.make_segment(last + 1, 0, Room::Reserve)?;
        if is_new {
            self.checkpoint_number = 1;
        } else {
            self.checkpoint()?;
        }
        let has_reserves = self.make_reserves()?;
        self.shared.set_full(!has_reserves);
        Ok(())
    }

    fn open_error(&self, error: StorageError) -> OpenError {
        let folder = self.shared.disk.title();
        match error {
            StorageError::Full(detail) => OpenError::Full { folder, detail },
            StorageError::Failed(detail) | StorageError::Damaged(detail) => {
                OpenError::Io { folder, doing: "preparing it", error: io::Error::other(detail) }
            }
        }
    }
}

/// Writes a part of a segment again as it is.
fn rewrite(disk: &dyn Disk, id: SegmentId, from: u64, to: u64) -> io::Result<()> {
    let file = disk.open(&names::segment(id), Access::Write)?;
    let mut bytes = vec![0; REWRITE_BYTES];
    let mut offset = from;
    while offset < to {
        let wanted = usize::try_from(to - offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = file.read_at(bytes.get_mut(..wanted).unwrap_or_default(), offset)?;
        if count == 0 {
            // Only the zeros behind the last frame can be missing.
            break;
        }
        file.write_at(bytes.get(..count).unwrap_or_default(), offset)?;
        offset += count as u64;
    }
    Ok(())
}

const REWRITE_BYTES: usize = 1 << 20;

/// The lock of somebody who changes nothing; none in a folder that was never locked, such as a copy.
pub(crate) fn lock_to_read(disk: &dyn Disk) -> Result<Option<Box<dyn Send + Sync>>, OpenError> {
    match disk.open(names::LOCK, Access::Read) {
        Ok(_) => lock(disk, Access::Read).map(Some),
        Err(_) => Ok(None),
    }
}

fn lock(disk: &dyn Disk, access: Access) -> Result<Box<dyn Send + Sync>, OpenError> {
    let folder = disk.title();
    disk.lock(names::LOCK, access).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let read = disk.open(names::LOCK, Access::Read).and_then(|file| read_whole(&*file)).ok();
            let text = read.and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| text.trim().to_owned());
            let process = text.filter(|text| !text.is_empty());
            OpenError::InUse { folder, process }
        }
        _ => OpenError::io(&folder, "locking it", error),
    })
}

/// The first checkpoint, before the first segment: a segment without a checkpoint is a folder with something missing.
fn new_folder(disk: &dyn Disk, options: &Options) -> Result<Loaded, OpenError> {
    let folder = disk.title();
    let store = segments::Salts::new(options.seed).next();
    let head = Head { store, number: 1, next_batch: 1, segment: 1 };
    let empty = Index::default();
    let name = names::checkpoint(1);
    let temporary = names::temporary(&name);
    disk.create(&temporary)
        .and_then(|file| {
            checkpoint::write(&*file, &head, || &empty)?;
            file.sync_data()
        })
        .and_then(|()| disk.rename(&temporary, &name))
        .and_then(|()| disk.sync_folder())
        .map_err(|error| OpenError::io(&folder, "making its first files", error))?;
    recovery::load(disk, options.verifies())?.ok_or(OpenError::Empty { folder })
}

/// Stands in until the first segment is there.
struct NoFile;

impl DiskFile for NoFile {
    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }
}
