//! Sessions side by side without sockets: what happens when things cross on their way.

mod confirms;
mod credit;
mod reply_to;
mod secret;
mod statistics;
mod transactions;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::value::{Table, TableRef, Value};

use super::{LoginRefused, Session};
use crate::access::{Mechanism, Peer};
use crate::amqp::frame::{self, FrameKind};
use crate::amqp::handshake::PROTOCOL_HEADER;
use crate::amqp::method::*;
use crate::amqp::{ChannelId, ProtocolError, ReplyCode};
use crate::node;
use crate::plugin_host::Registry;
use crate::queue::{Notice, Outlet, Reply};
use crate::runtime::alarms::DiskState;
use crate::runtime::{Broker, Clock};
use crate::store::{Committer, Recovery};
use crate::topology::schema::Topology;

/// A broker whose store never answers: nobody runs its committer.
pub(crate) fn broker() -> Arc<Broker> {
    broker_of(&Topology::default())
}

fn broker_of(topology: &Topology) -> Arc<Broker> {
    let registry = Registry::builtin().expect("built-in plugins work");
    let storage = registry.storage("memory", &serde_json::Value::Null, None).expect("the memory storage works");
    node::build(topology, Arc::new(registry), &Committer::new(storage), Recovery::default(), Clock::default())
        .expect("the default topology works")
}

struct Client {
    session: Session,
    now: Instant,
}

impl Client {
    /// Logged in as guest in `/`, with channel 1 open.
    fn new(broker: &Arc<Broker>) -> Self {
        Self::with_heartbeat(broker, 0)
    }

    fn with_heartbeat(broker: &Arc<Broker>, heartbeat: u16) -> Self {
        let now = Instant::now();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut client = Self { session: Session::new(Arc::clone(broker), peer, now), now };
        client.session.on_bytes(now, &PROTOCOL_HEADER);
        let capabilities = Table::new().with("connection.blocked", true).with("consumer_cancel_notify", true);
        let mut properties = Vec::new();
        Table::new().with("capabilities", Value::Table(capabilities)).encode(&mut properties);
        let client_properties = TableRef::new(&properties);
        let response = b"\0guest\0guest";
        client.send(0, ConnectionStartOk { client_properties, mechanism: "PLAIN", response, locale: "en_US" });
        let login = client.session.take_login().expect("start-ok brings a login");
        let user = block_on(broker.access.login(Mechanism::Plain, &login.response, Peer::LOOPBACK));
        let user = user.map_err(LoginRefused::from);
        client.session.on_login(now, "PLAIN", user);
        client.send(0, ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat });
        client.send(0, ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
        client.send(1, ChannelOpen { out_of_band: "" });
        client.told();
        client
    }

    fn send<'m>(&mut self, channel: u16, method: impl Into<Method<'m>>) {
        let mut frames = Vec::new();
        frame::write_method(&mut frames, channel, method);
        self.bytes(&frames);
    }

    fn bytes(&mut self, frames: &[u8]) {
        assert_eq!(self.session.on_bytes(self.now, frames), frames.len());
    }

    fn declare(&mut self, queue: &str) {
        self.send(1, QueueDeclare { queue, ..declare() });
    }

    /// The store never answers, so nobody can wait for it.
    fn declare_durable(&mut self, queue: &str) {
        self.send(1, QueueDeclare { queue, durable: true, nowait: true, ..declare() });
    }

    fn consume(&mut self, queue: &str, consumer_tag: &str) {
        let arguments = TableRef::new(&[]);
        let (no_local, no_ack, exclusive, nowait) = (false, false, false, false);
        self.send(1, BasicConsume { ticket: 0, queue, consumer_tag, no_local, no_ack, exclusive, nowait, arguments });
    }

    fn publish(&mut self, queue: &str, body: &[u8]) {
        self.bytes(&publish(queue, &[0, 0], body));
    }

    fn publish_persistent(&mut self, queue: &str, body: &[u8]) {
        self.bytes(&publish(queue, &[0x10, 0, 2], body));
    }

    /// The methods that the client has been sent since the last look; a delivery as its consumer and delivery tag.
    fn told(&mut self) -> Vec<String> {
        self.session.on_mail(self.now);
        let bytes = self.session.out().take_all();
        self.session.on_written(self.now);
        let mut input = &bytes[..];
        let mut seen = Vec::new();
        while let Some(frame) = frame::decode(&mut input, 0).expect("the broker frames well") {
            if frame.kind == FrameKind::Method {
                let method = Method::decode(frame.payload).expect("the broker encodes well");
                seen.push(match method {
                    Method::BasicDeliver(deliver) => format!("{} {}", deliver.consumer_tag, deliver.delivery_tag),
                    Method::ChannelClose(close) => format!("{} closed {}", frame.channel, close.reply_text),
                    Method::ConnectionClose(close) => format!("closed {}", close.reply_text),
                    Method::BasicAck(ack) => format!("ack {} {}", ack.delivery_tag, ack.multiple),
                    Method::BasicNack(nack) => format!("nack {} {}", nack.delivery_tag, nack.multiple),
                    other => format!("{} {}", frame.channel, other.name()),
                });
            }
        }
        seen
    }
}

