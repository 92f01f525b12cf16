//! What the broker relies on in every exchange type, whatever its routing means.

use std::collections::BTreeSet;

use super::{FakeHost, Random};
use crate::abi::LinkedPlugin;
use crate::abi::guest::{Guest, GuestExchange, GuestExchangeType, Linkage};
use crate::config::Config;
use crate::exchange::{BindingSpec, DependsOn, ExchangeSpec};
use crate::message::{Message, Properties, PropertiesBuf};
use crate::value::{Table, Value};

/// The suite for all exchange types of `plugin`, with samples that suit types which take any key and any headers.
#[must_use]
pub fn exchange_types(plugin: &'static LinkedPlugin) -> ExchangeSuite {
    ExchangeSuite {
        plugin,
        config: Config::default(),
        arguments: Table::new(),
        bindings: sample_bindings(),
        messages: sample_messages(),
    }
}

/// The suite, with its samples.
pub struct ExchangeSuite {
    plugin: &'static LinkedPlugin,
    config: Config,
    arguments: Table,
    bindings: Vec<(String, Table)>,
    messages: Vec<Sample>,
}

/// A message to route.
struct Sample {
    routing_key: String,
    properties: Vec<u8>,
}

impl ExchangeSuite {
    /// The configuration of the plugin.
    #[must_use]
    pub fn config(mut self, config: serde_json::Value) -> Self {
        self.config = Config::new(config);
        self
    }

    /// The arguments of each exchange that the suite declares.
    #[must_use]
    pub fn arguments(mut self, arguments: Table) -> Self {
        self.arguments = arguments;
        self
    }

    /// Bindings that the type accepts, as key and arguments, in place of the samples.
    #[must_use]
    pub fn bindings<K: Into<String>>(mut self, bindings: impl IntoIterator<Item = (K, Table)>) -> Self {
        self.bindings = bindings.into_iter().map(|(key, arguments)| (key.into(), arguments)).collect();
        self
    }

    /// Adds a message to those that are routed.
    #[must_use]
    pub fn message(mut self, routing_key: impl Into<String>, headers: Option<Table>) -> Self {
        self.messages.push(Sample::new(routing_key, headers));
        self
    }

    /// Runs everything.
    ///
    /// # Panics
    /// With the rule that is broken.
    pub fn run(&self) {
        let host = FakeHost::new();
        let guest = Guest::linked(self.plugin, host.table(Linkage::LinkedIn), &self.config)
            .unwrap_or_else(|error| panic!("the plugin registers with this config: {error}"));
        assert!(!guest.exchange_types.is_empty(), "the plugin offers an exchange type");
        for exchange_type in &guest.exchange_types {
            let case = Case { suite: self, exchange_type };
            case.is_named();
            case.accepts_samples();
            case.only_bound_slots_are_routed();
            case.unbind_undoes_bind();
            case.order_of_bindings_does_not_matter();
            case.route_depends_on_no_more_than_it_says();
            case.exchanges_are_apart();
            case.threads_route_alike();
            case.messages_for_new_bindings_are_sound();
            case.kept_messages_change_no_route();
            case.hostile_messages_are_survived();
        }
    }
}

/// The suite at one exchange type.
struct Case<'a> {
    suite: &'a ExchangeSuite,
    exchange_type: &'a GuestExchangeType,
}

