//! The commands for a running broker, as a user types them.

#![allow(clippy::unwrap_used, reason = "a helper that panics fails its test, which is what it is for")]

mod access;
mod bench;
mod completion;
mod contexts;
mod messages;
mod objects;
mod scripts;
mod tls;
mod topology;

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::broker_process::{BrokerOptions, BrokerProcess, binary};
use tests::temp::TempDir;

/// A broker with its API, and a home of the user's own.
struct Setting {
    broker: BrokerProcess,
    home: TempDir,
}

/// What a command has said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Setting {
    fn new() -> Self {
        let broker = BrokerOptions::default().http().start().expect("the broker starts");
        Self { broker, home: TempDir::new("cli") }
    }

    fn url(&self) -> String {
        format!("http://{}", self.broker.http())
    }

    /// The program without any of the tests' own environment.
    fn command(&self) -> Command {
        let mut command = Command::new(binary().expect("the broker is built"));
        command.env_clear().env("HOME", self.home.path()).env("BROKER_URL", self.url());
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        self.run_with(words, "")
    }

    fn run_with(&self, words: &[&str], input: &str) -> Said {
        finish(self.command().args(words), input)
    }

    /// Runs what has to succeed.
    fn done(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        said.out
    }

    /// Rows of a list.
    fn json(&self, words: &[&str]) -> Vec<Value> {
        let out = self.done(&[words, &["--format", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?} is no list: {error}: {out}"))
    }
}

fn finish(command: &mut Command, input: &str) -> Said {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // What does not read its input may have ended before.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}