fn declare() -> QueueDeclare<'static> {
    QueueDeclare {
        ticket: 0,
        queue: "",
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: TableRef::new(&[]),
    }
}

/// The frames of a publish through the default exchange, on channel 1.
fn publish(queue: &str, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    let publish = BasicPublish { ticket: 0, exchange: "", routing_key: queue, mandatory: false, immediate: false };
    frame::write_method(&mut frames, 1, publish);
    frame::write(&mut frames, FrameKind::Header, 1, |out| {
        out.extend_from_slice(&[0, 60, 0, 0]);
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        out.extend_from_slice(properties);
    });
    frame::write(&mut frames, FrameKind::Body, 1, |out| out.extend_from_slice(body));
    frames
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("nothing here waits"),
    }
}

#[test]
fn a_cancel_that_crosses_the_end_of_its_queue_is_answered() {
    let broker = broker();
    let (mut one, mut other) = (Client::new(&broker), Client::new(&broker));
    one.declare("q");
    one.consume("q", "tag");
    assert_eq!(one.told(), ["1 queue.declare-ok", "1 basic.consume-ok"]);
    other.send(1, QueueDelete { ticket: 0, queue: "q", if_unused: false, if_empty: false, nowait: false });
    assert_eq!(other.told(), ["1 queue.delete-ok"]);
    one.send(1, BasicCancel { consumer_tag: "tag", nowait: false });
    assert_eq!(one.told(), ["1 basic.cancel", "1 basic.cancel-ok"]);
}

#[test]
fn a_publish_during_an_alarm_is_taken_and_stops_the_socket() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.told();
    broker.on_memory(u64::MAX);
    client.declare("q");
    assert!(client.session.wants_input(), "a connection that does not publish goes on");
    client.publish("q", b"m");
    assert!(!client.session.wants_input());
    assert_eq!(client.told(), ["1 queue.declare-ok", "0 connection.blocked"]);
    broker.on_memory(0);
    assert_eq!(client.told(), ["0 connection.unblocked"]);
    assert!(client.session.wants_input());
    client.send(1, BasicGet { ticket: 0, queue: "q", no_ack: true });
    assert_eq!(client.told(), ["1 basic.get-ok"]);
}

/// Semantics 5.11: what it sends, heartbeats as well, stays in its socket, so its silence means nothing.
#[test]
fn a_client_that_an_alarm_keeps_unread_is_not_given_up() {
    let broker = broker();
    let mut client = Client::with_heartbeat(&broker, 10);
    let silent = |client: &mut Client, seconds| {
        client.now += Duration::from_secs(seconds);
        client.session.on_deadline(client.now);
        client.told();
        client.session.has_ended()
    };
    client.declare("q");
    broker.on_memory(u64::MAX);
    client.publish("q", b"m");
    assert!(!client.session.wants_input());
    assert!(!silent(&mut client, 15) && !silent(&mut client, 15) && !silent(&mut client, 15));
    broker.on_memory(0);
    client.told();
    assert!(client.session.wants_input());
    assert!(!silent(&mut client, 15), "the time of its silence begins anew");
    assert!(silent(&mut client, 15));
}

