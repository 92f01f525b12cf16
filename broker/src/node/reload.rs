//! Reading the topology file again while the node runs: on SIGHUP, and scripts also when one that is watched changes.
//!
//! What the file says is put into force by [`FileInForce`], as a whole or not at all; scripts alone by the broker's hooks.
//! What is wrong is told in the log, with file and line, and everything stays as it was.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::timeout;

use super::apply_file::FileInForce;
use crate::hooks::{HookDecl, HookError, Reloaded};
use crate::runtime::Broker;

/// An editor writes a file in several steps. They are over when so long nothing has happened.
const QUIET: Duration = Duration::from_millis(50);
/// Somebody who writes all the time is not waited for any longer than this.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Reloader {
    broker: Arc<Broker>,
    file: Arc<FileInForce>,
}

/// Why something is loaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Hangup,
    Changed,
}

impl Reloader {
    pub(super) fn new(broker: Arc<Broker>, file: FileInForce) -> Self {
        Self { broker, file: Arc::new(file) }
    }

    /// Waits for reasons to load something again, for ever.
    pub(super) async fn run(self, mut hangup: Signal) {
        let mut watch = Watch::of(self.broker.hooks.current().decls());
        loop {
            let cause = tokio::select! {
                received = hangup.recv() => match received {
                    Some(()) => Cause::Hangup,
                    None => return,
                },
                () = watch.changed() => Cause::Changed,
            };
            let (broker, file) = (Arc::clone(&self.broker), Arc::clone(&self.file));
            // Reads files, and scripts take their time to load.
            let done = tokio::task::spawn_blocking(move || match cause {
                Cause::Hangup => file.read_again(),
                Cause::Changed => match broker.replace_hooks(broker.hooks.current().decls()) {
                    Ok(Reloaded::Unchanged) => tracing::debug!("hooks are as they were"),
                    reloaded => tell(&reloaded),
                },
            });
            if let Err(error) = done.await {
                tracing::error!(error = %error, "the reload ended before its time; everything stays as it was");
            }
            if cause == Cause::Hangup {
                watch = Watch::of(self.broker.hooks.current().decls());
            }
        }
    }
}

/// Says in the log what became of hooks.
pub(super) fn tell(reloaded: &Result<Reloaded, Vec<HookError>>) {
    match reloaded {
        Ok(Reloaded::Replaced) => tracing::info!("hooks are replaced"),
        Ok(Reloaded::Unchanged) => tracing::info!("hooks are as they were"),
        Err(errors) => {
            for HookError { hook, file, line, text, .. } in errors {
                tracing::error!(hook, file = %file.display(), line, "{text}");
            }
            tracing::error!(mistakes = errors.len(), "hooks are not replaced; those in force stay, all of them");
        }
    }
}

/// Watches the folders of scripts.
struct Watch {
    changes: Receiver<()>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// The folders of those hooks that are to be watched: a script may require files below its own folder. They count as changed
    /// at first.
    fn of(decls: &[HookDecl]) -> Self {
        let watched = decls.iter().filter(|decl| decl.watch);
        let folder = |decl: &HookDecl| {
            let folder = decl.script.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.unwrap_or(Path::new(".")).to_path_buf()
        };
        let folders: BTreeSet<PathBuf> = watched.map(folder).collect();
        // One place is enough: whatever else changes is loaded at the same time.
        let (sender, changes) = mpsc::channel(1);
        if folders.is_empty() {
            return Self { changes, _watcher: None };
        }
        let first_look = sender.clone();
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_change_of_script(&event)) {
                let _ = sender.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            folders.iter().try_for_each(|folder| watcher.watch(folder, RecursiveMode::Recursive))?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => {
                // What has changed since the scripts were read and before anybody watched.
                let _ = first_look.try_send(());
                Self { changes, _watcher: Some(watcher) }
            }
            Err(error) => {
                tracing::error!(error = %error, "scripts cannot be watched; send SIGHUP when they have changed");
                Self { changes, _watcher: None }
            }
        }
    }

    /// Returns when scripts have changed and nothing more is being written.
    async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            return std::future::pending().await;
        }
        let until_quiet = async { while let Ok(Some(())) = timeout(QUIET, self.changes.recv()).await {} };
        // Nothing is lost by not waiting longer: what comes later is a change of its own.
        let _ = timeout(QUIET_WAIT_MAX, until_quiet).await;
    }
}

fn is_change_of_script(event: &notify::Event) -> bool {
    let is_change = !matches!(event.kind, EventKind::Access(_));
    is_change && event.paths.iter().any(|path| path.extension().is_some_and(|extension| extension == "lua"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::Scope;

    #[tokio::test]
    async fn who_begins_to_watch_looks_once_at_what_there_is() {
        let folder = std::env::temp_dir().join(format!("watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let decl = HookDecl { watch: true, ..HookDecl::new("hook", folder.join("hook.lua"), Scope::Broker) };
        let mut watch = Watch::of(&[decl]);
        timeout(Duration::from_secs(20), watch.changed())
            .await
            .expect("a change before it watched may have been missed");
        std::fs::remove_dir(&folder).unwrap();
    }
}
