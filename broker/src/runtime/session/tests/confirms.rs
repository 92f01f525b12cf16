//! Confirms as queues give them: refusals, and several queues for one message.

use super::*;
use crate::queue::{Notice, Numbers, Outlet};

/// What a queue says of a run of publishes on channel 1.
fn said(client: &Client, first: u64, last: u64, is_taken: bool) {
    let numbers = vec![Numbers { channel: 1, first, last }];
    client.session.mailbox().post(Notice::Confirmed { numbers, is_taken });
}

/// A client with confirms that has published this often to a durable queue, and not heard of the store.
fn publisher(broker: &Arc<Broker>, count: usize) -> Client {
    let mut client = Client::new(broker);
    client.declare_durable("d");
    client.send(1, ConfirmSelect { nowait: true });
    for _ in 0..count {
        client.publish_persistent("d", b"m");
    }
    assert!(client.told().is_empty());
    client
}

#[test]
fn a_refused_message_is_a_nack_and_the_others_acks() {
    // Semantics 14.7, 14.8, 14.9.
    let broker = broker();
    let mut client = publisher(&broker, 5);
    said(&client, 1, 1, true);
    said(&client, 3, 3, true);
    said(&client, 2, 2, false);
    assert_eq!(client.told(), ["nack 2 false", "ack 3 true"]);
    said(&client, 5, 5, false);
    assert_eq!(client.told(), ["nack 5 false"]);
    said(&client, 4, 4, true);
    assert_eq!(client.told(), ["ack 4 false"]);
}

#[test]
fn one_queue_that_refuses_is_enough_whatever_others_say() {
    // Semantics 14.7.
    for (first, second) in [(true, false), (false, true), (false, false)] {
        let broker = broker();
        let mut client = Client::new(&broker);
        for queue in ["d", "e"] {
            client.declare_durable(queue);
            let arguments = TableRef::new(&[]);
            let (exchange, routing_key) = ("amq.fanout", "");
            client.send(1, QueueBind { ticket: 0, queue, exchange, routing_key, nowait: true, arguments });
        }
        client.send(1, ConfirmSelect { nowait: true });
        let mut frames = publish("", &[0x10, 0, 2], b"m");
        frames.drain(..frames.iter().position(|&byte| byte == frame::END).map_or(0, |end| end + 1));
        let (exchange, mandatory, immediate) = ("amq.fanout", false, false);
        client.send(1, BasicPublish { ticket: 0, exchange, routing_key: "", mandatory, immediate });
        client.bytes(&frames);
        said(&client, 1, 1, first);
        assert!(client.told().is_empty(), "the other queue has not answered");
        said(&client, 1, 1, second);
        assert_eq!(client.told(), ["nack 1 false"]);
    }
}

#[test]
fn a_channel_that_fails_says_first_what_it_knows_of_confirms() {
    // Semantics 14.11: the others stay unknown.
    let broker = broker();
    let mut client = publisher(&broker, 3);
    said(&client, 1, 1, true);
    client.session.on_mail(client.now);
    client.send(1, TxSelect {});
    let told = client.told();
    assert_eq!(told, ["ack 1 false", "1 closed PRECONDITION_FAILED - cannot switch from confirm to tx mode"]);
    said(&client, 2, 3, true);
    assert!(client.told().is_empty());
}
