//! What the operating system says of this process.

use std::sync::OnceLock;

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
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?.trim_start_matches(':');
        value.split_whitespace().next()?.parse::<u64>().ok()
    };
    let switches = field("voluntary_ctxt_switches").unwrap_or(0) + field("nonvoluntary_ctxt_switches").unwrap_or(0);
    Process {
        id: std::process::id(),
        resident_bytes: field("VmRSS").unwrap_or(0) * 1024,
        // The folder itself is open while it is read.
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64),
        max_fds: max_fds(),
        threads: field("Threads").unwrap_or(0),
        context_switches: switches,
    }
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
}