impl Case<'_> {
    fn is_named(&self) {
        let name = self.exchange_type.name();
        assert!(!name.is_empty() && name.len() <= 255, "the name '{name}' has 1 to 255 bytes");
        assert!(name.chars().all(|c| !c.is_whitespace() && !c.is_control()), "the name '{name}' has no white space");
        assert!(!self.exchange_type.description().is_empty(), "'{name}' has a description");
    }

    fn accepts_samples(&self) {
        let spec = self.spec("samples");
        self.exchange_type.validate(&spec).unwrap_or_else(|error| panic!("the exchange is accepted: {error}"));
        for slot in 0..self.count() {
            let binding = self.binding(slot);
            let judged = self.exchange_type.validate_binding(&spec, &binding);
            judged.unwrap_or_else(|error| panic!("{binding:?} is accepted: {error}"));
        }
    }

    fn only_bound_slots_are_routed(&self) {
        let exchange = self.open("empty");
        assert!(self.routes(&exchange).iter().all(BTreeSet::is_empty), "without bindings nothing is routed");
        let exchange = self.bound("sparse", (0..self.count()).step_by(2));
        let is_bound = |slot: &u32| slot.is_multiple_of(2) && *slot < self.count();
        assert!(self.routes(&exchange).iter().flatten().all(is_bound), "only slots that are bound are routed");
    }

    fn unbind_undoes_bind(&self) {
        if self.is_chance() {
            return;
        }
        let mut random = Random::new(1);
        let mut exchange = self.open("churn");
        let mut bound = BTreeSet::new();
        for _ in 0..4 * self.count() {
            let slot = random.below(self.count());
            if bound.remove(&slot) {
                exchange.unbind(slot).unwrap_or_else(|error| panic!("slot {slot} can be unbound: {error}"));
            } else {
                bound.insert(slot);
                self.bind(&mut exchange, slot, &self.binding(slot));
            }
        }
        let fresh = self.bound("fresh", bound.iter().copied());
        assert_eq!(self.routes(&exchange), self.routes(&fresh), "an exchange routes by the bindings that it has now");
        bound.iter().for_each(|slot| drop(exchange.unbind(*slot)));
        exchange.unbind(u32::from(u16::MAX)).unwrap_or_else(|error| panic!("an unknown slot does no harm: {error}"));
        assert!(self.routes(&exchange).iter().all(BTreeSet::is_empty), "after the last unbind nothing is routed");
        // Slots come again, for other bindings.
        let last = self.count() - 1;
        (0..=last).for_each(|slot| self.bind(&mut exchange, last - slot, &self.binding(slot)));
        let straight = self.routes(&self.bound("straight", 0..self.count()));
        let turned: Vec<BTreeSet<u32>> =
            self.routes(&exchange).iter().map(|slots| slots.iter().map(|slot| last - slot).collect()).collect();
        assert_eq!(turned, straight, "a slot that is used again stands for its new binding");
    }

    /// Whatever was kept comes back before the first binding, and is no reason to route otherwise.
    fn kept_messages_change_no_route(&self) {
        if self.is_chance() {
            return;
        }
        let mut exchange = self.open("kept");
        for sample in &self.suite.messages {
            let restored = exchange.restore(&sample.message());
            restored.unwrap_or_else(|error| panic!("a message that was kept is taken back: {error}"));
        }
        (0..self.count()).for_each(|slot| self.bind(&mut exchange, slot, &self.binding(slot)));
        let fresh = self.bound("kept", 0..self.count());
        assert_eq!(self.routes(&exchange), self.routes(&fresh), "messages that were kept change no route");
    }

    fn order_of_bindings_does_not_matter(&self) {
        if self.is_chance() {
            return;
        }
        let (forward, backward) = (self.bound("order", 0..self.count()), self.bound("order", (0..self.count()).rev()));
        assert_eq!(self.routes(&forward), self.routes(&backward), "the order of bindings does not matter");
    }

    fn route_depends_on_no_more_than_it_says(&self) {
        let exchange = self.bound("depends", 0..self.count());
        let (keys, headers) = match self.depends_on() {
            DependsOn::Nothing => (false, false),
            DependsOn::Key => (true, false),
            DependsOn::KeyAndHeaders => (true, true),
            DependsOn::State => return,
        };
        for sample in &self.suite.messages {
            for other in &self.suite.messages {
                let is_alike = (!keys || sample.routing_key == other.routing_key)
                    && (!headers || sample.headers() == other.headers());
                if is_alike {
                    let (one, two) =
                        (self.route(&exchange, &sample.message()), self.route(&exchange, &other.message()));
                    assert_eq!(one, two, "the route depends on more than depends_on says");
                }
            }
            let other = Message { exchange: "another", body: b"another body", ..sample.message() };
            let (one, two) = (self.route(&exchange, &sample.message()), self.route(&exchange, &other));
            assert_eq!(
                one, two,
                "the route depends on the body or on the exchange's name, but depends_on is not State"
            );
        }
    }

    fn exchanges_are_apart(&self) {
        let full = self.bound("full", 0..self.count());
        let empty = self.open("empty");
        drop(full);
        assert!(self.routes(&empty).iter().all(BTreeSet::is_empty), "exchanges do not share bindings");
    }

    fn threads_route_alike(&self) {
        if self.is_chance() {
            return;
        }
        let exchange = self.bound("threads", 0..self.count());
        let expected = self.routes(&exchange);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(self.routes(&exchange), expected, "threads that route at once get the same routes");
                    }
                });
            }
        });
    }

    /// Whatever was routed, also what nobody would send: what comes back for a binding can be published.
    fn messages_for_new_bindings_are_sound(&self) {
        let mut exchange = self.bound("bound", 0..self.count());
        self.routes(&exchange);
        let sent = self.suite.messages.len();
        for slot in 0..self.count() {
            let mut count = 0;
            let mut each = |message: &Message<'_>| {
                count += 1;
                assert_eq!(message.properties.check(), Ok(()), "a message for a new binding has sound properties");
                let is_known = |sample: &Sample| sample.routing_key == message.routing_key;
                assert!(self.suite.messages.iter().any(is_known), "a message for a new binding was routed before");
            };
            exchange
                .bound(slot, &mut each)
                .unwrap_or_else(|error| panic!("slot {slot} is told of its binding: {error}"));
            assert!(count <= sent, "a new binding gets no more than the {sent} messages that were routed");
        }
    }

    fn hostile_messages_are_survived(&self) {
        let exchange = self.bound("hostile", 0..self.count());
        let long = "a.".repeat(127);
        for routing_key in ["", ".", "..", "*", "#", "a.*.#", "\u{0}", "ü.é", &long] {
            // Properties that the broker would have refused: cut off, unknown types, a length beyond the end.
            let broken: [&[u8]; 5] =
                [b"", b"\x20", b"\x20\x00\x00\x00\x00\x03\x01a?", b"\x20\x00\xff\xff\xff\xff", b"\xff\xff\x01"];
            for properties in broken {
                let properties = Properties::from_raw(properties);
                let message = Message { properties, body: &[0xff; 64], ..Message::with_key(routing_key) };
                self.route(&exchange, &message);
            }
        }
    }

    /// Whether the same message may go another way the next time.
    fn is_chance(&self) -> bool {
        self.depends_on() == DependsOn::State
    }

    fn depends_on(&self) -> DependsOn {
        let depends_on = self.exchange_type.depends_on_for(&self.spec("depends"));
        depends_on.unwrap_or_else(|error| panic!("the type says what the exchange depends on: {error}"))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.suite.bindings.len()).unwrap_or(u32::MAX)
    }

    fn spec(&self, name: &str) -> ExchangeSpec {
        ExchangeSpec {
            vhost: "/".to_owned(),
            name: name.to_owned(),
            kind: self.exchange_type.name().to_owned(),
            arguments: self.suite.arguments.clone(),
            ..ExchangeSpec::default()
        }
    }

    fn binding(&self, slot: u32) -> BindingSpec {
        let (key, arguments) = &self.suite.bindings[slot as usize];
        BindingSpec { arguments: arguments.clone(), ..BindingSpec::to_queue(format!("queue-{slot}"), key) }
    }

    fn open(&self, name: &str) -> GuestExchange {
        self.exchange_type.open(&self.spec(name)).unwrap_or_else(|error| panic!("the exchange opens: {error}"))
    }

    fn bound(&self, name: &str, slots: impl IntoIterator<Item = u32>) -> GuestExchange {
        let mut exchange = self.open(name);
        slots.into_iter().for_each(|slot| self.bind(&mut exchange, slot, &self.binding(slot)));
        exchange
    }

    fn bind(&self, exchange: &mut GuestExchange, slot: u32, binding: &BindingSpec) {
        exchange.bind(slot, binding).unwrap_or_else(|error| panic!("{binding:?} was judged good, but: {error}"));
    }

    fn routes(&self, exchange: &GuestExchange) -> Vec<BTreeSet<u32>> {
        self.suite.messages.iter().map(|sample| self.route(exchange, &sample.message())).collect()
    }

    fn route(&self, exchange: &GuestExchange, message: &Message<'_>) -> BTreeSet<u32> {
        let mut out = Vec::new();
        exchange.route(message, &mut out).unwrap_or_else(|error| panic!("{message:?} is routed: {error}"));
        out.into_iter().collect()
    }
}

