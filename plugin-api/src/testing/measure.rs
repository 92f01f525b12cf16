//! A stopwatch for benches of plugins.

use std::time::Instant;

/// Nanoseconds a call: the best of many short rounds of `calls` calls, since everything that disturbs a round makes it
/// slower. `call` is given the number of the call.
pub fn nanos_per_call(calls: u32, mut call: impl FnMut(u32)) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(&mut call);
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls.max(1))
        })
        .fold(f64::INFINITY, f64::min)
}

/// So many that some run undisturbed on a busy machine.
const ROUNDS: u32 = 300;
