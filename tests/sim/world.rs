//! Everything that takes turns: the broker's tasks, the network, the clients, and time.
//!
//! A turn is one task polled, one delivery of the network, one read or one step of a client. Whose turn it is, and how much time passes
//! between two, follows from the seed. `phases` says what happens in a run, `accidents` what goes wrong in it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use broker::runtime::connection_task;
use plugin_api::testing::Random;
use storage_log::sim::SimDisk;

use crate::client::checker::Checker;
use crate::client::{Client, Context, Mode};
use crate::clock::VirtualClock;
use crate::defect::Defect;
use crate::facts::ConnectionId;
use crate::faults::Schedule;
use crate::history::{Event, History};
use crate::network::{BrokerEnd, Direction, Habits, Link};
use crate::node::{Flushed, Node};
use crate::plan::{ClientPlan, Plan};
use crate::storage::Rhythm;
use crate::tasks::{TaskId, Tasks};
use crate::trace::Trace;

/// A connection as the network knows it.
pub(crate) struct Wire {
    pub(crate) id: ConnectionId,
    pub(crate) link: Rc<RefCell<Link>>,
    pub(crate) task: TaskId,
    pub(crate) client: usize,
}

/// How far the node is with its end.
pub(crate) struct Stop {
    /// When connections are cut that have not ended, in milliseconds.
    pub(crate) cut_at_ms: u64,
    /// Whether the store has taken everything, once connections are gone, and how long that may take.
    pub(crate) flush: Option<(Arc<Flushed>, u64)>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) plan: Rc<Plan>,
    pub(crate) defect: Option<Defect>,
    pub(crate) random: Random,
    pub(crate) history: History,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) disk: SimDisk,
    pub(crate) rhythm: Arc<Mutex<Rhythm>>,
    pub(crate) memory: Rc<Cell<u64>>,
    pub(crate) node: Option<Node>,
    /// Whether the node takes connections.
    pub(crate) is_listening: bool,
    pub(crate) start_at_ms: u64,
    /// The node is ending in order.
    pub(crate) stop: Option<Stop>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) clients: Vec<Client>,
    pub(crate) checker: Checker,
    pub(crate) is_draining: bool,
    pub(crate) mode: Mode,
    pub(crate) publishes_left: u32,
    pub(crate) faults: Schedule,
    /// Faults that end by themselves at some time, in milliseconds.
    pub(crate) disk_recovers_at_ms: Option<u64>,
    pub(crate) memory_recovers_at_ms: Option<u64>,
}

/// Whose turn it may be.
#[derive(Debug, Clone, Copy)]
enum Actor {
    Task(TaskId),
    Network(usize, Direction),
    /// The last client is the checker.
    Read(usize),
    Act(usize),
    Connect(usize),
}

impl World {
    pub(crate) fn new(plan: Plan, defect: Option<Defect>, only: Option<&str>, trace: Trace) -> Self {
        let seed = plan.seed;
        let stream = |number: u64| Random::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(number << 32));
        let clients = plan.clients.iter().enumerate();
        let clients: Vec<Client> =
            clients.map(|(index, plan)| Client::new(index, plan.clone(), stream(100 + index as u64))).collect();
        let checker = ClientPlan {
            heartbeat_secs: 0,
            frame_max: 131_072,
            think_ms_max: 1,
            network: Habits { chunk_max: 10_000, window_bytes: 10_000 },
            work: Vec::new(),
        };
        let clock = VirtualClock::start();
        if defect == Some(Defect::FastClock) {
            clock.set_wall_percent(300);
        }
        Self {
            random: stream(1),
            history: History::new(&plan, trace, only),
            tasks: Tasks::default(),
            clock: Arc::new(clock),
            disk: SimDisk::new(stream(2).next_u64()),
            rhythm: Rhythm::new(stream(3)),
            memory: Rc::new(Cell::new(0)),
            node: None,
            is_listening: false,
            start_at_ms: 0,
            stop: None,
            wires: Vec::new(),
            checker: Checker::new(clients.len(), checker, stream(4)),
            clients,
            is_draining: false,
            mode: Mode::Rest,
            publishes_left: 0,
            faults: Schedule::new(&plan.faults, stream(5)),
            disk_recovers_at_ms: None,
            memory_recovers_at_ms: None,
            plan: Rc::new(plan),
            defect,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.elapsed_ms()
    }

