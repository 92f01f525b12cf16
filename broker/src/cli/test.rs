//! `broker test FILE`: the tests that stand in a topology file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::without_broker::{Refused, WithoutBroker};
use super::{exit, print_report};
use crate::dry_run::DryRun;
use crate::hooks::Outcome;
use crate::message::{Message, Parts};
use crate::routing::explain::StepOutcome;
use crate::topology::check::{Item, Part};
use crate::topology::schema::{ExpectDecl, RouteTestDecl};

/// Help of the command.
pub(super) const LONG_ABOUT: &str = "\
Run the tests of a topology file ('tests:'): each publishes a message as far as routing goes and says what shall become of it.

No broker and no network is needed; hooks, exchange types and routing are those of the broker. Plugins that the file names are loaded, which runs their code.

Exit code 0: all passed. 1: some failed, or there are none. 65: the file has mistakes. 66: it cannot be read.";

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// The topology file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder with plugins, as for a run
    #[arg(long, value_name = "DIR", env = "BROKER_PLUGIN_DIR", value_delimiter = ':')]
    plugin_dir: Vec<PathBuf>,
    /// How the results are written
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
    /// For CI servers
    Junit,
}

/// One test that was run.
struct Ran {
    place: String,
    name: String,
    /// Why it failed.
    failure: Option<String>,
}

pub(super) fn test(args: &TestArgs) -> u8 {
    let world = match WithoutBroker::new(&args.file, &args.plugin_dir) {
        Ok(world) => world,
        Err(code) => return code,
    };
    let tests = world.loaded.topology.tests.iter().enumerate();
    let ran: Vec<Ran> = tests
        .map(|(index, test)| Ran {
            place: world.loaded.file_and_line(&Item::Test(index).part(Part::Whole)),
            name: test.name.clone().unwrap_or_else(|| {
                format!("'{}' to exchange '{}' in vhost '{}'", test.routing_key, test.exchange, test.vhost)
            }),
            failure: judge(&world, test).err(),
        })
        .collect();
    let failed = ran.iter().filter(|test| test.failure.is_some()).count();
    let code = if failed == 0 && !ran.is_empty() { exit::OK } else { exit::FAILED };
    let report = match args.format {
        Format::Text => text(args, &ran, failed),
        Format::Json => as_json(&ran, failed),
        Format::Junit => junit(args, &ran, failed),
    };
    print_report(&report, code)
}

/// What became of a message.
enum Became {
    /// It reaches these, at least one.
    Queues(BTreeSet<String>),
    /// It reaches none, or a hook drops it.
    Dropped(String),
    /// It reaches none and goes back.
    Returned(String),
    /// A hook or a permission refuses it.
    Rejected(String),
    /// A hook sends it to the dead letters, to these queues; or it is put off on its way there.
    DeadLettered(BTreeSet<String>, String),
}

