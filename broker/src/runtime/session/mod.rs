//! One client: the connection machine joined with a vhost and its queues, without a socket.
//!
//! Whoever drives a session feeds bytes ([`Session::on_bytes`]), tells it when its mailbox has news ([`Session::on_mail`]) and time has
//! passed, and writes what is in [`Session::out`]. Everything else happens here and in the files beside: `commands` carries out methods,
//! `replies` what queues answer, `reply_to` answers to requests, `transactions` holds and commits, `secret` renews credentials, `ending`
//! closes channels and the connection, `actor` judges permissions, `statistics` counts.

mod actor;
mod commands;
mod ending;
mod exclusive;
mod happened;
mod replies;
mod reply_to;
mod secret;
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
use self::replies::Pending;
use self::statistics::{ConfirmSource, SourceStats};
use self::transactions::HeldPublishes;
use super::broker::Broker;
use super::census::Full;
use super::mailbox::Mailbox;
use crate::access::{LoginError, User};
use crate::amqp::out::OutBuffer;
use crate::amqp::{
    ChannelId, Connection, Event, Outcome, Outstanding, ProtocolError, PublishFlags, PublishMode, ReplyCode, SourceId,
};
use crate::message::{Message, Parts};
use crate::metrics::node::Protocol;
use crate::metrics::{ChannelStats, ConnectionStats, Connections};
use crate::queue::{ChannelLimit, HolderId, Input, Notice, Outlet, ReplyTo, Settlement, SharedCredit};
use crate::tls::Secured;
use crate::vhost::firehose::Traced;
use crate::vhost::publish::{Context, Published, Publisher, Trace, without_bcc};
use crate::vhost::reply_to::Backlog;
use crate::vhost::{QueueRecord, Vhost};

/// While more bytes than this wait to be written, nothing is read and no frame looked at: a client that does not read its answers gets
/// no more work done.
const UNSENT_BYTES_MAX: usize = 1024 * 1024;
/// Below this many unsent bytes, consumers get their credit back.
const UNSENT_BYTES_LOW: usize = 128 * 1024;
/// Bytes that may be on their way to a consumer; later consumers of a connection get smaller shares.
const CONSUMER_CREDIT_BYTES: usize = 1024 * 1024;
/// The smallest share. Consumers that get no more have [`SHARED_CREDIT_BYTES`] together.
const CONSUMER_CREDIT_BYTES_MIN: usize = 16 * 1024;
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

/// A consumer or getter of this connection.
#[derive(Debug)]
struct Source {
    channel: ChannelId,
    queue: Arc<QueueRecord>,
    is_consumer: bool,
    no_ack: bool,
    /// Deliveries that the client has not settled.
    outstanding: usize,
    /// Settled in this turn, to be told to the queue.
    settled: Vec<u64>,
    settlement: Settlement,
    /// Bytes delivered since credit was given back.
    owed_bytes: usize,
    credit_bytes: usize,
    stats: Option<SourceStats>,
}

