//! What would have to change so that a broker has what a topology file declares, and changing it.
//!
//! [`Plan::make`] compares the file with a [`snapshot`](super::snapshot()) and changes nothing. [`carry_out`] does what a plan says, through the entries that clients
//! and operators use. What the file does not name stays as it is; only with [`Prune`] is removed what the same file has declared before, which [`marks`]
//! remember. Messages are never lost unasked: a step that would lose some is refused unless it is forced. No secret is in a plan. What fails all the same ends
//! it half done; who wants all or nothing goes back by [`undo()`].

mod carry_out;
mod diff;
mod differences;
pub mod marks;
mod room;
mod undo;

use std::fmt;

use plugin_api::exchange::DestinationKind;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

pub use self::carry_out::{CarriedOut, carry_out, mark_at_start};
pub use self::undo::{Before, undo};
use super::schema::{BindingDecl, Topology};
use crate::access::Access;
use crate::origin::Origin;
use crate::vhost::policy::PolicyKind;
use crate::vhost::registry::Vhosts;
use crate::vhost::{QueueRecord, Vhost};

/// The broker, or the data folder, that is to be changed.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Its users.
    pub access: &'a Access,
    /// Its vhosts.
    pub vhosts: &'a Vhosts,
    /// How to reach what lives in its queues and connections.
    pub hands: &'a dyn Hands,
}

/// What only whoever runs queues and connections knows and can do.
pub trait Hands {
    /// How much is in a queue.
    fn load(&self, queue: &QueueRecord) -> Load;

    /// Deletes a queue, and comes back when it is gone. With `only_if_empty` one with ready messages or consumers stays.
    ///
    /// # Errors
    /// Why it is still there.
    fn delete_queue(&self, vhost: &Vhost, queue: &QueueRecord, only_if_empty: bool) -> Result<(), String>;

    /// Deletes a vhost with everything in it, permissions for it included.
    ///
    /// # Errors
    /// Why it is still there.
    fn delete_vhost(&self, name: &str) -> Result<(), String>;
}

/// What is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Ready messages.
    pub ready: u64,
    /// Unacked messages.
    pub unacked: u64,
    /// Consumers.
    pub consumers: u64,
}

/// What a plan removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prune {
    /// Nothing.
    #[default]
    Nothing,
    /// What the broker's own file no longer says of users, permissions, policies and limits, as the next start would forget it.
    Settings,
    /// Everything that the file once declared and no longer does.
    Everything,
}

/// How a plan is made.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// What is removed.
    pub prune: Prune,
    /// Whether messages may be lost.
    pub force: bool,
    /// Where settings come from: [`Origin::Topology`] for the broker's own file.
    pub origin: Origin,
}

impl Default for Wish {
    fn default() -> Self {
        Self { prune: Prune::Nothing, force: false, origin: Origin::Runtime }
    }
}

/// Something that a file can declare.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// A vhost with what is said of it.
    Vhost(String),
    /// A user.
    User(String),
    /// A user, and the vhost that it may enter.
    Permission(String, String),
    /// A user, a vhost, and a topic exchange there.
    TopicPermission(String, String, String),
    /// The limits of a vhost.
    Limits(String),
    /// A vhost, the kind of a policy, and its name.
    Policy(String, PolicyKind, String),
    /// A parameter of the broker as a whole.
    GlobalParameter(String),
    /// A vhost, a component, and a parameter of it there.
    Parameter(String, String, String),
    /// A vhost, and an exchange there.
    Exchange(String, String),
    /// A vhost, and a queue there.
    Queue(String, String),
    /// A binding in a vhost.
    Binding(String, BindingKey),
}

/// What tells a binding from others of its vhost (semantics 10.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingKey {
    /// The exchange that messages come from.
    pub source: String,
    /// What they go to.
    pub destination_kind: DestinationKind,
    /// Its name.
    pub destination: String,
    /// The binding key.
    pub routing_key: String,
    /// In an order of their own.
    pub arguments: Vec<u8>,
}

