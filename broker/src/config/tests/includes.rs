//! Files that include others, the owner, and the tests in a file.

use super::super::*;
use super::{check_errors, environment, good, shown, tests_folder};
use crate::topology::schema::{ExpectDecl, PasswordDecl};

fn load_files(name: &str, files: &[(&str, &str)]) -> Result<Loaded, Vec<Diagnostic>> {
    let folder = tests_folder(name);
    for (file, text) in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let loaded = load(&folder.join(files[0].0), &environment);
    std::fs::remove_dir_all(&folder).unwrap();
    loaded
}

/// File names, lines and causes, and the way out.
#[track_caller]
fn check(name: &str, files: &[(&str, &str)], expected: &[&str]) {
    let diagnostics = load_files(name, files).err().unwrap_or_default();
    let actual: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| {
            let file = diagnostic.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{file}:{}:{}: {}", diagnostic.line.unwrap_or(0), diagnostic.column, diagnostic.cause)
        })
        .collect();
    assert_eq!(actual, expected, "{}", shown(&diagnostics));
}

#[test]
fn sections_vhosts_and_their_lists_are_joined() {
    let topology = load_files(
        "joined",
        &[
            (
                "t.yaml",
                "include: [teams/a.yaml, b.yaml]\nvhosts: { /: { exchanges: { in: topic }, bindings: [in -> a : x] } }\n",
            ),
            (
                "teams/a.yaml",
                "include: more.yaml\nusers: { u: { password: { file: secret }, permissions: { /: .* } } }\nvhosts: { /: { queues: [a] } }\n",
            ),
            ("teams/more.yaml", "limits: { heartbeat_secs: 7 }\nvhosts: { /: { queues: { b: } } }\n"),
            (
                "b.yaml",
                "limits: { channel_max: 9 }\nvhosts: { /: { bindings: { in -> b : y } }, v: {} }\nusers: { w: { password: '${SECRET}' } }\n",
            ),
            ("teams/secret", "from-file\n"),
        ],
    );
    let topology = topology.unwrap_or_else(|diagnostics| panic!("{}", shown(&diagnostics))).topology;
    let queues: Vec<&str> = topology.vhosts[0].queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(queues, ["a", "b"]);
    assert_eq!((topology.vhosts.len(), topology.vhosts[0].bindings.len()), (2, 2));
    assert_eq!((topology.limits.heartbeat_secs, topology.limits.channel_max), (7, 9));
    let passwords: Vec<&PasswordDecl> = topology.users.iter().map(|user| &user.password).collect();
    assert_eq!(
        passwords,
        [&PasswordDecl::Plain("from-file".to_owned()), &PasswordDecl::Plain("from-env".to_owned())],
        "paths are meant from the folder of the file that they stand in"
    );
}

#[test]
fn a_thing_in_two_files_names_both_places() {
    let files = [
        ("t.yaml", "include: o.yaml\nvhosts:\n  /:\n    queues:\n      q: {}\n"),
        ("o.yaml", "# more\nvhosts: { /: { queues: { q: { ttl: 1s } } } }\n"),
    ];
    check("twice", &files, &["o.yaml:2:26: 'q' is declared twice"]);
    let diagnostics = load_files("twice-help", &files).unwrap_err();
    assert!(diagnostics[0].help.contains("t.yaml:5"), "{}", shown(&diagnostics));
    assert!(
        diagnostics[0].to_string().contains("  2 | vhosts: { /: { queues: { q: { ttl: 1s } } } }"),
        "{}",
        diagnostics[0]
    );
    check(
        "scalars",
        &[("t.yaml", "include: o.yaml\nlimits: { channel_max: 1 }\n"), ("o.yaml", "limits: { channel_max: 2 }\n")],
        &["o.yaml:1:11: 'channel_max' is declared twice"],
    );
}

#[test]
fn circles_doubles_and_missing_files_are_refused() {
    check(
        "circle",
        &[("t.yaml", "include: a.yaml\nvhosts: {}\n"), ("a.yaml", "include: t.yaml\n")],
        &["a.yaml:1:10: this file includes itself: t.yaml -> a.yaml -> t.yaml"],
    );
    check(
        "double",
        &[
            ("t.yaml", "include: [a.yaml, b.yaml]\nvhosts: {}\n"),
            ("a.yaml", "include: b.yaml\n"),
            ("b.yaml", "users: {}\n"),
        ],
        &["t.yaml:1:19: 'b.yaml' is included twice"],
    );
    check(
        "missing",
        &[("t.yaml", "include: none.yaml\nvhosts: {}\n")],
        &[
            "t.yaml:1:10: 'none.yaml' cannot be included: no such file; check the path, which is relative to the current folder",
        ],
    );
    check("wrong", &[("t.yaml", "include: { a: b }\nvhosts: {}\n")], &["t.yaml:1:10: expected a path"]);
    check(
        "no-mapping",
        &[("t.yaml", "include: a.yaml\nvhosts: {}\n"), ("a.yaml", "- x\n")],
        &["a.yaml:1:1: expected a mapping of sections"],
    );
}

