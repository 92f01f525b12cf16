//! The smallest things that cross: bytes in, text out, and how a call ended.

use std::ffi::c_void;

/// The size of a pointer, for the assertions on layouts.
pub(crate) const WORD: usize = size_of::<usize>();

/// Borrowed bytes, valid until the call returns.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawBytes {
    pub(crate) start: *const u8,
    pub(crate) length: usize,
}

const _: () = assert!(size_of::<RawBytes>() == 2 * WORD);

impl RawBytes {
    #[inline]
    pub(crate) const fn new(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr(), length: bytes.len() }
    }

    /// # Safety
    /// These bytes were made by the other side from a slice that lives for `'a`.
    #[inline]
    pub(crate) const unsafe fn get<'a>(self) -> &'a [u8] {
        if self.start.is_null() {
            return &[];
        }
        // SAFETY: the caller says that this is a slice of the other side.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

/// Where a call leaves a text: a callback of the host, which copies.
#[derive(Debug)]
#[repr(C)]
pub struct TextSink {
    pub(crate) context: *mut c_void,
    pub(crate) write: unsafe extern "C" fn(context: *mut c_void, text: RawBytes),
}

const _: () = assert!(size_of::<TextSink>() == 2 * WORD);

impl TextSink {
    /// A sink that appends to `out`, up to [`TEXT_BYTES_MAX`].
    pub(crate) const fn new(out: &mut Vec<u8>) -> Self {
        Self { context: std::ptr::from_mut(out).cast(), write: append_text }
    }

    /// Writes to a sink, if there is one.
    ///
    /// # Safety
    /// `sink` is null or the host's sink of this call.
    pub(crate) unsafe fn tell(sink: *const Self, text: &str) {
        // SAFETY: the sink is the host's and lives until the call returns, or there is none.
        if let Some(sink) = unsafe { sink.as_ref() } {
            sink.write(text);
        }
    }

    /// A sink that takes an answer, up to [`ANSWER_BYTES_MAX`].
    pub(crate) const fn of_answer(out: &mut Vec<u8>) -> Self {
        Self { context: std::ptr::from_mut(out).cast(), write: append_answer }
    }

    /// Gives an answer to a sink, if there is one.
    ///
    /// # Safety
    /// As for [`Self::tell`].
    pub(crate) unsafe fn give(sink: *const Self, bytes: &[u8]) {
        // SAFETY: as in `tell`; function and context are a pair.
        unsafe {
            if let Some(sink) = sink.as_ref() {
                (sink.write)(sink.context, RawBytes::new(bytes));
            }
        }
    }

    pub(crate) fn write(&self, text: &str) {
        // SAFETY: `write` and `context` come from the host as a pair, and the sink does not outlive the call.
        unsafe { (self.write)(self.context, RawBytes::new(text.as_bytes())) };
    }
}

unsafe extern "C" fn append_text(context: *mut c_void, text: RawBytes) {
    // SAFETY: `TextSink::new` made the context from a vector that outlives the sink, and the text is the plugin's for
    // the time of this call.
    unsafe { append(context, text, TEXT_BYTES_MAX) };
}

unsafe extern "C" fn append_answer(context: *mut c_void, answer: RawBytes) {
    // SAFETY: as in `append_text`.
    unsafe { append(context, answer, ANSWER_BYTES_MAX) };
}

unsafe fn append(context: *mut c_void, bytes: RawBytes, bytes_max: usize) {
    // SAFETY: as in `append_text`.
    let (out, bytes) = unsafe { (&mut *context.cast::<Vec<u8>>(), bytes.get()) };
    let room = bytes_max.saturating_sub(out.len());
    out.extend(bytes.iter().take(room));
}

/// The longest text a plugin may answer with. Clients see at most 255 bytes of it; the rest is for logs.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// The longest answer of an auth backend; what is cut off is no answer, and so a refusal.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How a call ended; anything else counts as a defect of the plugin.
pub(crate) mod status {
    /// Done.
    pub(crate) const DONE: u32 = 0;
    /// Refused; the text says why.
    pub(crate) const REFUSED: u32 = 1;
    /// Panicked; the text says how.
    pub(crate) const PANICKED: u32 = 2;
}
