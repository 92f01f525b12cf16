//! Wakers across the boundary: a table of the host's functions, and a standard waker that the plugin makes of it.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::guest::unwinds_not;
use super::raw::WORD;

/// A waker of the host. One that is handed to `poll` is borrowed; `clone` makes one that is owned.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawHostWaker {
    pub(crate) data: *mut c_void,
    pub(crate) clone: unsafe extern "C" fn(data: *mut c_void) -> Self,
    pub(crate) wake: unsafe extern "C" fn(data: *mut c_void),
    pub(crate) drop: unsafe extern "C" fn(data: *mut c_void),
}

const _: () = assert!(size_of::<RawHostWaker>() == 4 * WORD);

// The host's side.

impl RawHostWaker {
    /// Lends a waker for one call.
    pub(crate) const fn lend(waker: &Waker) -> Self {
        Self { data: std::ptr::from_ref(waker).cast_mut().cast(), clone: clone_host, wake: wake_host, drop: drop_host }
    }
}

unsafe extern "C" fn clone_host(data: *mut c_void) -> RawHostWaker {
    // SAFETY: `data` is a `Waker`: the one that `lend` was given, which lives during the call, or the box made here.
    let waker = unsafe { &*data.cast_const().cast::<Waker>() };
    let clone = unwinds_not(|| Some(waker.clone())).unwrap_or_else(|| Waker::noop().clone());
    let data = Box::into_raw(Box::new(clone)).cast();
    RawHostWaker { data, clone: clone_host, wake: wake_host, drop: drop_host }
}

/// Wakes and keeps the waker.
unsafe extern "C" fn wake_host(data: *mut c_void) {
    // SAFETY: as in `clone_host`.
    let waker = unsafe { &*data.cast_const().cast::<Waker>() };
    unwinds_not(|| waker.wake_by_ref());
}

unsafe extern "C" fn drop_host(data: *mut c_void) {
    // SAFETY: only owned wakers are dropped, and `clone_host` made their data.
    let waker = unsafe { Box::from_raw(data.cast::<Waker>()) };
    unwinds_not(|| drop(waker));
}

// The plugin's side. A standard waker has one word of data: a pointer to the host's four.

impl RawHostWaker {
    /// A waker for the time of one poll; cloning it asks the host.
    ///
    /// # Safety
    /// The host's waker lives as long as the answer.
    pub(crate) unsafe fn borrow(raw: &*const Self) -> impl Deref<Target = Waker> {
        // SAFETY: the table below treats this data as borrowed, and `ManuallyDrop` keeps it from being dropped.
        ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(raw.cast(), &TABLE)) })
    }
}

static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_owned);

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: `data` is a host's waker: borrowed, or in a box made here.
    let cloned = unsafe {
        let raw = &*data.cast::<RawHostWaker>();
        (raw.clone)(raw.data)
    };
    RawWaker::new(Box::into_raw(Box::new(cloned)).cast_const().cast(), &TABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: a waker that wakes by value is owned.
    unsafe {
        wake_by_ref(data);
        drop_owned(data);
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: as in `clone`.
    unsafe {
        let raw = &*data.cast::<RawHostWaker>();
        (raw.wake)(raw.data);
    }
}

unsafe fn drop_owned(data: *const ()) {
    // SAFETY: only owned wakers are dropped, and `clone` made their boxes.
    unsafe {
        let raw = Box::from_raw(data.cast_mut().cast::<RawHostWaker>());
        (raw.drop)(raw.data);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn clones_wake_from_anywhere_and_nothing_leaks() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let raw = RawHostWaker::lend(&waker);
        let pointer = &raw const raw;
        // SAFETY: the waker lives to the end of the test.
        let borrowed = unsafe { RawHostWaker::borrow(&pointer) };
        borrowed.wake_by_ref();
        let clone = borrowed.clone();
        let other = clone.clone();
        drop(borrowed);
        std::thread::spawn(move || clone.wake()).join().unwrap();
        other.wake_by_ref();
        drop(other);
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1);
    }
}
