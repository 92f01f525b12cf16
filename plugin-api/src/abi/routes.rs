//! Where a route leaves its slots: memory of the host, written by the plugin.

use std::ffi::c_void;

use super::raw::{RawBytes, WORD};
use crate::exchange::{BindingSlot, Hold, Keep, Wish};

/// A vector that the host owns and the plugin appends to. A push is a store; when there is no room the plugin calls
/// `grow`, which runs in the host, so that one allocator does it all.
#[derive(Debug)]
#[repr(C)]
pub struct RawRoutes {
    pub(crate) slots: *mut u32,
    pub(crate) count: usize,
    pub(crate) capacity: usize,
    pub(crate) context: *mut c_void,
    /// Makes room for so many more; 0 if it cannot.
    pub(crate) grow: unsafe extern "C" fn(routes: *mut Self, additional: usize) -> u32,
    /// 1 when slots were lost for want of room.
    pub(crate) overflowed: u32,
    pub(crate) reserved: u32,
    pub(crate) wish: *mut c_void,
    /// Since 2.1: puts the message off. Properties without bytes mean that it keeps its own.
    pub(crate) hold: unsafe extern "C" fn(wish: *mut c_void, delay_ms: u64, properties: RawBytes),
    /// Since 2.2: has the message kept over a restart.
    pub(crate) keep: unsafe extern "C" fn(wish: *mut c_void, count_max: u64, bytes_max: u64),
}

const _: () = assert!(size_of::<RawRoutes>() == 8 * WORD + 8);

/// What came of a route.
pub(crate) struct Routed<R> {
    /// What the call itself answered.
    pub(crate) result: R,
    /// Whether all slots found room.
    pub(crate) is_whole: bool,
    /// What it wants beside; the slots of a message that was put off are gone.
    pub(crate) wish: Option<Wish>,
}

impl RawRoutes {
    /// Runs `route` with routes that are appended to `out`.
    #[inline]
    pub(crate) fn append_to<R>(out: &mut Vec<u32>, route: impl FnOnce(&mut Self) -> R) -> Routed<R> {
        let vector: *mut Vec<u32> = out;
        let mut wish = None;
        // SAFETY: `vector` was made from a reference that nobody else uses until this function ends.
        let (slots, count, capacity) = unsafe { ((*vector).as_mut_ptr(), (*vector).len(), (*vector).capacity()) };
        let mut raw = Self {
            slots,
            count,
            capacity,
            context: vector.cast(),
            grow: grow_vector,
            overflowed: 0,
            reserved: 0,
            wish: (&raw mut wish).cast(),
            hold: note_hold,
            keep: note_keep,
        };
        let result = route(&mut raw);
        let is_whole = raw.overflowed == 0 && raw.count <= raw.capacity && raw.count >= count;
        if is_whole && !matches!(wish, Some(Wish::Hold(_))) {
            // SAFETY: `count` is within the capacity, and whoever counted a slot has written it before: the plugin is
            // trusted to keep to `push` and `extend` below, which do.
            unsafe { (*vector).set_len(raw.count) };
        } else {
            out.truncate(count);
        }
        Routed { result, is_whole, wish }
    }

    pub(crate) fn hold(&mut self, delay_ms: u64, properties: Option<&[u8]>) {
        // SAFETY: the host gave `hold` and `wish` as a pair, for the time of this route.
        unsafe { (self.hold)(self.wish, delay_ms, RawBytes::new(properties.unwrap_or_default())) };
    }

    pub(crate) fn keep(&mut self, count_max: u64, bytes_max: u64) {
        // SAFETY: as above.
        unsafe { (self.keep)(self.wish, count_max, bytes_max) };
    }

    #[inline]
    pub(crate) fn push(&mut self, slot: u32) {
        if self.count == self.capacity && !self.reserve(1) {
            return;
        }
        // SAFETY: `count` is less than `capacity`, up to which the host has given the memory at `slots`.
        unsafe { self.slots.add(self.count).write(slot) };
        self.count += 1;
    }

    #[inline]
    pub(crate) fn extend(&mut self, slots: &[BindingSlot]) {
        if self.capacity - self.count < slots.len() && !self.reserve(slots.len()) {
            return;
        }
        // SAFETY: there is room for `slots.len()` more behind `count`, see above; a `BindingSlot` is a transparent u32,
        // and the plugin's slice cannot overlap the host's vector.
        unsafe { slots.as_ptr().cast::<u32>().copy_to_nonoverlapping(self.slots.add(self.count), slots.len()) };
        self.count += slots.len();
    }

