//! Changing what a vhost is set to, and what follows for the queues and exchanges in it (semantics 23.8, 24.3, 24.4).
//!
//! New queues and exchanges get their policy when they are declared, under the lock of the names. A change of policies is made under that
//! lock, too; what is there already is then looked at one by one without it, so that ten thousand queues hold nobody up. Changes follow each other,
//! so that a queue is never told of an older one last. With many queues a change takes milliseconds: call it off the event loop.

use std::sync::Arc;

use parking_lot::RwLockWriteGuard;
use plugin_api::value::Table;
use serde_json::Value as Json;

use super::happened;
use super::policy::{Applied, InvalidPolicy, NAME_BYTES_MAX, Policy, PolicyKind, PolicySpec, QueueType};
use super::queue_settings::{Declared, QueueSettings};
use super::settings::{
    InvalidSetting, PARAMETER_BYTES_MAX, PARAMETERS_MAX, POLICIES_MAX, ParameterName, VhostLimits, VhostMetadata,
};
use super::tables::Tables;
use super::{Change, Changed, QueueRecord, Vhost};
use crate::events::{Events, Kind, PERFORMED_BY, actor};
use crate::origin::Origin;
use crate::queue::Input;
use crate::routing::Exchange;

impl Vhost {
    /// Adds a policy or changes the one of its name, and applies it.
    ///
    /// # Errors
    /// What is wrong with it; nothing is changed then.
    pub fn put_policy(&self, kind: PolicyKind, spec: PolicySpec, origin: Origin) -> Result<Changed, InvalidPolicy> {
        let policy = Arc::new(Policy::new(kind, spec, origin)?);
        let name = policy.spec().name.as_str();
        let turn = self.changing.lock();
        let mut tables = self.tables.write();
        if tables.has_ended {
            return Err(InvalidPolicy::vhost_deleted(&self.name));
        }
        let policies = &mut tables.settings.policies;
        match policies.get(kind, name) {
            Some(old) if old.spec() == policy.spec() && old.origin() == origin => {
                return Ok(self.unchanged(origin.is_stored()));
            }
            Some(old) if old.origin() == Origin::Topology && origin == Origin::Runtime => {
                self.warn_of_topology(&format!("{kind} '{name}'"));
            }
            Some(old) if old.origin() == Origin::Runtime && origin == Origin::Topology => {
                tables.changes.push(Change::PolicyRemoved(kind, name.into()));
            }
            None if policies.of_kind(kind).len() >= POLICIES_MAX => {
                return Err(InvalidPolicy::too_many(kind, POLICIES_MAX));
            }
            Some(_) | None => {}
        }
        let without_effect = policy.keys_without_effect();
        if !without_effect.is_empty() {
            tracing::warn!(vhost = %self.name, policy = name, keys = without_effect.join(", "), "keys of a policy have no effect here");
        }
        tables.settings.policies.put(kind, Arc::clone(&policy));
        if origin.is_stored() {
            tables.changes.push(Change::PolicyPut(kind, Arc::clone(&policy)));
        }
        let events = tables.happened.events.clone();
        let changed = self.changed(tables);
        self.apply_policies(&events, Some(policy.spec()));
        // Behind what followed for queues, as in RabbitMQ.
        self.tell_setting(&events, Kind::PolicySet, || happened::policy_set(policy.spec()));
        drop(turn);
        Ok(changed)
    }

    /// Removes a policy; none if there is none of that name.
    pub fn delete_policy(&self, kind: PolicyKind, name: &str) -> Option<Changed> {
        let turn = self.changing.lock();
        let mut tables = self.tables.write();
        let origin = tables.settings.policies.get(kind, name)?.origin();
        if origin == Origin::Topology {
            self.warn_of_topology(&format!("{kind} '{name}'"));
        } else {
            tables.changes.push(Change::PolicyRemoved(kind, name.into()));
        }
        tables.settings.policies.remove(kind, name);
        let happened = match kind {
            PolicyKind::User => Kind::PolicyCleared,
            PolicyKind::Operator => Kind::OperatorPolicyCleared,
        };
        let events = tables.happened.events.clone();
        let changed = self.changed(tables);
        self.apply_policies(&events, None);
        self.tell_setting(&events, happened, || Table::new().with("name", name));
        drop(turn);
        Some(changed)
    }

