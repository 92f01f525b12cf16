//! TLS of the broker over real sockets, with certificates that are made for each test: AMQP, the management API, metrics, SASL EXTERNAL, and
//! files that change while the broker runs.

#![allow(clippy::unwrap_used, reason = "a helper that panics fails its test, which is what it is for")]

mod clients;
mod external;
mod files;
mod handshake;
mod http;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::certificates::{Authority, connect};
use tests::scenario::connection::{Connection, Event, Login};
use tests::temp::TempDir;
use tests::transport::TlsTransport;
use tests::wire::{self, Field, spec};

/// A broker with a certificate for AMQP over TLS.
struct Bench {
    authority: Authority,
    broker: BrokerProcess,
    amqps: SocketAddr,
}

impl Bench {
    /// With `more` in the section `tls`, and these sections beside it.
    fn new(more: &str, rest: &str) -> Self {
        let authority = Authority::new("the authority");
        authority.install(&authority.server());
        let broker = start(&authority, more, &format!("listeners: {{ amqps: '127.0.0.1:0' }}\n{rest}")).unwrap();
        let amqps = broker.address_in_log("listening with TLS").unwrap();
        Self { authority, broker, amqps }
    }

    fn open(&self, config: &Arc<ClientConfig>) -> Connection {
        Connection::new(Box::new(TlsTransport(connect(self.amqps, config))))
    }

    fn login(&self, config: &Arc<ClientConfig>) -> Result<Connection, String> {
        let mut connection = self.open(config);
        connection.login(&Login::guest("/")).map(|()| connection)
    }

    /// Waits for a line with all of these parts.
    fn logged(&self, parts: &[&str]) -> String {
        self.broker.wait_for_log(|line| parts.iter().all(|part| line.contains(part))).unwrap()
    }
}

fn start(authority: &Authority, more: &str, rest: &str) -> Result<BrokerProcess, String> {
    let folder = TempDir::new("topology");
    let path = folder.write("topology.yaml", &authority.topology(more, rest));
    BrokerOptions::default().topology(path).http().start()
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn call(connection: &mut Connection, name: &str, fields: &[(&str, Field)]) {
    connection.call(1, name, fields);
    connection.wait_for(1, &format!("{name}-ok")).unwrap();
}

/// Publishes a message of this size to a queue and fetches it again.
fn round_trip(connection: &mut Connection, queue: &str, size: usize) {
    let body: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    let method = spec::by_name("basic.publish").unwrap();
    let fields = wire::arguments(method, &[("routing-key", text(queue))]);
    connection.send_method(1, method, &fields, Some((Vec::new(), body.clone())));
    connection.call(1, "basic.get", &[("queue", text(queue)), ("no-ack", Field::Bit(true))]);
    match connection.next(1).unwrap() {
        Event::Method(incoming) if incoming.method.name == "basic.get-ok" => {
            assert!(incoming.content.unwrap().1 == body, "a body of {size} bytes comes back as it was");
        }
        other => panic!("{other:?} instead of the message"),
    }
}
