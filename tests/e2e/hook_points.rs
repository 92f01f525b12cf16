//! What hooks do on the wire beyond publishes: deliveries, dead letters, clients and declarations.

use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::scenario::connection::{Connection, Event, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::value::Value;
use tests::wire::{Field, Properties, spec};

pub(super) fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

/// A broker with these scripts beside its topology.
fn broker(scripts: &[(&str, &str)], topology: &str) -> BrokerProcess {
    let folder = TempDir::new("hook-points");
    for (name, script) in scripts {
        folder.write(name, script);
    }
    let path = folder.write("topology.yaml", topology);
    BrokerOptions::default().topology(path).start().expect("the broker starts")
}

/// One channel with confirms.
pub(super) struct Client(pub(super) Connection);

/// A message as it comes out of a queue.
#[derive(Debug)]
struct Got {
    tag: Field,
    redelivered: Field,
    key: String,
    headers: Vec<(String, Value)>,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<String> {
        let value = &self.headers.iter().find(|(known, _)| known == name)?.1;
        Some(match value {
            Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        })
    }
}

impl Client {
    pub(super) fn open(broker: &BrokerProcess) -> Self {
        let mut connection = Connection::new(broker.target().connect().unwrap());
        connection.login(&Login::guest("/")).unwrap();
        let mut client = Self(connection);
        client.open_channel();
        client
    }

    fn open_channel(&mut self) {
        for (method, answer) in [("channel.open", "channel.open-ok"), ("confirm.select", "confirm.select-ok")] {
            self.0.call(1, method, &[]);
            self.0.wait_for(1, answer).unwrap();
        }
    }

    pub(super) fn send(&mut self, exchange: &str, key: &str, properties: Properties, body: &str) {
        let method = spec::by_name("basic.publish").unwrap();
        let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
        fields[1..3].clone_from_slice(&[text(exchange), text(key)]);
        self.0.send_method(1, method, &fields, Some((properties, body.as_bytes().to_vec())));
    }

    /// Publishes to `x`, with the key as the body, and waits for the confirm of this name.
    fn publish(&mut self, key: &str, confirm: &str) {
        self.send("x", key, Vec::new(), key);
        self.0.wait_for(1, confirm).unwrap();
    }

    fn consume(&mut self, queue: &str, no_ack: bool) {
        self.0.call(1, "basic.qos", &[("prefetch-count", Field::Number(1))]);
        self.0.wait_for(1, "basic.qos-ok").unwrap();
        self.0.call(1, "basic.consume", &[("queue", text(queue)), ("no-ack", Field::Bit(no_ack))]);
        self.0.wait_for(1, "basic.consume-ok").unwrap();
    }

    /// The next method, which has a message.
    fn got(&mut self, method: &str) -> Got {
        match self.0.next(1).unwrap() {
            Event::Method(incoming) if incoming.method.name == method => {
                let fields = incoming.fields;
                let at = usize::from(method == "basic.deliver");
                let (properties, body) = incoming.content.expect("it has content");
                let headers = properties.into_iter().find(|(name, _)| *name == "headers").map(|(_, headers)| headers);
                let headers = match headers {
                    Some(Field::Table(table)) => {
                        table.into_iter().map(|(name, value)| (String::from_utf8(name).unwrap(), value)).collect()
                    }
                    _ => Vec::new(),
                };
                let Field::String(key) = &fields[at + 3] else { panic!("a key is text") };
                Got {
                    tag: fields[at].clone(),
                    redelivered: fields[at + 1].clone(),
                    key: String::from_utf8(key.clone()).unwrap(),
                    headers,
                    body: String::from_utf8(body).unwrap(),
                }
            }
            other => panic!("{method} was expected, not {}", tests::scenario::connection::describe(&other)),
        }
    }

    fn ack(&mut self, tag: &Field) {
        self.0.call(1, "basic.ack", &[("delivery-tag", tag.clone())]);
    }

    fn get(&mut self, queue: &str, no_ack: bool) {
        self.0.call(1, "basic.get", &[("queue", text(queue)), ("no-ack", Field::Bit(no_ack))]);
    }

    fn ready(&mut self, queue: &str) -> Field {
        self.0.call(1, "queue.declare", &[("queue", text(queue)), ("passive", Field::Bit(true))]);
        self.0.wait_for(1, "queue.declare-ok").unwrap()[1].clone()
    }

    /// Waits until a queue holds so many.
    fn wait_for_ready(&mut self, queue: &str, count: u64) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while self.ready(queue) != Field::Number(count) {
            assert!(std::time::Instant::now() < deadline, "{queue} does not hold {count} messages");
        }
    }

    /// The code and text of the error that closes the channel; then there is a new one.
    fn refusal(&mut self) -> (Field, String) {
        let fields = self.0.wait_for(1, "channel.close").unwrap();
        self.0.call(1, "channel.close-ok", &[]);
        self.open_channel();
        let Field::String(reason) = &fields[1] else { panic!("a text is text") };
        (fields[0].clone(), String::from_utf8(reason.clone()).unwrap())
    }
}

