//! Alarms: while one is raised, connections that publish are left unread, and told so (semantics 26).
//!
//! Messages are never dropped over it and consumers go on. The memory alarm compares what all messages take with a watermark, the disk
//! alarm what is free on the file system of the data folder. Both are cleared only some way off their watermark, so that they do not
//! flicker. Both watermarks can be changed while the broker runs; what they are then is forgotten when it ends. Who looks at the disk is
//! [`super::disk`].

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The part of the machine's or container's memory that may be used unless the topology says otherwise (semantics 26.1).
const MEMORY_SHARE: f64 = 0.6;
/// With a watermark below this the memory alarm is raised whatever messages take. No broker runs in so little, so whoever sets it wants
/// publishers to stop: RabbitMQ's operators and client suites do it that way, and there the runtime alone takes more.
pub const WATERMARK_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// The memory alarm ends below this share of its watermark.
const MEMORY_CLEAR_SHARE: f64 = 0.95;
/// The disk alarm ends when so many parts of a hundred more than its watermark are free.
const DISK_CLEAR_PERCENT: u64 = 5;
/// How often memory is looked at. At 2 GB of messages a second it grows by 200 MB meanwhile.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After so many looks that were like the one before, the next waits until a client sends something …
pub const QUIET_LOOKS: u32 = 10;
/// … but not longer than this: messages also come without clients.
pub const LOOK_EVERY_QUIET: Duration = Duration::from_secs(1);

/// Bits of the alarms that are raised.
const MEMORY: u8 = 1;
const DISK: u8 = 2;

/// Which alarms are raised.
#[derive(Debug, Default)]
pub struct Alarms {
    raised: AtomicU8,
    watermark_bytes: AtomicU64,
    disk_free_bytes_min: Mutex<Option<u64>>,
    /// Wakes who looks at the disk.
    disk_changed: Notify,
}

/// What a look at one of the alarms has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmChange {
    /// Nothing.
    None,
    /// It was raised.
    Raised,
    /// It was cleared, while another alarm still is raised.
    Cleared,
    /// It was cleared, and was the last.
    AllCleared,
}

/// A look at the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskState {
    /// What is free on the file system of the data folder; none without such a folder.
    pub free_bytes: Option<u64>,
    /// What has to be free there.
    pub watermark_bytes: u64,
    /// The storage itself has no room for messages.
    pub is_full: bool,
}

impl Alarms {
    /// With watermarks; none takes the default.
    pub fn new(memory_watermark_bytes: Option<u64>, disk_free_bytes_min: Option<u64>) -> Self {
        let alarms = Self { disk_free_bytes_min: Mutex::new(disk_free_bytes_min), ..Self::default() };
        alarms.set_memory_watermark(memory_watermark_bytes);
        alarms
    }

    /// What the next look at memory compares with; none is the default.
    pub fn set_memory_watermark(&self, bytes: Option<u64>) {
        let watermark = bytes.unwrap_or_else(|| share_of_memory(MEMORY_SHARE));
        self.watermark_bytes.store(watermark, Ordering::Relaxed);
    }

    /// What has to be free on the disk; none is the default. Who looks at the disk looks again at once.
    pub fn set_disk_free_bytes_min(&self, bytes: Option<u64>) {
        *self.disk_free_bytes_min.lock() = bytes;
        self.disk_changed.notify_one();
    }

    /// What has to be free on the disk, as it was set.
    pub fn disk_free_bytes_min(&self) -> Option<u64> {
        *self.disk_free_bytes_min.lock()
    }

    /// Waits until somebody sets what has to be free. For the one who looks at the disk.
    pub(super) async fn disk_changed(&self) {
        self.disk_changed.notified().await;
    }

    /// Why publishers are stopped, in RabbitMQ's words (semantics 26.3).
    #[inline]
    pub fn reason(&self) -> Option<&'static str> {
        match self.raised.load(Ordering::Relaxed) {
            0 => None,
            MEMORY => Some("low on memory"),
            DISK => Some("low on disk"),
            _ => Some("low on memory & low on disk"),
        }
    }

    /// Whether the memory alarm is raised.
    pub fn is_memory_low(&self) -> bool {
        self.is_raised(MEMORY)
    }

    /// Whether the disk alarm is raised.
    pub fn is_disk_low(&self) -> bool {
        self.is_raised(DISK)
    }

    /// What the memory alarm compares with, in bytes.
    pub fn memory_watermark_bytes(&self) -> u64 {
        self.watermark_bytes.load(Ordering::Relaxed)
    }

    /// Judges the memory in use.
    pub fn on_memory(&self, used_bytes: u64) -> AlarmChange {
        let watermark = self.memory_watermark_bytes();
        let is_low = if watermark < WATERMARK_BYTES_MIN {
            true
        } else if self.is_raised(MEMORY) {
            used_bytes as f64 > watermark as f64 * MEMORY_CLEAR_SHARE
        } else {
            used_bytes > watermark
        };
        self.set(MEMORY, is_low)
    }

    /// Judges the room on the disk.
    pub fn on_disk(&self, disk: DiskState) -> AlarmChange {
        let DiskState { free_bytes, watermark_bytes, is_full } = disk;
        let margin_bytes =
            if self.is_raised(DISK) { (watermark_bytes / 100).saturating_mul(DISK_CLEAR_PERCENT) } else { 0 };
        let is_low = free_bytes.is_some_and(|free| free < watermark_bytes.saturating_add(margin_bytes));
        self.set(DISK, is_low || is_full)
    }

    fn is_raised(&self, alarm: u8) -> bool {
        self.raised.load(Ordering::Relaxed) & alarm != 0
    }

    fn set(&self, alarm: u8, is_raised: bool) -> AlarmChange {
        if is_raised {
            let before = self.raised.fetch_or(alarm, Ordering::Relaxed);
            return if before & alarm == 0 { AlarmChange::Raised } else { AlarmChange::None };
        }
        match self.raised.fetch_and(!alarm, Ordering::Relaxed) {
            before if before & alarm == 0 => AlarmChange::None,
            before if before == alarm => AlarmChange::AllCleared,
            _ => AlarmChange::Cleared,
        }
    }
}

