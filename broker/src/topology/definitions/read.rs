//! From JSON to typed definitions, with every mistake at its place (semantics 28.1 to 28.12).

use plugin_api::exchange::{BindingSpec, DestinationKind, ExchangeSpec};
use serde_json::{Map, Value as Json};

use super::fields::{Fields, kind, note};
use super::{Definitions, Located, Mistake, UserDefinition};
use crate::access::{HashAlgorithm, PasswordHash, Pattern, TAGS_MAX, TopicPermission, USER_NAME_BYTES_MAX};
use crate::origin::Origin;
use crate::topology::schema::{PermissionDecl, TopicPermissionDecl, UserLimitsDecl};
use crate::vhost::declare::QueueSpec;
use crate::vhost::policy::{ApplyTo, NAME_BYTES_MAX, Policy, PolicyKind, PolicySpec, QueueType};
use crate::vhost::registry::INTERNAL_PREFIX;
use crate::vhost::settings::{PARAMETER_BYTES_MAX, VhostLimits, VhostMetadata, limits_from_json};

/// What a file is imported into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Everything, by the vhosts that the file names.
    Broker,
    /// One vhost, whatever vhost the file names or does not name; users and vhosts in it are left alone (semantics 28.12).
    Vhost(&'a str),
}

/// Reads a file.
///
/// # Errors
/// Every mistake in it.
pub fn read(text: &[u8], scope: Scope<'_>) -> Result<Definitions, Vec<Mistake>> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let parsed: Result<Json, _> = serde_json::from_slice(text);
    let root = match parsed {
        Ok(Json::Object(root)) => root,
        Ok(other) => {
            let cause = format!("expected an object with users, vhosts, queues …, found {}", kind(&other));
            return Err(vec![Mistake::new("", cause, "take what 'rabbitmqctl export_definitions' writes")]);
        }
        Err(error) => return Err(vec![Mistake::new("", format!("not JSON: {error}"), "mend the file")]),
    };
    let mut reader = Reader { scope, release: release(&root), found: Definitions::default(), mistakes: Vec::new() };
    let is_broker = scope == Scope::Broker;
    for (category, each) in CATEGORIES {
        let is_of_broker =
            matches!(*category, "users" | "vhosts" | "permissions" | "topic_permissions" | "global_parameters");
        let Some(entries) = root.get(*category).filter(|entries| !entries.is_null()) else { continue };
        if is_of_broker && !is_broker {
            reader.found.notes.push(format!("{category} are left out: the file is imported into one vhost"));
            continue;
        }
        reader.each(category, entries, *each);
    }
    if reader.mistakes.is_empty() { Ok(reader.found) } else { Err(reader.mistakes) }
}

type Each = fn(&mut Reader<'_>, Fields<'_>);

const CATEGORIES: &[(&str, Each)] = &[
    ("users", |reader, fields| reader.user(fields)),
    ("vhosts", |reader, fields| reader.vhost(fields)),
    ("permissions", |reader, fields| reader.permission(fields)),
    ("topic_permissions", |reader, fields| reader.topic_permission(fields)),
    ("parameters", |reader, fields| reader.parameter(fields)),
    ("global_parameters", |reader, fields| reader.global_parameter(fields)),
    ("policies", |reader, fields| reader.policy(fields)),
    ("exchanges", |reader, fields| reader.exchange(fields)),
    ("queues", |reader, fields| reader.queue(fields)),
    ("bindings", |reader, fields| reader.binding(fields)),
];

/// The release that wrote the file: very old ones did not say how passwords are hashed.
fn release(root: &Map<String, Json>) -> String {
    let text = |key| root.get(key).and_then(Json::as_str);
    text("rabbitmq_version").or_else(|| text("rabbit_version")).unwrap_or_default().to_owned()
}

