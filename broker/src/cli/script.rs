//! Hook scripts on the command line.

use crate::{
    config::{Diagnostic, Loaded},
    hooks::HookSet,
    topology::check::{Item, Part},
};

/// Compiles the scripts of a topology; each mistake is reported where the topology names the script.
pub(super) fn compile_errors(loaded: &Loaded) -> Vec<Diagnostic> {
    let hooks = &loaded.topology.hooks;
    let Err(errors) = HookSet::load(hooks) else { return Vec::new() };
    errors
        .into_iter()
        .map(|error| {
            let index = hooks.iter().position(|hook| hook.name == error.hook).unwrap_or(0);
            let cause = format!("hook '{}' cannot be used: {}", error.hook, error.text);
            let line = error.line.map_or_else(String::new, |line| format!(":{line}"));
            let help = format!("see {}{line}", error.file.display());
            loaded.error_at(&Item::Hook(index).part(Part::Whole), &cause, &help)
        })
        .collect()
}
