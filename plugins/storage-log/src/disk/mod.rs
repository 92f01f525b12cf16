//! The little that a log needs of a disk.
//!
//! Everything that reaches a file system goes through [`Disk`] and [`DiskFile`], so that a simulated disk
//! ([`crate::sim::SimDisk`]) can decide what survives a crash. A disk is one folder; names have no separators.

mod real;

use std::io;
use std::sync::Arc;

pub use real::RealDisk;

/// One folder.
pub trait Disk: Send + Sync + 'static {
    /// How sentences name the folder.
    fn title(&self) -> String;

    /// All names in the folder with their lengths, in no order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Opens an existing file for reading, and for writing if `access` says so.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file, or empties the one that is there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in place of the file that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names durable: what was created, renamed and removed before.
    fn sync_folder(&self) -> io::Result<()>;

    /// The size of the whole file system in bytes; `None` when it is not known.
    fn space_total(&self) -> Option<u64>;

    /// Keeps others out for as long as the answer lives. Changes the folder at most by the file `name`.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else is in.
    fn lock(&self, name: &str, access: Access) -> io::Result<Box<dyn Send + Sync>>;
}

/// One file. Positions are bytes from its start.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer`, or as much of it as the file has; answers how much that is.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Says that these bytes will be read soon. A disk may begin to fetch them, and may as well do nothing.
    fn will_read(&self, offset: u64, bytes: u64) {
        let _ = (offset, bytes);
    }

    /// Writes all of `bytes`. After an error any part of them may be there.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the contents durable. After an error nobody knows what is.
    fn sync_data(&self) -> io::Result<()>;

    /// Sees to it that the file is `bytes` long and that writes within it need no more room.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// The length of the file.
    fn length(&self) -> io::Result<u64>;
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading alone.
    Read,
    /// Reading and writing.
    Write,
}

/// Whether this error says that there is no room.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Reads a whole file of known length.
pub(crate) fn read_whole(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}
