//! The command line: what each command takes, and the exit code of each.
//!
//! Commands print for people: results to standard output, what went wrong to standard error in one sentence with a way out.
//! Exit codes are those of sysexits(3). Nothing here knows AMQP but `bench`, which is a client of it; `run` hands over to the node.

mod bench;
mod check;
mod client;
mod definitions;
mod logging;
mod man;
mod plugin;
mod plugins;
mod progress;
mod route;
mod run;
mod script;
mod store;
mod test;
mod topology;
mod without_broker;

use std::{ffi::OsStr, io::Write as _, process::ExitCode};

use clap::builder::Resettable;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

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
    command: Option<Box<Command>>,
    #[command(flatten)]
    run: run::RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a topology file and report every mistake in it, without running anything
    #[command(long_about = check::LONG_ABOUT)]
    Check(check::CheckArgs),
    /// Show what a topology file would change in a running broker
    #[command(long_about = topology::PLAN_ABOUT)]
    Plan(WithRemote<topology::PlanArgs>),
    /// Make a running broker what a topology file says
    #[command(long_about = topology::APPLY_ABOUT)]
    Apply(WithRemote<topology::ApplyArgs>),
    /// Write what a running broker has as a topology file
    #[command(long_about = topology::EXPORT_ABOUT)]
    Export(WithRemote<topology::ExportArgs>),
    /// Say where a message would go and why, in a running broker or by a topology file alone
    #[command(long_about = route::LONG_ABOUT)]
    Route(WithRemote<route::RouteArgs>),
    /// Run the tests of a topology file: which messages reach which queues
    #[command(long_about = test::LONG_ABOUT)]
    Test(test::TestArgs),
    /// Convert definitions.json to a topology file, and the schema for editors
    Topology(topology::TopologyArgs),
    /// Import and export definitions of a running broker or of a data folder as RabbitMQ does
    Definitions(definitions::DefinitionsArgs),
    /// Work with Lua hook scripts
    Script(script::ScriptArgs),
    /// Write, inspect and list plugins
    Plugin(plugin::PluginArgs),
    /// Look at a data folder without changing it
    Store(store::StoreArgs),
    /// List queues, connections and whatever else a running broker has
    List(WithRemote<client::list::ListArgs>),
    /// Declare a queue, an exchange or a binding
    Declare(WithRemote<client::declare::DeclareArgs>),
    /// Delete a queue, an exchange or a binding
    Delete(WithRemote<client::delete::DeleteArgs>),
    /// Publish messages
    Publish(WithRemote<client::messages::PublishArgs>),
    /// Look at the first messages of a queue, or take them
    Get(WithRemote<client::messages::GetArgs>),
    /// Take messages from a queue and print them until it is ended
    Consume(WithRemote<client::messages::ConsumeArgs>),
    /// Remove the ready messages of a queue
    Purge(WithRemote<client::delete::PurgeArgs>),
    /// Move messages from a queue to another queue or an exchange
    Move(WithRemote<client::messages::MoveArgs>),
    /// Show the busiest queues, again and again
    Top(WithRemote<client::top::TopArgs>),
    /// Ask whether all is well; exit code 69 if not
    Health(WithRemote<client::health::HealthArgs>),
    /// Close connections
    Close(WithRemote<client::delete::CloseArgs>),
    /// Add, delete and limit users
    User(WithRemote<client::access::UserArgs>),
    /// Say what users may do
    Permission(WithRemote<client::access::PermissionArgs>),
    /// Add, delete and limit vhosts
    Vhost(WithRemote<client::access::VhostArgs>),
    /// Set and clear policies
    Policy(WithRemote<client::access::PolicyArgs>),
    /// Measure a broker of AMQP 0-9-1: throughput, latency, backlog, connections, churn, routing
    #[command(long_about = bench::LONG_ABOUT)]
    Bench(bench::BenchArgs),
    /// Remember brokers by name
    Context(WithRemote<client::context::ContextArgs>),
    /// Print an answer of the management API
    Api(WithRemote<client::list::ShowArgs>),
    /// The commands of rabbitmqctl that scripts use, by their names
    Ctl(WithRemote<client::ctl::CtlArgs>),
    /// Write manual pages into a folder
    Man(man::ManArgs),
}

/// A command for a running broker.
#[derive(Debug, Args)]
struct WithRemote<T: Args> {
    #[command(flatten)]
    args: T,
    #[command(flatten)]
    remote: client::Remote,
}

