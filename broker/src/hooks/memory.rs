//! The memory that a script may use, and when its garbage is collected.
//!
//! The allocator enforces the limit, and it does not collect when it refuses: a script with large strings would run out of
//! memory by what it has long let go of. So garbage is collected when it has taken up half of what is left, between calls
//! and at the steps within one.

use std::cell::Cell;

use mlua::Lua;
use mlua::state::{GcIncParams, GcMode};

#[derive(Debug, Default)]
pub(super) struct Memory {
    bytes_max: Cell<usize>,
    collect_above_bytes: Cell<usize>,
}

impl Memory {
    /// Sets the limit: `limit_bytes` beside what the interpreter has now.
    pub(super) fn limit(&self, lua: &Lua, limit_bytes: usize) -> mlua::Result<()> {
        let collector = GcIncParams::default().step_size(GC_STEP_KIB).step_multiplier(GC_STEP_PERCENT);
        lua.gc_set_mode(GcMode::Incremental(collector));
        self.bytes_max.set(lua.used_memory().saturating_add(limit_bytes));
        lua.set_memory_limit(self.bytes_max.get())?;
        self.aim(lua);
        Ok(())
    }

    #[inline]
    pub(super) fn tidy(&self, lua: &Lua) {
        if lua.used_memory() > self.collect_above_bytes.get() {
            self.collect(lua);
        }
    }

    #[cold]
    fn collect(&self, lua: &Lua) {
        if let Err(error) = lua.gc_collect() {
            tracing::debug!(%error, "a script's garbage could not be collected");
        }
        self.aim(lua);
    }

    fn aim(&self, lua: &Lua) {
        let used = lua.used_memory();
        self.collect_above_bytes.set(used + self.bytes_max.get().saturating_sub(used) / 2);
    }
}

/// The incremental collector runs at every so many KiB that are allocated. Luau's own 1 is for games, which must not
/// pause; but then a large string counts no more than a small one.
const GC_STEP_KIB: i32 = 32;

/// How much it does in a step, in hundredths of the step: 128 KiB, about what a small script has altogether.
const GC_STEP_PERCENT: i32 = 400;
