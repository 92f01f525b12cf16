//! The tree itself: values, places, aliases, limits.

use std::path::Path;

use super::*;

fn parse_text(text: &str) -> (Option<Node>, Vec<String>) {
    let source = Source::new(Path::new("t.yaml"), text.to_owned());
    let (root, mistakes) = parse(&source, 0, &|name| (name == "PORT").then(|| "5672".to_owned()));
    let mistakes = mistakes
        .iter()
        .map(|mistake| {
            let at = source.position(mistake.span.start);
            format!("{}:{}: {}", at.line, at.column, mistake.cause)
        })
        .collect();
    (root, mistakes)
}

/// The tree in one line: mappings as `{k: v}`, text quoted, plain values as they resolve.
fn show(node: &Node) -> String {
    match &node.value {
        Value::Scalar(_) => match node.plain() {
            Some(Plain::Text(text)) => format!("{text:?}"),
            Some(Plain::Int(value)) => value.to_string(),
            other => format!("{:?}", other.unwrap_or(Plain::Null)),
        },
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Mapping(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|entry| format!("{}: {}", entry.key, show(&entry.value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let (root, mistakes) = parse_text(text);
    assert_eq!(mistakes, Vec::<String>::new(), "{text}");
    assert_eq!(show(&root.unwrap()), expected, "{text}");
}

#[track_caller]
fn check_mistakes(text: &str, expected: &[&str]) {
    assert_eq!(parse_text(text).1, expected, "{text}");
}

#[test]
fn plain_scalars_have_the_types_of_the_core_schema() {
    let text = "[~, null, true, False, 12, -7, +3, 0x1F, 0o17, 012, 1.5, 1e3, .5, 5., -.inf, a]";
    check(
        text,
        "[Null, Null, Bool(true), Bool(false), 12, -7, 3, 31, 15, 12, Float(1.5), Float(1000.0), Float(0.5), \
         Float(5.0), Float(-inf), \"a\"]",
    );
    check(
        "[yes, 1.2.3, 1_000, inf, nan, 1e, ., 0x, 10s]",
        "[\"yes\", \"1.2.3\", \"1_000\", \"inf\", \"nan\", \"1e\", \".\", \"0x\", \"10s\"]",
    );
    check("[99999999999999999999]", "[HugeInt]");
    check("['12', \"true\", !!str 12]", "[\"12\", \"true\", \"12\"]");
    check("a: |\n  12\n", "{a: \"12\\n\"}");
}

#[test]
fn variables_are_expanded_in_keys_and_values_and_keep_their_type() {
    check("a: ${PORT}", "{a: 5672}");
    check("a: '${PORT}'", "{a: \"5672\"}");
    check("a: ${HOST:-localhost}:${PORT}", "{a: \"localhost:5672\"}");
    check("q.${PORT}: x", "{q.5672: \"x\"}");
    check("a: ${EMPTY:-}", "{a: \"\"}");
    check("a: '${LIST:-[1, 2]}'", "{a: \"[1, 2]\"}");
    check_mistakes("a: ${HOST}\nb: ${", &["1:4: environment variable 'HOST' is not set", "2:4: '${' without '}'"]);
}

#[test]
fn aliases_and_merges_are_resolved() {
    check("a: &x {b: 1}\nc: *x", "{a: {b: 1}, c: {b: 1}}");
    check("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}", "{a: {b: 1, c: 2}, d: {b: 3, c: 2}}");
    check("a: &x {b: 1}\ne: &y {c: 2, b: 9}\nd: {<<: [*x, *y]}", "{a: {b: 1}, e: {c: 2, b: 9}, d: {b: 1, c: 2}}");
    check_mistakes("a: *x", &["1:4: no anchor '&x' before this alias"]);
    check_mistakes("a: &x [1, *x]", &["1:11: this alias stands inside the value it repeats"]);
    check("a: &x {b: 1}\nd: {\"<<\": *x}", "{a: {b: 1}, d: {<<: {b: 1}}}");
    check_mistakes("d: {<<: 5}", &["1:9: only a mapping can be merged"]);
}

#[test]
fn all_duplicate_keys_are_found() {
    check_mistakes("a: 1\nb: 2\na: 3\nb: 4\n", &["3:1: duplicate key 'a'", "4:1: duplicate key 'b'"]);
    check_mistakes("{a: 1, 'a': 2}", &["1:8: duplicate key 'a'"]);
    check_mistakes("x: {a: 1}\ny: {a: 1}", &[]);
}

#[test]
fn files_that_are_no_tree_have_one_sentence() {
    check_mistakes("a: [1, 2\n", &["1:4: not valid YAML: unclosed bracket '['"]);
    check_mistakes("? [a, b]\n: c\n", &["1:3: a key must be a plain word"]);
    check_mistakes("a: 1\n---\nb: 2\n", &["2:1: a second document begins here"]);
    check("--- \na: 1\n...\n", "{a: 1}");
    for text in ["", "\n\n", "# only a comment\n", "---\n"] {
        let (root, mistakes) = parse_text(text);
        assert!(root.is_none_or(|root| root.is_null()) && mistakes.is_empty(), "{text:?}");
    }
}

#[test]
fn alias_bomb_is_stopped() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let (root, mistakes) = parse_text(&bomb);
    assert!(root.is_none());
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].ends_with("anchors and aliases repeat more than 100000 values"), "{mistakes:?}");
}

#[test]
fn nesting_has_a_limit_in_the_text_and_through_aliases() {
    for text in ["[".repeat(5000), "- ".repeat(5000), "{a: ".repeat(5000)] {
        let (root, mistakes) = parse_text(&text);
        assert!(root.is_none());
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    }
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..200 {
        chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    let (_, mistakes) = parse_text(&chain);
    assert_eq!(mistakes, ["64:12: lists and mappings are nested deeper than 64 levels"]);
}

#[test]
fn value_that_is_left_out_stands_at_its_key() {
    let (root, _) = parse_text("first: 1\nsecond:\nthird: 3\n");
    let Value::Mapping(entries) = root.unwrap().value else { panic!("a mapping") };
    assert_eq!(entries[1].value.span, entries[1].key_span);
    assert_eq!(entries[2].value.span, Span { start: 24, end: 25 });
}
