//! Plugins: which files may be loaded, what they offer, and how they fare.
//!
//! A file is inspected before any of it runs ([`inspect`]), opened by [`loader`] (the only unsafe code here) and asked for
//! what it offers. Built-in plugins ([`builtin`]) take the same way from their entry on. [`Registry`] holds the result by
//! name. Calls go through [`ExchangeTypeHandle`] and [`ExchangeInstance`], which count panics and stop asking what panics
//! again and again. [`lifecycle`] has the states from the start to the stop. What an exchange is and where its bindings lead is no business of this module.

mod auth;
pub mod builtin;
mod calls;
mod error;
mod exchange;
pub mod inspect;
mod layers;
mod lifecycle;
mod loader;
mod log;
mod register;
mod status;
mod storage;
mod times;

pub use auth::{AuthCounts, AuthInstance, FAULTS_MAX, Isolation, QUESTIONS_MAX, REST};
pub use error::LoadError;
pub use exchange::{ExchangeInstance, ExchangeTypeHandle, PANICS_MAX, TypeError};
pub use layers::{ExchangeLayers, ExchangeTypes};
pub use lifecycle::{STORAGE_STUCK_AFTER, STUCK_AFTER, Stage};
pub use register::{AuthWanted, LoadRequest, Loaded, Registry};
pub use status::{PluginState, PluginStatus};
pub use times::{ROUTE_TIME_BOUNDS, ROUTES_PER_TIMED_ROUTE, RouteTimesRead};

#[cfg(test)]
mod tests;
