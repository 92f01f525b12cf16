//! Signs of life in both directions (semantics 5.8 to 5.11).

use std::time::{Duration, Instant};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing was sent for half the interval: send a heartbeat.
    Send,
    /// Nothing came for two intervals: the peer is gone.
    PeerGone,
}

/// The clocks of one connection.
#[derive(Debug)]
pub struct Heartbeat {
    interval: Option<Duration>,
    last_received: Instant,
    last_sent: Instant,
    is_deaf: bool,
}

impl Heartbeat {
    /// Off, until tune-ok names an interval.
    pub fn off(now: Instant) -> Self {
        Self { interval: None, last_received: now, last_sent: now, is_deaf: false }
    }

    /// The client's value counts, 0 switches off (semantics 5.8).
    pub fn start(&mut self, now: Instant, interval_secs: u16) {
        self.interval = (interval_secs > 0).then(|| Duration::from_secs(u64::from(interval_secs)));
        self.last_received = now;
        self.last_sent = now;
    }

    /// Bytes have arrived: any byte counts.
    pub fn on_received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// While the socket is left unread on purpose, its silence means nothing (semantics 5.11).
    pub fn set_deaf(&mut self, now: Instant, is_deaf: bool) {
        self.is_deaf = is_deaf;
        self.last_received = now;
    }

    /// Bytes have been written.
    pub fn on_sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// When to ask [`Self::due`] again.
    pub fn deadline(&self) -> Option<Instant> {
        let interval = self.interval?;
        let send = self.last_sent + interval / 2;
        Some(if self.is_deaf { send } else { send.min(self.last_received + interval * 2) })
    }

    /// What is due at `now`.
    pub fn due(&self, now: Instant) -> Option<Due> {
        let interval = self.interval?;
        if !self.is_deaf && now >= self.last_received + interval * 2 {
            Some(Due::PeerGone)
        } else {
            (now >= self.last_sent + interval / 2).then_some(Due::Send)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_after_half_and_gives_up_after_two_intervals() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::off(start);
        assert_eq!(heartbeat.deadline(), None);
        heartbeat.start(start, 10);
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(heartbeat.deadline(), Some(at(5)));
        assert_eq!(heartbeat.due(at(4)), None);
        assert_eq!(heartbeat.due(at(5)), Some(Due::Send));
        heartbeat.on_sent(at(18));
        assert_eq!(heartbeat.deadline(), Some(at(20)));
        assert_eq!(heartbeat.due(at(19)), None);
        assert_eq!(heartbeat.due(at(20)), Some(Due::PeerGone));
        heartbeat.on_received(at(19));
        assert_eq!(heartbeat.due(at(20)), None);
        heartbeat.set_deaf(at(20), true);
        assert_eq!((heartbeat.deadline(), heartbeat.due(at(100))), (Some(at(23)), Some(Due::Send)));
        heartbeat.set_deaf(at(100), false);
        heartbeat.on_sent(at(119));
        assert_eq!((heartbeat.due(at(119)), heartbeat.due(at(120))), (None, Some(Due::PeerGone)));
    }
}