struct Reader<'s> {
    scope: Scope<'s>,
    release: String,
    found: Definitions,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn each(&mut self, category: &str, entries: &Json, each: Each) {
        let Json::Array(entries) = entries else {
            let cause = format!("expected a list, found {}", kind(entries));
            return note(&mut self.mistakes, Mistake::new(category, cause, "write [ … ], or leave it out"));
        };
        for (index, entry) in entries.iter().enumerate() {
            // Taken out while the entry is read, so that it may note mistakes and definitions at once.
            let mut mistakes = std::mem::take(&mut self.mistakes);
            if let Some(fields) = Fields::new(format!("{category}[{index}]"), entry, &mut mistakes) {
                each(self, fields);
            }
            self.mistakes = mistakes;
        }
    }

    /// The vhost of an entry; none, with a mistake, when nobody says which.
    fn vhost_of(&self, fields: &mut Fields<'_>) -> Option<String> {
        match self.scope {
            Scope::Vhost(vhost) => Some(vhost.to_owned()),
            Scope::Broker if fields.get("vhost").is_none() => {
                fields.mistake("", "'vhost' is missing", "a file of one vhost is imported with --vhost NAME");
                None
            }
            Scope::Broker => fields.text("vhost"),
        }
    }

    fn user(&mut self, mut fields: Fields<'_>) {
        let name = name(&mut fields, "name");
        let password = self.password(&mut fields);
        let tags = match (fields.tags(), fields.get("administrator")) {
            (Some(tags), _) => tags,
            // As releases before 2.3 said it.
            (None, Some(is_administrator)) if *is_administrator == Json::Bool(true) => vec!["administrator".to_owned()],
            (None, _) => Vec::new(),
        };
        if tags.len() > TAGS_MAX {
            fields.mistake("tags", format!("more than {TAGS_MAX} tags"), "leave some out");
        }
        let limits = fields.object("limits").and_then(|limits| {
            let read = limits_from_json(&limits, ["max-connections", "max-channels"], "user-limits");
            read.map_err(|error| fields.mistake("limits", error.to_string(), "known are max-connections, max-channels"))
                .ok()
        });
        let limits = limits.map(|[max_connections, max_channels]| UserLimitsDecl { max_connections, max_channels });
        let loopback_only = fields.get("loopback_only").is_some().then(|| fields.flag("loopback_only", false));
        let path = fields.path;
        if let (Some(name), Some(password)) = (name, password) {
            if password.as_ref().is_some_and(|hash| hash.algorithm() == HashAlgorithm::Md5) {
                self.found
                    .notes
                    .push(format!("{path}: user '{name}' has an MD5 hash, which is weak: set a new password"));
            }
            let value = UserDefinition { name, password, tags, loopback_only, limits };
            self.found.users.push(Located { path, value });
        }
    }

    /// `Some(None)` is a user without a password, none a mistake.
    fn password(&self, fields: &mut Fields<'_>) -> Option<Option<PasswordHash>> {
        let hash = fields.get("password_hash").is_some();
        match fields.get("password") {
            Some(_) if hash => {
                fields.mistake("", "both 'password' and 'password_hash' are given", "keep one of them");
                None
            }
            Some(_) => {
                let password = fields.text("password")?;
                Some((!password.is_empty()).then(|| PasswordHash::of(password.as_bytes(), HashAlgorithm::default())))
            }
            None if !hash => Some(None),
            None => {
                let hash = fields.text("password_hash")?;
                let is_old = self.release.starts_with("3.") && self.release.split('.').nth(1).is_some_and(is_before_6);
                let algorithm = match fields.optional_text("hashing_algorithm") {
                    None if is_old => HashAlgorithm::Md5,
                    None => HashAlgorithm::Sha256,
                    Some(name) => match HashAlgorithm::parse(&name) {
                        Ok(algorithm) => algorithm,
                        Err(error) => {
                            fields.mistake("hashing_algorithm", error.to_string(), "set a new password instead");
                            return None;
                        }
                    },
                };
                if hash.is_empty() {
                    return Some(None);
                }
                match PasswordHash::parse(&hash, algorithm) {
                    Ok(hash) => Some(Some(hash)),
                    Err(error) => {
                        fields.mistake("password_hash", error.to_string(), "take it as it was exported");
                        None
                    }
                }
            }
        }
    }

    fn vhost(&mut self, mut fields: Fields<'_>) {
        let Some(name) = name(&mut fields, "name") else { return };
        let metadata = metadata(&mut fields);
        let limits = limits(&mut fields, "limits");
        if fields.get("tracing") == Some(&Json::Bool(true)) {
            self.found.notes.push(format!("{}: tracing is not imported: switch it on where it is wanted", fields.path));
        }
        let path = fields.path;
        if let Some(limits) = limits.filter(|limits| *limits != VhostLimits::default()) {
            self.found.limits.push(Located { path: path.clone(), value: (name.clone(), limits) });
        }
        self.found.vhosts.push(Located { path, value: (name, metadata) });
    }

    fn permission(&mut self, mut fields: Fields<'_>) {
        let user = fields.text("user");
        let vhost = self.vhost_of(&mut fields);
        let patterns = ["configure", "write", "read"].map(|key| pattern(&mut fields, key));
        if let (Some(user), Some(vhost), [Some(configure), Some(write), Some(read)]) = (user, vhost, patterns) {
            let value = (user, PermissionDecl { vhost, configure, write, read });
            self.found.permissions.push(Located { path: fields.path, value });
        }
    }

    fn topic_permission(&mut self, mut fields: Fields<'_>) {
        let (user, exchange) = (fields.text("user"), fields.text("exchange"));
        let vhost = self.vhost_of(&mut fields);
        let patterns = ["write", "read"].map(|key| fields.text(key));
        let (Some(user), Some(vhost), Some(exchange), [Some(write), Some(read)]) = (user, vhost, exchange, patterns)
        else {
            return;
        };
        let decl = TopicPermissionDecl { vhost, exchange, write, read };
        match TopicPermission::check(&decl) {
            Ok(()) => self.found.topic_permissions.push(Located { path: fields.path, value: (user, decl) }),
            Err((pattern, error)) => {
                let key = if pattern == decl.write { "write" } else { "read" };
                fields.mistake(key, format!("not a regular expression: {error}"), "mend it");
            }
        }
    }

    /// Limits and operator policies travel as parameters (semantics 23.10).
    fn parameter(&mut self, mut fields: Fields<'_>) {
        let (component, name) = (name(&mut fields, "component"), name(&mut fields, "name"));
        let vhost = self.vhost_of(&mut fields);
        let (Some(component), Some(name), Some(vhost)) = (component, name, vhost) else { return };
        match component.as_str() {
            "vhost-limits" => {
                if let Some(limits) = limits(&mut fields, "value") {
                    self.found.limits.push(Located { path: fields.path, value: (vhost, limits) });
                }
            }
            "operator_policy" => {
                let Some(value) = fields.get("value") else {
                    return fields.mistake(
                        "",
                        "'value' is missing",
                        "an operator policy has a pattern and a definition",
                    );
                };
                let mut mistakes = Vec::new();
                if let Some(mut inner) = Fields::new(format!("{}.value", fields.path), value, &mut mistakes) {
                    self.put_policy(&mut inner, vhost, name, PolicyKind::Operator);
                }
                mistakes.into_iter().for_each(|mistake| fields.note(mistake));
            }
            _ => {
                let value = fields.get("value").cloned().unwrap_or(Json::Null);
                check_size(&mut fields, &value);
                let path = fields.path;
                self.found.notes.push(format!(
                    "{path}: parameter '{name}' of component '{component}' is kept and has no effect here"
                ));
                let value = (vhost, (component.into(), name.into()), value);
                self.found.parameters.push(Located { path, value });
            }
        }
    }

    fn global_parameter(&mut self, mut fields: Fields<'_>) {
        let Some(name) = name(&mut fields, "name") else { return };
        let value = fields.get("value").cloned().unwrap_or(Json::Null);
        check_size(&mut fields, &value);
        // Who a broker is, not what it has.
        if !name.starts_with(INTERNAL_PREFIX) {
            self.found.global_parameters.push(Located { path: fields.path, value: (name, value) });
        }
    }

    fn policy(&mut self, mut fields: Fields<'_>) {
        let name = name(&mut fields, "name");
        let vhost = self.vhost_of(&mut fields);
        if let (Some(name), Some(vhost)) = (name, vhost) {
            self.put_policy(&mut fields, vhost, name, PolicyKind::User);
        }
    }

    fn put_policy(&mut self, fields: &mut Fields<'_>, vhost: String, name: String, kind: PolicyKind) {
        let pattern = fields.text("pattern");
        let apply_to = fields.optional_text("apply-to").unwrap_or_else(|| "all".to_owned());
        let apply_to = ApplyTo::parse(&apply_to).map_err(|error| fields.mistake("apply-to", error, "")).ok();
        let priority = match fields.get("priority") {
            None => Some(0),
            Some(priority) => priority.as_i64().or_else(|| {
                fields.mistake("priority", format!("expected a whole number, found {}", self::kind(priority)), "");
                None
            }),
        };
        if fields.get("definition").is_none() {
            fields.mistake("", "'definition' is missing", "a policy without one says nothing");
        }
        let definition = fields.object("definition");
        let (Some(pattern), Some(apply_to), Some(priority), Some(mut definition)) =
            (pattern, apply_to, priority, definition)
        else {
            return;
        };
        let path = fields.path.clone();
        // RabbitMQ 4 has given mirrored queues up, and so must whoever comes from an older release.
        let mirrored: Vec<String> = definition.keys().filter(|key| key.starts_with("ha-")).cloned().collect();
        for key in &mirrored {
            definition.remove(key);
        }
        if !mirrored.is_empty() {
            let rest = if definition.is_empty() { ", and the policy with them: it says nothing else" } else { "" };
            let keys = mirrored.join(", ");
            self.found.notes.push(format!("{path}: {kind} '{name}': {keys} of mirrored queues are left out{rest}"));
            if definition.is_empty() {
                return;
            }
        }
        let spec = PolicySpec { name, pattern, apply_to, priority, definition };
        match Policy::new(kind, spec.clone(), Origin::Runtime) {
            Ok(policy) => {
                let without_effect = policy.keys_without_effect();
                if !without_effect.is_empty() {
                    let keys = without_effect.join(", ");
                    self.found.notes.push(format!("{path}: {kind} '{}': {keys} have no effect here", spec.name));
                }
                self.found.policies.push(Located { path, value: (vhost, kind, spec) });
            }
            Err(error) => {
                let place = match (&error.key, error.part) {
                    (Some(key), _) => format!("definition.{key}"),
                    (None, part) => part.to_owned(),
                };
                fields.mistake(&place, error.reason, "mend it or leave it out");
            }
        }
    }

    fn exchange(&mut self, mut fields: Fields<'_>) {
        let name = fields.text("name");
        let vhost = self.vhost_of(&mut fields);
        let kind = fields.text("type");
        let flags = [("durable", true), ("auto_delete", false), ("internal", false)];
        let [durable, auto_delete, internal] = flags.map(|(key, default)| fields.flag(key, default));
        let arguments = fields.arguments();
        let (Some(name), Some(vhost), Some(kind)) = (name, vhost, kind) else { return };
        if self.is_reserved(&fields.path, "exchange", &name) || !check_length(&mut fields, "name", &name) {
            return;
        }
        let value = ExchangeSpec { vhost, name, kind, durable, auto_delete, internal, arguments };
        self.found.exchanges.push(Located { path: fields.path, value });
    }

    fn queue(&mut self, mut fields: Fields<'_>) {
        let name = name(&mut fields, "name");
        let vhost = self.vhost_of(&mut fields);
        let (durable, auto_delete) = (fields.flag("durable", true), fields.flag("auto_delete", false));
        let mut arguments = fields.arguments();
        let kind = fields.optional_text("type").unwrap_or_default();
        let (Some(name), Some(vhost)) = (name, vhost) else { return };
        if fields.flag("exclusive", false) {
            self.found.notes.push(format!("{}: queue '{name}' is exclusive and left out", fields.path));
            return;
        }
        if self.is_reserved(&fields.path, "queue", &name) {
            return;
        }
        // Later releases say the type a second time, which is the only time in files that other tools write.
        if !matches!(kind.as_str(), "" | "classic" | "rabbit_classic_queue") && arguments.get("x-queue-type").is_none()
        {
            let kind = QueueType::parse_default(&kind).map_or(kind, |kind| kind.name().to_owned());
            arguments.insert("x-queue-type", kind.as_str());
        }
        let value = (vhost, QueueSpec { name, durable, exclusive: false, auto_delete, arguments });
        self.found.queues.push(Located { path: fields.path, value });
    }

    fn binding(&mut self, mut fields: Fields<'_>) {
        let (source, destination) = (fields.text("source"), fields.text("destination"));
        let vhost = self.vhost_of(&mut fields);
        let destination_kind = match fields.text("destination_type").as_deref() {
            Some("queue") => Some(DestinationKind::Queue),
            Some("exchange") => Some(DestinationKind::Exchange),
            Some(other) => {
                fields.mistake("destination_type", format!("'{other}' is not known here"), "one of queue, exchange");
                None
            }
            None => None,
        };
        let routing_key = fields.optional_text("routing_key").unwrap_or_default();
        check_length(&mut fields, "routing_key", &routing_key);
        let arguments = fields.arguments();
        let (Some(source), Some(destination), Some(vhost), Some(destination_kind)) =
            (source, destination, vhost, destination_kind)
        else {
            return;
        };
        let path = fields.path;
        if source.is_empty() {
            self.found.notes.push(format!("{path}: a binding from the default exchange is there without being made"));
            return;
        }
        // The queue was left out, too.
        if destination_kind == DestinationKind::Queue && destination.starts_with("amq.") {
            self.found.notes.push(format!("{path}: the binding to queue '{destination}' is left out with the queue"));
            return;
        }
        let value = (vhost, source, BindingSpec { destination, destination_kind, routing_key, arguments });
        self.found.bindings.push(Located { path, value });
    }

    /// Names that begin with `amq.` are the server's: they are skipped (semantics 28.11).
    fn is_reserved(&mut self, path: &str, what: &str, name: &str) -> bool {
        let is_reserved = name.starts_with("amq.") || (what == "exchange" && name.is_empty());
        if is_reserved {
            self.found.notes.push(format!("{path}: {what} '{name}' is the server's own and left out"));
        }
        is_reserved
    }
}

