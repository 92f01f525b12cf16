//! Direct reply-to under load: what a requester that does not read costs.

use super::*;
use crate::vhost::reply_to::{BACKLOG_BYTES_MAX, REPLY_TO};

const BODY_BYTES: usize = 4096;

/// A client that consumes replies, and the name that repliers are told.
fn requester(broker: &Arc<Broker>) -> (Client, String) {
    let mut client = Client::new(broker);
    client.declare("rpc");
    let arguments = TableRef::new(&[]);
    let (queue, consumer_tag) = (REPLY_TO, "replies");
    let (no_local, no_ack, exclusive, nowait) = (false, true, false, false);
    client.send(1, BasicConsume { ticket: 0, queue, consumer_tag, no_local, no_ack, exclusive, nowait, arguments });
    assert_eq!(client.told(), ["1 queue.declare-ok", "1 basic.consume-ok"]);
    let state = client.session.channels.get(&1).expect("channel 1 is open");
    let name = state.reply_consumer.as_ref().map(|(_, name)| name.to_string()).expect("it consumes replies");
    (client, name)
}

#[test]
fn replies_to_a_requester_that_does_not_read_are_bounded_and_then_refused() {
    let broker = broker();
    let (mut requester, name) = requester(&broker);
    let mut replier = Client::new(&broker);
    replier.send(1, ConfirmSelect { nowait: true });
    let (mut taken, mut told) = (0, Vec::new());
    while told.last().is_none_or(|line: &String| line.starts_with("ack")) {
        replier.publish(&name, &[0; BODY_BYTES]);
        told = replier.told();
        // The requester's task runs, but its socket takes nothing.
        requester.session.on_mail(requester.now);
        taken += 1;
        assert!(taken < 10_000, "nothing bounds what waits for the requester");
    }
    taken -= 1;
    assert!(told.last().is_some_and(|line| line.starts_with("nack")), "{told:?}");
    assert!(replier.session.wants_input(), "the replier can go on with others");
    let kept = taken * BODY_BYTES;
    assert!(
        kept > BACKLOG_BYTES_MAX / 2 && kept < BACKLOG_BYTES_MAX + 2 * super::super::sources::CONSUMER_CREDIT_BYTES,
        "{kept}"
    );
    assert!(requester.session.out().len() < 2 * super::super::sources::CONSUMER_CREDIT_BYTES);

    // It reads after all: everything that was taken comes, in order, and there is room again.
    let mut seen = 0;
    loop {
        let lines = requester.told();
        if lines.is_empty() {
            break;
        }
        for line in lines {
            seen += 1;
            assert_eq!(line, format!("replies {seen}"));
        }
    }
    assert_eq!(seen, taken);
    assert_eq!(requester.session.reply_backlog.bytes(), 0);
    replier.publish(&name, b"again");
    assert_eq!(replier.told().len(), 1);
    assert_eq!(requester.told(), [format!("replies {}", taken + 1)]);
}

#[test]
fn many_requesters_that_come_and_go_leave_nothing() {
    let broker = broker();
    let vhost = broker.vhost("/").expect("it is there");
    let mut replier = Client::new(&broker);
    for _ in 0..100 {
        let (mut requester, name) = requester(&broker);
        replier.publish(&name, b"answer");
        assert_eq!(requester.told(), ["replies 1"]);
        assert!(vhost.has_reply_queue(&name));
        requester.session.abandon();
        assert!(!vhost.has_reply_queue(&name));
    }
}

#[test]
fn a_requester_may_be_cancelled_with_replies_waiting() {
    let broker = broker();
    let (mut requester, name) = requester(&broker);
    let mut replier = Client::new(&broker);
    for _ in 0..1000 {
        replier.publish(&name, &[0; BODY_BYTES]);
    }
    requester.send(1, BasicCancel { consumer_tag: "replies", nowait: false });
    let told = requester.told();
    assert!(told.last().is_some_and(|line| line == "1 basic.cancel-ok"), "{:?}", told.last());
    assert_eq!(requester.session.reply_backlog.bytes(), 0);
    replier.publish(&name, b"late");
    assert!(requester.told().is_empty());
}
