//! One client: the connection machine joined with a vhost and its queues, without a socket.
//!
//! Whoever drives a session feeds bytes ([`Session::on_bytes`]), tells it when its mailbox has news ([`Session::on_mail`]) and time has
//! passed, and writes what is in [`Session::out`]. Everything else happens here and in the files beside: `opening` lets clients in, `commands`
//! carries out methods, `publishing` takes messages, `sources` settles them, `replies` is what queues answer, `reply_to` answers to requests,
//! `transactions` holds and commits, `secret` renews credentials, `judging` waits for auth backends, `ending` closes channels and the
//! connection, `actor` judges permissions, `statistics` counts.

mod actor;
mod commands;
mod ending;
mod exclusive;
mod happened;
mod hooks;
mod judging;
mod opening;
mod publishing;
mod replies;
mod reply_to;
mod secret;
mod sources;
mod statistics;
mod transactions;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use self::actor::Actor;
use self::ending::Ending;
use self::exclusive::ExclusiveQueues;
use self::hooks::SessionHooks;
use self::judging::{Deferred, Renewal};
pub use self::opening::LoginRefused;
use self::replies::Pending;
use self::sources::{Remains, Source};
use self::statistics::ConfirmSource;
use self::transactions::HeldPublishes;
use super::broker::Broker;
use super::mailbox::Mailbox;
use crate::amqp::out::OutBuffer;
use crate::amqp::{ChannelId, Connection, Event, SourceId};
use crate::metrics::{ChannelStats, ConnectionStats, Connections};
use crate::queue::{ChannelLimit, Notice, Outlet, SharedCredit};
use crate::tls::Secured;
use crate::vhost::Vhost;
use crate::vhost::publish::Publisher;
use crate::vhost::reply_to::Backlog;

/// While more bytes than this wait to be written, nothing is read and no frame looked at: a client that does not read its answers gets
/// no more work done.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;
/// Below this many unsent bytes, consumers get their credit back.
const UNSENT_BYTES_LOW: usize = 128 * 1024;

/// Bytes that may be on their way to all those consumers of a connection whose shares would be too small.
const SHARED_CREDIT_BYTES: usize = 1024 * 1024;

/// Credentials to check; the driver does it, because it may take long.
#[derive(Debug)]
pub struct Login {
    /// The mechanism, as the client named it.
    pub mechanism: String,
    /// The response, unread.
    pub response: Vec<u8>,
}

/// What the session knows of a channel beside its machine.
#[derive(Debug, Default)]
struct ChannelSession {
    last_queue: String,
    prefetch_count: u16,
    limit: Option<Arc<ChannelLimit>>,
    /// Whose turn it is to hear first that the limit has room.
    limit_turn: usize,
    pending: Option<Pending>,
    /// Waits for an auth backend.
    deferred: Option<Deferred>,
    /// Consumers to tell that they are cancelled, once the channel has its delete-ok.
    cancelled: Vec<SourceId>,
    sources: Vec<SourceId>,
    /// The channel's reply consumer, and the name that repliers are told (semantics 22.1).
    reply_consumer: Option<(SourceId, Arc<str>)>,
    /// The getter of each queue, by the queue's number.
    getters: HashMap<u64, SourceId>,
    transaction: HeldPublishes,
    ending: Option<Ending>,
    /// That it ends has been told.
    is_told: bool,
    /// For its user's limit.
    is_counted: bool,
    /// What it counts.
    stats: Option<Arc<ChannelStats>>,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    broker: Arc<Broker>,
    number: u64,
    peer: SocketAddr,
    /// The address that the client has connected to, if somebody has said so.
    local: Option<SocketAddr>,
    /// How it is encrypted, if it is.
    secured: Option<Arc<Secured>>,
    /// As RabbitMQ names connections: `PEER -> LOCAL`.
    name: String,
    /// What it has logged in with.
    mechanism: String,
    /// Whether it has been told that it is there.
    is_announced: bool,
    conn: Connection,
    mailbox: Arc<Mailbox>,
    outlet: Arc<dyn Outlet>,
    actor: Option<Actor>,
    vhost: Option<Arc<Vhost>>,
    login: Option<Login>,
    /// The vhost that an auth backend is asked about.
    opening: Option<String>,
    renewal: Option<Renewal>,
    /// When the credentials end.
    expires_at: Option<Instant>,
    publisher: Publisher,
    /// Boxed, because the smallest table has room for four.
    channels: HashMap<u16, Box<ChannelSession>>,
    sources: HashMap<SourceId, Source>,
    /// What is left of consumers whose queues have ended.
    remains: HashMap<SourceId, Remains>,
    next_source: u32,
    consumer_count: usize,
    /// Sources with settled deliveries that their queues have not been told of.
    settling: Vec<SourceId>,
    /// Sources that have much credit to give back.
    owing: Vec<SourceId>,
    shared_credit: Arc<SharedCredit>,
    /// Bytes of it to be given back.
    owed_shared_bytes: usize,
    hooks: SessionHooks,
    exclusive_queues: ExclusiveQueues,
    /// Replies that wait for the reply consumers of all channels.
    reply_backlog: Arc<Backlog>,
    /// What the transactions of all channels hold.
    transaction_bytes: u64,
    ending: Option<Ending>,
    /// Channels with a request under way.
    pending_count: usize,
    notices: Vec<Notice>,
    has_left_frames: bool,
    /// What it counts.
    stats: Arc<ConnectionStats>,
    /// Channels that did something in this turn.
    touched: Vec<u16>,
    confirm_source: ConfirmSource,
    was_out_of_credit: bool,
    /// An instant with the wall-clock time that it was, in milliseconds.
    clock_base: (Instant, u64),
}

