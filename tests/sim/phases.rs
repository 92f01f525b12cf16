//! A run from its start to its end: rounds of work with faults, after each of which everything rests and is looked at, and a last one
//! in which every queue is drained.

use std::rc::Rc;

use plugin_api::testing::Random;

use crate::client::Mode;
use crate::defect::Defect;
use crate::facts::Transaction;
use crate::history::{Event, Violation};
use crate::plan::{Plan, QueueIndex};
use crate::trace::{Mode as Tracing, Trace};
use crate::world::World;

/// What became of a run.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    /// The same for runs that did the same, where the trace was on.
    pub(crate) digest: u64,
    pub(crate) figures: Figures,
}

/// What happened in runs, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) publishes: usize,
    pub(crate) confirmed: usize,
    pub(crate) deliveries: usize,
    pub(crate) dead_letters: usize,
    pub(crate) commits: usize,
    pub(crate) connections: usize,
    pub(crate) starts: usize,
    pub(crate) turns: u64,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Self) {
        self.publishes += other.publishes;
        self.confirmed += other.confirmed;
        self.deliveries += other.deliveries;
        self.dead_letters += other.dead_letters;
        self.commits += other.commits;
        self.connections += other.connections;
        self.starts += other.starts;
        self.turns += other.turns;
    }
}

/// Runs a seed.
///
/// With a name in `only` that oracle judges alone, and what the simulator itself cannot go on with.
pub(crate) fn run(seed: u64, defect: Option<Defect>, only: Option<&str>, tracing: Tracing) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without threads and sockets can always be made");
    // The driver is one long turn of one task; tokio must not take it for one that works too long.
    runtime.block_on(tokio::task::unconstrained(async {
        let mut world = World::new(Plan::of(seed), defect, only, Trace::new(tracing));
        for line in Rc::clone(&world.plan).lines() {
            world.say(&line);
        }
        world.live().await;
        world.outcome()
    }))
}

impl World {
    async fn live(&mut self) {
        let mut random = Random::new(self.plan.seed ^ 0x6c69_7665);
        for round in 0..self.plan.rounds {
            self.say(&format!("round {round}"));
            self.work().await;
            if !self.rest().await || !self.look().await {
                return;
            }
            let is_last = round + 1 == self.plan.rounds;
            if (is_last || random.below(3) == 0) && !self.drain().await {
                return;
            }
        }
    }

    async fn work(&mut self) {
        self.mode = Mode::Work;
        self.publishes_left = PUBLISHES_MAX;
        let now_ms = self.now_ms();
        self.faults.begin(now_ms);
        let time_ms = u64::from(self.plan.round_ms);
        self.run_until(time_ms, |_| false).await;
    }

    /// Faults stop, and everything that was begun is brought to its end.
    async fn rest(&mut self) -> bool {
        self.say("faults end, and everybody rests");
        self.mode = Mode::Rest;
        self.end_faults();
        let is_quiet = |world: &mut Self| world.is_quiet();
        let mut rests = self.run_until(REST_MS_MAX, is_quiet).await;
        // Loads and what else goes on in the background get some time more, as long as they bring anything.
        for _ in 0..SETTLES_MAX {
            let deliveries = self.history.facts.deliveries.len();
            if rests {
                self.run_until(SETTLE_MS, |_| false).await;
            }
            // A client that reads seven bytes at a time may need longer for its backlog; it is alive as long as messages reach it.
            rests = self.run_until(REST_MS_MAX, is_quiet).await;
            if self.history.facts.deliveries.len() == deliveries {
                break;
            }
        }
        self.stuck_unless(rests);
        if rests {
            self.history.note(Event::Quiet);
        }
        rests
    }

    /// Asks how full every queue is.
    async fn look(&mut self) -> bool {
        // That of the dead comes last: what dies meanwhile is looked for there.
        for queue in (0..self.plan.queues.len()).rev() {
            self.with_checker(|checker, context| checker.ask(context, QueueIndex(queue)));
            let answered = self.run_until(REST_MS_MAX, |world| world.checker.0.is_at_rest(Mode::Rest)).await;
            self.stuck_unless(answered);
            if !answered {
                return false;
            }
        }
        self.history.violation().is_none()
    }

