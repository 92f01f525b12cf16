//! The methods of AMQP 0-9-1 with RabbitMQ's extensions, as the test suites read them.
//!
//! A second table beside the broker's on purpose: scenarios must be able to disagree with the code under test, and they
//! were written against a RabbitMQ before the broker ran. Ids are those of the specification and of RabbitMQ's
//! extensions to it (semantics 34); `exchange.unbind-ok` really is 51.

use std::sync::OnceLock;

/// The type of one method argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bit,
    Octet,
    Short,
    Long,
    LongLong,
    ShortString,
    LongString,
    Table,
}

/// One method: its ids and its arguments in wire order.
#[derive(Debug)]
pub struct Method {
    pub class: u16,
    pub id: u16,
    pub name: &'static str,
    pub arguments: Vec<(&'static str, Kind)>,
}

impl Method {
    /// Whether a content header and body follow the method.
    pub fn has_content(&self) -> bool {
        matches!(self.name, "basic.publish" | "basic.return" | "basic.deliver" | "basic.get-ok")
    }
}

/// The method called `name`, such as `queue.declare-ok`.
pub fn by_name(name: &str) -> Option<&'static Method> {
    methods().iter().find(|method| method.name == name)
}

/// The method with these ids.
pub fn by_id(class: u16, id: u16) -> Option<&'static Method> {
    methods().iter().find(|method| method.class == class && method.id == id)
}

fn methods() -> &'static [Method] {
    static METHODS: OnceLock<Vec<Method>> = OnceLock::new();
    METHODS.get_or_init(|| TABLE.lines().filter(|line| !line.trim().is_empty()).map(parse_row).collect())
}

fn parse_row(row: &'static str) -> Method {
    let mut words = row.split_whitespace();
    let ids = words.next().expect("a row starts with its ids");
    let (class, id) = ids.split_once('/').expect("ids are class/method");
    let name = words.next().expect("ids are followed by the name");
    let arguments = words
        .map(|word| {
            let (field, kind) = word.split_once(':').expect("an argument is name:type");
            (field, parse_kind(kind))
        })
        .collect();
    Method { class: class.parse().expect("class id"), id: id.parse().expect("method id"), name, arguments }
}

fn parse_kind(kind: &str) -> Kind {
    match kind {
        "bit" => Kind::Bit,
        "u8" => Kind::Octet,
        "u16" => Kind::Short,
        "u32" => Kind::Long,
        "u64" => Kind::LongLong,
        "short" => Kind::ShortString,
        "long" => Kind::LongString,
        "table" => Kind::Table,
        other => panic!("unknown argument type {other} in the method table"),
    }
}

const TABLE: &str = "
10/10 connection.start version-major:u8 version-minor:u8 server-properties:table mechanisms:long locales:long
10/11 connection.start-ok client-properties:table mechanism:short response:long locale:short
10/20 connection.secure challenge:long
10/21 connection.secure-ok response:long
10/30 connection.tune channel-max:u16 frame-max:u32 heartbeat:u16
10/31 connection.tune-ok channel-max:u16 frame-max:u32 heartbeat:u16
10/40 connection.open virtual-host:short capabilities:short insist:bit
10/41 connection.open-ok known-hosts:short
10/50 connection.close reply-code:u16 reply-text:short class-id:u16 method-id:u16
10/51 connection.close-ok
10/60 connection.blocked reason:short
10/61 connection.unblocked
10/70 connection.update-secret new-secret:long reason:short
10/71 connection.update-secret-ok
20/10 channel.open out-of-band:short
20/11 channel.open-ok channel-id:long
20/20 channel.flow active:bit
20/21 channel.flow-ok active:bit
20/40 channel.close reply-code:u16 reply-text:short class-id:u16 method-id:u16
20/41 channel.close-ok
30/10 access.request realm:short exclusive:bit passive:bit active:bit write:bit read:bit
30/11 access.request-ok ticket:u16
40/10 exchange.declare ticket:u16 exchange:short type:short passive:bit durable:bit auto-delete:bit internal:bit nowait:bit arguments:table
40/11 exchange.declare-ok
40/20 exchange.delete ticket:u16 exchange:short if-unused:bit nowait:bit
40/21 exchange.delete-ok
40/30 exchange.bind ticket:u16 destination:short source:short routing-key:short nowait:bit arguments:table
40/31 exchange.bind-ok
40/40 exchange.unbind ticket:u16 destination:short source:short routing-key:short nowait:bit arguments:table
40/51 exchange.unbind-ok
50/10 queue.declare ticket:u16 queue:short passive:bit durable:bit exclusive:bit auto-delete:bit nowait:bit arguments:table
50/11 queue.declare-ok queue:short message-count:u32 consumer-count:u32
50/20 queue.bind ticket:u16 queue:short exchange:short routing-key:short nowait:bit arguments:table
50/21 queue.bind-ok
50/30 queue.purge ticket:u16 queue:short nowait:bit
50/31 queue.purge-ok message-count:u32
50/40 queue.delete ticket:u16 queue:short if-unused:bit if-empty:bit nowait:bit
50/41 queue.delete-ok message-count:u32
50/50 queue.unbind ticket:u16 queue:short exchange:short routing-key:short arguments:table
50/51 queue.unbind-ok
60/10 basic.qos prefetch-size:u32 prefetch-count:u16 global:bit
60/11 basic.qos-ok
60/20 basic.consume ticket:u16 queue:short consumer-tag:short no-local:bit no-ack:bit exclusive:bit nowait:bit arguments:table
60/21 basic.consume-ok consumer-tag:short
60/30 basic.cancel consumer-tag:short nowait:bit
60/31 basic.cancel-ok consumer-tag:short
60/40 basic.publish ticket:u16 exchange:short routing-key:short mandatory:bit immediate:bit
60/50 basic.return reply-code:u16 reply-text:short exchange:short routing-key:short
60/60 basic.deliver consumer-tag:short delivery-tag:u64 redelivered:bit exchange:short routing-key:short
60/70 basic.get ticket:u16 queue:short no-ack:bit
60/71 basic.get-ok delivery-tag:u64 redelivered:bit exchange:short routing-key:short message-count:u32
60/72 basic.get-empty cluster-id:short
60/80 basic.ack delivery-tag:u64 multiple:bit
60/90 basic.reject delivery-tag:u64 requeue:bit
60/100 basic.recover-async requeue:bit
60/110 basic.recover requeue:bit
60/111 basic.recover-ok
60/120 basic.nack delivery-tag:u64 multiple:bit requeue:bit
85/10 confirm.select nowait:bit
85/11 confirm.select-ok
90/10 tx.select
90/11 tx.select-ok
90/20 tx.commit
90/21 tx.commit-ok
90/30 tx.rollback
90/31 tx.rollback-ok
";

/// The basic properties in flag order, from bit 15 down, with the wire type of each.
pub const PROPERTIES: [(&str, Kind); 14] = [
    ("content-type", Kind::ShortString),
    ("content-encoding", Kind::ShortString),
    ("headers", Kind::Table),
    ("delivery-mode", Kind::Octet),
    ("priority", Kind::Octet),
    ("correlation-id", Kind::ShortString),
    ("reply-to", Kind::ShortString),
    ("expiration", Kind::ShortString),
    ("message-id", Kind::ShortString),
    ("timestamp", Kind::LongLong),
    ("type", Kind::ShortString),
    ("user-id", Kind::ShortString),
    ("app-id", Kind::ShortString),
    ("cluster-id", Kind::ShortString),
];
