//! What is promised: one file for each promise. An oracle sees every event and the facts as they are after it.

mod attempts;
mod confirms;
mod conservation;
mod deaths;
mod holes;
mod length;
mod loss;
mod once;
mod order;
mod prefetch;
mod priority;
mod redelivered;
mod served;
mod single_active;
mod transactions;
mod ttl;

use crate::facts::{DeliveryId, Facts};
use crate::history::Event;

/// One promise.
pub(crate) trait Oracle {
    /// The name of its file.
    fn name(&self) -> &'static str;

    /// Judges what has happened.
    ///
    /// # Errors
    /// How the promise was broken.
    fn judge(&mut self, facts: &Facts, event: &Event) -> Result<(), String>;
}

/// All of them, at the start of a run.
pub(crate) fn all() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(attempts::Attempts::default()),
        Box::new(confirms::Confirms::default()),
        Box::new(conservation::Conservation),
        Box::new(deaths::Deaths),
        Box::new(holes::Holes),
        Box::new(length::Length),
        Box::new(loss::Loss),
        Box::new(once::Once::default()),
        Box::new(order::Order::default()),
        Box::new(prefetch::Prefetch::default()),
        Box::new(priority::Priority::default()),
        Box::new(redelivered::Redelivered),
        Box::new(served::Served::default()),
        Box::new(single_active::SingleActive::default()),
        Box::new(transactions::Transactions),
        Box::new(ttl::Ttl::default()),
    ]
}

/// Follows what is drained: starts `drained` anew or ends it, and says which delivery an event is.
fn delivered_while<T: Default>(drained: &mut Option<T>, event: &Event) -> Option<DeliveryId> {
    match event {
        Event::Draining => *drained = Some(T::default()),
        Event::Drained => *drained = None,
        Event::Delivered(id) => return Some(*id),
        _ => {}
    }
    None
}
