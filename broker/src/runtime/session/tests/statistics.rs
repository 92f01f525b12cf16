//! What sessions count, as whoever reads statistics sees it.

use super::*;
use crate::metrics::Range;
use crate::metrics::exchanges::ExchangeStat;
use crate::metrics::read::{ConnectionState, Ranges, Reader};
use crate::metrics::{MessageStats, Stat, Total};
use crate::runtime::sampler;

fn read(broker: &Arc<Broker>) -> Reader<'_> {
    Reader::new(broker, Ranges::default())
}

fn consume(client: &mut Client, queue: &str, consumer_tag: &str, no_ack: bool) {
    let arguments = TableRef::new(&[]);
    let (no_local, exclusive, nowait) = (false, false, false);
    client.send(1, BasicConsume { ticket: 0, queue, consumer_tag, no_local, no_ack, exclusive, nowait, arguments });
}

fn get(client: &mut Client, queue: &str, no_ack: bool) {
    client.send(1, BasicGet { ticket: 0, queue, no_ack });
    client.told();
}

/// The counters that are not 0, by name.
fn named(stats: &MessageStats) -> Vec<(&'static str, u64)> {
    let all = Stat::ALL.into_iter().map(|stat| (stat.name(), stats.get(stat)));
    all.filter(|&(_, value)| value > 0).collect()
}

fn queue_stats(broker: &Arc<Broker>, name: &str) -> MessageStats {
    let queue = broker.vhost("/").and_then(|vhost| vhost.queue(name)).expect("the queue is there");
    queue.handle.report().expect("it is a queue of its own").stats
}

fn totals(broker: &Arc<Broker>) -> MessageStats {
    read(broker).sums().node.message_stats()
}

#[test]
fn publishes_confirms_and_what_nobody_takes_are_counted_for_channel_exchange_and_node() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.send(1, ConfirmSelect { nowait: true });
    for _ in 0..3 {
        client.publish("q", b"0123456789");
    }
    client.publish("nobody", &[0; 500]);
    client.bytes(&mandatory("nobody"));
    client.told();
    let expected = [("publish", 5), ("confirm", 5), ("return_unroutable", 1), ("drop_unroutable", 1)];
    assert_eq!(named(&totals(&broker)), expected);
    let reader = read(&broker);
    let channels = reader.channels();
    let [channel] = &channels[..] else { panic!("one channel: {channels:?}") };
    let of_channel = |stat| channel.message_stats.get(stat).value;
    assert_eq!([Stat::Publish, Stat::Confirm, Stat::ReturnUnroutable].map(of_channel), [5, 5, 1]);
    assert_eq!((channel.name.as_str(), channel.confirm, channel.messages_unconfirmed), ("127.0.0.1:1 (1)", true, 0));
    let publishes = reader.publishes(channel);
    assert_eq!(publishes.iter().map(|to| (&*to.exchange, to.stats.values)).collect::<Vec<_>>(), [("", [5, 5, 1, 1])]);
    let vhost = broker.vhost("/").expect("the vhost is there");
    let exchange = reader.exchange(&vhost.exchange("").expect("the exchange is there"));
    let stats =
        [ExchangeStat::PublishIn, ExchangeStat::PublishOut, ExchangeStat::Confirm, ExchangeStat::DropUnroutable];
    assert_eq!(stats.map(|stat| exchange.get(stat).value), [5, 3, 5, 1]);
    let queue = vhost.queue("q").expect("the queue is there");
    let incoming: Vec<_> = reader.incoming(&vhost, &queue).into_iter().map(|from| from.publish).collect();
    assert_eq!((incoming, named(&queue_stats(&broker, "q"))), (vec![3], vec![("publish", 3)]));
    let sums = reader.sums().node;
    assert_eq!((sums.get(Total::Routed), sums.get(Total::ReceivedConfirm)), (3, 5));
    assert_eq!((sums.sizes()[..3].to_vec(), sums.get(Total::BodyBytes)), (vec![4, 1, 0], 530));
}

fn mandatory(routing_key: &str) -> Vec<u8> {
    let mut frames = Vec::new();
    let (exchange, mandatory, immediate) = ("", true, false);
    frame::write_method(&mut frames, 1, BasicPublish { ticket: 0, exchange, routing_key, mandatory, immediate });
    frame::write(&mut frames, FrameKind::Header, 1, |out| {
        out.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    });
    frames
}

#[test]
fn deliveries_acks_and_gets_are_counted_for_queue_channel_and_node_alike() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    get(&mut client, "q", true);
    for _ in 0..5 {
        client.publish("q", b"m");
    }
    get(&mut client, "q", true);
    get(&mut client, "q", false);
    client.send(1, BasicReject { delivery_tag: 2, requeue: true });
    consume(&mut client, "q", "c", false);
    client.told();
    client.send(1, BasicAck { delivery_tag: 4, multiple: true });
    client.told();
    let expected = [
        ("publish", 5),
        ("deliver", 4),
        ("get", 1),
        ("get_no_ack", 1),
        ("get_empty", 1),
        ("ack", 2),
        ("redeliver", 1),
        ("deliver_get", 6),
    ];
    assert_eq!(named(&queue_stats(&broker, "q")), expected);
    assert_eq!(named(&totals(&broker)), expected);
    let reader = read(&broker);
    let channels = reader.channels();
    let [channel] = &channels[..] else { panic!("one channel: {channels:?}") };
    let deliveries = reader.deliveries(channel);
    let of_queue: Vec<_> = deliveries.iter().map(|from| (&*from.queue, from.stats.values)).collect();
    assert_eq!(of_queue, [("q", [4, 0, 1, 1, 1, 2, 1])]);
    assert_eq!((channel.messages_unacknowledged, channel.consumer_count), (2, 1));
    let consumers = reader.consumers();
    let [consumer] = &consumers[..] else { panic!("one consumer: {consumers:?}") };
    assert_eq!((&*consumer.facts.tag, consumer.facts.ack_required, consumer.activity_status), ("c", true, "up"));
    client.send(1, BasicCancel { consumer_tag: "c", nowait: true });
    client.told();
    assert!(read(&broker).consumers().is_empty());
}

