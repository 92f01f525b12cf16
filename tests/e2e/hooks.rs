//! What publishers hear when a hook changes, drops or rejects their message (semantics 12.12).

use tests::broker_process::{BrokerOptions, BrokerProcess};
use tests::scenario::connection::{Connection, Event, Login};
use tests::temp::TempDir;
use tests::transport::Target;
use tests::wire::{Field, Properties, spec};

const SCRIPT: &str = r#"
return {
    on_publish = function(msg)
        if msg.routing_key == "drop" then
            return false
        elseif msg.routing_key == "reject" then
            broker.reject("no")
        end
        msg.routing_key = "tenant." .. msg.routing_key
        msg.headers["x-hooked"] = true
    end,
}
"#;

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

fn publish(connection: &mut Connection, key: &str, properties: Properties) {
    let method = spec::by_name("basic.publish").unwrap();
    let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
    fields[1..4].clone_from_slice(&[text("x"), text(key), Field::Bit(true)]);
    connection.send_method(1, method, &fields, Some((properties, b"body".to_vec())));
}

fn open(broker: &BrokerProcess) -> Connection {
    let mut connection = Connection::new(broker.target().connect().unwrap());
    connection.login(&Login::guest("/")).unwrap();
    for (method, answer) in [("channel.open", "channel.open-ok"), ("confirm.select", "confirm.select-ok")] {
        connection.call(1, method, &[]);
        connection.wait_for(1, answer).unwrap();
    }
    connection
}

/// The hook rewrites keys, so nothing that is published reaches the queue under its own key.
fn broker() -> BrokerProcess {
    let folder = TempDir::new("hooks");
    folder.write("hook.lua", SCRIPT);
    let topology = "{vhosts: {/: {exchanges: {x: {type: direct, hooks: [hook.lua]}}, queues: [q], \
                    bindings: [x -> q : tenant.known]}}}";
    let path = folder.write("topology.yaml", topology);
    BrokerOptions::default().topology(path).start().expect("the broker starts")
}

/// The routing key and the properties of the basic.return that comes next.
fn returned(connection: &mut Connection) -> (Field, Properties) {
    match connection.next(1).unwrap() {
        Event::Method(back) if back.method.name == "basic.return" => {
            let (properties, _) = back.content.expect("a return has content");
            (back.fields[3].clone(), properties)
        }
        other => panic!("a return was expected, not {other:?}"),
    }
}

#[test]
fn publisher_hears_of_the_message_that_it_sent() {
    let broker = broker();
    let mut connection = open(&broker);
    let properties: Properties = vec![("message-id", text("m"))];

    publish(&mut connection, "unknown", properties.clone());
    assert_eq!(returned(&mut connection), (text("unknown"), properties.clone()), "as it was sent");
    connection.wait_for(1, "basic.ack").expect("what finds no queue is confirmed");

    publish(&mut connection, "known", properties.clone());
    connection.wait_for(1, "basic.ack").expect("what finds its queue is confirmed and does not come back");

    publish(&mut connection, "drop", properties.clone());
    connection.wait_for(1, "basic.ack").expect("what a hook drops is confirmed and does not come back");

    publish(&mut connection, "reject", properties);
    connection.wait_for(1, "basic.nack").expect("what a hook rejects is not");
}
