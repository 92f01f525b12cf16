//! `broker route EXCHANGE KEY`: where a message would go, and why.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use plugin_api::message::PropertiesBuf;
use serde_json::{Map, Value as Json, json};

use super::client::http::Failure;
use super::client::{InVhost, Remote, table, with_api};
use super::without_broker::{Refused, WithoutBroker};
use super::{exit, print_report};
use crate::dry_run::to_json;
use crate::message::{Message, Parts};
use crate::vhost::json_table::table_from_json;

/// Help of the command.
pub(super) const LONG_ABOUT: &str = "\
Say where a message would go. Nothing is published; hooks run, because what they do decides the way. In a broker that counts as a call of them, also for what they \
count in broker.shared.

With --topology it is the file alone that is asked, without a broker and without a network: its hooks, its exchanges and its bindings, by the engine of the broker. \
Without, it is a running broker, over its management API. --explain shows each hook with the message before and after, also those in shadow mode and those that failed, each exchange with its \
bindings and why they match or not, and what became of the message there. What a hook sends to the dead letters is followed to their queues.

Exit code 0: it reaches a queue. 1: it reaches none, or is refused. 65: the file has mistakes.";

#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    /// The exchange; '' or amq.default for the default one
    #[arg(value_name = "EXCHANGE")]
    exchange: String,
    /// The routing key
    #[arg(value_name = "KEY", default_value = "")]
    key: String,
    /// A header; the value is JSON if it can be read as such, and text otherwise. May be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// The body, for hooks that look into it
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    body: String,
    /// Show each step
    #[arg(short, long)]
    explain: bool,
    /// Ask this file instead of a broker
    #[arg(short, long, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// With --topology: folder with plugins, as for a run
    #[arg(long, value_name = "DIR", env = "BROKER_PLUGIN_DIR", value_delimiter = ':')]
    plugin_dir: Vec<PathBuf>,
    /// With --topology: publish as this user of the file, with its permissions
    #[arg(long, value_name = "NAME", requires = "topology")]
    publisher: Option<String>,
    #[command(flatten)]
    vhost: InVhost,
    /// How the answer is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

pub(super) fn route(args: &RouteArgs, remote: &Remote) -> u8 {
    let Some(file) = &args.topology else {
        return with_api(remote, |api| {
            let headers = table(&args.headers)?;
            // A message without headers is another one than a message with none in its table.
            let properties = if headers.is_empty() { json!({}) } else { json!({"headers": headers}) };
            let question = json!({
                "vhost": args.vhost.name(api), "exchange": args.exchange, "routing_key": args.key,
                "properties": properties, "payload": args.body, "payload_encoding": "string",
            });
            Ok(shown(args, &api.post("/x/route", &question)?))
        });
    };
    match offline(args, file) {
        Ok(answer) => shown(args, &answer),
        Err(Problem::Code(code)) => code,
        Err(Problem::Failure(failure)) => {
            eprintln!("broker: {failure}");
            failure.exit_code()
        }
        Err(Problem::Refused(text)) => {
            eprintln!("broker: refused: {text}");
            exit::FAILED
        }
    }
}

enum Problem {
    Code(u8),
    Failure(Failure),
    Refused(String),
}

fn offline(args: &RouteArgs, file: &std::path::Path) -> Result<Json, Problem> {
    let headers = table(&args.headers).map_err(Problem::Failure)?;
    let world = WithoutBroker::new(file, &args.plugin_dir).map_err(Problem::Code)?;
    let only = match world.loaded.topology.vhosts.as_slice() {
        [only] => only.name.clone(),
        _ => "/".to_owned(),
    };
    let vhost = args.vhost.vhost.clone().unwrap_or(only);
    let message = message(&args.exchange, &args.key, &headers, args.body.as_bytes())
        .map_err(|text| Problem::Failure(Failure::Usage(text)))?;
    let no_input = |what: &str, name: &str| {
        Problem::Failure(Failure::NoInput(format!("{what} '{name}' is not declared in {}", file.display())))
    };
    match world.publish(&vhost, args.publisher.as_deref(), message) {
        Ok(run) => Ok(to_json(&run, &vhost)),
        Err(Refused::NoVhost) => Err(no_input("vhost", &vhost)),
        Err(Refused::NoUser) => Err(no_input("user", args.publisher.as_deref().unwrap_or_default())),
        Err(Refused::ByRules(error)) => Err(Problem::Refused(error.to_string())),
    }
}

fn message(exchange: &str, key: &str, headers: &Map<String, Json>, body: &[u8]) -> Result<Arc<Message>, String> {
    let headers = table_from_json(headers).map_err(|error| format!("headers: {error}"))?;
    let headers = (!headers.is_empty()).then_some(headers);
    let properties = PropertiesBuf { headers, ..PropertiesBuf::default() }.encode();
    let exchange = if exchange == "amq.default" { "" } else { exchange };
    if [exchange, key].iter().any(|name| name.len() > 255) {
        return Err("exchange and key have at most 255 bytes".to_owned());
    }
    Ok(Message::new(Parts { exchange, routing_key: key, properties: &properties }, body))
}

