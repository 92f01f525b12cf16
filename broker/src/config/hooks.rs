//! `hooks` of the broker, of a vhost, of an exchange and of a queue.

use std::{path::Path, time::Duration};

use super::{
    reader::{Fields, Hint, Reader, Section},
    yaml::{Node, Value},
};
use crate::{
    hooks::{HookDecl, OnError, Scope},
    topology::{
        check::{Item, Part},
        names::nearest,
        schema::Topology,
    },
};

/// Hooks of the broker may name the vhost, and the exchange or queue they are about, which reaches predeclared exchanges, too.
pub(super) const BROKER_HOOK: Section = Section {
    what: "a hook",
    keys: &[
        "script",
        "name",
        "on_error",
        "time_limit",
        "memory_limit",
        "body",
        "shadow",
        "watch",
        "dead_letter_exchange",
        "vhost",
        "exchange",
        "queue",
    ],
    hints: HINTS,
};

const VHOST_HOOK: Section = Section {
    what: "a hook of a vhost",
    keys: &[
        "script",
        "name",
        "on_error",
        "time_limit",
        "memory_limit",
        "body",
        "shadow",
        "watch",
        "dead_letter_exchange",
        "exchange",
        "queue",
    ],
    hints: HINTS,
};

const EXCHANGE_HOOK: Section = Section {
    what: "a hook of an exchange",
    keys: &[
        "script",
        "name",
        "on_error",
        "time_limit",
        "memory_limit",
        "body",
        "shadow",
        "watch",
        "dead_letter_exchange",
    ],
    hints: HINTS,
};

const QUEUE_HOOK: Section = Section {
    what: "a hook of a queue",
    keys: &["script", "name", "on_error", "time_limit", "memory_limit", "body", "shadow", "watch"],
    hints: QUEUE_HINTS,
};

const HINTS: &[(&str, Hint)] = &[
    ("path", Hint::Instead("did you mean 'script'?")),
    ("file", Hint::Instead("did you mean 'script'?")),
    ("dead_letter", Hint::Instead("did you mean 'dead_letter_exchange'?")),
];

const QUEUE_HINTS: &[(&str, Hint)] = &[
    ("path", Hint::Instead("did you mean 'script'?")),
    ("file", Hint::Instead("did you mean 'script'?")),
    ("dead_letter_exchange", Hint::Instead("what dies in a queue goes where its 'dead_letter' says")),
];

const ON_ERROR: &[(&str, OnError)] = &[
    ("reject", OnError::Reject),
    ("pass", OnError::Pass),
    ("drop", OnError::Drop),
    ("dead_letter", OnError::DeadLetter),
];

/// A hook that may take longer would hold up every connection on its thread.
const TIME_LIMIT_MS_MAX: u64 = 1000;

/// Each worker thread has its own copy.
const MEMORY_LIMIT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;

pub(super) fn of_broker(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    read(reader, node, &Scope::Broker, &BROKER_HOOK, &mut topology.hooks);
}

pub(super) fn of_vhost(reader: &mut Reader<'_>, node: &Node, vhost: &str, hooks: &mut Vec<HookDecl>) {
    read(reader, node, &Scope::Vhost(vhost.to_owned()), &VHOST_HOOK, hooks);
}

pub(super) fn of_exchange(
    reader: &mut Reader<'_>,
    node: &Node,
    (vhost, exchange): (&str, &str),
    hooks: &mut Vec<HookDecl>,
) {
    let scope = Scope::Exchange { vhost: vhost.to_owned(), exchange: exchange.to_owned() };
    read(reader, node, &scope, &EXCHANGE_HOOK, hooks);
}

pub(super) fn of_queue(reader: &mut Reader<'_>, node: &Node, (vhost, queue): (&str, &str), hooks: &mut Vec<HookDecl>) {
    let scope = Scope::Queue { vhost: vhost.to_owned(), queue: queue.to_owned() };
    read(reader, node, &scope, &QUEUE_HOOK, hooks);
}

fn read(reader: &mut Reader<'_>, node: &Node, scope: &Scope, section: &Section, hooks: &mut Vec<HookDecl>) {
    for item in reader.items(node) {
        let at = Item::Hook(hooks.len());
        reader.place(at, Part::Whole, item.span);
        if matches!(item.value, Value::Scalar(_)) {
            hooks.extend(hook(reader, item, scope.clone(), hooks));
            continue;
        }
        let Some(fields) = reader.fields(item, section) else { continue };
        let Some(script) = fields.get("script") else {
            reader.error(item.span, "a hook needs a script", "add 'script: …' with a .lua file");
            continue;
        };
        reader.place(at, Part::Whole, script.span);
        let scope = narrowed(reader, scope, &fields, at);
        let hook = hook(reader, script, scope, hooks);
        let Some(mut hook) = hook else { continue };
        options(reader, &fields, &mut hook);
        if let Some(name) = fields.get("name") {
            reader.place(at, Part::Whole, name.span);
        }
        hooks.push(hook);
    }
}