fn judge(world: &WithoutBroker, test: &RouteTestDecl) -> Result<(), String> {
    let became = publish(world, test)?;
    let fits = match (&test.expect, &became) {
        (ExpectDecl::Queues(wanted), Became::Queues(queues)) => {
            wanted.iter().cloned().collect::<BTreeSet<_>>() == *queues
        }
        (ExpectDecl::DeadLettered(wanted), Became::DeadLettered(queues, _)) => {
            wanted.as_ref().is_none_or(|wanted| wanted.iter().cloned().collect::<BTreeSet<_>>() == *queues)
        }
        (ExpectDecl::Queues(wanted), Became::Dropped(_) | Became::Returned(_)) => wanted.is_empty(),
        (ExpectDecl::Dropped(part), Became::Dropped(reason))
        | (ExpectDecl::Rejected(part), Became::Rejected(reason)) => reason.contains(part.as_str()),
        (ExpectDecl::Returned, Became::Returned(_)) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let wanted = match &test.expect {
        ExpectDecl::Queues(queues) if queues.is_empty() => "no queue".to_owned(),
        ExpectDecl::Queues(queues) => quoted(&queues.iter().cloned().collect()),
        ExpectDecl::Dropped(part) => with_reason("that it is dropped", part),
        ExpectDecl::Returned => "that it is returned".to_owned(),
        ExpectDecl::Rejected(part) => with_reason("that it is rejected", part),
        ExpectDecl::DeadLettered(None) => "that a hook sends it to the dead letters".to_owned(),
        ExpectDecl::DeadLettered(Some(queues)) => {
            format!("that a hook sends it to the dead letters in {}", quoted(&queues.iter().cloned().collect()))
        }
    };
    let found = match became {
        Became::Queues(queues) => format!("it reaches {}", quoted(&queues)),
        Became::Dropped(reason) => format!("it is dropped: {reason}"),
        Became::Returned(reason) => format!("it is returned: {reason}"),
        Became::Rejected(reason) => format!("it is rejected: {reason}"),
        Became::DeadLettered(queues, reason) if queues.is_empty() => format!("it is put off: {reason}"),
        Became::DeadLettered(queues, reason) => format!("it reaches {} as a dead letter: {reason}", quoted(&queues)),
    };
    Err(format!("expected {wanted}, but {found}"))
}

fn with_reason(what: &str, part: &str) -> String {
    if part.is_empty() { what.to_owned() } else { format!("{what} with '{part}' in the reason") }
}

fn quoted(queues: &BTreeSet<String>) -> String {
    queues.iter().map(|queue| format!("'{queue}'")).collect::<Vec<_>>().join(", ")
}

fn publish(world: &WithoutBroker, test: &RouteTestDecl) -> Result<Became, String> {
    let properties = test.properties.encode();
    let parts = Parts { exchange: &test.exchange, routing_key: &test.routing_key, properties: &properties };
    let run = match world.publish(&test.vhost, test.user.as_deref(), Message::new(parts, &test.body)) {
        Ok(run) => run,
        Err(Refused::ByRules(error)) => return Ok(Became::Rejected(error.to_string())),
        // Checked with the file.
        Err(Refused::NoVhost) => return Err(format!("vhost '{}' is not declared", test.vhost)),
        Err(Refused::NoUser) => return Err("its user is not declared".to_owned()),
    };
    Ok(became(&run, test.mandatory))
}

fn became(run: &DryRun, is_mandatory: bool) -> Became {
    // The last that was not only watched.
    let last = run.hooks.iter().map(|step| &step.judgement).rfind(|judgement| !judgement.is_shadow);
    let ended = last.and_then(|judgement| match &judgement.outcome {
        Outcome::Pass | Outcome::Rewrite { .. } => None,
        Outcome::Drop { hook, reason } => Some(Became::Dropped(format!("hook '{hook}': {reason}"))),
        Outcome::Reject { hook, reason } => Some(Became::Rejected(format!("hook '{hook}': {reason}"))),
        Outcome::DeadLetter { hook, reason, exchange } => {
            let exchange = exchange.as_deref().unwrap_or_default();
            let sends = format!("hook '{hook}' sends it to the dead letters of exchange '{exchange}'");
            if run.is_dead_letter_lost() {
                return Some(Became::Rejected(format!("{sends}, where it reaches no queue: {reason}")));
            }
            let queues = run.way.iter().flat_map(|way| &way.queues).map(|queue| queue.name.to_string());
            Some(Became::DeadLettered(queues.collect(), format!("{sends}: {reason}")))
        }
    });
    if let Some(ended) = ended {
        return ended;
    }
    let Some(way) = &run.way else { return Became::Rejected("a hook has ended it".to_owned()) };
    if !way.queues.is_empty() {
        return Became::Queues(way.queues.iter().map(|queue| queue.name.to_string()).collect());
    }
    let last = way.steps.last();
    let name = last.map_or("", |step| &*step.exchange.name);
    let reason = match last.map(|step| &step.outcome) {
        Some(StepOutcome::PutOff) => format!("exchange '{name}' puts it off; what is due later is not tested"),
        Some(StepOutcome::Failed(error)) => format!("exchange '{name}' has failed: {error}"),
        Some(StepOutcome::MissingAlternate(alternate)) => {
            format!("no binding of exchange '{name}' matches, and its alternate exchange '{alternate}' does not exist")
        }
        _ => format!("no binding of exchange '{name}' matches"),
    };
    if is_mandatory { Became::Returned(reason) } else { Became::Dropped(reason) }
}

fn text(args: &TestArgs, ran: &[Ran], failed: usize) -> String {
    let mut out = String::new();
    for test in ran {
        if let Some(failure) = &test.failure {
            let _ = writeln!(out, "{}: {}: {failure}", test.place, test.name);
        }
    }
    let _ = match ran.len() {
        0 => writeln!(out, "{}: no tests; add 'tests:' with an exchange and what is expected", args.file.display()),
        count => writeln!(out, "{}: {} passed, {failed} failed", args.file.display(), count - failed),
    };
    out
}

fn as_json(ran: &[Ran], failed: usize) -> String {
    let tests: Vec<_> = ran
        .iter()
        .map(|test| json!({"place": test.place, "name": test.name, "passed": test.failure.is_none(), "failure": test.failure}))
        .collect();
    let report = json!({"tests": tests, "passed": ran.len() - failed, "failed": failed});
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

/// The form that CI servers read.
fn junit(args: &TestArgs, ran: &[Ran], failed: usize) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let suite = escaped(&args.file.display().to_string());
    let _ = writeln!(out, "<testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failed}\">", ran.len());
    for test in ran {
        let (place, name) = (escaped(&test.place), escaped(&test.name));
        let _ = match &test.failure {
            None => writeln!(out, "  <testcase classname=\"{place}\" name=\"{name}\"/>"),
            Some(failure) => writeln!(
                out,
                "  <testcase classname=\"{place}\" name=\"{name}\"><failure message=\"{}\"/></testcase>",
                escaped(failure)
            ),
        };
    }
    out.push_str("</testsuite>\n");
    out
}

/// XML has no room for control characters at all.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            char if char.is_control() => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}
