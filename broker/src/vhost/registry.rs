//! All vhosts of a broker: finding, making and deleting them (semantics 24.1, 24.2), and the parameters of the broker as a whole.
//!
//! Connections of a vhost that is deleted are the caller's business: it closes them after [`Vhosts::delete`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use plugin_api::value::Table;
use serde_json::Value as Json;

use super::policy::NAME_BYTES_MAX;
use super::settings::{InvalidSetting, PARAMETER_BYTES_MAX, PARAMETERS_MAX, VhostMetadata};
use super::{Change, Changed, Shared, Vhost, happened};
use crate::events::{Events, Kind, PERFORMED_BY, actor};
use crate::metrics::node::QueueChurn;
use crate::origin::Origin;
use crate::plugin_host::{Registry, TypeError};
use crate::queue::{Durability, Input};

/// See the module.
pub struct Vhosts {
    vhosts: RwLock<HashMap<Arc<str>, Arc<Vhost>>>,
    shared: Shared,
    global_parameters: Mutex<BTreeMap<String, Json>>,
}

/// Vhosts are not cheap: each has its exchanges, and metrics one day.
pub const VHOSTS_MAX: usize = 10_000;

/// The vhost that is there by default.
pub const DEFAULT_VHOST: &str = "/";
/// A parameter of the broker as a whole that nobody sees: `/` was deleted, so it is no longer there by default.
pub const DEFAULT_VHOST_DELETED: &str = "internal_default_vhost_deleted";
/// The parameter of the broker as a whole that has the name of the cluster; RabbitMQ's tools set it so, too.
pub const CLUSTER_NAME: &str = "cluster_name";
/// Parameters that begin so are the broker's own and are neither listed nor exported.
pub const INTERNAL_PREFIX: &str = "internal";

/// What events call the component of parameters of the broker as a whole.
const GLOBAL: &str = "global";

/// A vhost that is not made or not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VhostError {
    /// A name of nothing, or one that is too long.
    #[error("a vhost's name has 1 to {NAME_BYTES_MAX} bytes")]
    InvalidName,
    /// There are as many as there may be.
    #[error("there are {VHOSTS_MAX} vhosts, which is the limit")]
    TooMany,
    /// What is said of it is too long.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// A built-in exchange type does not work.
    #[error("a predeclared exchange cannot be made: {0}")]
    ExchangeType(String),
    /// It does not exist.
    #[error("vhost {0} not found")]
    NotFound(String),
    /// Somebody said that it must stay (semantics 24.2).
    #[error("Refusing to delete virtual host '{0}' because it is protected from deletion")]
    Protected(String),
}

impl Vhosts {
    /// Without any vhost.
    pub fn new(shared: Shared, global_parameters: BTreeMap<String, Json>) -> Self {
        Self { vhosts: RwLock::default(), shared, global_parameters: Mutex::new(global_parameters) }
    }

    /// Makes a vhost at the start, before anybody sees it; [`Self::add`] shows it.
    ///
    /// # Errors
    /// A built-in exchange type cannot be opened.
    pub fn prepare(&self, name: &str, durability: Durability) -> Result<Arc<Vhost>, TypeError> {
        Vhost::new(name, self.shared.clone(), durability)
    }

    /// Shows a vhost that was prepared.
    pub fn add(&self, vhost: Arc<Vhost>) {
        self.vhosts.write().insert(Arc::clone(&vhost.name), vhost);
    }

