//! A connection's two pipes: bytes that one side has written arrive at the other when the network delivers them, split and joined at
//! random, late, or not at all.
//!
//! The broker's end is a stream as its connection task wants one. The client's end is plain calls.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use plugin_api::testing::Random;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::meddler::Meddler;

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToBroker,
    ToClient,
}

/// How a connection's network behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// The most bytes that one delivery brings.
    pub(crate) chunk_max: u32,
    /// Bytes that may be on their way to the client before the broker's writes wait.
    pub(crate) window_bytes: usize,
}

#[derive(Default)]
struct Pipe {
    in_flight: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// Nothing comes after what is in flight.
    is_closed: bool,
    /// Nothing moves before this time, in milliseconds.
    stalled_until_ms: u64,
}

impl Pipe {
    fn len(&self) -> usize {
        self.in_flight.len() + self.arrived.len()
    }

    fn forget(&mut self) {
        self.in_flight.clear();
        self.arrived.clear();
        self.is_closed = true;
    }
}

/// See the module.
pub(crate) struct Link {
    habits: Habits,
    random: Random,
    to_broker: Pipe,
    to_client: Pipe,
    /// Bytes vanish without a word.
    is_silent: bool,
    is_reset: bool,
    broker_reads: Option<Waker>,
    broker_writes: Option<Waker>,
    meddler: Option<Meddler>,
}

/// What the client finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Bytes(Vec<u8>),
    Nothing,
    /// The broker will send nothing any more.
    End,
}

impl Link {
    pub(crate) fn new(habits: Habits, random: Random, meddler: Option<Meddler>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            habits,
            random,
            to_broker: Pipe::default(),
            to_client: Pipe::default(),
            is_silent: false,
            is_reset: false,
            broker_reads: None,
            broker_writes: None,
            meddler,
        }))
    }

    /// The client's side writes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if self.is_reset || self.to_broker.is_closed {
            return;
        }
        match &mut self.meddler {
            Some(meddler) => self.to_broker.in_flight.extend(meddler.pass(Direction::ToBroker, bytes)),
            None => self.to_broker.in_flight.extend(bytes),
        }
    }

    /// The client's side reads.
    pub(crate) fn receive(&mut self) -> Arrived {
        if !self.to_client.arrived.is_empty() {
            self.wake_writer();
            return Arrived::Bytes(self.to_client.arrived.drain(..).collect());
        }
        let is_over = self.is_reset || self.to_client.is_closed && self.to_client.in_flight.is_empty();
        if is_over && !self.is_silent { Arrived::End } else { Arrived::Nothing }
    }

    /// Whether [`Self::receive`] has something to say.
    pub(crate) fn has_news(&self) -> bool {
        let is_over = self.is_reset || self.to_client.is_closed && self.to_client.in_flight.is_empty();
        !self.to_client.arrived.is_empty() || is_over && !self.is_silent
    }

    /// Bytes that the client has written and the broker has not read.
    pub(crate) fn unread_bytes(&self) -> usize {
        self.to_broker.len()
    }

    /// Whether nothing is on its way in either direction.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_silent || self.to_broker.len() == 0 && self.to_client.len() == 0
    }

    /// The client is gone, and its system says so behind what was sent.
    pub(crate) fn close(&mut self) {
        self.to_broker.is_closed = true;
        self.wake_reader();
    }

    /// The connection breaks: both sides find out, and what was on its way is lost.
    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        self.to_broker.forget();
        self.to_client.forget();
        self.wake_reader();
        self.wake_writer();
    }

    /// The client's machine is gone, or the way to it: nobody is told.
    pub(crate) fn silence(&mut self) {
        self.is_silent = true;
    }

    /// Whether it has been silenced.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Nothing moves for a while.
    pub(crate) fn stall(&mut self, direction: Direction, until_ms: u64) {
        self.pipe_mut(direction).stalled_until_ms = until_ms;
    }

    /// When a stalled direction goes on, if something waits in it.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let waits = |pipe: &Pipe| (!pipe.in_flight.is_empty()).then_some(pipe.stalled_until_ms);
        if self.is_silent {
            return None;
        }
        [waits(&self.to_broker), waits(&self.to_client)].into_iter().flatten().min()
    }

    /// Whether the network has something to deliver.
    pub(crate) fn can_deliver(&self, direction: Direction, now_ms: u64) -> bool {
        let pipe = self.pipe(direction);
        let has_room = direction == Direction::ToClient || pipe.arrived.len() < ARRIVED_BYTES_MAX;
        !self.is_silent && !pipe.in_flight.is_empty() && pipe.stalled_until_ms <= now_ms && has_room
    }

    /// Delivers some bytes, and returns how many.
    pub(crate) fn deliver(&mut self, direction: Direction) -> usize {
        let bytes = 1 + self.random.below(self.habits.chunk_max) as usize;
        let pipe = self.pipe_mut(direction);
        let bytes = bytes.min(pipe.in_flight.len());
        pipe.arrived.extend(pipe.in_flight.drain(..bytes));
        if direction == Direction::ToBroker {
            self.wake_reader();
        }
        bytes
    }

    fn pipe(&self, direction: Direction) -> &Pipe {
        match direction {
            Direction::ToBroker => &self.to_broker,
            Direction::ToClient => &self.to_client,
        }
    }

    fn pipe_mut(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::ToBroker => &mut self.to_broker,
            Direction::ToClient => &mut self.to_client,
        }
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.broker_reads.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.broker_writes.take() {
            waker.wake();
        }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let room = self.habits.window_bytes.saturating_sub(self.to_client.len()).min(offered);
        if room == 0 {
            return Ok(0);
        }
        // A system may take less than it has room for.
        let taken = if self.random.below(4) == 0 { 1 + self.random.below(room as u32) as usize } else { room };
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).take(taken.min(room));
        match &mut self.meddler {
            Some(meddler) => {
                let bytes: Vec<u8> = bytes.collect();
                self.to_client.in_flight.extend(meddler.pass(Direction::ToClient, &bytes));
                Ok(bytes.len())
            }
            None => {
                let before = self.to_client.in_flight.len();
                self.to_client.in_flight.extend(bytes);
                Ok(self.to_client.in_flight.len() - before)
            }
        }
    }
}

