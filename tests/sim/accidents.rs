//! What goes wrong, and what ends by itself: the node's life, faults of network, disk and memory.

use storage_log::Mutant;
use storage_log::sim::Faults;

use crate::client::Mode;
use crate::defect::Defect;
use crate::facts::NodeEnd;
use crate::faults::Fault;
use crate::history::Event;
use crate::network::Direction;
use crate::node::{Node, Site};
use crate::storage::Rhythm;
use crate::world::{Stop, World};

impl World {
    /// Between turns: faults whose time has come or is over, and a node that has failed or may start again.
    pub(crate) fn keep_up(&mut self) {
        let now_ms = self.now_ms();
        if self.mode == Mode::Work
            && let Some(fault) = self.faults.due(now_ms)
        {
            self.happen(fault);
        }
        if self.disk_recovers_at_ms.is_some_and(|at| at <= now_ms) {
            self.recover_disk();
        }
        if self.memory_recovers_at_ms.is_some_and(|at| at <= now_ms) {
            self.recover_memory();
        }
        if self.node.as_ref().is_some_and(Node::has_failed) {
            self.say("the store has failed, and the node ends");
            let end = if self.disk.has_power() { NodeEnd::Killed } else { NodeEnd::PowerCut };
            self.end_node(end);
        }
        self.go_on_stopping();
        if self.node.is_none() && self.start_at_ms <= now_ms {
            self.start_node();
        }
    }

    fn start_node(&mut self) {
        let mutant = match self.defect {
            Some(Defect::SkipSync) => Some(Mutant::SkipSyncData),
            _ => None,
        };
        let site = Site {
            disk: &self.disk,
            rhythm: &self.rhythm,
            clock: &self.clock,
            segment_bytes: self.plan.segment_bytes,
            salt: self.random.next_u64(),
            queue_memory_bytes: self.plan.queue_memory_bytes,
            memory: &self.memory,
            mutant,
            durability: self.defect.map_or(plugin_api::storage::Durability::Synced, Defect::durability),
        };
        match Node::start(&site, &mut self.tasks) {
            Ok(node) => {
                self.node = Some(node);
                self.is_listening = true;
                Rhythm::set(&self.rhythm, self.plan.store_wait_ms_max);
                self.history.note(Event::NodeStarted);
            }
            Err(error) if self.mode == Mode::Work => {
                self.say(&format!("the broker does not start: {error}"));
                if self.disk.has_power() {
                    self.disk.kill();
                } else {
                    self.history.note(Event::NodeEnded(NodeEnd::PowerCut));
                    self.disk.crash();
                }
                self.start_at_ms = self.now_ms() + 100;
            }
            Err(error) => self.history.violate("protocol", format!("the broker does not start: {error}")),
        }
    }

    /// The node ends at once, however it does.
    pub(crate) fn end_node(&mut self, end: NodeEnd) {
        let Some(node) = self.node.take() else { return };
        self.is_listening = false;
        node.end(&mut self.tasks);
        self.stop = None;
        if end == NodeEnd::PowerCut {
            for wire in self.wires.iter().filter(|wire| self.tasks.is_running(wire.task)) {
                wire.link.borrow_mut().reset();
            }
        }
        self.cut_connections();
        self.history.note(Event::NodeEnded(end));
        match end {
            NodeEnd::Stopped | NodeEnd::Killed => self.disk.kill(),
            NodeEnd::PowerCut => self.disk.crash(),
        }
        self.forget_wires();
        self.start_at_ms = self.now_ms() + u64::from(self.random.below(300));
    }

