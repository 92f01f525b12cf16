//! A disk that forgets: what was not synced survives a crash in part, torn and out of order, or not at all.
//!
//! - A file keeps its synced bytes; each write since then is a list of sectors, of which a crash keeps any.
//! - The folder keeps its synced names; of the changes since then a crash keeps the first few, as a journal does.
//! - A failed sync keeps some of the writes, loses the others, and the next sync says that all is well.
//! - Writes and syncs can be made to fail, the disk can be full, and bits can be flipped.
//!
//! Everything that is random comes from one seed, so that a run can be repeated.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_api::testing::Random;

use crate::disk::{Access, Disk, DiskFile};

/// A simulated folder. Clones are the same folder.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    random: Random,
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the folder was synced.
    changes: Vec<Change>,
    capacity_bytes: u64,
    faults: Faults,
    is_read_only: bool,
    is_locked: bool,
    /// Counts crashes; handles of before belong to a process that is gone.
    life: u64,
    syncs: u64,
    growths: u64,
}

#[derive(Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Writes since the file was synced.
    writes: Vec<(u64, Vec<u8>)>,
    /// Where the furthest write ended.
    written: u64,
}

#[derive(Clone)]
enum Change {
    Set(String, u64),
    Remove(String),
    Rename(String, String),
}

/// What goes wrong from now on. Counts are of calls to come; 0 is the next one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// This sync of a file or the folder fails.
    pub sync_fails_in: Option<u32>,
    /// This write is cut short and fails.
    pub write_fails_in: Option<u32>,
    /// This write or sync does not come back: everything after it fails, as if the power had gone.
    pub power_fails_in: Option<u32>,
}

