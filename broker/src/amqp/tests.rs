//! The machine of a connection by event: frames go in, what the driver is asked to do comes out as short text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Event;
use super::method::*;
use super::{ChannelId, Connection, Identity, Limits, PublishMode, frame};

struct Bench {
    conn: Connection,
    now: Instant,
}

fn limits() -> Limits {
    Limits {
        frame_max_bytes: 131_072,
        channel_max: 2047,
        heartbeat_secs: 60,
        handshake_timeout: Duration::from_secs(10),
        message_bytes_max: 1024 * 1024,
    }
}

/// A connection whose handshake is over, with these channels open.
fn open(channels: &[u16]) -> Bench {
    let identity = Identity {
        product: "RabbitMQ".into(),
        version: "4.2.1".into(),
        cluster_name: "test".into(),
        mechanisms: "PLAIN".into(),
    };
    let now = Instant::now();
    let mut bench = Bench { conn: Connection::new(Arc::new(identity), Arc::new(limits()), now), now };
    let client_properties = plugin_api::value::TableRef::new(&[]);
    bench.bytes(&super::handshake::PROTOCOL_HEADER);
    bench.send(0, ConnectionStartOk { client_properties, mechanism: "PLAIN", response: b"", locale: "en_US" });
    bench.conn.authenticated();
    bench.send(0, ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 });
    bench.send(0, ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
    bench.conn.opened(now);
    for &channel in channels {
        bench.send(channel, ChannelOpen { out_of_band: "" });
    }
    bench.conn.out().take_all();
    bench
}

fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Command { channel, method } => format!("{} {}", channel.0, method.name()),
        Event::ChannelClose { channel } => format!("{} close", channel.0),
        Event::Failed { channel, error } => format!("{} failed {error}", channel.0),
        other => format!("{other:?}"),
    }
}

fn qos(prefetch_count: u16) -> BasicQos {
    BasicQos { prefetch_size: 0, prefetch_count, global: false }
}

impl Bench {
    fn bytes(&mut self, mut input: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(event) = self.conn.next_event(self.now, &mut input) {
            match event {
                Event::ChannelOpen { channel } => self.conn.channel_opened(channel),
                event => seen.push(describe(&event)),
            }
        }
        seen
    }

    fn send<'m>(&mut self, channel: u16, method: impl Into<Method<'m>>) -> Vec<String> {
        let mut frames = Vec::new();
        frame::write_method(&mut frames, channel, method);
        self.bytes(&frames)
    }

    /// Lets the frames that were held go on.
    fn held(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some((_, bytes, start)) = self.conn.take_held() {
            seen.extend(self.bytes(&bytes[start..]));
        }
        seen
    }
}

#[test]
fn a_frame_stays_behind_those_that_were_held_when_its_channel_goes_on() {
    let mut bench = open(&[1]);
    bench.conn.wait(ChannelId(1));
    assert!(bench.send(1, qos(1)).is_empty());
    bench.conn.resume(ChannelId(1));
    let get = BasicGet { ticket: 0, queue: "q", no_ack: true };
    assert!(bench.send(1, get).is_empty(), "the frame that was held comes first");
    assert_eq!(bench.held(), ["1 basic.qos", "1 basic.get"]);
    assert_eq!(bench.send(1, get), ["1 basic.get"]);
}

#[test]
fn a_publish_stays_behind_frames_that_were_held() {
    let mut bench = open(&[1]);
    bench.conn.wait(ChannelId(1));
    bench.send(1, qos(1));
    bench.conn.resume(ChannelId(1));
    let mut frames = Vec::new();
    let publish = BasicPublish { ticket: 0, exchange: "", routing_key: "q", mandatory: false, immediate: false };
    frame::write_method(&mut frames, 1, publish);
    frame::write(&mut frames, frame::FrameKind::Header, 1, |out| {
        out.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    });
    assert!(bench.bytes(&frames).is_empty());
    let seen = bench.held();
    assert!(seen[0] == "1 basic.qos" && seen[1].starts_with("Publish"), "{seen:?}");
}

#[test]
fn frames_of_a_channel_that_is_opened_again_wait_for_its_open() {
    let mut bench = open(&[1]);
    let close = ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 };
    assert_eq!(bench.send(1, close), ["1 close"]);
    assert!(bench.send(1, ChannelOpen { out_of_band: "" }).is_empty());
    bench.conn.close_channel_ok(ChannelId(1));
    assert!(bench.send(1, qos(1)).is_empty(), "the open that was held comes first");
    assert_eq!(bench.held(), ["1 basic.qos"]);
}

#[test]
fn a_late_confirm_of_an_earlier_channel_settles_nothing_on_a_new_one() {
    let publish = |bench: &mut Bench| {
        let method = BasicPublish { ticket: 0, exchange: "", routing_key: "q", mandatory: false, immediate: false };
        let mut frames = Vec::new();
        frame::write_method(&mut frames, 1, method);
        frame::write(&mut frames, frame::FrameKind::Header, 1, |out| {
            out.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        });
        let mut input = &frames[..];
        match bench.conn.next_event(bench.now, &mut input) {
            Some(Event::Publish { mode: PublishMode::Confirm(number), .. }) => number,
            other => panic!("{other:?}"),
        }
    };
    let mut bench = open(&[1]);
    bench.send(1, ConfirmSelect { nowait: true });
    let old = publish(&mut bench);
    bench.conn.expect_confirms(ChannelId(1), old, 1, 0);
    bench.send(1, ChannelClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 });
    bench.conn.close_channel_ok(ChannelId(1));
    bench.send(1, ChannelOpen { out_of_band: "" });
    bench.send(1, ConfirmSelect { nowait: true });
    let new = publish(&mut bench);
    bench.conn.expect_confirms(ChannelId(1), new, 1, 0);
    bench.conn.out().take_all();

    bench.conn.confirm(ChannelId(1), old..=old, true).unwrap();
    bench.conn.flush_confirms();
    assert!(bench.conn.out().is_empty(), "nobody has answered for the new publish");

    bench.conn.confirm(ChannelId(1), new..=new, true).unwrap();
    bench.conn.flush_confirms();
    let mut expected = Vec::new();
    frame::write_method(&mut expected, 1, BasicAck { delivery_tag: 1, multiple: false });
    assert_eq!(bench.conn.out().take_all(), expected);
}
