//! Opens an inspected file and finds its entry. The only unsafe code of the plugin host.

use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::PathBuf;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use plugin_api::abi::guest::{CallError, Guest, Linkage};
use plugin_api::abi::{EntryFn, HostTable};
use plugin_api::config::Config;

use super::LoadError;
use super::inspect::Inspected;
use super::log::PluginServices;

/// Opens the library for ever and calls its entry.
///
/// # Errors
/// When the dynamic linker refuses it, or the plugin does.
pub(super) fn load(inspected: Inspected, config: &Config, services: PluginServices) -> Result<Guest, LoadError> {
    let Inspected { path, stamp, file, .. } = inspected;
    let unlinkable = |error: libloading::Error, named: &PathBuf| LoadError::Unlinkable {
        path: path.clone(),
        detail: error.to_string().replace(&*named.to_string_lossy(), &path.to_string_lossy()),
    };
    let named = descriptor_path(file.as_raw_fd()).unwrap_or_else(|| path.clone());
    // The linker knows libraries by the name that they were opened with. Were the descriptor closed and its number used
    // again, the next plugin would silently be this one; so it stays open for as long as the process lives.
    let _descriptor = file.into_raw_fd();
    let flags = RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE;
    // SAFETY: opening runs the library's constructors. Plugins are trusted code that an operator put there; `inspect`
    // has made sure that this is a whole library for this machine, made by `export_plugin!`, that only they may change.
    let library = unsafe { Library::open(Some(&named), flags) }.map_err(|error| unlinkable(error, &named))?;
    // SAFETY: `export_plugin!` gives this symbol this type, in the ABI that the stamp names and `inspect` has accepted.
    let entry: EntryFn =
        *unsafe { library.get(stamp.entry_symbol().as_bytes()) }.map_err(|error| unlinkable(error, &named))?;
    // Never unloaded: threads, thread-locals and tables of the plugin outlive every use that could be counted.
    std::mem::forget(library);
    let host = HostTable::leak(Box::new(services), Linkage::Loaded);
    // SAFETY: see the symbol above; the library stays.
    unsafe { Guest::enter(entry, host, config) }.map_err(|error| refused(&stamp.crate_name, error))
}

pub(super) fn refused(plugin: &str, error: CallError) -> LoadError {
    let plugin = plugin.to_owned();
    match error {
        CallError::Refused(reason) => LoadError::Refused { plugin, reason },
        CallError::Panicked(_) | CallError::Broken(_) => LoadError::Failed { plugin, reason: error.to_string() },
    }
}

/// A path that opens this descriptor's file, whatever has become of its name. Only Linux has one that `dlopen` takes.
fn descriptor_path(descriptor: i32) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
    (cfg!(target_os = "linux") && path.exists()).then_some(path)
}
