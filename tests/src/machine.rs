//! Our broker without sockets, threads or waiting: sessions are driven by hand and time jumps to the next deadline.

use crate::broker_process;
use crate::clock::ManualClock;
use crate::scenario::settings::Policy;
use crate::transport::{Received, Target, Transport};
use broker::access::{Mechanism, Peer};
use broker::node;
use broker::origin::Origin;
use broker::plugin_host::Registry;
use broker::runtime::clock::Time;
use broker::runtime::session::{Login, LoginRefused};
use broker::runtime::{Broker, Clock, Session};
use broker::store::Committer;
use broker::store::recovery::recover;
use broker::topology::schema::Topology;
use broker::vhost::policy::{ApplyTo, PolicyKind, PolicySpec};
use plugin_api::storage::Storage;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// One batch leads to the next where a queue loads portion after portion.
const COMMIT_ROUNDS_MAX: usize = 10_000;

/// So many things may be due before something comes for a session that waits.
const JUMPS_MAX: usize = 10_000;

/// What all sessions of a machine share: the clock, and the committer that somebody has to run.
struct World {
    broker: Arc<Broker>,
    clock: Arc<ManualClock>,
    committer: Arc<Committer>,
    store: Mutex<[Pin<Box<dyn Future<Output = ()> + Send>>; 2]>,
}

impl World {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    /// When a queue must look at the clock next.
    fn next_tick(&self) -> Option<Instant> {
        let due_ms = self.broker.timer.next_due()?;
        Some(self.now() + Duration::from_millis(due_ms.saturating_sub(self.clock.wall_ms())))
    }

    /// Lets the store do what has been asked of it, and what follows from that.
    fn commit(&self) {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        // What the node does now and then.
        self.committer.retry();
        // A storage that never gets on with something must not keep us here.
        for _ in 0..COMMIT_ROUNDS_MAX {
            for future in &mut *store {
                let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            if self.committer.is_idle() {
                return;
            }
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct MachineTarget(Arc<World>);

impl fmt::Debug for MachineTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineTarget")
    }
}

impl MachineTarget {
    /// A broker with this topology, on the storage that lives in memory.
    ///
    /// # Errors
    /// What would keep the real broker from starting.
    pub fn new(topology: &Topology) -> Result<Self, String> {
        let registry = Registry::builtin().map_err(|error| error.to_string())?;
        let storage = registry.storage("memory", &serde_json::Value::Null, None).map_err(|error| error.to_string())?;
        Self::on(storage, topology)
    }

    /// A broker that recovers what this storage kept.
    ///
    /// # Errors
    /// What would keep the real broker from starting.
    pub fn on(storage: Arc<dyn Storage>, topology: &Topology) -> Result<Self, String> {
        Self::later_on(storage, topology, 0)
    }

    /// As [`Self::on`], and so many milliseconds later than others start.
    ///
    /// # Errors
    /// What would keep the real broker from starting.
    pub fn later_on(storage: Arc<dyn Storage>, topology: &Topology, ms: u64) -> Result<Self, String> {
        let registry = Registry::builtin().map_err(|error| error.to_string())?;
        let recovery = match std::pin::pin!(recover(&*storage)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(recovery) => recovery.map_err(|error| error.to_string())?,
            Poll::Pending => return Err("the storage of a machine must not wait".into()),
        };
        let committer = Committer::new(storage);
        let clock = Arc::new(ManualClock::starting_after(ms));
        let time = Clock::by(Arc::clone(&clock) as Arc<dyn Time>);
        let broker =
            node::build(topology, Arc::new(registry), &committer, recovery, time).map_err(|error| error.to_string())?;
        let store: [Pin<Box<dyn Future<Output = ()> + Send>>; 2] =
            [Box::pin(Arc::clone(&committer).run()), Box::pin(Arc::clone(&committer).page())];
        Ok(Self(Arc::new(World { broker, clock, committer, store: Mutex::new(store) })))
    }
}

impl MachineTarget {
    /// The broker inside.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.0.broker
    }
}

impl Target for MachineTarget {
    fn kind(&self) -> &str {
        broker_process::KIND
    }

