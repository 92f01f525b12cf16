//! Definitions of a running broker; those of a data folder are in [`crate::cli::definitions`].

use std::path::Path;

use serde_json::Value as Json;

use super::http::{Failure, path};
use super::{Remote, tell, with_api};

/// Everything but messages, of all vhosts or of one.
pub(in crate::cli) fn export(remote: &Remote, vhost: Option<&str>, write: impl FnOnce(&Json) -> u8) -> u8 {
    with_api(remote, |api| Ok(write(&api.get(&of(vhost))?)))
}

/// Takes over what a file has, or only says what that would be.
pub(in crate::cli) fn import(remote: &Remote, file: &Path, vhost: Option<&str>, dry_run: bool) -> u8 {
    with_api(remote, |api| {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::NoInput(format!("{} cannot be read: {error}", file.display())))?;
        let definitions: Json = serde_json::from_str(text.trim_start_matches('\u{FEFF}'))
            .map_err(|error| Failure::Data(format!("{} is no JSON: {error}", file.display())))?;
        if dry_run {
            let there = api.get(&of(vhost))?;
            for line in SECTIONS.iter().filter_map(|section| section.compare(&definitions, &there, vhost)) {
                tell(&line);
            }
            return Ok(tell(&format!("{}: nothing was imported", file.display())));
        }
        api.post(&of(vhost), &definitions)?;
        Ok(tell(&format!("{}: imported", file.display())))
    })
}

/// A list of definitions.
struct Section {
    key: &'static str,
    name: &'static str,
    /// What tells its items apart.
    identity: &'static [&'static str],
    /// Whether an item that is there becomes what the file says; otherwise it stays as it is.
    is_overwritten: bool,
}

impl Section {
    const fn new(key: &'static str, name: &'static str, identity: &'static [&'static str], overwrites: bool) -> Self {
        Self { key, name, identity, is_overwritten: overwrites }
    }

    /// What an import would do; none where the file has nothing of the kind.
    fn compare(&self, file: &Json, there: &Json, vhost: Option<&str>) -> Option<String> {
        let items = |of: &Json| of.get(self.key).and_then(Json::as_array).cloned().unwrap_or_default();
        let identity = |item: &Json| -> Vec<Json> {
            // Within one vhost its name says nothing.
            let keys = self.identity.iter().filter(|key| vhost.is_none() || **key != "vhost");
            keys.map(|key| item.get(*key).cloned().unwrap_or_default()).collect()
        };
        let (wanted, there) = (items(file), items(there));
        if wanted.is_empty() {
            return None;
        }
        let known: Vec<&Json> =
            wanted.iter().filter(|item| there.iter().any(|other| identity(other) == identity(item))).collect();
        let same = known.iter().filter(|item| there.contains(item)).count();
        let (new, other) = (wanted.len() - known.len(), known.len() - same);
        let fate = if self.is_overwritten { "overwritten" } else { "left as they are, which is different" };
        Some(format!("{}: {new} new, {other} {fate}, {same} the same", self.name))
    }
}

/// In the order of an import.
const SECTIONS: [Section; 10] = [
    Section::new("users", "users", &["name"], true),
    Section::new("vhosts", "vhosts", &["name"], true),
    Section::new("permissions", "permissions", &["vhost", "user"], true),
    Section::new("exchanges", "exchanges", &["vhost", "name"], false),
    Section::new("topic_permissions", "topic permissions", &["vhost", "user", "exchange"], true),
    Section::new("global_parameters", "global parameters", &["name"], true),
    Section::new("policies", "policies", &["vhost", "name"], true),
    Section::new("parameters", "parameters", &["vhost", "component", "name"], true),
    Section::new("queues", "queues", &["vhost", "name"], false),
    Section::new(
        "bindings",
        "bindings",
        &["vhost", "source", "destination_type", "destination", "routing_key", "arguments"],
        false,
    ),
];

fn of(vhost: Option<&str>) -> String {
    match vhost {
        None => "/definitions".to_owned(),
        Some(vhost) => path("definitions", &[vhost]),
    }
}
