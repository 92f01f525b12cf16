//! Publishes orders and reads them by topic, with lapin.
//!
//!     cargo run -p tests --example topics -- publish order.eu.new order.us.rush
//!     cargo run -p tests --example topics -- read orders.rush

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = std::env::var("AMQP_HOST").unwrap_or("127.0.0.1".to_owned());
    let port = std::env::var("AMQP_PORT").unwrap_or("5672".to_owned());
    let uri = format!("amqp://guest:guest@{host}:{port}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((command, keys)) if command == "publish" => publish(&channel, keys).await?,
        Some((command, queues)) if command == "read" => read(&channel, queues).await?,
        _ => eprintln!("publish ROUTING_KEY… or read QUEUE…"),
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn publish(channel: &Channel, keys: &[String]) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for key in keys {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default().with_delivery_mode(2);
        let body = format!("an order for {key}");
        // The first await sends, the second one waits for the broker's confirm.
        channel
            .basic_publish("orders".into(), key.as_str().into(), options, body.as_bytes(), properties)
            .await?
            .await?;
    }
    Ok(())
}

async fn read(channel: &Channel, queues: &[String]) -> lapin::Result<()> {
    for queue in queues {
        while let Some(message) = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await? {
            println!("{}: {}", message.delivery.routing_key, String::from_utf8_lossy(&message.delivery.data));
        }
    }
    Ok(())
}
