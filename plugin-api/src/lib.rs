//! The contract between the broker and its plugins.

#![warn(missing_docs)]

pub mod abi;
pub mod auth;
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
