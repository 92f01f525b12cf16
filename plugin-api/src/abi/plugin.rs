//! What a plugin's entry function answers: a table of items.

use std::ffi::c_void;

use super::auth::{self, AuthTypeTable};
use super::exchange::{ExchangeTypeTable, TypeHandle};
use super::guard::{guard, install_panic_hook};
use super::host::{self, HostTable};
use super::raw::{RawBytes, TextSink, WORD, status};
use super::stamp::Stamp;
use super::storage::{self, StorageTypeTable};
use super::{ABI_MAJOR, ABI_MINOR};
use crate::config::Config;
use crate::error::Invalid;
use crate::plugin::Plugin;

/// The only symbol of a plugin. Called once for each time that the plugin is loaded, with its configuration as JSON.
pub type EntryFn = unsafe extern "C" fn(
    host: *const HostTable,
    config: RawBytes,
    plugin: *mut *const PluginTable,
    sink: *const TextSink,
) -> u32;

/// The author's function behind the entry.
pub type Register = fn(&Config) -> Result<Plugin, Invalid>;

/// A plugin that is part of the host's binary: the same stamp and the same entry as in a file.
pub struct LinkedPlugin {
    pub(crate) stamp: &'static Stamp,
    pub(crate) entry: EntryFn,
}

impl LinkedPlugin {
    /// Made by [`crate::export_plugin!`].
    #[must_use]
    pub const fn new(stamp: &'static Stamp, entry: EntryFn) -> Self {
        Self { stamp, entry }
    }

    /// The plugin's stamp.
    #[must_use]
    pub const fn stamp(&self) -> &'static Stamp {
        self.stamp
    }
}

/// Everything a plugin offers. Lives as long as the process; grows at its end only.
#[repr(C)]
pub struct PluginTable {
    pub(crate) size: u32,
    pub(crate) abi_major: u16,
    pub(crate) abi_minor: u16,
    /// Keeps the stamp's section in the file, which the linker would drop if nothing referred to it.
    pub(crate) stamp: *const Stamp,
    pub(crate) items: *const PluginItem,
    pub(crate) items_count: usize,
    /// The size of one item as the plugin knows it, so that a host can step over longer ones.
    pub(crate) item_size: usize,
}

const _: () = assert!(size_of::<PluginTable>() == 8 + 4 * WORD);

/// One thing that a plugin offers.
#[repr(C)]
pub struct PluginItem {
    /// Such as [`ITEM_EXCHANGE_TYPE`]; says what `table` points to.
    pub(crate) kind: u32,
    pub(crate) reserved: u32,
    pub(crate) name: RawBytes,
    pub(crate) description: RawBytes,
    /// The functions; begins with its size as a `u32`.
    pub(crate) table: *const c_void,
    /// What the functions are called with.
    pub(crate) handle: *mut c_void,
}

const _: () = assert!(size_of::<PluginItem>() == 8 + 6 * WORD);

/// The item is an exchange type; its table is an [`ExchangeTypeTable`].
pub const ITEM_EXCHANGE_TYPE: u32 = 1;

/// The item is a kind of storage; its table is a [`StorageTypeTable`].
pub const ITEM_STORAGE_TYPE: u32 = 2;

/// The item is a kind of auth backend; its table is an [`AuthTypeTable`]. Since 2.3.
pub const ITEM_AUTH_TYPE: u32 = 3;

/// The whole entry function; what [`crate::export_plugin!`] writes into the plugin's crate only calls it.
///
/// # Safety
/// The arguments are those of an [`EntryFn`] as the host gives them: `host` lives as long as the process, `plugin` may be
/// written to, the rest lives until this returns.
pub unsafe fn run_entry(
    stamp: &'static Stamp,
    register: Register,
    host: *const HostTable,
    config: RawBytes,
    plugin: *mut *const PluginTable,
    sink: *const TextSink,
) -> u32 {
    // SAFETY: as this function's caller says. The first three fields of a host table are the same in every ABI.
    let (host_major, is_linked_in) = match unsafe { host.as_ref() } {
        Some(host) if host.abi_major == ABI_MAJOR => (host.abi_major, host.is_linked_in != 0),
        Some(host) => (host.abi_major, false),
        None => return status::PANICKED,
    };
    // SAFETY: as this function's caller says.
    unsafe {
        guard(sink, || {
            if host_major != ABI_MAJOR {
                return Err(Invalid::new(format!("built for plugin ABI {ABI_MAJOR}, but the broker has {host_major}")));
            }
            host::set(host);
            if !is_linked_in {
                install_panic_hook();
            }
            let config = serde_json::from_slice(config.get())
                .map_err(|error| Invalid::new(format!("the broker's config is no JSON: {error}")))?;
            *plugin = table(stamp, register(&Config::new(config))?);
            Ok(())
        })
    }
}

/// Moves everything to where it stays for the life of the process.
fn table(stamp: &'static Stamp, plugin: Plugin) -> *const PluginTable {
    let exchange_types = plugin.exchange_types.into_iter().map(exchange_type_item);
    let storages = plugin.storages.into_iter().map(storage_type_item);
    let auth_backends = plugin.auth_backends.into_iter().map(auth_type_item);
    let items: Vec<PluginItem> = exchange_types.chain(storages).chain(auth_backends).collect();
    let items = Box::leak(items.into_boxed_slice());
    Box::leak(Box::new(PluginTable {
        size: size_of::<PluginTable>() as u32,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        stamp,
        items: items.as_ptr(),
        items_count: items.len(),
        item_size: size_of::<PluginItem>(),
    }))
}

fn exchange_type_item(exchange_type: TypeHandle) -> PluginItem {
    let takes = exchange_type.takes() as u32;
    let table = ExchangeTypeTable::new(exchange_type.depends_on() as u32, exchange_type.asked_per() as u32, takes);
    PluginItem {
        kind: ITEM_EXCHANGE_TYPE,
        reserved: 0,
        name: leak(exchange_type.name()),
        description: leak(exchange_type.description()),
        table: std::ptr::from_ref(Box::leak(Box::new(table))).cast(),
        handle: Box::into_raw(Box::new(exchange_type)).cast(),
    }
}

fn storage_type_item(storage_type: storage::TypeHandle) -> PluginItem {
    PluginItem {
        kind: ITEM_STORAGE_TYPE,
        reserved: 0,
        name: leak(storage_type.name()),
        description: leak(storage_type.description()),
        table: std::ptr::from_ref(Box::leak(Box::new(StorageTypeTable::new()))).cast(),
        handle: Box::into_raw(Box::new(storage_type)).cast(),
    }
}

fn auth_type_item(auth_type: auth::TypeHandle) -> PluginItem {
    PluginItem {
        kind: ITEM_AUTH_TYPE,
        reserved: 0,
        name: leak(auth_type.name()),
        description: leak(auth_type.description()),
        table: std::ptr::from_ref(Box::leak(Box::new(AuthTypeTable::new()))).cast(),
        handle: Box::into_raw(Box::new(auth_type)).cast(),
    }
}

fn leak(text: &str) -> RawBytes {
    RawBytes::new(Box::leak(text.to_owned().into_boxed_str()).as_bytes())
}
