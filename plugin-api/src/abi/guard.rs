//! No panic leaves the plugin it happened in.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use super::host;
use super::raw::{TextSink, status};
use crate::error::Invalid;
use crate::host::Level;

/// Runs `call` and turns a refusal or a panic into a status and a text.
///
/// # Safety
/// `sink` is null or the host's sink of this call.
#[inline]
pub(crate) unsafe fn guard(sink: *const TextSink, call: impl FnOnce() -> Result<(), Invalid>) -> u32 {
    // What a panic leaves behind is the host's business: it stops asking an instance whose state may be broken.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => status::DONE,
        Ok(Err(invalid)) => {
            // SAFETY: as this function's caller says.
            unsafe { tell(sink, &invalid.text) };
            status::REFUSED
        }
        Err(payload) => {
            // SAFETY: as this function's caller says.
            unsafe { tell(sink, &panic_text(payload)) };
            status::PANICKED
        }
    }
}

unsafe fn tell(sink: *const TextSink, text: &str) {
    // SAFETY: as this function's caller says.
    unsafe { TextSink::tell(sink, text) };
}

#[cold]
pub(crate) fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = LAST_PANIC.with_borrow_mut(Option::take).unwrap_or_else(|| payload_text(&*payload).to_owned());
    // A payload may itself panic when it is dropped.
    if catch_unwind(AssertUnwindSafe(|| drop(payload))).is_err() {
        host::log(Level::Error, "plugin", "the payload of a panic panicked when it was dropped");
    }
    text
}

fn payload_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panicked without a text")
}

thread_local! {
    /// What the hook below saw of the panic that is on its way to `guard`.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// In a plugin that was loaded from a file the standard library is its own, and so is its panic hook. It tells the host's
/// log, also about panics in threads that the plugin started itself.
pub(crate) fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(on_panic)));
}

fn on_panic(info: &PanicHookInfo<'_>) {
    let text = payload_text(info.payload());
    let text = match info.location() {
        Some(location) => format!("{text} (at {location})"),
        None => text.to_owned(),
    };
    host::log(Level::Error, "panic", &text);
    LAST_PANIC.with_borrow_mut(|last| *last = Some(text));
}