    fn happen(&mut self, fault: Fault) {
        self.say(&format!("fault: {fault:?}"));
        let now_ms = self.now_ms();
        match fault {
            Fault::Reset => {
                if let Some(index) = self.some_wire() {
                    let id = self.wires[index].id;
                    self.history.note(Event::ConnectionEnding(id));
                    self.wires[index].link.borrow_mut().reset();
                }
            }
            Fault::Silence => {
                if let Some(index) = self.some_wire() {
                    let (id, client) = (self.wires[index].id, self.wires[index].client);
                    self.history.note(Event::ConnectionEnding(id));
                    self.wires[index].link.borrow_mut().silence();
                    self.with_client(client, |client, context| client.die(context.now_ms));
                }
            }
            Fault::Stall => {
                if let Some(index) = self.some_wire() {
                    let direction = *self.random.pick(&[Direction::ToBroker, Direction::ToClient]);
                    // Less than would cost a connection its heartbeats.
                    let until_ms = now_ms + u64::from(self.random.below(1500));
                    self.wires[index].link.borrow_mut().stall(direction, until_ms);
                }
            }
            Fault::Kill => self.end_node(NodeEnd::Killed),
            Fault::PowerCut => {
                if self.random.below(2) == 0 {
                    self.end_node(NodeEnd::PowerCut);
                } else {
                    // In the middle of what the disk is asked for next.
                    let calls = self.random.below(12);
                    self.disk.set_faults(Faults { power_fails_in: Some(calls), ..Faults::default() });
                }
            }
            Fault::Stop => self.begin_stop(),
            Fault::SyncError => {
                let faults = match self.random.below(2) {
                    0 => Faults { sync_fails_in: Some(self.random.below(4)), ..Faults::default() },
                    _ => Faults { write_fails_in: Some(self.random.below(4)), ..Faults::default() },
                };
                self.disk.set_faults(faults);
            }
            Fault::DiskFull => {
                let room = u64::from(self.random.below(20_000));
                self.disk.set_capacity(self.disk.used_bytes() + room);
                self.disk_recovers_at_ms = Some(now_ms + 100 + u64::from(self.random.below(2000)));
            }
            Fault::SlowDisk => {
                Rhythm::set(&self.rhythm, 500);
                self.disk_recovers_at_ms = Some(now_ms + 100 + u64::from(self.random.below(2000)));
            }
            Fault::Alarm => {
                self.memory.set(u64::MAX);
                self.memory_recovers_at_ms = Some(now_ms + 200 + u64::from(self.random.below(1000)));
            }
            Fault::Shrink => {
                self.memory.set(self.plan.queue_memory_bytes + 1);
                self.memory_recovers_at_ms = Some(now_ms + 200 + u64::from(self.random.below(1000)));
            }
        }
    }

    /// A connection that both sides have.
    fn some_wire(&mut self) -> Option<usize> {
        let is_up = |index: &usize| {
            let wire = &self.wires[*index];
            wire.client < self.clients.len() && self.clients[wire.client].connection() == Some(wire.id)
        };
        let up: Vec<usize> = (0..self.wires.len()).filter(is_up).collect();
        (!up.is_empty()).then(|| *self.random.pick(&up))
    }

    fn begin_stop(&mut self) {
        if let Some(node) = &mut self.node
            && self.stop.is_none()
        {
            node.stop_timer(&mut self.tasks);
            node.close_connections();
            self.is_listening = false;
            for id in self.wires.iter().map(|wire| wire.id).collect::<Vec<_>>() {
                self.history.note(Event::ConnectionEnding(id));
            }
            self.stop = Some(Stop { cut_at_ms: self.now_ms() + 5000, flush: None });
        }
    }

    /// Connections end or are cut, the store takes what is left, and the process ends.
    fn go_on_stopping(&mut self) {
        let now_ms = self.now_ms();
        let (Some(stop), Some(node)) = (&mut self.stop, &self.node) else { return };
        let is_connected = self.wires.iter().any(|wire| self.tasks.is_running(wire.task));
        match &stop.flush {
            None if is_connected && now_ms < stop.cut_at_ms => {}
            None => {
                stop.flush = Some((node.flush(), now_ms + FLUSH_MS_MAX));
                self.cut_connections();
            }
            // What it has taken may have led to more.
            Some((flushed, until_ms)) if flushed.is_set() && !node.is_idle() && now_ms < *until_ms => {
                stop.flush = Some((node.flush(), *until_ms));
            }
            Some((flushed, _)) if flushed.is_set() => {
                node.close_store();
                self.end_node(NodeEnd::Stopped);
            }
            // What is left is lost as after a kill.
            Some((_, until_ms)) if now_ms >= *until_ms => self.end_node(NodeEnd::Killed),
            Some(_) => {}
        }
    }

    fn cut_connections(&mut self) {
        for index in 0..self.wires.len() {
            let (id, task) = (self.wires[index].id, self.wires[index].task);
            if self.tasks.is_running(task) {
                self.tasks.end(task);
                self.history.note(Event::ConnectionEnded(id));
            }
        }
    }

    pub(crate) fn recover_disk(&mut self) {
        self.say("the disk is well again");
        self.disk_recovers_at_ms = None;
        self.disk.set_capacity(u64::MAX);
        Rhythm::set(&self.rhythm, self.plan.store_wait_ms_max);
    }

    pub(crate) fn recover_memory(&mut self) {
        self.say("there is memory again");
        self.memory_recovers_at_ms = None;
        self.memory.set(0);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn end_faults(&mut self) {
        self.recover_disk();
        self.recover_memory();
        if self.disk.has_power() {
            self.disk.set_faults(Faults::default());
        } else {
            self.end_node(NodeEnd::PowerCut);
        }
        if self.node.as_ref().is_some_and(Node::will_fail) {
            self.end_node(NodeEnd::Killed);
        }
        for wire in &self.wires {
            let mut link = wire.link.borrow_mut();
            link.stall(Direction::ToBroker, 0);
            link.stall(Direction::ToClient, 0);
            if link.is_silent() {
                // TCP finds out some day.
                link.reset();
            }
        }
    }
}

/// How long the store may take for what is left when the node stops.
const FLUSH_MS_MAX: u64 = 10_000;