#[test]
fn a_transaction_counts_when_it_is_committed_and_shows_what_it_holds() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.send(1, TxSelect {});
    client.publish("q", b"m");
    client.publish("q", b"m");
    client.told();
    let channel = read(&broker).channels().pop().expect("one channel");
    assert_eq!((channel.messages_uncommitted, channel.transactional, totals(&broker).is_empty()), (2, true, true));
    client.send(1, TxCommit {});
    client.told();
    let channel = read(&broker).channels().pop().expect("one channel");
    assert_eq!((channel.messages_uncommitted, named(&totals(&broker))), (0, vec![("publish", 2)]));
}

#[test]
fn what_is_closed_is_gone_at_once_and_stays_in_the_sums() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    client.publish("q", b"m");
    client.send(2, ChannelOpen { out_of_band: "" });
    client.told();
    assert_eq!((read(&broker).connections().len(), read(&broker).channels().len()), (1, 2));
    client.send(2, ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 });
    client.told();
    assert_eq!(read(&broker).channels().len(), 1);
    client.send(0, ConnectionClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 });
    client.told();
    let reader = read(&broker);
    assert!(reader.connections().is_empty() && reader.channels().is_empty());
    assert_eq!(named(&totals(&broker)), [("publish", 1)]);
    let churn: Vec<u64> = (0..7).map(|at| reader.overview().gauges.get(at).value).collect();
    assert_eq!(churn, [1, 1, 2, 2, 1, 1, 0]);
}

#[test]
fn a_connection_is_closed_by_name_with_the_reason_that_was_given() {
    let broker = broker();
    let mut client = Client::new(&broker);
    let facts = read(&broker).connection("127.0.0.1:1").expect("it is open");
    let opened = facts.opened().expect("it is open");
    assert_eq!((&*opened.user, &*opened.vhost, facts.state), ("guest", "/", ConnectionState::Running));
    assert!(broker.close_connection(facts.number, "Closed via management plugin"));
    assert_eq!(client.told(), ["closed CONNECTION_FORCED - Closed via management plugin"]);
    assert!(!broker.close_connection(99, "nobody"));
}

#[test]
fn an_alarm_shows_who_publishes() {
    let broker = broker();
    let mut publisher = Client::new(&broker);
    publisher.declare("q");
    broker.on_disk(DiskState { is_full: true, ..DiskState::default() }, None);
    let state = || read(&broker).connections().pop().map(|facts| facts.state);
    assert_eq!(state(), Some(ConnectionState::Blocking));
    publisher.publish("q", b"m");
    publisher.told();
    assert_eq!(state(), Some(ConnectionState::Blocked));
    broker.on_disk(DiskState::default(), None);
    publisher.told();
    assert_eq!(state(), Some(ConnectionState::Running));
}

#[test]
fn rates_and_samples_come_from_looks_at_everything() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("q");
    let now_ms = broker.clock.wall_ms() / 5000 * 5000;
    for (at_ms, count) in [(now_ms - 5000, 10), (now_ms, 50)] {
        (0..count).for_each(|_| client.publish("q", b"m"));
        client.told();
        block_on(sampler::look(&broker, at_ms));
    }
    let range = Range::new(10, 5);
    let reader = Reader::new(&broker, Ranges { lengths: range, msg_rates: range, ..Ranges::default() });
    let vhost = broker.vhost("/").expect("the vhost is there");
    let record = vhost.queue("q").expect("the queue is there");
    let queue = reader.queue(&record).expect("it is a queue of its own");
    let publish = queue.message_stats.get(Stat::Publish);
    assert_eq!((publish.value, publish.rate, queue.lengths.get(1).rate), (60, 10.0, 10.0));
    let samples = publish.sampled.map(|sampled| sampled.samples.iter().map(|(_, value)| *value).collect::<Vec<_>>());
    assert_eq!(samples, Some(vec![60, 10, 0]));
    let default = reader.exchange(&vhost.exchange("").expect("the exchange is there"));
    assert_eq!(default.get(ExchangeStat::PublishOut).rate, 10.0);
    assert_eq!(reader.incoming(&vhost, &record).pop().map(|from| from.rate), Some(10.0));
    let channel = reader.channels().pop().expect("one channel");
    assert_eq!(channel.message_stats.get(Stat::Publish).rate, 10.0);
    assert_eq!(reader.publishes(&channel).pop().map(|to| to.stats.rates[0]), Some(10.0));
    assert_eq!(reader.vhost(&vhost).message_stats.get(Stat::Publish).rate, 10.0);
    let overview = reader.overview();
    assert_eq!((overview.message_stats.get(Stat::Publish).rate, overview.queue_totals.get(0).rate), (10.0, 10.0));
    assert_eq!((overview.object_totals.queues, overview.object_totals.channels), (1, 1));
}
