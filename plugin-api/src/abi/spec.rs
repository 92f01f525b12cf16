//! Declarations and bindings as bytes: a field table each, so that they may grow by further entries.

use crate::error::Invalid;
use crate::exchange::{BindingSpec, DestinationKind, ExchangeSpec};
use crate::storage::StorageStatus;
use crate::value::{Table, TableRef, Value, ValueRef};

pub(crate) fn encode_exchange(spec: &ExchangeSpec) -> Vec<u8> {
    let table = Table::new()
        .with("vhost", &spec.vhost)
        .with("name", &spec.name)
        .with("kind", &spec.kind)
        .with("durable", spec.durable)
        .with("auto_delete", spec.auto_delete)
        .with("internal", spec.internal)
        .with("arguments", as_bytes(&spec.arguments));
    contents(&table)
}

pub(crate) fn decode_exchange(bytes: &[u8]) -> Result<ExchangeSpec, Invalid> {
    let table = TableRef::new(bytes);
    Ok(ExchangeSpec {
        vhost: text(table, "vhost")?,
        name: text(table, "name")?,
        kind: text(table, "kind")?,
        durable: flag(table, "durable")?,
        auto_delete: flag(table, "auto_delete")?,
        internal: flag(table, "internal")?,
        arguments: arguments(table)?,
    })
}

pub(crate) fn encode_binding(spec: &BindingSpec) -> Vec<u8> {
    let table = Table::new()
        .with("destination", &spec.destination)
        .with("to_exchange", spec.destination_kind == DestinationKind::Exchange)
        .with("routing_key", &spec.routing_key)
        .with("arguments", as_bytes(&spec.arguments));
    contents(&table)
}

pub(crate) fn decode_binding(bytes: &[u8]) -> Result<BindingSpec, Invalid> {
    let table = TableRef::new(bytes);
    let to_exchange = flag(table, "to_exchange")?;
    Ok(BindingSpec {
        destination: text(table, "destination")?,
        destination_kind: if to_exchange { DestinationKind::Exchange } else { DestinationKind::Queue },
        routing_key: text(table, "routing_key")?,
        arguments: arguments(table)?,
    })
}

pub(crate) fn status_table(status: &StorageStatus) -> Table {
    let number = |number: u64| Value::I64(i64::try_from(number).unwrap_or(i64::MAX));
    let mut figures = Table::new();
    for (name, value) in &status.figures {
        figures.insert(name, number(*value));
    }
    let damage = status.damage.iter().map(|text| Value::LongString(text.as_bytes().to_vec())).collect();
    Table::new()
        .with("is_full", status.is_full)
        .with("file_bytes", number(status.file_bytes))
        .with("live_bytes", number(status.live_bytes))
        .with("live_count", number(status.live_count))
        .with("damage", Value::Array(damage))
        .with("figures", figures)
}

/// What is missing is as in a status that nothing is known of.
pub(crate) fn decode_status(bytes: &[u8]) -> StorageStatus {
    let Ok(table) = Table::decode(bytes) else { return StorageStatus::default() };
    let number = |key| match table.get(key) {
        Some(Value::I64(number)) => u64::try_from(*number).unwrap_or_default(),
        _ => 0,
    };
    let text = |value: &Value| match value {
        Value::LongString(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    StorageStatus {
        is_full: matches!(table.get("is_full"), Some(Value::Bool(true))),
        file_bytes: number("file_bytes"),
        live_bytes: number("live_bytes"),
        live_count: number("live_count"),
        figures: match table.get("figures") {
            Some(Value::Table(figures)) => {
                let figure = |(name, value): (&[u8], &Value)| {
                    let value = u64::try_from(value.as_i64()?).ok()?;
                    Some((String::from_utf8_lossy(name).into_owned(), value))
                };
                figures.iter().filter_map(figure).collect()
            }
            _ => Vec::new(),
        },
        damage: match table.get("damage") {
            Some(Value::Array(texts)) => texts.iter().filter_map(text).collect(),
            _ => Vec::new(),
        },
    }
}

pub(crate) fn decode_table(bytes: &[u8]) -> Result<Table, Invalid> {
    Table::decode(bytes).map_err(|error| Invalid::new(error.to_string()))
}

pub(crate) fn contents(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    table.encode(&mut out);
    out
}

/// A table as a value that adds no level of nesting, since arguments may use up all that is allowed.
fn as_bytes(table: &Table) -> Value {
    Value::Bytes(contents(table))
}

fn text(table: TableRef<'_>, key: &str) -> Result<String, Invalid> {
    table.get(key).and_then(ValueRef::as_str).map(str::to_owned).ok_or_else(|| missing(key))
}

fn flag(table: TableRef<'_>, key: &str) -> Result<bool, Invalid> {
    table.get(key).and_then(ValueRef::as_bool).ok_or_else(|| missing(key))
}

fn arguments(table: TableRef<'_>) -> Result<Table, Invalid> {
    match table.get("arguments") {
        Some(ValueRef::Bytes(contents)) => decode_table(contents),
        _ => Err(missing("arguments")),
    }
}

fn missing(key: &str) -> Invalid {
    Invalid::new(format!("the broker's declaration lacks '{key}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_survive_the_crossing() {
        let arguments = Table::new().with("x", Value::Array(vec![Value::Void, Value::Table(Table::new())]));
        let exchange = ExchangeSpec {
            vhost: "/".into(),
            name: "é".into(),
            kind: "x-geo".into(),
            durable: true,
            auto_delete: false,
            internal: true,
            arguments: arguments.clone(),
        };
        assert_eq!(decode_exchange(&encode_exchange(&exchange)), Ok(exchange));
        for destination_kind in [DestinationKind::Queue, DestinationKind::Exchange] {
            let arguments = arguments.clone();
            let binding = BindingSpec { destination_kind, arguments, ..BindingSpec::to_queue("q", "a.#") };
            assert_eq!(decode_binding(&encode_binding(&binding)), Ok(binding));
        }
    }

    #[test]
    fn status_survives_the_crossing() {
        let status = StorageStatus {
            is_full: true,
            file_bytes: 1,
            live_bytes: 2,
            live_count: 3,
            damage: vec!["segment-1 at 7".into(), "é".into()],
            figures: vec![("reads".into(), 4), ("syncs".into(), 5)],
        };
        assert_eq!(decode_status(&contents(&status_table(&status))), status);
        assert_eq!(decode_status(b"\xff"), StorageStatus::default());
    }

    #[test]
    fn what_is_missing_is_named() {
        let bytes = contents(&Table::new().with("vhost", "/"));
        assert_eq!(decode_exchange(&bytes).unwrap_err().text, "the broker's declaration lacks 'name'");
        assert!(decode_binding(b"\xff").is_err());
    }
}