    /// Tells the trace.
    pub(crate) fn say(&mut self, text: &str) {
        let now_ms = self.now_ms();
        self.history.trace.line(now_ms, "#", || text.to_owned());
    }

    /// Gives turns until `is_done` or the time is over; false when it is, or when a promise was broken.
    pub(crate) async fn run_until(&mut self, time_ms: u64, mut is_done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline_ms = self.now_ms() + time_ms;
        loop {
            if self.history.violation().is_some() {
                return false;
            }
            self.keep_up();
            if is_done(self) {
                return true;
            }
            if self.now_ms() >= deadline_ms {
                return false;
            }
            self.turn(deadline_ms).await;
        }
    }

    /// One turn of somebody, or time until somebody has something to do.
    async fn turn(&mut self, deadline_ms: u64) {
        self.history.facts.step += 1;
        self.history.facts.now_ms = self.now_ms();
        let actors = self.actors();
        if actors.is_empty() {
            return self.idle(deadline_ms).await;
        }
        let actor = *self.random.pick(&actors);
        self.perform(actor);
        match self.random.below(64) {
            0..8 => tokio::time::advance(Duration::from_millis(1)).await,
            8 => tokio::time::advance(Duration::from_millis(u64::from(1 + self.random.below(20)))).await,
            // Whatever the broker has started by itself gets its turn, too.
            9..16 => tokio::task::yield_now().await,
            _ => {}
        }
    }

    fn actors(&self) -> Vec<Actor> {
        let now_ms = self.history.facts.now_ms;
        let mut actors: Vec<Actor> = self.tasks.ready().map(Actor::Task).collect();
        for (index, wire) in self.wires.iter().enumerate() {
            let link = wire.link.borrow();
            for direction in [Direction::ToBroker, Direction::ToClient] {
                if link.can_deliver(direction, now_ms) {
                    actors.push(Actor::Network(index, direction));
                }
            }
        }
        for (client, mode) in self.everybody() {
            if client.wants_connection(now_ms, mode) {
                actors.push(Actor::Connect(client.index));
            }
            if client.link().is_some_and(|link| link.borrow().has_news()) {
                actors.push(Actor::Read(client.index));
            }
            if client.connection().is_some() && client.next_ms(mode).is_some_and(|next_ms| next_ms <= now_ms) {
                actors.push(Actor::Act(client.index));
            }
        }
        actors
    }

    /// All clients with what they are meant to do. The checker always rests, and does what it is asked for.
    fn everybody(&self) -> impl Iterator<Item = (&Client, Mode)> {
        self.clients.iter().map(|client| (client, self.mode)).chain([(&self.checker.0, Mode::Rest)])
    }

    /// Lets time pass until something is due.
    async fn idle(&mut self, deadline_ms: u64) {
        let clients = self.everybody().filter_map(|(client, mode)| client.next_ms(mode));
        let wires = self.wires.iter().filter_map(|wire| wire.link.borrow().next_ms());
        let faults = if self.mode == Mode::Work { self.faults.next_ms() } else { None };
        let others = [self.disk_recovers_at_ms, self.memory_recovers_at_ms, faults];
        let start = self.node.is_none().then_some(self.start_at_ms);
        let next = clients.chain(wires).chain(others.into_iter().flatten()).chain(start).min();
        // Whoever is due now and has no turn waits for somebody else.
        let soonest = self.now_ms() + 1;
        let until_ms = next.map_or(deadline_ms, |next| next.max(soonest).min(deadline_ms));
        let mut timer = pin!(tokio::time::sleep_until(self.clock.at(until_ms)));
        let tasks = &self.tasks;
        poll_fn(|cx| if tasks.poll_ready(cx).is_ready() { Poll::Ready(()) } else { timer.as_mut().poll(cx) }).await;
    }

