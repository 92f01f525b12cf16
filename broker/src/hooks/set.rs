//! All hooks of a configuration, loaded and checked together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use plugin_api::value::Table;

use super::chain::HookChain;
use super::decl::{HookDecl, OnError, Site};
use super::error::{ErrorKind, Failure, HookError};
use super::point::Point;
use super::record::{MessageSnapshot, Record, Records, Snapshot};
use super::script::Script;
use super::shared::Stores;
use super::state::{Decision, Given, NEEDS_DEAD_LETTER_EXCHANGE};
use super::status::{Counters, Ended, FAILURE_LINES_MAX, HookStatus, LogGate, Sums};
use crate::events::{Events, Kind};

/// A set of hooks. A reload makes a new one and lets go of the old; chains that are still in use keep theirs.
#[derive(Debug, Clone)]
pub struct HookSet(Arc<SetInner>);

#[derive(Debug)]
pub(super) struct SetInner {
    /// Tells sets apart in the stores of worker threads. Never used twice in a process.
    pub(super) id: u64,
    pub(super) decls: Vec<HookDecl>,
    /// One for each declaration and each point that its script has.
    pub(super) hooks: Vec<Hook>,
    pub(super) scripts: Vec<Script>,
}

/// One declared hook at one point.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) decl: Arc<HookDecl>,
    pub(super) point: Point,
    /// Position in [`SetInner::scripts`].
    pub(super) script: usize,
    pub(super) counters: Arc<Counters>,
    records: Arc<Records>,
    /// How many failures are logged and told; the others are counted.
    failure_gate: LogGate,
    last_error: Mutex<Option<HookError>>,
    events: Events,
}

impl HookSet {
    /// Reads, compiles and runs every script once.
    ///
    /// # Errors
    /// Everything that is wrong with any of them; then no set is made, and whoever has an old one keeps it.
    pub fn load(decls: &[HookDecl]) -> Result<Self, Vec<HookError>> {
        Self::load_beside(decls, &Stores::default(), &Events::default(), None)
    }

    /// As [`Self::load`]. Scripts find what they shared before in `stores`, failures are told to `events`, and hooks count on from those of the same
    /// name in `old`.
    pub(super) fn load_beside(
        decls: &[HookDecl],
        stores: &Stores,
        events: &Events,
        old: Option<&Self>,
    ) -> Result<Self, Vec<HookError>> {
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
                match Script::load(decl, stores.of(&decl.script)) {
                    Ok(script) => scripts.push(script),
                    Err(failure) => {
                        // Once for each file: the next hook with it would say the same.
                        broken.insert(&decl.script);
                        errors.push(failure.of(&decl.name, &decl.script));
                        continue;
                    }
                }
            }
            let points = scripts.get(script).map_or(&[][..], |script| &script.points);
            if let Err(failure) = check_points(decl, points) {
                errors.push(failure.of(&decl.name, &decl.script));
            }
            let decl = Arc::new(decl.clone());
            let called = points.iter().filter(|point| decl.scope.has(**point));
            hooks.extend(called.map(|point| Hook::new(&decl, *point, script, events, old)));
        }
        if errors.is_empty() { Ok(Self::of(decls.to_vec(), hooks, scripts)) } else { Err(errors) }
    }

    /// A set without hooks.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(Vec::new(), Vec::new(), Vec::new())
    }

    fn of(decls: Vec<HookDecl>, hooks: Vec<Hook>, scripts: Vec<Script>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(SetInner { id: NEXT.fetch_add(1, Ordering::Relaxed), decls, hooks, scripts }))
    }

    /// The hooks that publishes to `exchange` in `vhost` go through: those of the broker, then of the vhost, then of the
    /// exchange, each in the order of declaration. `None` if there are none. To be asked once and kept.
    #[must_use]
    pub fn chain(&self, vhost: &str, exchange: &str) -> Option<Arc<HookChain>> {
        self.chain_at(Point::Publish, vhost, Site::Exchange(exchange))
    }

    /// The same for any point and place.
    #[must_use]
    pub fn chain_at(&self, point: Point, vhost: &str, site: Site<'_>) -> Option<Arc<HookChain>> {
        let covers = |(_, hook): &(usize, &Hook)| hook.point == point && hook.decl.scope.covers(vhost, site);
        let mut hooks: Vec<_> = self.0.hooks.iter().enumerate().filter(covers).collect();
        hooks.sort_by_key(|(index, hook)| (hook.decl.scope.rank(), *index));
        let hooks: Vec<usize> = hooks.into_iter().map(|(index, _)| index).collect();
        (!hooks.is_empty()).then(|| Arc::new(HookChain::new(Arc::clone(&self.0), point, hooks)))
    }

    /// What every hook has done, in the order of declaration.
    #[must_use]
    pub fn status(&self) -> Vec<HookStatus> {
        self.0.hooks.iter().map(Hook::status).collect()
    }

    /// What it was made of.
    #[must_use]
    pub fn decls(&self) -> &[HookDecl] {
        &self.0.decls
    }

    /// Whether there are no hooks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.hooks.is_empty()
    }

    /// Whether the other has the same declarations and scripts, file by file.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let (scripts, others) = (&self.0.scripts, &other.0.scripts);
        self.0.decls == other.0.decls
            && scripts.len() == others.len()
            && scripts.iter().zip(others).all(|(script, other)| script.is_same_as(other))
    }
}

