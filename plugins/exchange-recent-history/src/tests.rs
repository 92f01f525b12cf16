//! What is remembered, and what new bindings get.

use plugin_api::exchange::{Keep, Wish};
use plugin_api::message::PropertiesBuf;
use plugin_api::testing::routes;

use super::*;

fn open(arguments: Table) -> Box<dyn Exchange> {
    RecentHistory.open(&ExchangeSpec { arguments, ..ExchangeSpec::default() }).unwrap()
}

fn bind(exchange: &mut dyn Exchange, slot: u32) -> Vec<String> {
    exchange.bind(BindingSlot(slot), &BindingSpec::to_queue("q", slot.to_string())).unwrap();
    let mut keys = Vec::new();
    let mut each = |message: &Message<'_>| keys.push(message.routing_key.to_owned());
    Deliveries::pass_to(&mut each, |deliveries| exchange.bound(BindingSlot(slot), deliveries));
    keys
}

fn publish(exchange: &dyn Exchange, key: &str) -> Vec<u32> {
    routes(exchange, &Message::with_key(key))
}

fn publish_with(exchange: &dyn Exchange, key: &str, headers: Table) -> Vec<u32> {
    let raw = PropertiesBuf { headers: Some(headers), ..PropertiesBuf::default() }.encode();
    routes(exchange, &Message { properties: Properties::from_raw(&raw), ..Message::with_key(key) })
}

#[test]
fn new_binding_gets_the_last_twenty_oldest_first() {
    let mut exchange = open(Table::new());
    for number in 0..25 {
        assert!(publish(&*exchange, &number.to_string()).is_empty());
    }
    let expected: Vec<String> = (5..25).map(|number| number.to_string()).collect();
    assert_eq!(bind(&mut *exchange, 0), expected);
    assert_eq!(bind(&mut *exchange, 1), expected, "each binding gets them");
    assert_eq!(publish(&*exchange, "next"), [0, 1]);
}

#[test]
fn length_is_an_argument() {
    let mut exchange = open(Table::new().with(LENGTH, 2_i64));
    ["a", "b", "c"].iter().for_each(|key| drop(publish(&*exchange, key)));
    assert_eq!(bind(&mut *exchange, 0), ["b", "c"]);
}

#[test]
fn message_that_says_so_is_routed_and_not_remembered() {
    let mut exchange = open(Table::new());
    bind(&mut *exchange, 0);
    assert_eq!(publish_with(&*exchange, "a", Table::new().with(NO_STORE, true)), [0]);
    // Only true, and only as a boolean, as in RabbitMQ.
    assert_eq!(publish_with(&*exchange, "b", Table::new().with(NO_STORE, false)), [0]);
    assert_eq!(publish_with(&*exchange, "c", Table::new().with(NO_STORE, "true")), [0]);
    assert_eq!(bind(&mut *exchange, 1), ["b", "c"]);
}

#[test]
fn length_must_be_a_positive_signed_integer() {
    for (value, printed) in [
        (Value::I32(0), "0"),
        (Value::I64(-5), "-5"),
        (Value::from("20"), "<<\"20\">>"),
        (Value::U16(5), "5"),
        (Value::Bool(true), "true"),
        (Value::F64(2.5), "2.5"),
    ] {
        let text = length(&Table::new().with(LENGTH, value)).unwrap_err().text;
        assert_eq!(text, format!("Invalid argument {printed}, 'x-recent-history-length' must be a positive integer"));
    }
    assert_eq!(length(&Table::new().with(LENGTH, Value::I8(3))), Ok(3));
}

#[test]
fn properties_that_cannot_be_read_are_not_remembered() {
    let mut exchange = open(Table::new());
    let properties = Properties::from_raw(b"\x20\x00\xff");
    routes(&*exchange, &Message { properties, ..Message::with_key("a") });
    assert!(bind(&mut *exchange, 0).is_empty());
}

#[test]
fn what_is_remembered_is_kept_and_what_was_kept_is_remembered() {
    let exchange = open(Table::new().with(LENGTH, 2_i64));
    let wish = |headers: Table| {
        let raw = PropertiesBuf { headers: Some(headers), ..PropertiesBuf::default() }.encode();
        let message = Message { properties: Properties::from_raw(&raw), ..Message::with_key("a") };
        let ((), wish) = Routes::append_to(&mut Vec::new(), |routes| exchange.route(&message, routes));
        wish
    };
    assert_eq!(wish(Table::new()), Some(Wish::Keep(Keep { count_max: 2, bytes_max: HISTORY_BYTES_MAX as u64 })));
    assert_eq!(wish(Table::new().with(NO_STORE, true)), None);

    let mut exchange = open(Table::new().with(LENGTH, 2_i64));
    ["a", "b", "c"].iter().for_each(|key| exchange.restore(&Message::with_key(key)));
    publish(&*exchange, "d");
    assert_eq!(bind(&mut *exchange, 0), ["c", "d"]);
}