const DELIVER: &str = r#"
return {
    on_deliver = function(msg)
        if msg.routing_key == "drop" then return false end
        if msg.routing_key == "poison" then broker.dead_letter("bad") end
        if msg.routing_key == "boom" then error("boom") end
        msg.headers.seen = `{msg.queue} {msg.user} {msg.redelivered}`
        msg.routing_key = "to." .. msg.routing_key
    end,
}
"#;

const QUEUES: &str = "{vhosts: {/: {exchanges: {x: fanout, dlx: fanout}, \
    queues: {q: {dead_letter: dlx, hooks: [deliver.lua]}, dead: {}}, bindings: [x -> q, dlx -> dead]}}}";

#[test]
fn a_delivery_that_a_hook_takes_away_keeps_order_prefetch_and_tags() {
    let broker = broker(&[("deliver.lua", DELIVER)], QUEUES);
    let mut client = Client::open(&broker);
    for key in ["a", "drop", "poison", "b", "drop", "drop", "c"] {
        client.publish(key, "basic.ack");
    }
    client.consume("q", false);
    for (tag, body) in [(1, "a"), (2, "b"), (3, "c")] {
        let got = client.got("basic.deliver");
        assert_eq!((got.tag.clone(), got.body.as_str(), got.key), (Field::Number(tag), body, format!("to.{body}")));
        assert_eq!(got.headers.len(), 1, "{:?}", got.headers);
        client.0.barrier(1).unwrap();
        assert_eq!(client.0.leftover().unwrap(), None, "one is out, and the prefetch is one");
        client.ack(&got.tag);
    }
    client.wait_for_ready("q", 0);
    client.wait_for_ready("dead", 1);
    client.get("dead", true);
    let dead = client.got("basic.get-ok");
    assert_eq!((dead.body.as_str(), dead.header("x-first-death-reason").as_deref()), ("poison", Some("rejected")));
    assert_eq!((dead.key.as_str(), dead.header("seen")), ("poison", None), "as it was in the queue");
}

#[test]
fn a_consumer_without_acks_and_basic_get_lose_nothing_to_a_hook() {
    let broker = broker(&[("deliver.lua", DELIVER)], QUEUES);
    let mut client = Client::open(&broker);
    for key in ["poison", "a", "drop", "b", "poison"] {
        client.publish(key, "basic.ack");
    }
    client.get("q", false);
    let got = client.got("basic.get-ok");
    assert_eq!((got.body.as_str(), got.redelivered.clone()), ("a", Field::Bit(false)));
    client.0.call(1, "basic.nack", &[("delivery-tag", got.tag), ("requeue", Field::Bit(true))]);
    client.get("q", true);
    let got = client.got("basic.get-ok");
    assert_eq!((got.body.as_str(), got.header("seen").as_deref()), ("a", Some("q guest true")), "it runs again");
    client.consume("q", true);
    assert_eq!(client.got("basic.deliver").body, "b");
    client.wait_for_ready("dead", 2);
    for key in ["c", "d", "e"] {
        client.send("x", key, Vec::new(), key);
    }
    let mut bodies = Vec::new();
    while bodies.len() < 3 {
        match client.0.next(1).unwrap() {
            Event::Method(incoming) if incoming.method.name == "basic.deliver" => {
                bodies.push(String::from_utf8(incoming.content.unwrap().1).unwrap());
            }
            Event::Method(incoming) if incoming.method.name == "basic.ack" => {}
            other => panic!("{}", tests::scenario::connection::describe(&other)),
        }
    }
    assert_eq!(bodies, ["c", "d", "e"], "without acks there is no prefetch");
}

