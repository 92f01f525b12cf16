//! A message as it lives between publisher and consumers.
//!
//! Exchange, routing key, raw properties and body stand in one buffer, each copied once from the socket. The properties stay as
//! the client sent them and are emitted again unchanged; only the facts that every message is asked for are read
//! when it is made. The module knows neither queues nor the wire.

use std::sync::Arc;

use plugin_api::message::{Message as View, Properties};

/// What a queue and a consumer's credit count for a message beside its bytes: the entry, its frames' overhead.
const OVERHEAD_BYTES: usize = 64;

/// One message, shared by all queues that hold it.
#[derive(Debug)]
pub struct Message {
    /// `exchange ‖ routing key ‖ properties ‖ body`.
    bytes: Bytes,
    exchange_end: u8,
    routing_key_end: u16,
    properties_end: u32,
    facts: Facts,
}

/// So many bytes stand in the message itself, so that a small one is a single allocation. With them a shared message takes 128 bytes: two cache
/// lines, and a size that mimalloc aligns for free, where one in between costs it more than two allocations.
const INLINE_BYTES: usize = 102;

/// The bytes of a message.
#[derive(Debug)]
enum Bytes {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Boxed(Box<[u8]>),
}

impl Bytes {
    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            // The length was taken from what was copied in.
            Self::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Boxed(bytes) => bytes,
        }
    }

    /// None if there is too much for a message's own room.
    #[inline]
    fn inline(pieces: [&[u8]; 4]) -> Option<Self> {
        let mut bytes = [0; INLINE_BYTES];
        let mut len = 0;
        for piece in pieces {
            bytes.get_mut(len..len + piece.len())?.copy_from_slice(piece);
            len += piece.len();
        }
        // At most INLINE_BYTES.
        Some(Self::Inline { len: len as u8, bytes })
    }
}

/// What is known of a message without reading its properties, as bits; the lowest are its [`Marks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts(u8);

impl Facts {
    const PERSISTENT: Self = Self(0x10);
    const EXPIRES: Self = Self(0x20);

    fn of(properties: Properties<'_>) -> Self {
        if properties.raw() == Properties::EMPTY.raw() {
            return Self::default();
        }
        let is_persistent = properties.delivery_mode() == Some(2);
        let expires = properties.expiration().is_some();
        Self((u8::from(is_persistent) * Self::PERSISTENT.0) | (u8::from(expires) * Self::EXPIRES.0))
    }

    #[inline]
    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What the broker alone knows of a message that it dead-lettered or took a header from; nothing of it is on the wire. They go with the
/// message into the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u8);

impl Marks {
    /// None, as of nearly every message.
    pub const NONE: Self = Self(0);
    /// The broker wrote its `x-death`; any other is a publisher's own (semantics 20.9).
    pub const HAS_DEATHS: Self = Self(1);
    /// Its header BCC is still there, since dead-lettering goes by it (semantics 20.3); nobody may see it.
    pub const HIDES_BCC: Self = Self(2);
    /// It was dead-lettered with a key of its queue: its header CC no longer routes (semantics 20.4).
    pub const SOLE_KEY: Self = Self(4);

    /// As bits, of which the lowest three are used.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From bits; unknown ones are dropped.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// Whether one of `others` is there.
    #[inline]
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Both.
    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without `others`.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }
}

/// The pieces of a message that is being put together.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The exchange that it was published to; at most 255 bytes.
    pub exchange: &'a str,
    /// At most 255 bytes.
    pub routing_key: &'a str,
    /// Flags and values as on the wire.
    pub properties: &'a [u8],
}

/// Bytes that a message takes up to and with its properties, before the body.
impl Parts<'_> {
    fn len(&self) -> usize {
        self.exchange.len() + self.routing_key.len() + self.properties.len()
    }
}

/// A message whose body is still arriving.
#[derive(Debug)]
pub struct Builder {
    buffer: Vec<u8>,
    exchange_end: u8,
    routing_key_end: u16,
    properties_end: u32,
    facts: Facts,
    /// What the message will have in all.
    announced_bytes: usize,
}

/// A body is announced before it arrives, so no more than this is reserved on the peer's word.
const RESERVE_BYTES_MAX: usize = 4 * 1024;
/// Then so many times of what has arrived is reserved, and never more than was announced.
const RESERVE_GROWTH: usize = 4;

impl Builder {
    /// Starts a message whose body will have `body_bytes`. `parts` must be within the limits that it names.
    pub fn new(parts: Parts<'_>, body_bytes: usize) -> Self {
        Self::with_room(parts, body_bytes, body_bytes.min(RESERVE_BYTES_MAX))
    }

