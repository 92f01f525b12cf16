//! A whole session on a vhost of its own: logged in, then frames of the fuzzer's choice. Nothing panics, and a second client
//! can still declare a queue afterwards.
//!
//! The input is a list of frames: type, channel, length (one octet each) and payload. Some types do something else: 0xFF sends the
//! payload as it is, so that framing errors are found, 0xFE lets everything so far be answered (0xFD with a store that does not
//! answer), 0xFC answers the last request that came with a name for replies, 0xFB sends from a second connection from here on.

#![no_main]

use broker::access::{Mechanism, Peer};
use broker::node;
use broker::plugin_host::Registry;
use broker::runtime::{Broker, Clock, Session};
use broker::store::{Committer, recovery::recover};
use broker::topology::schema::Topology;
use libfuzzer_sys::fuzz_target;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

struct World {
    broker: Arc<Broker>,
    committer: Pin<Box<dyn Future<Output = ()>>>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        // The plugins are the same for every world, and so is the memory of the machine, which takes long to ask for.
        static REGISTRY: LazyLock<Arc<Registry>> =
            LazyLock::new(|| Arc::new(Registry::builtin().expect("the built-in types work")));
        let mut topology = Topology::default();
        topology.limits.memory_watermark_bytes = Some(1 << 30);
        let registry = Arc::clone(&REGISTRY);
        let storage = registry.storage("memory", &serde_json::Value::Null, None).expect("the memory storage works");
        let recovery = match pin!(recover(&*storage)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(recovery) => recovery.expect("an empty storage is recovered"),
            Poll::Pending => unreachable!("the memory storage does not wait"),
        };
        let committer = Committer::new(storage);
        let broker = node::build(&topology, registry, &committer, recovery, Clock::default()).expect("the default topology works");
        Self { broker, committer: Box::pin(committer.run()), now: Instant::now() }
    }

    fn session(&self) -> Session {
        Session::new(Arc::clone(&self.broker), SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), self.now)
    }

    /// Gives the session everything that it takes; returns what it says.
    fn feed(&mut self, session: &mut Session, bytes: &[u8], is_stored: bool) -> Vec<u8> {
        let mut said = Vec::new();
        let mut used = session.on_bytes(self.now, bytes);
        loop {
            if let Some(login) = session.take_login() {
                self.log_in(session, &login);
            }
            if is_stored {
                let _ = self.committer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            session.on_mail(self.now);
            said.extend(session.out().take_all());
            session.on_written(self.now);
            let more = session.run(self.now, &bytes[used..]);
            used += more;
            if more == 0 && !session.has_login() && session.out().is_empty() {
                return said;
            }
        }
    }

    fn log_in(&self, session: &mut Session, login: &broker::runtime::session::Login) {
        let Ok(mechanism) = Mechanism::parse(&login.mechanism) else { return };
        let checked = self.broker.access.login(mechanism, &login.response, Peer::LOOPBACK);
        if let Poll::Ready(Ok(user)) = pin!(checked).poll(&mut Context::from_waker(Waker::noop())) {
            session.on_login(self.now, &login.mechanism, Ok(user));
        }
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.push(0xCE);
    bytes
}

/// Header, start-ok, tune-ok, open, and two open channels.
fn prologue() -> Vec<u8> {
    let mut bytes = b"AMQP\x00\x00\x09\x01".to_vec();
    bytes.extend(frame(1, 0, b"\x00\x0a\x00\x0b\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x0c\x00guest\x00guest\x05en_US"));
    bytes.extend(frame(1, 0, b"\x00\x0a\x00\x1f\x07\xff\x00\x02\x00\x00\x00\x00"));
    bytes.extend(frame(1, 0, b"\x00\x0a\x00\x28\x01/\x00\x00"));
    for channel in [1, 2] {
        bytes.extend(frame(1, channel, b"\x00\x14\x00\x0a\x00"));
    }
    bytes
}

/// A client that is logged in, with frames that wait to be sent.
struct Client {
    session: Session,
    unsent: Vec<u8>,
}

impl Client {
    fn new(world: &mut World) -> Self {
        let mut session = world.session();
        let answer = world.feed(&mut session, &prologue(), true);
        assert!(answer.ends_with(&frame(1, 2, b"\x00\x14\x00\x0b\x00\x00\x00\x00")), "the prologue opens two channels");
        Self { session, unsent: Vec::new() }
    }

    fn flush(&mut self, world: &mut World, is_stored: bool, reply_name: &mut Vec<u8>) {
        let said = world.feed(&mut self.session, &std::mem::take(&mut self.unsent), is_stored);
        if let Some(at) = said.windows(REPLY_PREFIX.len()).rposition(|window| window == REPLY_PREFIX) {
            *reply_name = said[at..].iter().copied().take(REPLY_PREFIX.len() + REPLY_TOKEN_BYTES).collect();
        }
    }
}

/// How the name of a requester begins, and how long the rest is.
const REPLY_PREFIX: &[u8] = b"amq.rabbitmq.reply-to.";
const REPLY_TOKEN_BYTES: usize = 22;

/// basic.publish to a requester.
fn reply(channel: u16, name: &[u8], body: &[u8]) -> Vec<u8> {
    let mut method = b"\x00\x3c\x00\x28\x00\x00\x00".to_vec();
    method.push(u8::try_from(name.len()).expect("a short string"));
    method.extend_from_slice(name);
    method.push(1);
    let mut bytes = frame(1, channel, &method);
    bytes.extend(frame(2, channel, &[b"\x00\x3c\x00\x00".as_slice(), &(body.len() as u64).to_be_bytes(), &[0, 0]].concat()));
    if !body.is_empty() {
        bytes.extend(frame(3, channel, body));
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let mut world = World::new();
    let mut client = Client::new(&mut world);
    // Made when it is asked for.
    let mut other = None;
    let mut reply_name = Vec::new();
    let mut rest = input;
    while let Some(([kind, channel, size], tail)) = rest.split_first_chunk::<3>() {
        let (payload, tail) = tail.split_at(usize::from(*size).min(tail.len()));
        rest = tail;
        match kind {
            0xFF => client.unsent.extend_from_slice(payload),
            0xFE | 0xFD => client.flush(&mut world, *kind == 0xFE, &mut reply_name),
            0xFC => client.unsent.extend(reply(u16::from(*channel), &reply_name, payload)),
            0xFB => {
                client.flush(&mut world, true, &mut reply_name);
                let next = other.take().unwrap_or_else(|| Client::new(&mut world));
                other = Some(std::mem::replace(&mut client, next));
            }
            _ => client.unsent.extend(frame(*kind, u16::from(*channel), payload)),
        }
    }
    client.flush(&mut world, true, &mut reply_name);
    client.session.abandon();
    if let Some(mut other) = other {
        other.flush(&mut world, true, &mut reply_name);
        other.session.abandon();
    }
    assert_eq!(world.broker.transactions.used_bytes(), 0, "no transaction outlives its connection");

    let mut other = Client::new(&mut world);
    other.unsent.extend(frame(1, 1, b"\x00\x32\x00\x0a\x00\x00\x09untouched\x00\x00\x00\x00\x00"));
    let answer = world.feed(&mut other.session, &other.unsent, true);
    assert_eq!(answer, frame(1, 1, b"\x00\x32\x00\x0b\x09untouched\x00\x00\x00\x00\x00\x00\x00\x00"));
    other.session.abandon();
});
