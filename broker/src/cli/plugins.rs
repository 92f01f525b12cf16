//! What `check` says about plugins and the exchange types that they bring.
//!
//! A check must be safe to run on a file that somebody else wrote, so plugins are inspected and not loaded, unless that is asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::BUILTIN_EXCHANGE_TYPES;
use crate::config::{Diagnostic, Loaded};
use crate::plugin_host::inspect::inspect;
use crate::plugin_host::{LoadError, LoadRequest, Registry};
use crate::topology::check::{Item, Part};
use crate::topology::names::nearest;

/// How to look at plugins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plugins<'a> {
    /// Folders with plugins, beside those that the file names.
    pub(super) folders: &'a [PathBuf],
    /// Load them, as a run would.
    pub(super) load: bool,
}

impl Plugins<'_> {
    /// Adds what speaks against plugins and exchange types, and returns the types that could not be judged.
    pub(super) fn check(self, loaded: &Loaded, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
        if self.load {
            match self.types(loaded, diagnostics) {
                Ok(types) => diagnostics.extend(loaded.check_exchange_types(&types)),
                Err(error) => diagnostics.push(loaded.error_of_file(&error.to_string())),
            }
            return Vec::new();
        }
        for (index, plugin) in loaded.topology.plugins.iter().enumerate() {
            if let Err(error) = inspect(&plugin.path, plugin.sha256.as_deref()) {
                diagnostics.push(refused(loaded, index, &error));
            }
        }
        if loaded.topology.plugins.is_empty() && self.folders.is_empty() {
            diagnostics.extend(loaded.check_exchange_types(BUILTIN_EXCHANGE_TYPES));
            return Vec::new();
        }
        unknown_types(loaded, diagnostics)
    }

    /// Loads the plugins in the order of a run and names all exchange types.
    fn types(self, loaded: &Loaded, diagnostics: &mut Vec<Diagnostic>) -> Result<Vec<String>, LoadError> {
        let mut registry = Registry::builtin()?;
        for (index, plugin) in loaded.topology.plugins.iter().enumerate() {
            let request =
                LoadRequest { path: plugin.path.clone(), sha256: plugin.sha256.clone(), config: plugin.config.clone() };
            if let Err(error) = registry.load_file(&request) {
                diagnostics.push(refused(loaded, index, &error));
            }
        }
        for folder in self.folders {
            registry.load_dir(folder).into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        Ok(registry.exchange_type_names())
    }
}

fn refused(loaded: &Loaded, index: usize, error: &LoadError) -> Diagnostic {
    let place = Item::Plugin(index).part(Part::Whole);
    let cause = format!("the plugin cannot be used: {error}");
    if loaded.topology.plugins.get(index).is_some_and(|plugin| plugin.required) {
        return loaded.error_at(
            &place,
            &cause,
            "the broker does not start without it, unless it has 'required: false'",
        );
    }
    loaded.warning_at(&place, &cause, "the broker starts without it")
}

/// Types that are not built in may come from a plugin; one that looks like a slip is worth a warning.
fn unknown_types(loaded: &Loaded, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
    let mut unjudged = BTreeSet::new();
    for (at, vhost) in loaded.topology.vhosts.iter().enumerate() {
        for (index, exchange) in vhost.exchanges.iter().enumerate() {
            let kind = exchange.kind.as_str();
            if BUILTIN_EXCHANGE_TYPES.contains(&kind) {
                continue;
            }
            unjudged.insert(kind.to_owned());
            if let Some(meant) = nearest(kind, BUILTIN_EXCHANGE_TYPES.iter().copied()) {
                let place = Item::Exchange(at, index).part(Part::Kind);
                let cause = format!("exchange type '{kind}' is not built in");
                diagnostics.push(loaded.warning_at(&place, &cause, &format!("did you mean '{meant}'?")));
            }
        }
    }
    unjudged.into_iter().collect()
}
