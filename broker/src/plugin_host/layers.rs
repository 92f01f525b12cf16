//! Exchange types that stand before others ([`plugin_api::exchange::ExchangeType::inner`]).
//!
//! Most exchanges have one layer. Where a type stands before another, both judge declarations and bindings and both know every
//! binding by the same slot; a message reaches the inner one unless the outer holds it. Each layer is watched for itself, so that
//! a fault is put down to the plugin that it happened in.

use std::sync::Arc;

use plugin_api::exchange::{AskedPer, BindingSpec, DependsOn, ExchangeSpec, Takes, Wish};
use plugin_api::message::Message;
use plugin_api::value::Table;

use super::{ExchangeInstance, ExchangeTypeHandle, Registry, TypeError};

/// Types that stand before types that stand before types: nobody needs more, and a circle must end.
const LAYERS_MAX: usize = 4;

/// The types that serve one exchange, the one that it was declared with first.
#[derive(Debug)]
pub struct ExchangeTypes(Vec<Arc<ExchangeTypeHandle>>);

impl Registry {
    /// The types that serve an exchange; none if the one that it names is unknown.
    ///
    /// # Errors
    /// A type stands before one that is unknown or that it refuses to name.
    pub fn exchange_types(&self, spec: &ExchangeSpec) -> Result<Option<ExchangeTypes>, TypeError> {
        let Some(outer) = self.exchange_type(&spec.kind) else { return Ok(None) };
        let mut layers = vec![outer];
        while let Some(inner) = layers.last().map(|layer| layer.inner(spec)).transpose()?.flatten() {
            let layer = self
                .exchange_type(&inner)
                .ok_or_else(|| TypeError::Refused(format!("unknown exchange type '{inner}'")))?;
            if layers.len() == LAYERS_MAX {
                return Err(TypeError::Refused(format!(
                    "more than {LAYERS_MAX} exchange types stand before each other"
                )));
            }
            layers.push(layer);
        }
        Ok(Some(ExchangeTypes(layers)))
    }
}

impl ExchangeTypes {
    /// Judges a declaration of an exchange that does not exist yet, by all types but the outermost, which had to judge it before
    /// it was asked what it stands before.
    ///
    /// # Errors
    /// The first type's reason, or how it failed.
    pub fn validate_inner(&self, spec: &ExchangeSpec) -> Result<(), TypeError> {
        self.0.iter().skip(1).try_for_each(|layer| layer.validate(spec))
    }

    /// Judges a new binding.
    ///
    /// # Errors
    /// The first type's reason, or how it failed.
    pub fn validate_binding(&self, spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), TypeError> {
        self.0.iter().try_for_each(|layer| layer.validate_binding(spec, binding))
    }

    /// Which queues may be bound: those that all types take.
    #[must_use]
    pub fn takes(&self) -> Takes {
        let is_restricted = self.0.iter().any(|layer| layer.takes() == Takes::ClassicQueues);
        if is_restricted { Takes::ClassicQueues } else { Takes::AllQueues }
    }

    /// Makes an exchange without bindings.
    ///
    /// # Errors
    /// A type's reason, or how it failed.
    pub fn open(&self, spec: &ExchangeSpec) -> Result<ExchangeLayers, TypeError> {
        let mut opened = ExchangeLayers { layers: Vec::new(), depends_on: DependsOn::Nothing };
        for layer in &self.0 {
            opened.layers.push(layer.open(spec)?);
            let depends_on = layer.depends_on_for(spec)?;
            opened.depends_on = std::cmp::max_by_key(opened.depends_on, depends_on, |most| *most as u32);
        }
        Ok(opened)
    }
}

/// One exchange, the outermost layer first.
#[derive(Debug)]
pub struct ExchangeLayers {
    layers: Vec<ExchangeInstance>,
    depends_on: DependsOn,
}

impl ExchangeLayers {
    /// What a route depends on; the most that any layer says.
    #[must_use]
    pub const fn depends_on(&self) -> DependsOn {
        self.depends_on
    }