impl BindingKey {
    /// The key of a declared binding.
    #[must_use]
    pub fn of(decl: &BindingDecl) -> Self {
        Self {
            source: decl.source.clone(),
            destination_kind: decl.destination_kind,
            destination: decl.destination.clone(),
            routing_key: decl.routing_key.clone(),
            arguments: if decl.arguments.is_empty() { Vec::new() } else { decl.arguments.canonical() },
        }
    }
}

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is not there.
    Create,
    /// It is changed and stays what it is.
    Update,
    /// It is deleted and made again.
    Replace,
    /// It is deleted.
    Remove,
}

impl Action {
    /// The word for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Remove => "remove",
        }
    }
}

/// A part of an object that is not as the file says. Values are JSON; of secrets it only says that they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Such as `arguments.x-max-length`.
    pub field: String,
    /// As it is; null where it is not there.
    pub before: Json,
    /// As it is to be.
    pub after: Json,
}

/// What is lost with a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Messages and consumers.
    pub load: Load,
    /// Bindings that are not made again.
    pub bindings: u64,
    /// Queues, of a vhost.
    pub queues: u64,
}

impl Loss {
    fn add(&mut self, load: Load) {
        self.load.ready += load.ready;
        self.load.unacked += load.unacked;
        self.load.consumers += load.consumers;
    }

    /// Whether somebody would miss it.
    #[must_use]
    pub fn has_messages_or_consumers(&self) -> bool {
        self.load != Load::default()
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What is done.
    pub action: Action,
    /// With what.
    pub object: Object,
    /// How it differs, in the order of the fields; what a new object has.
    pub differences: Vec<Difference>,
    /// What is lost with it.
    pub loss: Loss,
    /// Why it is not done; none when it may be.
    pub refusal: Option<String>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The steps in the order in which they are done.
    pub changes: Vec<Change>,
    /// What the broker would not take at all.
    pub mistakes: Vec<String>,
    /// What is good to know.
    pub notes: Vec<String>,
    /// Bindings that go with what is replaced and are made again.
    rebind: Vec<(String, BindingDecl)>,
}

impl Plan {
    /// Compares. `topology` has been read and checked.
    #[must_use]
    pub fn make(topology: &Topology, target: &Target<'_>, wish: Wish) -> Self {
        diff::diff(topology, target, wish)
    }

    /// Whether everything is as the file says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Why nothing of it is done, if it may not be.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        let refused = |change: &Change| change.refusal.as_ref().map(|why| format!("{}: {why}", change.object));
        self.mistakes.iter().cloned().chain(self.changes.iter().filter_map(refused)).collect()
    }

    /// Tells plans apart that do something else. How many messages are lost is no part of it: it changes all the time, and the limit that
    /// matters is judged again when the plan is carried out.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        for change in &self.changes {
            let differences: Vec<Json> = change.differences.iter().map(Difference::to_json).collect();
            let line = json!([change.action.name(), change.object.to_json(), differences]).to_string();
            digest.update((line.len() as u64).to_be_bytes());
            digest.update(line);
        }
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let count = |action| self.changes.iter().filter(|change| change.action == action).count();
        json!({
            "fingerprint": self.fingerprint(),
            "changes": self.changes.iter().map(Change::to_json).collect::<Vec<_>>(),
            "summary": {
                "create": count(Action::Create), "update": count(Action::Update),
                "replace": count(Action::Replace), "remove": count(Action::Remove),
            },
            "refusals": self.refusals(),
            "notes": self.notes,
        })
    }
}

impl Change {
    fn to_json(&self) -> Json {
        let Loss { load: Load { ready, unacked, consumers }, bindings, queues } = self.loss;
        json!({
            "action": self.action.name(),
            "object": self.object.to_json(),
            "what": self.object.to_string(),
            "differences": self.differences.iter().map(Difference::to_json).collect::<Vec<_>>(),
            "loss": {
                "messages_ready": ready, "messages_unacknowledged": unacked, "consumers": consumers,
                "bindings": bindings, "queues": queues,
            },
            "refusal": self.refusal,
        })
    }
}

impl Difference {
    fn to_json(&self) -> Json {
        json!({"field": self.field, "before": self.before, "after": self.after})
    }
}