    /// The vhost of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.read().get(name).cloned()
    }

    /// All vhosts, in the order of their names.
    pub fn list(&self) -> Vec<Arc<Vhost>> {
        let mut vhosts: Vec<_> = self.vhosts.read().values().cloned().collect();
        vhosts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        vhosts
    }

    /// Makes a vhost while the broker runs. One that is there already only gets what `metadata` says, if anything. Returns whether it is new.
    ///
    /// # Errors
    /// See [`VhostError`]; nothing is changed then.
    pub fn create(
        &self,
        name: &str,
        metadata: Option<VhostMetadata>,
    ) -> Result<(Arc<Vhost>, bool, Changed), VhostError> {
        self.create_with(name, metadata, Durability::default(), Origin::Runtime)
    }

    /// As [`Self::create`], for somebody who also knows what its queues confirm, and where the vhost comes from. One that comes from the topology file alone
    /// is not stored.
    ///
    /// # Errors
    /// See [`VhostError`]; nothing is changed then.
    pub fn create_with(
        &self,
        name: &str,
        metadata: Option<VhostMetadata>,
        durability: Durability,
        origin: Origin,
    ) -> Result<(Arc<Vhost>, bool, Changed), VhostError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(VhostError::InvalidName);
        }
        let mut vhosts = self.vhosts.write();
        if let Some(vhost) = vhosts.get(name).cloned() {
            drop(vhosts);
            let changed = match metadata {
                Some(metadata) => vhost.put_metadata(metadata, origin)?,
                None => vhost.unchanged(true),
            };
            return Ok((vhost, false, changed));
        }
        if vhosts.len() >= VHOSTS_MAX {
            return Err(VhostError::TooMany);
        }
        let vhost = self.prepare(name, durability).map_err(|error| VhostError::ExchangeType(error.to_string()))?;
        let changed = match (metadata, origin) {
            (None, Origin::Topology) => Changed::Transient,
            (metadata, origin) => vhost.put_metadata(metadata.unwrap_or_default(), origin)?,
        };
        vhosts.insert(Arc::clone(&vhost.name), Arc::clone(&vhost));
        tracing::info!(vhost = name, "vhost created");
        Ok((vhost, true, changed))
    }

    /// Deletes a vhost with everything in it, also from the store. `forget` is called when it is sure to go, before a new one of that name can come.
    ///
    /// # Errors
    /// It does not exist, or it is protected.
    pub fn delete(&self, name: &str, forget: impl FnOnce()) -> Result<(), VhostError> {
        let mut vhosts = self.vhosts.write();
        let vhost = vhosts.get(name).cloned().ok_or_else(|| VhostError::NotFound(name.to_owned()))?;
        if vhost.metadata().protected_from_deletion {
            return Err(VhostError::Protected(name.to_owned()));
        }
        vhosts.remove(name);
        forget();
        if name == DEFAULT_VHOST {
            self.put_internal(DEFAULT_VHOST_DELETED, Json::Bool(true));
        }
        // Under the lock, so that a new vhost of that name comes after the end of this one in the ledger. No queue is posted to yet.
        let queues = vhost.end();
        drop(vhosts);
        for queue in queues {
            queue.handle.post(Input::Delete { if_unused: false, if_empty: false, reply_to: None });
        }
        tracing::info!(vhost = name, "vhost deleted");
        Ok(())
    }

    /// What became of queues since the start.
    pub fn queue_churn(&self) -> &QueueChurn {
        &self.shared.numbers.queues
    }

    /// What plugins offer, and how they fare.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Whether any plugin offers the exchange type.
    pub fn has_exchange_type(&self, kind: &str) -> bool {
        self.shared.registry.exchange_type(kind).is_some()
    }

    /// What all vhosts share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Where is told what happens in vhosts.
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    // Parameters of the broker as a whole

    /// All but the broker's own, in the order of their names.
    pub fn global_parameters(&self) -> BTreeMap<String, Json> {
        let parameters = self.global_parameters.lock();
        let visible = parameters.iter().filter(|(name, _)| !name.starts_with(INTERNAL_PREFIX));
        visible.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// How many there are of those that count for the limit: the broker's own do, too.
    pub fn global_parameter_count(&self) -> usize {
        self.global_parameters.lock().len()
    }

    /// One of them, or of the broker's own.
    pub fn internal(&self, name: &str) -> Option<Json> {
        self.global_parameters.lock().get(name).cloned()
    }

    /// Those of the broker's own whose names begin so, in the order of their names.
    pub fn internals(&self, prefix: &str) -> Vec<(String, Json)> {
        let parameters = self.global_parameters.lock();
        let meant = parameters.iter().filter(|(name, _)| name.starts_with(prefix));
        meant.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Keeps one of the broker's own.
    pub fn put_internal(&self, name: &str, value: Json) {
        let mut parameters = self.global_parameters.lock();
        self.shared.ledger.record_parameter(name, Some(&value));
        parameters.insert(name.to_owned(), value);
    }

    /// Keeps a parameter for whoever asks for it.
    ///
    /// # Errors
    /// What is too long, or that there are too many; nothing is changed then.
    pub fn put_global_parameter(&self, name: &str, value: Json) -> Result<(), InvalidSetting> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(InvalidSetting(format!("the name of a parameter has 1 to {NAME_BYTES_MAX} bytes")));
        }
        if value.to_string().len() > PARAMETER_BYTES_MAX {
            return Err(InvalidSetting(format!("the value is longer than {PARAMETER_BYTES_MAX} bytes")));
        }
        let mut parameters = self.global_parameters.lock();
        if parameters.len() >= PARAMETERS_MAX && !parameters.contains_key(name) {
            return Err(InvalidSetting(format!("there are {PARAMETERS_MAX} global parameters, which is the limit")));
        }
        self.shared.ledger.record_parameter(name, Some(&value));
        let properties = || happened::parameter(GLOBAL, name).with("value", happened::json(&value));
        self.tell_setting(Kind::ParameterSet, properties);
        parameters.insert(name.to_owned(), value);
        Ok(())
    }

    /// Removes a parameter; false if there is none of that name.
    pub fn delete_global_parameter(&self, name: &str) -> bool {
        let mut parameters = self.global_parameters.lock();
        let was_there = parameters.remove(name).is_some();
        if was_there {
            self.shared.ledger.record_parameter(name, None);
            self.tell_setting(Kind::ParameterCleared, || happened::parameter(GLOBAL, name));
        }
        was_there
    }

    /// Under the lock of what is set, so that events come in the order of the changes.
    fn tell_setting(&self, kind: Kind, properties: impl FnOnce() -> Table) {
        self.shared.events.tell(kind, None, || properties().with(PERFORMED_BY, &*actor()));
    }
}

