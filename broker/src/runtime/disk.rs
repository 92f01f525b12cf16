//! Looking at the room on the disk, for the disk alarm (semantics 26.1).
//!
//! What counts is what the broker's user may still write on the file system of the data folder, whoever takes the rest, and whether the
//! storage itself says that it is full. What follows from it is decided by [`super::alarms`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plugin_api::storage::Storage;

use super::Broker;
use super::alarms::DiskState;

/// What has to be free unless the topology says otherwise, as in RabbitMQ (semantics 26.1) …
const FREE_BYTES_MIN: u64 = 50_000_000;
/// … but at most this part of the file system: a disk of 64 MB would be low for ever, although a broker of that size can use it.
const FREE_SHARE: u64 = 10;
/// The fastest that free room is expected to go.
const BYTES_PER_SECOND: u64 = 2_000_000_000;
/// How often the disk is looked at when there is plenty of room.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(5);
/// How often when the storage says that it is full, whatever is free.
const LOOK_EVERY_FULL: Duration = Duration::from_secs(1);
/// How often when it is getting low.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(100);

/// What to look at.
pub struct DiskWatch {
    /// The data folder, if there is one.
    pub folder: Option<PathBuf>,
    /// Whom to ask whether it is full.
    pub storage: Arc<dyn Storage>,
}

impl std::fmt::Debug for DiskWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskWatch").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl DiskWatch {
    /// Looks at the disk, for ever; more often the nearer the alarm is, and at once when it is set what has to be free.
    pub async fn run(self, broker: Arc<Broker>) {
        let this = Arc::new(self);
        let mut can_look = true;
        loop {
            let (look, free_bytes_min) = (Arc::clone(&this), broker.alarms.disk_free_bytes_min());
            // A file system that hangs must not stop a worker.
            let looked = tokio::task::spawn_blocking(move || look.look(free_bytes_min)).await;
            let wait = match looked {
                Ok(Ok(state)) => {
                    can_look = true;
                    broker.on_disk(state, this.folder.as_deref());
                    next_look(state)
                }
                Ok(Err(error)) => {
                    if std::mem::take(&mut can_look) {
                        let folder = this.folder.as_deref().unwrap_or_else(|| "".as_ref()).display();
                        tracing::error!(
                            "cannot see how much room data folder {folder} has: {error}; the disk alarm stays as it is until that works"
                        );
                    }
                    LOOK_EVERY_MAX
                }
                // Only while the runtime ends.
                Err(_) => return,
            };
            let _ = tokio::time::timeout(wait, broker.alarms.disk_changed()).await;
        }
    }

    /// One look.
    fn look(&self, free_bytes_min: Option<u64>) -> std::io::Result<DiskState> {
        let is_full = self.storage.status().is_full;
        let Some(folder) = &self.folder else { return Ok(DiskState { is_full, ..DiskState::default() }) };
        Ok(DiskState { is_full, ..room(folder, free_bytes_min)? })
    }
}

/// What is free on the file system of a folder, and what has to be.
///
/// # Errors
/// The operating system's.
pub fn room(folder: &Path, free_bytes_min: Option<u64>) -> std::io::Result<DiskState> {
    let disk = rustix::fs::statvfs(folder)?;
    let (free_bytes, total_bytes) =
        (disk.f_frsize.saturating_mul(disk.f_bavail), disk.f_frsize.saturating_mul(disk.f_blocks));
    let watermark_bytes = watermark_bytes(free_bytes_min, total_bytes);
    Ok(DiskState { free_bytes: Some(free_bytes), watermark_bytes, is_full: false })
}

/// What has to be free on a file system of this size. What the operator names is taken as it is.
fn watermark_bytes(free_bytes_min: Option<u64>, total_bytes: u64) -> u64 {
    free_bytes_min.unwrap_or_else(|| FREE_BYTES_MIN.min(total_bytes / FREE_SHARE))
}

/// Twice before the room could be gone, but neither too seldom nor too often.
fn next_look(state: DiskState) -> Duration {
    let spare_bytes = state.free_bytes.unwrap_or(u64::MAX).saturating_sub(state.watermark_bytes);
    let millis = spare_bytes / 2 / (BYTES_PER_SECOND / 1000);
    let most = if state.is_full { LOOK_EVERY_FULL } else { LOOK_EVERY_MAX };
    Duration::from_millis(millis).clamp(LOOK_EVERY_MIN, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn a_small_disk_is_not_low_for_its_smallness() {
        assert_eq!(watermark_bytes(None, 64 * MB), 6_400_000);
        assert_eq!(watermark_bytes(None, 500 * MB), 50 * MB);
        assert_eq!(watermark_bytes(None, 1000 * 1000 * MB), 50 * MB);
        assert_eq!(watermark_bytes(Some(100 * MB), 64 * MB), 100 * MB, "what was asked for");
        assert_eq!(watermark_bytes(Some(0), 64 * MB), 0);
    }

    #[test]
    fn the_disk_is_looked_at_more_often_when_room_is_scarce() {
        let check = |free_bytes: Option<u64>, millis| {
            let state = DiskState { free_bytes, watermark_bytes: 50 * MB, is_full: false };
            assert_eq!(next_look(state), Duration::from_millis(millis), "{free_bytes:?}");
        };
        check(None, 5000);
        check(Some(100_000 * MB), 5000);
        check(Some(2050 * MB), 500);
        check(Some(60 * MB), 100);
        check(Some(0), 100);
        let full = DiskState { free_bytes: None, watermark_bytes: 0, is_full: true };
        assert_eq!(next_look(full), Duration::from_secs(1));
    }

    #[test]
    fn the_folders_own_file_system_is_looked_at() {
        let registry = crate::plugin_host::Registry::builtin().unwrap();
        let storage = || registry.storage("memory", &serde_json::Value::Null, None).unwrap();
        let look =
            |folder: Option<PathBuf>| DiskWatch { folder, storage: storage() }.look(None).map_err(|error| error.kind());
        let state = look(Some(std::env::temp_dir())).unwrap();
        assert!(state.free_bytes.is_some() && state.watermark_bytes > 0, "{state:?}");
        assert_eq!(look(None), Ok(DiskState::default()));
        let missing = std::env::temp_dir().join("broker-no-such-folder");
        assert_eq!(look(Some(missing)), Err(std::io::ErrorKind::NotFound));
    }
}
