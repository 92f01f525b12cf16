//! What is told of connections, channels and consumers to whoever listens to [`crate::events`] (semantics 29.2).
//!
//! There are no Erlang processes here, so `pid`, `channel` and `connection` are made to look like one and to be unique in the broker while it runs:
//! `<NODE.CONNECTION.CHANNEL>`, with channel 0 for the connection itself.

use plugin_api::value::{Table, Value};

use super::Session;
use super::replies::Subscription;
use crate::amqp::{ChannelId, SourceId};
use crate::events::{Kind, PERFORMED_BY};
use crate::metrics::connections::Tls;
use crate::vhost::reply_to::is_reply_name;

/// What RabbitMQ tells of an encrypted connection; certificates only where there is one.
fn with_tls(table: &mut Table, tls: &Tls) {
    let certificate = [
        ("peer_cert_subject", &tls.peer_cert_subject),
        ("peer_cert_issuer", &tls.peer_cert_issuer),
        ("peer_cert_validity", &tls.peer_cert_validity),
    ];
    let agreed = [
        ("ssl_protocol", &tls.protocol),
        ("ssl_key_exchange", &tls.key_exchange),
        ("ssl_cipher", &tls.cipher),
        ("ssl_hash", &tls.hash),
    ];
    for (name, value) in agreed {
        table.insert(name, value.as_str());
    }
    for (name, value) in certificate {
        if let Some(value) = value {
            table.insert(name, value.as_str());
        }
    }
}

impl Session {
    fn tell(&self, kind: Kind, properties: impl FnOnce() -> Table) {
        self.broker.events.tell(kind, self.vhost.as_ref().map(|vhost| &*vhost.name), properties);
    }

    fn pid(&self, channel: ChannelId) -> String {
        format!("<{}.{}.{}>", self.broker.identity.cluster_name, self.number, channel.0)
    }

    fn user_name(&self) -> &str {
        self.actor.as_ref().map_or("", |actor| actor.name())
    }

    /// The address of the peer and what else is known before a login.
    fn address(&self) -> Table {
        let mut table = Table::new()
            .with("peer_host", self.peer.ip().to_canonical().to_string())
            .with("peer_port", i64::from(self.peer.port()))
            .with("protocol", "{0,9,1}")
            .with("ssl", self.secured.is_some());
        if let Some(secured) = &self.secured {
            with_tls(&mut table, &secured.facts);
        }
        if let Some(local) = self.local {
            table.insert("host", local.ip().to_canonical().to_string());
            table.insert("port", i64::from(local.port()));
        }
        table
    }

    /// `name` is the user as the client gave it, if it could be read; `error` says why it may not come in.
    pub(super) fn tell_authentication(&self, mechanism: &str, name: Option<&str>, error: Option<&str>) {
        let kind = if error.is_some() { Kind::UserAuthenticationFailure } else { Kind::UserAuthenticationSuccess };
        self.broker.events.tell(kind, None, || {
            let mut table = self.address();
            table.insert("connection_type", "network");
            table.insert("connection_name", self.name.as_str());
            table.insert("auth_mechanism", mechanism);
            if let Some(name) = name {
                table.insert("name", name);
            }
            if let Some(error) = error {
                table.insert("error", error);
            }
            table
        });
    }

    pub(super) fn tell_connection_created(&mut self) {
        self.is_announced = true;
        self.tell(Kind::ConnectionCreated, || {
            let tuned = self.conn.tuned();
            let mut table = self.address();
            table.insert("type", "network");
            table.insert("pid", self.pid(ChannelId(0)));
            table.insert("name", self.name.as_str());
            table.insert("auth_mechanism", self.mechanism.as_str());
            table.insert("user", self.user_name());
            table.insert("timeout", i64::from(tuned.heartbeat_secs));
            table.insert("frame_max", i64::from(tuned.frame_max_bytes));
            table.insert("channel_max", i64::from(tuned.channel_max));
            table.insert("connected_at", i64::try_from(self.broker.clock.wall_ms()).unwrap_or(i64::MAX));
            table.insert(PERFORMED_BY, self.user_name());
            self.with_client(table)
        });
    }

    pub(super) fn tell_connection_closed(&mut self) {
        if std::mem::take(&mut self.is_announced) {
            self.tell(Kind::ConnectionClosed, || {
                self.with_client(Table::new().with("pid", self.pid(ChannelId(0))).with("name", self.name.as_str()))
            });
        }
    }

    fn with_client(&self, mut table: Table) -> Table {
        let client = self.conn.client();
        table.insert("node", &*self.broker.identity.cluster_name);
        table.insert("client_properties", Value::Table(client.properties.clone()));
        if let Some(name) = &client.connection_name {
            table.insert("user_provided_name", name.as_str());
        }
        table
    }

    pub(super) fn tell_channel_created(&self, channel: ChannelId) {
        self.tell(Kind::ChannelCreated, || {
            Table::new()
                .with("pid", self.pid(channel))
                .with("name", format!("{} ({})", self.name, channel.0))
                .with("connection", self.pid(ChannelId(0)))
                .with("number", i64::from(channel.0))
                .with("user", self.user_name())
                .with(PERFORMED_BY, self.user_name())
        });
    }

    pub(super) fn tell_channel_closed(&self, channel: ChannelId, consumer_count: usize) {
        self.tell(Kind::ChannelClosed, || {
            Table::new()
                .with("pid", self.pid(channel))
                .with("name", format!("{} ({})", self.name, channel.0))
                .with("consumer_count", consumer_count as i64)
                .with(PERFORMED_BY, self.user_name())
        });
    }

    pub(super) fn tell_consumer_created(&self, channel: ChannelId, subscription: &Subscription) {
        let Some(source) = self.sources.get(&subscription.source) else { return };
        // A requester's is no queue that anybody could know.
        if is_reply_name(&source.queue.name) {
            return;
        }
        self.tell(Kind::ConsumerCreated, || {
            self.consumer(channel, &subscription.tag, &source.queue.name)
                .with("exclusive", subscription.is_exclusive)
                .with("ack_required", !subscription.no_ack)
                .with("prefetch_count", i64::from(subscription.prefetch_count))
                .with("arguments", Value::Table(subscription.arguments.clone()))
        });
    }

    /// Call it while the consumer still has its queue.
    pub(super) fn tell_consumer_deleted(&self, channel: ChannelId, source: SourceId, tag: &str) {
        let Some(source) = self.sources.get(&source) else { return };
        if !is_reply_name(&source.queue.name) {
            self.tell(Kind::ConsumerDeleted, || self.consumer(channel, tag, &source.queue.name));
        }
    }

    fn consumer(&self, channel: ChannelId, tag: &str, queue: &str) -> Table {
        Table::new()
            .with("consumer_tag", tag)
            .with("channel", self.pid(channel))
            .with("queue", queue)
            .with(PERFORMED_BY, self.user_name())
    }

    /// All of a channel that is about to be detached from its queues; returns how many consumers it had.
    pub(super) fn tell_consumers_deleted(&self, channel: ChannelId) -> usize {
        let count = self.conn.consumer_count(channel);
        if count > 0 && self.broker.events.is_watched() {
            for (source, tag) in self.conn.consumers(channel) {
                self.tell_consumer_deleted(channel, source, tag);
            }
        }
        count
    }
}