impl Session {
    /// A client that has just connected.
    pub fn new(broker: Arc<Broker>, peer: SocketAddr, now: Instant) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let number = broker.register(Arc::clone(&mailbox));
        Self {
            conn: Connection::new(broker.identity_now(), Arc::clone(&broker.limits), now),
            outlet: Arc::<Mailbox>::clone(&mailbox),
            mailbox,
            number,
            peer,
            local: None,
            secured: None,
            name: peer.to_string(),
            mechanism: String::new(),
            is_announced: false,
            actor: None,
            vhost: None,
            login: None,
            opening: None,
            renewal: None,
            expires_at: None,
            publisher: Publisher::default(),
            channels: HashMap::new(),
            sources: HashMap::new(),
            remains: HashMap::new(),
            next_source: 1,
            consumer_count: 0,
            settling: Vec::new(),
            owing: Vec::new(),
            shared_credit: Arc::new(SharedCredit::new(SHARED_CREDIT_BYTES)),
            owed_shared_bytes: 0,
            hooks: SessionHooks::default(),
            exclusive_queues: ExclusiveQueues::default(),
            reply_backlog: Arc::default(),
            transaction_bytes: 0,
            ending: None,
            pending_count: 0,
            notices: Vec::new(),
            has_left_frames: false,
            stats: Connections::cells(number),
            touched: Vec::new(),
            confirm_source: ConfirmSource::default(),
            was_out_of_credit: false,
            clock_base: (now, 0),
            broker,
        }
    }

    /// The address that the client has connected to.
    pub fn set_local(&mut self, local: SocketAddr) {
        self.local = Some(local);
        self.name = format!("{} -> {local}", self.peer);
    }

    /// What was agreed on in TLS. Call it before the first byte.
    pub fn set_secured(&mut self, secured: Arc<Secured>) {
        if secured.login.is_some() {
            self.conn.offer_external();
        }
        self.secured = Some(secured);
    }

    /// The user that the client's verified certificate names.
    pub fn login_of_certificate(&self) -> Option<&str> {
        self.secured.as_ref()?.login.as_deref()
    }

    /// Unique in the broker while it runs.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The time, by the broker's clock.
    pub fn now(&self) -> Instant {
        self.broker.clock.now()
    }

    /// Where queues leave notices.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Bytes for the client.
    pub fn out(&mut self) -> &mut OutBuffer {
        self.conn.out()
    }

    /// Whether the socket should be read.
    pub fn wants_input(&self) -> bool {
        !self.conn.is_saturated()
            && !self.conn.is_blocked()
            && !self.has_much_unsent()
            && !self.mailbox.is_out_of_credit()
            && !self.conn.has_ended()
    }

    /// Small requests may have large answers, so this is looked at before each.
    fn has_much_unsent(&self) -> bool {
        self.conn.unsent_bytes() >= UNSENT_BYTES_MAX
    }

    /// Frames that have arrived were left because too much was unsent: [`Self::run`] must come before more is read.
    pub fn has_left_frames(&self) -> bool {
        self.has_left_frames
    }

    /// The connection is over once everything in [`Self::out`] is written.
    pub fn has_ended(&self) -> bool {
        self.conn.has_ended()
    }

    /// The client closed the connection and has its answer: that the socket goes as well is as it should be.
    pub fn is_closed(&self) -> bool {
        self.conn.is_closed()
    }

    /// When to call [`Self::on_deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        match (self.conn.deadline(), self.expires_at) {
            (Some(deadline), Some(expires_at)) => Some(deadline.min(expires_at)),
            (deadline, expires_at) => deadline.or(expires_at),
        }
    }

    /// Whether credentials wait to be checked.
    pub fn has_login(&self) -> bool {
        self.login.is_some()
    }

    /// Credentials that wait to be checked; answer with [`Self::on_login`].
    pub fn take_login(&mut self) -> Option<Login> {
        self.login.take()
    }

    /// Whether the client is about to be given up because nothing was heard of it.
    pub fn is_peer_overdue(&self, now: Instant) -> bool {
        self.conn.is_peer_overdue(now)
    }

    /// Bytes have arrived that cannot be used yet; they are offered later, by [`Self::run`].
    pub fn on_sign_of_life(&mut self, now: Instant) {
        self.conn.on_received(now);
        self.has_left_frames = true;
    }

    /// Bytes from the client; returns how many were used. The rest is to be offered again, with more or after mail.
    pub fn on_bytes(&mut self, now: Instant, input: &[u8]) -> usize {
        self.conn.on_received(now);
        self.run(now, input)
    }

    /// Tries again with bytes that were not used before.
    pub fn run(&mut self, now: Instant, input: &[u8]) -> usize {
        let mut rest = input;
        self.has_left_frames = false;
        if let Some(actor) = &self.actor {
            actor.lapse(|| self.broker.clock.wall_ms());
        }
        while !self.has_much_unsent()
            && let Some(event) = self.conn.next_event(now, &mut rest)
        {
            self.on_event(now, event);
            if self.pending_count > 0 || self.ending.is_some() {
                // The queue has most likely answered by now, and what follows need not be held.
                self.drain_mail(now);
            }
        }
        // A message that is still arriving is enough to meet an alarm; one that came whole has met it.
        if self.conn.take_has_content()
            && let Some(reason) = self.broker.alarms.reason()
        {
            self.conn.block(now, reason);
        }
        self.finish_turn(now);
        input.len() - rest.len()
    }

    /// The mailbox has news.
    pub fn on_mail(&mut self, now: Instant) {
        self.finish_turn(now);
    }

    /// Time has passed.
    pub fn on_deadline(&mut self, now: Instant) {
        if self.expires_at.take_if(|at| *at <= now).is_some() {
            tracing::warn!(connection = self.number, peer = %self.peer, "the credentials have expired");
            self.on_forced_close(now, "credential expired".to_owned());
        }
        if let Some(reason) = self.conn.on_deadline(now) {
            tracing::info!(connection = self.number, peer = %self.peer, reason, "closing connection");
        }
    }

    /// Bytes were written.
    pub fn on_written(&mut self, now: Instant) {
        self.conn.on_sent(now);
        self.show_state();
        if self.conn.unsent_bytes() < UNSENT_BYTES_LOW && (!self.owing.is_empty() || self.owed_shared_bytes > 0) {
            self.return_credit();
        }
    }

    /// Sends what gathered, reads the mailbox, lets held frames go on, until nothing is left to do.
    fn finish_turn(&mut self, now: Instant) {
        loop {
            self.flush_publishes();
            self.flush_settled();
            let had_mail = self.drain_mail(now);
            let had_held = self.run_held(now);
            if !had_mail && !had_held {
                break;
            }
        }
        self.conn.flush_confirms();
        self.count_confirms();
        self.show_gauges(now);
        self.has_left_frames |= self.has_much_unsent();
    }

    fn run_held(&mut self, now: Instant) -> bool {
        let mut has_run = false;
        while !self.has_much_unsent()
            && let Some((channel, bytes, start)) = self.conn.take_held()
        {
            has_run = true;
            let mut rest = bytes.get(start..).unwrap_or_default();
            while let Some(event) = self.conn.next_event(now, &mut rest) {
                self.on_event(now, event);
                if self.pending_count > 0 {
                    self.drain_mail(now);
                }
                if self.conn.is_waiting(channel) || self.has_much_unsent() {
                    break;
                }
            }
            let done = bytes.len() - rest.len();
            if done < bytes.len() {
                self.conn.put_back(channel, bytes, done);
            }
        }
        has_run
    }

    fn drain_mail(&mut self, now: Instant) -> bool {
        let mut notices = std::mem::take(&mut self.notices);
        self.mailbox.take(&mut notices);
        let had_mail = !notices.is_empty();
        for notice in notices.drain(..) {
            self.on_notice(now, notice);
        }
        self.notices = notices;
        // A great burst should not stay in memory for ever.
        if self.notices.capacity() > NOTICES_KEEP_MAX {
            self.notices = Vec::new();
        }
        had_mail
    }

    fn on_event(&mut self, now: Instant, event: Event<'_>) {
        match event {
            Event::Publish { channel, flags, mode, parts, message } => {
                let is_foreign = self.actor.as_ref().is_some_and(|actor| actor.is_foreign());
                let kept = is_foreign.then(|| Arc::clone(&message));
                if let Err(error) = self.on_publish(now, channel, flags, mode, parts, message) {
                    match kept.filter(|_| self.is_undecided(&error)) {
                        Some(message) => self.defer(channel, Deferred::Publish { flags, mode, message }),
                        None => self.fail(now, channel, error.in_method(crate::amqp::method::BasicPublish::ID)),
                    }
                }
            }
            Event::Settle { outcome, .. } => self.on_settle(outcome),
            Event::Commit { channel } => self.on_commit(now, channel),
            Event::Rollback { channel } => {
                self.touch(channel.0);
                self.drop_transaction(channel);
            }
            Event::Command { channel, method } => {
                self.touch(channel.0);
                self.flush_publishes();
                self.flush_settled();
                match self.on_command(channel, &method) {
                    Ok(()) => self.forget_unasked(),
                    Err(error) if self.is_undecided(&error) => self.defer_method(channel, &method),
                    Err(error) => self.fail(now, channel, error.in_method(method.id())),
                }
            }
            Event::Authenticate { mechanism, response } => {
                self.login = Some(Login { mechanism: mechanism.to_owned(), response: response.to_vec() });
            }
            Event::Open { vhost } => self.on_open(now, vhost),
            Event::ChannelOpen { channel } => self.on_channel_open(now, channel),
            Event::UpdateSecret { new_secret, reason } => {
                if let Err(error) = self.on_update_secret(new_secret, reason) {
                    self.fail(now, ChannelId(0), error.in_method(crate::amqp::method::ConnectionUpdateSecret::ID));
                }
            }
            Event::ChannelClose { channel } => self.end_channel(channel, None),
            Event::Close => self.end_connection(now, None),
            Event::Failed { channel, error } => self.fail(now, channel, error),
            Event::WrongProtocol(what) => {
                tracing::warn!(connection = self.number, peer = %self.peer, "refused {what}");
            }
            Event::Refused(reason) => {
                tracing::warn!(connection = self.number, peer = %self.peer, reason, "refused connection");
            }
        }
    }
}

/// Room for notices that is kept between turns.
const NOTICES_KEEP_MAX: usize = 256;
