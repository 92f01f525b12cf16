//! A topology file carried out in this process, where nobody is: for questions that need no broker.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::plugins::Plugins;
use super::{exit, script, topology};
use crate::config::{Diagnostic, Loaded};
use crate::dry_run::{DryRun, dry_run};
use crate::hooks::HookSet;
use crate::message::Message;
use crate::routing::explain::Asking;
use crate::topology::scratch::{Rules, Scratch};
use crate::vhost::Error;
use crate::vhost::authority::{Caller, Operator};

/// See the module.
#[derive(Debug)]
pub(super) struct WithoutBroker {
    /// The file.
    pub(super) loaded: Loaded,
    scratch: Scratch,
    hooks: HookSet,
}

/// Why a message is not published.
#[derive(Debug)]
pub(super) enum Refused {
    /// There is no such vhost in the file.
    NoVhost,
    /// There is no such user in the file.
    NoUser,
    /// As a broker would refuse it.
    ByRules(Box<Error>),
}

impl WithoutBroker {
    /// Reads and carries out a file; its plugins are loaded, as for a run. Mistakes are printed.
    ///
    /// # Errors
    /// The exit code for them.
    pub(super) fn new(file: &Path, plugin_dirs: &[PathBuf]) -> Result<Self, u8> {
        let loaded = topology::load(file)?;
        let print = |diagnostics: &[Diagnostic]| {
            diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            exit::DATA
        };
        let mut diagnostics = Vec::new();
        let plugins = Plugins { folders: plugin_dirs, load: true };
        let registry = plugins
            .loaded(&loaded, &mut diagnostics)
            .map_err(|error| print(&[loaded.error_of_file(&error.to_string())]))?;
        diagnostics.extend(loaded.check_exchange_types(&registry.exchange_type_names()));
        diagnostics.extend(loaded.judge_exchanges(&registry, crate::topology::check::Types::All));
        diagnostics.extend(script::compile_errors(&loaded));
        if diagnostics.iter().any(Diagnostic::is_error) {
            return Err(print(&diagnostics));
        }
        let scratch = Scratch::build(&loaded.topology, &Arc::new(registry), Rules::of(&loaded.topology));
        let scratch = scratch.map_err(|errors| {
            errors.iter().for_each(|error| eprintln!("{}: {error}", file.display()));
            exit::DATA
        })?;
        let hooks = HookSet::load(&loaded.topology.hooks).map_err(|errors| {
            errors.iter().for_each(|error| eprintln!("{error}"));
            exit::DATA
        })?;
        Ok(Self { loaded, scratch, hooks })
    }

    /// Publishes as far as routing goes, as a user of the file or as somebody who may do everything.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(super) fn publish(&self, vhost: &str, user: Option<&str>, message: Arc<Message>) -> Result<DryRun, Refused> {
        let vhost = self.scratch.vhosts.get(vhost).ok_or(Refused::NoVhost)?;
        let run = match user {
            None => dry_run(&vhost, &self.hooks, &mut Operator, message, Asking::Freely),
            Some(name) => {
                let access = &self.scratch.access;
                let user = access.user(name).ok_or(Refused::NoUser)?;
                let mut by = Caller { user, access: Arc::clone(access), vhost: Arc::clone(&vhost.name) };
                dry_run(&vhost, &self.hooks, &mut by, message, Asking::Freely)
            }
        };
        run.map_err(|error| Refused::ByRules(Box::new(error)))
    }
}
