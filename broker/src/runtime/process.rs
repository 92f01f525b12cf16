//! What the operating system says of this process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. What cannot be learned is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// Memory that it has in use, in bytes.
    pub resident_bytes: u64,
    /// Files that are open.
    pub open_fds: u64,
    /// Files that may be open.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// Times that one of its threads left a processor.
    pub context_switches: u64,
}

/// Looks.
pub fn read() -> Process {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| field(&status, name);
    Process {
        id: std::process::id(),
        resident_bytes: field("VmRSS").unwrap_or(0) * 1024,
        // The folder itself is open while it is read.
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64),
        max_fds: max_fds(),
        threads: field("Threads").unwrap_or(0),
        context_switches: context_switches(),
    }
}

/// A number in a file of `/proc` with lines like `Threads: 12`.
fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Of all threads that there are; the kernel says it for each. Threads end, and the sum stays where it was.
fn context_switches() -> u64 {
    static MOST: AtomicU64 = AtomicU64::new(0);
    let of_thread = |folder: std::path::PathBuf| {
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let count = |name| field(&status, name).unwrap_or(0);
        count("voluntary_ctxt_switches") + count("nonvoluntary_ctxt_switches")
    };
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let now: u64 = threads.map(|thread| of_thread(thread.path())).sum();
    MOST.fetch_max(now, Ordering::Relaxed).max(now)
}

/// Nobody changes it while the broker runs.
fn max_fds() -> u64 {
    static MAX: OnceLock<u64> = OnceLock::new();
    *MAX.get_or_init(|| {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_is_known() {
        let process = super::read();
        assert!(process.resident_bytes > 1_000_000 && process.threads > 0, "{process:?}");
        assert!(process.open_fds >= 3 && process.max_fds >= process.open_fds, "{process:?}");
    }

    #[test]
    fn context_switches_are_those_of_all_threads() {
        let before = super::read().context_switches;
        let (told, may_end) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            (0..200).for_each(|_| std::thread::park_timeout(std::time::Duration::from_micros(1)));
            let _ = may_end.recv();
        });
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while super::read().context_switches < before + 100 {
            assert!(std::time::Instant::now() < until, "another thread's are not counted");
            std::thread::yield_now();
        }
        drop(told);
        thread.join().expect("it only waits");
    }
}