impl Default for HookSet {
    fn default() -> Self {
        Self::empty()
    }
}

/// A hook that is never called where it stands is a mistake.
fn check_points(decl: &HookDecl, points: &[Point]) -> Result<(), Failure> {
    let wrong = |text: String| Err(Failure::new(ErrorKind::Declaration, text));
    if !points.iter().any(|point| decl.scope.has(*point)) {
        let list = |points: &mut dyn Iterator<Item = Point>| points.map(Point::function).collect::<Vec<_>>().join(", ");
        let has = list(&mut points.iter().copied());
        let runs = list(&mut Point::ALL.into_iter().filter(|point| decl.scope.has(*point)));
        return wrong(format!("the script has {has}, but at {} only these are called: {runs}", decl.scope));
    }
    let needs_exchange = decl.on_error == OnError::DeadLetter && decl.dead_letter_exchange.is_none();
    if needs_exchange && points.contains(&Point::Publish) && decl.scope.has(Point::Publish) {
        return wrong(NEEDS_DEAD_LETTER_EXCHANGE.to_owned());
    }
    Ok(())
}

impl Hook {
    fn new(decl: &Arc<HookDecl>, point: Point, script: usize, events: &Events, old: Option<&HookSet>) -> Self {
        let same = |hook: &&Self| hook.point == point && hook.decl.name == decl.name;
        let old = old.and_then(|old| old.0.hooks.iter().find(same));
        Self {
            decl: Arc::clone(decl),
            point,
            script,
            counters: old.map(|old| Arc::clone(&old.counters)).unwrap_or_default(),
            records: old.map(|old| Arc::clone(&old.records)).unwrap_or_default(),
            failure_gate: LogGate::new(FAILURE_LINES_MAX),
            last_error: Mutex::default(),
            events: events.clone(),
        }
    }

    fn status(&self) -> HookStatus {
        let Sums { counts, times } = self.counters.sum();
        HookStatus {
            name: self.decl.name.clone(),
            point: self.point,
            script: self.decl.script.clone(),
            scope: self.decl.scope.clone(),
            on_error: self.decl.on_error,
            shadow: self.decl.shadow,
            counts,
            times,
            worker_count: self.counters.worker_count(),
            last_error: self.last_error.lock().clone(),
            records: self.records.list(),
        }
    }

    #[cold]
    pub(super) fn keep_record(&self, ended: Ended, result: &Result<Decision, Failure>, given: Given<'_>) {
        let (before, after) = match (given, result) {
            (Given::Message(message, origin), Ok(Decision::Pass(rewrite))) if ended == Ended::Rewritten => {
                let before = MessageSnapshot::of(message, origin);
                let after = before.rewritten(rewrite);
                (Snapshot::Message(before), Some(Snapshot::Message(after)))
            }
            (Given::Message(message, origin), _) => (Snapshot::Message(MessageSnapshot::of(message, origin)), None),
            (Given::Connecting(client), _) => (Snapshot::Text(client.describe()), None),
            (Given::Declaring(declaration), _) => (Snapshot::Text(declaration.describe()), None),
        };
        let reason = match result {
            Ok(Decision::Pass(_)) => None,
            Ok(Decision::Drop(reason) | Decision::Reject(reason) | Decision::DeadLetter(reason)) => {
                Some(reason.clone())
            }
            Err(failure) => Some(failure.text.clone()),
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let vhost = given.vhost().to_owned();
        self.records.add(Record { at_ms, result: ended.name(), reason, vhost, before, after });
    }

    /// Says whose failure it was, logs it, and tells who listens.
    #[cold]
    pub(super) fn report(&self, failure: Failure, vhost: &str) -> HookError {
        let error = failure.of(&self.decl.name, &self.decl.script);
        if let Some(suppressed) = self.failure_gate.pass(Instant::now()) {
            let (file, line) = (error.file.display(), error.line);
            let (hook, on_error) = (&error.hook, self.decl.on_error.as_str());
            let point = self.point.function();
            tracing::warn!(hook, point, %file, line, error = %error.text, on_error, suppressed, "hook failed");
            self.events.tell(Kind::HookFailed, Some(vhost), || {
                let mut table = Table::new().with("hook", hook.as_str()).with("point", point);
                table.insert("script", error.file.to_string_lossy().as_ref());
                if let Some(line) = error.line {
                    table.insert("line", i64::from(line));
                }
                table.insert("error", error.text.as_str());
                table.insert("on_error", on_error);
                table.insert("state", if self.decl.shadow { "shadow" } else { "active" });
                table.with("suppressed", i64::try_from(suppressed).unwrap_or(i64::MAX))
            });
        }
        *self.last_error.lock() = Some(error.clone());
        error
    }
}
