//! The time that one call of a script may take.
//!
//! The interpreter asks here at every loop edge, call, return and pattern step. Memory has its own limit in the allocator;
//! recursion is bounded by the interpreter (20,000 Lua frames, 200 nested C calls).

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use mlua::{Lua, VmState};

/// The running call's deadline.
#[derive(Debug, Default)]
pub(super) struct Budget {
    deadline: Cell<Option<Instant>>,
    limit: Cell<Duration>,
    steps: Cell<u32>,
    is_extended: Cell<bool>,
    is_expired: Cell<bool>,
    place: RefCell<Option<(String, u32)>>,
}

impl Budget {
    /// Begins a call. Its time counts from its first look at the clock, because most calls are over before that and need
    /// none.
    #[inline]
    pub(super) fn start(&self, limit: Duration) {
        self.deadline.set(None);
        self.limit.set(limit);
        self.steps.set(0);
        self.is_extended.set(false);
        self.is_expired.set(false);
    }

    /// Ends the call and says whether its time ran out. A script may have caught the error that told it so.
    #[inline]
    pub(super) fn stop(&self) -> bool {
        self.is_expired.replace(false)
    }

    /// Where the script was when its time ran out: chunk and line.
    pub(super) fn take_place(&self) -> Option<(String, u32)> {
        self.place.borrow_mut().take()
    }

    /// Called by the interpreter. Once the time is up, every further step raises again, so that a script that catches the
    /// error does not get any further.
    #[inline]
    pub(super) fn on_step(&self, lua: &Lua) -> mlua::Result<VmState> {
        let steps = self.steps.get().wrapping_add(1);
        self.steps.set(steps);
        if self.is_expired.get() {
            return Err(self.time_is_up());
        }
        if !steps.is_multiple_of(STEPS_PER_CLOCK_READ) {
            return Ok(VmState::Continue);
        }
        self.read_clock(lua, steps)
    }

    fn read_clock(&self, lua: &Lua, steps: u32) -> mlua::Result<VmState> {
        let now = Instant::now();
        let Some(deadline) = self.deadline.get() else {
            self.deadline.set(now.checked_add(self.limit.get()));
            return Ok(VmState::Continue);
        };
        if now < deadline {
            return Ok(VmState::Continue);
        }
        if steps < STEPS_OF_A_REAL_LOOP && !self.is_extended.replace(true) {
            self.deadline.set(now.checked_add(self.limit.get()));
            return Ok(VmState::Continue);
        }
        self.is_expired.set(true);
        self.place.replace(place_of(lua));
        Err(self.time_is_up())
    }

    fn time_is_up(&self) -> mlua::Error {
        mlua::Error::runtime(self.text())
    }

    /// The sentence for the log.
    pub(super) fn text(&self) -> String {
        format!("time limit of {:?} reached", self.limit.get())
    }
}

/// The innermost frame that has a line, which is a Lua one.
fn place_of(lua: &Lua) -> Option<(String, u32)> {
    (0..FRAMES_SEARCHED_MAX).find_map(|level| {
        lua.inspect_stack(level, |frame| {
            let line = u32::try_from(frame.current_line()?).ok()?;
            let chunk = frame.source().short_src?.into_owned();
            (!chunk.starts_with('[')).then_some((chunk, line))
        })?
    })
}

/// A clock read costs as much as the rest of a step together. Eight steps take well under a microsecond, unless they are
/// library calls over megabytes, which the memory limit bounds to about a millisecond each.
const STEPS_PER_CLOCK_READ: u32 = 8;

/// A script that did fewer steps than this when its time is up did hardly run: the operating system gave the core to
/// somebody else. It gets its time a second time, once, instead of failing a message for the machine's sake.
const STEPS_OF_A_REAL_LOOP: u32 = 1_000;

/// Library functions called by library functions do not stack deeper than this before a Lua frame.
const FRAMES_SEARCHED_MAX: usize = 8;