impl Object {
    /// The vhost that it is in, if it is in one.
    #[must_use]
    pub fn vhost(&self) -> Option<&str> {
        match self {
            Self::User(_) | Self::GlobalParameter(_) => None,
            Self::Vhost(vhost)
            | Self::Permission(_, vhost)
            | Self::TopicPermission(_, vhost, _)
            | Self::Limits(vhost)
            | Self::Parameter(vhost, ..)
            | Self::Policy(vhost, ..)
            | Self::Exchange(vhost, _)
            | Self::Queue(vhost, _)
            | Self::Binding(vhost, _) => Some(vhost),
        }
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Vhost(name) => json!({"kind": "vhost", "name": name}),
            Self::User(name) => json!({"kind": "user", "name": name}),
            Self::Permission(user, vhost) => json!({"kind": "permission", "user": user, "vhost": vhost}),
            Self::TopicPermission(user, vhost, exchange) => {
                json!({"kind": "topic_permission", "user": user, "vhost": vhost, "exchange": exchange})
            }
            Self::Limits(vhost) => json!({"kind": "limits", "vhost": vhost}),
            Self::Policy(vhost, kind, name) => {
                let kind = match kind {
                    PolicyKind::User => "policy",
                    PolicyKind::Operator => "operator_policy",
                };
                json!({"kind": kind, "vhost": vhost, "name": name})
            }
            Self::GlobalParameter(name) => json!({"kind": "global_parameter", "name": name}),
            Self::Parameter(vhost, component, name) => {
                json!({"kind": "parameter", "vhost": vhost, "component": component, "name": name})
            }
            Self::Exchange(vhost, name) => json!({"kind": "exchange", "vhost": vhost, "name": name}),
            Self::Queue(vhost, name) => json!({"kind": "queue", "vhost": vhost, "name": name}),
            Self::Binding(vhost, key) => json!({
                "kind": "binding", "vhost": vhost, "source": key.source, "destination": key.destination,
                "destination_type": kind_name(key.destination_kind), "routing_key": key.routing_key,
                "arguments": key.shown_arguments(),
            }),
        }
    }
}

impl BindingKey {
    fn shown_arguments(&self) -> Json {
        // The bytes are those of a table that was encoded here.
        let table = plugin_api::value::Table::decode(&self.arguments).unwrap_or_default();
        Json::Object(crate::vhost::json_table::table_to_json(&table))
    }
}

fn kind_name(kind: DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Queue => "queue",
        DestinationKind::Exchange => "exchange",
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vhost(name) => write!(f, "vhost '{name}'"),
            Self::User(name) => write!(f, "user '{name}'"),
            Self::Permission(user, vhost) => write!(f, "permission of user '{user}' in vhost '{vhost}'"),
            Self::TopicPermission(user, vhost, exchange) => {
                write!(f, "topic permission of user '{user}' for exchange '{exchange}' in vhost '{vhost}'")
            }
            Self::Limits(vhost) => write!(f, "limits of vhost '{vhost}'"),
            Self::Policy(vhost, kind, name) => write!(f, "{kind} '{name}' in vhost '{vhost}'"),
            Self::GlobalParameter(name) => write!(f, "global parameter '{name}'"),
            Self::Parameter(vhost, component, name) => {
                write!(f, "parameter '{name}' of component '{component}' in vhost '{vhost}'")
            }
            Self::Exchange(vhost, name) => write!(f, "exchange '{name}' in vhost '{vhost}'"),
            Self::Queue(vhost, name) => write!(f, "queue '{name}' in vhost '{vhost}'"),
            Self::Binding(vhost, key) => {
                let destination = match key.destination_kind {
                    DestinationKind::Queue => "",
                    DestinationKind::Exchange => "exchange:",
                };
                write!(f, "binding '{} -> {destination}{}'", key.source, key.destination)?;
                if !key.routing_key.is_empty() {
                    write!(f, " with key '{}'", key.routing_key)?;
                }
                if !key.arguments.is_empty() {
                    write!(f, " and arguments {}", key.shown_arguments())?;
                }
                write!(f, " in vhost '{vhost}'")
            }
        }
    }
}

#[cfg(test)]
mod tests;
