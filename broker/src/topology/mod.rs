//! The declared topology: plain typed data, and what can be checked about it before anything runs.
//!
//! Nothing here knows YAML, files or positions in them: `config` reads the file into [`schema::Topology`] and gives the
//! findings of [`check`] their places. The reference of every key of the file is `README.md` beside this module.

pub mod apply;
pub mod check;
pub mod definitions;
pub mod names;
pub mod plan;
pub mod render;
pub mod schema;
pub mod scratch;
pub mod settings;
pub mod snapshot;
