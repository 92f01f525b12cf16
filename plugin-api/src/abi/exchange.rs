//! Exchange types: the table of functions, and the thunks that a plugin fills it with.

use std::ffi::c_void;

use super::deliveries::RawDeliveries;
use super::guard::guard;
use super::raw::{RawBytes, TextSink, WORD, status};
use super::routes::RawRoutes;
use super::spec;
use crate::exchange::{BindingSlot, Deliveries, Exchange, ExchangeType, Routes};
use crate::message::{Message, Properties};

/// The functions of one exchange type. All may be called from any thread; `restore`, `bind`, `bound`, `unbind`, `policy_changed`
/// and `close` need the instance for themselves. Each answers a status and leaves a text in the sink unless it is done.
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
    /// Since 2.1, as all below. [`crate::exchange::AskedPer`] as a number; what the host does not know counts as `Key`.
    pub(crate) asked_per: u32,
    /// Since 2.5; 0 before. [`crate::exchange::Takes`] as a number; what the host does not know counts as `AllQueues`.
    pub(crate) takes: u32,
    /// As `depends_on`, for one exchange.
    pub(crate) depends_on_for:
        unsafe extern "C" fn(handle: *mut c_void, spec: RawBytes, depends_on: *mut u32, sink: *const TextSink) -> u32,
    /// Leaves the name of a type in `name`, or nothing.
    pub(crate) inner:
        unsafe extern "C" fn(handle: *mut c_void, spec: RawBytes, name: *const TextSink, sink: *const TextSink) -> u32,
    pub(crate) bound: unsafe extern "C" fn(
        instance: *mut c_void,
        slot: u32,
        deliveries: *const RawDeliveries,
        sink: *const TextSink,
    ) -> u32,
    /// Since 2.2.
    pub(crate) restore:
        unsafe extern "C" fn(instance: *mut c_void, message: *const MessageView, sink: *const TextSink) -> u32,
}

const _: () = assert!(size_of::<ExchangeTypeTable>() == 16 + 12 * WORD);

/// The length of a table of ABI 2.0, which is the shortest that a host takes.
const TABLE_BYTES_MIN: usize = 8 + 8 * WORD;

impl ExchangeTypeTable {
    /// The table of a type whose handle is a `Box<dyn ExchangeType>` behind a pointer.
    pub(crate) fn new(depends_on: u32, asked_per: u32, takes: u32) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            depends_on,
            asked_per,
            takes,
            validate,
            validate_binding,
            open,
            bind,
            unbind,
            route,
            policy_changed,
            close,
            depends_on_for,
            inner,
            bound,
            restore,
        }
    }

    /// Copies the table of a plugin, which may be of an older ABI and shorter: what it lacks does nothing.
    ///
    /// # Safety
    /// `table` is null or the table of an exchange type, which is as long as it says.
    pub(crate) unsafe fn copied(table: *const Self) -> Option<Self> {
        // SAFETY: every table begins with its size.
        if table.is_null() || unsafe { (*table).size as usize } < TABLE_BYTES_MIN {
            return None;
        }
        let mut copy = Self {
            depends_on_for: as_the_type,
            inner: no_inner,
            bound: no_bound,
            restore: no_restore,
            ..Self::new(0, 0, 0)
        };
        // SAFETY: so many bytes are there; what they hold is a prefix of the host's structure, which is plain data.
        unsafe {
            let length = ((*table).size as usize).min(size_of::<Self>());
            table.cast::<u8>().copy_to_nonoverlapping((&raw mut copy).cast(), length);
        }
        Some(copy)
    }
}

unsafe extern "C" fn as_the_type(_: *mut c_void, _: RawBytes, _: *mut u32, _: *const TextSink) -> u32 {
    status::DONE
}

unsafe extern "C" fn no_inner(_: *mut c_void, _: RawBytes, _: *const TextSink, _: *const TextSink) -> u32 {
    status::DONE
}