/// A hook with the defaults of everything but its script; also when the file is missing, so that the rest is checked.
fn hook(reader: &mut Reader<'_>, script: &Node, scope: Scope, before: &[HookDecl]) -> Option<HookDecl> {
    let path = reader.path(script)?;
    if !path.is_file() {
        let shown = match &script.value {
            Value::Scalar(scalar) => scalar.text.as_str(),
            Value::List(_) | Value::Mapping(_) => "",
        };
        if path.is_dir() {
            reader.error(script.span, format!("hook script '{shown}' is a folder"), "give a .lua file in it");
            return None;
        }
        let cause = format!("hook script '{shown}' does not exist");
        let help = neighbour(&path).map_or_else(
            || "paths are relative to this file's folder".to_owned(),
            |meant| format!("did you mean '{}'?", Path::new(shown).with_file_name(meant).display()),
        );
        reader.error(script.span, cause, help);
    }
    let stem = path.file_stem().map_or_else(|| "hook".to_owned(), |stem| stem.to_string_lossy().into_owned());
    Some(HookDecl::new(free_name(&stem, before), path, scope))
}

/// The same script at several places needs several names; given names are left as they are.
fn free_name(stem: &str, before: &[HookDecl]) -> String {
    let is_taken = |name: &str| before.iter().any(|hook| hook.name == name);
    if !is_taken(stem) {
        return stem.to_owned();
    }
    let mut number = 2usize;
    while is_taken(&format!("{stem}-{number}")) {
        number += 1;
    }
    format!("{stem}-{number}")
}

fn options(reader: &mut Reader<'_>, fields: &Fields<'_>, hook: &mut HookDecl) {
    if let Some(name) = fields.get("name").and_then(|node| reader.text(node)) {
        hook.name = name;
    }
    if let Some(on_error) = fields.get("on_error").and_then(|node| reader.choice(node, ON_ERROR)) {
        hook.on_error = on_error;
    }
    if let Some(ms) = fields.get("time_limit").and_then(|node| reader.duration_ms(node, 1..=TIME_LIMIT_MS_MAX)) {
        hook.time_limit = Duration::from_millis(ms);
    }
    if let Some(bytes) = fields.get("memory_limit").and_then(|node| reader.size(node, MEMORY_LIMIT_BYTES)) {
        hook.memory_limit_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    for (key, flag) in [("body", &mut hook.body), ("shadow", &mut hook.shadow), ("watch", &mut hook.watch)] {
        if let Some(is_set) = fields.get(key).and_then(|node| reader.flag(node)) {
            *flag = is_set;
        }
    }
    if let Some(exchange) = fields.get("dead_letter_exchange").and_then(|node| reader.text(node)) {
        hook.dead_letter_exchange = Some(exchange);
    }
}

/// The scope with the vhost, exchange or queue that the hook itself names.
fn narrowed(reader: &mut Reader<'_>, scope: &Scope, fields: &Fields<'_>, at: Item) -> Scope {
    let mut text = |key, part| {
        let node = fields.get(key)?;
        reader.place(at, part, node.span);
        Some((reader.text(node)?, node.span))
    };
    let vhost = text("vhost", Part::Vhost);
    let exchange = text("exchange", Part::Exchange);
    let queue = text("queue", Part::Queue);
    if let (Some(_), Some((_, span))) = (&exchange, &queue) {
        reader.error(*span, "this hook names an exchange and a queue", "declare it twice");
        return scope.clone();
    }
    if let Some((queue, span)) = queue {
        let vhost = match (scope, vhost) {
            (Scope::Vhost(vhost), _) => vhost.clone(),
            (_, Some((vhost, _))) => vhost,
            _ => {
                reader.error(span, "this hook names a queue without its vhost", "add 'vhost: …'");
                return Scope::Broker;
            }
        };
        return Scope::Queue { vhost, queue };
    }
    match (scope, vhost, exchange) {
        (Scope::Broker, Some((vhost, _)), None) => Scope::Vhost(vhost),
        (Scope::Broker, Some((vhost, _)), Some((exchange, _))) => Scope::Exchange { vhost, exchange },
        (Scope::Vhost(vhost), _, Some((exchange, _))) => Scope::Exchange { vhost: vhost.clone(), exchange },
        (Scope::Broker, None, Some((_, span))) => {
            reader.error(span, "this hook names an exchange without its vhost", "add 'vhost: …'");
            Scope::Broker
        }
        (scope, _, _) => scope.clone(),
    }
}

/// A file in the same folder with nearly this name.
fn neighbour(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let files: Vec<String> = std::fs::read_dir(path.parent()?)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    nearest(wanted, files.iter().map(String::as_str)).map(str::to_owned)
}
