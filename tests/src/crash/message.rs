//! Messages that say who they are: route, size, body and properties all follow from the identity, so that whatever comes
//! back can be compared to the last byte without keeping a copy.

use super::client::text;
use crate::wire::value::Value;
use crate::wire::{Field, Properties};
use plugin_api::testing::Random;
use std::fmt;

/// Who published a message, and as which one of its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Counts rounds of one run.
    pub round: u32,
    /// Counts connections of one round.
    pub publisher: u16,
    /// The channel's number.
    pub channel: u16,
    /// The publish sequence number of the channel, from 1.
    pub number: u32,
}

/// Where a message goes.
#[derive(Debug)]
pub struct Route {
    pub exchange: &'static str,
    pub routing_key: &'static str,
    /// Places in [`QUEUES`].
    pub queues: &'static [usize],
}

/// What happens to the messages of a queue while publishers are at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A consumer acks most of them.
    Acked,
    /// A consumer takes some and acks none.
    Held,
    /// Nobody asks for them.
    Untouched,
}

/// All queues with their fates.
pub const QUEUES: [(&str, Fate); 10] = [
    ("work.0", Fate::Acked),
    ("work.1", Fate::Acked),
    ("held", Fate::Held),
    ("untouched", Fate::Untouched),
    ("fan.work", Fate::Acked),
    ("fan.untouched", Fate::Untouched),
    (UNSYNCED, Fate::Untouched),
    ("levels.work", Fate::Acked),
    ("levels.untouched", Fate::Untouched),
    (LATE, Fate::Untouched),
];

/// Queues of these names have priorities, up to [`LEVEL_MAX`].
const LEVELS: &str = "levels";
/// Below some of the priorities that messages have.
const LEVEL_MAX: u8 = 6;

/// What a queue is declared with.
pub fn arguments(queue: &str) -> Vec<(Vec<u8>, Value)> {
    if queue == UNSYNCED {
        return vec![(b"x-durability".to_vec(), Value::Text(b"os".to_vec()))];
    }
    if queue.starts_with(LEVELS) {
        return vec![(b"x-max-priority".to_vec(), Value::U8(LEVEL_MAX))];
    }
    Vec::new()
}

/// The queue that asks for confirms without a sync: it survives the process, and not the machine.
pub const UNSYNCED: &str = "unsynced";

/// The exchange of the messages for several queues.
pub const FANOUT: &str = "fan";

/// The exchange of the messages that are put off, and the queue that they come to.
pub const LATE: &str = "late";

/// The longest time that one is put off for, in milliseconds: some wait when the accident comes, and are due when the broker is back.
pub const DELAY_MAX_MS: u32 = 300;

