//! `msg.headers`.

use plugin_api::value::Value;

use super::*;

/// The raw header table after a hook; `None` if the hook left the properties alone.
#[track_caller]
fn headers_after(body: &str, raw_headers: &[u8]) -> Option<Vec<u8>> {
    let folder = Folder::new();
    let raw = with_raw_headers(raw_headers);
    match chain_of(&folder, body).on_publish(&publish(&raw)) {
        Outcome::Pass => None,
        Outcome::Rewrite { routing_key: None, properties: Some(properties) } => {
            let properties = Properties::from_raw(&properties);
            properties.check().expect("well-formed properties");
            Some(properties.headers().map(|headers| headers.raw().to_vec()).unwrap_or_default())
        }
        other => panic!("{body}: {other:?}"),
    }
}

fn with_raw_headers(headers: &[u8]) -> Vec<u8> {
    let mut raw = vec![0x20, 0x00];
    raw.extend_from_slice(&u32::try_from(headers.len()).expect("small").to_be_bytes());
    raw.extend_from_slice(headers);
    raw
}

fn encoded(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    table.encode(&mut out);
    out
}

/// One entry of every type, and the spellings that nobody writes but a client may send.
fn every_type() -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |name: &str, value: &[u8]| {
        out.push(u8::try_from(name.len()).expect("short"));
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    };
    put("bool", b"t\x02");
    put("i8", b"b\xff");
    put("u8", b"B\xff");
    put("i16", b"s\xff\xfe");
    put("u16", b"u\xff\xfe");
    put("i32", b"I\xff\xff\xff\xfe");
    put("u32", b"i\xff\xff\xff\xfe");
    put("i64", b"l\xff\xff\xff\xff\xff\xff\xff\xfe");
    put("other i64", b"L\x00\x00\x00\x00\x00\x00\x00\x07");
    put("f32", b"f\x3f\xc0\x00\x00");
    put("f64", b"d\x3f\xf8\x00\x00\x00\x00\x00\x00");
    put("decimal", b"D\x02\x00\x00\x00\x7b");
    put("text", b"S\x00\x00\x00\x02hi");
    put("bytes", b"x\x00\x00\x00\x02\xff\x00");
    put("array", b"A\x00\x00\x00\x04b\x01b\x02");
    put("time", b"T\x00\x00\x00\x00\x00\x00\x00\x05");
    put("table", b"F\x00\x00\x00\x04\x01ab\x07");
    put("void", b"V");
    put("", b"t\x01");
    put("twice", b"b\x01");
    put("twice", b"b\x02");
    out
}

#[test]
fn untouched_headers_keep_every_byte() {
    let mut expected = every_type();
    expected.extend_from_slice(b"\x03newS\x00\x00\x00\x01v");
    assert_eq!(headers_after("msg.headers.new = 'v'", &every_type()), Some(expected));
    assert_eq!(headers_after("for k, v in msg.headers do local _ = msg.headers[k] end", &every_type()), None);
    assert_eq!(headers_after("msg.headers.absent = nil", &every_type()), None);
}

#[test]
fn every_type_is_read() {
    for (name, value) in [
        ("bool", "true"),
        ("i8", "-1"),
        ("u8", "255"),
        ("i16", "-2"),
        ("u16", "65534"),
        ("i32", "-2"),
        ("u32", "4294967294"),
        ("i64", "-2"),
        ("other i64", "7"),
        ("f32", "1.5"),
        ("f64", "1.5"),
        ("decimal", "1.23"),
        ("text", "'hi'"),
        ("bytes", "'\\xff\\0'"),
        ("time", "5"),
        ("void", "nil"),
        ("", "true"),
        ("twice", "1"),
        ("absent", "nil"),
    ] {
        // Once as it came, once from the entries that a write makes.
        for before in ["", "msg.headers.touched = 1"] {
            let body =
                format!("{before} local v = msg.headers['{name}'] assert(v == {value}, tostring(v)) return false");
            let folder = Folder::new();
            let outcome = chain_of(&folder, &body).on_publish(&publish(&with_raw_headers(&every_type())));
            assert!(matches!(outcome, Outcome::Drop { .. }), "{name}: {outcome:?}");
        }
    }
}

#[test]
fn nested_values_are_read_only_copies() {
    for (body, reason) in [
        ("local a = msg.headers.array assert(#a == 2 and a[1] == 1 and a[2] == 2) error('fine')", "fine"),
        ("local t = msg.headers.table assert(t.a == 7) error('fine')", "fine"),
        ("msg.headers.table.a = 8", "attempt to modify a readonly table"),
        ("table.insert(msg.headers.array, 3)", "attempt to modify a readonly table"),
    ] {
        let folder = Folder::new();
        let outcome = chain_of(&folder, body).on_publish(&publish(&with_raw_headers(&every_type())));
        assert_eq!(rejected(outcome), reason, "{body}");
    }
}

