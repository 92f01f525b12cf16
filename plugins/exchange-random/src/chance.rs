//! Chance for whoever routes: each thread has a generator of its own, so that publishers do not wait for each other.
//!
//! Good for spreading load, and for nothing that is secret.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use plugin_api::hash::mix;

thread_local! {
    /// Where this thread stands in the sequence of splitmix64. It begins where the operating system's randomness says.
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
}

/// One of `choices`, each as likely as the others.
pub(crate) fn pick<T>(choices: &[T]) -> Option<&T> {
    if choices.len() < 2 {
        return choices.first();
    }
    let number = STATE.with(|state| {
        let number = mix(state.get());
        state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        number
    });
    // The high half of the product is below the length. With so many more numbers than choices none is favoured noticeably.
    let index = (u128::from(number) * choices.len() as u128) >> 64;
    choices.get(index as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_draw_different_sequences() {
        let draw = || {
            let choices: Vec<u32> = (0..1000).collect();
            (0..20).filter_map(|_| pick(&choices).copied()).collect::<Vec<u32>>()
        };
        let (one, two) = (std::thread::spawn(draw).join().unwrap(), draw());
        assert_eq!((one.len(), two.len()), (20, 20));
        assert_ne!(one, two);
    }
}
