//! Carries events and lines of the log to the exchanges of the vhosts that want them (semantics 29.2, 29.3).
//!
//! A task of its own reads each subscription, so that whoever has news never publishes anything itself.

use std::sync::Arc;

use super::Broker;
use crate::events::{LogSubscription, Next, Subscription, unfollowed};

/// Publishes events to `amq.rabbitmq.event` of these vhosts, for ever.
pub async fn publish_events(broker: Arc<Broker>, mut events: Subscription, vhosts: Vec<String>) {
    loop {
        match events.next().await {
            Next::News(event) => {
                vhosts.iter().filter_map(|name| broker.vhost(name)).for_each(|vhost| vhost.publish_event(&event));
            }
            Next::Missed(count) => {
                tracing::warn!(count, "events came too fast and are missing from amq.rabbitmq.event");
            }
        }
        tokio::task::consume_budget().await;
    }
}

/// Publishes the log to `amq.rabbitmq.log` of these vhosts, for ever.
pub async fn publish_log(broker: Arc<Broker>, mut lines: LogSubscription, vhosts: Vec<String>) {
    let node = Arc::clone(&broker.identity);
    loop {
        match lines.next().await {
            Next::News(line) => unfollowed(|| {
                let vhosts = vhosts.iter().filter_map(|name| broker.vhost(name));
                vhosts.for_each(|vhost| vhost.publish_log(&node.cluster_name, &line));
            }),
            Next::Missed(count) => {
                unfollowed(|| {
                    tracing::warn!(count, "lines of the log came too fast and are missing from amq.rabbitmq.log");
                });
            }
        }
        tokio::task::consume_budget().await;
    }
}