    fn with_room(parts: Parts<'_>, body_bytes: usize, room_bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(parts.len() + room_bytes);
        buffer.extend_from_slice(parts.exchange.as_bytes());
        buffer.extend_from_slice(parts.routing_key.as_bytes());
        buffer.extend_from_slice(parts.properties);
        assert!(parts.exchange.len() <= 255 && parts.routing_key.len() <= 255, "names are short strings");
        Self {
            exchange_end: parts.exchange.len() as u8,
            routing_key_end: (parts.exchange.len() + parts.routing_key.len()) as u16,
            // A content header fits in a frame (semantics 17.2).
            properties_end: parts.len() as u32,
            facts: Facts::of(Properties::from_raw(parts.properties)),
            announced_bytes: parts.len().saturating_add(body_bytes),
            buffer,
        }
    }

    /// What it takes in memory now.
    pub fn reserved_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Appends a piece of the body.
    #[inline]
    pub fn push(&mut self, piece: &[u8]) {
        let len = self.buffer.len() + piece.len();
        if len > self.buffer.capacity() {
            let reserve = self.announced_bytes.min(len.saturating_mul(RESERVE_GROWTH)).max(len);
            self.buffer.reserve_exact(reserve - self.buffer.len());
        }
        self.buffer.extend_from_slice(piece);
    }

    /// The body is complete.
    pub fn finish(self) -> Arc<Message> {
        let message = Message {
            exchange_end: self.exchange_end,
            routing_key_end: self.routing_key_end,
            properties_end: self.properties_end,
            facts: self.facts,
            bytes: Bytes::inline([&self.buffer, &[], &[], &[]])
                .unwrap_or_else(|| Bytes::Boxed(self.buffer.into_boxed_slice())),
        };
        message.shared()
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        live::add(-(self.weight() as i64));
    }
}

impl Message {
    /// A message that is whole.
    #[inline]
    pub fn new(parts: Parts<'_>, body: &[u8]) -> Arc<Self> {
        let Parts { exchange, routing_key, properties } = parts;
        if parts.len() + body.len() <= INLINE_BYTES
            && let Some(bytes) = Bytes::inline([exchange.as_bytes(), routing_key.as_bytes(), properties, body])
        {
            // All of it is shorter than a short string may be.
            let message = Self {
                exchange_end: exchange.len() as u8,
                routing_key_end: (exchange.len() + routing_key.len()) as u16,
                properties_end: parts.len() as u32,
                facts: Facts::of(Properties::from_raw(properties)),
                bytes,
            };
            return message.shared();
        }
        Self::boxed(parts, body)
    }

    fn shared(self) -> Arc<Self> {
        live::add(self.weight() as i64);
        Arc::new(self)
    }

    fn boxed(parts: Parts<'_>, body: &[u8]) -> Arc<Self> {
        let mut builder = Builder::with_room(parts, body.len(), body.len());
        builder.push(body);
        builder.finish()
    }

    /// A message that is whole, and what the broker knows of it.
    pub fn marked(parts: Parts<'_>, body: &[u8], marks: Marks) -> Arc<Self> {
        let mut builder = Builder::new(parts, body.len());
        builder.facts.0 |= marks.0;
        builder.push(body);
        builder.finish()
    }

    /// A copy of a message that a plugin hands over; none if it breaks the limits of a message.
    pub fn of_view(view: &View<'_>) -> Option<Arc<Self>> {
        let is_sound = view.exchange.len() <= 255 && view.routing_key.len() <= 255 && view.properties.check().is_ok();
        let parts = Parts { exchange: view.exchange, routing_key: view.routing_key, properties: view.properties.raw() };
        is_sound.then(|| Self::new(parts, view.body))
    }

    #[inline]
    fn buffer(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    fn text(&self, from: usize, to: usize) -> &str {
        // The builder copied both names from `&str`.
        std::str::from_utf8(&self.buffer()[from..to]).unwrap_or_default()
    }

    /// The exchange that it was published to.
    pub fn exchange(&self) -> &str {
        self.text(0, usize::from(self.exchange_end))
    }

    /// The routing key that it was published with.
    pub fn routing_key(&self) -> &str {
        self.text(usize::from(self.exchange_end), usize::from(self.routing_key_end))
    }

    /// Exchange and routing key as bytes.
    #[inline]
    pub fn raw_names(&self) -> (&[u8], &[u8]) {
        let names = &self.buffer()[..usize::from(self.routing_key_end)];
        names.split_at(usize::from(self.exchange_end))
    }

    /// Flags and values as on the wire.
    pub fn properties(&self) -> Properties<'_> {
        Properties::from_raw(&self.buffer()[usize::from(self.routing_key_end)..self.properties_end as usize])
    }

