//! Whether clients have sent anything of late, so that who looks at the broker many times a second need not while nothing happens.
//!
//! Saying that something came costs a connection one look at a flag for each read. It is a hint: what happens without a client (a delayed
//! message that is due, a publish over HTTP) says nothing, so whoever waits has a time after which he looks all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// See the module. There is one who waits.
#[derive(Debug, Default)]
pub struct Quiet {
    is_quiet: AtomicBool,
    noise: Notify,
}

impl Quiet {
    /// A client has sent something.
    #[inline]
    pub fn stir(&self) {
        if self.is_quiet.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        if self.is_quiet.swap(false, Ordering::Relaxed) {
            self.noise.notify_one();
        }
    }

    /// Waits until a client sends something, but not longer than this.
    pub async fn wait(&self, time: Duration) {
        self.is_quiet.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(time, self.noise.notified()).await;
        self.is_quiet.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_by_the_first_bytes_and_by_time() {
        let quiet = Arc::new(Quiet::default());
        let started = tokio::time::Instant::now();
        quiet.wait(Duration::from_secs(5)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        let waiting = tokio::spawn({
            let quiet = Arc::clone(&quiet);
            async move { quiet.wait(Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        quiet.stir();
        quiet.stir();
        waiting.await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(5), "no time has passed");
        // What was said to nobody wakes nobody later.
        quiet.stir();
        quiet.wait(Duration::from_secs(5)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }
}