fn is_before_6(minor: &str) -> bool {
    minor.parse::<u32>().is_ok_and(|minor| minor < 6)
}

/// A name of 1 to 255 bytes.
fn name(fields: &mut Fields<'_>, key: &str) -> Option<String> {
    let name = fields.text(key)?;
    if name.is_empty() {
        fields.mistake(key, "the name is empty", "give it one");
        return None;
    }
    check_length(fields, key, &name).then_some(name)
}

fn check_length(fields: &mut Fields<'_>, key: &str, text: &str) -> bool {
    const { assert!(NAME_BYTES_MAX == USER_NAME_BYTES_MAX) };
    if text.len() > NAME_BYTES_MAX {
        fields.mistake(key, format!("longer than {NAME_BYTES_MAX} bytes"), format!("this one has {}", text.len()));
        return false;
    }
    true
}

fn check_size(fields: &mut Fields<'_>, value: &Json) {
    if value.to_string().len() > PARAMETER_BYTES_MAX {
        fields.mistake("value", format!("longer than {PARAMETER_BYTES_MAX} bytes"), "leave it out");
    }
}

fn pattern(fields: &mut Fields<'_>, key: &str) -> Option<String> {
    let pattern = fields.text(key)?;
    match Pattern::new(&pattern) {
        Ok(_) => Some(pattern),
        Err(error) => {
            fields.mistake(key, format!("not a regular expression: {error}"), "mend it");
            None
        }
    }
}

