//! Exchange types and exchanges of plugins, watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use plugin_api::abi::guest::{CallError, GuestExchange, GuestExchangeType};
use plugin_api::exchange::{AskedPer, BindingSpec, DependsOn, ExchangeSpec, Takes, Wish};
use plugin_api::message::Message;
use plugin_api::value::Table;
use tracing::error;

use super::status::Record;

/// After so many panics an exchange, or the judging part of a type, is no longer asked. One may be a bad message, two bad
/// luck; a publisher that sends the bad message again and again should not fill the log for ever.
pub const PANICS_MAX: u32 = 3;

/// Why an exchange type did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// The type said no; the reason is the text of a 406.
    #[error("{0}")]
    Refused(String),
    /// The type panicked, or has done so too often to be asked again; the text of a 541.
    #[error("{0}")]
    Faulted(String),
}

/// An exchange type, by which exchanges are judged and opened.
#[derive(Debug)]
pub struct ExchangeTypeHandle {
    guest: GuestExchangeType,
    plugin: Arc<Record>,
    health: Health,
}

impl ExchangeTypeHandle {
    pub(super) fn new(guest: GuestExchangeType, plugin: Arc<Record>) -> Self {
        Self { guest, health: Health::new(Arc::clone(&plugin)), plugin }
    }

    /// The name in `exchange.declare`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.guest.name()
    }

    /// One line for operators.
    #[must_use]
    pub fn description(&self) -> &str {
        self.guest.description()
    }

    /// The name of the plugin that offers it.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.plugin.name
    }

    pub(super) fn plugin_title(&self) -> String {
        self.plugin.title()
    }

    /// What a route depends on beside the bindings.
    #[must_use]
    pub const fn depends_on(&self) -> DependsOn {
        self.guest.depends_on()
    }

    /// The same for one exchange.
    ///
    /// # Errors
    /// How the type failed.
    pub fn depends_on_for(&self, spec: &ExchangeSpec) -> Result<DependsOn, TypeError> {
        self.watch(spec, || self.guest.depends_on_for(spec))
    }

    /// How often a message with several routing keys is routed.
    #[must_use]
    pub const fn asked_per(&self) -> AskedPer {
        self.guest.asked_per()
    }

    /// Which queues may be bound.
    #[must_use]
    pub const fn takes(&self) -> Takes {
        self.guest.takes()
    }

    /// The type that this exchange stands before, by name.
    ///
    /// # Errors
    /// The type's reason, or how it failed.
    pub fn inner(&self, spec: &ExchangeSpec) -> Result<Option<String>, TypeError> {
        self.watch(spec, || self.guest.inner(spec))
    }

    /// Judges a declaration of an exchange that does not exist yet.
    ///
    /// # Errors
    /// The type's reason, or how it failed.
    pub fn validate(&self, spec: &ExchangeSpec) -> Result<(), TypeError> {
        self.watch(spec, || self.guest.validate(spec))
    }

    /// Judges a new binding; [`ExchangeInstance::bind`] follows.
    ///
    /// # Errors
    /// The type's reason, or how it failed.
    pub fn validate_binding(&self, spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), TypeError> {
        self.watch(spec, || self.guest.validate_binding(spec, binding))
    }

    /// Makes an exchange without bindings.
    ///
    /// # Errors
    /// The type's reason, or how it failed.
    pub fn open(&self, spec: &ExchangeSpec) -> Result<ExchangeInstance, TypeError> {
        let guest = self.watch(spec, || self.guest.open(spec))?;
        let title = title(spec);
        let health = Health::new(Arc::clone(&self.plugin));
        Ok(ExchangeInstance { guest, asked_per: self.asked_per(), health, title })
    }

    fn watch<T>(&self, spec: &ExchangeSpec, call: impl FnOnce() -> Result<T, CallError>) -> Result<T, TypeError> {
        if self.health.is_closed() {
            return Err(self.health.failed_error(&title(spec)));
        }
        self.plugin.site.enter(call).map_err(|error| self.health.judge(error, &title(spec), 1))
    }
}

/// One exchange. It is closed when dropped.
#[derive(Debug)]
pub struct ExchangeInstance {
    guest: GuestExchange,
    asked_per: AskedPer,
    health: Health,
    title: String,
}

impl ExchangeInstance {
    /// Adds a binding under a free slot.
    ///
    /// # Errors
    /// The type's reason; or it panicked, after which this exchange is failed.
    pub fn bind(&mut self, slot: u32, binding: &BindingSpec) -> Result<(), TypeError> {
        self.change(|guest| guest.bind(slot, binding))
    }

