//! Everything that plugins offer, by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plugin_api::abi::guest::{CallError, Guest, GuestStorageType, Linkage};
use plugin_api::abi::{HostTable, LinkedPlugin};
use plugin_api::auth::AuthSpec;
use plugin_api::config::Config;
use plugin_api::storage::{Storage, StorageSpec};
use tracing::{error, info, warn};

use super::auth::{AuthInstance, AuthKind, Isolation};
use super::inspect::inspect;
use super::log::PluginServices;
use super::status::Record;
use super::storage::WatchedStorage;
use super::{ExchangeTypeHandle, LoadError, PluginStatus, builtin, loader};

/// Exchange types and storages by name. Filled at start; nothing is ever taken out.
#[derive(Default)]
pub struct Registry {
    exchange_types: BTreeMap<String, Arc<ExchangeTypeHandle>>,
    storages: BTreeMap<String, StorageKind>,
    auth_types: BTreeMap<String, AuthKind>,
    pub(super) plugins: Vec<Arc<Record>>,
    /// Where plugins have their folders.
    data: Option<PathBuf>,
}

/// A kind of storage, and the plugin that it comes from.
struct StorageKind {
    guest: GuestStorageType,
    plugin: Arc<Record>,
}

/// A plugin file that somebody wants loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// The file.
    pub path: PathBuf,
    /// What it must have, in hexadecimal.
    pub sha256: Option<String>,
    /// What the plugin is given; null for nothing.
    pub config: serde_json::Value,
}

/// A plugin file that has been loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The name of its crate.
    pub name: String,
    /// The version of its crate.
    pub version: String,
    /// The file.
    pub path: PathBuf,
    /// The exchange types it offers.
    pub exchange_types: Vec<String>,
    /// The kinds of storage it offers.
    pub storages: Vec<String>,
    /// The kinds of auth backends it offers.
    pub auth_backends: Vec<String>,
}

/// An auth backend that somebody wants opened.
#[derive(Debug, Clone)]
pub struct AuthWanted<'a> {
    /// Its name, for people.
    pub name: &'a str,
    /// Which kind.
    pub kind: &'a str,
    /// What it is given; null for nothing.
    pub config: &'a serde_json::Value,
    /// Where relative paths in that begin.
    pub base: Option<&'a Path>,
    /// How long a question may take.
    pub timeout: Duration,
    /// Which threads poll it.
    pub isolation: Isolation,
}

impl Registry {
    /// A registry without anything, not even what is built in.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Plugins that are loaded from now on have folders of their own below this one.
    pub fn keep_data_in(&mut self, folder: &Path) {
        self.data = Some(folder.to_path_buf());
    }

    /// A registry of what is part of the binary.
    ///
    /// # Errors
    /// Only when a built-in plugin is defective.
    pub fn builtin() -> Result<Self, LoadError> {
        let mut registry = Self::empty();
        for plugin in builtin::PLUGINS {
            registry.link(plugin, &Config::default())?;
        }
        Ok(registry)
    }

    /// Adds a plugin that is part of the binary.
    ///
    /// # Errors
    /// What the plugin says against it, or a name that is taken; nothing of it is added then.
    pub fn link(&mut self, plugin: &LinkedPlugin, config: &Config) -> Result<(), LoadError> {
        let stamp = plugin.stamp().info();
        let services = PluginServices::new(&stamp.crate_name, self.data.clone());
        let figures = services.figures();
        let host = HostTable::leak(Box::new(services), Linkage::LinkedIn);
        let guest = Guest::linked(plugin, host, config).map_err(|error| loader::refused(&stamp.crate_name, error))?;
        let record = Record::new(stamp, &guest, figures);
        self.add(guest, record)
    }

