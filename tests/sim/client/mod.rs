//! Clients: small state machines that speak real bytes, decide at random what they do next, and note what they see.
//!
//! `connection` opens, reads and ends; `channel` is what a client knows of a channel; `setup` declares; `incoming` is what the broker
//! says; `publisher`, `consumer` and `disturber` decide what a channel does, and `transactions` what its transactions do. A client never
//! judges what the broker promises: that is for oracles. It objects only to what no client could make sense of.

mod channel;
pub(crate) mod checker;
mod connection;
mod consumer;
mod disturber;
mod incoming;
mod publisher;
mod setup;
mod transactions;

use std::cell::RefCell;
use std::rc::Rc;

use plugin_api::testing::Random;

use self::channel::Slot;
use self::connection::Conn;
use crate::facts::ConnectionId;
use crate::history::History;
use crate::network::Link;
use crate::plan::{ClientPlan, Plan};

/// What clients are meant to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Whatever they like.
    Work,
    /// Connect and wait for answers, and nothing else.
    Rest,
    /// End in order.
    Leave,
}

/// What a client needs while it has its turn.
pub(crate) struct Context<'a> {
    pub(crate) now_ms: u64,
    pub(crate) plan: &'a Plan,
    pub(crate) history: &'a mut History,
    pub(crate) mode: Mode,
    /// How many publishes there may still be.
    pub(crate) publishes_left: &'a mut u32,
}

/// See the module.
pub(crate) struct Client {
    pub(crate) index: usize,
    plan: ClientPlan,
    random: Random,
    slots: Vec<Slot>,
    conn: Option<Conn>,
    connect_at_ms: u64,
}

impl Client {
    pub(crate) fn new(index: usize, plan: ClientPlan, random: Random) -> Self {
        let slots = plan.work.iter().map(|work| Slot::new(work.clone())).collect();
        Self { index, plan, random, slots, conn: None, connect_at_ms: 0 }
    }

    /// How the trace calls it.
    pub(crate) fn name(&self) -> String {
        format!("client {}", self.index)
    }

    pub(crate) fn plan(&self) -> &ClientPlan {
        &self.plan
    }

    /// Its connection, if it has one.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        self.conn.as_ref().map(|conn| conn.id)
    }

    /// Its end of the network.
    pub(crate) fn link(&self) -> Option<&Rc<RefCell<Link>>> {
        self.conn.as_ref().map(|conn| &conn.link)
    }

    /// Whether it wants a connection now.
    pub(crate) fn wants_connection(&self, now_ms: u64, mode: Mode) -> bool {
        self.conn.is_none() && mode != Mode::Leave && self.connect_at_ms <= now_ms
    }

    /// Nobody listens.
    pub(crate) fn refuse(&mut self, now_ms: u64) {
        self.connect_at_ms = now_ms + 50;
    }

    /// When it wants a turn, if it wants one at all; what arrives is not counted.
    pub(crate) fn next_ms(&self, mode: Mode) -> Option<u64> {
        let Some(conn) = &self.conn else { return (mode != Mode::Leave).then_some(self.connect_at_ms) };
        let act = if conn.wants_turn(mode) { conn.next_act_ms(&self.slots, mode) } else { None };
        [act, conn.next_heartbeat_ms()].into_iter().flatten().min()
    }

    /// Everything that it has begun is answered, and it is connected; or it has left, where that is what it should do.
    pub(crate) fn is_at_rest(&self, mode: Mode) -> bool {
        match (&self.conn, mode) {
            (conn, Mode::Leave) => conn.is_none(),
            (Some(conn), _) => conn.is_at_rest(),
            (None, _) => false,
        }
    }

    /// What it still waits for, for reports.
    pub(crate) fn waits_for(&self) -> String {
        self.conn.as_ref().map_or_else(|| "a connection".to_owned(), Conn::waits_for)
    }

    /// The process ends without a word.
    pub(crate) fn die(&mut self, now_ms: u64) {
        self.conn = None;
        self.connect_at_ms = now_ms + u64::from(self.random.below(500));
        for slot in &mut self.slots {
            slot.channel = None;
        }
    }
}
