//! The command line: what each command takes, and the exit code of each.
//!
//! Commands print for people: results to standard output, what went wrong to standard error in one sentence with a way out.
//! Exit codes are those of sysexits(3). Nothing here knows AMQP; `run` hands over to the node.

mod check;
mod definitions;
mod logging;
mod plugins;
mod run;
mod script;
mod store;

use std::{ffi::OsStr, io::Write as _, process::ExitCode};

use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// A message broker that speaks AMQP 0-9-1 as RabbitMQ does.
#[derive(Debug, Parser)]
#[command(
    name = "broker",
    version,
    about,
    long_about = "A message broker that speaks AMQP 0-9-1 as RabbitMQ does, so that RabbitMQ's clients work unchanged.\n\n\
                  Without a command it runs the broker. Without --topology it has the vhost '/' and the user guest with \
                  password guest, who may connect from this machine only.",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a topology file and report every mistake in it, without running anything
    #[command(long_about = check::LONG_ABOUT)]
    Check(check::CheckArgs),
    /// Import and export definitions of a data folder as RabbitMQ does
    Definitions(definitions::DefinitionsArgs),
    /// Work with Lua hook scripts
    Script(script::ScriptArgs),
    /// Look at a data folder without changing it
    Store(store::StoreArgs),
}

const EXAMPLES: &str = "\
Examples:
  broker                             an empty broker on port 5672, for guest on this machine
  broker --topology topology.yaml    everything as declared in the file
  broker --listen 127.0.0.1:5673 --log debug
  broker check topology.yaml         report all mistakes of the file
  broker script test scripts/        run the tests beside the scripts
  broker definitions import definitions.json --data DIR    take over what a RabbitMQ exported

Every option can be given by its environment variable instead; the command line wins, and an empty variable counts as none.";

/// Exit codes of sysexits(3), as far as they are used.
mod exit {
    pub(super) const OK: u8 = 0;
    /// Tests were run, and not all of them passed.
    pub(super) const FAILED: u8 = 1;
    /// The command line is wrong.
    pub(super) const USAGE: u8 = 64;
    /// A file that was read is wrong.
    pub(super) const DATA: u8 = 65;
    /// A file cannot be read.
    pub(super) const NO_INPUT: u8 = 66;
    /// The operating system refused something.
    pub(super) const OS: u8 = 71;
    /// Output cannot be written.
    pub(super) const IO: u8 = 74;
}

/// Runs the command of this process and gives its exit code.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(match parse() {
        Ok(Cli { command: None, run }) => run::run(run),
        Ok(Cli { command: Some(Command::Check(args)), .. }) => check::check(&args),
        Ok(Cli { command: Some(Command::Definitions(args)), .. }) => definitions::definitions(args),
        Ok(Cli { command: Some(Command::Script(args)), .. }) => script::script(&args),
        Ok(Cli { command: Some(Command::Store(args)), .. }) => store::store(&args),
        Err(error) => {
            // Help and version come as errors, too. Nobody is left to tell when the output is closed.
            let _ = error.print();
            if error.use_stderr() { exit::USAGE } else { exit::OK }
        }
    })
}

fn parse() -> Result<Cli, clap::Error> {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    Cli::from_arg_matches(&without_variables(Cli::command(), &is_empty).try_get_matches()?)
}

/// A variable that is set to nothing counts as not set: scripts and container files cannot always leave one out.
fn without_variables(mut command: clap::Command, is_empty: &dyn Fn(&OsStr) -> bool) -> clap::Command {
    let empty: Vec<clap::Id> = command
        .get_arguments()
        .filter(|argument| argument.get_env().is_some_and(is_empty))
        .map(|argument| argument.get_id().clone())
        .collect();
    for id in empty {
        command = command.mut_arg(id, |argument| argument.env(Resettable::Reset));
    }
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |inner| without_variables(inner, is_empty));
    }
    command
}

/// Prints the result of a command and gives its exit code, or another one when it cannot be printed.
fn print_report(report: &str, code: u8) -> u8 {
    match std::io::stdout().write_all(report.as_bytes()) {
        // Whoever closed the pipe has seen enough; the code is still right.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("broker: the report cannot be written: {error}");
            exit::IO
        }
        _ => code,
    }
}

#[cfg(test)]
mod tests;
