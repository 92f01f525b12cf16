//! Who owns a hash (weighted rendezvous hashing).
//!
//! Each destination draws a number from the hash and its own name; the highest draw owns the hash. A destination with
//! weight `w` draws as if it had `w` tries. From this follows all that is promised: shares are as the weights, whatever the
//! number of keys; a new destination takes keys from all others and moves none between them; one that goes leaves the
//! others' keys where they are; and the owner depends on the destinations that are bound now, not on the order in which
//! they came, so that a restart changes nothing.
//!
//! Buckets with a jump hash, which RabbitMQ has, cost less with many destinations; but a bucket that goes shifts those
//! behind it, and with them keys that had nothing to do with it.

use plugin_api::exchange::{BindingSlot, DestinationKind};
use plugin_api::hash;

/// See the module. Destinations of one weight stand together, since among them the highest draw can be told by comparing.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    classes: Vec<Class>,
    /// Every binding, also those that have no part in the ring.
    bindings: hash::Map<BindingSlot, Place>,
    /// The bindings of each destination, the one that counts first: a second one does not change the ring, as in RabbitMQ.
    of_destination: hash::Map<u64, Vec<BindingSlot>>,
}

#[derive(Debug)]
struct Class {
    weight: u32,
    /// What destinations draw with, and their binding; sorted, so that equal draws have one answer.
    members: Vec<(u64, BindingSlot)>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    seed: u64,
    weight: u32,
}

impl Ring {
    pub(crate) fn insert(&mut self, slot: BindingSlot, destination: (DestinationKind, &str), weight: u32) {
        self.remove(slot);
        let (kind, name) = destination;
        // A queue and an exchange of one name are two destinations.
        let seed = hash::mix(hash::stable(name.as_bytes()) ^ u64::from(kind == DestinationKind::Exchange));
        self.bindings.insert(slot, Place { seed, weight });
        let slots = self.of_destination.entry(seed).or_default();
        slots.push(slot);
        if slots.len() == 1 {
            self.join(slot, Place { seed, weight });
        }
    }

    pub(crate) fn remove(&mut self, slot: BindingSlot) {
        let Some(place) = self.bindings.remove(&slot) else { return };
        let Some(slots) = self.of_destination.get_mut(&place.seed) else { return };
        let was_first = slots.first() == Some(&slot);
        slots.retain(|other| *other != slot);
        let next = slots.first().copied();
        if next.is_none() {
            self.of_destination.remove(&place.seed);
        }
        if was_first {
            self.leave(slot, place);
            if let Some((next, place)) = next.and_then(|next| Some((next, *self.bindings.get(&next)?))) {
                self.join(next, place);
            }
        }
    }

    /// The binding that a hash belongs to.
    #[inline]
    pub(crate) fn owner(&self, hash: u64) -> Option<BindingSlot> {
        if let [class] = &*self.classes {
            return class.highest(hash).map(|(_, slot)| slot);
        }
        let draws = self.classes.iter().filter_map(|class| {
            let (draw, slot) = class.highest(hash)?;
            Some((lateness(draw) / f64::from(class.weight), slot))
        });
        draws.min_by(|one, two| one.0.total_cmp(&two.0)).map(|(_, slot)| slot)
    }

    fn join(&mut self, slot: BindingSlot, place: Place) {
        let index = match self.classes.binary_search_by_key(&place.weight, |class| class.weight) {
            Ok(index) => index,
            Err(index) => {
                self.classes.insert(index, Class { weight: place.weight, members: Vec::new() });
                index
            }
        };
        if let Some(class) = self.classes.get_mut(index) {
            let at = class.members.partition_point(|(seed, _)| *seed < place.seed);
            class.members.insert(at, (place.seed, slot));
        }
    }

    fn leave(&mut self, slot: BindingSlot, place: Place) {
        for class in &mut self.classes {
            class.members.retain(|(_, other)| class.weight != place.weight || *other != slot);
        }
        self.classes.retain(|class| !class.members.is_empty());
    }
}

impl Class {
    /// The highest draw, and whose it is.
    #[inline]
    fn highest(&self, hash: u64) -> Option<(u64, BindingSlot)> {
        let mut best = None;
        let mut highest = 0;
        for (seed, slot) in &self.members {
            let draw = hash::mix(seed ^ hash);
            if draw >= highest {
                (highest, best) = (draw, Some(*slot));
            }
        }
        Some((highest, best?))
    }
}

/// `-log2` of a draw as a number between 0 and 1: exponentially distributed, so that dividing it by a weight is as good as so many
/// draws. Written out, because the standard library's logarithm may differ between machines, and owners may not.
fn lateness(draw: u64) -> f64 {
    // In the middle between two numbers, so that it is never 0 nor 1.
    let scaled = (draw >> 12) as f64 + 0.5;
    let bits = scaled.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    // Between 0.7 and 1.4, so that nothing is lost by subtracting where a draw is close to 1.
    let (exponent, mantissa) =
        if mantissa > std::f64::consts::SQRT_2 { (exponent + 1, mantissa / 2.0) } else { (exponent, mantissa) };
    // ln(m) = 2 artanh((m - 1) / (m + 1)), whose series is below 10^-14 after these terms.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = (0..8).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    f64::from(52 - exponent) - 2.0 * s * series / std::f64::consts::LN_2
}

#[cfg(test)]
mod tests;
