//! All hooks of a configuration, loaded and checked together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::chain::HookChain;
use super::decl::HookDecl;
use super::error::{ErrorKind, Failure, HookError};
use super::program::Program;
use super::state::{ON_PUBLISH, State};
use super::status::{Counters, FAILURE_LINES_MAX, HookStatus, LogGate, SCRIPT_LINES_MAX};

/// A set of hooks. A reload makes a new one and lets go of the old; chains that are still in use keep theirs.
#[derive(Debug, Clone)]
pub struct HookSet(Arc<SetInner>);

#[derive(Debug)]
pub(super) struct SetInner {
    /// Tells sets apart in the stores of worker threads. Never used twice in a process.
    pub(super) id: u64,
    pub(super) hooks: Vec<Arc<Hook>>,
}

/// One declared hook.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) decl: HookDecl,
    pub(super) program: Program,
    pub(super) counters: Arc<Counters>,
    /// For what the script itself writes.
    pub(super) script_log: Arc<LogGate>,
    failure_log: LogGate,
}

impl HookSet {
    /// Reads, compiles and runs every script once.
    ///
    /// # Errors
    /// Everything that is wrong with any of them; then no set is made, and whoever has an old one keeps it.
    pub fn load(decls: &[HookDecl]) -> Result<Self, Vec<HookError>> {
        let (mut hooks, mut errors, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        for decl in decls {
            if !names.insert(decl.name.as_str()) {
                let failure = Failure::new(ErrorKind::Declaration, "there is another hook of this name");
                errors.push(failure.of(&decl.name, &decl.script));
            }
            match Hook::load(decl) {
                Ok(hook) => hooks.push(Arc::new(hook)),
                Err(failure) => errors.push(failure.of(&decl.name, &decl.script)),
            }
        }
        if errors.is_empty() { Ok(Self::of(hooks)) } else { Err(errors) }
    }

    /// A set without hooks.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(Vec::new())
    }

    fn of(hooks: Vec<Arc<Hook>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(SetInner { id: NEXT.fetch_add(1, Ordering::Relaxed), hooks }))
    }

    /// The hooks that publishes to `exchange` in `vhost` go through: those of the broker, then of the vhost, then of the
    /// exchange, each in the order of declaration. `None` if there are none. To be asked once and kept.
    #[must_use]
    pub fn chain(&self, vhost: &str, exchange: &str) -> Option<Arc<HookChain>> {
        let covers = |(_, hook): &(usize, &Arc<Hook>)| hook.decl.scope.covers(vhost, exchange);
        let mut hooks: Vec<_> = self.0.hooks.iter().enumerate().filter(covers).collect();
        hooks.sort_by_key(|(index, hook)| (hook.decl.scope.rank(), *index));
        let hooks: Vec<usize> = hooks.into_iter().map(|(index, _)| index).collect();
        (!hooks.is_empty()).then(|| Arc::new(HookChain::new(Arc::clone(&self.0), hooks)))
    }

    /// What every hook has done, in the order of declaration.
    #[must_use]
    pub fn status(&self) -> Vec<HookStatus> {
        self.0.hooks.iter().map(|hook| hook.status()).collect()
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
    fn load(decl: &HookDecl) -> Result<Self, Failure> {
        let mut program = Program::read(&decl.script)?;
        let script_log = Arc::new(LogGate::new(SCRIPT_LINES_MAX));
        // The run is the check; worker threads make interpreters of their own.
        State::check(decl, &mut program, &script_log)?;
        let failure_log = LogGate::new(FAILURE_LINES_MAX);
        Ok(Self { decl: decl.clone(), program, counters: Arc::default(), script_log, failure_log })
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
