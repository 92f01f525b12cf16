//! Accidents to a whole broker, and what clients may expect after them: `kill -9`, power cuts, full and failing disks.
//!
//! The program `crash` runs these by command; `tests/run crash` runs a few rounds of each. A broker is a process here and is
//! spoken to by AMQP alone, so nothing depends on how it stores what it stores. [`workload`] and [`definitions`] keep it busy
//! and remember what they were told, [`rounds`], [`full_disk`] and [`sync_error`] do the damage, [`inspect`] looks at what is
//! there afterwards and [`ledger`] judges. Moments are random and differ from run to run; what is done follows from the seed.

pub mod client;
pub mod definitions;
pub mod full_disk;
pub mod inspect;
pub mod lab;
pub mod ledger;
pub mod message;
pub mod rounds;
pub mod sync_error;
pub mod volume;
pub mod workload;