unsafe extern "C" fn no_restore(_: *mut c_void, _: *const MessageView, _: *const TextSink) -> u32 {
    status::DONE
}

unsafe extern "C" fn no_bound(_: *mut c_void, _: u32, _: *const RawDeliveries, _: *const TextSink) -> u32 {
    status::DONE
}

/// One message, borrowed for the time of a route. Grows at its end only.
#[derive(Debug)]
#[repr(C)]
pub struct MessageView {
    pub(crate) size: usize,
    pub(crate) exchange: RawBytes,
    pub(crate) routing_key: RawBytes,
    pub(crate) properties: RawBytes,
    pub(crate) body: RawBytes,
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

    /// The message of a view that a plugin made; none if its names are no text.
    ///
    /// # Safety
    /// The plugin's slices live for `'a`.
    pub(crate) unsafe fn checked_message<'a>(&self) -> Option<Message<'a>> {
        // SAFETY: as this function's caller says.
        unsafe {
            Some(Message {
                exchange: std::str::from_utf8(self.exchange.get()).ok()?,
                routing_key: std::str::from_utf8(self.routing_key.get()).ok()?,
                properties: Properties::from_raw(self.properties.get()),
                body: self.body.get(),
            })
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

unsafe extern "C" fn depends_on_for(
    handle: *mut c_void,
    bytes: RawBytes,
    depends_on: *mut u32,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above; the number is the host's.
    unsafe {
        guard(sink, || {
            *depends_on = exchange_type(handle).depends_on_for(&spec::decode_exchange(bytes.get())?) as u32;
            Ok(())
        })
    }
}

unsafe extern "C" fn inner(handle: *mut c_void, bytes: RawBytes, name: *const TextSink, sink: *const TextSink) -> u32 {
    // SAFETY: see above; the sink for the name is the host's, too.
    unsafe {
        guard(sink, || {
            if let Some(inner) = exchange_type(handle).inner(&spec::decode_exchange(bytes.get())?)? {
                TextSink::tell(name, &inner);
            }
            Ok(())
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

unsafe extern "C" fn bound(
    instance: *mut c_void,
    slot: u32,
    deliveries: *const RawDeliveries,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: see above; the deliveries are the host's and for this call alone.
    unsafe {
        guard(sink, || {
            exchange_mut(instance).bound(BindingSlot(slot), &mut Deliveries(&*deliveries));
            Ok(())
        })
    }
}

unsafe extern "C" fn restore(instance: *mut c_void, message: *const MessageView, sink: *const TextSink) -> u32 {
    // SAFETY: see above; the message is the host's and for this call alone.
    unsafe {
        guard(sink, || {
            exchange_mut(instance).restore(&(*message).message());
            Ok(())
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_an_older_abi_is_taken_and_what_it_lacks_does_nothing() {
        let mut table = ExchangeTypeTable::new(2, 1, 1);
        table.size = TABLE_BYTES_MIN as u32;
        // SAFETY: the table is longer than it says.
        let copied = unsafe { ExchangeTypeTable::copied(&raw const table) }.unwrap();
        assert_eq!((copied.depends_on, copied.asked_per, copied.takes), (2, 0, 0));
        let mut name = Vec::new();
        let (sink, null) = (TextSink::new(&mut name), std::ptr::null_mut());
        // SAFETY: what stands in for a function that is missing looks at nothing.
        let ended = unsafe {
            let inner = (copied.inner)(null, RawBytes::new(&[]), &raw const sink, std::ptr::null());
            (inner, (copied.bound)(null, 0, std::ptr::null(), std::ptr::null()))
        };
        assert_eq!((ended, name.is_empty()), ((status::DONE, status::DONE), true));
    }

    #[test]
    fn table_that_is_too_short_is_refused() {
        let mut table = ExchangeTypeTable::new(0, 0, 0);
        table.size = TABLE_BYTES_MIN as u32 - 1;
        // SAFETY: the table is longer than it says.
        assert!(unsafe { ExchangeTypeTable::copied(&raw const table) }.is_none());
    }
}
