//! What a log is opened with.

use plugin_api::config::Config;
use plugin_api::error::Invalid;
use plugin_api::serde::Deserialize;

use crate::disk::Disk;

/// How a log lays itself out. None of it is part of the format: it may change from one start to the next.
#[derive(Debug, Clone)]
pub struct Options {
    /// The length of a segment; a commit that is longer gets a segment of its own length.
    pub segment_bytes: u64,
    /// How many emptied segments are kept for use again.
    pub recycled_max: usize,
    /// Where salts come from; random unless a test sets it.
    pub seed: Option<u64>,
    /// A defect to be found by tests.
    #[doc(hidden)]
    pub mutant: Option<Mutant>,
}

/// Defects that tests must notice.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    SkipSyncData,
    SkipSyncFolder,
    SkipChecksums,
}

/// Larger segments cost fewer syncs for changing over; smaller ones are read sooner after a crash.
const SEGMENT_BYTES: u64 = 32 << 20;
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// A small disk gets segments of a part of it, so that it holds some.
const SEGMENTS_PER_DISK: u64 = 64;
/// One that is written to, one that is next, what was set aside, and a few that are live.
const SEGMENTS_PER_DISK_MIN: u64 = 8;
const SMALL_DISK_SEGMENT_BYTES_MIN: u64 = 1 << 20;
const RECYCLED_MAX: usize = 4;

/// `storage.config` in the topology file.
#[derive(Deserialize, Default)]
#[serde(crate = "plugin_api::serde", default, deny_unknown_fields)]
struct Settings {
    segment_bytes: Option<u64>,
    recycled_max: Option<usize>,
}

impl Options {
    /// What suits this disk.
    #[must_use]
    pub fn for_disk(disk: &dyn Disk) -> Self {
        let share = disk.space_total().map_or(SEGMENT_BYTES, |total| total / SEGMENTS_PER_DISK);
        let segment_bytes = share.clamp(SMALL_DISK_SEGMENT_BYTES_MIN, SEGMENT_BYTES);
        Self { segment_bytes, recycled_max: RECYCLED_MAX, seed: None, mutant: None }
    }

    pub(crate) fn from_config(config: &Config, disk: &dyn Disk) -> Result<Self, Invalid> {
        let settings: Settings = config.parse()?;
        let mut options = Self::for_disk(disk);
        if let Some(bytes) = settings.segment_bytes {
            if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
                let limits = format!("from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}");
                return Err(Invalid::new(format!("segment_bytes must be {limits}, but is {bytes}")));
            }
            let total = disk.space_total().unwrap_or(u64::MAX);
            let most = total / SEGMENTS_PER_DISK_MIN;
            if bytes > most {
                let folder = disk.title();
                return Err(Invalid::new(format!(
                    "segment_bytes is {bytes}, but the disk of '{folder}' has {total} bytes in all, and a log needs several \
                     segments: set it to at most {most}, or leave it out"
                )));
            }
            options.segment_bytes = bytes;
        }
        if let Some(count) = settings.recycled_max {
            options.recycled_max = count;
        }
        Ok(options)
    }

    pub(crate) fn verifies(&self) -> bool {
        self.mutant != Some(Mutant::SkipChecksums)
    }

    /// What each of the two reserves holds.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.segment_bytes.min(RESERVE_BYTES_MAX)
    }
}

/// Room for many thousand calls of settle.
const RESERVE_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use plugin_api::serde_json::json;

    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn segments_that_the_disk_cannot_hold_are_refused() {
        let disk = SimDisk::new(1);
        disk.set_capacity(64 << 20);
        let parse = |bytes: u64| Options::from_config(&Config::new(json!({ "segment_bytes": bytes })), &disk);
        assert_eq!(parse(8 << 20).map(|options| options.segment_bytes), Ok(8 << 20));
        let text = parse((8 << 20) + 1).map(|_| ()).unwrap_err().text;
        let expected = "segment_bytes is 8388609, but the disk of 'simulated' has 67108864 bytes in all, and a log needs \
                        several segments: set it to at most 8388608, or leave it out";
        assert_eq!(text, expected);
        disk.set_capacity(u64::MAX);
        assert!(Options::from_config(&Config::new(json!({ "segment_bytes": 1 << 30 })), &disk).is_ok());
    }
}