impl SimDisk {
    /// An empty folder.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random::new(seed),
            inodes: HashMap::new(),
            next_inode: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            capacity_bytes: u64::MAX,
            faults: Faults::default(),
            is_read_only: false,
            is_locked: false,
            life: 0,
            syncs: 0,
            growths: 0,
        })))
    }

    /// A folder of its own with the same contents, all of it durable.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        {
            let (from, mut to) = (self.state(), copy.state());
            to.names.clone_from(&from.names);
            to.durable_names.clone_from(&from.names);
            to.next_inode = from.next_inode;
            for (inode, file) in &from.inodes {
                let current = file.current.clone();
                to.inodes.insert(*inode, Inode { durable: current.clone(), current, ..Inode::default() });
            }
        }
        copy
    }

    /// The power goes and comes back: what was not synced is kept in part. The lock is free, faults are over.
    pub fn crash(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.life += 1;
        state.is_locked = false;
        state.faults = Faults::default();
        // Some crashes keep all, some nothing, most a part.
        let keep_percent = *state.random.pick(&[0, 0, 30, 60, 90, 100]);
        let kept = match keep_percent {
            0 => 0,
            100 => state.changes.len(),
            _ => state.random.below(u32::try_from(state.changes.len() + 1).unwrap_or(1)) as usize,
        };
        let mut names = state.durable_names.clone();
        state.changes.drain(..).take(kept).for_each(|change| change.apply(&mut names));
        state.names.clone_from(&names);
        state.durable_names = names;
        // In the order of names, since the order of a map is not the same in each run.
        let mut inodes: Vec<u64> = state.inodes.keys().copied().collect();
        inodes.sort_unstable();
        for inode in inodes {
            if let Some(file) = state.inodes.get_mut(&inode) {
                file.lose(&mut state.random, keep_percent);
                file.current.clone_from(&file.durable);
            }
        }
        let named: Vec<u64> = state.names.values().copied().collect();
        state.inodes.retain(|inode, _| named.contains(inode));
    }

    /// The process ends, but the machine goes on: nothing is lost, the lock is free.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.is_locked = false;
        state.faults = Faults::default();
    }

    /// Sets what goes wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Sets how much the disk holds; allocated room counts.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Lets nothing be changed any more, or again.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.state().is_read_only = is_read_only;
    }

    /// How much is allocated.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// How many syncs there have been.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// How many writes reached beyond everything that had been written to their file before: a sync of such a write also changes the
    /// books of a file system.
    #[must_use]
    pub fn growths(&self) -> u64 {
        self.state().growths
    }

    /// The contents of a file, if it is there.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = state.names.get(name)?;
        state.inodes.get(inode).map(|file| file.current.clone())
    }

    /// Whether the power has not failed yet.
    #[must_use]
    pub fn has_power(&self) -> bool {
        self.state().faults.power_fails_in != Some(u32::MAX)
    }

    /// Puts a file there, durable.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.next_inode;
        state.next_inode += 1;
        let file = Inode { durable: bytes.to_vec(), current: bytes.to_vec(), ..Inode::default() };
        state.inodes.insert(inode, file);
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// Takes a file away, durably.
    pub fn take(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Turns one bit of a file over, durably; bits are counted from the file's start.
    pub fn flip(&self, name: &str, bit: u64) {
        if let Some(mut bytes) = self.contents(name)
            && let Some(byte) = usize::try_from(bit / 8).ok().and_then(|place| bytes.get_mut(place))
        {
            *byte ^= 1 << (bit % 8);
            self.put(name, &bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn used_bytes(&self) -> u64 {
        self.names.values().filter_map(|inode| self.inodes.get(inode)).map(|file| file.current.len() as u64).sum()
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    /// Whether this process may still do something.
    fn alive(&self, life: u64) -> io::Result<()> {
        if self.life == life && self.faults.power_fails_in != Some(u32::MAX) { Ok(()) } else { Err(no_power()) }
    }

    fn writable(&self, life: u64) -> io::Result<()> {
        self.alive(life)?;
        if self.is_read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    /// Counts a write or a sync towards the failure of the power.
    fn count_power(&mut self) -> bool {
        match &mut self.faults.power_fails_in {
            Some(0) => {
                self.faults.power_fails_in = Some(u32::MAX);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

fn count_down(left: &mut Option<u32>) -> bool {
    match left {
        Some(0) => {
            *left = None;
            true
        }
        Some(count) => {
            *count -= 1;
            false
        }
        None => false,
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Inode {
    fn write(bytes: &mut Vec<u8>, data: &[u8], offset: u64) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(data.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(start..end) {
            place.copy_from_slice(data);
        }
    }

    /// Keeps about so many of the sectors that were not synced.
    fn lose(&mut self, random: &mut Random, keep_percent: u32) {
        for (offset, data) in std::mem::take(&mut self.writes) {
            if data.is_empty() {
                // A change of length.
                if random.below(100) < keep_percent {
                    let length = usize::try_from(offset).unwrap_or(usize::MAX);
                    self.durable.resize(length.max(self.durable.len()), 0);
                }
                continue;
            }
            let mut start = 0;
            while start < data.len() {
                let place = offset + start as u64;
                let to_next = usize::try_from(SECTOR_BYTES - place % SECTOR_BYTES).unwrap_or(1);
                let end = (start + to_next).min(data.len());
                if random.below(100) < keep_percent {
                    Self::write(&mut self.durable, data.get(start..end).unwrap_or_default(), place);
                }
                start = end;
            }
        }
    }
}

impl Disk for SimDisk {
    fn title(&self) -> String {
        "simulated".to_owned()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        let length = |inode| state.inodes.get(inode).map_or(0, |file| file.current.len() as u64);
        Ok(state.names.iter().map(|(name, inode)| (name.clone(), length(inode))).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.alive(state.life)?;
        if access == Access::Write {
            state.writable(state.life)?;
        }
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, life: state.life }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.writable(state.life)?;
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.change(Change::Set(name.to_owned(), inode));
        let life = state.life;
        drop(state);
        Ok(Arc::new(SimFile { disk: self.clone(), inode, life }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.writable(state.life)?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.writable(state.life)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        state.writable(state.life)?;
        state.syncs += 1;
        if state.count_power() {
            return Err(no_power());
        }
        if count_down(&mut state.faults.sync_fails_in) {
            return Err(io::Error::other("simulated: the sync failed"));
        }
        state.changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn space_total(&self) -> Option<u64> {
        let bytes = self.state().capacity_bytes;
        (bytes != u64::MAX).then_some(bytes)
    }

    fn lock(&self, name: &str, access: Access) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        if access == Access::Write {
            state.writable(state.life)?;
        }
        if state.is_locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if access == Access::Read && !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !state.names.contains_key(name) {
            let inode = state.next_inode;
            state.next_inode += 1;
            state.inodes.insert(inode, Inode::default());
            state.change(Change::Set(name.to_owned(), inode));
        }
        state.is_locked = true;
        Ok(Box::new(SimLock { disk: self.clone(), life: state.life }))
    }
}

struct SimLock {
    disk: SimDisk,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.is_locked = false;
        }
    }
}

struct SimFile {
    disk: SimDisk,
    inode: u64,
    life: u64,
}

impl SimFile {
    fn with<T>(&self, access: Access, call: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        match access {
            Access::Read => state.alive(self.life)?,
            Access::Write => state.writable(self.life)?,
        }
        call(&mut state, self.inode)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(Access::Read, |state, inode| {
            let file = state.inodes.get(&inode).ok_or(io::ErrorKind::NotFound)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = file.current.get(start..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(Access::Write, |state, inode| {
            let used = state.used_bytes();
            let length = state.inodes.get(&inode).map_or(0, |file| file.current.len() as u64);
            let grown = (offset + bytes.len() as u64).saturating_sub(length);
            let is_full = used.saturating_add(grown) > state.capacity_bytes;
            let has_no_power = state.count_power();
            let fails = count_down(&mut state.faults.write_fails_in);
            let short = state.random.below(u32::try_from(bytes.len()).unwrap_or(u32::MAX)) as usize;
            let written = match () {
                () if is_full => &[],
                () if fails || has_no_power => bytes.get(..short).unwrap_or_default(),
                () => bytes,
            };
            let file = state.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
            if !written.is_empty() {
                Inode::write(&mut file.current, written, offset);
                file.writes.push((offset, written.to_vec()));
                let end = offset + written.len() as u64;
                if end > file.written {
                    file.written = end;
                    state.growths += 1;
                }
            }
            match () {
                () if has_no_power => Err(no_power()),
                () if is_full => Err(io::ErrorKind::StorageFull.into()),
                () if fails => Err(io::Error::other("simulated: the write failed")),
                () => Ok(()),
            }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Access::Write, |state, inode| {
            state.syncs += 1;
            if state.count_power() {
                return Err(no_power());
            }
            let fails = count_down(&mut state.faults.sync_fails_in);
            let State { random, inodes, .. } = state;
            let file = inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
            if fails {
                // What a kernel does: some pages are written, the others are marked clean all the same. They can still be
                // read, and no later sync writes them.
                file.lose(random, 50);
                return Err(io::Error::other("simulated: the sync failed"));
            }
            file.lose(random, 100);
            Ok(())
        })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.with(Access::Write, |state, inode| {
            let used = state.used_bytes();
            let length = state.inodes.get(&inode).map_or(0, |file| file.current.len() as u64);
            if used.saturating_add(bytes.saturating_sub(length)) > state.capacity_bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = state.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
            let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).max(file.current.len());
            file.current.resize(wanted, 0);
            file.writes.push((bytes, Vec::new()));
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.with(Access::Read, |state, inode| {
            Ok(state.inodes.get(&inode).ok_or(io::ErrorKind::NotFound)?.current.len() as u64)
        })
    }
}

/// What a disk writes whole.
const SECTOR_BYTES: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_and_names_survive_and_others_may_not() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let file = disk.create("a").unwrap();
            file.write_at(b"kept", 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_folder().unwrap();
            file.write_at(&[b'x'; 2000], 4).unwrap();
            disk.create("b").unwrap();
            disk.crash();
            assert!(disk.contents("a").unwrap().starts_with(b"kept"));
            assert!(file.sync_data().is_err(), "handles of before are dead");
            lost += u32::from(disk.contents("b").is_none());
        }
        assert!((10..50).contains(&lost), "{lost}");
    }

    #[test]
    fn full_disk_and_failed_calls_say_so() {
        let disk = SimDisk::new(1);
        disk.set_capacity(100);
        let file = disk.create("a").unwrap();
        file.allocate(90).unwrap();
        assert_eq!(file.write_at(&[0; 20], 85).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_at(&[1; 20], 70).unwrap();
        disk.set_faults(Faults { sync_fails_in: Some(1), ..Faults::default() });
        file.sync_data().unwrap();
        assert!(disk.sync_folder().is_err());
        assert!(disk.sync_folder().is_ok());
    }
}