    /// The policies of one kind, the first to apply first.
    pub fn policies(&self, kind: PolicyKind) -> Vec<Arc<Policy>> {
        self.tables.read().settings.policies.of_kind(kind).to_vec()
    }

    /// The policy of that name.
    pub fn policy(&self, kind: PolicyKind, name: &str) -> Option<Arc<Policy>> {
        self.tables.read().settings.policies.get(kind, name).cloned()
    }

    /// Gives every queue and exchange the policy that it has now. Only under the lock of changes, and not under that of the names: queues are posted to.
    /// `set` is the policy that was added or changed, if one was.
    fn apply_policies(&self, events: &Events, set: Option<&PolicySpec>) {
        let (policies, queues, exchanges) = {
            let tables = self.tables.read();
            let queues: Vec<Arc<QueueRecord>> = tables.queues.values().cloned().collect();
            let exchanges: Vec<Arc<Exchange>> = tables.exchanges.values().cloned().collect();
            (tables.settings.policies.clone(), queues, exchanges)
        };
        for exchange in exchanges {
            exchange.set_policy(policies.of_exchange(&exchange.name));
        }
        for queue in queues {
            let applied = policies.of_queue(&queue.name, QueueType::of(&queue.arguments));
            let is_other = !queue.policy.read().says_same(&applied);
            self.apply_policy(&queue, applied);
            if is_other {
                let kind = if set.is_some() { Kind::QueuePolicyUpdated } else { Kind::QueuePolicyCleared };
                events.tell(kind, Some(&self.name), || happened::queue_policy(&queue, set));
            }
        }
        // Alternate exchanges may have changed, and with them what was remembered of routes.
        self.forget_routes();
    }

    fn tell_setting(&self, events: &Events, kind: Kind, properties: impl FnOnce() -> Table) {
        events.tell(kind, Some(&self.name), || properties().with(PERFORMED_BY, &*actor()));
    }

    fn apply_policy(&self, queue: &QueueRecord, applied: Applied) {
        if queue.policy.read().is_same(&applied) {
            return;
        }
        let declared = Declared { durable: queue.durable, auto_delete: queue.auto_delete, arguments: &queue.arguments };
        let settings = QueueSettings::resolve(declared, &applied.of_queue(), self.durability);
        *queue.policy.write() = applied;
        if *queue.settings.read().as_ref() == settings {
            return;
        }
        let options = settings.options;
        let old = std::mem::replace(&mut *queue.settings.write(), Arc::new(settings));
        if old.options != options {
            queue.handle.post(Input::Reconfigure(options));
        }
    }

    // Limits, metadata and parameters

    /// What there may be at most.
    pub fn limits(&self) -> VhostLimits {
        self.tables.read().settings.limits.map(|(limits, _)| limits).unwrap_or_default()
    }

    /// Who said so; none when nobody did.
    pub fn limits_origin(&self) -> Option<Origin> {
        self.tables.read().settings.limits.map(|(_, origin)| origin)
    }

    /// Changes what there may be at most; what is there already stays.
    ///
    /// # Errors
    /// The vhost was deleted.
    pub fn put_limits(&self, limits: VhostLimits, origin: Origin) -> Result<Changed, InvalidSetting> {
        let mut tables = self.settable()?;
        let old = tables.settings.limits;
        if old == Some((limits, origin)) {
            return Ok(self.unchanged(origin.is_stored()));
        }
        match old.map(|(_, origin)| origin) {
            Some(Origin::Topology) if origin == Origin::Runtime => self.warn_of_topology("limits"),
            Some(Origin::Runtime) if origin == Origin::Topology => tables.changes.push(Change::LimitsPut(None)),
            Some(_) | None => {}
        }
        tables.settings.limits = Some((limits, origin));
        let happened = if limits == VhostLimits::default() { Kind::VhostLimitsCleared } else { Kind::VhostLimitsSet };
        tables.happened.note_setting(happened, || happened::limits(limits));
        if origin.is_stored() {
            tables.changes.push(Change::LimitsPut((limits != VhostLimits::default()).then_some(limits)));
        }
        Ok(self.changed(tables))
    }

