//! Alarms: while one is raised, connections that publish are left unread, and told so (semantics 26).
//!
//! Messages are never dropped over it and consumers go on. The memory alarm compares what all messages take with a watermark; it is
//! cleared a little below, so that it does not flicker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The part of the machine's or container's memory that may be used unless the topology says otherwise (semantics 26.1).
const MEMORY_SHARE: f64 = 0.6;
/// An alarm ends below this share of its watermark.
const CLEAR_SHARE: f64 = 0.95;
/// How often memory is looked at. At 2 GB of messages a second it grows by 200 MB meanwhile.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which alarms are raised.
#[derive(Debug, Default)]
pub struct Alarms {
    memory: AtomicBool,
    watermark_bytes: AtomicU64,
}

impl Alarms {
    /// With a watermark; none takes the default.
    pub fn new(memory_watermark_bytes: Option<u64>) -> Self {
        let watermark = memory_watermark_bytes.unwrap_or_else(|| (available_bytes() as f64 * MEMORY_SHARE) as u64);
        Self { memory: AtomicBool::new(false), watermark_bytes: AtomicU64::new(watermark) }
    }

    /// Why publishers are stopped, in RabbitMQ's words (semantics 26.3).
    #[inline]
    pub fn reason(&self) -> Option<&'static str> {
        self.memory.load(Ordering::Relaxed).then_some("low on memory")
    }

    /// What the memory alarm compares with, in bytes.
    pub fn memory_watermark_bytes(&self) -> u64 {
        self.watermark_bytes.load(Ordering::Relaxed)
    }

    /// Judges the memory in use; true when the alarm was raised or cleared by it.
    pub fn on_memory(&self, used_bytes: u64) -> bool {
        let watermark = self.memory_watermark_bytes();
        let is_raised = self.memory.load(Ordering::Relaxed);
        let should_be =
            if is_raised { used_bytes as f64 > watermark as f64 * CLEAR_SHARE } else { used_bytes > watermark };
        self.memory.store(should_be, Ordering::Relaxed);
        is_raised != should_be
    }
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
    use super::*;

    #[test]
    fn an_alarm_is_cleared_below_its_watermark() {
        let alarms = Alarms::new(Some(1000));
        let seen: Vec<(bool, bool)> = [1000, 1001, 2000, 960, 950, 1000]
            .into_iter()
            .map(|bytes| (alarms.on_memory(bytes), alarms.reason().is_some()))
            .collect();
        let expected = [(false, false), (true, true), (false, true), (false, true), (true, false), (false, false)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(available_bytes() > 64 * 1024 * 1024);
    }
}
