//! All hooks of a configuration, loaded and checked together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::chain::HookChain;
use super::decl::HookDecl;
use super::error::{ErrorKind, Failure, HookError};
use super::script::Script;
use super::state::ON_PUBLISH;
use super::status::{Counters, FAILURE_LINES_MAX, HookStatus, LogGate};

/// A set of hooks. A reload makes a new one and lets go of the old; chains that are still in use keep theirs.
#[derive(Debug, Clone)]
pub struct HookSet(Arc<SetInner>);

#[derive(Debug)]
pub(super) struct SetInner {
    /// Tells sets apart in the stores of worker threads. Never used twice in a process.
    pub(super) id: u64,
    pub(super) hooks: Vec<Hook>,
    pub(super) scripts: Vec<Script>,
}

/// One declared hook.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) decl: HookDecl,
    /// Position in [`SetInner::scripts`].
    pub(super) script: usize,
    pub(super) counters: Arc<Counters>,
    failure_log: LogGate,
}

impl HookSet {
    /// Reads, compiles and runs every script once.
    ///
    /// # Errors
    /// Everything that is wrong with any of them; then no set is made, and whoever has an old one keeps it.
    pub fn load(decls: &[HookDecl]) -> Result<Self, Vec<HookError>> {
        let (mut hooks, mut scripts, mut errors) = (Vec::new(), Vec::<Script>::new(), Vec::new());
        let (mut names, mut broken) = (BTreeSet::new(), BTreeSet::new());
        for decl in decls {
            if !names.insert(decl.name.as_str()) {
                let failure = Failure::new(ErrorKind::Declaration, "there is another hook of this name");
                errors.push(failure.of(&decl.name, &decl.script));
            }
            if broken.contains(&decl.script) {
                continue;
            }
            let script = scripts.iter().position(|script| script.is_of(decl)).unwrap_or(scripts.len());
            if script == scripts.len() {
                match Script::load(decl) {
                    Ok(script) => scripts.push(script),
                    Err(failure) => {
                        // Once for each file: the next hook with it would say the same.
                        broken.insert(&decl.script);
                        errors.push(failure.of(&decl.name, &decl.script));
                        continue;
                    }
                }
            }
            hooks.push(Hook::new(decl, script));
        }
        if errors.is_empty() { Ok(Self::of(hooks, scripts)) } else { Err(errors) }
    }

    /// A set without hooks.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(Vec::new(), Vec::new())
    }

    fn of(hooks: Vec<Hook>, scripts: Vec<Script>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(SetInner { id: NEXT.fetch_add(1, Ordering::Relaxed), hooks, scripts }))
    }

    /// The hooks that publishes to `exchange` in `vhost` go through: those of the broker, then of the vhost, then of the
    /// exchange, each in the order of declaration. `None` if there are none. To be asked once and kept.
    #[must_use]
    pub fn chain(&self, vhost: &str, exchange: &str) -> Option<Arc<HookChain>> {
        let covers = |(_, hook): &(usize, &Hook)| hook.decl.scope.covers(vhost, exchange);
        let mut hooks: Vec<_> = self.0.hooks.iter().enumerate().filter(covers).collect();
        hooks.sort_by_key(|(index, hook)| (hook.decl.scope.rank(), *index));
        let hooks: Vec<usize> = hooks.into_iter().map(|(index, _)| index).collect();
        (!hooks.is_empty()).then(|| Arc::new(HookChain::new(Arc::clone(&self.0), hooks)))
    }

    /// What every hook has done, in the order of declaration.
    #[must_use]
    pub fn status(&self) -> Vec<HookStatus> {
        self.0.hooks.iter().map(Hook::status).collect()
    }

    /// Whether there are no hooks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.hooks.is_empty()
    }
}

impl Default for HookSet {
    fn default() -> Self {
        Self::empty()
    }
}

impl Hook {
    fn new(decl: &HookDecl, script: usize) -> Self {
        Self { decl: decl.clone(), script, counters: Arc::default(), failure_log: LogGate::new(FAILURE_LINES_MAX) }
    }

    fn status(&self) -> HookStatus {
        let decl = self.decl.clone();
        let (counts, worker_count) = (self.counters.sum(), self.counters.worker_count());
        HookStatus {
            name: decl.name,
            script: decl.script,
            scope: decl.scope,
            on_error: decl.on_error,
            counts,
            worker_count,
        }
    }

    /// Says whose failure it was, and logs it.
    #[cold]
    pub(super) fn report(&self, failure: Failure, now: Instant) -> HookError {
        let error = failure.of(&self.decl.name, &self.decl.script);
        if let Some(suppressed) = self.failure_log.pass(now) {
            let (file, line) = (error.file.display(), error.line);
            let (hook, on_error) = (&error.hook, self.decl.on_error.as_str());
            tracing::warn!(hook, point = ON_PUBLISH, %file, line, error = %error.text, on_error, suppressed, "hook failed");
        }
        error
    }
}