    #[cold]
    fn reserve(&mut self, additional: usize) -> bool {
        // SAFETY: the host gave `grow` for this very structure.
        let has_room = unsafe { (self.grow)(self, additional) } != 0 && self.capacity - self.count >= additional;
        self.overflowed |= u32::from(!has_room);
        has_room
    }
}

/// [`RawRoutes::grow`] of routes that stand on a vector.
unsafe extern "C" fn grow_vector(routes: *mut RawRoutes, additional: usize) -> u32 {
    // SAFETY: only `RawRoutes::append_to` gives out this function, together with a context that is its vector; both
    // live until the route has ended, and the plugin calls this from within the route.
    let (routes, vector) = unsafe { (&mut *routes, &mut *(*routes).context.cast::<Vec<u32>>()) };
    if routes.count > vector.capacity() {
        return 0;
    }
    // SAFETY: `count` slots have been written (see `append_to`), and the reservation below must move them along.
    unsafe { vector.set_len(routes.count) };
    let has_room = vector.try_reserve(additional).is_ok();
    routes.slots = vector.as_mut_ptr();
    routes.capacity = vector.capacity();
    u32::from(has_room)
}

/// [`RawRoutes::hold`] of routes that stand on a vector. A time of 0 is taken for the shortest.
unsafe extern "C" fn note_hold(wish: *mut c_void, delay_ms: u64, properties: RawBytes) {
    // SAFETY: only `RawRoutes::append_to` gives out this function, together with its own place for a wish, which lives until
    // the route has ended; the bytes are the plugin's for the time of this call.
    let (wish, properties) = unsafe { (&mut *wish.cast::<Option<Wish>>(), properties.get()) };
    let properties = if properties.is_empty() { None } else { Some(properties.to_vec()) };
    *wish = Some(Wish::Hold(Hold { delay_ms: delay_ms.max(1), properties }));
}

/// [`RawRoutes::keep`] of routes that stand on a vector.
unsafe extern "C" fn note_keep(wish: *mut c_void, count_max: u64, bytes_max: u64) {
    // SAFETY: as of `note_hold`.
    let wish = unsafe { &mut *wish.cast::<Option<Wish>>() };
    if !matches!(wish, Some(Wish::Hold(_))) {
        *wish = Some(Wish::Keep(Keep { count_max, bytes_max }));
    }
}

#[cfg(test)]
mod tests {
    use crate::exchange::{BindingSlot, Hold, Keep, Routes, Wish};
    use crate::message::PropertiesBuf;

    #[test]
    fn routes_are_appended_and_grow() {
        let mut out = vec![9];
        let slots: Vec<BindingSlot> = (0..1000).map(BindingSlot).collect();
        Routes::append_to(&mut out, |routes| {
            routes.extend(&[]);
            slots.iter().for_each(|slot| routes.push(*slot));
            routes.extend(&slots);
        });
        let expected: Vec<u32> = [9].into_iter().chain(0..1000).chain(0..1000).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn impossible_growth_is_noticed() {
        let mut out = Vec::new();
        let routed = super::RawRoutes::append_to(&mut out, |raw| raw.reserve(usize::MAX));
        assert_eq!((routed.result, routed.is_whole, out.len()), (false, false, 0));
    }

    #[test]
    fn held_message_takes_no_binding() {
        let mut out = vec![9];
        let properties = PropertiesBuf { priority: Some(1), ..PropertiesBuf::default() };
        let ((), wish) = Routes::append_to(&mut out, |routes| {
            routes.push(BindingSlot(1));
            routes.hold(0, None);
            routes.hold(5, Some(&properties));
            routes.keep(1, 1);
            (0..100).for_each(|slot| routes.push(BindingSlot(slot)));
        });
        assert_eq!(wish, Some(Wish::Hold(Hold { delay_ms: 5, properties: Some(properties.encode()) })));
        assert_eq!(out, [9]);
        let ((), wish) = Routes::append_to(&mut out, |routes| routes.hold(0, None));
        assert_eq!(wish, Some(Wish::Hold(Hold { delay_ms: 1, properties: None })));
    }

    #[test]
    fn kept_message_takes_its_bindings() {
        let mut out = vec![9];
        let ((), wish) = Routes::append_to(&mut out, |routes| {
            routes.keep(20, 1000);
            routes.push(BindingSlot(1));
        });
        assert_eq!(wish, Some(Wish::Keep(Keep { count_max: 20, bytes_max: 1000 })));
        assert_eq!(out, [9, 1]);
    }
}
