//! Auth backends: the table of functions, and the thunks that a plugin fills it with.
//!
//! A question crosses as a field table and so does its answer, so that both may grow without a new ABI. The future of a
//! question is polled by the host as those of storages are.

use std::ffi::c_void;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::guard::{guard, panic_text};
use super::question::{Question, encode_answer};
use super::raw::{RawBytes, TextSink, WORD, status};
use super::runtime;
use super::storage::ended;
use super::waker::RawHostWaker;
use crate::auth::{AuthBackend, AuthError, AuthSpec, AuthType};
use crate::config::Config;
use crate::error::Invalid;

/// The functions of one kind of auth backend and of its backends. All may be called from any thread; `close` needs the
/// backend for itself, `poll` and `drop_future` the future.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AuthTypeTable {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
    /// `base` is the folder that relative paths begin at.
    pub(crate) open: unsafe extern "C" fn(
        handle: *mut c_void,
        config: RawBytes,
        base: RawBytes,
        has_base: u32,
        instance: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    /// The question is copied before this returns.
    pub(crate) ask: unsafe extern "C" fn(
        instance: *mut c_void,
        question: RawBytes,
        future: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    /// Moves a future on. Answers `PENDING` after keeping the waker, or how it ended: `DONE` with the answer as a field
    /// table in `answer`, `FAILED` with a text in `sink`. It is not polled again then.
    pub(crate) poll: unsafe extern "C" fn(
        future: *mut c_void,
        waker: *const RawHostWaker,
        answer: *const TextSink,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) drop_future: unsafe extern "C" fn(future: *mut c_void, sink: *const TextSink) -> u32,
    pub(crate) close: unsafe extern "C" fn(instance: *mut c_void, sink: *const TextSink) -> u32,
}

const _: () = assert!(size_of::<AuthTypeTable>() == 8 + 5 * WORD);

impl AuthTypeTable {
    /// The table of a type whose handle is a `Box<dyn AuthType>` behind a pointer.
    pub(crate) const fn new() -> Self {
        Self { size: size_of::<Self>() as u32, reserved: 0, open, ask, poll, drop_future, close }
    }
}

/// What stands behind the handle of a type and of an instance: a fat pointer, made thin by one more box.
pub(crate) type TypeHandle = Box<dyn AuthType>;
type Instance = Arc<dyn AuthBackend>;

/// What stands behind the pointer to a future. It keeps its backend alive.
type PluginFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>, AuthError>> + Send>>;

// SAFETY, for all thunks: the host calls them with a handle from this plugin's table, an instance that `open` made and
// `close` has not ended, or a future that `ask` made and `drop_future` has not ended. Arguments live until the call returns.

unsafe extern "C" fn open(
    handle: *mut c_void,
    config: RawBytes,
    base: RawBytes,
    has_base: u32,
    instance: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        guard(sink, || {
            let _entered = runtime::enter();
            let config = serde_json::from_slice(config.get())
                .map_err(|error| Invalid::new(format!("the broker's config is no JSON: {error}")))?;
            let base = (has_base != 0).then(|| super::storage::path(base.get()));
            let spec = AuthSpec { config: Config::new(config), base };
            let opened: Instance = (*handle.cast_const().cast::<TypeHandle>()).open(&spec)?;
            *instance = Box::into_raw(Box::new(opened)).cast();
            Ok(())
        })
    }
}

unsafe extern "C" fn ask(
    instance: *mut c_void,
    question: RawBytes,
    future: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        guard(sink, || {
            let _entered = runtime::enter();
            let question = Question::decode(question.get())?;
            let backend = Arc::clone(&*instance.cast_const().cast::<Instance>());
            let made: PluginFuture = Box::pin(async move { Ok(encode_answer(&question.put_to(&*backend).await?)) });
            *future = Box::into_raw(Box::new(made)).cast();
            Ok(())
        })
    }
}

unsafe extern "C" fn poll(
    future: *mut c_void,
    waker: *const RawHostWaker,
    answer: *const TextSink,
    sink: *const TextSink,
) -> u32 {
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _entered = runtime::enter();
        // SAFETY: see above; the future is ours alone, the waker lives until this returns.
        let (future, waker) = unsafe { (&mut *future.cast::<PluginFuture>(), RawHostWaker::borrow(&waker)) };
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => ended::PENDING,
            Poll::Ready(Ok(bytes)) => {
                // SAFETY: the sink of answers is the host's and lives until this returns.
                unsafe { TextSink::give(answer, &bytes) };
                status::DONE
            }
            Poll::Ready(Err(error)) => {
                // SAFETY: the sink is the host's and lives until this returns.
                unsafe { TextSink::tell(sink, &error.text) };
                ended::FAILED
            }
        }
    }));
    polled.unwrap_or_else(|payload| {
        // SAFETY: as above.
        unsafe { TextSink::tell(sink, &panic_text(payload)) };
        status::PANICKED
    })
}

unsafe extern "C" fn drop_future(future: *mut c_void, sink: *const TextSink) -> u32 {
    // SAFETY: see above; the host does not use the future again.
    unsafe {
        guard(sink, || {
            let _entered = runtime::enter();
            drop(Box::from_raw(future.cast::<PluginFuture>()));
            Ok(())
        })
    }
}

unsafe extern "C" fn close(instance: *mut c_void, sink: *const TextSink) -> u32 {
    // SAFETY: see above; the host does not use the instance again.
    unsafe {
        guard(sink, || {
            let _entered = runtime::enter();
            drop(Box::from_raw(instance.cast::<Instance>()));
            Ok(())
        })
    }
}
