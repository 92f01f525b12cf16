//! The host's side: a plugin that has been loaded, behind safe functions.
//!
//! Used by the broker and by [`crate::testing`]. Which file a plugin comes from, whether it may be loaded, and what
//! happens after a panic is decided elsewhere; here a call is made and its end is told.

mod auth;
mod storage;

use std::ffi::c_void;
use std::fmt;
use std::path::PathBuf;

pub use auth::{AskError, GuestAuthBackend, GuestAuthType};
pub use storage::{GuestStorageType, OnFault};

use super::auth::AuthTypeTable;
use super::deliveries::RawDeliveries;
use super::exchange::{ExchangeTypeTable, MessageView};
use super::host::HostTable;
use super::plugin::{
    EntryFn, ITEM_AUTH_TYPE, ITEM_EXCHANGE_TYPE, ITEM_STORAGE_TYPE, LinkedPlugin, PluginItem, PluginTable,
};
use super::raw::{RawBytes, TextSink, status};
use super::routes::RawRoutes;
use super::storage::StorageTypeTable;
use super::{ABI_MAJOR, ABI_MINOR, spec};
use crate::config::Config;
use crate::exchange::{AskedPer, BindingSpec, DependsOn, ExchangeSpec, Takes, Wish};
use crate::host::{Level, Metric};
use crate::message::Message;
use crate::value::Table;

/// How a call into a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The plugin said no, with this reason.
    Refused(String),
    /// The plugin panicked, with this text.
    Panicked(String),
    /// The plugin broke the rules of the ABI.
    Broken(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => f.write_str(text),
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::Broken(text) => write!(f, "broke the plugin ABI: {text}"),
        }
    }
}

impl std::error::Error for CallError {}

/// What the host does for a plugin. Called from any thread, also from within a route.
pub trait HostServices: Send + Sync + 'static {
    /// Whether a log line of this level would go anywhere.
    fn log_is_enabled(&self, level: Level, target: &str) -> bool;
    /// Takes a log line.
    fn log(&self, level: Level, target: &str, text: &str);
    /// The plugin's own folder, which is made if it is not there.
    fn data_folder(&self) -> Option<PathBuf> {
        None
    }
    /// Takes a figure.
    fn metric(&self, _kind: Metric, _name: &str, _value: f64) {}
}

/// Whether a plugin shares the host's standard library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linkage {
    /// Part of the host's binary.
    LinkedIn,
    /// From a file.
    Loaded,
}

impl HostTable {
    /// Makes the table that a plugin is given. It is never freed, since a plugin may use it for ever.
    pub fn leak(services: Box<dyn HostServices>, linkage: Linkage) -> &'static Self {
        Box::leak(Box::new(Self {
            size: size_of::<Self>() as u32,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            is_linked_in: u32::from(linkage == Linkage::LinkedIn),
            reserved: 0,
            context: Box::into_raw(Box::new(services)).cast(),
            log_is_enabled,
            log,
            data_folder,
            metric,
        }))
    }
}

/// A plugin whose entry has been called.
#[derive(Debug)]
pub struct Guest {
    /// The exchange types that it offers.
    pub exchange_types: Vec<GuestExchangeType>,
    /// The kinds of storage that it offers.
    pub storages: Vec<GuestStorageType>,
    /// The kinds of auth backends that it offers.
    pub auth_types: Vec<GuestAuthType>,
    /// Names of items of a kind that this host does not know.
    pub unknown_items: Vec<String>,
}

impl Guest {
    /// Calls the entry of a plugin that is part of this binary.
    ///
    /// # Errors
    /// What the plugin says against its configuration, or how it failed.
    pub fn linked(plugin: &LinkedPlugin, host: &'static HostTable, config: &Config) -> Result<Self, CallError> {
        // SAFETY: `export_plugin!` made the entry, in the same build as this host.
        unsafe { Self::enter(plugin.entry, host, config) }
    }

