//! The contract between the broker and its plugins.
//!
//! A plugin implements a trait ([`exchange::ExchangeType`] today) and says so with [`export_plugin!`]. The readme of this
//! crate goes through it with an example; [`testing`] has the suites that any implementation should pass. Everything under
//! [`abi`] is what really crosses between the two, and of no interest to authors.

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

/// The example in the readme is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