    /// Inspects and loads a plugin file.
    ///
    /// # Errors
    /// What speaks against it; nothing of it is added then. A file that got as far as being opened stays in memory.
    pub fn load_file(&mut self, request: &LoadRequest) -> Result<Loaded, LoadError> {
        let inspected = inspect(&request.path, request.sha256.as_deref())?;
        let (stamp, sha256) = (inspected.stamp.clone(), inspected.sha256.clone());
        if stamp.is_debug_build && !cfg!(debug_assertions) {
            warn!(plugin = stamp.crate_name, "plugin is a debug build and slow; build it with --release");
        }
        // The last word of a file that ends the process when it is opened.
        info!(plugin = stamp.crate_name, path = %request.path.display(), state = "inspected", "plugin inspected");
        let services = PluginServices::new(&stamp.crate_name, self.data.clone());
        let figures = services.figures();
        let guest = loader::load(inspected, &Config::new(request.config.clone()), services)?;
        let record = Record::new(stamp, &guest, figures);
        let loaded = Loaded {
            name: record.name.clone(),
            version: record.version.clone(),
            path: request.path.clone(),
            exchange_types: record.exchange_types.clone(),
            storages: record.storages.clone(),
            auth_backends: record.auth_backends.clone(),
        };
        self.add(guest, record.loaded_from(request.path.clone(), sha256))?;
        Ok(loaded)
    }

    /// Keeps in the list that a file was not loaded.
    pub fn note_refused(&mut self, path: &Path, error: &LoadError) {
        self.plugins.push(Arc::new(Record::refused(path, &error.to_string())));
    }

    /// Loads every `*.so` and `*.dylib` of a folder in the order of their names. Each stands for itself: one that cannot
    /// be loaded does not keep the others from it.
    pub fn load_dir(&mut self, folder: &Path) -> Vec<Result<Loaded, LoadError>> {
        let mut paths = match libraries(folder) {
            Ok(paths) => paths,
            Err(error) => return vec![Err(LoadError::UnreadableFolder { path: folder.into(), error })],
        };
        paths.sort();
        let request = |path| LoadRequest { path, ..LoadRequest::default() };
        paths.into_iter().map(|path| self.load_file(&request(path))).collect()
    }

    /// The exchange type of this name.
    #[must_use]
    pub fn exchange_type(&self, name: &str) -> Option<Arc<ExchangeTypeHandle>> {
        self.exchange_types.get(name).cloned()
    }

    /// All exchange types, sorted.
    #[must_use]
    pub fn exchange_type_names(&self) -> Vec<String> {
        self.exchange_types.keys().cloned().collect()
    }

    /// The name of the one storage that a loaded file offers.
    ///
    /// # Errors
    /// It offers none, or several.
    pub fn only_storage_of(&self, path: &Path) -> Result<String, LoadError> {
        let plugin = self.plugins.iter().find(|plugin| plugin.path.as_deref() == Some(path));
        match plugin.map(|plugin| plugin.storages.as_slice()).unwrap_or_default() {
            [name] => Ok(name.clone()),
            offered => Err(LoadError::WhichStorage { path: path.to_path_buf(), offered: offered.to_vec() }),
        }
    }

    /// Opens the storage of this name.
    ///
    /// # Errors
    /// When there is none, or it refuses its configuration or its folder.
    pub fn storage(
        &self,
        name: &str,
        config: &serde_json::Value,
        folder: Option<&Path>,
    ) -> Result<Arc<dyn Storage>, LoadError> {
        let Some(storage) = self.storages.get(name) else {
            let known = self.storages.keys().cloned().collect();
            return Err(LoadError::UnknownStorage { name: name.to_owned(), known });
        };
        let spec = StorageSpec { config: Config::new(config.clone()), folder: folder.map(Path::to_path_buf) };
        let plugin = Arc::clone(&storage.plugin);
        let on_fault = Box::new(move |error: &CallError| {
            plugin.fault(&error.to_string());
            error!(plugin = plugin.name, state = "degraded", error = %error, "plugin fault");
        });
        let opened = storage.guest.open_watched(&spec, on_fault).map_err(|error| {
            if !matches!(error, CallError::Refused(_)) {
                storage.plugin.fault(&error.to_string());
            }
            LoadError::StorageRefused { name: name.to_owned(), reason: error.to_string() }
        })?;
        storage.plugin.is_storage.store(true, Ordering::Relaxed);
        Ok(match storage.plugin.path {
            // Every storage waits for its disk; what is built in is known to wait for nothing else.
            None => opened,
            Some(_) => Arc::new(WatchedStorage::new(opened, storage.plugin.site)),
        })
    }

