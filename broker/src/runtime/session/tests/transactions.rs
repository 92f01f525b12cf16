//! Transactions that have to wait, fail in part, or grow too large.

use super::*;
use crate::queue::{Notice, Numbers, Outlet};

/// A transactional client that has published a persistent message to a durable queue, and committed. The store does not answer.
fn committing(broker: &Arc<Broker>) -> Client {
    let mut client = Client::new(broker);
    client.declare_durable("d");
    client.send(1, TxSelect {});
    client.publish_persistent("d", b"m");
    client.send(1, TxCommit {});
    assert_eq!(client.told(), ["1 tx.select-ok"]);
    client
}

fn said(client: &Client, number: u64, is_taken: bool) {
    let numbers = vec![Numbers { channel: 1, first: number, last: number }];
    client.session.mailbox().post(Notice::Confirmed { numbers, is_taken });
}

#[test]
fn a_commit_is_answered_when_the_store_has_the_messages() {
    // Semantics 15.4.
    let broker = broker();
    let mut client = committing(&broker);
    said(&client, 1, true);
    assert_eq!(client.told(), ["1 tx.commit-ok"]);
    client.send(1, TxCommit {});
    assert_eq!(client.told(), ["1 tx.commit-ok"]);
}

#[test]
fn commands_before_commit_ok_are_refused() {
    // Semantics 15.7.
    let text = "closed CHANNEL_ERROR - unexpected command while processing 'tx.commit'";
    let broker = broker();
    let mut client = committing(&broker);
    client.send(1, TxRollback {});
    assert_eq!(client.told(), [text]);

    let mut client = committing(&broker);
    client.publish("d", b"m");
    assert_eq!(client.told(), [text]);
}

#[test]
fn other_channels_go_on_while_one_commits() {
    let broker = broker();
    let mut client = committing(&broker);
    client.send(2, ChannelOpen { out_of_band: "" });
    client.send(2, BasicGet { ticket: 0, queue: "d", no_ack: true });
    assert_eq!(client.told(), ["2 channel.open-ok", "2 basic.get-ok"]);
}

#[test]
fn a_channel_may_be_closed_while_it_commits() {
    let broker = broker();
    let mut client = committing(&broker);
    client.send(1, ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 });
    assert_eq!(client.told(), ["1 channel.close-ok"]);
    // The number is used again, and the answer for the first channel means nothing to the second.
    client.send(1, ChannelOpen { out_of_band: "" });
    client.send(1, TxSelect {});
    client.publish_persistent("d", b"m");
    client.send(1, TxCommit {});
    assert_eq!(client.told(), ["1 channel.open-ok", "1 tx.select-ok"]);
    said(&client, 1, true);
    assert!(client.told().is_empty());
    said(&client, 2, true);
    assert_eq!(client.told(), ["1 tx.commit-ok"]);
}

#[test]
fn a_commit_that_a_queue_refuses_fails_the_channel() {
    // Semantics 15.5.
    let broker = broker();
    let mut client = committing(&broker);
    said(&client, 1, false);
    assert_eq!(client.told(), ["1 closed PRECONDITION_FAILED - partial tx completion"]);
}

#[test]
fn a_transaction_has_a_limit_for_the_connection() {
    let mut topology = Topology::default();
    topology.limits.transaction_bytes_max = 1024 * 1024;
    let broker = broker_of(&topology);
    let mut client = Client::new(&broker);
    client.declare("q");
    client.send(1, TxSelect {});
    client.send(2, ChannelOpen { out_of_band: "" });
    client.send(2, TxSelect {});
    client.told();
    for round in 0..3 {
        for _ in 0..15 {
            client.publish("q", &[0; 64 * 1024]);
        }
        assert!(client.told().is_empty(), "round {round}");
        client.send(1, TxCommit {});
        assert_eq!(client.told(), ["1 tx.commit-ok"]);
        assert_eq!(broker.transactions.used_bytes(), 0);
    }
    for _ in 0..16 {
        client.publish("q", &[0; 64 * 1024]);
    }
    let text = "the transactions of this connection take more than 1048576 bytes (limits.transaction_bytes_max)";
    assert_eq!(client.told(), [format!("1 closed PRECONDITION_FAILED - {text}")]);
    assert_eq!(broker.transactions.used_bytes(), 0);
    client.send(1, ChannelCloseOk {});
    client.send(2, TxCommit {});
    assert_eq!(client.told(), ["2 tx.commit-ok"]);
}

#[test]
fn a_connection_that_dies_gives_its_transactions_up() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.send(1, TxSelect {});
    client.publish("q", b"m");
    assert!(broker.transactions.used_bytes() > 0);
    client.session.abandon();
    assert_eq!(broker.transactions.used_bytes(), 0);
}