    /// Calls the entry of a plugin from a file.
    ///
    /// # Safety
    /// `entry` is the entry function of a plugin whose stamp names an ABI that this host has, and the plugin is never
    /// unloaded.
    ///
    /// # Errors
    /// What the plugin says against its configuration, or how it failed.
    pub unsafe fn enter(entry: EntryFn, host: &'static HostTable, config: &Config) -> Result<Self, CallError> {
        let config = config.as_json().to_string();
        let mut table: *const PluginTable = std::ptr::null();
        // SAFETY: the caller says that this is an entry; the host table is static and the rest outlives the call.
        call(|sink| unsafe { entry(host, RawBytes::new(config.as_bytes()), &raw mut table, sink) })?;
        // SAFETY: an entry that is done has stored a table that lives as long as the process.
        let table = unsafe { table.as_ref() }.ok_or_else(|| broken("its entry returned no table"))?;
        if table.abi_major != ABI_MAJOR || (table.size as usize) < size_of::<PluginTable>() {
            return Err(broken("its table has another shape than its stamp says"));
        }
        if table.item_size < size_of::<PluginItem>() {
            return Err(broken("its items are too short"));
        }
        let mut guest = Self {
            exchange_types: Vec::new(),
            storages: Vec::new(),
            auth_types: Vec::new(),
            unknown_items: Vec::new(),
        };
        for index in 0..table.items_count {
            // SAFETY: the table has so many items of that size, each at least as long as this host's.
            let item = unsafe { &*table.items.byte_add(index * table.item_size) };
            // SAFETY: an item of this plugin, which lives as long as the process.
            unsafe { guest.add(item)? };
        }
        for auth_type in &mut guest.auth_types {
            auth_type.knows_external = table.abi_minor >= 4;
        }
        Ok(guest)
    }

    unsafe fn add(&mut self, item: &'static PluginItem) -> Result<(), CallError> {
        // SAFETY: names of items live as long as the process.
        let (name, description) = unsafe { (item.name.get(), item.description.get()) };
        let name = String::from_utf8_lossy(name).into_owned();
        let description = String::from_utf8_lossy(description).into_owned();
        if item.kind == ITEM_STORAGE_TYPE {
            let table: *const StorageTypeTable = item.table.cast();
            // SAFETY: every table begins with its size.
            if table.is_null() || unsafe { (*table).size as usize } < size_of::<StorageTypeTable>() {
                return Err(broken("the table of a storage is too short"));
            }
            // SAFETY: the table is of this kind and at least as long as this host's.
            let table = unsafe { *table };
            self.storages.push(GuestStorageType { table, handle: Handle(item.handle), name, description });
            return Ok(());
        }
        if item.kind == ITEM_AUTH_TYPE {
            let table: *const AuthTypeTable = item.table.cast();
            // SAFETY: as above.
            if table.is_null() || unsafe { (*table).size as usize } < size_of::<AuthTypeTable>() {
                return Err(broken("the table of an auth backend is too short"));
            }
            // SAFETY: as above.
            let table = unsafe { *table };
            let (handle, knows_external) = (Handle(item.handle), false);
            self.auth_types.push(GuestAuthType { table, handle, name, description, knows_external });
            return Ok(());
        }
        if item.kind != ITEM_EXCHANGE_TYPE {
            self.unknown_items.push(name);
            return Ok(());
        }
        // SAFETY: an item of this kind has a table of this kind.
        let table = unsafe { ExchangeTypeTable::copied(item.table.cast()) }
            .ok_or_else(|| broken("the table of an exchange type is too short"))?;
        self.exchange_types.push(GuestExchangeType { table, handle: Handle(item.handle), name, description });
        Ok(())
    }
}

/// An exchange type of a plugin.
#[derive(Debug)]
pub struct GuestExchangeType {
    table: ExchangeTypeTable,
    handle: Handle,
    name: String,
    description: String,
}

impl GuestExchangeType {
    /// The name in `exchange.declare`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One line for operators.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What a route depends on beside the bindings.
    #[must_use]
    pub const fn depends_on(&self) -> DependsOn {
        depends_on(self.table.depends_on)
    }

    /// The same for one exchange.
    ///
    /// # Errors
    /// How the plugin failed.
    pub fn depends_on_for(&self, spec: &ExchangeSpec) -> Result<DependsOn, CallError> {
        let spec = spec::encode_exchange(spec);
        let mut number = self.table.depends_on;
        // SAFETY: table and handle belong together; bytes and number outlive the call.
        call(|sink| unsafe {
            (self.table.depends_on_for)(self.handle.0, RawBytes::new(&spec), &raw mut number, sink)
        })?;
        Ok(depends_on(number))
    }

    /// How often a message with several routing keys is routed.
    #[must_use]
    pub const fn asked_per(&self) -> AskedPer {
        if self.table.asked_per == AskedPer::Message as u32 { AskedPer::Message } else { AskedPer::Key }
    }

    /// Which queues may be bound.
    #[must_use]
    pub const fn takes(&self) -> Takes {
        if self.table.takes == Takes::ClassicQueues as u32 { Takes::ClassicQueues } else { Takes::AllQueues }
    }