#[test]
fn mistakes_of_an_included_file_have_their_place_there() {
    check(
        "mistakes",
        &[
            ("t.yaml", "include: a.yaml\nvhosts: { /: { exchanges: { in: topic } } }\n"),
            ("a.yaml", "# first\nvhosts:\n  /:\n    bindings: [in -> none : x]\n    quues: []\n"),
        ],
        &["a.yaml:4:22: queue 'none' is not declared in vhost '/'", "a.yaml:5:5: unknown key 'quues' in a vhost"],
    );
    check(
        "syntax",
        &[("t.yaml", "include: a.yaml\nvhosts: {}\n"), ("a.yaml", "a: [\n")],
        &["a.yaml:1:4: not valid YAML: unclosed bracket '['"],
    );
}

#[test]
fn a_text_that_was_sent_names_no_files_and_no_variables() {
    let check = |text: &str, expected: &str| {
        let diagnostics = load_text("sent", text).err().unwrap_or_default();
        assert_eq!(diagnostics.first().map(|diagnostic| diagnostic.cause.as_str()), Some(expected), "{text}");
    };
    check("include: /etc/passwd\nvhosts: {}", "no file can be named here");
    check("users: { a: { password: { file: /etc/passwd } } }", "no file can be named here");
    check("users: { a: { password: { env: HOME } } }", "environment variable 'HOME' is not set");
    check("users: { a: { password: '${HOME}' } }", "environment variable 'HOME' is not set");
    check("hooks: /tmp/x.lua\nvhosts: {}", "no file can be named here");
    check("plugins: /tmp/x.so\nvhosts: {}", "no file can be named here");
    check("storage: { data: /tmp }\nvhosts: {}", "no file can be named here");
}

#[test]
fn tests_say_what_becomes_of_a_message() {
    let topology = good(
        "owner: shop
vhosts: { /: { exchanges: { in: topic }, queues: [a, b] } }
users: { u: { password: p } }
tests:
  - { exchange: in, routing_key: x.y, expect: [a, b] }
  - { name: n, exchange: amq.default, routing_key: none, headers: { h: 1 }, properties: { priority: 3 }, mandatory: true, expect: returned }
  - { exchange: in, user: u, body: text, expect: { rejected: access } }
  - { exchange: in, expect: { dropped: why } }
  - { exchange: in, expect: dead_lettered }
  - { exchange: in, expect: { dead_lettered: [a] } }
",
    );
    assert_eq!((topology.owner.as_str(), topology.tests.len()), ("shop", 6));
    assert_eq!(topology.tests[4].expect, ExpectDecl::DeadLettered(None));
    assert_eq!(topology.tests[5].expect, ExpectDecl::DeadLettered(Some(vec!["a".to_owned()])));
    assert_eq!(topology.tests[0].expect, ExpectDecl::Queues(vec!["a".to_owned(), "b".to_owned()]));
    let second = &topology.tests[1];
    assert_eq!((second.exchange.as_str(), second.properties.priority, second.mandatory), ("", Some(3), true));
    assert!(second.properties.headers.is_some());
    assert_eq!(topology.tests[2].expect, ExpectDecl::Rejected("access".to_owned()));
    assert_eq!(topology.tests[3].vhost, "/");
}

#[test]
fn slips_in_tests_do_not_pass_as_results() {
    check_errors(
        "vhosts: { /: { exchanges: { in: topic }, queues: [a] } }
tests:
  - { exchange: inn, expect: [a] }
  - { exchange: in, expect: [b] }
  - { exchange: in, vhost: v, expect: [] }
  - { exchange: in, user: u, expect: [] }
  - { exchange: in, expect: lost }
  - { exchange: in }
  - { expect: [] }
  - { exchange: in, expect: { queues: [a], dropped: x } }
",
        &[
            "3:17: exchange 'inn' is not declared in vhost '/'",
            "4:30: queue 'b' is not declared in vhost '/'",
            "5:28: vhost 'v' is not declared",
            "6:27: user 'u' is not declared",
            "7:29: 'lost' is not known here",
            "8:5: a test expects something",
            "9:5: a test needs an exchange",
            "10:29: a test expects one thing",
        ],
    );
}
