//! The fanout exchange type.