    /// See [`crate::exchange::ExchangeType::inner`].
    ///
    /// # Errors
    /// What the plugin says against it, or how it failed.
    pub fn inner(&self, spec: &ExchangeSpec) -> Result<Option<String>, CallError> {
        let spec = spec::encode_exchange(spec);
        let mut name = Vec::new();
        let place = TextSink::new(&mut name);
        // SAFETY: table and handle belong together; bytes and place outlive the call.
        call(|sink| unsafe { (self.table.inner)(self.handle.0, RawBytes::new(&spec), &raw const place, sink) })?;
        Ok(if name.is_empty() { None } else { Some(String::from_utf8_lossy(&name).into_owned()) })
    }

    /// See [`crate::exchange::ExchangeType::validate`].
    ///
    /// # Errors
    /// What the plugin says against it, or how it failed.
    pub fn validate(&self, spec: &ExchangeSpec) -> Result<(), CallError> {
        let spec = spec::encode_exchange(spec);
        // SAFETY: table and handle belong together; the bytes outlive the call.
        call(|sink| unsafe { (self.table.validate)(self.handle.0, RawBytes::new(&spec), sink) })
    }

    /// See [`crate::exchange::ExchangeType::validate_binding`].
    ///
    /// # Errors
    /// What the plugin says against it, or how it failed.
    pub fn validate_binding(&self, spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), CallError> {
        let (spec, binding) = (spec::encode_exchange(spec), spec::encode_binding(binding));
        let (spec, binding) = (RawBytes::new(&spec), RawBytes::new(&binding));
        // SAFETY: table and handle belong together; the bytes outlive the call.
        call(|sink| unsafe { (self.table.validate_binding)(self.handle.0, spec, binding, sink) })
    }

    /// See [`crate::exchange::ExchangeType::open`].
    ///
    /// # Errors
    /// What the plugin says against it, or how it failed.
    pub fn open(&self, spec: &ExchangeSpec) -> Result<GuestExchange, CallError> {
        let spec = spec::encode_exchange(spec);
        let mut instance = std::ptr::null_mut();
        // SAFETY: table and handle belong together; bytes and place outlive the call.
        call(|sink| unsafe { (self.table.open)(self.handle.0, RawBytes::new(&spec), &raw mut instance, sink) })?;
        if instance.is_null() {
            return Err(broken("open returned no exchange"));
        }
        Ok(GuestExchange { table: self.table, instance: Handle(instance) })
    }
}

const fn depends_on(number: u32) -> DependsOn {
    match number {
        0 => DependsOn::Nothing,
        1 => DependsOn::Key,
        2 => DependsOn::KeyAndHeaders,
        // A number of a later ABI: whatever it means, not caching is right.
        _ => DependsOn::State,
    }
}

/// An exchange within a plugin. Closed when it is dropped.
#[derive(Debug)]
pub struct GuestExchange {
    table: ExchangeTypeTable,
    instance: Handle,
}

impl GuestExchange {
    /// See [`crate::exchange::Exchange::bind`].
    ///
    /// # Errors
    /// What the plugin says against it, or how it failed.
    pub fn bind(&mut self, slot: u32, binding: &BindingSpec) -> Result<(), CallError> {
        let binding = spec::encode_binding(binding);
        // SAFETY: the instance is from this table's `open`, is not closed, and is ours alone by `&mut`.
        call(|sink| unsafe { (self.table.bind)(self.instance.0, slot, RawBytes::new(&binding), sink) })
    }