#[test]
fn a_connection_is_blocked_once_and_unblocked_when_all_alarms_are_clear() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.told();
    let full = DiskState { is_full: true, ..DiskState::default() };
    broker.on_disk(full, None);
    client.publish("q", b"m");
    assert_eq!(client.told(), ["0 connection.blocked"]);
    broker.on_memory(u64::MAX);
    assert_eq!(broker.alarms.reason(), Some("low on memory & low on disk"));
    broker.on_disk(DiskState::default(), None);
    assert!(client.told().is_empty() && !client.session.wants_input(), "one alarm is left");
    broker.on_memory(0);
    assert_eq!(client.told(), ["0 connection.unblocked"]);
    assert!(client.session.wants_input());
}

/// With a limit of one for the channel, its consumers take turns although each ack makes room for any of them.
fn check_turns(queues: [&str; 2]) {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.send(1, BasicQos { prefetch_size: 0, prefetch_count: 1, global: true });
    for (queue, tag) in queues.into_iter().zip(["c0", "c1"]) {
        client.declare(queue);
        client.consume(queue, tag);
        for _ in 0..10 {
            client.publish(queue, b"m");
        }
    }
    let mut served = [0, 0];
    for delivery_tag in 1..=8 {
        let told = client.told();
        let deliveries: Vec<&String> = told.iter().filter(|line| line.starts_with('c')).collect();
        match deliveries.as_slice() {
            [line] => served[usize::from(line.starts_with("c1"))] += 1,
            other => panic!("one at a time, but {other:?}"),
        }
        client.send(1, BasicAck { delivery_tag, multiple: false });
    }
    assert!(served[0] > 2 && served[1] > 2, "{queues:?} were served unfairly: {served:?}");
}

#[test]
fn consumers_of_a_queue_take_turns_under_the_limit_of_their_channel() {
    check_turns(["q", "q"]);
}

#[test]
fn queues_take_turns_under_the_limit_of_a_channel() {
    check_turns(["q", "r"]);
}

#[test]
fn requests_wait_while_too_much_is_unsent() {
    const COUNT: usize = 1000;
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    for _ in 0..COUNT {
        client.publish("q", &[0; 8000]);
    }
    client.told();
    let mut input = Vec::new();
    for _ in 0..COUNT {
        frame::write_method(&mut input, 1, BasicGet { ticket: 0, queue: "q", no_ack: true });
    }
    let mut answers = 0;
    let mut used = client.session.on_bytes(client.now, &input);
    loop {
        assert!(client.session.out().len() < 2 * super::UNSENT_BYTES_MAX, "{}", client.session.out().len());
        input.drain(..used);
        match client.told().len() {
            0 => break,
            count => answers += count,
        }
        used = client.session.run(client.now, &input);
    }
    assert_eq!((answers, input.len()), (COUNT, 0));
}

#[test]
fn numbers_of_sources_that_come_round_leave_living_ones_alone() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.consume("q", "c0");
    client.session.next_source = 1;
    client.consume("q", "c1");
    client.publish("q", b"m");
    client.publish("q", b"m");
    let mut told = client.told();
    told.retain(|line| line.starts_with('c'));
    told.sort();
    assert!(told.len() == 2 && told[0].starts_with("c0") && told[1].starts_with("c1"), "{told:?}");
}