#[test]
fn lua_values_become_the_type_one_expects() {
    let nested = Table::new().with("a", "x").with("b", Value::Array(vec![Value::Bool(true), Value::F64(0.5)]));
    for (value, written) in [
        ("'text'", Value::LongString(b"text".to_vec())),
        ("''", Value::LongString(Vec::new())),
        ("'\\xff'", Value::LongString(vec![0xff])),
        ("5", Value::I64(5)),
        ("-5.0", Value::I64(-5)),
        ("2^53", Value::I64(1 << 53)),
        ("0.25", Value::F64(0.25)),
        ("1e300", Value::F64(1e300)),
        ("-1/0", Value::F64(f64::NEG_INFINITY)),
        ("true", Value::Bool(true)),
        ("false", Value::Bool(false)),
        ("{1, 'two'}", Value::Array(vec![Value::I64(1), Value::LongString(b"two".to_vec())])),
        ("{}", Value::Table(Table::new())),
        ("{b = {true, 0.5}, a = 'x'}", Value::Table(nested)),
    ] {
        let expected = encoded(&Table::new().with("h", written));
        assert_eq!(headers_after(&format!("msg.headers.h = {value}"), &[]), Some(expected), "{value}");
    }
}

#[test]
fn setting_replaces_in_place_and_nil_removes_all_of_that_name() {
    let came = encoded(&Table::new().with("a", 1i64).with("b", 2i64).with("c", 3i64));
    for (body, expected) in [
        ("msg.headers.b = 'x'", Some(Table::new().with("a", 1i64).with("b", "x").with("c", 3i64))),
        ("msg.headers.b = nil", Some(Table::new().with("a", 1i64).with("c", 3i64))),
        ("msg.headers.d = 4; msg.headers.d = nil", None),
        ("msg.headers.b = 2", None),
        ("for name in msg.headers do msg.headers[name] = nil end", Some(Table::new())),
        ("for name in pairs(msg.headers) do msg.headers[name] = name end", {
            Some(Table::new().with("a", "a").with("b", "b").with("c", "c"))
        }),
        ("msg.headers.count = #msg.headers", {
            Some(Table::new().with("a", 1i64).with("b", 2i64).with("c", 3i64).with("count", 3i64))
        }),
    ] {
        assert_eq!(headers_after(body, &came), expected.as_ref().map(encoded), "{body}");
    }
    let removed = headers_after("msg.headers.twice = nil", &every_type()).expect("changed");
    assert!(!removed.windows(5).any(|name| name == b"twice"));
    let set = headers_after("msg.headers.twice = 1", &every_type()).expect("changed");
    assert_eq!(set.windows(5).filter(|name| *name == b"twice").count(), 1);
}

#[test]
fn message_without_headers_gets_a_table_only_when_one_is_set() {
    let came = PropertiesBuf { priority: Some(1), ..PropertiesBuf::default() };
    assert_eq!(run("msg.headers.a = 1; msg.headers.a = nil; return true", &came), Outcome::Pass);
    let with = PropertiesBuf { headers: Some(Table::new().with("a", 1i64)), ..came.clone() };
    let expected = Outcome::Rewrite { routing_key: None, properties: Some(with.encode()) };
    assert_eq!(run("msg.headers.a = 1", &came), expected);
}

#[test]
fn integers_beyond_lua_numbers_are_read_as_text() {
    let came = encoded(&Table::new().with("id", i64::MAX).with("edge", 1i64 << 53));
    let body = "assert(msg.headers.id == '9223372036854775807') assert(msg.headers.edge == 2^53)";
    assert_eq!(headers_after(body, &came), None);
}

#[test]
fn what_a_header_cannot_hold_is_refused() {
    for (body, sentence) in [
        ("msg.headers.f = print", "global 'print' does not exist"),
        ("msg.headers.f = function() end", "a header holds a string, number, boolean or table of them, not a function"),
        ("msg.headers.m = {msg}", "a header holds a string, number, boolean or table of them, not a userdata"),
        ("msg.headers[1] = 'x'", "a header's name is a string, not a integer"),
        ("msg.headers[string.rep('n', 256)] = 1", "a header's name has at most 255 bytes"),
        ("msg.headers.t = {1, 2, x = 3}", "a table in a header is either a list or has string keys only"),
        ("msg.headers.t = {[2] = 3}", "a table in a header is either a list or has string keys only"),
        ("msg.headers.t = {[true] = 3}", "a table in a header is either a list or has string keys only"),
        ("local t = {} t.t = t msg.headers.t = t", "header is nested too deep"),
        ("local t = {} t[1] = t msg.headers.t = t", "header is nested too deep"),
        (
            "local t = {1} for i = 1, 60 do t = {t, t} end msg.headers.t = t",
            "the headers would have more than 122880 bytes",
        ),
        ("msg.headers.s = string.rep('x', 200000)", "the headers would have more than 122880 bytes"),
        ("for i = 1, 1000 do msg.headers['h' .. i] = string.rep('x', 1000) end", "the headers would have more than"),
        ("pairs(msg)", "pairs takes a table or msg.headers"),
    ] {
        let reason = rejected(run(body, &example()));
        assert!(reason.starts_with(sentence), "{body}: {reason}");
    }
}

#[test]
fn malformed_headers_are_an_error_of_the_message_and_not_of_the_broker() {
    for body in ["return msg.headers.x", "msg.headers.x = 1", "for k in msg.headers do end"] {
        let folder = Folder::new();
        let outcome = chain_of(&folder, body).on_publish(&publish(&with_raw_headers(b"\x01aS\x00\x00\xff\xff")));
        assert!(rejected(outcome).starts_with("the headers of this message are malformed"), "{body}");
    }
}