    /// Properties as on the wire, and the payload.
    #[inline]
    pub fn content(&self) -> (&[u8], &[u8]) {
        let content = self.buffer().get(usize::from(self.routing_key_end)..).unwrap_or_default();
        content.split_at(self.properties_end as usize - usize::from(self.routing_key_end))
    }

    /// The payload.
    pub fn body(&self) -> &[u8] {
        &self.buffer()[self.properties_end as usize..]
    }

    /// Delivery mode 2 (semantics 12.8).
    #[inline]
    pub fn is_persistent(&self) -> bool {
        self.facts.has(Facts::PERSISTENT)
    }

    /// How long it may wait in a queue by its own wish, in milliseconds (semantics 12.5). One that is no number counts as none: only a
    /// message that no publisher was checked for can have it.
    #[inline]
    pub fn expiration_ms(&self) -> Option<u64> {
        if !self.facts.has(Facts::EXPIRES) {
            return None;
        }
        std::str::from_utf8(self.properties().expiration()?).ok()?.parse().ok()
    }

    /// What the broker alone knows of it.
    #[inline]
    pub fn marks(&self) -> Marks {
        Marks::from_bits(self.facts.0)
    }

    /// What it counts for in credits and budgets, in bytes.
    pub fn weight(&self) -> usize {
        self.buffer().len() + OVERHEAD_BYTES
    }

    /// As exchanges and hooks see it.
    pub fn view(&self) -> View<'_> {
        View {
            exchange: self.exchange(),
            routing_key: self.routing_key(),
            properties: self.properties(),
            body: self.body(),
        }
    }

    /// Its names and properties, to make another message of.
    pub fn parts(&self) -> Parts<'_> {
        Parts { exchange: self.exchange(), routing_key: self.routing_key(), properties: self.properties().raw() }
    }
}

/// Bytes of messages whose bodies are still arriving. They count for the memory alarm like those of messages that are whole.
#[derive(Debug, Default)]
pub struct Arriving {
    bytes: usize,
}

impl Arriving {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// One of the messages had `before` bytes and has `after`.
    pub fn change(&mut self, before: usize, after: usize) {
        if before != after {
            self.bytes = self.bytes + after - before;
            live::add(after as i64 - before as i64);
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        live::add(-(self.bytes as i64));
    }
}

/// What is kept in memory of messages that are out of it. It counts for the memory alarm, too.
#[derive(Debug, Default)]
pub struct Footprint {
    bytes: usize,
}

impl Footprint {
    /// It is so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        if self.bytes != bytes {
            live::add(bytes as i64 - self.bytes as i64);
            self.bytes = bytes;
        }
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        live::add(-(self.bytes as i64));
    }
}

/// What all messages take in memory now, in bytes of [`Message::weight`].
///
/// This is the measure of the memory alarm. What the process holds would not do: allocators keep freed memory for the thread that had
/// it, and an alarm that stops this very thread would never end.
pub fn live_bytes() -> u64 {
    u64::try_from(live::sum()).unwrap_or(0)
}

/// A count that every thread keeps in a place of its own, so that no message costs a shared cache line.
mod live {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use parking_lot::Mutex;

    /// Only its thread writes it. Padded, so that neighbours do not share a cache line.
    #[derive(Default)]
    #[repr(align(128))]
    struct Shard(AtomicI64);

    struct All {
        /// One for each thread that had a message. Threads of a runtime come and go.
        shards: Vec<Arc<Shard>>,
        /// What the threads counted that have ended.
        ended: i64,
    }

    static ALL: Mutex<All> = Mutex::new(All { shards: Vec::new(), ended: 0 });

    /// A thread's own.
    struct Own(Arc<Shard>);

    impl Own {
        fn new() -> Self {
            let shard = Arc::<Shard>::default();
            ALL.lock().shards.push(Arc::clone(&shard));
            Self(shard)
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            let mut all = ALL.lock();
            all.shards.retain(|shard| !Arc::ptr_eq(shard, &self.0));
            all.ended = all.ended.wrapping_add(self.0.0.load(Ordering::Relaxed));
        }
    }

    thread_local! {
        static SHARD: Own = Own::new();
    }

