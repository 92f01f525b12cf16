//! One thread of the generator: some connections, driven by epoll, never asleep while there is something to do.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::consumer::{Arrivals, Consumer, latencies};
use super::error::BenchError;
use super::ledger::Faults;
use super::link::Link;
use super::publisher::Publisher;

/// More than the largest frame that is agreed on, twice.
const READ_BYTES: usize = 256 * 1024;
/// Longest sleep, after which a thread looks whether it is to end.
const SLEEP_MAX_NANOS: u64 = 10_000_000;
/// The number of the timer among those of connections.
const TIMER: u64 = u64::MAX;
/// Longest sleep while another thread may make room for messages.
const ROOM_NANOS: u64 = 100_000;

/// What all threads know of each other.
#[derive(Debug)]
pub(super) struct Shared {
    start: Instant,
    pub(super) published: AtomicU64,
    pub(super) delivered: AtomicU64,
    /// Nanoseconds since the start when the last publisher was done.
    pub(super) publish_end: AtomicU64,
    /// Nanoseconds since the start when something came last.
    pub(super) last_delivery: AtomicU64,
    pub(super) publishers_left: AtomicU64,
    /// No message is begun any more.
    pub(super) stop_publishing: AtomicBool,
    pub(super) stop: AtomicBool,
    /// At most so many deliveries may be under way; 0 is no limit.
    inflight: u64,
    /// Queues that each message goes to.
    copies: u64,
}

impl Shared {
    pub(super) fn new(publishers: u64, inflight: u64, copies: u64) -> Self {
        Self {
            start: Instant::now(),
            published: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            publish_end: AtomicU64::new(0),
            last_delivery: AtomicU64::new(0),
            publishers_left: AtomicU64::new(publishers),
            stop_publishing: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            inflight,
            copies,
        }
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        // 584 years fit.
        self.start.elapsed().as_nanos() as u64
    }

    /// Messages that may leave now.
    fn allowed(&self) -> u64 {
        if self.inflight == 0 {
            return u64::MAX;
        }
        let under_way = (self.published.load(Relaxed) * self.copies).saturating_sub(self.delivered.load(Relaxed));
        self.inflight.saturating_sub(under_way).div_ceil(self.copies)
    }
}

/// See the module.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) publishers: Vec<(Link, Publisher)>,
    pub(super) consumers: Vec<(Link, Consumer)>,
    /// The queues of these consumers.
    pub(super) arrivals: Vec<Arrivals>,
    pub(super) figures: Figures,
    /// Of the publishers, which have been counted as done.
    pub(super) done: Vec<bool>,
}

/// Times that threads take; none of them unless they are asked for.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// From when a message was meant to leave until it came.
    pub(super) delivery: Option<Histogram<u64>>,
    /// From when a message was meant to leave until it was confirmed.
    pub(super) confirm: Option<Histogram<u64>>,
    /// By how much messages left later than meant.
    pub(super) late: Option<Histogram<u64>>,
}

