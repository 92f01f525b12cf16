//! `broker plan`, `apply`, `export` and `topology …`: topology files against a running broker, or against a data folder that no broker has open.
//!
//! The file is read here, with its includes, environment and secrets, and sent as one text; a plan comes back. Passwords go to the broker as they do with every change of
//! a user, and are in no plan.

mod shown;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value as Json, json};

use super::client::http::{Api, Failure};
use super::client::{Remote, with_api};
use super::definitions::{FolderArgs, offline, run, write_private};
use super::{exit, print_report};
use crate::config::{self, Loaded};
use crate::origin::Origin;
use crate::topology::definitions::{Scope, Topologies, read as read_definitions};
use crate::topology::plan::{Prune, Wish};
use crate::topology::render::render;
use crate::topology::schema::Topology;
use crate::topology::snapshot::without_servers_queues;

/// Help of `plan`.
pub(super) const PLAN_ABOUT: &str = "\
Show what a topology file would change in a running broker, or in a data folder. Nothing is changed.

What the file does not name stays as it is. With --prune, what the same file (by its 'owner') declared before and no longer does is removed. Messages and consumers are \
never lost without --force.

Exit code 0: nothing to change. 2: there are changes. 1: it may not be applied, and the plan says why. 65: the file has mistakes. 66: it cannot be read. \
69: no broker answers.";

/// Help of `apply`.
pub(super) const APPLY_ABOUT: &str = "\
Make a running broker, or a data folder, what a topology file says.

The plan is shown first; what removes or replaces something is asked for on a terminal, and wants --yes elsewhere. Everything is checked before anything is \
changed, and if something changed since the plan was made, nothing is done.

Exit code 0: all is as the file says. 1: refused or not wanted, nothing is changed. 65: the file has mistakes. 66: it cannot be read. 69: no broker answers. \
70: a step failed after others had been done, which are named. 75: something has changed meanwhile, try again.";

/// Help of `export`.
pub(super) const EXPORT_ABOUT: &str = "\
Write what a broker has as a topology file: users with the hashes of their passwords, parameters, vhosts, policies, exchanges, queues, bindings; no \
messages.

What no file can declare (queues that the server named, protection from deletion) is named on standard error.";

/// The file and how far it may go.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The topology file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Remove what this file declared before and no longer does
    #[arg(long)]
    prune: bool,
    /// Also lose messages and consumers, where a queue is replaced or removed
    #[arg(long)]
    force: bool,
    /// How the plan is written
    #[arg(short = 'f', long, value_name = "FORMAT", value_enum, default_value_t)]
    format: PlanFormat,
    #[command(flatten)]
    folder: FolderArgs,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum PlanFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Write here instead of to standard output; only the owner may read the file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only this vhost, without users
    #[arg(short = 'V', long, value_name = "VHOST")]
    vhost: Option<String>,
    #[command(flatten)]
    folder: FolderArgs,
}

#[derive(Debug, Args)]
pub(super) struct TopologyArgs {
    #[command(subcommand)]
    command: TopologyCommand,
}

#[derive(Debug, Subcommand)]
enum TopologyCommand {
    /// Write a RabbitMQ's definitions.json as a topology file
    Convert {
        /// What 'rabbitmqctl export_definitions' has written
        #[arg(value_name = "DEFINITIONS")]
        file: PathBuf,
        /// The vhost, for definitions of a single one
        #[arg(short = 'V', long, value_name = "VHOST")]
        vhost: Option<String>,
        /// Write here instead of to standard output; only the owner may read the file
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Write the JSON Schema of topology files, for editors and CI
    Schema,
}

/// What was made of the file.
struct Wanted {
    topology: Topology,
    /// What a plan does not look at.
    left_out: Vec<String>,
}

fn read(file: &Path) -> Result<Wanted, u8> {
    let loaded = load(file)?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let topology = loaded.topology;
    let elsewhere = ["users", "vhosts", "parameters", "owner", "tests", "include", "hooks"];
    let mut sections: Vec<&str> =
        topology.sections.iter().copied().filter(|section| !elsewhere.contains(section)).collect();
    if !topology.hooks.is_empty() {
        sections.push("hooks");
    }
    let left_out = if sections.is_empty() {
        Vec::new()
    } else {
        let sections = sections.join(", ");
        vec![format!("{sections}: not compared; a broker reads these from the file that it was started with")]
    };
    Ok(Wanted { topology, left_out })
}

/// A file without mistakes; the others are printed.
pub(super) fn load(file: &Path) -> Result<Loaded, u8> {
    config::load(file, &|name| std::env::var(name).ok()).map_err(|diagnostics| {
        for diagnostic in &diagnostics {
            eprintln!("{diagnostic}");
        }
        super::check::exit_code(&diagnostics)
    })
}

impl PlanArgs {
    fn body(&self, wanted: &Wanted) -> Json {
        json!({"topology": render(&wanted.topology), "prune": self.prune, "force": self.force})
    }

