//! Completion by the shell, and manual pages.

use super::{Setting, finish};

fn completed(cli: &Setting, words: &[&str]) -> Vec<String> {
    let mut command = cli.command();
    let index = words.len().to_string();
    command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true");
    let said = finish(command.arg("--").arg("broker").args(words), "");
    said.out.lines().map(str::to_owned).collect()
}

#[test]
fn names_of_the_running_broker_are_completed() {
    let cli = Setting::new();
    for name in ["orders.eu", "orders.us", "bills"] {
        cli.done(&["declare", "queue", name]);
    }
    assert_eq!(completed(&cli, &["get", "orders"]), ["orders.eu", "orders.us"]);
    assert_eq!(completed(&cli, &["close", "--of-user", "g"]), ["guest"]);
    assert!(completed(&cli, &["li"]).contains(&"list".to_owned()));
}

#[test]
fn without_a_broker_nothing_is_completed_and_nothing_is_said() {
    let cli = Setting::new();
    let mut command = cli.command();
    command.env("BROKER_URL", "http://127.0.0.1:1").env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2");
    let said = finish(command.args(["--", "broker", "get", "x"]), "");
    assert!(said.err.is_empty() && !said.out.contains('x'), "{said:?}");
}

#[test]
fn each_command_has_a_manual_page() {
    let cli = Setting::new();
    let folder = cli.home.path().join("man");
    cli.done(&["man", folder.to_str().unwrap()]);
    for page in ["broker.1", "broker-list.1", "broker-declare-queue.1", "broker-ctl.1"] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.starts_with(".ie") && text.contains(".SH NAME"), "{page}");
    }
}