impl Sample {
    fn new(routing_key: impl Into<String>, headers: Option<Table>) -> Self {
        let properties = PropertiesBuf { headers, ..PropertiesBuf::default() }.encode();
        Self { routing_key: routing_key.into(), properties }
    }

    fn message(&self) -> Message<'_> {
        Message { properties: Properties::from_raw(&self.properties), ..Message::with_key(&self.routing_key) }
    }

    fn headers(&self) -> Option<&[u8]> {
        Properties::from_raw(&self.properties).headers().map(|headers| headers.raw())
    }
}

fn sample_bindings() -> Vec<(String, Table)> {
    let keys = ["", "a", "b", "a", "a.b", "a.*", "*.b", "#", "a.#", "#.b", "a.#.b", "*.*", ".", "ü"];
    let tables = [
        Table::new(),
        Table::new().with("h", 1_i32),
        Table::new().with("h", "x").with("i", true),
        Table::new().with("x-match", "any").with("h", 1_i64).with("i", true),
        Table::new().with("x-match", "all-with-x").with("x-h", Value::Void),
    ];
    keys.iter().flat_map(|key| tables.iter().map(|table| ((*key).to_owned(), table.clone()))).collect()
}

fn sample_messages() -> Vec<Sample> {
    let keys = ["", "a", "b", "a.b", "a.x.b", "a.b.c", ".", "ü", "c"];
    let headers = [
        None,
        Some(Table::new()),
        Some(Table::new().with("h", 1_i16)),
        Some(Table::new().with("h", "x").with("i", true)),
        Some(Table::new().with("x-h", 2.5_f64).with("i", false)),
    ];
    keys.iter().flat_map(|key| headers.iter().map(|headers| Sample::new(*key, headers.clone()))).collect()
}