#[test]
fn a_hook_that_drops_everything_does_not_stop_its_queue() {
    let script = "return { on_deliver = function(msg) return msg.routing_key == 'last' end }";
    let broker = broker(&[("deliver.lua", script)], QUEUES);
    let mut client = Client::open(&broker);
    let body = "x".repeat(100_000);
    for _ in 0..60 {
        client.send("x", "drop", Vec::new(), &body);
    }
    client.send("x", "last", Vec::new(), "last");
    client.0.call(1, "basic.consume", &[("queue", text("q"))]);
    loop {
        match client.0.next(1).unwrap() {
            Event::Method(incoming) if incoming.method.name == "basic.deliver" => {
                assert_eq!(incoming.content.unwrap().1, b"last");
                break;
            }
            Event::Method(incoming) if ["basic.ack", "basic.consume-ok"].contains(&incoming.method.name) => {}
            other => panic!("{}", tests::scenario::connection::describe(&other)),
        }
    }
}

#[test]
fn a_failed_delivery_closes_the_channel_and_stays_in_its_queue() {
    let broker = broker(&[("deliver.lua", DELIVER)], QUEUES);
    let mut client = Client::open(&broker);
    for key in ["a", "boom", "b"] {
        client.publish(key, "basic.ack");
    }
    client.0.call(1, "basic.consume", &[("queue", text("q"))]);
    client.0.wait_for(1, "basic.consume-ok").unwrap();
    assert_eq!(client.got("basic.deliver").body, "a");
    let (code, reason) = client.refusal();
    assert_eq!(code, Field::Number(406));
    assert_eq!(reason, "PRECONDITION_FAILED - hook 'deliver' failed on a delivery from queue 'q' in vhost '/': boom");
    client.wait_for_ready("q", 3);
    client.get("q", false);
    assert_eq!(client.got("basic.get-ok").body, "a", "in its old place");
}

#[test]
fn dead_letters_pass_their_hook() {
    let script = r#"
        return { on_dead_letter = function(msg)
            if msg.routing_key == "drop" then return false end
            if msg.routing_key == "boom" then error("boom") end
            msg.headers.from = `{msg.queue} {msg.reason} {msg.exchange}`
            msg.routing_key = "sorted"
        end }"#;
    let topology = "{vhosts: {/: {exchanges: {x: fanout, dlx: direct}, \
        queues: {q: {dead_letter: dlx, max_length: 0, hooks: [dead.lua]}, sorted: {}, as-it-came: {}}, \
        bindings: [x -> q, dlx -> sorted : sorted, dlx -> as-it-came : boom, dlx -> as-it-came : drop]}}}";
    let broker = broker(&[("dead.lua", script)], topology);
    let mut client = Client::open(&broker);
    for key in ["a", "drop", "boom"] {
        client.publish(key, "basic.ack");
    }
    client.wait_for_ready("sorted", 1);
    client.wait_for_ready("as-it-came", 1);
    client.get("sorted", true);
    let got = client.got("basic.get-ok");
    assert_eq!((got.body.as_str(), got.header("from").as_deref()), ("a", Some("q maxlen dlx")));
    client.get("as-it-came", true);
    let got = client.got("basic.get-ok");
    assert_eq!((got.body.as_str(), got.header("from")), ("boom", None), "a failed hook loses no dead letter");
}