    /// Adds a binding under a free slot; `each` gets the messages that the exchange has for it, if anybody wants them.
    ///
    /// # Errors
    /// A type's reason, or how it failed; no layer that still works knows the binding then.
    pub fn bind(
        &mut self,
        slot: u32,
        binding: &BindingSpec,
        mut each: Option<&mut dyn FnMut(&Message<'_>)>,
    ) -> Result<(), TypeError> {
        for index in 0..self.layers.len() {
            let bind = |layer: &mut ExchangeInstance| {
                layer.bind(slot, binding)?;
                match &mut each {
                    Some(each) => layer.bound(slot, each).inspect_err(|_| drop(layer.unbind(slot))),
                    None => Ok(()),
                }
            };
            let Some(Err(error)) = self.layers.get_mut(index).map(bind) else { continue };
            // A layer that cannot forget is failed by that.
            self.layers.iter_mut().take(index).for_each(|layer| drop(layer.unbind(slot)));
            return Err(error);
        }
        Ok(())
    }

    /// Removes the binding under `slot`.
    ///
    /// # Errors
    /// A type panicked, after which this exchange is failed; the other layers have forgotten the binding.
    pub fn unbind(&mut self, slot: u32) -> Result<(), TypeError> {
        let mut result = Ok(());
        for layer in &mut self.layers {
            let unbound = layer.unbind(slot);
            result = result.and(unbound);
        }
        result
    }

    /// Tells all layers about the policy of the exchange; an empty table when there is none.
    ///
    /// # Errors
    /// The first layer's reason, or how it failed; the others have been told.
    pub fn policy_changed(&mut self, policy: &Table) -> Result<(), TypeError> {
        let mut result = Ok(());
        for layer in &mut self.layers {
            let told = layer.policy_changed(policy);
            result = result.and(told);
        }
        result
    }

    /// Gives all layers a message back that was kept over a restart.
    ///
    /// # Errors
    /// A type panicked, after which this exchange is failed.
    pub fn restore(&mut self, message: &Message<'_>) -> Result<(), TypeError> {
        self.layers.iter_mut().try_for_each(|layer| layer.restore(message))
    }

    /// Appends the slots of the bindings that `message` takes with any of `keys` to `out`, or says that it is to be held, and
    /// then appends nothing. Says, too, whether it is to be kept. The first key is the one that it was published with.
    ///
    /// # Errors
    /// A type panicked, now or too often before.
    #[inline]
    pub fn route(&self, message: &Message<'_>, keys: &[&str], out: &mut Vec<u32>) -> Result<Option<Wish>, TypeError> {
        let before = out.len();
        let mut kept = None;
        for layer in &self.layers {
            let keys = match layer.asked_per() {
                AskedPer::Key => keys,
                AskedPer::Message => keys.get(..1).unwrap_or_default(),
            };
            for &routing_key in keys {
                match layer.route(&Message { routing_key, ..*message }, out)? {
                    None => {}
                    Some(hold @ Wish::Hold(_)) => {
                        out.truncate(before);
                        return Ok(Some(hold));
                    }
                    Some(keep @ Wish::Keep(_)) => kept = Some(keep),
                }
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use plugin_api::config::Config;
    use plugin_api::error::Invalid;
    use plugin_api::exchange::{BindingSlot, Deliveries, Exchange, ExchangeType, Routes};

    use super::super::tests::fragile::PLUGIN;
    use super::*;

    /// Stands before the type that its exchange's argument names. Hands one message to each binding, pushes its own slot 9 and
    /// holds what comes with the key "hold".
    pub(in super::super) struct Before(pub(in super::super) &'static str, pub(in super::super) AskedPer);

    impl ExchangeType for Before {
        fn name(&self) -> &str {
            self.0
        }

        fn description(&self) -> &str {
            "stands before another"
        }

        fn depends_on(&self) -> DependsOn {
            DependsOn::KeyAndHeaders
        }

        fn asked_per(&self) -> AskedPer {
            self.1
        }

        fn inner(&self, spec: &ExchangeSpec) -> Result<Option<String>, Invalid> {
            Ok(spec.arguments.get(self.0).and_then(|inner| inner.as_str().map(str::to_owned)))
        }

        fn open(&self, _: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
            Ok(Box::new(BeforeExchange(0)))
        }
    }

    struct BeforeExchange(u32);

    impl Exchange for BeforeExchange {
        fn bind(&mut self, _: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid> {
            if binding.routing_key == "refused" {
                return Err(Invalid::new("told to"));
            }
            self.0 += 1;
            Ok(())
        }

        fn bound(&mut self, _: BindingSlot, deliveries: &mut Deliveries<'_>) {
            deliveries.push(&Message::with_key(&self.0.to_string()));
        }

        fn unbind(&mut self, _: BindingSlot) {
            self.0 -= 1;
        }

        fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
            routes.push(BindingSlot(9));
            if message.routing_key == "hold" {
                routes.hold(10, None);
            }
        }
    }

    fn registry() -> Registry {
        let mut registry = Registry::builtin().unwrap();
        registry.link(&PLUGIN, &Config::new("layers".into())).unwrap();
        registry
    }

    fn spec(kind: &str, inner: &[(&str, &str)]) -> ExchangeSpec {
        let arguments = inner.iter().fold(Table::new(), |table, (outer, inner)| table.with(outer, *inner));
        ExchangeSpec { name: "x".into(), kind: kind.into(), arguments, ..ExchangeSpec::default() }
    }

    fn open(kind: &str, inner: &[(&str, &str)]) -> ExchangeLayers {
        let spec = spec(kind, inner);
        registry().exchange_types(&spec).unwrap().unwrap().open(&spec).unwrap()
    }

    fn routes(layers: &ExchangeLayers, keys: &[&str]) -> (Vec<u32>, bool) {
        let mut slots = Vec::new();
        let wish = layers.route(&Message::with_key(keys[0]), keys, &mut slots).unwrap();
        (slots, wish.is_some())
    }

    #[test]
    fn each_layer_adds_its_routes_and_is_asked_as_often_as_it_wants() {
        let mut layers = open("x-once", &[("x-once", "direct")]);
        layers.bind(0, &BindingSpec::to_queue("q", "a"), None).unwrap();
        layers.bind(1, &BindingSpec::to_queue("q", "b"), None).unwrap();
        assert_eq!(layers.depends_on(), DependsOn::KeyAndHeaders, "the most that one of them says");
        assert_eq!(routes(&layers, &["a", "b"]), (vec![9, 0, 1], false));
        layers.unbind(0).unwrap();
        assert_eq!(routes(&layers, &["a", "b"]), (vec![9, 1], false));
        let layers = open("x-each", &[]);
        assert_eq!(routes(&layers, &["a", "b"]), (vec![9, 9], false));
    }

    #[test]
    fn message_that_is_held_takes_nothing_and_reaches_no_inner_layer() {
        let mut layers = open("x-each", &[("x-each", "fanout")]);
        layers.bind(0, &BindingSpec::to_queue("q", ""), None).unwrap();
        assert_eq!(routes(&layers, &["a", "hold"]), (vec![], true));
        assert_eq!(routes(&layers, &["a"]), (vec![9, 0], false));
        // One that is asked once a message sees the first key alone.
        let layers = open("x-once", &[]);
        assert_eq!(routes(&layers, &["a", "hold"]), (vec![9], false));
    }

    #[test]
    fn binding_that_an_inner_layer_refuses_is_known_to_none() {
        let mut layers = open("x-once", &[("x-once", "x-consistent-hash")]);
        let mut handed = Vec::new();
        let mut each = |message: &Message<'_>| handed.push(message.routing_key.to_owned());
        let refused = layers.bind(0, &BindingSpec::to_queue("q", "no weight"), Some(&mut each));
        assert!(matches!(refused, Err(TypeError::Refused(_))), "{refused:?}");
        layers.bind(0, &BindingSpec::to_queue("q", "1"), Some(&mut each)).unwrap();
        assert_eq!(handed, ["1", "1"], "the outer layer counts one binding each time");
    }

    #[test]
    fn binding_that_the_outer_layer_refuses_reaches_no_inner_one() {
        let mut layers = open("x-once", &[("x-once", "fanout")]);
        layers.bind(0, &BindingSpec::to_queue("q", "refused"), None).unwrap_err();
        assert_eq!(routes(&layers, &["a"]), (vec![9], false));
    }

    #[test]
    fn types_in_a_circle_and_unknown_ones_are_refused() {
        let registry = registry();
        let error = |inner: &[(&str, &str)]| registry.exchange_types(&spec("x-once", inner)).unwrap_err().to_string();
        assert_eq!(
            error(&[("x-once", "x-each"), ("x-each", "x-once")]),
            "more than 4 exchange types stand before each other"
        );
        assert_eq!(error(&[("x-once", "x-nothing")]), "unknown exchange type 'x-nothing'");
        assert!(registry.exchange_types(&spec("x-nothing", &[])).unwrap().is_none());
    }
}
