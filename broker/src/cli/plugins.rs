//! What `check` says about plugins and the exchange types that they bring.
//!
//! A check must be safe to run on a file that somebody else wrote, so plugins are inspected and not loaded, unless that is asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::access::INTERNAL;
use crate::config::{Diagnostic, Loaded};
use crate::plugin_host::inspect::inspect;
use crate::plugin_host::{LoadError, LoadRequest, Registry};
use crate::topology::check::{Item, Part, Types};
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
        let is_known = self.load || (loaded.topology.plugins.is_empty() && self.folders.is_empty());
        let registry = if is_known { self.loaded(loaded, diagnostics) } else { Registry::builtin() };
        let registry = match registry {
            Ok(registry) => registry,
            Err(error) => {
                diagnostics.push(loaded.error_of_file(&error.to_string()));
                return Vec::new();
            }
        };
        if is_known {
            diagnostics.extend(loaded.check_exchange_types(&registry.exchange_type_names()));
            diagnostics.extend(loaded.judge_exchanges(&registry, Types::All));
            diagnostics.extend(unknown_backends(loaded, &registry));
            return Vec::new();
        }
        for (index, plugin) in loaded.topology.plugins.iter().enumerate() {
            if let Err(error) = inspect(&plugin.path, plugin.sha256.as_deref()) {
                diagnostics.push(refused(loaded, index, &error));
            }
        }
        diagnostics.extend(loaded.judge_exchanges(&registry, Types::Some));
        unknown_types(loaded, &registry, diagnostics)
    }

    /// All exchange types: loads the plugins in the order of a run.
    pub(super) fn loaded(self, loaded: &Loaded, diagnostics: &mut Vec<Diagnostic>) -> Result<Registry, LoadError> {
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
        Ok(registry)
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

fn unknown_backends(loaded: &Loaded, registry: &Registry) -> Vec<Diagnostic> {
    let known = registry.auth_backend_kinds();
    let is_known = |kind: &str| kind == INTERNAL || known.iter().any(|known| known == kind);
    let unknown = loaded.topology.auth.iter().filter(|backend| !is_known(&backend.kind));
    let of = || [INTERNAL].into_iter().chain(known.iter().map(String::as_str)).collect::<Vec<_>>().join(", ");
    unknown
        .map(|backend| {
            let kind = &backend.kind;
            loaded.error_of_file(&format!("auth: no plugin offers a backend of the kind '{kind}': use one of {}", of()))
        })
        .collect()
}

/// Types that are not built in may come from a plugin; one that looks like a slip is worth a warning.
fn unknown_types(loaded: &Loaded, registry: &Registry, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
    let known = registry.exchange_type_names();
    let mut unjudged = BTreeSet::new();
    for (at, vhost) in loaded.topology.vhosts.iter().enumerate() {
        for (index, exchange) in vhost.exchanges.iter().enumerate() {
            let kind = exchange.kind.as_str();
            if known.iter().any(|known| known == kind) {
                continue;
            }
            unjudged.insert(kind.to_owned());
            if let Some(meant) = nearest(kind, known.iter().map(String::as_str)) {
                let place = Item::Exchange(at, index).part(Part::Kind);
                let cause = format!("exchange type '{kind}' is not built in");
                diagnostics.push(loaded.warning_at(&place, &cause, &format!("did you mean '{meant}'?")));
            }
        }
    }
    unjudged.into_iter().collect()
}
