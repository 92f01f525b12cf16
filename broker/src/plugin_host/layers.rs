//! Exchange types that stand before others ([`plugin_api::exchange::ExchangeType::inner`]).
//!
//! Most exchanges have one layer. Where a type stands before another, both judge declarations and bindings and both know every
//! binding by the same slot; a message reaches the inner one unless the outer holds it. Each layer is watched for itself, so that
//! a fault is put down to the plugin that it happened in.

use std::sync::Arc;

use plugin_api::exchange::{AskedPer, BindingSpec, DependsOn, ExchangeSpec, Hold};
use plugin_api::message::Message;

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

    /// Appends the slots of the bindings that `message` takes with any of `keys` to `out`, or says that it is to be held, and
    /// then appends nothing. The first key is the one that it was published with.
    ///
    /// # Errors
    /// A type panicked, now or too often before.
    #[inline]
    pub fn route(&self, message: &Message<'_>, keys: &[&str], out: &mut Vec<u32>) -> Result<Option<Hold>, TypeError> {
        let before = out.len();
        for layer in &self.layers {
            let keys = match layer.asked_per() {
                AskedPer::Key => keys,
                AskedPer::Message => keys.get(..1).unwrap_or_default(),
            };
            for &routing_key in keys {
                if let Some(hold) = layer.route(&Message { routing_key, ..*message }, out)? {
                    out.truncate(before);
                    return Ok(Some(hold));
                }
            }
        }
        Ok(None)
    }
}
