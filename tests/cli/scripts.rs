//! `broker script`: scripts without a broker, as their author works with them.

use std::process::Command;

use tests::broker_process::binary;
use tests::temp::TempDir;

use super::{Said, finish};

const GOOD: &str = "return { on_publish = function(msg) msg.routing_key = 'eu.' .. msg.routing_key end, on_connect = function() end }\n";

fn script(words: &[&str], input: &str) -> Said {
    let mut command = Command::new(binary().expect("the broker is built"));
    finish(command.env_clear().arg("script").args(words), input)
}

#[test]
fn check_names_hooks_and_mistakes_with_file_and_line() {
    let folder = TempDir::new("cli-scripts");
    let good = folder.write("good.lua", GOOD);
    folder.write("good_test.lua", "not even Lua");
    folder.write("broker.meta.lua", "---@meta\n");
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    folder.write("lib/names.lua", "return { 'a' }\n");
    folder
        .write("user.lua", "local names = require 'lib/names'\nreturn { on_declare = function() return names end }\n");
    let all = folder.path().display().to_string();
    let said = script(&["check", &all], "");
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, format!("{all}/good.lua: on_publish, on_connect\n{all}/user.lua: on_declare\n").as_str())
    );
    let broken = folder.write("broken.lua", "return {\n  on_publish = functoin(msg) end,\n}\n");
    let said = script(&["check", &good.display().to_string(), &broken.display().to_string()], "");
    assert!(said.code == 65 && said.out.contains("broken.lua:2: "), "{said:?}");
    assert_eq!(script(&["check", "/nowhere.lua"], "").code, 66);
}

#[test]
fn bench_measures_each_hook() {
    let folder = TempDir::new("cli-scripts");
    let good = folder.write("good.lua", GOOD).display().to_string();
    let said = script(&["bench", &good, "--time", "5", "--key", "a", "--header", "x-tenant=acme"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let rows: Vec<Vec<&str>> = said.out.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let hooks: Vec<_> =
        rows.iter().map(|row| (row[1], row[3], row[2].parse::<f64>().is_ok_and(|nanos| nanos > 0.0))).collect();
    assert_eq!(hooks, [("on_publish", "rewritten", true), ("on_connect", "passed", true)], "{}", said.out);
}

#[test]
fn repl_calls_hooks_by_hand() {
    let folder = TempDir::new("cli-scripts");
    let good = folder.write("good.lua", GOOD).display().to_string();
    let said =
        script(&["repl", &good], "publish({ routing_key = 'a' }).routing_key\nconnect({ user = 'u' }).outcome\n");
    assert_eq!((said.code, said.out), (0, format!("{good}: on_publish, on_connect\n\"eu.a\"\n\"pass\"\n")));
}

#[test]
fn types_are_those_of_the_repository() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/types");
    for (words, file) in [(&["types"][..], "broker.d.luau"), (&["types", "--for", "luals"], "broker.meta.lua")] {
        let said = script(words, "");
        assert_eq!((said.code, said.out), (0, std::fs::read_to_string(format!("{folder}/{file}")).unwrap()));
    }
}
