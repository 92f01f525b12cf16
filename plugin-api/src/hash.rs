//! Maps for keys that peers choose.
//!
//! A route hashes words of a routing key for every message, so the hash must be fast, and it must be keyed, so that nobody
//! can choose binding keys that collide.

/// A hash map with a fast keyed hash.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A hash set with a fast keyed hash.
pub type Set<K> = std::collections::HashSet<K, foldhash::fast::RandomState>;
