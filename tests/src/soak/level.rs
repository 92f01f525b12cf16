//! How large the broker is when it has nothing to do.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::stop::Stop;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// It has settled when so many looks find nothing smaller …
const QUIET_LOOKS: u32 = 4;
/// … or after so many.
const LOOKS_MAX: u32 = 20;
/// Allocators keep, for each thread and size of block, what it may want again. This much more than after the first cycles is no growth: it is
/// a few pages of the largest size.
const MEMORY_SLACK_BYTES: u64 = 32 << 20;
const MEMORY_SLACK_PERCENT: u64 = 20;
/// Segments with their indexes, for empty queues: those in use, the recycled ones, and what was dead at one of the two checkpoints. They have
/// 2 MiB, or as much as the commits that were larger.
const DISK_BYTES_MAX: u64 = 128 << 20;
/// Files of the store's segments come and go.
const DESCRIPTORS_SLACK: u64 = 32;
/// The first cycles fill caches and make threads.
const WARM_UP_CYCLES: usize = 3;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Memory that belongs to no file.
    pub anonymous_bytes: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub disk_bytes: u64,
}

impl Level {
    /// Waits until the process gets no smaller, and returns what it is then.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn settled(pid: u32, data: &Path) -> Result<Self, String> {
        let clock = Stop::new();
        let mut level = Self::now(pid, data)?;
        let mut quiet = 0;
        for _ in 0..LOOKS_MAX {
            clock.wait(LOOK_EVERY);
            let now = Self::now(pid, data)?;
            let smaller = Self {
                anonymous_bytes: level.anonymous_bytes.min(now.anonymous_bytes),
                descriptors: level.descriptors.min(now.descriptors),
                threads: level.threads.min(now.threads),
                disk_bytes: level.disk_bytes.min(now.disk_bytes),
            };
            quiet = if smaller == level { quiet + 1 } else { 0 };
            level = smaller;
            if quiet == QUIET_LOOKS {
                break;
            }
        }
        Ok(level)
    }

    fn now(pid: u32, data: &Path) -> Result<Self, String> {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|e| format!("{name}: {e}"));
        let field = |text: &str, name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|e| e.to_string())?.count() as u64;
        Ok(Self {
            anonymous_bytes: field(&read("smaps_rollup")?, "Anonymous:") << 10,
            descriptors,
            threads: field(&read("status")?, "Threads:"),
            disk_bytes: disk_bytes(data),
        })
    }
}

/// What a folder takes on the disk; what goes while it is counted does not count.
fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// One sentence for each thing that grew from cycle to cycle.
pub fn judge(levels: &[Level]) -> Vec<String> {
    let mut grown = Vec::new();
    let warm = levels.len().saturating_sub(1).min(WARM_UP_CYCLES);
    let (Some(first), Some(last)) = (levels[..warm].last(), levels.last()) else { return grown };
    let allowed = first.anonymous_bytes + first.anonymous_bytes * MEMORY_SLACK_PERCENT / 100 + MEMORY_SLACK_BYTES;
    if last.anonymous_bytes > allowed {
        grown.push(format!("memory grew from {first} to {last}"));
    }
    if last.descriptors > first.descriptors + DESCRIPTORS_SLACK {
        grown.push(format!("file descriptors grew from {first} to {last}"));
    }
    if last.disk_bytes > DISK_BYTES_MAX {
        grown.push(format!(
            "empty queues take {} KiB on the disk, {} are enough",
            last.disk_bytes >> 10,
            DISK_BYTES_MAX >> 10
        ));
    }
    grown
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { anonymous_bytes, descriptors, threads, disk_bytes } = self;
        let (memory, disk) = (anonymous_bytes >> 10, disk_bytes >> 10);
        write!(f, "{memory} KiB of memory, {descriptors} descriptors, {threads} threads, {disk} KiB of disk")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Level = Level { anonymous_bytes: 50 << 20, descriptors: 30, threads: 6, disk_bytes: 10 << 20 };

    #[test]
    fn what_stays_as_it_was_is_no_growth() {
        let later = Level { anonymous_bytes: 60 << 20, descriptors: 33, ..BASE };
        assert_eq!(judge(&[BASE, BASE, BASE, later]), [""; 0]);
    }

    #[test]
    fn memory_descriptors_and_disk_that_grow_are_told() {
        let later = Level { anonymous_bytes: 100 << 20, descriptors: 90, disk_bytes: 140 << 20, ..BASE };
        assert_eq!(judge(&[BASE, BASE, BASE, later]).len(), 3);
    }
}
