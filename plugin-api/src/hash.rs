//! Maps for keys that peers choose, and a hash that never changes.
//!
//! A route hashes words of a routing key for every message, so the hash must be fast, and it must be keyed, so that nobody
//! can choose binding keys that collide. Where a hash decides which queue a key belongs to it must be the same in every run, every
//! build and on every machine: that is [`stable`].

/// A hash map with a fast keyed hash.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A hash set with a fast keyed hash.
pub type Set<K> = std::collections::HashSet<K, foldhash::fast::RandomState>;

/// A hash of `bytes` that is the same everywhere and for ever, well spread over all 64 bits. Not keyed: whoever chooses the bytes
/// can choose what they hash to.
#[must_use]
pub fn stable(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    // The length tells a text from the same with zero bytes behind it.
    let mut state = mix(bytes.len() as u64);
    for word in words {
        state = mix(state ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    mix(state ^ u64::from_le_bytes(last))
}

/// Spreads every bit of a number over all others, and no two numbers to one (the finalizer of splitmix64).
#[inline]
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here moves keys to other queues in every broker that is updated.
    #[test]
    fn stable_hash_stays_what_it_is() {
        let hashes = [&b""[..], b"a", b"a\0", b"12345678", b"order.eu.created"].map(stable);
        let expected = [
            0xa706_dd2f_4d19_7e6f,
            0x5e02_5f9a_de9e_af3e,
            0xede5_3420_98bc_f0d6,
            0x92df_3520_c5d0_0ece,
            0xeb22_a484_affd_dd81,
        ];
        assert_eq!(hashes, expected, "{hashes:#x?}");
    }

    #[test]
    fn stable_hash_spreads_over_every_bit() {
        let mut ones = [0_u32; 64];
        for number in 0..10_000_u32 {
            let hash = stable(number.to_string().as_bytes());
            ones.iter_mut().enumerate().for_each(|(bit, count)| *count += (hash >> bit & 1) as u32);
        }
        assert!(ones.iter().all(|count| (4_700..5_300).contains(count)), "{ones:?}");
    }
}
