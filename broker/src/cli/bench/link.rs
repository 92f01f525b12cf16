//! A connection's socket among many: it never blocks, and remembers what is left of a read or of a write.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use super::client::Client;
use super::error::{BenchError, lost_connection};
use super::target::Stream;

/// See the module.
pub(super) struct Link {
    stream: Stream,
    pub(super) frame_max: u32,
    /// The front of a frame that has not come whole.
    rest: Vec<u8>,
    pub(super) out: Vec<u8>,
    written: usize,
    /// Bytes may wait in the socket.
    pub(super) is_readable: bool,
    /// The socket may take bytes.
    pub(super) is_writable: bool,
    /// TLS holds bytes that the socket has not taken.
    must_flush: bool,
}

impl Link {
    pub(super) fn new(client: Client) -> Result<Self, BenchError> {
        let Client { stream, input, frame_max } = client;
        stream.set_nonblocking(true).map_err(|error| lost_connection(&error))?;
        let (out, written, must_flush) = (Vec::new(), 0, false);
        Ok(Self { stream, frame_max, rest: input, out, written, is_readable: true, is_writable: true, must_flush })
    }

    /// Reads once, behind what was left, and gives everything that there is; nothing if nothing has come.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b [u8], BenchError> {
        let kept = self.rest.len();
        // A buffer holds more than the largest frame.
        let Some((front, room)) = buffer.split_at_mut_checked(kept) else {
            return Err(BenchError::Foreign("the broker sends frames that are larger than agreed".into()));
        };
        match self.stream.read(room) {
            Ok(0) => Err(BenchError::Foreign("the broker has closed a connection without a word".into())),
            Ok(count) => {
                self.is_readable = count == room.len() || !self.stream.short_read_is_last();
                front.copy_from_slice(&self.rest);
                self.rest.clear();
                Ok(buffer.get(..kept + count).unwrap_or_default())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(&[])
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(lost_connection(&error)),
        }
    }

    /// Keeps what was not a whole frame.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.rest.extend_from_slice(rest);
    }

    /// Whether everything has been written.
    pub(super) fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.must_flush
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self) -> Result<(), BenchError> {
        while self.is_writable && !self.is_flushed() {
            let result = match self.out.get(self.written..).filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => self.stream.write(bytes).map(|count| self.written += count),
                None => self.stream.flush().map(|()| self.must_flush = false),
            };
            match result {
                Ok(()) if self.written > 0 && self.written == self.out.len() => {
                    self.out.clear();
                    self.written = 0;
                    self.must_flush = matches!(self.stream, Stream::Tls(_));
                }
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost_connection(&error)),
            }
        }
        Ok(())
    }

    /// Says goodbye, which also waits until the broker has heard everything. One that does not listen any more is left alone.
    pub(super) fn close(mut self) -> Result<(), BenchError> {
        if self.written > 0 || self.stream.set_nonblocking(false).is_err() {
            return Ok(());
        }
        self.is_writable = true;
        self.write()?;
        Client { stream: self.stream, input: self.rest, frame_max: self.frame_max }.close()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
