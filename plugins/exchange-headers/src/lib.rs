//! The headers exchange type.