impl Source {
    /// Enough to tell its queue.
    fn owes_much(&self) -> bool {
        self.owed_bytes > 0 && self.owed_bytes * 2 >= self.credit_bytes
    }
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
    publisher: Publisher,
    channels: HashMap<u16, ChannelSession>,
    sources: HashMap<SourceId, Source>,
    next_source: u32,
    consumer_count: usize,
    /// Sources with settled deliveries that their queues have not been told of.
    settling: Vec<SourceId>,
    /// Sources that have much credit to give back.
    owing: Vec<SourceId>,
    shared_credit: Arc<SharedCredit>,
    /// Bytes of it to be given back.
    owed_shared_bytes: usize,
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
            conn: Connection::new(Arc::clone(&broker.identity), Arc::clone(&broker.limits), now),
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
            publisher: Publisher::default(),
            channels: HashMap::new(),
            sources: HashMap::new(),
            next_source: 1,
            consumer_count: 0,
            settling: Vec::new(),
            owing: Vec::new(),
            shared_credit: Arc::new(SharedCredit::new(SHARED_CREDIT_BYTES)),
            owed_shared_bytes: 0,
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
        self.conn.deadline()
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
                if let Err(error) = self.on_publish(now, channel, flags, mode, parts, message) {
                    self.fail(now, channel, error.in_method(crate::amqp::method::BasicPublish::ID));
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
                if let Err(error) = self.on_command(channel, &method) {
                    self.fail(now, channel, error.in_method(method.id()));
                }
            }
            Event::Authenticate { mechanism, response } => {
                self.login = Some(Login { mechanism: mechanism.to_owned(), response: response.to_vec() });
            }
            Event::Open { vhost } => self.on_open(now, vhost),
            Event::ChannelOpen { channel } => self.on_channel_open(now, channel),
            Event::UpdateSecret { new_secret: _, reason } => {
                if let Err(error) = self.on_update_secret(reason) {
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

    /// The credentials were checked.
    pub fn on_login(&mut self, now: Instant, mechanism: &str, result: Result<Arc<User>, LoginRefused>) {
        match result {
            Ok(user) => {
                self.tell_authentication(mechanism, Some(&user.name), None);
                self.broker.metrics.logins.add(Protocol::Amqp091, true);
                mechanism.clone_into(&mut self.mechanism);
                self.actor = Some(Actor::new(user, Arc::clone(&self.broker.access), self.number));
                self.conn.authenticated();
            }
            Err(LoginRefused { user, reason, is_malformed }) => {
                self.tell_authentication(mechanism, user.as_deref(), Some(&reason));
                self.broker.metrics.logins.add(Protocol::Amqp091, false);
                tracing::warn!(connection = self.number, peer = %self.peer, mechanism, reason, "login refused");
                if is_malformed {
                    self.conn.refuse_silently(now);
                } else {
                    self.conn.refuse_login(now, mechanism);
                }
            }
        }
    }

    fn on_open(&mut self, now: Instant, name: &str) {
        match self.open(name) {
            Ok(vhost) => {
                if let Some(actor) = &mut self.actor {
                    actor.enter(&vhost.name);
                    let client_name = self.conn.client().connection_name.as_deref().unwrap_or_default();
                    tracing::info!(connection = self.number, peer = %self.peer, user = actor.name(), vhost = name, name = client_name, "connection opened");
                }
                self.vhost = Some(vhost);
                self.conn.opened(now);
                self.tell_connection_created();
                self.open_statistics(now);
            }
            Err(error) => {
                let error = error.in_method(crate::amqp::method::ConnectionOpen::ID);
                tracing::warn!(connection = self.number, peer = %self.peer, error = %error, "refused connection");
                self.conn.close(now, &error);
            }
        }
    }

    /// The checks of semantics 3.10.
    fn open(&self, name: &str) -> Result<Arc<Vhost>, ProtocolError> {
        let refuse = |text: String| ProtocolError::new(ReplyCode::NotAllowed, text);
        let Some(actor) = &self.actor else { return Err(refuse("not authenticated".into())) };
        if let Some(max) = self.broker.connections_max
            && self.broker.connection_count() > max as usize
        {
            return Err(refuse(format!("connection refused: node connection limit ({max}) is reached")));
        }
        let vhost = self.broker.vhost(name).ok_or_else(|| refuse(format!("vhost {name} not found")))?;
        let user = actor.name();
        let limits = self.broker.access.limits_of(user);
        self.broker.census.enter(self.number, (user, limits), (&vhost.name, vhost.limits())).map_err(|full| {
            refuse(match full {
                Full::Vhost(limit) => {
                    format!("access to vhost '{name}' refused for user '{user}': connection limit ({limit}) is reached")
                }
                Full::User(limit) => {
                    format!("connection refused for user '{user}': user connection limit ({limit}) is reached")
                }
            })
        })?;
        let is_refused = !actor.may_enter(name);
        // Looked at when this connection is counted: whoever deletes a vhost closes those that are.
        if is_refused || vhost.has_ended() {
            self.broker.census.leave(self.number);
        }
        if is_refused {
            return Err(refuse(format!("access to vhost '{name}' refused for user '{user}'")));
        }
        if vhost.has_ended() {
            return Err(refuse(format!("vhost {name} not found")));
        }
        Ok(vhost)
    }

    /// The user's limit counts the channels of all its connections (semantics 5.7).
    fn on_channel_open(&mut self, now: Instant, channel: ChannelId) {
        let Some(actor) = &self.actor else { return };
        let limits = self.broker.access.limits_of(actor.name());
        match self.broker.census.open_channel(self.number, limits.max_channels) {
            Ok(()) => {
                self.channels.entry(channel.0).or_default().is_counted = true;
                self.open_channel_statistics(now, channel);
                self.conn.channel_opened(channel);
                self.tell_channel_created(channel);
            }
            Err(limit) => {
                let text = format!(
                    "number of channels opened for user '{}' has reached the maximum allowed user limit of {limit}",
                    actor.name()
                );
                self.fail(now, channel, ProtocolError::new(ReplyCode::NotAllowed, text));
            }
        }
    }

    // Publishing and settling

    fn on_publish(
        &mut self,
        now: Instant,
        channel: ChannelId,
        flags: PublishFlags,
        mode: PublishMode,
        parts: Option<Parts<'_>>,
        message: Arc<Message>,
    ) -> Result<(), ProtocolError> {
        // The publish that meets an alarm is still processed; the socket is left unread behind it (semantics 26.5).
        if let Some(reason) = self.broker.alarms.reason() {
            self.conn.block(now, reason);
        }
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(()) };
        if flags.immediate {
            return Err(ProtocolError::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        let channels = &self.channels;
        let context = Context {
            vhost,
            hooks: &self.broker.hooks,
            access_generation: self.broker.access.generation(),
            reply_name: &|channel| channels.get(&channel)?.reply_consumer.as_ref().map(|(_, name)| Arc::clone(name)),
        };
        // A returned message goes back as it came, whatever a hook made of it (semantics 12.12).
        let original = flags.mandatory.then(|| Arc::clone(&message));
        let number = match mode {
            PublishMode::Plain => 0,
            PublishMode::Confirm(number) => number,
            PublishMode::Transaction(number) => {
                let held = self.publisher.hold(&context, actor, channel.0, number, parts, message)?;
                return self.hold_publish(channel, held, original);
            }
        };
        let published = self.publisher.publish(&context, actor, channel.0, number, parts, message)?;
        if published == Published::Unroutable {
            if let Some(exchange) = self.publisher.last_exchange().cloned() {
                self.count_unroutable(&exchange, channel.0, original.is_some());
            }
            if let Some(original) = original {
                self.return_unroutable(channel, &original)?;
            }
        }
        if number != 0 {
            let source = self.confirm_source(channel.0);
            match published {
                Published::Routed(queue_count) => self.conn.expect_confirms(channel, number, queue_count, source),
                Published::Unroutable | Published::Dropped => self.conn.expect_confirms(channel, number, 0, source),
                Published::Rejected => self.conn.confirm(channel, number..=number, false)?,
            }
        }
        Ok(())
    }

    /// Hands a mandatory message back that nobody takes (semantics 12.7).
    fn return_unroutable(&mut self, channel: ChannelId, original: &Arc<Message>) -> Result<(), ProtocolError> {
        let message = without_bcc(original)?;
        self.conn.return_message(channel, ReplyCode::NoRoute, &message);
        Ok(())
    }

    fn flush_publishes(&mut self) {
        if self.publisher.is_filled() {
            let mailbox = &self.mailbox;
            self.publisher.flush(&self.outlet, |bytes| mailbox.publishes_posted(bytes));
            self.count_publishes();
            for Trace { channel, message, queues } in self.publisher.take_traces() {
                if let Some((vhost, by)) = self.traced(channel) {
                    vhost.trace_publish(by, &message, &queues);
                }
            }
        }
    }

    /// What the firehose says of a channel.
    fn traced(&self, channel: u16) -> Option<(&Vhost, Traced<'_>)> {
        let (vhost, actor) = (self.vhost.as_deref()?, self.actor.as_ref()?);
        let node = &self.broker.identity.cluster_name;
        Some((vhost, Traced { node, connection: &self.name, channel, user: actor.name() }))
    }

    fn on_settle(&mut self, outcome: Outcome) {
        for index in 0..self.conn.settled().len() {
            let Some(&outstanding) = self.conn.settled().get(index) else { break };
            self.settle(outstanding, outcome);
        }
    }

    /// Notes down that a delivery is settled; its queue is told by [`Self::flush_settled`].
    fn settle(&mut self, outstanding: Outstanding, outcome: Outcome) {
        let settlement = match outcome {
            Outcome::Requeue => Settlement::Requeue,
            Outcome::Ack => Settlement::Remove,
            Outcome::Discard => Settlement::Reject,
        };
        let Some(source) = self.sources.get_mut(&outstanding.source) else { return };
        if source.settlement != settlement && !source.settled.is_empty() {
            post_settled(&self.stats, outstanding.source, source);
        }
        source.settlement = settlement;
        if source.settled.is_empty() {
            self.settling.push(outstanding.source);
        }
        source.settled.push(outstanding.ticket);
        source.outstanding -= 1;
    }

    fn flush_settled(&mut self) {
        for id in std::mem::take(&mut self.settling) {
            if let Some(source) = self.sources.get_mut(&id) {
                post_settled(&self.stats, id, source);
                let channel = source.channel;
                self.touch(channel.0);
                self.forget_source_if_idle(id);
            }
        }
    }

    fn forget_source_if_idle(&mut self, id: SourceId) {
        let Some(source) = self.sources.get(&id) else { return };
        if source.is_consumer || source.outstanding > 0 {
            return;
        }
        let (channel, queue) = (source.channel, source.queue.number);
        self.sources.remove(&id);
        if let Some(channel) = self.channels.get_mut(&channel.0) {
            channel.sources.retain(|&source| source != id);
            if channel.getters.get(&queue) == Some(&id) {
                channel.getters.remove(&queue);
            }
        }
    }

    /// Gives consumers the credit back that was written to the socket.
    fn return_credit(&mut self) {
        for id in std::mem::take(&mut self.owing) {
            if let Some(source) = self.sources.get_mut(&id) {
                let bytes = std::mem::take(&mut source.owed_bytes) as i64;
                let holder = HolderId { connection: self.number, source: id.0 };
                source.queue.handle.post(Input::Credit { holder, bytes });
            }
        }
        let bytes = std::mem::take(&mut self.owed_shared_bytes);
        if bytes > 0 {
            self.shared_credit.give_back(bytes);
            while let Some(source) = self.shared_credit.next_waiting() {
                if let Some(state) = self.sources.get(&SourceId(source)) {
                    let holder = HolderId { connection: self.number, source };
                    state.queue.handle.post(Input::Credit { holder, bytes: 0 });
                }
            }
        }
    }

    fn new_source(&mut self, channel: ChannelId, queue: Arc<QueueRecord>, is_consumer: bool, no_ack: bool) -> SourceId {
        // Each basic.get that is acked makes a new source, so in a long life the numbers come round.
        while self.sources.contains_key(&SourceId(self.next_source)) {
            self.next_source = self.next_source.wrapping_add(1);
        }
        let id = SourceId(self.next_source);
        self.next_source = self.next_source.wrapping_add(1);
        let source = Source {
            stats: self.source_stats(channel, &queue),
            channel,
            queue,
            is_consumer,
            no_ack,
            outstanding: 0,
            settled: Vec::new(),
            settlement: Settlement::Remove,
            owed_bytes: 0,
            credit_bytes: self.next_share_bytes().max(CONSUMER_CREDIT_BYTES_MIN),
        };
        self.sources.insert(id, source);
        self.channels.entry(channel.0).or_default().sources.push(id);
        id
    }

    /// The first gets all, the second half, the third a third: together they have little more than the first.
    fn next_share_bytes(&self) -> usize {
        CONSUMER_CREDIT_BYTES / (1 + self.consumer_count)
    }

    fn reply_to(&self, channel: ChannelId) -> ReplyTo {
        ReplyTo { outlet: Arc::clone(&self.outlet), channel: channel.0 }
    }

    fn holder(&self, source: SourceId) -> HolderId {
        HolderId { connection: self.number, source: source.0 }
    }
}

fn post_settled(connection: &ConnectionStats, id: SourceId, source: &mut Source) {
    if source.settled.is_empty() {
        return;
    }
    let holder = HolderId { connection: connection.number, source: id.0 };
    if let Some(stats) = &source.stats {
        stats.settled(connection, source.settlement, source.settled.len());
    }
    let tickets = std::mem::take(&mut source.settled);
    source.queue.handle.post(Input::Settle { holder, tickets, settlement: source.settlement });
}

/// Why a login was refused.
#[derive(Clone, Debug)]
pub struct LoginRefused {
    /// The user that it was for, if the response says so.
    pub user: Option<String>,
    /// For the log.
    pub reason: String,
    /// The response could not be read: that has no answer on the wire (semantics 4.1, 4.5).
    pub is_malformed: bool,
}

impl From<LoginError> for LoginRefused {
    fn from(error: LoginError) -> Self {
        let reason = error.to_string();
        match error {
            LoginError::Malformed { .. } => Self { user: None, reason, is_malformed: true },
            LoginError::Refused { user, .. } => Self { user: Some(user), reason, is_malformed: false },
        }
    }
}

/// Room for notices that is kept between turns.
const NOTICES_KEEP_MAX: usize = 256;
