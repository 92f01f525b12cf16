//! The broker as lapin's users meet it: the tutorials, acks, confirms, returns, limits and refusals.
//!
//! Each test has a broker of its own, or the one at `AMQP_HOST` and `AMQP_PORT` when those are set.

#![allow(clippy::unwrap_used, reason = "a helper that panics fails its test, which is what it is for")]

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use std::time::Duration;
use tests::broker_process::{BrokerOptions, BrokerProcess, repository};

const DEADLINE: Duration = Duration::from_secs(20);

/// The broker under test and a name that no other test uses.
struct Lab {
    address: String,
    prefix: String,
    _broker: Option<BrokerProcess>,
}

impl Lab {
    fn new(test: &str) -> Self {
        let prefix = format!("lapin.{}.{test}", std::process::id());
        if let (Ok(host), Ok(port)) = (std::env::var("AMQP_HOST"), std::env::var("AMQP_PORT")) {
            return Self { address: format!("{host}:{port}"), prefix, _broker: None };
        }
        let topology = repository().join("tests/clients/topology.yaml");
        let broker = BrokerOptions::default().topology(topology).start().expect("the broker starts");
        Self { address: broker.address().to_string(), prefix, _broker: Some(broker) }
    }

    async fn connect(&self, login: &str, vhost: &str) -> lapin::Result<Connection> {
        let uri = format!("amqp://{login}@{}/{vhost}", self.address);
        Connection::connect(&uri, ConnectionProperties::default()).await
    }

    async fn guest(&self) -> Connection {
        self.connect("guest:guest", "%2f").await.expect("guest may connect")
    }

    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.prefix)
    }

    /// A queue that goes with its connection.
    async fn queue(&self, channel: &Channel, part: &str) -> String {
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let queue = channel.queue_declare(self.name(part).into(), options, FieldTable::default()).await;
        queue.expect("the queue is declared").name().to_string()
    }

    async fn exchange(&self, channel: &Channel, kind: ExchangeKind) -> String {
        let name = self.name("x");
        let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
        channel.exchange_declare(name.clone().into(), kind, options, FieldTable::default()).await.expect("declared");
        name
    }
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str, arguments: FieldTable) {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments).await.expect("bound");
}

async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await;
    confirm.expect("published").await.expect("confirmed if asked for");
}

async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> Consumer {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.expect("consuming")
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = tokio::time::timeout(DEADLINE, consumer.next()).await;
    delivery.expect("a delivery comes in time").expect("the consumer goes on").expect("no error")
}

/// Everything that is ready now, as text.
async fn bodies(channel: &Channel, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(message) = channel.basic_get(queue.into(), options).await.expect("get works") {
        bodies.push(String::from_utf8_lossy(&message.delivery.data).into_owned());
    }
    bodies
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[tokio::test]
async fn hello_world() {
    let lab = Lab::new("hello");
    let channel = lab.guest().await.create_channel().await.unwrap();
    let queue = lab.queue(&channel, "q").await;
    publish(&channel, "", &queue, b"Hello World!", BasicProperties::default()).await;
    let mut consumer = consume(&channel, &queue, true).await;
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.data.as_slice(), delivery.routing_key.as_str()), (&b"Hello World!"[..], queue.as_str()));
}

#[tokio::test]
async fn work_queue_is_fair_with_prefetch_one() {
    let lab = Lab::new("work");
    let connection = lab.guest().await;
    let channel = connection.create_channel().await.unwrap();
    let queue = lab.queue(&channel, "q").await;
    let mut workers = Vec::new();
    for _ in 0..2 {
        let worker = connection.create_channel().await.unwrap();
        worker.basic_qos(1, BasicQosOptions::default()).await.unwrap();
        workers.push(consume(&worker, &queue, false).await);
    }
    for number in 0..4 {
        publish(&channel, "", &queue, &[number], BasicProperties::default()).await;
    }
    // The first worker is busy with the first task; everything else is left to the second one.
    let held = next(&mut workers[0]).await;
    let mut done = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut workers[1]).await;
        done.push(delivery.data[0]);
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    assert_eq!((held.data.as_slice(), done), (&[0][..], vec![1, 2, 3]));
}

