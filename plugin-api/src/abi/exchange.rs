//! Exchange types: the table of functions, and the thunks that a plugin fills it with.

use std::ffi::c_void;

use super::guard::guard;
use super::raw::{RawBytes, TextSink, WORD};
use super::routes::RawRoutes;
use super::spec;
use crate::exchange::{BindingSlot, Exchange, ExchangeType, Routes};
use crate::message::{Message, Properties};

/// The functions of one exchange type. All may be called from any thread; `bind`, `unbind`, `policy_changed` and `close`
/// need the instance for themselves. Each answers a status and leaves a text in the sink unless it is done.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ExchangeTypeTable {
    pub(crate) size: u32,
    /// [`crate::exchange::DependsOn`] as a number; one that the host does not know counts as `State`.
    pub(crate) depends_on: u32,
    pub(crate) validate: unsafe extern "C" fn(handle: *mut c_void, spec: RawBytes, sink: *const TextSink) -> u32,
    pub(crate) validate_binding:
        unsafe extern "C" fn(handle: *mut c_void, spec: RawBytes, binding: RawBytes, sink: *const TextSink) -> u32,
    pub(crate) open: unsafe extern "C" fn(
        handle: *mut c_void,
        spec: RawBytes,
        instance: *mut *mut c_void,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) bind:
        unsafe extern "C" fn(instance: *mut c_void, slot: u32, binding: RawBytes, sink: *const TextSink) -> u32,
    pub(crate) unbind: unsafe extern "C" fn(instance: *mut c_void, slot: u32, sink: *const TextSink) -> u32,
    pub(crate) route: unsafe extern "C" fn(
        instance: *mut c_void,
        message: *const MessageView,
        routes: *mut RawRoutes,
        sink: *const TextSink,
    ) -> u32,
    pub(crate) policy_changed:
        unsafe extern "C" fn(instance: *mut c_void, policy: RawBytes, sink: *const TextSink) -> u32,
    pub(crate) close: unsafe extern "C" fn(instance: *mut c_void, sink: *const TextSink) -> u32,
}

const _: () = assert!(size_of::<ExchangeTypeTable>() == 8 + 8 * WORD);

impl ExchangeTypeTable {
    /// The table of a type whose handle is a `Box<dyn ExchangeType>` behind a pointer.
    pub(crate) fn new(depends_on: u32) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            depends_on,
            validate,
            validate_binding,
            open,
            bind,
            unbind,
            route,
            policy_changed,
            close,
        }
    }
}

/// One message, borrowed for the time of a route. Grows at its end only.
#[derive(Debug)]
#[repr(C)]
pub struct MessageView {
    size: usize,
    exchange: RawBytes,
    routing_key: RawBytes,
    properties: RawBytes,
    body: RawBytes,
}

const _: () = assert!(size_of::<MessageView>() == 9 * WORD);

impl MessageView {
    #[inline]
    pub(crate) const fn new(message: &Message<'_>) -> Self {
        Self {
            size: size_of::<Self>(),
            exchange: RawBytes::new(message.exchange.as_bytes()),
            routing_key: RawBytes::new(message.routing_key.as_bytes()),
            properties: RawBytes::new(message.properties.raw()),
            body: RawBytes::new(message.body),
        }
    }

    /// # Safety
    /// The host made this view from a message that lives for `'a`.
    #[inline]
    unsafe fn message<'a>(&self) -> Message<'a> {
        // SAFETY: the host made the view from a `Message`, so that names are UTF-8 and all of it lives for `'a`.
        unsafe {
            Message {
                exchange: std::str::from_utf8_unchecked(self.exchange.get()),
                routing_key: std::str::from_utf8_unchecked(self.routing_key.get()),
                properties: Properties::from_raw(self.properties.get()),
                body: self.body.get(),
            }
        }
    }
}

/// What stands behind the handle of a type and of an instance: a fat pointer, made thin by one more box.
pub(crate) type TypeHandle = Box<dyn ExchangeType>;
type Instance = Box<dyn Exchange>;

// SAFETY, for all thunks: the host calls them with a handle from this plugin's table or an instance that `open` made and
// `close` has not ended, with bytes that live until the call returns, and with the instance for itself where the thunk
// makes an exclusive reference, as the documentation of `ExchangeTypeTable` says.

unsafe extern "C" fn validate(handle: *mut c_void, bytes: RawBytes, sink: *const TextSink) -> u32 {
    // SAFETY: see above.
    unsafe { guard(sink, || exchange_type(handle).validate(&spec::decode_exchange(bytes.get())?)) }
}

unsafe extern "C" fn validate_binding(
    handle: *mut c_void,
    bytes: RawBytes,
    binding: RawBytes,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        guard(sink, || {
            let (spec, binding) = (spec::decode_exchange(bytes.get())?, spec::decode_binding(binding.get())?);
            exchange_type(handle).validate_binding(&spec, &binding)
        })
    }
}

unsafe extern "C" fn open(
    handle: *mut c_void,
    bytes: RawBytes,
    instance: *mut *mut c_void,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        guard(sink, || {
            let opened: Instance = exchange_type(handle).open(&spec::decode_exchange(bytes.get())?)?;
            *instance = Box::into_raw(Box::new(opened)).cast();
            Ok(())
        })
    }
}

unsafe extern "C" fn bind(instance: *mut c_void, slot: u32, binding: RawBytes, sink: *const TextSink) -> u32 {
    // SAFETY: see above.
    unsafe { guard(sink, || exchange_mut(instance).bind(BindingSlot(slot), &spec::decode_binding(binding.get())?)) }
}

unsafe extern "C" fn unbind(instance: *mut c_void, slot: u32, sink: *const TextSink) -> u32 {
    // SAFETY: see above.
    unsafe {
        guard(sink, || {
            exchange_mut(instance).unbind(BindingSlot(slot));
            Ok(())
        })
    }
}

unsafe extern "C" fn route(
    instance: *mut c_void,
    message: *const MessageView,
    routes: *mut RawRoutes,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above; the routes are the host's and for this call alone.
    unsafe {
        guard(sink, || {
            let exchange = &*instance.cast_const().cast::<Instance>();
            exchange.route(&(*message).message(), &mut Routes(&mut *routes));
            Ok(())
        })
    }
}

unsafe extern "C" fn policy_changed(instance: *mut c_void, policy: RawBytes, sink: *const TextSink) -> u32 {
    // SAFETY: see above.
    unsafe { guard(sink, || exchange_mut(instance).policy_changed(&spec::decode_table(policy.get())?)) }
}

unsafe extern "C" fn close(instance: *mut c_void, sink: *const TextSink) -> u32 {
    // SAFETY: see above; the host does not use the instance again.
    unsafe {
        guard(sink, || {
            drop(Box::from_raw(instance.cast::<Instance>()));
            Ok(())
        })
    }
}

unsafe fn exchange_type<'a>(handle: *mut c_void) -> &'a dyn ExchangeType {
    // SAFETY: `plugin` makes handles from boxes of this type and never frees them.
    unsafe { &**handle.cast_const().cast::<TypeHandle>() }
}

unsafe fn exchange_mut<'a>(instance: *mut c_void) -> &'a mut Instance {
    // SAFETY: `open` made the instance from a box of this type, and the caller has it for itself.
    unsafe { &mut *instance.cast::<Instance>() }
}