impl Figures {
    pub(super) fn taken() -> Self {
        Self { delivery: latencies(), confirm: latencies(), late: latencies() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        let pairs =
            [(&mut self.delivery, &other.delivery), (&mut self.confirm, &other.confirm), (&mut self.late, &other.late)];
        for (all, one) in pairs {
            if let (Some(all), Some(one)) = (all, one) {
                // All have the same bounds, so nothing is left out.
                let _ = all.add(one);
            }
        }
    }
}

/// What a thread found.
pub(super) struct Found {
    pub(super) arrivals: Vec<Arrivals>,
    pub(super) figures: Figures,
    /// By the numbers of publishers.
    pub(super) sent: Vec<(u16, Vec<u64>)>,
    pub(super) faults: Faults,
    pub(super) was_blocked: bool,
}

impl Worker {
    /// Runs until it is told to stop, and says goodbye.
    pub(super) fn run(mut self) -> Result<Found, BenchError> {
        let system =
            |error: rustix::io::Errno| BenchError::System(format!("the generator cannot wait for sockets: {error}"));
        // Without it a sleep takes 50 us longer than asked for. Where it cannot be set, the figure 'late' shows it.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        let links = self.publishers.iter().map(|(link, _)| link).chain(self.consumers.iter().map(|(link, _)| link));
        for (place, link) in links.enumerate() {
            let flags =
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
            epoll::add(&poll, link, epoll::EventData::new_u64(place as u64), flags).map_err(system)?;
        }
        // Whoever waits for sockets sleeps whole milliseconds; older kernels know no other way.
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).map_err(system)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&poll, &timer, epoll::EventData::new_u64(TIMER), flags).map_err(system)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut events = Vec::with_capacity(256);
        while !self.shared.stop.load(Relaxed) {
            self.turn(&mut buffer)?;
            let sleep = self.sleep_nanos();
            let mut timeout = Timespec { tv_sec: 0, tv_nsec: sleep as _ };
            if 0 < sleep && sleep < SLEEP_MAX_NANOS {
                let once = Itimerspec { it_interval: Timespec::default(), it_value: timeout };
                timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once).map_err(system)?;
                timeout.tv_nsec = SLEEP_MAX_NANOS as _;
            }
            events.clear();
            match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(system(error)),
            }
            for event in &events {
                let place = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                let consumer = place.checked_sub(self.publishers.len());
                let link = match consumer {
                    None => self.publishers.get_mut(place).map(|(link, _)| link),
                    Some(place) => self.consumers.get_mut(place).map(|(link, _)| link),
                };
                let (flags, out) = (event.flags, epoll::EventFlags::OUT);
                if let Some(link) = link {
                    link.is_writable |= flags.contains(out);
                    link.is_readable |= flags != out;
                }
            }
        }
        self.end()
    }

    /// One read and one write of each connection that can.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<(), BenchError> {
        let Self { shared, publishers, consumers, arrivals, figures, done } = self;
        for ((link, publisher), is_done) in publishers.iter_mut().zip(done) {
            if link.is_readable {
                let mut input = link.read(buffer)?;
                publisher.on_bytes(&mut input, link.frame_max, shared.now(), figures.confirm.as_mut())?;
                link.keep(input);
            }
            if link.is_flushed() && !*is_done {
                if shared.stop_publishing.load(Relaxed) {
                    publisher.is_ended = true;
                }
                let count = publisher.fill(&mut link.out, shared.now(), shared.allowed(), figures.late.as_mut());
                shared.published.fetch_add(count, Relaxed);
            }
            link.write()?;
            if !*is_done && link.is_flushed() && publisher.is_done() {
                *is_done = true;
                shared.publish_end.fetch_max(shared.now(), Relaxed);
                shared.publishers_left.fetch_sub(1, Relaxed);
            }
        }
        for (link, consumer) in consumers {
            if link.is_readable
                && let Some(arrivals) = arrivals.get_mut(consumer.queue)
            {
                let mut input = link.read(buffer)?;
                let (now, before) = (shared.now(), arrivals.count);
                consumer.on_bytes(&mut input, &mut link.out, now, arrivals, figures.delivery.as_mut())?;
                link.keep(input);
                if arrivals.count > before {
                    shared.delivered.fetch_add(arrivals.count - before, Relaxed);
                    shared.last_delivery.fetch_max(now, Relaxed);
                }
            }
            link.write()?;
        }
        Ok(())
    }

    /// How long nothing can be done but wait for sockets.
    fn sleep_nanos(&self) -> u64 {
        let (now, allowed) = (self.shared.now(), self.shared.allowed());
        let mut sleep = SLEEP_MAX_NANOS;
        if self.consumers.iter().any(|(link, _)| link.is_readable) {
            return 0;
        }
        for (link, publisher) in &self.publishers {
            if link.is_readable {
                return 0;
            }
            if link.is_flushed() && allowed > 0 && publisher.may_send(now) {
                return 0;
            }
            if !link.is_flushed() {
                continue;
            }
            if allowed == 0 && !publisher.is_ended {
                sleep = sleep.min(ROOM_NANOS);
            } else if let Some(next_at) = publisher.next_at() {
                sleep = sleep.min(next_at.saturating_sub(now));
            }
        }
        sleep
    }

    fn end(mut self) -> Result<Found, BenchError> {
        let (mut faults, mut sent, mut was_blocked) = (Faults::default(), Vec::new(), false);
        for (link, publisher) in self.publishers {
            faults.add(&publisher.judge());
            was_blocked |= publisher.was_blocked;
            sent.push((publisher.number(), publisher.sent));
            link.close()?;
        }
        for (link, consumer) in &mut self.consumers {
            consumer.ack_rest(&mut link.out);
        }
        for (link, _) in self.consumers {
            link.close()?;
        }
        Ok(Found { arrivals: self.arrivals, figures: self.figures, sent, faults, was_blocked })
    }
}
