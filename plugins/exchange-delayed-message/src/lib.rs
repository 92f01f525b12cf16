//! The `x-delayed-message` exchange type: a message with the header `x-delay` waits for so many milliseconds and is routed then, as the
//! type named in the exchange's argument `x-delayed-type` routes. Others are routed at once.

use plugin_api::error::Invalid;
use plugin_api::exchange::{
    AskedPer, BindingSlot, BindingSpec, DependsOn, Exchange, ExchangeSpec, ExchangeType, Routes,
};
use plugin_api::message::Message;
use plugin_api::value::{Value, ValueRef};

/// The longest delay in milliseconds: that of a timer in RabbitMQ, about 49 days. A longer one is none.
const DELAY_MS_MAX: i64 = 4_294_967_295;

const NAME: &str = "x-delayed-message";
const DELAY: &str = "x-delay";
const INNER: &str = "x-delayed-type";

/// The type, as registered.
pub struct DelayedMessage;

impl ExchangeType for DelayedMessage {
    fn name(&self) -> &str {
        NAME
    }

    fn description(&self) -> &str {
        "holds messages back for a time before another type routes them"
    }

    fn depends_on(&self) -> DependsOn {
        DependsOn::State
    }

    fn asked_per(&self) -> AskedPer {
        AskedPer::Message
    }

    fn validate(&self, spec: &ExchangeSpec) -> Result<(), Invalid> {
        inner_type(spec).map(drop)
    }

    fn inner(&self, spec: &ExchangeSpec) -> Result<Option<String>, Invalid> {
        inner_type(spec).map(Some)
    }

    fn open(&self, _: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid> {
        Ok(Box::new(DelayedMessageExchange))
    }
}

/// One delayed message exchange. Bindings are the inner type's.
struct DelayedMessageExchange;

impl Exchange for DelayedMessageExchange {
    fn bind(&mut self, _slot: BindingSlot, _binding: &BindingSpec) -> Result<(), Invalid> {
        Ok(())
    }

    fn unbind(&mut self, _slot: BindingSlot) {}

    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>) {
        let Some(delay_ms) = delay_ms(message) else { return };
        // Properties that cannot be read cannot be changed, and a message that came back unchanged would wait again.
        let Ok(mut properties) = message.properties.to_owned() else { return };
        let headers = properties.headers.get_or_insert_default();
        // With its delay negated the message is not delayed again, also by exchanges behind this one, and its consumers see that
        // it was. As in RabbitMQ, where the number is a signed integer if it fits in one.
        let negated = -delay_ms;
        headers.insert(DELAY, i32::try_from(negated).map_or(Value::I64(negated), Value::I32));
        routes.hold(delay_ms.unsigned_abs(), Some(&properties));
    }
}

/// For how long a message waits; none if it does not.
fn delay_ms(message: &Message<'_>) -> Option<i64> {
    let delay = match message.properties.headers()?.get(DELAY)? {
        ValueRef::LongString(text) | ValueRef::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        // Casting saturates, and what is no number becomes 0.
        ValueRef::F32(number) => number as i64,
        ValueRef::F64(number) => number as i64,
        other => other.as_i64()?,
    };
    (1..=DELAY_MS_MAX).contains(&delay).then_some(delay)
}

/// The type that routes what has waited.
///
/// # Errors
/// RabbitMQ's texts.
fn inner_type(spec: &ExchangeSpec) -> Result<String, Invalid> {
    match spec.arguments.get(INNER).and_then(Value::as_str) {
        Some(NAME) => Err(Invalid::new(format!("Invalid argument, '{NAME}' can't be used for '{INNER}'"))),
        Some(inner) if !inner.is_empty() => Ok(inner.to_owned()),
        _ => Err(Invalid::new(format!("Invalid argument, '{INNER}' must be an existing exchange type"))),
    }
}

plugin_api::export_plugin!(exchange_types: [DelayedMessage]);

#[cfg(test)]
mod tests {
    use plugin_api::exchange::{Hold, Wish};
    use plugin_api::message::{Properties, PropertiesBuf};
    use plugin_api::value::Table;

    use super::*;

    fn route(headers: Option<Table>) -> Option<Hold> {
        let raw = PropertiesBuf { headers, priority: Some(3), ..PropertiesBuf::default() }.encode();
        let message = Message { properties: Properties::from_raw(&raw), ..Message::with_key("a") };
        let mut slots = Vec::new();
        let ((), wish) = Routes::append_to(&mut slots, |routes| DelayedMessageExchange.route(&message, routes));
        wish.map(|wish| match wish {
            Wish::Hold(hold) => hold,
            Wish::Keep(keep) => panic!("it keeps nothing, and not {keep:?}"),
        })
    }

    fn delay_of(value: impl Into<Value>) -> Option<u64> {
        route(Some(Table::new().with(DELAY, value))).map(|hold| hold.delay_ms)
    }

    #[test]
    fn numbers_texts_and_floats_are_delays() {
        for (value, expected) in [
            (Value::I8(5), Some(5)),
            (Value::U32(u32::MAX), Some(4_294_967_295)),
            (Value::I64(4_294_967_296), None),
            (Value::I32(0), None),
            (Value::I32(-1), None),
            (Value::from("1500"), Some(1500)),
            (Value::from("1.5"), None),
            (Value::from("soon"), None),
            (Value::Bytes(b"7".to_vec()), Some(7)),
            (Value::F64(2.9), Some(2)),
            (Value::F64(0.9), None),
            (Value::F64(f64::NAN), None),
            (Value::F64(1e300), None),
            (Value::F32(3.5), Some(3)),
            (Value::Bool(true), None),
            (Value::Void, None),
        ] {
            assert_eq!(delay_of(value.clone()), expected, "{value:?}");
        }
        assert_eq!(route(None), None);
        assert_eq!(route(Some(Table::new().with("x-other", 5_i32))), None);
    }

    #[test]
    fn message_comes_back_with_its_delay_negated_and_is_not_held_again() {
        let hold = route(Some(Table::new().with("a", "b").with(DELAY, 5000_i64))).unwrap();
        let raw = hold.properties.unwrap();
        let properties = Properties::from_raw(&raw).to_owned().unwrap();
        assert_eq!(properties.priority, Some(3));
        let headers = properties.headers.clone().unwrap();
        assert_eq!((headers.get("a"), headers.get(DELAY)), (Some(&Value::from("b")), Some(&Value::I32(-5000))));
        assert_eq!(route(properties.headers), None);
        let hold = route(Some(Table::new().with(DELAY, Value::U32(u32::MAX)))).unwrap();
        let headers = Properties::from_raw(&hold.properties.unwrap()).headers().unwrap().to_owned().unwrap();
        assert_eq!(headers.get(DELAY), Some(&Value::I64(-4_294_967_295)));
    }

    #[test]
    fn inner_type_is_required() {
        let inner = |arguments| inner_type(&ExchangeSpec { arguments, ..ExchangeSpec::default() });
        let missing = Err(Invalid::new("Invalid argument, 'x-delayed-type' must be an existing exchange type"));
        assert_eq!(inner(Table::new()), missing);
        assert_eq!(inner(Table::new().with(INNER, 1_i32)), missing);
        assert_eq!(inner(Table::new().with(INNER, "topic")), Ok("topic".to_owned()));
        assert_eq!(
            inner(Table::new().with(INNER, NAME)).unwrap_err().text,
            "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'"
        );
    }
}
