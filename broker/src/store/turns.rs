//! Who carries a batch out when little is going on: the connection that brought it.
//!
//! A change of thread costs as much as a third of a sync: the committer's thread must be woken, and it must wake the connection again.
//! So a connection that has nothing else to do, and whose few messages nobody else is storing, stores them on its own thread and reads
//! the confirm at once. As soon as there is more, messages gather for the committer's thread, and connections go on reading meanwhile.

use std::cell::Cell;
use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use super::committer::{Committer, Part};

/// So many messages are few. More publishers than this are served better by one that gathers what all of them bring.
const FEW: usize = 4;

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::None) };
    static HAS_WOKEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether a connection's turn is under way on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    None,
    UnderWay,
    /// It has left something in the committer without waking it.
    HasBrought,
}

/// A connection's turns.
#[derive(Debug)]
pub struct Turns {
    committer: Arc<Committer>,
    waits: Waits,
    /// A turn has woken other connections, which may wait for this thread.
    has_woken: bool,
}

/// What has become of a wish to spend time on storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storing {
    /// It was done: there is news.
    Done,
    /// Others go first; ask again.
    NotYet,
    /// The committer does it, or there is nothing to do.
    Elsewhere,
}

/// What the connection has left in the committer, without waking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Nothing,
    /// Something of this turn.
    New,
    /// Something of an earlier turn.
    Old,
}

impl Turns {
    /// For one connection.
    pub fn new(committer: Arc<Committer>) -> Self {
        Self { committer, waits: Waits::Nothing, has_woken: false }
    }

    /// Carries out a turn. The connection must then say how it goes on, by [`Self::goes_on`] or [`Self::store`].
    pub fn turn<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let under_way = UnderWay(self);
        TURN.set(Turn::UnderWay);
        HAS_WOKEN.set(false);
        let result = work();
        drop(under_way);
        result
    }

    /// The connection has more to do. What it brought waits for one such turn, and not longer: often the next one finds nothing more.
    pub fn goes_on(&mut self) {
        match self.waits {
            Waits::Nothing => {}
            Waits::New => self.waits = Waits::Old,
            Waits::Old => self.wake(),
        }
    }

    /// The connection has nothing more to do and may spend its time on what it brought. `before` is called before it does.
    pub fn store(&mut self, before: impl FnOnce()) -> Storing {
        if self.waits == Waits::Nothing {
            return Storing::Elsewhere;
        }
        // Deliveries go out before this thread waits for a disk.
        if std::mem::take(&mut self.has_woken) {
            return Storing::NotYet;
        }
        let Some(mut work) = can_block().then(|| self.committer.try_work()).flatten() else {
            self.wake();
            return Storing::Elsewhere;
        };
        before();
        let rest = block_in_place(|| Handle::current().block_on(self.committer.carry_out(&mut work, Part::Urgent)));
        drop(work);
        // The confirm goes out first; what nobody waits for is stored when there is nothing to do again.
        self.waits = if rest { Waits::New } else { Waits::Nothing };
        self.committer.wake_if_gathered();
        Storing::Done
    }

    /// The connection does something else.
    pub fn wake(&mut self) {
        if self.waits != Waits::Nothing {
            self.waits = Waits::Nothing;
            self.committer.wake();
        }
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Ends the turn, also by a panic.
struct UnderWay<'a>(&'a mut Turns);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if TURN.replace(Turn::None) == Turn::HasBrought && self.0.waits == Waits::Nothing {
            self.0.waits = Waits::New;
        }
        self.0.has_woken |= HAS_WOKEN.take();
    }
}

/// This thread has woken a connection.
pub fn has_woken() {
    HAS_WOKEN.set(true);
}

/// Whether so many messages are few.
pub(super) fn is_little(count: usize) -> bool {
    count <= FEW
}

/// Whether the committer must be woken for what was just brought: not if a connection's turn on this thread will see to it, nor if
/// somebody was called for what was there before.
pub(super) fn must_wake(is_little: bool, was_empty: bool) -> bool {
    let turn = TURN.get();
    if turn != Turn::None && is_little {
        TURN.set(Turn::HasBrought);
        return false;
    }
    // It would have seen to what it brought while that was little.
    let was_seen_to = turn == Turn::HasBrought;
    if was_seen_to {
        TURN.set(Turn::UnderWay);
    }
    was_empty || was_seen_to
}

/// A thread of a runtime that has others can be spared.
fn can_block() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}
