//! Frames and methods: whatever the bytes are, reading them ends, and what was read writes itself back.

#![no_main]

use broker::amqp::frame::{self, FrameKind};
use broker::amqp::method::Method;
use libfuzzer_sys::fuzz_target;
use plugin_api::message::Properties;

fuzz_target!(|bytes: &[u8]| {
    let mut input = bytes;
    while let Ok(Some(frame)) = frame::decode(&mut input, 131_072) {
        match frame.kind {
            FrameKind::Method => check_method(frame.payload),
            FrameKind::Header => {
                let raw = frame.payload.get(12..).unwrap_or_default();
                if Properties::from_raw(raw).check().is_ok() {
                    let owned = Properties::from_raw(raw).to_owned().expect("checked properties can be read");
                    let again = Properties::from_raw(&owned.encode()).to_owned().map(|again| again.encode());
                    assert_eq!(again.ok(), Some(owned.encode()));
                }
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
    }
});

fn check_method(payload: &[u8]) {
    let Ok(method) = Method::decode(payload) else { return };
    let mut written = Vec::new();
    method.encode(&mut written);
    // Unused bits of a bit field may differ; the meaning may not.
    let read = Method::decode(&written).expect("what was written can be read");
    let mut again = Vec::new();
    read.encode(&mut again);
    assert_eq!(written, again);
    assert_eq!(method.name(), read.name());
}
