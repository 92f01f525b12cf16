//! The contract between the broker and its plugins.

#![warn(missing_docs)]

pub mod message;
pub mod value;