    fn perform(&mut self, actor: Actor) {
        let tasks = &self.tasks;
        self.history.trace.turn(self.history.facts.now_ms, || match actor {
            Actor::Task(task) => format!("task {}", tasks.name(task)),
            other => format!("{other:?}"),
        });
        match actor {
            Actor::Task(task) => {
                if self.tasks.run(task) {
                    self.on_task_ended(task);
                }
            }
            Actor::Network(index, direction) => {
                let bytes = self.wires[index].link.borrow_mut().deliver(direction);
                self.history.trace.turn(self.history.facts.now_ms, || format!("{bytes} bytes"));
            }
            Actor::Connect(index) => self.connect(index),
            Actor::Read(index) => self.with_client(index, Client::on_readable),
            Actor::Act(index) => self.with_client(index, Client::act),
        }
    }

    /// Lends everything that a client needs.
    pub(crate) fn with_client<R>(&mut self, index: usize, act: impl FnOnce(&mut Client, &mut Context<'_>) -> R) -> R {
        let is_checker = index == self.clients.len();
        let mut context = Context {
            now_ms: self.history.facts.now_ms,
            plan: &self.plan,
            history: &mut self.history,
            mode: if is_checker { Mode::Rest } else { self.mode },
            publishes_left: &mut self.publishes_left,
        };
        let client = if is_checker { &mut self.checker.0 } else { &mut self.clients[index] };
        act(client, &mut context)
    }

    /// As [`Self::with_client`], for the checker.
    pub(crate) fn with_checker<R>(&mut self, act: impl FnOnce(&mut Checker, &mut Context<'_>) -> R) -> R {
        let mut context = Context {
            now_ms: self.history.facts.now_ms,
            plan: &self.plan,
            history: &mut self.history,
            mode: Mode::Rest,
            publishes_left: &mut self.publishes_left,
        };
        act(&mut self.checker, &mut context)
    }

    fn connect(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let listening = self.node.as_ref().filter(|_| self.is_listening);
        let Some(broker) = listening.map(|node| Arc::clone(&node.broker)) else {
            return self.with_client(index, |client, _| client.refuse(now_ms));
        };
        let random = Random::new(self.random.next_u64());
        let habits = self.with_client(index, |client, _| client.plan().network);
        let meddler = self.defect.and_then(|defect| defect.meddler(Random::new(self.plan.seed ^ now_ms)));
        let link = Link::new(habits, random, meddler);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let serve = connection_task::serve(broker, BrokerEnd(Rc::clone(&link)), peer.into());
        let id = self.history.connect(index);
        let task = self.tasks.start(format!("connection {}", id.0), serve);
        self.wires.push(Wire { id, link: Rc::clone(&link), task, client: index });
        self.with_client(index, |client, context| client.on_connected(context, id, link));
    }

    fn on_task_ended(&mut self, task: TaskId) {
        let Some(index) = self.wires.iter().position(|wire| wire.task == task) else {
            // Those that load messages end when the store has failed, and the node after them.
            if self.node.as_ref().is_some_and(|node| !node.has_failed()) {
                self.history.violate("protocol", "a task of the broker ended by itself".to_owned());
            }
            return;
        };
        let id = self.wires[index].id;
        if self.history.facts.connections[id.0].end.begun.is_none() {
            let text = format!("the broker ended connection {} without a reason", id.0);
            self.history.violate("protocol", text);
        }
        self.history.note(Event::ConnectionEnded(id));
        self.forget_wires();
    }

    /// Forgets connections that neither side has any more.
    pub(crate) fn forget_wires(&mut self) {
        let everybody: Vec<Option<ConnectionId>> = self.everybody().map(|(client, _)| client.connection()).collect();
        let tasks = &self.tasks;
        self.wires.retain(|wire| tasks.is_running(wire.task) || everybody.contains(&Some(wire.id)));
    }
}