const EXAMPLES: &str = "\
Examples:
  broker                             an empty broker on port 5672, for guest on this machine
  broker --topology topology.yaml    everything as declared in the file
  broker --listen 127.0.0.1:5673 --log debug
  broker check topology.yaml         report all mistakes of the file
  broker plugin new exchange-weather --kind exchange       a crate that is a plugin
  broker plan topology.yaml          what the file would change; 'broker apply' does it
  broker test topology.yaml          its tests: which messages reach which queues
  broker route orders order.eu.new --explain               where a message goes, and why
  broker script test scripts/        run the tests beside the scripts
  broker definitions import definitions.json --data DIR    take over what a RabbitMQ exported
  broker list queues --sort messages --reverse             what a running broker has
  broker get orders --count 3 --format json                look at messages and put them back
  broker bench throughput --size 16 --inflight 20000       how fast a broker is; any that speaks AMQP 0-9-1
  source <(COMPLETE=bash broker)                           completion, with live names

Every option can be given by its environment variable instead; the command line wins, and an empty variable counts as none.";

/// Exit codes of sysexits(3), as far as they are used.
mod exit {
    pub(super) const OK: u8 = 0;
    /// Tests were run, and not all of them passed.
    pub(super) const FAILED: u8 = 1;
    /// A plan has changes.
    pub(super) const CHANGES: u8 = 2;
    /// The command line is wrong.
    pub(super) const USAGE: u8 = 64;
    /// A file that was read is wrong.
    pub(super) const DATA: u8 = 65;
    /// A file cannot be read.
    pub(super) const NO_INPUT: u8 = 66;
    /// The broker does not answer, or is not well.
    pub(super) const UNAVAILABLE: u8 = 69;
    /// Something was begun and could not be brought to its end.
    pub(super) const SOFTWARE: u8 = 70;
    /// The operating system refused something.
    pub(super) const OS: u8 = 71;
    /// Output cannot be written.
    pub(super) const IO: u8 = 74;
    /// It took too long.
    pub(super) const TRY_AGAIN: u8 = 75;
    /// An answer was none that the API gives.
    pub(super) const PROTOCOL: u8 = 76;
    /// The user may not do this, or is not known.
    pub(super) const NO_PERMISSION: u8 = 77;
}

/// Runs the command of this process and gives its exit code.
#[must_use]
pub fn main() -> ExitCode {
    // A shell asks for completions with COMPLETE set; then this does not come back.
    clap_complete::env::CompleteEnv::with_factory(Cli::command).bin("broker").complete();
    ExitCode::from(match parse() {
        Ok(Cli { command: None, run }) => run::run(run),
        Ok(Cli { command: Some(command), .. }) => command.run(),
        Err(error) => {
            // Help and version come as errors, too. Nobody is left to tell when the output is closed.
            let _ = error.print();
            if error.use_stderr() { exit::USAGE } else { exit::OK }
        }
    })
}

impl Command {
    fn run(self) -> u8 {
        match self {
            Self::Check(args) => check::check(&args),
            Self::Plan(WithRemote { args, remote }) => topology::plan(args, &remote),
            Self::Apply(WithRemote { args, remote }) => topology::apply(args, &remote),
            Self::Export(WithRemote { args, remote }) => topology::export(args, &remote),
            Self::Route(WithRemote { args, remote }) => route::route(&args, &remote),
            Self::Test(args) => test::test(&args),
            Self::Topology(args) => topology::topology(&args),
            Self::Definitions(args) => definitions::definitions(args),
            Self::Script(args) => script::script(&args),
            Self::Plugin(args) => plugin::plugin(&args),
            Self::Store(args) => store::store(&args),
            Self::List(WithRemote { args, remote }) => client::list::list(&args, &remote),
            Self::Declare(WithRemote { args, remote }) => client::declare::declare(&args, &remote),
            Self::Delete(WithRemote { args, remote }) => client::delete::delete(&args, &remote),
            Self::Publish(WithRemote { args, remote }) => client::messages::publish(&args, &remote),
            Self::Get(WithRemote { args, remote }) => client::messages::get(&args, &remote),
            Self::Consume(WithRemote { args, remote }) => client::messages::consume(&args, &remote),
            Self::Purge(WithRemote { args, remote }) => client::delete::purge(&args, &remote),
            Self::Move(WithRemote { args, remote }) => client::messages::move_messages(&args, &remote),
            Self::Top(WithRemote { args, remote }) => client::top::top(&args, &remote),
            Self::Health(WithRemote { args, remote }) => client::health::health(&args, &remote),
            Self::Close(WithRemote { args, remote }) => client::delete::close(&args, &remote),
            Self::User(WithRemote { args, remote }) => client::access::user(&args, &remote),
            Self::Permission(WithRemote { args, remote }) => client::access::permission(&args, &remote),
            Self::Vhost(WithRemote { args, remote }) => client::access::vhost(&args, &remote),
            Self::Policy(WithRemote { args, remote }) => client::access::policy(&args, &remote),
            Self::Bench(args) => bench::bench(&args),
            Self::Context(WithRemote { args, remote }) => client::context::context(args, &remote),
            Self::Api(WithRemote { args, remote }) => client::list::show(&args, &remote),
            Self::Ctl(WithRemote { args, remote }) => client::ctl::ctl(&args, &remote),
            Self::Man(args) => man::man(&args, Cli::command()),
        }
    }
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