    /// See [`crate::exchange::Exchange::bound`].
    ///
    /// # Errors
    /// How the plugin failed; what it handed over until then has gone to `each`.
    pub fn bound(&mut self, slot: u32, each: &mut dyn FnMut(&Message<'_>)) -> Result<(), CallError> {
        RawDeliveries::pass_to(each, |deliveries| {
            // SAFETY: as in `bind`; the deliveries outlive the call.
            call(|sink| unsafe { (self.table.bound)(self.instance.0, slot, deliveries, sink) })
        })
    }

    /// See [`crate::exchange::Exchange::unbind`].
    ///
    /// # Errors
    /// How the plugin failed.
    pub fn unbind(&mut self, slot: u32) -> Result<(), CallError> {
        // SAFETY: as in `bind`.
        call(|sink| unsafe { (self.table.unbind)(self.instance.0, slot, sink) })
    }

    /// See [`crate::exchange::Exchange::policy_changed`].
    ///
    /// # Errors
    /// What the plugin says against it, or how it failed.
    pub fn policy_changed(&mut self, policy: &Table) -> Result<(), CallError> {
        let policy = spec::contents(policy);
        // SAFETY: as in `bind`.
        call(|sink| unsafe { (self.table.policy_changed)(self.instance.0, RawBytes::new(&policy), sink) })
    }

    /// See [`crate::exchange::Exchange::restore`].
    ///
    /// # Errors
    /// How the plugin failed.
    pub fn restore(&mut self, message: &Message<'_>) -> Result<(), CallError> {
        let view = MessageView::new(message);
        // SAFETY: as in `bind`; the view outlives the call.
        call(|sink| unsafe { (self.table.restore)(self.instance.0, &raw const view, sink) })
    }

    /// Appends the slots that `message` takes to `out`, or says that it is held, and whether it is to be kept. See [`crate::exchange::Exchange::route`].
    ///
    /// # Errors
    /// How the plugin failed; what it had pushed until then stays in `out`.
    #[inline]
    pub fn route(&self, message: &Message<'_>, out: &mut Vec<u32>) -> Result<Option<Wish>, CallError> {
        let view = MessageView::new(message);
        let routed = RawRoutes::append_to(out, |routes| {
            // SAFETY: the instance is from this table's `open` and not closed; nobody changes it meanwhile, which would
            // need `&mut`; view and routes outlive the call.
            call(|sink| unsafe { (self.table.route)(self.instance.0, &raw const view, routes, sink) })
        });
        routed.result?;
        if !routed.is_whole {
            return Err(broken("it counted more routes than there is room for"));
        }
        Ok(routed.wish)
    }
}

impl Drop for GuestExchange {
    fn drop(&mut self) {
        // A panic while closing has been caught and told to the log by the plugin; there is nothing left to stop using.
        // SAFETY: the instance is from this table's `open`, is ours alone, and is not used again.
        drop(call(|sink| unsafe { (self.table.close)(self.instance.0, sink) }));
    }
}

/// A pointer that only the plugin's functions follow.
#[derive(Debug)]
struct Handle(*mut c_void);

// SAFETY: behind a handle is a type, an exchange or a storage, all `Send + Sync` by their traits, or a future, which is
// `Send` and used through `&mut` alone.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// Makes one call with a sink for its text.
#[inline]
fn call(function: impl FnOnce(*const TextSink) -> u32) -> Result<(), CallError> {
    let mut text = Vec::new();
    let status = function(&TextSink::new(&mut text));
    if status == status::DONE { Ok(()) } else { Err(failed(status, &text)) }
}

#[cold]
fn failed(status: u32, text: &[u8]) -> CallError {
    let text = String::from_utf8_lossy(text).into_owned();
    match status {
        status::REFUSED => CallError::Refused(text),
        status::PANICKED => CallError::Panicked(text),
        other => broken(&format!("unknown status {other}")),
    }
}

fn broken(text: &str) -> CallError {
    CallError::Broken(text.to_owned())
}

unsafe extern "C" fn log_is_enabled(context: *mut c_void, level: u32, target: RawBytes) -> u32 {
    // SAFETY: `HostTable::leak` made the context, which is never freed; the target lives until this returns.
    let (services, target) = unsafe { (&*context.cast::<Box<dyn HostServices>>(), target.get()) };
    u32::from(unwinds_not(|| services.log_is_enabled(Level::from_number(level), &String::from_utf8_lossy(target))))
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, target: RawBytes, text: RawBytes) {
    // SAFETY: `HostTable::leak` made the context, which is never freed; the texts live until this returns.
    let (services, target, text) = unsafe { (&*context.cast::<Box<dyn HostServices>>(), target.get(), text.get()) };
    unwinds_not(|| {
        services.log(Level::from_number(level), &String::from_utf8_lossy(target), &String::from_utf8_lossy(text));
    });
}

unsafe extern "C" fn data_folder(context: *mut c_void, path: *const TextSink) {
    // SAFETY: as in `log`; the sink is the plugin's and lives until this returns.
    let services = unsafe { &*context.cast::<Box<dyn HostServices>>() };
    if let Some(folder) = unwinds_not(|| services.data_folder()) {
        // SAFETY: as above.
        unsafe { TextSink::give(path, folder.as_os_str().as_encoded_bytes()) };
    }
}

unsafe extern "C" fn metric(context: *mut c_void, kind: u32, name: RawBytes, value: f64) {
    // SAFETY: as in `log`.
    let (services, name) = unsafe { (&*context.cast::<Box<dyn HostServices>>(), name.get()) };
    let kind = if kind == Metric::Counter as u32 { Metric::Counter } else { Metric::Gauge };
    unwinds_not(|| services.metric(kind, &String::from_utf8_lossy(name), value));
}

/// A panic of the host must not unwind into the plugin.
pub(crate) fn unwinds_not<T: Default>(call: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
