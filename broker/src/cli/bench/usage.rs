//! What a broker's processes have used, from /proc: CPU time to the tick of the kernel (10 ms), and memory.
//!
//! CPU time is that of user and system, of all threads, also of those that have ended. Threads of the kernel, which write to disks, are not in
//! it.

use super::error::BenchError;

/// Processes to look at; none if nobody named one.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    ids: Vec<u32>,
}

/// What they had used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_secs: f64,
    /// Resident, with mapped files.
    pub(super) resident_bytes: u64,
    /// Resident, without files.
    pub(super) private_bytes: u64,
}

impl Processes {
    pub(super) fn new(ids: &[u32]) -> Self {
        Self { ids: ids.to_vec() }
    }

    /// None if there are none to look at.
    pub(super) fn usage(&self) -> Result<Option<Usage>, BenchError> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let mut all = Usage::default();
        for id in &self.ids {
            let read = |file: &str| {
                std::fs::read_to_string(format!("/proc/{id}/{file}")).map_err(|error| {
                    BenchError::NoInput(format!(
                        "process {id} cannot be looked at: {error}; --broker-pid names the broker's"
                    ))
                })
            };
            let foreign = || BenchError::System(format!("/proc/{id} is not as the kernel documents it"));
            let (stat, status) = (read("stat")?, read("status")?);
            let ticks = ticks(&stat).ok_or_else(foreign)?;
            all.cpu_secs += ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
            all.resident_bytes += bytes(&status, "VmRSS:").ok_or_else(foreign)?;
            all.private_bytes += bytes(&status, "RssAnon:").ok_or_else(foreign)?;
        }
        Ok(Some(all))
    }
}

/// User and system time in /proc/PID/stat (proc(5)).
fn ticks(stat: &str) -> Option<u64> {
    // The second field, a name in brackets, may hold anything; the third is the state.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    Some(user + system)
}

fn bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_those_behind_whatever_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 7 8 20 0 4 0 100 1000 10";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("12 (a"), None);
        assert_eq!(bytes("Name:\ta\nVmRSS:\t    2 kB\n", "VmRSS:"), Some(2048));
    }

    #[test]
    fn this_process_uses_memory_and_one_that_is_gone_is_said() {
        let usage = Processes::new(&[std::process::id()]).usage().unwrap().unwrap();
        assert!(usage.resident_bytes >= usage.private_bytes && usage.private_bytes > 0, "{usage:?}");
        assert_eq!(Processes::default().usage().unwrap(), None);
        // Beyond the largest number that the kernel gives.
        let error = Processes::new(&[1 << 30]).usage().unwrap_err();
        assert!(error.exit_code() == 66 && error.to_string().contains("--broker-pid"), "{error}");
    }
}