impl Vhost {
    /// Takes everything out of the vhost and lets nothing come in any more; the queues are to be told by the caller.
    fn end(&self) -> Vec<Arc<super::QueueRecord>> {
        let mut tables = self.tables.write();
        tables.has_ended = true;
        let queues: Vec<_> = tables.queues.values().cloned().collect();
        for queue in &queues {
            tables.remove_queue(&queue.name);
            self.numbers.queues.deleted();
        }
        let exchanges: Vec<_> = tables.exchanges.keys().cloned().collect();
        for exchange in exchanges {
            tables.remove_exchange(&exchange);
        }
        let settings = std::mem::take(&mut tables.settings);
        for kind in super::policy::PolicyKind::ALL {
            let names = settings.policies.of_kind(kind).iter().map(|policy| policy.spec().name.as_str().into());
            tables.changes.extend(names.map(|name| Change::PolicyRemoved(kind, name)));
        }
        tables.changes.extend(settings.parameters.into_keys().map(|name| Change::ParameterPut(name, None)));
        tables.changes.extend([Change::LimitsPut(None), Change::VhostRemoved]);
        tables.happened.note(Kind::VhostDeleted, || Table::new().with("name", &*self.name));
        // What was in it goes by the same hand.
        self.changed_by(Some(&actor()), tables);
        queues
    }

    /// Whether the vhost was deleted.
    pub fn has_ended(&self) -> bool {
        self.tables.read().has_ended
    }
}

impl fmt::Debug for Vhosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vhosts").field("count", &self.vhosts.read().len()).finish_non_exhaustive()
    }
}
