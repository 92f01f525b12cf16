//! What a plugin offers, and the macro that makes a crate a plugin.

use crate::auth::AuthType;
use crate::exchange::ExchangeType;
use crate::storage::StorageType;

/// What a plugin offers. Built by the function that is given to [`crate::export_plugin!`].
#[derive(Default)]
pub struct Plugin {
    pub(crate) exchange_types: Vec<Box<dyn ExchangeType>>,
    pub(crate) storages: Vec<Box<dyn StorageType>>,
    pub(crate) auth_backends: Vec<Box<dyn AuthType>>,
}

impl Plugin {
    /// A plugin that offers nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { exchange_types: Vec::new(), storages: Vec::new(), auth_backends: Vec::new() }
    }

    /// Offers an exchange type.
    #[must_use]
    pub fn exchange_type(mut self, exchange_type: impl ExchangeType) -> Self {
        self.exchange_types.push(Box::new(exchange_type));
        self
    }

    /// Offers a kind of storage.
    #[must_use]
    pub fn storage(mut self, storage: impl StorageType) -> Self {
        self.storages.push(Box::new(storage));
        self
    }

    /// Offers a kind of auth backend.
    #[must_use]
    pub fn auth_backend(mut self, backend: impl AuthType) -> Self {
        self.auth_backends.push(Box::new(backend));
        self
    }
}

/// Makes the crate a plugin: used once, at the root of a crate whose `crate-type` is `cdylib` (and `rlib`, if a broker
/// or a test links it in).
///
/// ```
/// # use plugin_api::error::Invalid;
/// # use plugin_api::exchange::{DependsOn, Exchange, ExchangeSpec, ExchangeType};
/// struct Geo;
/// # impl ExchangeType for Geo {
/// #     fn name(&self) -> &str { "x-geo" }
/// #     fn description(&self) -> &str { "" }
/// #     fn depends_on(&self) -> DependsOn { DependsOn::State }
/// #     fn open(&self, _: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> { Err(Invalid::new("")) }
/// # }
///
/// plugin_api::export_plugin!(exchange_types: [Geo]);
/// # fn main() {}
/// ```
///
/// A plugin of storages says `storages: [Disk]`, one of auth backends `auth_backends: [Ldap]`; what a storage or a backend
/// is configured with reaches it when it is opened.
///
/// A plugin with a configuration gives a function instead, which is called each time that the plugin is loaded:
///
/// ```
/// # use plugin_api::exchange::{DependsOn, Exchange, ExchangeSpec, ExchangeType};
/// # struct Geo { cells: u32 }
/// # impl ExchangeType for Geo {
/// #     fn name(&self) -> &str { "x-geo" }
/// #     fn description(&self) -> &str { "" }
/// #     fn depends_on(&self) -> DependsOn { DependsOn::State }
/// #     fn open(&self, _: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> { Err(Invalid::new("")) }
/// # }
/// use plugin_api::{Plugin, config::Config, error::Invalid};
///
/// fn register(config: &Config) -> Result<Plugin, Invalid> {
///     let cells = config.as_json()["cells"].as_u64().unwrap_or(16);
///     let cells = u32::try_from(cells).map_err(|_| Invalid::new("cells is too large"))?;
///     Ok(Plugin::new().exchange_type(Geo { cells }))
/// }
///
/// plugin_api::export_plugin!(register);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_plugin {
    (exchange_types: [$($exchange_type:expr),+ $(,)?]) => {
        $crate::export_plugin!(@ $crate::abi::offers::EXCHANGE_TYPES, |config: &$crate::config::Config| {
            config.expect_empty()?;
            Ok($crate::Plugin::new()$(.exchange_type($exchange_type))+)
        });
    };
    (storages: [$($storage:expr),+ $(,)?]) => {
        $crate::export_plugin!(@ $crate::abi::offers::STORAGES, |config: &$crate::config::Config| {
            config.expect_empty()?;
            Ok($crate::Plugin::new()$(.storage($storage))+)
        });
    };
    (auth_backends: [$($backend:expr),+ $(,)?]) => {
        $crate::export_plugin!(@ $crate::abi::offers::AUTH_BACKENDS, |config: &$crate::config::Config| {
            config.expect_empty()?;
            Ok($crate::Plugin::new()$(.auth_backend($backend))+)
        });
    };
    (@ $offers:expr, $register:expr) => {
        /// This crate as a plugin, for a broker that links it in.
        pub static PLUGIN: $crate::abi::LinkedPlugin = {
            // Not `#[no_mangle]` with one name for all plugins: two of them linked into one binary would become one.
            #[unsafe(export_name = concat!("broker_plugin_entry__", env!("CARGO_CRATE_NAME")))]
            unsafe extern "C" fn entry(
                host: *const $crate::abi::HostTable,
                config: $crate::abi::RawBytes,
                plugin: *mut *const $crate::abi::PluginTable,
                sink: *const $crate::abi::TextSink,
            ) -> u32 {
                const REGISTER: $crate::abi::Register = $register;
                // SAFETY: the host calls this with the arguments that `EntryFn` describes.
                unsafe { $crate::abi::run_entry(&STAMP, REGISTER, host, config, plugin, sink) }
            }

            #[used]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__broker_plugin"))]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".broker_plugin"))]
            static STAMP: $crate::abi::Stamp = $crate::abi::Stamp::new(
                env!("CARGO_CRATE_NAME"),
                env!("CARGO_PKG_VERSION"),
                cfg!(panic = "unwind"),
                cfg!(debug_assertions),
                $offers,
            );

            $crate::abi::LinkedPlugin::new(&STAMP, entry)
        };
    };
    ($register:expr) => {
        $crate::export_plugin!(@ 0, $register);
    };
}