#[tokio::test]
async fn publish_subscribe() {
    let lab = Lab::new("fanout");
    let channel = lab.guest().await.create_channel().await.unwrap();
    let exchange = lab.exchange(&channel, ExchangeKind::Fanout).await;
    let queues = [lab.queue(&channel, "a").await, lab.queue(&channel, "b").await];
    for queue in &queues {
        bind(&channel, queue, &exchange, "", FieldTable::default()).await;
    }
    publish(&channel, &exchange, "", b"news", BasicProperties::default()).await;
    for queue in &queues {
        assert_eq!(bodies(&channel, queue).await, ["news"]);
    }
}

#[tokio::test]
async fn routing() {
    let lab = Lab::new("direct");
    let channel = lab.guest().await.create_channel().await.unwrap();
    let exchange = lab.exchange(&channel, ExchangeKind::Direct).await;
    let queue = lab.queue(&channel, "errors").await;
    bind(&channel, &queue, &exchange, "error", FieldTable::default()).await;
    for severity in ["info", "error", "warning"] {
        publish(&channel, &exchange, severity, severity.as_bytes(), BasicProperties::default()).await;
    }
    assert_eq!(bodies(&channel, &queue).await, ["error"]);
}

#[tokio::test]
async fn topics() {
    let lab = Lab::new("topic");
    let channel = lab.guest().await.create_channel().await.unwrap();
    let exchange = lab.exchange(&channel, ExchangeKind::Topic).await;
    let queue = lab.queue(&channel, "q").await;
    bind(&channel, &queue, &exchange, "*.orange.*", FieldTable::default()).await;
    bind(&channel, &queue, &exchange, "lazy.#", FieldTable::default()).await;
    let keys = ["quick.orange.rabbit", "lazy", "quick.brown.fox", "lazy.orange.new.rabbit", "orange"];
    for key in keys {
        publish(&channel, &exchange, key, key.as_bytes(), BasicProperties::default()).await;
    }
    assert_eq!(bodies(&channel, &queue).await, [keys[0], keys[1], keys[3]]);
}

#[tokio::test]
async fn rpc() {
    let lab = Lab::new("rpc");
    let connection = lab.guest().await;
    let (server, client) = (connection.create_channel().await.unwrap(), connection.create_channel().await.unwrap());
    let requests = lab.queue(&server, "requests").await;
    let replies = lab.queue(&client, "replies").await;
    let mut served = consume(&server, &requests, true).await;
    let mut answers = consume(&client, &replies, true).await;
    for number in [3_u64, 12] {
        let properties = BasicProperties::default()
            .with_reply_to(replies.as_str().into())
            .with_correlation_id(number.to_string().into());
        publish(&client, "", &requests, number.to_string().as_bytes(), properties).await;
        let request = next(&mut served).await;
        let asked: u64 = String::from_utf8_lossy(&request.data).parse().unwrap();
        let reply_to = request.properties.reply_to().clone().expect("a request says where to reply");
        let properties = BasicProperties::default()
            .with_correlation_id(request.properties.correlation_id().clone().expect("a request has a correlation id"));
        publish(&server, "", reply_to.as_str(), (asked * asked).to_string().as_bytes(), properties).await;
        let answer = next(&mut answers).await;
        assert_eq!(answer.data, (number * number).to_string().into_bytes());
        assert_eq!(answer.properties.correlation_id().as_ref().unwrap().as_str(), number.to_string());
    }
}

#[tokio::test]
async fn messages_of_a_lost_consumer_go_to_the_next() {
    let lab = Lab::new("lost");
    let connection = lab.guest().await;
    let channel = connection.create_channel().await.unwrap();
    let name = lab.name("q");
    let options = QueueDeclareOptions { auto_delete: false, ..Default::default() };
    channel.queue_declare(name.clone().into(), options, FieldTable::default()).await.unwrap();
    for number in 0..3 {
        publish(&channel, "", &name, &[number], BasicProperties::default()).await;
    }
    let first = lab.guest().await;
    let mut consumer = consume(&first.create_channel().await.unwrap(), &name, false).await;
    for number in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.data.as_slice(), delivery.redelivered), (&[number][..], false));
    }
    first.close(200, "gone".into()).await.unwrap();
    let mut consumer = consume(&channel, &name, false).await;
    for number in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.data.as_slice(), delivery.redelivered), (&[number][..], true));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    channel.queue_delete(name.into(), Default::default()).await.unwrap();
}