    fn wish(&self) -> Wish {
        let prune = if self.prune { Prune::Everything } else { Prune::Nothing };
        Wish { prune, force: self.force, origin: Origin::Runtime }
    }

    fn print(&self, plan: &Json) -> u8 {
        match self.format {
            PlanFormat::Text => print_report(&shown::plan(plan), exit::OK),
            PlanFormat::Json => {
                let text = serde_json::to_string_pretty(plan).unwrap_or_default();
                print_report(&(text + "\n"), exit::OK)
            }
        }
    }
}

/// Adds what this side knows.
fn with_notes(mut plan: Json, wanted: &Wanted) -> Json {
    if let Some(notes) = plan["notes"].as_array_mut() {
        notes.extend(wanted.left_out.iter().map(|note| json!(note)));
    }
    plan
}

fn is_empty(plan: &Json, key: &str) -> bool {
    plan[key].as_array().is_none_or(Vec::is_empty)
}

fn code_of_plan(plan: &Json) -> u8 {
    match (is_empty(plan, "refusals"), is_empty(plan, "changes")) {
        (false, _) => exit::FAILED,
        (true, true) => exit::OK,
        (true, false) => exit::CHANGES,
    }
}

pub(super) fn plan(args: PlanArgs, remote: &Remote) -> u8 {
    let wanted = match read(&args.file) {
        Ok(wanted) => wanted,
        Err(code) => return code,
    };
    let shown = |plan: Json| {
        let plan = with_notes(plan, &wanted);
        match args.print(&plan) {
            exit::OK => code_of_plan(&plan),
            code => code,
        }
    };
    match args.folder.data.clone() {
        None => with_api(remote, |api| Ok(shown(asked(api, "/x/plan", &args.body(&wanted))?))),
        Some(data) => {
            let offline = match offline(data, args.folder.rest.clone()) {
                Ok(offline) => offline,
                Err(code) => return code,
            };
            match run(offline.plan(&wanted.topology, args.wish())) {
                Ok(plan) => shown(plan.to_json()),
                Err(code) => code,
            }
        }
    }
}

pub(super) fn apply(args: ApplyArgs, remote: &Remote) -> u8 {
    let ApplyArgs { plan: args, yes } = args;
    let wanted = match read(&args.file) {
        Ok(wanted) => wanted,
        Err(code) => return code,
    };
    match args.folder.data.clone() {
        None => with_api(remote, |api| {
            let mut body = args.body(&wanted);
            let plan = with_notes(asked(api, "/x/plan", &body)?, &wanted);
            if let Err(code) = agreed(&args, &plan, yes) {
                return Ok(code);
            }
            body["fingerprint"] = plan["fingerprint"].clone();
            let answer = match api.post("/x/apply", &body) {
                Err(Failure::Refused { status: 412, reason, .. }) => {
                    eprintln!("broker: {reason}");
                    return Ok(exit::TRY_AGAIN);
                }
                Err(Failure::Refused { status: 409, reason, .. }) => {
                    eprintln!("broker: {reason}");
                    return Ok(if reason.starts_with("not all was done") { exit::SOFTWARE } else { exit::FAILED });
                }
                answer => answer?,
            };
            Ok(done(&answer["done"]))
        }),
        Some(data) => apply_offline(&args, &wanted, data, yes),
    }
}

fn apply_offline(args: &PlanArgs, wanted: &Wanted, data: PathBuf, yes: bool) -> u8 {
    let open = |data: PathBuf| offline(data, args.folder.rest.clone());
    let planned = open(data.clone()).and_then(|folder| run(folder.plan(&wanted.topology, args.wish())));
    let plan = match planned {
        Ok(plan) => with_notes(plan.to_json(), wanted),
        Err(code) => return code,
    };
    if let Err(code) = agreed(args, &plan, yes) {
        return code;
    }
    let applied = open(data).and_then(|folder| run(folder.apply(&wanted.topology, args.wish())));
    let planned = match applied {
        Ok(planned) => planned,
        Err(code) => return code,
    };
    match planned.carried_out {
        None => {
            eprintln!("broker: {}", planned.plan.refusals().join("; "));
            exit::FAILED
        }
        Some(result) => match result.failed {
            None => done(&json!(result.done)),
            Some(failed) => {
                eprintln!("broker: not all was done. Failed: {failed}");
                result.done.iter().for_each(|step| eprintln!("  {step}"));
                result.left.iter().for_each(|step| eprintln!("  not tried: {step}"));
                exit::SOFTWARE
            }
        },
    }
}

/// Shows the plan and asks where something goes; the exit code where nothing shall be done. An empty plan is carried out, too: what is there
/// already is the file's from then on.
fn agreed(args: &PlanArgs, plan: &Json, yes: bool) -> Result<(), u8> {
    match args.print(plan) {
        exit::OK => {}
        code => return Err(code),
    }
    if !is_empty(plan, "refusals") {
        eprintln!("broker: nothing was changed");
        return Err(exit::FAILED);
    }
    let goes = |key: &str| plan["summary"][key].as_u64().unwrap_or(0);
    if goes("remove") + goes("replace") == 0 || yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        eprintln!(
            "broker: something would be removed or replaced; say --yes, since nobody can be asked. Nothing was changed"
        );
        return Err(exit::FAILED);
    }
    eprint!("Do this? Only 'yes' does it: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => {
            eprintln!("broker: nothing was changed");
            Err(exit::FAILED)
        }
    }
}