#[test]
fn deliveries_of_a_queue_that_has_ended_may_be_settled_late() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.consume("q", "c");
    client.publish("q", b"m1");
    client.publish("q", b"m2");
    client.told();
    client.send(1, QueueDelete { ticket: 0, queue: "q", if_unused: false, if_empty: false, nowait: false });
    assert_eq!(client.told(), ["1 queue.delete-ok", "1 basic.cancel"]);
    assert!(client.session.sources.is_empty(), "nothing holds the queue any more");
    // The number of the consumer that has gone is not given to another while its deliveries are unsettled.
    client.session.next_source = 1;
    client.declare("q");
    client.consume("q", "d");
    client.publish("q", b"m3");
    client.send(1, BasicAck { delivery_tag: 2, multiple: true });
    assert!(client.session.remains.is_empty(), "all of it is settled");
    let told = client.told();
    assert_eq!(told.last().map(String::as_str), Some("d 3"), "{told:?}");
    let source = client.session.sources.values().next().expect("the second consumer");
    assert_eq!(source.outstanding, 1);
    client.send(1, BasicAck { delivery_tag: 1, multiple: false });
    assert_eq!(client.told(), ["1 closed PRECONDITION_FAILED - unknown delivery tag 1"]);
}

#[test]
fn what_was_got_from_a_queue_that_has_ended_may_be_settled_late() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.publish("q", b"m");
    client.send(1, BasicGet { ticket: 0, queue: "q", no_ack: false });
    client.send(1, QueueDelete { ticket: 0, queue: "q", if_unused: false, if_empty: false, nowait: false });
    client.told();
    assert!(client.session.sources.is_empty(), "nothing holds the queue any more");
    client.send(1, BasicNack { delivery_tag: 1, multiple: false, requeue: true });
    assert!(client.told().is_empty() && client.session.remains.is_empty());
}

#[test]
fn a_connection_that_an_alarm_stopped_can_still_be_closed() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    broker.on_memory(u64::MAX);
    client.publish("q", b"m");
    assert!(!client.session.wants_input());
    client.told();
    broker.close_connections("shutdown");
    assert_eq!(client.told(), ["closed CONNECTION_FORCED - shutdown"]);
    assert!(client.session.wants_input(), "the answer to close must be read");
    client.send(0, ConnectionCloseOk {});
    assert!(client.session.has_ended());
}

#[test]
fn a_channel_that_ends_before_an_answer_keeps_its_number_until_it_comes() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.send(1, QueueDeclare { queue: "d", durable: true, ..declare() });
    // The store does not answer, and something else ends the channel.
    let error = ProtocolError::new(ReplyCode::PreconditionFailed, "too late");
    client.session.fail(client.now, ChannelId(1), error);
    assert!(client.told().is_empty());
    client.session.mailbox().post(Notice::Reply { channel: 1, reply: Reply::Stored });
    assert_eq!(client.told(), ["1 closed PRECONDITION_FAILED - too late"]);
    client.send(1, ChannelCloseOk {});
    client.send(1, ChannelOpen { out_of_band: "" });
    client.declare("q");
    assert_eq!(client.told(), ["1 channel.open-ok", "1 queue.declare-ok"]);
}

#[test]
fn a_channel_has_so_many_consumers_and_no_more() {
    // Semantics 13.7: replies are consumed like anything else.
    let mut topology = Topology::default();
    topology.limits.consumer_max_per_channel = 2;
    let broker = broker_of(&topology);
    let mut client = Client::new(&broker);
    client.declare("q");
    client.consume("q", "c0");
    client.consume("q", "c1");
    client.send(1, BasicCancel { consumer_tag: "c0", nowait: false });
    client.consume("q", "c2");
    client.send(2, ChannelOpen { out_of_band: "" });
    client.told();
    client.consume("q", "c3");
    assert_eq!(client.told(), ["closed NOT_ALLOWED - reached maximum (2) of consumers per channel"]);
}

#[test]
fn a_message_that_is_still_arriving_meets_an_alarm() {
    // Semantics 26.2: its parts take memory, too, and they count.
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.told();
    broker.on_memory(u64::MAX);
    let frames = publish("q", &[0, 0], &[0; 100]);
    let (begin, end) = frames.split_at(frames.len() - 108);
    client.bytes(begin);
    assert_eq!(client.told(), ["0 connection.blocked"]);
    assert!(!client.session.wants_input());
    broker.on_memory(0);
    assert_eq!(client.told(), ["0 connection.unblocked"]);
    client.bytes(end);
    client.send(1, BasicGet { ticket: 0, queue: "q", no_ack: true });
    assert_eq!(client.told(), ["1 basic.get-ok"]);
}

