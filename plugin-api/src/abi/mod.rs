//! The C ABI under the safe traits: what really crosses between the broker and a plugin.
//!
//! Authors need nothing from here; [`crate::export_plugin!`] writes the little that a plugin's crate must contain. The
//! rules, which let a plugin be built by another compiler than the broker:
//!
//! - Only `repr(C)` structures, numbers and function pointers cross. Every table starts with its size and grows at its
//!   end only. [`ABI_MAJOR`] changes when something is not an addition; [`ABI_MINOR`] counts the additions.
//! - Each side frees what it allocated. Text comes back through a callback ([`TextSink`]), routes go into the host's own
//!   vector ([`RawRoutes`]).
//! - Nothing unwinds across. Each function of a plugin runs under `catch_unwind`, compiled into the plugin.
//! - What is asked seldom crosses as a field table or as JSON, so that it may grow without a new ABI.
//! - What waits crosses as a future of the plugin that the host polls, with a waker of the host ([`RawHostWaker`]);
//!   borrowed arguments live until that future is dropped.
//! - A plugin lists what it offers as items with a kind; a host skips kinds that it does not know.
//! - Each plugin carries a [`Stamp`] in a section of its own, so that a host can refuse a file before running any of it.
//!
//! The plugin's side is `plugin`, `exchange`, `storage` and `auth`; the host's side is [`guest`], which is safe once a plugin is loaded.

mod auth;
mod deliveries;
mod exchange;
mod guard;
pub mod guest;
mod host;
mod layout;
mod plugin;
mod question;
mod raw;
mod routes;
mod runtime;
mod spec;
mod stamp;
mod storage;
mod waker;

pub use auth::AuthTypeTable;
pub use deliveries::RawDeliveries;
pub use exchange::{ExchangeTypeTable, MessageView};
pub use host::HostTable;
pub(crate) use host::{data_folder, log, log_is_enabled, metric};
pub use plugin::{
    EntryFn, ITEM_AUTH_TYPE, ITEM_EXCHANGE_TYPE, ITEM_STORAGE_TYPE, LinkedPlugin, PluginItem, PluginTable, Register,
    run_entry,
};
pub use raw::{RawBytes, TextSink};
pub use routes::RawRoutes;
pub use stamp::{ENTRY_PREFIX, STAMP_SECTION, STAMP_SECTION_MACH_O, Stamp, StampError, StampInfo, offers};
pub use storage::{
    AnswerSink, RawAppend, RawMeta, RawRange, RawRecoveredQueue, RawStored, RawTarget, RawWanted, StorageTypeTable,
};
pub use waker::RawHostWaker;

/// Changes when tables or their meaning change other than by additions: plugins must be built again.
pub const ABI_MAJOR: u16 = 2;
/// Counts additions. A host takes plugins of its own and of lower minors.
pub const ABI_MINOR: u16 = 5;