#[test]
fn a_poisoned_publish_goes_to_the_dead_letters_and_is_confirmed() {
    let script = "return { on_publish = function(msg) if msg.size > 3 then broker.dead_letter('too large') end end }";
    let topology = |dlx: &str| {
        format!(
            "{{vhosts: {{/: {{exchanges: {{x: {{type: fanout, hooks: [{{script: size.lua, dead_letter_exchange: {dlx}}}]}}, \
             dlx: fanout, nowhere: fanout}}, queues: [q, dead], bindings: [x -> q, dlx -> dead]}}}}}}"
        )
    };
    let one = broker(&[("size.lua", script)], &topology("dlx"));
    let mut client = Client::open(&one);
    client.publish("ok", "basic.ack");
    client.publish("large", "basic.ack");
    assert_eq!((client.ready("q"), client.ready("dead")), (Field::Number(1), Field::Number(1)));
    client.get("dead", true);
    let got = client.got("basic.get-ok");
    let header = |name| got.header(name).unwrap_or_default();
    assert_eq!((got.key.as_str(), got.body.as_str()), ("large", "large"));
    assert_eq!(
        ["x-hook", "x-hook-reason", "x-hook-exchange", "x-hook-routing-key"].map(header),
        ["size", "too large", "x", "large"]
    );
    let other = broker(&[("size.lua", script)], &topology("nowhere"));
    let mut client = Client::open(&other);
    client.publish("large", "basic.nack");
    client.publish("ok", "basic.ack");
}

#[test]
fn clients_and_declarations_are_refused_as_by_permissions() {
    let script = r#"
        return {
            on_connect = function(client)
                if client.name == "" and client.user == "guest" and client.address == "127.0.0.1" then return end
                broker.reject("nobody else")
            end,
            on_declare = function(declaration)
                if declaration.kind == "queue" and not declaration.durable then
                    broker.reject(`{declaration.user} declares {declaration.name} to last`)
                elseif declaration.kind == "exchange" and declaration.type == "fanout" then
                    return false
                elseif declaration.kind == "binding" and #declaration.routing_key == 1 then
                    broker.reject(`{declaration.source} to {declaration.destination_type} {declaration.name} is too much`)
                end
            end,
        }"#;
    let topology = "{vhosts: {/: {hooks: [policy.lua], exchanges: {f: fanout}}, other: {hooks: [{script: policy.lua, \
        name: never}]}}, hooks: [{script: strict.lua, vhost: other}], users: {guest: {password: guest, \
        permissions: {/: .*, other: .*}}}}";
    let strict = "return { on_connect = function() error('boom') end }";
    let broker = broker(&[("policy.lua", script), ("strict.lua", strict)], topology);
    let mut client = Client::open(&broker);
    client.0.call(1, "queue.declare", &[("queue", text("t"))]);
    assert_eq!(
        client.refusal(),
        (
            Field::Number(403),
            "ACCESS_REFUSED - declaration of queue 't' in vhost '/' refused by hook 'policy': guest declares t to last"
                .to_owned()
        )
    );
    client.0.call(1, "exchange.declare", &[("exchange", text("e")), ("type", text("fanout"))]);
    assert_eq!(client.refusal().0, Field::Number(403));
    client.0.call(1, "queue.declare", &[("queue", text("d")), ("durable", Field::Bit(true))]);
    client.0.wait_for(1, "queue.declare-ok").unwrap();
    let bind = |key: &str| [("queue", text("d")), ("exchange", text("amq.topic")), ("routing-key", text(key))];
    client.0.call(1, "queue.bind", &bind("a.#"));
    client.0.wait_for(1, "queue.bind-ok").unwrap();
    client.0.call(1, "queue.bind", &bind("#"));
    let refused = "ACCESS_REFUSED - declaration of binding 'amq.topic -> d' in vhost '/' refused by hook 'policy': amq.topic to queue d is too much";
    assert_eq!(client.refusal(), (Field::Number(403), refused.to_owned()));
    // The file's own fanout exchange is there: no hook watches the operator.
    client.0.call(1, "exchange.declare", &[("exchange", text("f")), ("passive", Field::Bit(true))]);
    client.0.wait_for(1, "exchange.declare-ok").unwrap();

    let mut refused = Connection::new(broker.target().connect().unwrap());
    let error = refused.login(&Login::guest("other")).unwrap_err();
    assert!(error.contains("connection.close"), "{error}");
    assert!(
        error.contains("530")
            && error.contains("access to vhost 'other' refused for user 'guest' by hook 'strict': boom"),
        "{error}"
    );
}
