//! What may be on its way to one connection, however many consumers it has.

use super::*;

const QUEUES: usize = 1000;
const MESSAGES: usize = 4;
const BODY_BYTES: usize = 8 * 1024;
/// What one consumer may have, a half, a third and so on until a share would be too small, and the shared credit. Each consumer's
/// may be overdrawn by a message.
const UNSENT_BYTES: usize = 7 * 1024 * 1024;

/// A client with many consumers that has not looked at what came for them.
fn crowded(broker: &Arc<Broker>, name: impl Fn(usize) -> String) -> Client {
    let (mut publisher, mut consumer) = (Client::new(broker), Client::new(broker));
    for at in 0..QUEUES {
        consumer.declare(&name(at));
        consumer.consume(&name(at), "");
        consumer.told();
    }
    for at in 0..QUEUES {
        (0..MESSAGES).for_each(|_| publisher.publish(&name(at), &[0; BODY_BYTES]));
        publisher.told();
    }
    consumer
}

fn deliveries(told: &[String]) -> usize {
    told.iter().filter(|line| line.starts_with("amq.ctag-")).count()
}

#[test]
fn many_consumers_of_a_connection_that_does_not_read_share_what_is_on_its_way() {
    for is_one_queue in [false, true] {
        let broker = broker();
        let mut client = crowded(&broker, |at| if is_one_queue { "q".into() } else { format!("q{at}") });
        client.session.on_mail(client.now);
        let unsent_bytes = client.session.out().len();
        assert!(unsent_bytes < UNSENT_BYTES, "{unsent_bytes} bytes are on their way");
        // As it reads, everybody gets the rest.
        let mut count = 0;
        loop {
            let new = deliveries(&client.told());
            if new == 0 {
                break;
            }
            count += new;
        }
        assert_eq!(count, QUEUES * MESSAGES);
        assert_eq!(client.session.shared_credit.taken_bytes(), 0);
    }
}

#[test]
fn who_goes_with_deliveries_on_their_way_gives_shared_credit_back() {
    let broker = broker();
    let mut client = crowded(&broker, |at| format!("q{at}"));
    assert!(client.session.shared_credit.taken_bytes() > 0);
    client.send(1, ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 });
    client.told();
    assert_eq!(client.session.shared_credit.taken_bytes(), 0);
}