    /// Everybody else leaves, so that everything is ready again, and every queue is emptied by one consumer.
    async fn drain(&mut self) -> bool {
        self.say("everybody leaves, and every queue is drained");
        self.mode = Mode::Leave;
        let alone = self
            .run_until(REST_MS_MAX, |world| {
                world.forget_wires();
                world.clients.iter().all(|client| client.is_at_rest(Mode::Leave)) && world.wires.len() <= 1
            })
            .await;
        self.stuck_unless(alone);
        if !alone {
            return false;
        }
        self.history.note(Event::Draining);
        self.with_checker(|checker, context| checker.begin_drain(context));
        let drained = self.drain_until_empty().await;
        self.stuck_unless(drained);
        if !drained {
            return false;
        }
        self.history.note(Event::Drained);
        self.with_checker(|checker, context| checker.end_drain(context));
        self.mode = Mode::Rest;
        let rests = self.run_until(REST_MS_MAX, |world| world.is_quiet()).await;
        self.stuck_unless(rests);
        rests
    }

    async fn drain_until_empty(&mut self) -> bool {
        let mut was_empty = false;
        for _ in 0..DRAIN_LOOKS_MAX {
            let done = self
                .run_until(REST_MS_MAX, |world| {
                    let worked = world.with_checker(|checker, context| checker.drain(context));
                    !worked && world.is_still() && world.checker.has_nothing()
                })
                .await;
            // What is loaded from the store comes a little later.
            self.run_until(SETTLE_MS, |_| false).await;
            if !done || self.history.violation().is_some() || !self.look().await {
                return false;
            }
            let is_empty = self.history.facts.queues.iter().all(|queue| queue.ready == 0) && self.checker.has_nothing();
            // What dies between two looks is seen by neither of them, but by the next.
            if is_empty && was_empty {
                return true;
            }
            was_empty = is_empty;
        }
        false
    }

    /// Nothing is on its way between the broker and clients, nor in the broker as far as anybody can see.
    fn is_still(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.committer.is_idle())
            && self.stop.is_none()
            && self.wires.iter().all(|wire| wire.link.borrow().is_idle())
            && self.tasks.ready().next().is_none()
    }

    /// As [`Self::is_still`], and everybody has the answers to what they asked.
    fn is_quiet(&self) -> bool {
        self.is_still()
            && self.clients.iter().all(|client| client.is_at_rest(self.mode))
            && self.checker.0.is_at_rest(Mode::Rest)
    }

    fn stuck_unless(&mut self, is_done: bool) {
        if is_done || self.history.violation().is_some() {
            return;
        }
        let clients = self.clients.iter().chain([&self.checker.0]);
        let waiting: Vec<String> = clients
            .filter(|client| !client.is_at_rest(self.mode))
            .map(|client| format!("{} waits for {}", client.name(), client.waits_for()))
            .collect();
        let queues = self.history.facts.queues.iter().filter(|queue| queue.ready > 0);
        let ready: Vec<String> = queues.map(|queue| format!("{} has {} ready", queue.plan.name, queue.ready)).collect();
        let idle = self.is_still();
        let left: Vec<usize> =
            self.wires.iter().filter(|wire| self.tasks.is_running(wire.task)).map(|wire| wire.id.0).collect();
        let node = self.node.is_some();
        let text = format!(
            "it does not come to rest: {waiting:?} {ready:?}, still: {idle}, connections {left:?}, node: {node}"
        );
        self.history.violate("liveness", text);
    }

    fn outcome(&self) -> Outcome {
        let facts = &self.history.facts;
        Outcome {
            violation: self.history.violation().cloned(),
            digest: self.history.trace.digest(),
            figures: Figures {
                publishes: facts.publishes.len(),
                confirmed: facts.publishes.iter().filter(|publish| publish.answer.is_some()).count(),
                deliveries: facts.deliveries.len(),
                dead_letters: facts.deliveries.iter().filter(|delivery| delivery.death.is_some()).count(),
                commits: facts.transactions.iter().filter(|state| **state == Transaction::Committed).count(),
                connections: facts.connections.len(),
                starts: facts.boots.len(),
                turns: facts.step,
            },
        }
    }
}

/// Publishes of a round at most.
const PUBLISHES_MAX: u32 = 150;
/// Virtual time in which everything that was begun must end, or a message must move, once nothing goes wrong; in milliseconds.
const REST_MS_MAX: u64 = 120_000;
/// Time for what goes on in the background, in milliseconds.
const SETTLE_MS: u64 = 1000;
/// So often at most, because each time some message must have moved.
const SETTLES_MAX: u32 = 60;
/// Queues are looked at so often until they must be empty.
const DRAIN_LOOKS_MAX: u32 = 60;