fn shown(args: &RouteArgs, answer: &Json) -> u8 {
    let code = if answer["routed"] == true { exit::OK } else { exit::FAILED };
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(answer).unwrap_or_default() + "\n",
        Format::Text if args.explain => explained(answer),
        Format::Text => ends(answer),
    };
    print_report(&text, code)
}

/// The queues, or why there are none.
fn ends(answer: &Json) -> String {
    let names: Vec<&str> = list(answer, "queues").filter_map(|queue| queue["name"].as_str()).collect();
    if !names.is_empty() {
        return names.iter().map(|name| format!("{}\n", harmless(name))).collect();
    }
    let is_end = |hook: &&Json| hook["shadow"] != true && ends_it(hook);
    if let Some(hook) = list(answer, "hooks").last().filter(is_end) {
        return format!("hook {}{}\n", hook_said(hook), lost(answer));
    }
    let last = list(answer, "steps").last().and_then(|step| step["explanation"].as_str()).unwrap_or_default();
    format!("no queue: {}\n", harmless(last))
}

fn ends_it(hook: &Json) -> bool {
    matches!(hook["outcome"].as_str(), Some("drop" | "reject" | "dead_letter"))
}

/// What a dead letter that nobody takes comes to.
fn lost(answer: &Json) -> &'static str {
    if answer["dead_letter_lost"] == true { "; it reaches no queue there, so the publish is refused" } else { "" }
}

/// What a hook did, or would have done.
fn hook_said(hook: &Json) -> String {
    let text = |key: &str| harmless(hook[key].as_str().unwrap_or_default());
    let (is_shadow, failure) = (hook["shadow"] == true, hook["failure"].as_str().map(harmless));
    let (does, would) = match hook["outcome"].as_str() {
        Some("drop") => ("drops it", "would drop it"),
        Some("reject") => ("rejects it", "would reject it"),
        Some("dead_letter") => ("sends it to the dead letters", "would send it to the dead letters"),
        Some("rewrite") => ("rewrites it", "would rewrite it"),
        _ => ("lets it pass", "would let it pass"),
    };
    let mut said = format!("'{}' {}", text("hook"), if is_shadow { would } else { does });
    if hook["outcome"] == "dead_letter" {
        let _ = write!(said, " of exchange '{}'", text("exchange"));
    }
    if is_shadow {
        said.push_str(" (shadow)");
    }
    if let Some(failure) = failure {
        let _ = write!(said, " by on_error: it failed: {failure}");
    } else if ends_it(hook) {
        let _ = write!(said, ": {}", text("reason"));
    }
    said
}

fn explained(answer: &Json) -> String {
    let mut out = String::new();
    for hook in list(answer, "hooks") {
        let _ = writeln!(out, "hook {}", hook_said(hook));
        for (word, key) in [("before", "before"), ("after ", "after")] {
            // A message that stays as it is, is not said twice.
            if hook["outcome"] == "rewrite" {
                let _ = writeln!(out, "    {word}: {}", harmless(&hook[key].to_string()));
            } else if key == "before" {
                let _ = writeln!(out, "    message: {}", harmless(&hook[key].to_string()));
            }
        }
    }
    for step in list(answer, "steps") {
        let _ = writeln!(out, "{}", harmless(step["explanation"].as_str().unwrap_or_default()));
        for binding in list(step, "bindings") {
            self::binding(&mut out, binding);
        }
        let shown = list(step, "bindings").count() as u64;
        let all = step["binding_count"].as_u64().unwrap_or(0);
        if all > shown {
            let _ = writeln!(out, "    … and {} more bindings", all - shown);
        }
    }
    let names: Vec<String> = list(answer, "queues").filter_map(|queue| queue["name"].as_str()).map(harmless).collect();
    let _ = match names.as_slice() {
        [] => writeln!(out, "queues reached: none{}", lost(answer)),
        names => writeln!(out, "queues reached: {}", names.join(", ")),
    };
    out
}

fn binding(out: &mut String, binding: &Json) {
    let text = |key: &str| harmless(binding[key].as_str().unwrap_or_default());
    let sign = match binding["matches"].as_bool() {
        Some(true) => "+",
        Some(false) => "-",
        None => "?",
    };
    let kind = if binding["destination_type"] == "exchange" { "exchange:" } else { "" };
    let _ = write!(out, "    {sign} {kind}{}", text("destination"));
    if !text("routing_key").is_empty() {
        let _ = write!(out, " : {}", text("routing_key"));
    }
    if binding["arguments"].as_object().is_some_and(|arguments| !arguments.is_empty()) {
        let _ = write!(out, " {}", harmless(&binding["arguments"].to_string()));
    }
    match binding["why_not"].as_str() {
        Some(why) => {
            let _ = writeln!(out, "   ({})", harmless(why));
        }
        None => out.push('\n'),
    }
}

fn list<'a>(value: &'a Json, key: &str) -> impl DoubleEndedIterator<Item = &'a Json> {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// Names come from whoever declares; a terminal must not act on them.
fn harmless(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}
