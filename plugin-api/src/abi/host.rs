//! What the host offers to a plugin, and where the plugin keeps it.

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::raw::{RawBytes, TextSink, WORD};
use crate::host::Level;

/// The functions of the host. It lives as long as the process and grows at its end only.
#[repr(C)]
pub struct HostTable {
    pub(crate) size: u32,
    pub(crate) abi_major: u16,
    pub(crate) abi_minor: u16,
    /// 1 when the plugin is part of the host's own binary and shares its standard library.
    pub(crate) is_linked_in: u32,
    pub(crate) reserved: u32,
    pub(crate) context: *mut c_void,
    pub(crate) log_is_enabled: unsafe extern "C" fn(context: *mut c_void, level: u32, target: RawBytes) -> u32,
    pub(crate) log: unsafe extern "C" fn(context: *mut c_void, level: u32, target: RawBytes, text: RawBytes),
    /// Since 2.3, as all below. Leaves the path of the plugin's own folder in `path` after making it, or nothing.
    pub(crate) data_folder: unsafe extern "C" fn(context: *mut c_void, path: *const TextSink),
    /// Adds to a counter, or sets a gauge; see [`crate::host::Metric`].
    pub(crate) metric: unsafe extern "C" fn(context: *mut c_void, kind: u32, name: RawBytes, value: f64),
}

const _: () = assert!(size_of::<HostTable>() == 16 + 5 * WORD);

// SAFETY: the functions may be called from any thread, which `guest::HostServices` requires of what stands behind them;
// nothing in the table changes after it was made.
unsafe impl Send for HostTable {}
// SAFETY: as above.
unsafe impl Sync for HostTable {}

/// The host of this plugin. Plugins that are linked in share one standard library, one copy of this crate, and so one host.
static HOST: AtomicPtr<HostTable> = AtomicPtr::new(std::ptr::null_mut());

/// # Safety
/// `host` is a table that lives as long as the process.
pub(crate) unsafe fn set(host: *const HostTable) {
    HOST.store(host.cast_mut(), Ordering::Release);
}

fn get() -> Option<&'static HostTable> {
    // SAFETY: only `set` stores here, and tables live as long as the process.
    unsafe { HOST.load(Ordering::Acquire).as_ref() }
}

pub(crate) fn log_is_enabled(level: Level, target: &str) -> bool {
    get().is_some_and(|host| {
        // SAFETY: function and context are from the same table, and the bytes are alive during the call.
        unsafe { (host.log_is_enabled)(host.context, level as u32, RawBytes::new(target.as_bytes())) != 0 }
    })
}

pub(crate) fn log(level: Level, target: &str, text: &str) {
    if let Some(host) = get() {
        let (target, text) = (RawBytes::new(target.as_bytes()), RawBytes::new(text.as_bytes()));
        // SAFETY: function and context are from the same table, and the bytes are alive during the call.
        unsafe { (host.log)(host.context, level as u32, target, text) };
    }
}

/// The host, if it has the functions of ABI 2.3.
fn get_2_3() -> Option<&'static HostTable> {
    get().filter(|host| host.size as usize >= size_of::<HostTable>())
}

pub(crate) fn data_folder() -> Option<std::path::PathBuf> {
    let host = get_2_3()?;
    let mut path = Vec::new();
    let sink = TextSink::new(&mut path);
    // SAFETY: function and context are from the same table, and the sink is alive during the call.
    unsafe { (host.data_folder)(host.context, &raw const sink) };
    (!path.is_empty()).then(|| super::storage::path(&path))
}

pub(crate) fn metric(kind: u32, name: &str, value: f64) {
    if let Some(host) = get_2_3() {
        // SAFETY: function and context are from the same table, and the name is alive during the call.
        unsafe { (host.metric)(host.context, kind, RawBytes::new(name.as_bytes()), value) };
    }
}