    #[inline]
    pub(super) fn add(bytes: i64) {
        // A message that is dropped while its thread ends is counted in a shard that is gone; nobody ever sees that.
        let _ = SHARD.try_with(|Own(shard)| {
            shard.0.store(shard.0.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        });
    }

    pub(super) fn sum() -> i64 {
        let all = ALL.lock();
        all.shards.iter().map(|shard| shard.0.load(Ordering::Relaxed)).fold(all.ended, i64::wrapping_add)
    }

    /// How many threads have a count.
    #[cfg(test)]
    pub(super) fn shard_count() -> usize {
        ALL.lock().shards.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_bytes_follow_messages_also_to_other_threads() {
        let parts = Parts { exchange: "", routing_key: "", properties: &[0, 0] };
        let body = vec![0; 50_000_000];
        let before = live_bytes();
        let message = Message::new(parts, &body);
        assert!(live_bytes() >= before + 50_000_000 - 10_000_000);
        std::thread::spawn(move || drop(message)).join().expect("dropping does not panic");
        assert!(live_bytes() < before + 50_000_000 - 10_000_000);
    }

    #[test]
    fn live_bytes_follow_messages_that_are_still_arriving() {
        let before = live_bytes();
        let mut arriving = Arriving::default();
        arriving.change(0, 80_000_000);
        arriving.change(80_000_000, 50_000_000);
        assert!(live_bytes() >= before + 50_000_000 - 10_000_000);
        assert!(live_bytes() < before + 80_000_000 - 10_000_000);
        drop(arriving);
        assert!(live_bytes() < before + 50_000_000 - 10_000_000);
    }

    #[test]
    fn threads_that_have_ended_keep_no_count() {
        let parts = Parts { exchange: "", routing_key: "", properties: &[0, 0] };
        let before = live::shard_count();
        for _ in 0..200 {
            std::thread::spawn(move || drop(Message::new(parts, b""))).join().expect("dropping does not panic");
        }
        assert!(live::shard_count() < before + 100, "but for those of other tests");
    }

    #[test]
    fn the_pieces_come_back_as_they_went_in() {
        let parts = Parts { exchange: "orders", routing_key: "order.eu", properties: &[0x10, 0, 2] };
        let message = Message::new(parts, b"body");
        assert_eq!((message.exchange(), message.routing_key(), message.body()), ("orders", "order.eu", &b"body"[..]));
        assert_eq!(message.properties().raw(), &[0x10, 0, 2]);
        assert!(message.is_persistent());
    }

    #[test]
    fn what_stands_in_the_message_itself_and_what_does_not_is_the_same() {
        for body_bytes in 0..2 * INLINE_BYTES {
            let body: Vec<u8> = (0..body_bytes).map(|n| n as u8).collect();
            let parts = Parts { exchange: "orders", routing_key: "key", properties: &[0x10, 0, 2] };
            let mut builder = Builder::new(parts, body.len());
            body.chunks(7).for_each(|piece| builder.push(piece));
            for message in [Message::new(parts, &body), builder.finish(), Message::marked(parts, &body, Marks::NONE)] {
                assert_eq!((message.exchange(), message.routing_key()), ("orders", "key"));
                assert_eq!(message.raw_names(), (&b"orders"[..], &b"key"[..]));
                assert_eq!(message.content(), (&[0x10, 0, 2][..], &body[..]));
                assert_eq!((message.body(), message.is_persistent()), (&body[..], true));
                assert_eq!(message.weight(), 12 + body_bytes + OVERHEAD_BYTES);
                let is_inline = matches!(message.bytes, Bytes::Inline { .. });
                assert_eq!(is_inline, 12 + body_bytes <= INLINE_BYTES);
            }
        }
    }

    #[test]
    fn a_message_knows_its_expiration_and_its_marks() {
        let expiration =
            |properties: &[u8]| Message::new(Parts { exchange: "", routing_key: "", properties }, b"").expiration_ms();
        assert_eq!(expiration(&[0, 0]), None);
        assert_eq!(expiration(b"\x01\x00\x0460e3"), None);
        assert_eq!(expiration(b"\x01\x00\x046000"), Some(6000));
        let parts = Parts { exchange: "", routing_key: "", properties: &[0, 0] };
        let marks = Marks::HAS_DEATHS.and(Marks::SOLE_KEY);
        let message = Message::marked(parts, b"", marks);
        assert_eq!(message.marks(), Marks::from_bits(marks.bits()));
        assert!(message.marks().has(Marks::SOLE_KEY) && !message.marks().has(Marks::HIDES_BCC));
        assert_eq!(size_of::<Message>() + 2 * size_of::<usize>(), 128, "with the counts of an Arc");
    }

    #[test]
    fn an_announced_body_reserves_little() {
        let parts = Parts { exchange: "", routing_key: "", properties: &[0, 0] };
        let mut builder = Builder::new(parts, usize::MAX);
        assert!(builder.reserved_bytes() < 2 * RESERVE_BYTES_MAX);
        for arrived in 1..=10 {
            builder.push(&[0; 100_000]);
            assert!(builder.reserved_bytes() <= RESERVE_GROWTH * (arrived * 100_000 + 2));
        }
        let mut builder = Builder::new(parts, 300_000);
        for _ in 0..3 {
            builder.push(&[0; 100_000]);
        }
        assert_eq!(builder.reserved_bytes(), 300_002, "what is finished need not be moved");
    }
}
