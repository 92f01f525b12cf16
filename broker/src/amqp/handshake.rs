//! What both sides say of themselves at the start, and the rules of tuning (semantics 2, 3, 5).

use std::borrow::Cow;
use std::time::Duration;

use plugin_api::value::{Table, TableRef, Value, ValueRef};

use super::method::ConnectionTuneOk;
use super::reply_code::{ProtocolError, ReplyCode};

/// The header of AMQP 0-9-1: what clients send first, and what everything else is answered with (semantics 2.4, 2.5).
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// AMQP 0-9, spoken as 0-9-1 (semantics 2.2).
const PROTOCOL_HEADER_0_9: [u8; 8] = *b"AMQP\x01\x01\x00\x09";
/// The smallest limit that a client may ask for; some ask for exactly this (semantics 5.3).
pub const FRAME_BYTES_MIN: u32 = 4096;
/// The limit before tune-ok, large enough for long tokens (semantics 5.4).
pub const FRAME_BYTES_BEFORE_TUNE: u32 = 8192;
/// How long a refused connection stays open before it is cut (semantics 5.12).
pub const SILENCE: Duration = Duration::from_secs(3);
/// A closing connection is cut after this even when its heartbeat is longer (semantics 3.15).
pub const CLOSE_WAIT_MAX: Duration = Duration::from_secs(30);
/// What the capabilities table says (semantics 3.2); only what works stands here.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// What the first eight bytes ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// AMQP 0-9-1, or 0-9; with the minor version that connection.start then names.
    Amqp { version_minor: u8 },
    /// Anything else, in words for the log (semantics 2.7).
    Other(&'static str),
}

/// Reads the protocol header.
pub(super) fn hello(bytes: [u8; 8]) -> Hello {
    match bytes {
        // RabbitMQ names version 0-9 in connection.start for either header (semantics 2.2, 2.3).
        PROTOCOL_HEADER | PROTOCOL_HEADER_0_9 => Hello::Amqp { version_minor: 9 },
        [0x16, 3, ..] => Hello::Other("a TLS client on a port without TLS"),
        [b'A', b'M', b'Q', b'P', ..] => Hello::Other("an unsupported version of AMQP"),
        [b'G', b'E', b'T', b' ', ..]
        | [b'P', b'O', b'S', b'T', ..]
        | [b'H', b'E', b'A', b'D', ..]
        | [b'P', b'U', b'T', b' ', ..] => Hello::Other("an HTTP client on the AMQP port"),
        _ => Hello::Other("a client that does not speak AMQP 0-9-1"),
    }
}

/// What the broker says of itself in connection.start.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Clients and their suites depend on it (semantics 33); `RabbitMQ` unless configured.
    pub product: String,
    /// Looks like x.y.z (semantics 3.4).
    pub version: String,
    /// The name that operators gave the cluster.
    pub cluster_name: String,
    /// Space-separated SASL mechanisms.
    pub mechanisms: String,
}

impl Identity {
    /// What one connection is offered. EXTERNAL is for peers whose verified certificate names a user: some clients take it wherever it stands
    /// (semantics 33.5b).
    pub(super) fn mechanisms(&self, offers_external: bool) -> Cow<'_, str> {
        if offers_external { format!("{} EXTERNAL", self.mechanisms).into() } else { self.mechanisms.as_str().into() }
    }

    /// The encoded server-properties (semantics 3.1).
    pub(super) fn server_properties(&self) -> Vec<u8> {
        let mut capabilities = Table::new();
        for capability in CAPABILITIES {
            capabilities.insert(capability, true);
        }
        let own = concat!("broker ", env!("CARGO_PKG_VERSION"), ", a broker for AMQP 0-9-1 in Rust");
        let mut table = Table::new();
        table.insert("capabilities", Value::Table(capabilities));
        table.insert("cluster_name", self.cluster_name.as_str());
        table.insert("copyright", "The authors of the broker");
        table.insert("information", own);
        table.insert("platform", concat!("broker ", env!("CARGO_PKG_VERSION"), " (Rust)"));
        table.insert("product", self.product.as_str());
        table.insert("version", self.version.as_str());
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        encoded
    }
}

/// The limits that a connection is held to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Header and end octet included; 0 means none.
    pub frame_max_bytes: u32,
    /// Open channels of a connection; 0 means none.
    pub channel_max: u16,
    /// What the server proposes; the client decides.
    pub heartbeat_secs: u16,
    /// From accept to open-ok (semantics 2.9).
    pub handshake_timeout: Duration,
    /// Larger bodies are refused (semantics 6.7).
    pub message_bytes_max: u64,
}

