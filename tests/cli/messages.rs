//! publish, get, consume and purge.

use serde_json::{Value, json};

use super::Setting;

#[test]
fn messages_go_in_and_come_out() {
    let cli = Setting::new();
    cli.done(&["declare", "queue", "q"]);
    cli.done(&["publish", "--key", "q", "--body", "one", "--header", "n=1", "-p", "expiration=60000", "-P"]);
    let said = cli.run_with(&["publish", "--key", "q"], "from standard input");
    assert_eq!(said.code, 0, "{said:?}");
    cli.done(&["publish", "--key", "q", "--body", "many", "--count", "3"]);

    let rows = cli.json(&["get", "q", "--count", "2"]);
    let payloads: Vec<&Value> = rows.iter().map(|row| &row["payload"]).collect();
    assert_eq!(payloads, ["one", "from standard input"]);
    let properties = json!({"delivery_mode": 2, "expiration": "60000", "headers": {"n": 1}});
    assert_eq!(rows[0]["properties"], properties);
    assert_eq!(cli.json(&["get", "q"])[0]["redelivered"], true, "they were put back");

    let out = cli.done(&["consume", "q", "--count", "2"]);
    assert_eq!(out, "one\nfrom standard input\n");
    let out = cli.done(&["consume", "q", "--idle", "0", "--json"]);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["payload"]), (3, &json!("many")));
    assert!(cli.json(&["get", "q"]).is_empty());
}

#[test]
fn what_reaches_no_queue_is_a_failure() {
    let cli = Setting::new();
    let said = cli.run(&["publish", "--exchange", "amq.topic", "--key", "nowhere", "--body", "x"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("1 of 1 messages reached no queue"), "{said:?}");
}

#[test]
fn bytes_that_are_no_text_arrive_as_they_are() {
    let cli = Setting::new();
    cli.done(&["declare", "queue", "q"]);
    let path = cli.home.path().join("bytes");
    std::fs::write(&path, [0, 159, 146, 150]).unwrap();
    cli.done(&["publish", "--key", "q", "--file", path.to_str().unwrap()]);
    let output = cli.command().args(["consume", "q", "--count", "1"]).output().unwrap();
    assert_eq!(output.stdout, [0, 159, 146, 150, b'\n']);
}

#[test]
fn purging_says_what_was_there_and_can_be_tried_first() {
    let cli = Setting::new();
    cli.done(&["declare", "queue", "q"]);
    cli.done(&["publish", "--key", "q", "--body", "x", "--count", "5"]);
    let said = cli.run(&["purge", "q", "--dry-run"]);
    assert!(said.err.contains("5 ready messages of 'q' would be removed"), "{said:?}");
    let said = cli.run(&["purge", "q"]);
    assert!(said.code == 0 && said.err.contains("5 ready messages"), "{said:?}");
    assert!(cli.json(&["get", "q"]).is_empty());
}