fn done(steps: &Json) -> u8 {
    let count = steps.as_array().map_or(0, Vec::len);
    match count {
        0 => eprintln!("nothing had to be changed"),
        1 => eprintln!("1 change done"),
        count => eprintln!("{count} changes done"),
    }
    exit::OK
}

/// A mistake of the file that only the broker could find comes with its lines.
fn asked(api: &Api, path: &str, body: &Json) -> Result<Json, Failure> {
    api.post(path, body).map_err(|failure| match failure {
        Failure::Refused { status: 400, reason, .. } => Failure::Data(reason),
        other => other,
    })
}

pub(super) fn export(args: ExportArgs, remote: &Remote) -> u8 {
    let ExportArgs { output, vhost, folder } = args;
    match folder.data {
        None => with_api(remote, |api| {
            let query = vhost.as_deref().map(|vhost| format!("?vhost={}", super::client::http::segment(vhost)));
            let answer = api.get(&format!("/x/topology{}", query.unwrap_or_default()))?;
            for note in answer["notes"].as_array().into_iter().flatten().filter_map(Json::as_str) {
                eprintln!("broker: left out: {note}");
            }
            Ok(write(output.as_deref(), answer["topology"].as_str().unwrap_or_default()))
        }),
        Some(data) => {
            let exported = offline(data, folder.rest).and_then(|folder| run(folder.topology_of(vhost.as_deref())));
            match exported {
                Err(code) => code,
                Ok(topology) if vhost.is_some() && topology.vhosts.is_empty() => {
                    eprintln!("broker: vhost '{}' does not exist", vhost.unwrap_or_default());
                    exit::NO_INPUT
                }
                Ok(mut topology) => {
                    for note in without_servers_queues(&mut topology) {
                        eprintln!("broker: left out: {note}");
                    }
                    write(output.as_deref(), &render(&topology))
                }
            }
        }
    }
}

fn write(output: Option<&Path>, text: &str) -> u8 {
    let Some(path) = output else { return print_report(text, exit::OK) };
    match write_private(path, text) {
        Ok(()) => exit::OK,
        Err(error) => {
            eprintln!("broker: {} cannot be written: {error}", path.display());
            exit::IO
        }
    }
}

pub(super) fn topology(args: &TopologyArgs) -> u8 {
    match &args.command {
        TopologyCommand::Schema => print_report(&config::json_schema(), exit::OK),
        TopologyCommand::Convert { file, vhost, output } => convert(file, vhost.as_deref(), output.as_deref()),
    }
}

fn convert(file: &Path, vhost: Option<&str>, output: Option<&Path>) -> u8 {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("broker: {} cannot be read: {error}", file.display());
            return exit::NO_INPUT;
        }
    };
    let definitions = match read_definitions(&text, vhost.map_or(Scope::Broker, Scope::Vhost)) {
        Ok(definitions) => definitions,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| eprintln!("{}: {mistake}", file.display()));
            return exit::DATA;
        }
    };
    let Topologies { topology, left_out } = definitions.into_topology(vhost);
    for what in left_out {
        eprintln!("broker: left out: {what}");
    }
    write(output, &render(&topology))
}