    /// Description, tags, default queue type.
    pub fn metadata(&self) -> VhostMetadata {
        self.tables.read().settings.metadata.as_ref().map(|(metadata, _)| metadata.clone()).unwrap_or_default()
    }

    /// Who said so; none when nobody did.
    pub fn metadata_origin(&self) -> Option<Origin> {
        self.tables.read().settings.metadata.as_ref().map(|(_, origin)| *origin)
    }

    /// Changes description, tags and default queue type; queues that are there keep their type.
    ///
    /// # Errors
    /// What is too long; nothing is changed then.
    pub fn put_metadata(&self, metadata: VhostMetadata, origin: Origin) -> Result<Changed, InvalidSetting> {
        metadata.check()?;
        let mut tables = self.settable()?;
        match &tables.settings.metadata {
            Some((old, old_origin)) if *old == metadata && *old_origin == origin => {
                return Ok(self.unchanged(origin.is_stored()));
            }
            Some((_, Origin::Topology)) if origin == Origin::Runtime => self.warn_of_topology("description"),
            Some(_) | None => {}
        }
        // The entry also says that the vhost is there, so it is removed with the vhost alone.
        if origin.is_stored() {
            tables.changes.push(Change::VhostPut(metadata.clone()));
        }
        let happened = if tables.settings.metadata.is_some() { Kind::VhostUpdated } else { Kind::VhostCreated };
        tables.happened.note_setting(happened, || happened::vhost(&self.name, &metadata));
        tables.settings.metadata = Some((metadata, origin));
        Ok(self.changed(tables))
    }

    /// All parameters but policies and limits, in the order of their names.
    pub fn parameters(&self) -> Vec<(ParameterName, Json)> {
        let tables = self.tables.read();
        tables.settings.parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Keeps a parameter for whoever asks for it; the broker itself has no use for one.
    ///
    /// # Errors
    /// What is too long, or that there are too many; nothing is changed then.
    pub fn put_parameter(&self, component: &str, name: &str, value: Json) -> Result<Changed, InvalidSetting> {
        if [component, name].iter().any(|part| part.is_empty() || part.len() > NAME_BYTES_MAX) {
            return Err(InvalidSetting(format!("component and name of a parameter have 1 to {NAME_BYTES_MAX} bytes")));
        }
        if value.to_string().len() > PARAMETER_BYTES_MAX {
            return Err(InvalidSetting(format!("the value is longer than {PARAMETER_BYTES_MAX} bytes")));
        }
        let key: ParameterName = (component.into(), name.into());
        let mut tables = self.settable()?;
        match tables.settings.parameters.get(&key) {
            Some(old) if *old == value => return Ok(self.unchanged(true)),
            None if tables.settings.parameters.len() >= PARAMETERS_MAX => {
                return Err(InvalidSetting(format!("component {component} is limited to {PARAMETERS_MAX}")));
            }
            Some(_) | None => {}
        }
        tables.changes.push(Change::ParameterPut(key.clone(), Some(value.clone())));
        let properties = || happened::parameter(component, name).with("value", happened::json(&value));
        tables.happened.note_setting(Kind::ParameterSet, properties);
        tables.settings.parameters.insert(key, value);
        Ok(self.changed(tables))
    }

    /// Removes a parameter; none if there is none of that name.
    pub fn delete_parameter(&self, component: &str, name: &str) -> Option<Changed> {
        let key: ParameterName = (component.into(), name.into());
        let mut tables = self.tables.write();
        tables.settings.parameters.remove(&key)?;
        tables.changes.push(Change::ParameterPut(key, None));
        tables.happened.note_setting(Kind::ParameterCleared, || happened::parameter(component, name));
        Some(self.changed(tables))
    }

    /// The settings of a vhost that is still there.
    fn settable(&self) -> Result<RwLockWriteGuard<'_, Tables>, InvalidSetting> {
        let tables = self.tables.write();
        if tables.has_ended { Err(InvalidSetting(format!("vhost '{}' is deleted", self.name))) } else { Ok(tables) }
    }

    fn warn_of_topology(&self, what: &str) {
        tracing::warn!(vhost = %self.name, "{what} is declared by the topology file, which wins at the next start; change it there, too");
    }
}

#[cfg(test)]
mod tests;
