//! The last messages, limited in number and in bytes.

use std::collections::VecDeque;

use plugin_api::message::{Message, Properties};

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    messages: VecDeque<Remembered>,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl History {
    pub(crate) const fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, count_max, bytes_max }
    }

    /// Adds a message, and hands back what there is no room for any more: the oldest, or the message itself if it is
    /// larger than all that may be remembered.
    pub(crate) fn push(&mut self, message: Remembered) -> Vec<Remembered> {
        let mut forgotten = Vec::new();
        self.bytes += message.bytes();
        self.messages.push_back(message);
        while (self.messages.len() > self.count_max || self.bytes > self.bytes_max)
            && let Some(oldest) = self.messages.pop_front()
        {
            self.bytes -= oldest.bytes();
            forgotten.push(oldest);
        }
        forgotten
    }

    /// What is remembered, oldest first.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.messages.iter().map(Remembered::message)
    }
}

/// One message, in one piece of memory.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// Exchange, routing key, properties, body.
    buffer: Box<[u8]>,
    exchange_end: usize,
    routing_key_end: usize,
    properties_end: usize,
}

impl Remembered {
    pub(crate) fn of(message: &Message<'_>) -> Self {
        let pieces =
            [message.exchange.as_bytes(), message.routing_key.as_bytes(), message.properties.raw(), message.body];
        let exchange_end = message.exchange.len();
        let routing_key_end = exchange_end + message.routing_key.len();
        let properties_end = routing_key_end + message.properties.raw().len();
        Self { buffer: pieces.concat().into(), exchange_end, routing_key_end, properties_end }
    }

    fn message(&self) -> Message<'_> {
        let piece = |from: usize, to: usize| self.buffer.get(from..to).unwrap_or_default();
        // Both names were text when they were copied.
        let name = |from: usize, to: usize| std::str::from_utf8(piece(from, to)).unwrap_or_default();
        Message {
            exchange: name(0, self.exchange_end),
            routing_key: name(self.exchange_end, self.routing_key_end),
            properties: Properties::from_raw(piece(self.routing_key_end, self.properties_end)),
            body: piece(self.properties_end, self.buffer.len()),
        }
    }

    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        self.buffer.len() + size_of::<Self>() + ALLOCATION_BYTES
    }
}

/// What an allocator takes for a piece of memory beside the piece.
const ALLOCATION_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(history: &History) -> Vec<&[u8]> {
        history.messages().map(|message| message.body).collect()
    }

    fn message(body: &[u8]) -> Remembered {
        Remembered::of(&Message { body, ..Message::with_key("key") })
    }

    #[test]
    fn oldest_goes_when_there_are_too_many() {
        let mut history = History::new(2, usize::MAX);
        assert!(history.push(message(b"1")).is_empty() && history.push(message(b"2")).is_empty());
        assert_eq!(history.push(message(b"3")).len(), 1);
        assert_eq!(bodies(&history), [b"2", b"3"]);
    }

    #[test]
    fn oldest_go_when_all_together_are_too_large() {
        let mut history = History::new(100, 3 * message(&[0; 1000]).bytes());
        (0..3).for_each(|_| drop(history.push(message(&[0; 1000]))));
        assert_eq!(history.push(message(&[1; 2000])).len(), 2);
        assert_eq!(history.messages().map(|message| message.body.len()).collect::<Vec<_>>(), [1000, 2000]);
        assert_eq!(history.push(message(&[2; 4000])).len(), 3, "what is too large by itself is not remembered");
        assert_eq!((history.bytes, history.messages.len()), (0, 0));
    }

    #[test]
    fn message_comes_back_whole() {
        let raw = [0x10, 0, 2];
        let original =
            Message { exchange: "x", routing_key: "é", properties: Properties::from_raw(&raw), body: b"body" };
        let remembered = Remembered::of(&original);
        let copy = remembered.message();
        assert_eq!((copy.exchange, copy.routing_key, copy.body), ("x", "é", &b"body"[..]));
        assert_eq!(copy.properties.raw(), raw);
    }
}
