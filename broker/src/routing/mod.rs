//! From an exchange and a message to queues.
//!
//! An exchange's type (a plugin) says which bindings a message takes; everything else stands here: the bindings themselves, exchanges
//! bound to exchanges, alternate exchanges, the default exchange, `CC` and `BCC`, and that a queue gets a message once (semantics 11).
//! Nothing here publishes: the walk only collects queues.

pub mod exchange;
pub mod explain;
pub mod walk;

pub use exchange::{Destination, Exchange};
pub use walk::{Route, Tables, route};