/// A part of the machine's or container's memory, in bytes.
pub fn share_of_memory(share: f64) -> u64 {
    (available_bytes() as f64 * share) as u64
}

/// The machine's memory, or the container's when that has less.
fn available_bytes() -> u64 {
    let total = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    });
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| read(path)?.trim().parse::<u64>().ok());
    // Where nothing can be learned, a small machine is assumed.
    total.into_iter().chain(container).min().unwrap_or(2 * 1024 * 1024 * 1024)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::AlarmChange::{AllCleared, Cleared, None as Same, Raised};
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn disk(free_bytes: u64) -> DiskState {
        DiskState { free_bytes: Some(free_bytes), watermark_bytes: 1000, is_full: false }
    }

    #[test]
    fn the_memory_alarm_is_cleared_below_its_watermark() {
        let alarms = Alarms::new(Some(1000 * MIB), None);
        let seen: Vec<(AlarmChange, bool)> = [1000, 1001, 2000, 960, 950, 1000]
            .into_iter()
            .map(|used| (alarms.on_memory(used * MIB), alarms.reason().is_some()))
            .collect();
        let expected = [(Same, false), (Raised, true), (Same, true), (Same, true), (AllCleared, false), (Same, false)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_memory_watermark_may_be_changed() {
        let alarms = Alarms::new(Some(1000 * MIB), None);
        assert_eq!(alarms.on_memory(100 * MIB), Same);
        alarms.set_memory_watermark(Some(50 * MIB));
        assert_eq!(alarms.on_memory(100 * MIB), Raised);
        alarms.set_memory_watermark(Some(200 * MIB));
        assert_eq!(alarms.on_memory(100 * MIB), AllCleared);
        alarms.set_memory_watermark(None);
        assert_eq!(alarms.memory_watermark_bytes(), share_of_memory(MEMORY_SHARE));
    }

    #[test]
    fn a_watermark_that_no_broker_keeps_stops_publishers_whatever_messages_take() {
        let alarms = Alarms::new(Some(WATERMARK_BYTES_MIN), None);
        assert_eq!(alarms.on_memory(0), Same);
        for bytes in [WATERMARK_BYTES_MIN - 1, 10, 0] {
            alarms.set_memory_watermark(Some(bytes));
            assert_eq!((alarms.on_memory(0), alarms.on_memory(0)), (Raised, Same), "{bytes}");
            alarms.set_memory_watermark(Some(WATERMARK_BYTES_MIN));
            assert_eq!(alarms.on_memory(0), AllCleared, "{bytes}");
        }
    }

    #[test]
    fn the_disk_alarm_is_cleared_above_its_watermark() {
        let alarms = Alarms::new(None, None);
        let seen: Vec<AlarmChange> =
            [1000, 999, 0, 1000, 1049, 1050, 1000].into_iter().map(|bytes| alarms.on_disk(disk(bytes))).collect();
        assert_eq!(seen, [Same, Raised, Same, Same, Same, AllCleared, Same]);
    }

    #[test]
    fn a_full_storage_raises_the_disk_alarm_with_or_without_a_folder() {
        let alarms = Alarms::new(None, None);
        for free_bytes in [None, Some(u64::MAX)] {
            let full = DiskState { free_bytes, is_full: true, ..DiskState::default() };
            assert_eq!(alarms.on_disk(full), Raised);
            assert_eq!(alarms.on_disk(full), Same);
            assert_eq!(alarms.on_disk(DiskState { is_full: false, ..full }), AllCleared);
        }
        assert_eq!(alarms.on_disk(DiskState { watermark_bytes: u64::MAX, ..DiskState::default() }), Same);
    }

    #[test]
    fn alarms_are_named_together_and_end_with_the_last() {
        let alarms = Alarms::new(Some(1000 * MIB), None);
        assert_eq!((alarms.on_disk(disk(0)), alarms.reason()), (Raised, Some("low on disk")));
        assert_eq!((alarms.on_memory(2000 * MIB), alarms.reason()), (Raised, Some("low on memory & low on disk")));
        assert_eq!((alarms.on_disk(disk(9000)), alarms.reason()), (Cleared, Some("low on memory")));
        assert_eq!((alarms.on_memory(0), alarms.reason()), (AllCleared, None));
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(available_bytes() > 64 * 1024 * 1024);
    }
}
