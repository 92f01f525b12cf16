//! The contract between the broker and its plugins, and what it takes to write one: exchange types ([`exchange::ExchangeType`]), storages
//! ([`storage::StorageType`]) and auth backends ([`auth::AuthBackend`]), each named by [`export_plugin!`]. [`testing`] has the suites that any
//! implementation should pass. Everything under [`abi`] is what really crosses between the two, and of no interest to authors.
//!
//! The readme of this crate goes through an example of each kind, which are compiled and run as tests:
//!
#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod abi;
pub mod auth;
pub mod blocking;
pub mod config;
pub mod error;
pub mod exchange;
pub mod hash;
pub mod host;
pub mod message;
mod plugin;
pub mod slots;
pub mod storage;
pub mod testing;
pub mod value;

pub use async_trait::async_trait;
pub use plugin::Plugin;
pub use {serde, serde_json};
