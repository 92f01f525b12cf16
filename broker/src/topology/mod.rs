//! The declared topology: plain typed data.
//!
//! Nothing here knows YAML, files or positions in them.

pub mod schema;