#[tokio::test]
async fn confirms_and_returns() {
    let lab = Lab::new("confirms");
    let channel = lab.guest().await.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let queue = lab.queue(&channel, "q").await;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let routed = channel.basic_publish("".into(), queue.into(), options, b"kept", properties.clone()).await.unwrap();
    // lapin gives a returned message to the oldest open confirm, so there must be no older one.
    let routed = routed.await.unwrap();
    assert!(routed.is_ack() && routed.take_message().is_none());
    let lost = channel.basic_publish("".into(), lab.name("no").into(), options, b"lost", properties).await.unwrap();
    let lost = lost.await.unwrap();
    assert!(lost.is_ack());
    let returned = lost.take_message().expect("the unroutable message comes back");
    assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
    assert_eq!(returned.delivery.data, b"lost");
}

#[tokio::test]
async fn headers_exchange() {
    let lab = Lab::new("headers");
    let channel = lab.guest().await.create_channel().await.unwrap();
    let exchange = lab.exchange(&channel, ExchangeKind::Headers).await;
    let queue = lab.queue(&channel, "q").await;
    let arguments = table([("x-match", text("all")), ("format", text("pdf")), ("pages", AMQPValue::LongInt(2))]);
    bind(&channel, &queue, &exchange, "", arguments).await;
    for (pages, body) in [(2, b"two"), (3, b"not")] {
        let headers = table([("format", text("pdf")), ("pages", AMQPValue::LongLongInt(pages))]);
        publish(&channel, &exchange, "", body, BasicProperties::default().with_headers(headers)).await;
    }
    assert_eq!(bodies(&channel, &queue).await, ["two"]);
}

#[tokio::test]
async fn large_message() {
    let lab = Lab::new("large");
    let channel = lab.guest().await.create_channel().await.unwrap();
    let queue = lab.queue(&channel, "q").await;
    let body: Vec<u8> = (0..10 * 1024 * 1024_u32).map(|n| (n % 251) as u8).collect();
    publish(&channel, "", &queue, &body, BasicProperties::default()).await;
    let mut consumer = consume(&channel, &queue, true).await;
    assert!(next(&mut consumer).await.data == body, "ten megabytes come back unchanged");
}

#[tokio::test]
async fn a_thousand_channels_on_one_connection() {
    let lab = Lab::new("channels");
    let connection = lab.guest().await;
    let mut channels = Vec::new();
    for _ in 0..1000 {
        channels.push(connection.create_channel().await.unwrap());
    }
    let queue = lab.queue(&channels[0], "q").await;
    publish(&channels[999], "", &queue, b"last", BasicProperties::default()).await;
    let mut consumer = consume(&channels[500], &queue, true).await;
    assert_eq!(next(&mut consumer).await.data, b"last");
}

#[tokio::test]
async fn refusals() {
    let lab = Lab::new("refusals");
    let wrong = lab.connect("guest:wrong", "%2f").await.expect_err("a wrong password is refused").to_string();
    assert!(wrong.contains("ACCESS-REFUSED") || wrong.contains("ACCESS_REFUSED"), "{wrong}");
    let unknown = lab.connect("guest:guest", "nowhere").await.expect_err("an unknown vhost is refused").to_string();
    assert!(unknown.contains("vhost nowhere not found"), "{unknown}");
    let limited = lab.connect("limited:secret", "%2f").await.unwrap();
    let channel = limited.create_channel().await.unwrap();
    let options = QueueDeclareOptions::default();
    let refused = channel.queue_declare(lab.name("q").into(), options, FieldTable::default()).await;
    let refused = refused.expect_err("limited may not declare it").to_string();
    assert!(refused.contains("refused for user 'limited'"), "{refused}");
}

#[tokio::test]
async fn lua_hook_puts_the_tenant_in_front_of_the_routing_key() {
    let lab = Lab::new("tenants");
    if std::env::var("AMQP_TARGET").is_ok_and(|target| target != "broker") {
        return;
    }
    let channel = lab.guest().await.create_channel().await.unwrap();
    let queue = lab.queue(&channel, "q").await;
    bind(&channel, &queue, "tenants", "acme.#", FieldTable::default()).await;
    let properties = BasicProperties::default().with_headers(table([("x-tenant", text("acme"))]));
    publish(&channel, "tenants", "order.created", b"x", properties).await;
    let mut consumer = consume(&channel, &queue, true).await;
    assert_eq!(next(&mut consumer).await.routing_key.as_str(), "acme.order.created");
}