/// What client and server have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// Channels at most.
    pub channel_max: u16,
    /// The largest frame, with its overhead; 0 is no limit.
    pub frame_max_bytes: u32,
    /// Seconds between heartbeats; 0 is none.
    pub heartbeat_secs: u16,
}

/// What the client said of itself in start-ok (semantics 3.7).
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// All client properties as they came.
    pub properties: Table,
    /// `connection_name`, for people.
    pub connection_name: Option<String>,
    /// Wants connection.close when its login is refused.
    pub authentication_failure_close: bool,
    /// Wants connection.blocked and unblocked.
    pub connection_blocked: bool,
    /// Wants basic.cancel when its consumer ends without its doing.
    pub consumer_cancel_notify: bool,
}

impl Client {
    pub(super) fn from_properties(properties: TableRef<'_>) -> Self {
        let capabilities = match properties.get("capabilities") {
            Some(ValueRef::Table(table)) => Some(table),
            _ => None,
        };
        let can = |name| capabilities.and_then(|table| table.get(name)).and_then(ValueRef::as_bool) == Some(true);
        Self {
            connection_name: properties.get("connection_name").and_then(ValueRef::as_str).map(str::to_owned),
            authentication_failure_close: can("authentication_failure_close"),
            connection_blocked: can("connection.blocked"),
            consumer_cancel_notify: can("consumer_cancel_notify"),
            // The reader has checked the table, so this cannot fail.
            properties: properties.to_owned().unwrap_or_default(),
        }
    }
}

/// Judges tune-ok (semantics 5.2, 5.3, 5.6).
///
/// # Errors
/// 530 with the text that clients know.
pub(super) fn check_tune(limits: &Limits, tune_ok: &ConnectionTuneOk) -> Result<(), ProtocolError> {
    let frame_max = tune_ok.frame_max;
    // 0 asks for no limit, which is more than any.
    if limits.frame_max_bytes != 0 && frame_max == 0 {
        return Err(refuse("frame_max = 0 (no limit)", "higher than the maximum", limits.frame_max_bytes));
    }
    if limits.frame_max_bytes != 0 && frame_max > limits.frame_max_bytes {
        return Err(refuse(&format!("frame_max = {frame_max}"), "higher than the maximum", limits.frame_max_bytes));
    }
    if frame_max != 0 && frame_max < FRAME_BYTES_MIN {
        return Err(refuse(&format!("frame_max = {frame_max}"), "lower than the minimum", FRAME_BYTES_MIN));
    }
    let (channel_max, limit) = (tune_ok.channel_max, limits.channel_max);
    if limit != 0 && channel_max == 0 {
        return Err(refuse("channel_max = 0 (no limit)", "higher than the maximum", u32::from(limit)));
    }
    if limit != 0 && channel_max > limit {
        return Err(refuse(&format!("channel_max = {channel_max}"), "higher than the maximum", u32::from(limit)));
    }
    Ok(())
}

fn refuse(what: &str, how: &str, bound: u32) -> ProtocolError {
    ProtocolError::new(ReplyCode::NotAllowed, format!("negotiated {what} is {how} allowed value ({bound})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(frame_max: u32, channel_max: u16, expected: Option<&str>) {
        let limits = Limits {
            frame_max_bytes: 131_072,
            channel_max: 2047,
            heartbeat_secs: 60,
            handshake_timeout: Duration::from_secs(10),
            message_bytes_max: 1,
        };
        let result = check_tune(&limits, &ConnectionTuneOk { channel_max, frame_max, heartbeat: 0 });
        assert_eq!(result.err().map(|e| e.to_string()).as_deref(), expected);
    }

    #[test]
    fn tune_ok_stays_within_the_servers_limits() {
        check(131_072, 2047, None);
        check(4096, 1, None);
        check(
            4095,
            1,
            Some("NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        );
        check(
            131_073,
            1,
            Some("NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        );
        check(
            131_072,
            0,
            Some("NOT_ALLOWED - negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"),
        );
    }

    #[test]
    fn other_protocols_are_told_apart_for_the_log() {
        assert_eq!(hello(PROTOCOL_HEADER), Hello::Amqp { version_minor: 9 });
        assert_eq!(hello(*b"AMQP\x01\x01\x00\x09"), Hello::Amqp { version_minor: 9 });
        for (bytes, word) in [
            (*b"\x16\x03\x01\x02\x00\x01\x00\x01", "TLS"),
            (*b"GET / HT", "HTTP"),
            (*b"AMQP\x00\x01\x00\x00", "version"),
        ] {
            assert!(matches!(hello(bytes), Hello::Other(text) if text.contains(word)), "{bytes:?}");
        }
    }
}