/// What the exchange of the late ones is declared with.
pub fn late_exchange() -> [(&'static str, Field); 4] {
    let arguments = vec![(b"x-delayed-type".to_vec(), Value::Text(b"direct".to_vec()))];
    [
        ("exchange", text(LATE)),
        ("type", text("x-delayed-message")),
        ("durable", Field::Bit(true)),
        ("arguments", Field::Table(arguments)),
    ]
}

/// The header of a message that is put off, or was.
pub fn delay_header(delay_ms: i32) -> (&'static str, Field) {
    ("headers", Field::Table(vec![(b"x-delay".to_vec(), Value::I32(delay_ms))]))
}

/// Whether messages stand in a queue in the order of their publishing, each once. Late ones come when they are due, and an accident between
/// their coming and the store's forgetting lets them come once more.
pub fn keeps_order(queue: &str) -> bool {
    queue != LATE
}

const ROUTES: [Route; 9] = [
    Route { exchange: "", routing_key: "work.0", queues: &[0] },
    Route { exchange: "", routing_key: "work.1", queues: &[1] },
    Route { exchange: "", routing_key: "held", queues: &[2] },
    Route { exchange: "", routing_key: "untouched", queues: &[3] },
    Route { exchange: FANOUT, routing_key: "", queues: &[4, 5] },
    Route { exchange: "", routing_key: UNSYNCED, queues: &[6] },
    Route { exchange: "", routing_key: "levels.work", queues: &[7] },
    Route { exchange: "", routing_key: "levels.untouched", queues: &[8] },
    Route { exchange: LATE, routing_key: LATE, queues: &[9] },
];

impl Identity {
    fn random(self) -> Random {
        let place = u64::from(self.publisher) << 16 | u64::from(self.channel);
        Random::new(u64::from(self.round) << 40 ^ place << 20 ^ u64::from(self.number) ^ 0x5EED)
    }

    /// Where it goes.
    pub fn route(self) -> &'static Route {
        self.random().pick(&ROUTES)
    }

    fn priority(self) -> u8 {
        u8::try_from(self.number % 10).unwrap_or_default()
    }

    /// In which level of a queue it stands; the highest go first, and order is kept within a level alone.
    pub fn level(self, queue: &str) -> u8 {
        if queue.starts_with(LEVELS) { self.priority().min(LEVEL_MAX) } else { 0 }
    }

    /// One of ten is transient, so that confirms of both kinds meet on a channel.
    pub fn is_persistent(self) -> bool {
        let mut random = self.random();
        random.next_u64();
        random.below(10) > 0
    }

    /// Some are empty, most are small, a few have up to 64 KiB.
    pub fn body(self) -> Vec<u8> {
        let mut random = self.random();
        random.next_u64();
        random.next_u64();
        let size = match random.below(20) {
            0 => 0,
            1..13 => random.below(1 << 10),
            13..19 => random.below(8 << 10),
            _ => 1 + random.below(64 << 10),
        };
        let size = size as usize;
        let mut body = Vec::with_capacity(size + 8);
        while body.len() < size {
            body.extend_from_slice(&random.next_u64().to_le_bytes());
        }
        body.truncate(size);
        body
    }

    /// What goes with the body.
    pub fn properties(self) -> Properties {
        self.with_delay(1)
    }

    /// The same as it comes back: the header says that the message was put off.
    fn received_properties(self) -> Properties {
        self.with_delay(-1)
    }

    fn with_delay(self, sign: i32) -> Properties {
        let mode = if self.is_persistent() { 2 } else { 1 };
        let mut properties = self.own_properties(mode);
        if self.route().exchange == LATE {
            let delay_ms = i32::try_from(self.number % DELAY_MAX_MS).unwrap_or_default() + 1;
            properties.insert(0, delay_header(sign * delay_ms));
        }
        properties
    }

    fn own_properties(self, mode: u64) -> Properties {
        vec![
            ("delivery-mode", Field::Number(mode)),
            ("priority", Field::Number(u64::from(self.priority()))),
            ("message-id", text(&self.to_string())),
            ("timestamp", Field::Number(u64::from(self.number))),
        ]
    }

    /// Whose message this is, if it is as it was published.
    ///
    /// # Errors
    /// What differs.
    pub fn of(properties: &Properties, body: &[u8]) -> Result<Self, String> {
        let id = properties.iter().find(|(name, _)| *name == "message-id").map(|(_, field)| field);
        let Some(Field::String(id)) = id else { return Err("a message without a message-id".to_owned()) };
        let id = String::from_utf8_lossy(id).into_owned();
        let identity = Self::parse(&id).ok_or_else(|| format!("a message with the message-id '{id}'"))?;
        if *properties != identity.received_properties() {
            return Err(format!("message {id} has other properties: {properties:?}"));
        }
        let expected = identity.body();
        if body == expected {
            return Ok(identity);
        }
        let place = body.iter().zip(&expected).position(|(one, other)| one != other);
        let (length, wanted) = (body.len(), expected.len());
        Err(format!("message {id} has another body: {length} bytes for {wanted}, first difference at {place:?}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let identity = Self {
            round: parts.next()?.parse().ok()?,
            publisher: parts.next()?.parse().ok()?,
            channel: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(identity)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.round, self.publisher, self.channel, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_known_by_every_byte() {
        let identities = (1..200).map(|number| Identity { round: 1, publisher: 2, channel: 3, number });
        for identity in identities {
            let (properties, body) = (identity.received_properties(), identity.body());
            assert_eq!(Identity::of(&properties, &body), Ok(identity));
            for place in [0, body.len() / 2, body.len().saturating_sub(1)] {
                let mut body = body.clone();
                let Some(byte) = body.get_mut(place) else { continue };
                *byte ^= 1;
                Identity::of(&properties, &body).unwrap_err();
            }
            Identity::of(&properties, &[body.as_slice(), &[0]].concat()).unwrap_err();
        }
    }

    #[test]
    fn every_route_kind_and_size_occurs() {
        let identities: Vec<Identity> =
            (1..2000).map(|number| Identity { round: 1, publisher: 1, channel: 1, number }).collect();
        for route in &ROUTES {
            assert!(identities.iter().any(|identity| identity.route().routing_key == route.routing_key));
        }
        assert!(identities.iter().any(|identity| !identity.is_persistent()));
        assert!(identities.iter().any(|identity| identity.body().is_empty()));
        assert!(identities.iter().any(|identity| identity.body().len() > 60_000));
    }
}
