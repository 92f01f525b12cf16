//! A broker with something of everything going on.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tests::broker_process::{BrokerOptions, BrokerProcess};

/// Published by [`Busy::publish`], to an exchange and to nobody.
pub(crate) const PUBLISHED: u64 = 12;
/// Of these, mandatory ones that come back.
pub(crate) const RETURNED: u64 = 1;
/// Of these, those that are dropped.
pub(crate) const DROPPED: u64 = 1;
/// Copies that reach queues.
pub(crate) const ROUTED: u64 = 10;

/// See the module. The connection stays open.
pub(crate) struct Busy {
    pub(crate) broker: BrokerProcess,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
}

impl Busy {
    /// Starts a broker and uses everything once.
    pub(crate) fn start() -> Self {
        let broker = BrokerOptions::default().metrics().http().start().expect("the broker starts");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (connection, channel) = runtime.block_on(async {
            let uri = format!("amqp://guest:guest@{}/%2f", broker.address());
            let connection =
                Connection::connect(&uri, ConnectionProperties::default()).await.expect("guest may connect");
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            for queue in ["orders", "orders.gone"] {
                channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
            }
            channel
                .queue_bind(
                    "orders".into(),
                    "amq.topic".into(),
                    "o.#".into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
                .unwrap();
            channel.queue_delete("orders.gone".into(), QueueDeleteOptions::default()).await.unwrap();
            connection.create_channel().await.unwrap().close(200, "".into()).await.unwrap();
            (connection, channel)
        });
        let busy = Self { broker, runtime, connection, channel };
        busy.publish();
        busy.consume();
        busy
    }

    /// Publishes [`PUBLISHED`] messages, each confirmed.
    pub(crate) fn publish(&self) {
        self.runtime.block_on(async {
            for number in 0..10 {
                let body = vec![b'x'; 10 * 10_usize.pow(number % 4)];
                self.publish_one("amq.topic", "o.eu", false, &body).await;
            }
            self.publish_one("", "nobody", true, b"").await;
            self.publish_one("", "nobody", false, b"").await;
        });
    }

    async fn publish_one(&self, exchange: &str, key: &str, mandatory: bool, body: &[u8]) {
        let options = BasicPublishOptions { mandatory, ..Default::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let confirm = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.unwrap();
        confirm.await.expect("the broker confirms");
    }

    /// One message each: consumed with an ack, without, fetched with an ack and without, given back; and a get of an empty queue.
    fn consume(&self) {
        self.runtime.block_on(async {
            let orders = || "orders".into();
            for no_ack in [true, false] {
                let got =
                    self.channel.basic_get(orders(), BasicGetOptions { no_ack }).await.unwrap().expect("a message");
                if !no_ack {
                    got.nack(lapin::options::BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
                }
            }
            for no_ack in [true, false] {
                // What a consumer has too much of goes back when its channel closes.
                let channel = self.connection.create_channel().await.unwrap();
                channel.basic_qos(1, lapin::options::BasicQosOptions::default()).await.unwrap();
                let options = BasicConsumeOptions { no_ack, ..Default::default() };
                let mut consumer =
                    channel.basic_consume(orders(), "c".into(), options, FieldTable::default()).await.unwrap();
                let delivery = tokio::time::timeout(Duration::from_secs(20), consumer.next()).await;
                let delivery = delivery.expect("in time").expect("the consumer goes on").expect("no error");
                if !no_ack {
                    delivery.ack(BasicAckOptions::default()).await.unwrap();
                }
                channel.close(200, "".into()).await.unwrap();
                // The other one has something, too.
                self.publish_one("amq.topic", "o.eu", false, b"again").await;
            }
            let options = QueueDeclareOptions::default();
            self.channel.queue_declare("empty".into(), options, FieldTable::default()).await.unwrap();
            let got = self.channel.basic_get("empty".into(), BasicGetOptions { no_ack: true }).await.unwrap();
            assert!(got.is_none());
        });
    }
}
