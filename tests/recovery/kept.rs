//! Messages that an exchange has kept over a restart: histories.

use tests::scenario::connection::Event;
use tests::transport::Target;
use tests::wire::{Field, spec};

use super::check;
use super::delayed::{Gate, machine, open};

/// The text of a run that begins by declaring `x`, which remembers three messages.
fn run(comment: &str, rest: &str) -> String {
    format!(
        r#"# {comment}
a.1 > exchange.declare exchange=x type=x-recent-history durable=true arguments={{x-recent-history-length:3}}
a.1 < exchange.declare-ok
{rest}"#
    )
}

/// A new queue gets these, in this order.
fn handed(queue: &str, bodies: &[&str]) -> String {
    let mut text = format!(
        "a.1 > queue.declare queue={queue}\na.1 < queue.declare-ok queue={queue}\na.1 > queue.bind queue={queue} exchange=x\na.1 < queue.bind-ok\n"
    );
    for body in bodies {
        text += &format!(
            "a.1 > basic.get queue={queue} no-ack=true\na.1 < basic.get-ok exchange=x .. | .. | body=\"{body}\"\n"
        );
    }
    text + &format!("a.1 > basic.get queue={queue} no-ack=true\na.1 < basic.get-empty\n")
}

#[test]
fn histories_survive_as_far_as_their_messages_are_persistent() {
    // Semantics 11.18.
    let published = r#"a.1 > confirm.select
a.1 < confirm.select-ok
a.1 > basic.publish exchange=x | delivery-mode=2 | body="1"
a.1 > basic.publish exchange=x | delivery-mode=2 headers={h:v} | body="2"
a.1 > basic.publish exchange=x | delivery-mode=1 | body="transient"
a.1 > basic.publish exchange=x | delivery-mode=2 headers={x-recent-history-no-store:true} | body="not stored"
a.1 > basic.publish exchange=x | delivery-mode=2 | body="3"
a.1 < confirmed 1-5
"#;
    let published = format!("{published}{}", handed("before", &["2", "transient", "3"]));
    let more = format!(
        "{}a.1 > basic.publish exchange=x | delivery-mode=2 | body=\"4\"\na.1 > basic.publish exchange=x | delivery-mode=2 | body=\"5\"\na.1 barrier\n",
        handed("after", &["2", "3"])
    );
    check(
        "history",
        &[
            &run("the first is pushed out by the fourth, which lasts no longer than the broker", &published),
            &run("what was pushed out does not come back, and the history goes on", &more),
            &run("the last three", &handed("later", &["3", "4", "5"])),
        ],
    );
}

#[test]
fn history_of_a_transient_exchange_ends_with_the_broker() {
    let declare = "a.1 > exchange.declare exchange=x type=x-recent-history\na.1 < exchange.declare-ok\n";
    check(
        "transient-history",
        &[
            &format!(
                "# published\n{declare}a.1 > basic.publish exchange=x | delivery-mode=2 | body=\"1\"\na.1 barrier\n"
            ),
            &format!("# gone\n{declare}{}", handed("q", &[])),
        ],
    );
}

fn text(text: &str) -> Field {
    Field::String(text.as_bytes().to_vec())
}

#[test]
fn confirm_waits_for_the_history_and_the_end_of_the_exchange_for_nothing() {
    let gate = Gate::new();
    let machine = machine(&gate, 0, None);
    let mut connection = open(&machine as &dyn Target);
    let fields = [("exchange", text("x")), ("type", text("x-recent-history")), ("durable", Field::Bit(true))];
    connection.call(1, "exchange.declare", &fields);
    connection.wait_for(1, "exchange.declare-ok").expect("an exchange");
    let publish = |connection: &mut tests::scenario::connection::Connection| {
        let method = spec::by_name("basic.publish").expect("a method of the table");
        let mut fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
        fields[1] = text("x");
        let properties = vec![("delivery-mode", Field::Number(2))];
        connection.send_method(1, method, &fields, Some((properties, b"m".to_vec())));
    };
    gate.shut(true);
    publish(&mut connection);
    connection.wait_for(1, "basic.ack").expect("no queue takes it, which is told at once");
    connection.call(1, "queue.declare", &[("queue", text("q"))]);
    connection.wait_for(1, "queue.declare-ok").expect("a queue");
    connection.call(1, "queue.bind", &[("queue", text("q")), ("exchange", text("x"))]);
    connection.wait_for(1, "queue.bind-ok").expect("a binding");
    publish(&mut connection);
    let event = connection.next(1).expect("the broker sends frames");
    assert!(matches!(event, Event::Nothing), "{event:?} came before the history was stored");
    gate.shut(false);
    connection.wait_for(1, "basic.ack").expect("it is stored");
    assert_eq!(gate.counts(), [2]);
    for _ in 0..30 {
        publish(&mut connection);
        connection.wait_for(1, "basic.ack").expect("it is stored");
    }
    assert_eq!(gate.counts(), [20], "what is pushed out leaves the store");
    connection.call(1, "exchange.delete", &[("exchange", text("x"))]);
    connection.wait_for(1, "exchange.delete-ok").expect("it is deleted");
    connection.barrier(1).expect("two round trips");
    assert_eq!(gate.counts(), [0; 0]);
}
