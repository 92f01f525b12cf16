//! Storage in memory.