    /// Gives the messages that the exchange has for the binding that was just added under `slot` to `each`.
    ///
    /// # Errors
    /// The type panicked, after which this exchange is failed.
    pub fn bound(&mut self, slot: u32, each: &mut dyn FnMut(&Message<'_>)) -> Result<(), TypeError> {
        self.change(|guest| guest.bound(slot, each))
    }

    /// Gives the exchange a message back that was kept over a restart.
    ///
    /// # Errors
    /// The type panicked, after which this exchange is failed.
    pub fn restore(&mut self, message: &Message<'_>) -> Result<(), TypeError> {
        self.change(|guest| guest.restore(message))
    }

    /// Removes the binding under `slot`.
    ///
    /// # Errors
    /// The type panicked, after which this exchange is failed.
    pub fn unbind(&mut self, slot: u32) -> Result<(), TypeError> {
        self.change(|guest| guest.unbind(slot))
    }

    /// Tells the exchange about its policy; an empty table when there is none.
    ///
    /// # Errors
    /// The type's reason; or it panicked, after which this exchange is failed.
    pub fn policy_changed(&mut self, policy: &Table) -> Result<(), TypeError> {
        self.change(|guest| guest.policy_changed(policy))
    }

    /// How often a message with several routing keys is routed.
    pub const fn asked_per(&self) -> AskedPer {
        self.asked_per
    }

    /// Appends the slots of the bindings that `message` takes to `out`, or says that it is to be held, and whether it is to be kept. Slots may come
    /// twice, and after a fault of the plugin they may be slots that nobody bound.
    ///
    /// # Errors
    /// The type panicked, now or too often before; `out` is then as it was.
    #[inline]
    pub fn route(&self, message: &Message<'_>, out: &mut Vec<u32>) -> Result<Option<Wish>, TypeError> {
        if self.health.is_closed() {
            return Err(self.health.failed_error(&self.title));
        }
        let before = out.len();
        let plugin = &*self.health.plugin;
        let routed = plugin.site.enter_timed(&plugin.route_times, || self.guest.route(message, out));
        routed.map_err(|error| {
            out.truncate(before);
            self.health.judge(error, &self.title, 1)
        })
    }

    /// Whether the plugin is no longer asked about this exchange. To open it again and bind anew is the only way back.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.health.is_failed()
    }

    /// A panic in the middle of a change leaves nobody knowing which bindings the exchange holds: it is failed at once.
    fn change(&mut self, call: impl FnOnce(&mut GuestExchange) -> Result<(), CallError>) -> Result<(), TypeError> {
        if self.health.is_closed() {
            return Err(self.health.failed_error(&self.title));
        }
        let site = self.health.plugin.site;
        site.enter(|| call(&mut self.guest)).map_err(|error| self.health.judge(error, &self.title, PANICS_MAX))
    }
}

/// Counts the faults of one type or one exchange.
#[derive(Debug)]
struct Health {
    plugin: Arc<Record>,
    faults: AtomicU32,
}

impl Health {
    const fn new(plugin: Arc<Record>) -> Self {
        Self { plugin, faults: AtomicU32::new(0) }
    }

    #[inline]
    fn is_failed(&self) -> bool {
        self.faults.load(Ordering::Relaxed) >= PANICS_MAX
    }

    /// Whether nothing is asked any more.
    #[inline]
    fn is_closed(&self) -> bool {
        self.is_failed() || self.plugin.is_stopping()
    }

    /// Turns what a call ended with into an answer, and counts it with `weight` unless it was a plain refusal.
    #[cold]
    fn judge(&self, error: CallError, title: &str, weight: u32) -> TypeError {
        let text = match error {
            CallError::Refused(reason) => return TypeError::Refused(reason),
            CallError::Panicked(_) | CallError::Broken(_) => error.to_string(),
        };
        self.plugin.fault(&text);
        // Several threads may fault at once: exactly one of them crosses the line.
        let add = |faults: u32| Some(faults.saturating_add(weight));
        let before = self.faults.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).unwrap_or(PANICS_MAX);
        let is_failed = before.saturating_add(weight) >= PANICS_MAX;
        if is_failed && before < PANICS_MAX {
            self.plugin.failed();
        }
        let state = if is_failed { "failed" } else { "degraded" };
        error!(plugin = self.plugin.name, exchange = title, state, error = text, "plugin fault");
        TypeError::Faulted(format!("plugin '{}' failed at {title}: {text}", self.plugin.name))
    }

    #[cold]
    fn failed_error(&self, title: &str) -> TypeError {
        let plugin = &self.plugin.name;
        let why = if self.is_failed() { "it panicked repeatedly" } else { "the broker stops" };
        TypeError::Faulted(format!("plugin '{plugin}' is no longer asked about {title}, because {why}"))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if self.is_failed() {
            self.plugin.failed_one_is_gone();
        }
    }
}

fn title(spec: &ExchangeSpec) -> String {
    format!("exchange '{}' in vhost '{}'", spec.name, spec.vhost)
}
