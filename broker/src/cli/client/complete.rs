//! Live names for shell completion: `source <(COMPLETE=bash broker)`.
//!
//! A shell waits while somebody presses the tab key, so an answer that takes long, or an error, is no names at all.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use serde_json::Value as Json;

use super::context::{self, Contexts};
use super::http::{Api, path};
use super::{Remote, output};

const PATIENCE: Duration = Duration::from_millis(800);
/// More than anybody reads.
const NAMES_MAX: usize = 200;

pub(in crate::cli) fn contexts(typed: &OsStr) -> Vec<CompletionCandidate> {
    let all = context::file().and_then(|file| context::load(&file)).unwrap_or_else(|_| Contexts::default());
    matching(typed, all.contexts.into_keys())
}

pub(in crate::cli) fn vhosts(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, |_| "/vhosts?columns=name".to_owned())
}

pub(in crate::cli) fn users(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, |_| "/users?columns=name".to_owned())
}

pub(in crate::cli) fn queues(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, |vhost| format!("{}?columns=name&page=1&page_size=500", path("queues", &[vhost])))
}

pub(in crate::cli) fn exchanges(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, |vhost| format!("{}?columns=name", path("exchanges", &[vhost])))
}

pub(in crate::cli) fn connections(typed: &OsStr) -> Vec<CompletionCandidate> {
    names(typed, |_| "/connections?columns=name".to_owned())
}

fn names(typed: &OsStr, of: impl FnOnce(&str) -> String) -> Vec<CompletionCandidate> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // What stands on the line already is not known here; variables and the context are.
    let remote = Remote {
        url: variable("BROKER_URL"),
        user: variable("BROKER_USER"),
        password: variable("BROKER_PASSWORD"),
        ..Remote::default()
    };
    let Ok(context) = context::chosen(variable("BROKER_CONTEXT").as_deref()) else { return Vec::new() };
    let Ok(api) = Api::with_context(&remote, context, PATIENCE) else { return Vec::new() };
    let vhost = variable("BROKER_VHOST").unwrap_or_else(|| api.vhost.clone());
    let Ok(answer) = api.get(&of(&vhost)) else { return Vec::new() };
    let items = answer.get("items").unwrap_or(&answer).as_array().cloned().unwrap_or_default();
    let name = |item: &Json| output::at(item, "name").and_then(Json::as_str).map(str::to_owned);
    matching(typed, items.iter().filter_map(name).filter(|name| !name.is_empty()))
}

fn matching(typed: &OsStr, names: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    names.filter(|name| name.starts_with(&*typed)).take(NAMES_MAX).map(CompletionCandidate::new).collect()
}