    /// Opens an auth backend.
    ///
    /// # Errors
    /// When there is no such kind, or it refuses its configuration.
    pub fn auth_backend(&self, wanted: &AuthWanted<'_>) -> Result<Arc<AuthInstance>, LoadError> {
        let AuthWanted { name, kind, config, base, timeout, isolation } = *wanted;
        let Some(auth_type) = self.auth_types.get(kind) else {
            let known = ["internal"].into_iter().map(str::to_owned).chain(self.auth_types.keys().cloned()).collect();
            return Err(LoadError::UnknownAuthBackend { kind: kind.to_owned(), known });
        };
        let refused = |reason: String| LoadError::AuthRefused { name: name.to_owned(), reason };
        let spec = AuthSpec { config: Config::new(config.clone()), base: base.map(Path::to_path_buf) };
        let guest = auth_type.guest.open(&spec).map_err(|error| {
            if !matches!(error, CallError::Refused(_)) {
                auth_type.plugin.fault(&error.to_string());
            }
            refused(error.to_string())
        })?;
        let instance = AuthInstance::new(name, guest, Arc::clone(&auth_type.plugin), timeout, isolation);
        instance.map(Arc::new).map_err(|error| refused(error.to_string()))
    }

    /// The kinds of auth backends that plugins offer, sorted.
    #[must_use]
    pub fn auth_backend_kinds(&self) -> Vec<String> {
        self.auth_types.keys().cloned().collect()
    }

    /// How all plugins fare, in the order they were loaded.
    #[must_use]
    pub fn status(&self) -> Vec<PluginStatus> {
        self.plugins.iter().map(|plugin| plugin.status()).collect()
    }

    /// Adds everything that a plugin offers, or nothing.
    fn add(&mut self, guest: Guest, record: Record) -> Result<(), LoadError> {
        let offers = [
            (EXCHANGE_TYPE, &record.exchange_types),
            (STORAGE, &record.storages),
            (AUTH_BACKEND, &record.auth_backends),
        ];
        for (kind, names) in offers {
            for (index, name) in names.iter().enumerate() {
                self.check_name(kind, name, &record)?;
                if names.iter().take(index).any(|other| other == name) {
                    let (plugin, owner) = (record.name.clone(), "the same plugin".to_owned());
                    return Err(LoadError::Duplicate { plugin, kind, name: name.clone(), owner });
                }
            }
        }
        for name in &guest.unknown_items {
            warn!(plugin = record.name, item = name, "plugin offers something that this broker does not know");
        }
        let plugin = Arc::new(record);
        for exchange_type in guest.exchange_types {
            let name = exchange_type.name().to_owned();
            let handle = ExchangeTypeHandle::new(exchange_type, Arc::clone(&plugin));
            self.exchange_types.insert(name, Arc::new(handle));
        }
        for guest in guest.storages {
            let kind = StorageKind { guest, plugin: Arc::clone(&plugin) };
            self.storages.insert(kind.guest.name().to_owned(), kind);
        }
        for guest in guest.auth_types {
            let kind = AuthKind { guest, plugin: Arc::clone(&plugin) };
            self.auth_types.insert(kind.guest.name().to_owned(), kind);
        }
        self.plugins.push(plugin);
        Ok(())
    }

    fn check_name(&self, kind: &'static str, name: &str, record: &Record) -> Result<(), LoadError> {
        let (plugin, owned) = (record.name.clone(), name.to_owned());
        if name.is_empty() || name.len() > 255 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(LoadError::BadName { plugin, kind, name: owned });
        }
        let owner = match kind {
            STORAGE => self.storages.get(name).map(|other| other.plugin.title()),
            AUTH_BACKEND if name == "internal" => Some("the broker itself".to_owned()),
            AUTH_BACKEND => self.auth_types.get(name).map(|other| other.plugin.title()),
            _ => self.exchange_types.get(name).map(|other| other.plugin_title()),
        };
        owner.map_or(Ok(()), |owner| Err(LoadError::Duplicate { plugin, kind, name: owned, owner }))
    }
}

/// What sentences call the kinds of things that plugins offer.
const EXCHANGE_TYPE: &str = "exchange type";
const STORAGE: &str = "storage";
const AUTH_BACKEND: &str = "auth backend";

fn libraries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "so" || extension == "dylib") {
            paths.push(path);
        }
    }
    Ok(paths)
}
