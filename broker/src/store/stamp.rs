//! What the store keeps of a message beside its bytes: when it came, and what the broker alone knows of it.
//!
//! Both stand in the stamp, which a storage keeps unread: the time in milliseconds since the epoch in the lower bits, the marks in the highest
//! three. 0 is what folders of an older version have: nothing is known then.

use std::sync::Arc;

use plugin_api::storage::StoredMessage;

use crate::message::{Marks, Message, Parts};

/// Marks have three bits; what is left for milliseconds ends in 73 million years.
const MARKS_SHIFT: u32 = 61;

/// The stamp of a message that a queue has taken at this time.
#[inline]
pub(super) fn of(message: &Message, came_ms: u64) -> u64 {
    let came_ms = came_ms & ((1 << MARKS_SHIFT) - 1);
    came_ms | u64::from(message.marks().bits()) << MARKS_SHIFT
}

/// A message as it was, and when it came.
pub(super) fn message(stored: &StoredMessage) -> (u64, Arc<Message>) {
    let StoredMessage { stamp, exchange, routing_key, properties, body, .. } = stored;
    // What is left of it has three bits.
    let marks = Marks::from_bits((stamp >> MARKS_SHIFT) as u8);
    let came_ms = stamp & ((1 << MARKS_SHIFT) - 1);
    (came_ms, Message::marked(Parts { exchange, routing_key, properties }, body, marks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::storage::MessageSeq;

    #[test]
    fn time_and_marks_come_back() {
        let parts = Parts { exchange: "x", routing_key: "k", properties: &[0, 0] };
        for marks in [Marks::NONE, Marks::HAS_DEATHS.and(Marks::SOLE_KEY), Marks::HIDES_BCC] {
            let taken = Message::marked(parts, b"body", marks);
            let stored = StoredMessage {
                seq: MessageSeq(1),
                stamp: of(&taken, 1_780_000_000_123),
                exchange: "x".into(),
                routing_key: "k".into(),
                properties: vec![0, 0],
                body: b"body".to_vec(),
            };
            let (came_ms, message) = message(&stored);
            assert_eq!((came_ms, message.marks(), message.body()), (1_780_000_000_123, marks, &b"body"[..]));
        }
    }
}
