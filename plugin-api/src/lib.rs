//! The contract between the broker and its plugins.
