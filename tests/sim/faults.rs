//! When which fault comes.

use plugin_api::testing::Random;

use crate::plan::FaultPlan;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Reset,
    Silence,
    Stall,
    Kill,
    PowerCut,
    Stop,
    SyncError,
    DiskFull,
    SlowDisk,
    Alarm,
    Shrink,
}

/// See the module.
pub(crate) struct Schedule {
    random: Random,
    /// Each kind with its mean pause and the next time, in milliseconds.
    kinds: Vec<(Fault, u32, u64)>,
}

impl Schedule {
    pub(crate) fn new(plan: &FaultPlan, random: Random) -> Self {
        let kinds = [
            (Fault::Reset, plan.reset_ms),
            (Fault::Silence, plan.silence_ms),
            (Fault::Stall, plan.stall_ms),
            (Fault::Kill, plan.kill_ms),
            (Fault::PowerCut, plan.power_cut_ms),
            (Fault::Stop, plan.stop_ms),
            (Fault::SyncError, plan.sync_error_ms),
            (Fault::DiskFull, plan.disk_full_ms),
            (Fault::SlowDisk, plan.slow_disk_ms),
            (Fault::Alarm, plan.alarm_ms),
            (Fault::Shrink, plan.shrink_ms),
        ];
        let kinds = kinds.into_iter().filter_map(|(fault, every_ms)| Some((fault, every_ms?, 0))).collect();
        Self { random, kinds }
    }

    /// Faults may come from now on.
    pub(crate) fn begin(&mut self, now_ms: u64) {
        for (_, every_ms, next_ms) in &mut self.kinds {
            *next_ms = now_ms + u64::from(self.random.below(*every_ms * 2));
        }
    }

    /// A fault whose time has come.
    pub(crate) fn due(&mut self, now_ms: u64) -> Option<Fault> {
        let (fault, every_ms, next_ms) = self.kinds.iter_mut().find(|(_, _, next_ms)| *next_ms <= now_ms)?;
        *next_ms = now_ms + 1 + u64::from(self.random.below(*every_ms * 2));
        Some(*fault)
    }

    /// When the next one comes.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.kinds.iter().map(|(_, _, next_ms)| *next_ms).min()
    }
}