    fn put_policy(&self, vhost: &str, policy: &Policy) -> Result<(), String> {
        let vhost = self.0.broker.vhost(vhost).ok_or("no such vhost")?;
        let spec = PolicySpec {
            name: policy.name.clone(),
            pattern: policy.pattern.clone(),
            apply_to: ApplyTo::parse(&policy.apply_to)?,
            priority: policy.priority,
            definition: policy.definition.clone(),
        };
        let put = vhost.put_policy(kind(policy.is_operator), spec, Origin::Runtime);
        put.map(drop).map_err(|error| error.to_string())
    }

    fn delete_policy(&self, vhost: &str, name: &str, is_operator: bool) -> Result<(), String> {
        let vhost = self.0.broker.vhost(vhost).ok_or("no such vhost")?;
        vhost.delete_policy(kind(is_operator), name).map(drop).ok_or_else(|| format!("no policy {name}"))
    }

    fn set_memory_alarm(&self, is_raised: bool) -> Result<(), String> {
        self.0.broker.set_memory_watermark(is_raised.then_some(0));
        Ok(())
    }

    fn connect(&self) -> io::Result<Box<dyn Transport>> {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let session = Session::new(Arc::clone(&self.0.broker), peer, self.0.now());
        Ok(Box::new(MachineTransport { world: Arc::clone(&self.0), session, rest: Vec::new(), unread: Vec::new() }))
    }
}

fn kind(is_operator: bool) -> PolicyKind {
    if is_operator { PolicyKind::Operator } else { PolicyKind::User }
}

struct MachineTransport {
    world: Arc<World>,
    session: Session,
    /// Bytes that the session has not used yet.
    rest: Vec<u8>,
    /// Bytes in the socket, which the session does not read now.
    unread: Vec<u8>,
}

impl MachineTransport {
    fn log_in(&mut self, login: &Login) {
        let result = match Mechanism::parse(&login.mechanism) {
            Ok(mechanism) => {
                let login = self.world.broker.access.login(mechanism, &login.response, Peer::LOOPBACK);
                match std::pin::pin!(login).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(result) => result.map_err(LoginRefused::from),
                    Poll::Pending => panic!("internal users are judged without waiting"),
                }
            }
            Err(error) => Err(LoginRefused { user: None, reason: error.to_string(), is_malformed: true }),
        };
        self.session.on_login(self.world.now(), &login.mechanism, result);
    }

    /// Everything that can happen without more input and without time passing.
    fn settle(&mut self) {
        loop {
            let before = self.rest.len();
            let now = self.world.now();
            let used = self.session.run(now, &self.rest);
            self.rest.drain(..used);
            self.world.commit();
            self.session.on_mail(now);
            self.session.on_written(now);
            match self.session.take_login() {
                Some(login) => self.log_in(&login),
                None if self.rest.len() != before => {}
                None if !self.unread.is_empty() && self.session.wants_input() => {
                    self.rest.append(&mut self.unread);
                    let used = self.session.on_bytes(now, &self.rest);
                    self.rest.drain(..used);
                }
                None => return,
            }
        }
    }
}

impl Transport for MachineTransport {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unread.extend_from_slice(bytes);
        self.settle();
        Ok(())
    }

    fn receive(&mut self, _deadline: Instant) -> io::Result<Received> {
        self.settle();
        // Nothing will come by itself, so whatever comes next comes with time. What is due for a queue need not concern this session.
        for _ in 0..JUMPS_MAX {
            if !self.session.out().is_empty() || self.session.has_ended() {
                break;
            }
            let deadline = self.session.deadline();
            if let Some(due) = self.world.next_tick().filter(|due| deadline.is_none_or(|deadline| *due <= deadline)) {
                self.world.clock.jump(due);
                self.world.broker.timer.fire(self.world.clock.wall_ms());
                self.settle();
                continue;
            }
            if let Some(deadline) = deadline {
                self.world.clock.jump(deadline);
                self.session.on_deadline(self.world.now());
            }
            break;
        }
        Ok(match self.session.out().take_all() {
            bytes if !bytes.is_empty() => Received::Bytes(bytes),
            _ if self.session.has_ended() => Received::Eof,
            _ => Received::Nothing,
        })
    }
}

impl Drop for MachineTransport {
    fn drop(&mut self) {
        self.session.abandon();
    }
}
