//! Buffers for reading and writing, shared by the connections of a thread.
//!
//! A connection borrows a buffer for the turn in which it needs one, so that ten thousand idle connections hold none.

use std::cell::RefCell;

/// What one read can bring.
pub const READ_BYTES: usize = 256 * 1024;
/// Capacity of a new write buffer.
const WRITE_BYTES: usize = 64 * 1024;
/// A write buffer that grew beyond this is not kept.
const WRITE_KEEP_BYTES_MAX: usize = 1024 * 1024;
/// So many write buffers are kept per thread.
const WRITE_KEEP_COUNT: usize = 16;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's read buffer.
pub fn with_read<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    READ.with_borrow_mut(|buffer| {
        if buffer.is_empty() {
            buffer.resize(READ_BYTES, 0);
        }
        work(buffer)
    })
}

/// An empty buffer to encode into.
pub fn take_write() -> Vec<u8> {
    WRITE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(WRITE_BYTES))
}

/// Gives it back.
pub fn give_write(mut buffer: Vec<u8>) {
    if buffer.capacity() > WRITE_KEEP_BYTES_MAX {
        return;
    }
    buffer.clear();
    WRITE.with_borrow_mut(|kept| {
        if kept.len() < WRITE_KEEP_COUNT {
            kept.push(buffer);
        }
    });
}