fn limits(fields: &mut Fields<'_>, key: &str) -> Option<VhostLimits> {
    let limits = fields.object(key)?;
    VhostLimits::from_json(&limits)
        .map_err(|error| fields.mistake(key, error.to_string(), "known are max-connections, max-queues"))
        .ok()
}

/// Description, tags and default queue type stand in `metadata`, the first two also beside it.
fn metadata(fields: &mut Fields<'_>) -> Option<VhostMetadata> {
    let inner = fields.object("metadata");
    let mut metadata = VhostMetadata::default();
    let mut has_any = false;
    let beside = (fields.optional_text("description"), fields.tags());
    let inner_value = inner.map(Json::Object);
    let mut mistakes = Vec::new();
    if let Some(value) = &inner_value
        && let Some(mut inner) = Fields::new(format!("{}.metadata", fields.path), value, &mut mistakes)
    {
        has_any = inner.get("description").is_some() || inner.get("tags").is_some();
        metadata.description = inner.optional_text("description").unwrap_or_default();
        metadata.tags = inner.tags().unwrap_or_default();
        metadata.protected_from_deletion = inner.flag("protected_from_deletion", false);
        has_any |= metadata.protected_from_deletion;
        // Erlang's word for nothing has come into files (semantics 28.3).
        let kind = inner.optional_text("default_queue_type").filter(|kind| kind != "undefined" && !kind.is_empty());
        match kind.map(|kind| QueueType::parse_default(&kind)) {
            Some(Ok(kind)) => {
                has_any = true;
                metadata.default_queue_type = Some(kind);
            }
            Some(Err(error)) => inner.mistake("default_queue_type", error.to_string(), "one of classic, quorum"),
            None => {}
        }
    }
    mistakes.into_iter().for_each(|mistake| fields.note(mistake));
    let (description, tags) = beside;
    has_any |= description.is_some() || tags.is_some();
    metadata.description = description.unwrap_or(metadata.description);
    metadata.tags = tags.unwrap_or(metadata.tags);
    if let Err(error) = metadata.check() {
        fields.mistake("", error.to_string(), "make it shorter");
    }
    has_any.then_some(metadata)
}
