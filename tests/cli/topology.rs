//! plan, apply, export, route, test, convert: topology files against a running broker, against a folder, and alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::broker_process::{BrokerOptions, repository, signal};
use tests::http::Http;
use tests::temp::TempDir;

use super::{Said, Setting};

const SHOP: &str = "
users:
  guest: { password: guest, tags: administrator, loopback_only: true, permissions: { /: .*, shop: .* } }
  app: { password: s3cret, permissions: { shop: .* }, topic_permissions: { shop: { in: { write: .*, read: .* } } } }
vhosts:
  /:
  shop:
    description: the shop
    limits: { max_queues: 9 }
    policies: { short: { pattern: ^tmp, definition: { max-length: 5 } } }
    operator_policies: { ceiling: { pattern: .*, apply_to: queues, definition: { max-length: 5000 } } }
    exchanges: { in: topic, all: { type: fanout, durable: false } }
    queues: { q: { ttl: 30s, arguments: { x-some: !u8 3 } }, r: }
    bindings: [in -> q : a.#, in -> exchange:all : b, all -> r]
";

fn plan(cli: &Setting, file: &str, more: &[&str]) -> (i32, Value) {
    let said = cli.run(&[&["plan", file, "-f", "json"], more].concat());
    let plan = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    (said.code, plan)
}

fn steps(plan: &Value) -> Vec<String> {
    let step = |change: &Value| format!("{} {}", change["action"].as_str().unwrap(), change["what"].as_str().unwrap());
    plan["changes"].as_array().unwrap().iter().map(step).collect()
}

#[track_caller]
fn refused(said: &Said, code: i32, text: &str) {
    assert_eq!(said.code, code, "{said:?}");
    assert!(said.err.contains(text) || said.out.contains(text), "{text}: {said:?}");
}

#[test]
fn a_file_is_applied_and_then_there_is_nothing_to_do() {
    let cli = Setting::new();
    let file = cli.home.write("shop.yaml", SHOP);
    let file = file.to_str().unwrap();
    let said = cli.run(&["plan", file]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.out.contains("+ queue 'q' in vhost 'shop'") && !said.out.contains("s3cret"), "{said:?}");
    assert_eq!(cli.json(&["list", "vhosts"]).len(), 1, "a plan changes nothing");
    cli.done(&["apply", file]);
    assert_eq!(plan(&cli, file, &["--prune"]), (0, plan(&cli, file, &["--prune"]).1));
    assert_eq!(steps(&plan(&cli, file, &["--prune"]).1), Vec::<String>::new());
    cli.done(&["publish", "--vhost", "shop", "-e", "in", "-k", "a.b", "-b", "one"]);

    let other = cli.home.write("other.yaml", &SHOP.replace("30s", "40s").replace(", all -> r", ""));
    let other = other.to_str().unwrap();
    let (code, planned) = plan(&cli, other, &["--prune"]);
    assert_eq!(code, 1, "one message would be lost: {planned}");
    assert_eq!(steps(&planned), ["replace queue 'q' in vhost 'shop'", "remove binding 'all -> r' in vhost 'shop'"]);
    assert_eq!(planned["changes"][0]["loss"]["messages_ready"], 1);
    refused(&cli.run(&["apply", other, "--prune", "--yes"]), 1, "--force");
    refused(&cli.run(&["apply", other, "--prune", "--force"]), 1, "--yes");
    assert_eq!(cli.json(&["list", "queues", "--vhost", "shop"]).len(), 2);
    cli.done(&["apply", other, "--prune", "--force", "--yes"]);
    assert_eq!(plan(&cli, other, &["--prune"]).0, 0);
    let said = cli.run(&["route", "in", "a.b", "--vhost", "shop"]);
    assert_eq!((said.code, said.out.as_str()), (0, "q\n"), "the binding of the replaced queue is there again");
}

#[test]
fn an_export_makes_the_same_elsewhere() {
    let (one, two) = (Setting::new(), Setting::new());
    let file = one.home.write("shop.yaml", SHOP);
    one.done(&["apply", file.to_str().unwrap()]);
    one.done(&["declare", "queue", "by hand", "--vhost", "shop"]);
    let exported = two.home.path().join("exported.yaml");
    let exported = exported.to_str().unwrap();
    one.done(&["export", "-o", exported]);
    two.done(&["apply", exported]);
    assert_eq!(steps(&plan(&two, exported, &["--prune"]).1), Vec::<String>::new());
    let definitions = |cli: &Setting| -> Value {
        let mut all = Http::new(cli.broker.http()).get("/definitions");
        for key in ["explanation", "original_cluster_name", "global_parameters"] {
            all.as_object_mut().unwrap().remove(key);
        }
        all
    };
    assert_eq!(definitions(&one), definitions(&two));

    // And by way of RabbitMQ's form.
    let json = two.home.write("definitions.json", &Http::new(one.broker.http()).get("/definitions").to_string());
    let said = two.run(&["topology", "convert", json.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    let converted = two.home.write("converted.yaml", &said.out);
    let (code, planned) = plan(&two, converted.to_str().unwrap(), &["--prune"]);
    // JSON has no octets, so the one argument of that type is another number there; everything else is the same.
    let differs: Vec<&str> = planned["changes"].as_array().unwrap().iter().filter_map(|c| c["what"].as_str()).collect();
    assert_eq!((code, differs.as_slice()), (0, [].as_slice()), "{planned}");
}

#[test]
fn what_definitions_have_and_files_have_not_is_named() {
    let cli = Setting::new();
    let json = cli.home.write(
        "definitions.json",
        &json!({
            "vhosts": [{"name": "/"}],
            "global_parameters": [{"name": "cluster_name", "value": "c"}],
            "parameters": [{"vhost": "/", "component": "shovel", "name": "s", "value": {"src-uri": "amqp://"}}],
            "queues": [{"vhost": "/", "name": "amq.gen-x", "durable": true, "auto_delete": false, "arguments": {}}],
        })
        .to_string(),
    );
    let said = cli.run(&["topology", "convert", json.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("amq.gen-x"), "{said:?}");
    for what in ["cluster_name: c", "shovel:", "s: { src-uri: \"amqp://\" }"] {
        assert!(said.out.contains(what), "{what}: {said:?}");
    }
    let bad = cli.home.write("bad.json", "{\"queues\": [{}]}");
    refused(&cli.run(&["topology", "convert", bad.to_str().unwrap()]), 65, "queues[0]");
    refused(&cli.run(&["topology", "convert", "none.json"]), 66, "none.json");
}

#[test]
fn a_change_in_between_is_refused_and_marks_survive_a_restart() {
    let data = TempDir::new("cli-marks");
    let start = || {
        let data = data.path().display().to_string();
        BrokerOptions::default().http().argument("--data").argument(data).start().expect("the broker starts")
    };
    let broker = start();
    let http = Http::new(broker.http());
    let body = |text: &str| json!({"topology": text, "prune": true});
    let with = "owner: team\nvhosts: { /: { queues: [mine] } }";
    let planned = http.post("/x/plan", &body(with)).json();
    assert_eq!(http.put("/queues/%2F/mine", &json!({"durable": true})), 201);
    let mut apply = body(with);
    apply["fingerprint"] = planned["fingerprint"].clone();
    assert_eq!(http.post("/x/apply", &apply).status, 412);
    apply["fingerprint"] = http.post("/x/plan", &body(with)).json()["fingerprint"].clone();
    assert_eq!(http.post("/x/apply", &apply).status, 200);
    assert_eq!(http.put("/queues/%2F/theirs", &json!({"durable": true})), 201);
    let owned = |http: &Http| http.get("/x/topology")["owned"].clone();
    let before = owned(&http);
    assert_eq!(before[1]["owners"], json!(["team"]), "{before}");
    assert!(broker.terminate().unwrap().success());

    let broker = start();
    let http = Http::new(broker.http());
    assert_eq!(owned(&http), before);
    let planned = http.post("/x/plan", &body("owner: team\nvhosts: { /: {} }")).json();
    assert_eq!(steps(&planned), ["remove queue 'mine' in vhost '/'"]);
    assert_eq!(http.post("/x/plan", &json!({})).status, 400);
    assert_eq!(http.post("/x/apply", &body(with)).status, 400, "without the plan's fingerprint");
    let wrong = http.post("/x/plan", &body("vhosts: { /: { quues: [] } }"));
    assert_eq!(wrong.status, 400);
    assert!(wrong.refusal().1.contains("topology:1:16: unknown key 'quues'"), "{:?}", wrong.refusal());
}

#[test]
fn parameters_are_planned_applied_exported_and_pruned() {
    let cli = Setting::new();
    let with = "owner: team
parameters: { shop: { open: [9, 17.5] } }
vhosts: { /: { parameters: { shovel: { s: { uri: \"amqp://u:secret@h\" } } } } }
";
    let file = cli.home.write("parameters.yaml", with);
    let (code, planned) = plan(&cli, file.to_str().unwrap(), &[]);
    let expected = ["create parameter 's' of component 'shovel' in vhost '/'", "create global parameter 'shop'"];
    assert_eq!((code, steps(&planned)), (2, expected.map(str::to_owned).to_vec()));
    assert!(!planned.to_string().contains("secret"), "{planned}");
    cli.done(&["apply", file.to_str().unwrap()]);
    assert_eq!(plan(&cli, file.to_str().unwrap(), &[]).0, 0);
    let http = Http::new(cli.broker.http());
    assert_eq!(http.get("/global-parameters/shop")["value"], json!({"open": [9, 17.5]}));
    assert_eq!(http.get("/parameters/shovel/%2F/s")["value"], json!({"uri": "amqp://u:secret@h"}));
    let exported = cli.done(&["export"]);
    assert!(exported.contains("shop: { open: [9, 17.5] }") && exported.contains("shovel:"), "{exported}");
    let exported = cli.home.write("exported.yaml", &exported);
    assert_eq!(plan(&cli, exported.to_str().unwrap(), &["--prune"]).0, 0);

    let without = cli.home.write("without.yaml", "owner: team\nparameters: {}\nvhosts: { /: {} }\n");
    let (_, planned) = plan(&cli, without.to_str().unwrap(), &["--prune"]);
    assert_eq!(steps(&planned).len(), 2, "{planned}");
    cli.done(&["apply", without.to_str().unwrap(), "--prune", "--yes"]);
    assert_eq!(http.send("GET", "/global-parameters/shop", b"").status, 404);
    assert_eq!(http.send("GET", "/parameters/shovel/%2F/s", b"").status, 404);
}

#[test]
fn what_somebody_else_has_declared_anew_is_not_pruned() {
    let cli = Setting::new();
    let file =
        cli.home.write("mine.yaml", "owner: team\nvhosts: { /: { exchanges: { x: direct }, queues: [q, other] } }\n");
    cli.done(&["apply", file.to_str().unwrap()]);
    let http = Http::new(cli.broker.http());
    assert_eq!(http.delete("/queues/%2F/q"), 204);
    assert_eq!(http.delete("/exchanges/%2F/x"), 204);
    assert_eq!(http.put("/queues/%2F/q", &json!({"durable": true})), 201);
    assert_eq!(http.put("/exchanges/%2F/x", &json!({"durable": true, "type": "direct"})), 201);
    let nothing = cli.home.write("nothing.yaml", "owner: team\nvhosts: { /: {} }\n");
    let (_, planned) = plan(&cli, nothing.to_str().unwrap(), &["--prune"]);
    assert_eq!(steps(&planned), ["remove queue 'other' in vhost '/'"]);
    // Who applies the file again says that they are the team's.
    cli.done(&["apply", file.to_str().unwrap()]);
    let (_, planned) = plan(&cli, nothing.to_str().unwrap(), &["--prune"]);
    assert_eq!(steps(&planned).len(), 3, "{planned}");
}

#[test]
fn more_than_there_may_be_is_refused_before_anything_is_done() {
    let cli = Setting::new();
    let file = cli.home.write("many.yaml", &too_many_parameters("first"));
    let (code, planned) = plan(&cli, file.to_str().unwrap(), &[]);
    let why = "10001 new parameters in vhost '/' beside the 0 that are there are more than the limit of 10000";
    assert_eq!((code, &planned["refusals"]), (1, &json!([why])));
    refused(&cli.run(&["apply", file.to_str().unwrap()]), 1, why);
    assert_eq!(Http::new(cli.broker.http()).get("/queues"), json!([]));
}

/// A file with a queue, and one parameter more than a vhost may have.
fn too_many_parameters(queue: &str) -> String {
    let parameters: String = (0..10_001).map(|number| format!("        p{number}: 1\n")).collect();
    format!("vhosts:\n  /:\n    queues: [{queue}]\n    parameters:\n      c:\n{parameters}")
}

#[test]
fn a_remote_plan_names_what_it_does_not_compare() {
    let cli = Setting::new();
    let file = cli
        .home
        .write("shop.yaml", "limits: { channel_max: 7 }\nhooks: []\nvhosts: { /: { durability: os, queues: [q] } }\n");
    let (code, planned) = plan(&cli, file.to_str().unwrap(), &[]);
    assert_eq!(code, 2);
    let notes = planned["notes"].to_string();
    for what in ["limits", "not compared", "vhost '/': its durability is not changed"] {
        assert!(notes.contains(what), "{what}: {notes}");
    }
}

#[test]
fn a_data_folder_is_planned_applied_and_exported_without_a_broker() {
    let cli = Setting::new();
    let data = cli.home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let data = data.to_str().unwrap();
    let file = cli.home.write("shop.yaml", SHOP);
    let file = file.to_str().unwrap();
    assert_eq!(plan(&cli, file, &["--data", data]).0, 2);
    cli.done(&["apply", file, "--data", data]);
    let (code, planned) = plan(&cli, file, &["--data", data]);
    // What does not last is not in the folder.
    let left = [
        "create exchange 'all' in vhost 'shop'",
        "create binding 'in -> exchange:all' with key 'b' in vhost 'shop'",
        "create binding 'all -> r' in vhost 'shop'",
    ];
    assert_eq!((code, steps(&planned)), (2, left.map(str::to_owned).to_vec()));
    let exported = cli.done(&["export", "--data", data, "-V", "shop"]);
    assert!(exported.contains("ttl: 30000ms") && !exported.contains("users:"), "{exported}");
}

#[test]
fn mistakes_end_with_their_own_exit_codes() {
    let cli = Setting::new();
    let bad = cli.home.write("bad.yaml", "vhosts: { /: { quues: [] } }");
    for command in ["plan", "apply", "test"] {
        refused(&cli.run(&[command, bad.to_str().unwrap()]), 65, "unknown key 'quues'");
        refused(&cli.run(&[command, "none.yaml"]), 66, "no such file");
    }
    let unknown = cli.home.write("unknown.yaml", "vhosts: { /: { exchanges: { e: x-none } } }");
    refused(&cli.run(&["plan", unknown.to_str().unwrap()]), 65, "unknown exchange type 'x-none'");
    let fine = cli.home.write("fine.yaml", "vhosts: { /: {} }");
    refused(&cli.run(&["plan", fine.to_str().unwrap(), "--url", "http://127.0.0.1:1"]), 69, "127.0.0.1:1");
    refused(&cli.run(&["plan", fine.to_str().unwrap(), "--password", "wrong"]), 77, "--password");
}

/// The command line of a README's block, behind the program's name.
fn commands(readme: &str) -> Vec<Vec<String>> {
    let words =
        |line: &str| line.split('#').next().unwrap_or_default().split_whitespace().skip(1).map(str::to_owned).collect();
    readme.lines().filter(|line| line.starts_with("broker ")).map(words).collect()
}

#[test]
fn the_examples_readme_works_as_it_is_written() {
    let cli = Setting::new();
    let readme = std::fs::read_to_string(repository().join("examples/topology-as-code/README.md")).unwrap();
    let commands = commands(&readme);
    assert_eq!(commands.len(), 7);
    for words in commands {
        let said = super::finish(cli.command().current_dir(repository()).args(&words), "");
        let expected = if words[0] == "plan" { 2 } else { 0 };
        assert_eq!(said.code, expected, "{words:?}: {said:?}");
        match words[0].as_str() {
            "test" => assert!(said.out.contains("4 passed, 0 failed"), "{said:?}"),
            "route" => assert!(said.out.ends_with("queues reached: billing.invoices, shipping.parcels\n"), "{said:?}"),
            "export" => {
                assert!(said.out.contains("billing.refunds: { ttl: 2592000000ms, dead_letter: lost }"), "{said:?}");
            }
            _ => {}
        }
    }
}

#[test]
fn every_example_with_tests_passes_them() {
    let cli = Setting::new();
    for name in ["quickstart", "tenant-routing", "topology-as-code"] {
        let file = repository().join("examples").join(name).join("topology.yaml");
        let out = cli.done(&["test", file.to_str().unwrap()]);
        assert!(out.ends_with(" passed, 0 failed\n"), "{out}");
    }
}

#[test]
fn failures_are_told_all_at_once_with_their_lines() {
    let cli = Setting::new();
    cli.home.write(
        "hook.lua",
        "return { on_publish = function(msg) if msg.routing_key == 'bad' then broker.drop('no & never') end end }\n",
    );
    let file = cli.home.write(
        "t.yaml",
        "vhosts: { /: { hooks: [hook.lua], exchanges: { in: topic }, queues: [a, b], bindings: [in -> a : a.#, in -> b : b] } }
tests:
  - { exchange: in, routing_key: a.x, expect: [a] }
  - { exchange: in, routing_key: a.x, expect: [a, b] }
  - { name: hooked, exchange: in, routing_key: bad, expect: returned }
  - { exchange: in, routing_key: bad, expect: { dropped: never } }
  - { exchange: in, routing_key: none, expect: [b] }
"
    );
    let file = file.to_str().unwrap();
    let said = cli.run(&["test", file]);
    assert_eq!(said.code, 1, "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(
        lines,
        [
            format!("{file}:4: 'a.x' to exchange 'in' in vhost '/': expected 'a', 'b', but it reaches 'a'"),
            format!("{file}:5: hooked: expected that it is returned, but it is dropped: hook 'hook': no & never"),
            format!(
                "{file}:7: 'none' to exchange 'in' in vhost '/': expected 'b', but it is dropped: no binding of exchange 'in' matches"
            ),
            format!("{file}: 2 passed, 3 failed"),
        ]
    );
    let report: Value = serde_json::from_str(&cli.run(&["test", file, "-f", "json"]).out).unwrap();
    assert_eq!((&report["passed"], &report["failed"]), (&json!(2), &json!(3)));
    let junit = cli.run(&["test", file, "-f", "junit"]).out;
    assert!(junit.contains("tests=\"5\" failures=\"3\"") && junit.contains("no &amp; never"), "{junit}");
}

#[test]
fn a_route_is_explained_alike_by_a_file_and_by_a_broker() {
    let cli = Setting::new();
    let text = "vhosts: { /: { exchanges: { in: { type: topic, alternate_exchange: rest }, rest: fanout, h: headers }, queues: [a, b, c],
  bindings: [in -> a : eu.*, in -> exchange:h : us.#, rest -> b, h -> c : { arguments: { x-match: all, format: pdf } }] } }";
    let file = cli.home.write("t.yaml", text);
    let file = file.to_str().unwrap();
    cli.done(&["apply", file]);
    let ask = |words: &[&str]| {
        let online = cli.run(&[&["route"], words].concat());
        let offline = cli.run(&[&["route"], words, &["--topology", file]].concat());
        assert_eq!((online.code, &online.out), (offline.code, &offline.out), "{words:?}");
        offline
    };
    assert_eq!(ask(&["in", "eu.x"]).out, "a\n");
    assert_eq!(ask(&["in", "none"]).out, "b\n");
    let said = ask(&["in", "us.x", "-H", "format=zip", "--explain"]);
    assert_eq!(said.code, 1);
    for line in [
        "    - a : eu.*   (word 1 is 'us', the pattern 'eu.*' wants 'eu')",
        "    + exchange:h : us.#",
        "    - c {\"format\":\"pdf\",\"x-match\":\"all\"}   (header 'format' is 'zip', not 'pdf')",
        "queues reached: none",
    ] {
        assert!(said.out.lines().any(|other| other == line), "{line}: {}", said.out);
    }
    assert_eq!(ask(&["in", "us.x", "-H", "format=pdf"]).out, "c\n");
    refused(&cli.run(&["route", "none", "k", "--topology", file]), 1, "no exchange 'none'");
    refused(&cli.run(&["route", "in", "k", "--topology", file, "--vhost", "v"]), 66, "vhost 'v'");
}

/// A chain with everything that a hook can do: one that is only watched, one that fails and lets pass, one that decides by the key, and one behind it.
const HOOKED: &str = "
vhosts:
  /:
    exchanges:
      in: { type: topic, hooks: [ { script: act.lua, name: watched, shadow: true, dead_letter_exchange: dead }, { script: fail.lua, name: frail, on_error: pass },
        { script: fail.lua, name: strict, on_error: dead_letter, dead_letter_exchange: dead, time_limit: 50ms },
        { script: act.lua, name: act, dead_letter_exchange: dead }, { script: tag.lua, name: tag } ] }
      dead: direct
    queues: [a, dead, lost]
    bindings: [in -> a : eu.#, dead -> dead : dead, dead -> dead : strict]
tests:
  - { exchange: in, routing_key: eu.x, expect: [a] }
  - { exchange: in, routing_key: rewrite, expect: [a] }
  - { exchange: in, routing_key: drop, expect: { dropped: not wanted } }
  - { exchange: in, routing_key: reject, expect: { rejected: not allowed } }
  - { exchange: in, routing_key: dead, expect: { dead_lettered: [dead] } }
  - { exchange: in, routing_key: dead, expect: dead_lettered }
  - { exchange: in, routing_key: strict, expect: { dead_lettered: dead } }
  - { exchange: in, routing_key: dead.lost, expect: { rejected: it reaches no queue } }
  - { name: wrong, exchange: in, routing_key: dead, expect: { dead_lettered: [a] } }
  - { name: wrong too, exchange: in, routing_key: dead, expect: [dead] }
";

/// With the scripts; the folder has to live as long as they are wanted.
fn hooked(folder: &TempDir) -> std::path::PathBuf {
    let act = "return { on_publish = function(msg)
        local key = msg.routing_key
        if key == 'rewrite' then msg.routing_key = 'eu.new' msg.headers.x = 'act' end
        if key == 'drop' then broker.drop('not wanted') end
        if key == 'reject' then broker.reject('not allowed') end
        if key == 'dead' or key == 'dead.lost' then broker.dead_letter('no good') end
    end }";
    folder.write("act.lua", act);
    folder.write(
        "fail.lua",
        "return { on_publish = function(msg) if msg.routing_key == 'strict' then error('broken here') end end }",
    );
    folder.write("tag.lua", "return { on_publish = function(msg) msg.headers.tag = msg.routing_key end }");
    folder.write("hooked.yaml", HOOKED)
}

#[test]
fn a_route_through_hooks_is_explained_alike_by_a_file_and_by_a_broker() {
    let home = TempDir::new("cli-hooked");
    let file = hooked(&home);
    let broker = BrokerOptions::default().http().topology(&file).start().expect("the broker starts");
    let cli = Setting { broker, home };
    let ask = |words: &[&str]| {
        let online = cli.run(&[&["route", "in"], words].concat());
        let offline = cli.run(&[&["route", "in"], words, &["--topology", file.to_str().unwrap()]].concat());
        assert_eq!((online.code, &online.out, &online.err), (offline.code, &offline.out, &offline.err), "{words:?}");
        offline
    };
    let explained = |key: &str, code: i32, lines: &[&str]| {
        let said = ask(&[key, "--explain"]);
        assert_eq!(said.code, code, "{key}: {}", said.out);
        for line in lines {
            assert!(said.out.lines().any(|other| other == *line), "{line} is not in\n{}", said.out);
        }
        // The same as JSON has the message as it came to each hook.
        let answer: Value = serde_json::from_str(&ask(&[key, "--format", "json"]).out).unwrap();
        for hook in answer["hooks"].as_array().unwrap() {
            assert!(hook["before"]["routing_key"].is_string(), "{hook}");
        }
        answer
    };
    assert_eq!(ask(&["eu.x"]).out, "a\n");
    let pass = ["hook 'watched' would let it pass (shadow)", "hook 'act' lets it pass", "hook 'tag' rewrites it"];
    explained("eu.x", 0, &[&pass[..], &["queues reached: a"]].concat());
    let answer = explained(
        "rewrite",
        0,
        &["hook 'watched' would rewrite it (shadow)", "hook 'act' rewrites it", "queues reached: a"],
    );
    let hooks = answer["hooks"].as_array().unwrap();
    let keys: Vec<_> =
        hooks.iter().map(|hook| (&hook["before"]["routing_key"], &hook["after"]["routing_key"])).collect();
    let [old, new] = ["rewrite", "eu.new"].map(Value::from);
    assert_eq!(keys, [(&old, &new), (&old, &Value::Null), (&old, &Value::Null), (&old, &new), (&new, &new)]);
    assert_eq!(hooks[4]["after"]["properties"]["headers"], json!({"x": "act", "tag": "eu.new"}));

    assert_eq!(ask(&["drop"]).out, "hook 'act' drops it: not wanted\n");
    explained("drop", 1, &["hook 'watched' would drop it (shadow): not wanted", "hook 'act' drops it: not wanted"]);
    assert_eq!(ask(&["reject"]).out, "hook 'act' rejects it: not allowed\n");
    explained("reject", 1, &["hook 'act' rejects it: not allowed", "queues reached: none"]);

    assert_eq!(ask(&["dead"]).out, "dead\n");
    let answer = explained(
        "dead",
        0,
        &[
            "hook 'watched' would send it to the dead letters of exchange 'dead' (shadow): no good",
            "hook 'act' sends it to the dead letters of exchange 'dead': no good",
            "queues reached: dead",
        ],
    );
    assert_eq!(answer["dead_letter_exchange"], "dead");
    let lost = "; it reaches no queue there, so the publish is refused";
    let sends = "hook 'act' sends it to the dead letters of exchange 'dead': no good";
    assert_eq!(ask(&["dead.lost"]).out, format!("{sends}{lost}\n"));
    explained("dead.lost", 1, &[&format!("queues reached: none{lost}")]);
    let failed = "by on_error: it failed: broken here";
    explained(
        "strict",
        0,
        &[
            &format!("hook 'frail' lets it pass {failed}"),
            &format!("hook 'strict' sends it to the dead letters of exchange 'dead' {failed}"),
            "queues reached: dead",
        ],
    );

    // What the broker does with such messages is what was said.
    let http = Http::new(cli.broker.http());
    let publish = |key: &str| {
        let body = json!({"routing_key": key, "properties": {}, "payload": "m", "payload_encoding": "string"});
        // Who is refused is told so otherwise.
        http.post("/exchanges/%2F/in/publish", &body).json()["routed"] == true
    };
    assert_eq!(["eu.x", "rewrite", "dead", "strict"].map(publish), [true; 4]);
    assert_eq!(["drop", "dead.lost"].map(publish), [false; 2]);
    let ready = |queue: &str| {
        let body = json!({"count": 10, "ackmode": "ack_requeue_false", "encoding": "auto"});
        http.post(&format!("/queues/%2F/{queue}/get"), &body).json().as_array().unwrap().len()
    };
    assert_eq!(["a", "dead", "lost"].map(ready), [2, 2, 0]);

    let said = cli.run(&["test", file.to_str().unwrap()]);
    let place = |line: usize| format!("{}:{}", file.display(), line);
    let dead = "hook 'act' sends it to the dead letters of exchange 'dead': no good";
    for line in [
        format!(
            "{}: wrong: expected that a hook sends it to the dead letters in 'a', but it reaches 'dead' as a dead letter: {dead}",
            place(20)
        ),
        format!("{}: wrong too: expected 'dead', but it reaches 'dead' as a dead letter: {dead}", place(21)),
        format!("{}: 8 passed, 2 failed", file.display()),
    ] {
        assert!(said.out.lines().any(|other| other == line), "{line} is not in\n{}", said.out);
    }
}

#[test]
fn sighup_takes_the_file_over_as_a_whole_or_not_at_all() {
    let folder = TempDir::new("cli-reload");
    let text = |queues: &str, more: &str| {
        format!(
            "users: {{ guest: {{ password: guest, tags: administrator, permissions: {{ /: .* }} }}{more} }}\nvhosts: {{ /: {{ queues: [{queues}] }} }}\n"
        )
    };
    let file = folder.write("topology.yaml", &text("a", ", app: { password: app }"));
    folder.write("new.lua", "return { on_publish = function() broker.reject('a new hook') end }");
    let broker = BrokerOptions::default().http().metrics().topology(file).start().expect("the broker starts");
    let http = Http::new(broker.http());
    let queues = |http: &Http| -> Vec<String> {
        let all = http.get("/queues");
        all.as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
    };
    let reload = |text: &str, said: &str| {
        let before = broker.log().len();
        folder.write("topology.yaml", text);
        signal(broker.pid(), "HUP").unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !broker.log()[before..].iter().any(|line| line.contains(said)) {
            assert!(Instant::now() < deadline, "no '{said}' in {:?}", &broker.log()[before..]);
            std::thread::yield_now();
        }
    };
    reload(&text("a, b", ", bob: { password: bob }"), "topology file read again");
    assert_eq!(queues(&http), ["a", "b"]);
    let users = || {
        http.get("/users")
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(users(), ["bob", "guest"], "a user that left the file is gone, as after a restart");
    reload(&text("a, b, c", ", bob: { pasword: bob }"), "everything stays as it was");
    assert!(broker.log().iter().any(|line| line.contains("unknown key 'pasword'")));
    reload(&format!("hooks: [new.lua]\n{}", too_many_parameters("first")), "everything stays as it was");
    assert!(broker.log().iter().any(|line| line.contains("10001 new parameters in vhost '/'")));
    assert_eq!(queues(&http), ["a", "b"]);
    assert_eq!(http.get("/x/hooks"), json!([]), "hooks that would have been right are not in force either");
    reload(
        &text("c, b: { ttl: 1s }", "")
            .replace("[c, b: { ttl: 1s }]", "{ c: , a: { ttl: 1s } }")
            .replace("password: guest", "password: other"),
        "topology file read again",
    );
    let http = http.clone().login("guest", "other");
    assert_eq!(queues(&http), ["a", "b", "c"], "an empty queue that differs is replaced, and b stays");
    assert_eq!(http.get("/queues/%2F/a")["arguments"]["x-message-ttl"], 1000);
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let page = Http::new(broker.metrics()).raw(request, false).unwrap().text();
    for (result, count) in [("done", 2), ("refused", 2), ("failed", 0)] {
        let series = format!("broker_topology_reload_total{{result=\"{result}\"}} {count}");
        assert!(page.lines().any(|line| line == series), "{series}");
    }
}