/// The broker's end.
pub(crate) struct BrokerEnd(pub(crate) Rc<RefCell<Link>>);

impl AsyncRead for BrokerEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut link = self.0.borrow_mut();
        if link.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let pipe = &mut link.to_broker;
        if pipe.arrived.is_empty() {
            if pipe.is_closed && pipe.in_flight.is_empty() {
                return Poll::Ready(Ok(()));
            }
            link.broker_reads = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = pipe.arrived.len().min(buffer.remaining());
        let (front, back) = pipe.arrived.as_slices();
        let in_front = count.min(front.len());
        buffer.put_slice(&front[..in_front]);
        buffer.put_slice(&back[..count - in_front]);
        pipe.arrived.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BrokerEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut link = self.0.borrow_mut();
        match link.write(slices) {
            Ok(0) if slices.iter().any(|slice| !slice.is_empty()) => {
                link.broker_writes = Some(cx.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().to_client.is_closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for BrokerEnd {
    fn drop(&mut self) {
        let mut link = self.0.borrow_mut();
        if link.to_broker.len() > 0 && !link.is_reset {
            // A socket that is closed with unread input is reset, and the reset may overtake what was sent.
            let in_flight = link.to_client.in_flight.len() as u32;
            let keeps = link.random.below(in_flight + 1) as usize;
            link.to_client.in_flight.truncate(keeps);
        }
        link.to_client.is_closed = true;
        link.to_broker.forget();
    }
}

/// What a system keeps for a broker that does not read.
const ARRIVED_BYTES_MAX: usize = 64 * 1024;
