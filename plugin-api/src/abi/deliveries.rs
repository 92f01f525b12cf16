//! Where an exchange leaves messages for a new binding: a callback of the host, which copies.

use std::ffi::c_void;

use super::exchange::MessageView;
use super::guest::unwinds_not;
use super::raw::WORD;
use crate::message::Message;

/// A place for messages, for the time of one call.
#[derive(Debug)]
#[repr(C)]
pub struct RawDeliveries {
    pub(crate) context: *mut c_void,
    pub(crate) push: unsafe extern "C" fn(context: *mut c_void, message: *const MessageView),
}

const _: () = assert!(size_of::<RawDeliveries>() == 2 * WORD);

/// What the context points to.
type Each<'a> = &'a mut dyn FnMut(&Message<'_>);

impl RawDeliveries {
    /// Runs `bound` with deliveries that go to `each`.
    pub(crate) fn pass_to<R>(mut each: Each<'_>, bound: impl FnOnce(&Self) -> R) -> R {
        bound(&Self { context: (&raw mut each).cast(), push: push_to })
    }

    pub(crate) fn push(&self, message: &Message<'_>) {
        let view = MessageView::new(message);
        // SAFETY: `push` and `context` come from the host as a pair for this call; the view outlives the push.
        unsafe { (self.push)(self.context, &raw const view) };
    }
}

unsafe extern "C" fn push_to(context: *mut c_void, message: *const MessageView) {
    // SAFETY: `pass_to` made the context, which outlives the call that it runs. The exchange has the deliveries for itself,
    // by `&mut`, so that no two pushes meet. The message is the plugin's for the time of this call.
    let (each, message) = unsafe { (&mut *context.cast::<Each<'_>>(), (*message).checked_message()) };
    if let Some(message) = message {
        unwinds_not(|| each(&message));
    }
}

#[cfg(test)]
mod tests {
    use crate::exchange::Deliveries;
    use crate::message::{Message, Properties};

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let mut keys = Vec::new();
        let mut each = |message: &Message<'_>| {
            keys.push((message.routing_key.to_owned(), message.body.to_vec(), message.properties.raw().to_vec()));
        };
        Deliveries::pass_to(&mut each, |deliveries| {
            deliveries.push(&Message { body: b"x", ..Message::with_key("a") });
            deliveries.push(&Message { properties: Properties::from_raw(b"\x10\x00\x02"), ..Message::with_key("b") });
        });
        let expected =
            [("a".to_owned(), b"x".to_vec(), b"\0\0".to_vec()), ("b".to_owned(), Vec::new(), b"\x10\x00\x02".to_vec())];
        assert_eq!(keys, expected);
    }
}