/// The code and text of the connection.close among what the client has been sent.
fn close_of(client: &mut Client) -> Option<(u16, String)> {
    client.session.on_mail(client.now);
    let bytes = client.session.out().take_all();
    let mut input = &bytes[..];
    while let Some(frame) = frame::decode(&mut input, 0).expect("the broker frames well") {
        if let Ok(Method::ConnectionClose(close)) = Method::decode(frame.payload) {
            return Some((close.reply_code, close.reply_text.to_owned()));
        }
    }
    None
}

/// Semantics 24.2.
#[test]
fn connections_of_a_deleted_vhost_are_closed_with_320() {
    let broker = broker();
    let (mut one, mut other) = (Client::new(&broker), Client::new(&broker));
    one.declare("q");
    one.told();
    broker.delete_vhost("/").expect("it is there");
    for client in [&mut one, &mut other] {
        let (code, text) = close_of(client).expect("the broker closes");
        assert_eq!((code, text.as_str()), (320, "CONNECTION_FORCED - vhost '/' is deleted"));
    }
    assert_eq!(broker.census.of_vhost("/"), 0);
    assert!(broker.access.permissions_of("guest").is_empty(), "permissions go with the vhost");
    assert!(broker.delete_vhost("/").is_err());
    broker.vhosts.create("/", None).expect("it can be made anew");
    assert_eq!(broker.vhost("/").map(|vhost| vhost.counts().1), Some(0));
}

/// Semantics 25.8.
#[test]
fn a_topic_permission_that_is_set_counts_for_keys_that_were_published_before() {
    let broker = broker();
    let mut client = Client::new(&broker);
    let publish = |client: &mut Client| {
        let mut frames = Vec::new();
        let (exchange, routing_key) = ("amq.topic", "secret");
        let publish = BasicPublish { ticket: 0, exchange, routing_key, mandatory: false, immediate: false };
        frame::write_method(&mut frames, 1, publish);
        frame::write(&mut frames, FrameKind::Header, 1, |out| {
            out.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        });
        client.bytes(&frames);
        client.told()
    };
    assert!(publish(&mut client).is_empty() && publish(&mut client).is_empty());
    let decl = crate::topology::schema::TopicPermissionDecl {
        vhost: "/".into(),
        exchange: "amq.topic".into(),
        write: "^public".into(),
        read: ".*".into(),
    };
    broker.access.set_topic_permission("guest", &decl).expect("guest is there");
    let refused = "1 closed ACCESS_REFUSED - write access to topic 'secret' in exchange 'amq.topic' in vhost '/' refused for user 'guest'";
    assert_eq!(publish(&mut client), [refused]);
}

/// Semantics 23.8.
#[test]
fn a_queue_of_a_connection_gets_a_policy_while_it_is_used() {
    use crate::origin::Origin;
    use crate::vhost::policy::{ApplyTo, PolicyKind, PolicySpec};
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.told();
    let vhost = broker.vhost("/").expect("it is there");
    let definition = serde_json::json!({"max-length": 3, "message-ttl": 1000});
    let definition = definition.as_object().cloned().unwrap_or_default();
    let (name, pattern) = ("p".to_owned(), "^q$".to_owned());
    let spec = PolicySpec { name, pattern, apply_to: ApplyTo::Queues, priority: 0, definition };
    vhost.put_policy(PolicyKind::User, spec, Origin::Runtime).expect("it is valid");
    let options = vhost.queue("q").expect("it is there").settings.read().options;
    assert_eq!((options.max_length, options.message_ttl_ms), (Some(3), Some(1000)));
    client.publish("q", b"m");
    client.send(1, BasicGet { ticket: 0, queue: "q", no_ack: true });
    assert_eq!(client.told(), ["1 basic.get-ok"]);
}
