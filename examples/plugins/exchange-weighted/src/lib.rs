//! The `x-weighted` exchange type: each message takes one binding, and each binding gets its share by its weight.
//! Shares are dealt out evenly and not by chance: of any hundred messages a binding with a weight of 5 in 100 takes about five.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::error::Invalid;
use plugin_api::exchange::{
    AskedPer, BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes,
};
use plugin_api::message::Message;
use plugin_api::value::Table;

/// The type, as registered.
pub struct Weighted;

impl ExchangeType for Weighted {
    fn name(&self) -> &str {
        "x-weighted"
    }

    fn description(&self) -> &str {
        "routes to one binding, by weight"
    }

    // The same message may go elsewhere the next time, so nothing may be remembered.
    fn depends_on(&self) -> DependsOn {
        DependsOn::State
    }

    // A message with several keys (CC, BCC) takes one binding all the same.
    fn asked_per(&self) -> AskedPer {
        AskedPer::Message
    }

    fn validate_binding(&self, _spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), Invalid> {
        weight(&binding.arguments).map(|_| ())
    }

    fn open(&self, _spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(WeightedExchange::default()))
    }
}

/// One exchange.
#[derive(Default)]
struct WeightedExchange {
    /// Each binding with the sum of all weights up to its own.
    shares: Vec<(BindingSlot, u64)>,
    /// Messages so far. Publishers on several threads route at once, so it must not need `&mut self`.
    count: AtomicU64,
}

impl Exchange for WeightedExchange {
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
        let weight = weight(&binding.arguments)?;
        self.shares.push((slot, self.total() + weight));
        Ok(())
    }

    fn unbind(&mut self, slot: BindingSlot) {
        let mut before = 0;
        let mut removed = 0;
        self.shares.retain_mut(|(other, upto)| {
            let weight = *upto - before;
            before = *upto;
            if *other == slot {
                removed += weight;
                return false;
            }
            *upto -= removed;
            true
        });
    }

    fn route(&self, _message: &Message<'_>, routes: &mut Routes<'_>) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        // Multiples of the golden ratio fall evenly into an interval, wherever one begins to count.
        let place = count.wrapping_mul(GOLDEN_RATIO);
        // A point from 0 to the total: the upper half of the product of 64 bits each.
        let point = (u128::from(place) * u128::from(self.total())) >> 64;
        let index = self.shares.partition_point(|(_, upto)| u128::from(*upto) <= point);
        if let Some((slot, _)) = self.shares.get(index) {
            routes.push(*slot);
        }
    }
}

impl WeightedExchange {
    fn total(&self) -> u64 {
        self.shares.last().map_or(0, |(_, upto)| *upto)
    }
}

fn weight(arguments: &Table) -> Result<u64, Invalid> {
    let Some(value) = arguments.get("weight") else { return Ok(1) };
    let weight = value.as_i64().and_then(|weight| u64::try_from(weight).ok()).filter(|weight| *weight <= WEIGHT_MAX);
    weight.ok_or_else(|| {
        Invalid::new(format!(
            "argument 'weight' of a binding to x-weighted must be a whole number from 0 to {WEIGHT_MAX}"
        ))
    })
}

/// 2^64 divided by the golden ratio.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// So that no sum of weights passes 64 bits.
const WEIGHT_MAX: u64 = 1_000_000;

plugin_api::export_plugin!(exchange_types: [Weighted]);

#[cfg(test)]
mod tests {
    use plugin_api::testing::routes;

    use super::*;

    fn binding(weight: i64) -> BindingSpec {
        BindingSpec { arguments: Table::new().with("weight", weight), ..BindingSpec::to_queue("q", "") }
    }

    fn exchange(weights: &[i64]) -> Box<dyn Exchange> {
        let mut exchange = Weighted.open(&ExchangeSpec::default()).unwrap();
        for (slot, weight) in (0..).zip(weights) {
            exchange.bind(BindingSlot(slot), &binding(*weight)).unwrap();
        }
        exchange
    }

    fn counts(exchange: &dyn Exchange, slots: usize, messages: u32) -> Vec<u32> {
        let mut counts = vec![0; slots];
        for _ in 0..messages {
            let taken = routes(exchange, &Message::with_key("any"));
            assert_eq!(taken.len(), 1, "a message takes exactly one binding");
            counts[taken[0] as usize] += 1;
        }
        counts
    }

    #[test]
    fn each_binding_gets_its_share_of_any_hundred_messages() {
        let exchange = exchange(&[95, 0, 5]);
        for _ in 0..50 {
            let counts = counts(&*exchange, 3, 100);
            assert!((93..=97).contains(&counts[0]) && counts[1] == 0 && (3..=7).contains(&counts[2]), "{counts:?}");
        }
    }

    #[test]
    fn weight_is_one_where_none_is_given() {
        let mut exchange = exchange(&[3]);
        exchange.bind(BindingSlot(1), &BindingSpec::to_queue("q", "")).unwrap();
        let counts = counts(&*exchange, 2, 4000);
        assert!((2990..=3010).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn share_of_a_binding_that_goes_is_shared_out() {
        let mut exchange = exchange(&[10, 20, 30]);
        exchange.unbind(BindingSlot(1));
        let left = counts(&*exchange, 3, 4000);
        assert!(left[1] == 0 && (990..=1010).contains(&left[0]), "{left:?}");
        exchange.unbind(BindingSlot(0));
        assert_eq!(counts(&*exchange, 3, 10), [0, 0, 10]);
        exchange.unbind(BindingSlot(2));
        assert!(routes(&*exchange, &Message::with_key("any")).is_empty());
    }

    #[test]
    fn nobody_gets_anything_when_all_weights_are_nothing() {
        assert!(routes(&*exchange(&[0, 0]), &Message::with_key("any")).is_empty());
    }

    #[test]
    fn wrong_weight_is_refused_with_a_reason() {
        for weight in [-1, 1_000_001] {
            let refused = Weighted.validate_binding(&ExchangeSpec::default(), &binding(weight)).unwrap_err();
            let expected = "argument 'weight' of a binding to x-weighted must be a whole number from 0 to 1000000";
            assert_eq!(refused.text, expected);
        }
        let text = BindingSpec { arguments: Table::new().with("weight", "5"), ..BindingSpec::to_queue("q", "") };
        assert!(Weighted.validate_binding(&ExchangeSpec::default(), &text).is_err());
    }
}
