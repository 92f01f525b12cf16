//! The codec against others: the `amq-protocol` crate, which lapin stands on, and the harness's own table of methods.
//!
//! What our codec writes the other one must read and write again byte for byte, and ours must read it back.

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use broker::amqp::frame::{self, FrameKind};
use broker::amqp::method::{FieldKind, FieldValue, METHODS, Method, MethodDescriptor};
use broker::amqp::wire::Writer;
use plugin_api::message::{Properties, PropertiesBuf};
use plugin_api::value::{TABLE_DEPTH_MAX, Table, TableRef, Value};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tests::wire::spec;

/// An argument that owns what it borrows later.
#[derive(Debug, Clone)]
enum Argument {
    Octet(u8),
    Short(u16),
    Long(u32),
    Longlong(u64),
    Bit(bool),
    Shortstr(String),
    Longstr(Vec<u8>),
    Table(Vec<u8>),
}

impl Argument {
    fn as_value(&self) -> FieldValue<'_> {
        match self {
            Self::Octet(v) => FieldValue::Octet(*v),
            Self::Short(v) => FieldValue::Short(*v),
            Self::Long(v) => FieldValue::Long(*v),
            Self::Longlong(v) => FieldValue::Longlong(*v),
            Self::Bit(v) => FieldValue::Bit(*v),
            Self::Shortstr(v) => FieldValue::Shortstr(v),
            Self::Longstr(v) => FieldValue::Longstr(v),
            Self::Table(v) => FieldValue::Table(TableRef::new(v)),
        }
    }
}

/// Fields that the specification has withdrawn: `amq-protocol` reads past them and writes what stands there by decree.
fn reserved(method: &str, field: &str, kind: FieldKind) -> Option<BoxedStrategy<Argument>> {
    let fixed = match (method, field) {
        ("access.request-ok", "ticket") => Argument::Short(1),
        (_, "ticket") => Argument::Short(0),
        ("connection.open", "capabilities" | "insist")
        | ("connection.open-ok", "known_hosts")
        | ("channel.open", "out_of_band")
        | ("basic.get-empty", "cluster_id") => match kind {
            FieldKind::Bit => Argument::Bit(false),
            _ => Argument::Shortstr(String::new()),
        },
        ("basic.qos", "prefetch_size") => Argument::Long(0),
        ("channel.open-ok", "channel_id") => Argument::Longstr(Vec::new()),
        _ => return None,
    };
    Some(Just(fixed).boxed())
}

fn argument(kind: FieldKind) -> BoxedStrategy<Argument> {
    match kind {
        FieldKind::Octet => any::<u8>().prop_map(Argument::Octet).boxed(),
        FieldKind::Short => any::<u16>().prop_map(Argument::Short).boxed(),
        FieldKind::Long => any::<u32>().prop_map(Argument::Long).boxed(),
        FieldKind::Longlong => any::<u64>().prop_map(Argument::Longlong).boxed(),
        FieldKind::Bit => any::<bool>().prop_map(Argument::Bit).boxed(),
        FieldKind::Shortstr => short_text().prop_map(Argument::Shortstr).boxed(),
        FieldKind::Longstr => vec(any::<u8>(), 0..300).prop_map(Argument::Longstr).boxed(),
        FieldKind::Table => table().prop_map(|table| Argument::Table(encode(&table))).boxed(),
    }
}

fn short_text() -> impl Strategy<Value = String> {
    "\\PC{0,40}".prop_filter("a short string has at most 255 bytes", |text| text.len() <= 255)
}

/// Tables with sorted, unique, textual keys: `amq-protocol` keeps them in a sorted map of text.
fn table() -> impl Strategy<Value = Table> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::I8),
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        (-1e30_f32..1e30).prop_map(Value::F32),
        (-1e300_f64..1e300).prop_map(Value::F64),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| Value::Decimal { scale, value }),
        vec(any::<u8>(), 0..40).prop_map(Value::LongString),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        any::<u64>().prop_map(Value::Timestamp),
        Just(Value::Void),
    ];
    let value = leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            btree_map("[a-z-]{1,12}", inner, 0..6).prop_map(|entries| Value::Table(to_table(entries))),
        ]
    });
    btree_map("[a-z-]{1,12}", value, 0..6).prop_map(to_table)
}

fn to_table(entries: std::collections::BTreeMap<String, Value>) -> Table {
    let mut table = Table::new();
    for (key, value) in entries {
        table.push(key.as_bytes(), value).expect("the keys are short");
    }
    table
}

fn encode(table: &Table) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes
}

fn method() -> impl Strategy<Value = (&'static MethodDescriptor, Vec<Argument>)> {
    (0..METHODS.len()).prop_flat_map(|index| {
        let descriptor = &METHODS[index];
        let arguments: Vec<_> = descriptor
            .fields
            .iter()
            .map(|(name, kind)| reserved(descriptor.name, name, *kind).unwrap_or_else(|| argument(*kind)))
            .collect();
        (Just(descriptor), arguments)
    })
}

fn properties() -> impl Strategy<Value = PropertiesBuf> {
    let text = || option::of(short_text().prop_map(String::into_bytes));
    let first = (text(), text(), option::of(table()), option::of(any::<u8>()), option::of(any::<u8>()), text(), text());
    let second = (text(), text(), option::of(any::<u64>()), text(), text(), text(), text());
    (first, second).prop_map(|(first, second)| {
        let (content_type, content_encoding, headers, delivery_mode, priority, correlation_id, reply_to) = first;
        let (expiration, message_id, timestamp, kind, user_id, app_id, cluster_id) = second;
        PropertiesBuf {
            content_type,
            content_encoding,
            headers,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
            cluster_id,
        }
    })
}

/// Reads a frame with `amq-protocol`, writes it again with it, and compares.
fn check_frame(bytes: &[u8]) -> Result<AMQPFrame, TestCaseError> {
    let (rest, parsed) = parse_frame(bytes).map_err(|error| TestCaseError::fail(format!("not parsed: {error:?}")))?;
    prop_assert!(rest.is_empty(), "{} bytes are left over", rest.len());
    let written = gen_frame(&parsed)(WriteContext::from(Vec::new()))
        .map_err(|error| TestCaseError::fail(format!("not written: {error:?}")))?;
    prop_assert_eq!(written.into_inner().0, bytes);
    Ok(parsed)
}

proptest! {
    // Failing inputs are printed; files of them beside the sources would be nobody's.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_method_reads_the_same_on_both_sides((descriptor, arguments) in method(), channel in any::<u16>()) {
        let mut payload = Vec::new();
        let mut writer = Writer::new(&mut payload);
        writer.short(descriptor.id.class);
        writer.short(descriptor.id.method);
        for argument in &arguments {
            argument.as_value().write(&mut writer);
        }
        let mut bytes = Vec::new();
        frame::write(&mut bytes, FrameKind::Method, channel, |out| out.extend_from_slice(&payload));
        check_frame(&bytes)?;

        let mut input = bytes.as_slice();
        let read = frame::decode(&mut input, 0).expect("our own frame").expect("the whole frame");
        prop_assert_eq!((read.kind, read.channel, input.len()), (FrameKind::Method, channel, 0));
        let decoded = Method::decode(read.payload).expect("our own method");
        prop_assert_eq!(decoded.name(), descriptor.name);
        let mut again = Vec::new();
        decoded.encode(&mut again);
        prop_assert_eq!(again, payload);
    }

    #[test]
    fn properties_read_the_same_on_both_sides(properties in properties(), body_size in any::<u64>()) {
        let raw = properties.encode();
        let mut bytes = Vec::new();
        frame::write(&mut bytes, FrameKind::Header, 1, |out| {
            out.extend_from_slice(&60_u16.to_be_bytes());
            out.extend_from_slice(&0_u16.to_be_bytes());
            out.extend_from_slice(&body_size.to_be_bytes());
            out.extend_from_slice(&raw);
        });
        let AMQPFrame::Header(1, header) = check_frame(&bytes)? else { panic!("a header comes back as a header") };
        prop_assert_eq!(header.body_size, body_size);
        prop_assert_eq!(header.properties.delivery_mode(), &properties.delivery_mode);
        prop_assert_eq!(header.properties.timestamp(), &properties.timestamp);

        let read = Properties::from_raw(&raw);
        prop_assert!(read.check().is_ok());
        prop_assert_eq!(read.to_owned().expect("our own properties"), properties);
    }

    #[test]
    fn tables_come_back_as_they_were(table in table()) {
        let bytes = encode(&table);
        prop_assert!(TableRef::new(&bytes).check(TABLE_DEPTH_MAX).is_ok());
        let read = Table::decode(&bytes).expect("our own table");
        prop_assert!(read.equivalent(&table));
        prop_assert_eq!(encode(&read), bytes);
    }

    #[test]
    fn damaged_bytes_are_errors_and_not_panics(mut bytes in vec(any::<u8>(), 0..200), table in table(), at in any::<prop::sample::Index>()) {
        let _ = Method::decode(&bytes);
        let _ = Properties::from_raw(&bytes).check();
        let _ = frame::decode(&mut bytes.as_slice(), 131_072);
        bytes = encode(&table);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= 0x55;
            let _ = Table::decode(&bytes);
            bytes.truncate(at);
            let _ = TableRef::new(&bytes).check(TABLE_DEPTH_MAX);
        }
    }
}

#[test]
fn the_harness_and_the_broker_have_the_same_methods() {
    for descriptor in METHODS {
        let row = spec::by_id(descriptor.id.class, descriptor.id.method);
        let row = row.unwrap_or_else(|| panic!("the harness does not know {}", descriptor.name));
        assert_eq!((row.name, row.has_content()), (descriptor.name, descriptor.has_content));
        let kinds: Vec<_> = descriptor.fields.iter().map(|(_, kind)| harness_kind(*kind)).collect();
        let expected: Vec<_> = row.arguments.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, expected, "{}", descriptor.name);
    }
}

fn harness_kind(kind: FieldKind) -> spec::Kind {
    match kind {
        FieldKind::Octet => spec::Kind::Octet,
        FieldKind::Short => spec::Kind::Short,
        FieldKind::Long => spec::Kind::Long,
        FieldKind::Longlong => spec::Kind::LongLong,
        FieldKind::Bit => spec::Kind::Bit,
        FieldKind::Shortstr => spec::Kind::ShortString,
        FieldKind::Longstr => spec::Kind::LongString,
        FieldKind::Table => spec::Kind::Table,
    }
}
