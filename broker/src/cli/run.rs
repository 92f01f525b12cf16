//! `broker`: runs the broker until it is told to stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{exit, logging};
use crate::{
    config::{self, Diagnostic, parse_listen, parse_listen_at},
    node::{self, End, NodeOptions, apply_file},
    plugin_host::Registry,
    runtime::trim,
    topology::{
        check::Types,
        schema::{DefinitionsDecl, MANAGEMENT_PORT, METRICS_PORT, Topology},
    },
};

/// Everything that can be said without a topology file.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// YAML file that declares users, vhosts, exchanges, queues, bindings, plugins, hooks, listeners and limits
    #[arg(long, value_name = "FILE", env = "BROKER_TOPOLOGY")]
    pub(super) topology: Option<PathBuf>,

    /// Listen for AMQP here instead of where the topology says; may be given several times
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "BROKER_LISTEN",
        value_delimiter = ',',
        value_parser = parse_listen,
        long_help = "Listen for AMQP here instead of where the topology says; may be given several times.\n\n\
                     ADDR:PORT, :PORT or PORT for all interfaces, localhost:PORT, or an address alone for port 5672. Port 0 \
                     takes a free one, which the log then names. In the environment variable, commas separate several."
    )]
    pub(super) listen: Vec<SocketAddr>,

    /// Serve the management API here instead of where the topology says, or "off"; may be given several times
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "BROKER_HTTP",
        value_delimiter = ',',
        value_parser = parse_http,
        long_help = "Serve the management API here instead of where the topology says; may be given several times.\n\n\
                     ADDR:PORT, :PORT or PORT for all interfaces, localhost:PORT, or an address alone for port 15672. Port 0 \
                     takes a free one, which the log then names; 'off' serves it nowhere. Without this and without a topology \
                     it is served on port 15672 to this machine only."
    )]
    pub(super) http: Vec<Http>,

    /// Serve metrics for Prometheus here instead of where the topology says, or "off"; may be given several times
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "BROKER_METRICS",
        value_delimiter = ',',
        value_parser = parse_metrics,
        long_help = "Serve metrics for Prometheus here instead of where the topology says; may be given several times.\n\n\
                     ADDR:PORT, :PORT or PORT for all interfaces, localhost:PORT, or an address alone for port 15692. Port 0 \
                     takes a free one, which the log then names; 'off' serves them nowhere. Without this and without a \
                     topology they are served on port 15692 to this machine only."
    )]
    pub(super) metrics: Vec<Http>,

    /// Folder for what has to survive a restart; replaces the one that the topology names
    #[arg(long, value_name = "DIR", env = "BROKER_DATA")]
    pub(super) data: Option<PathBuf>,

    /// Import these definitions of a RabbitMQ at the start, a file or a folder of .json files, instead of those that the topology names
    #[arg(long, value_name = "FILE|DIR", env = "BROKER_DEFINITIONS")]
    pub(super) definitions: Option<PathBuf>,

    /// Load every plugin in this folder; may be given several times
    #[arg(
        long,
        value_name = "DIR",
        env = "BROKER_PLUGIN_DIR",
        value_delimiter = ':',
        long_help = "Load every plugin in this folder; may be given several times.\n\n\
                     In the environment variable, colons separate several. Plugins that the topology names are loaded, too."
    )]
    pub(super) plugin_dir: Vec<PathBuf>,

    /// What to log: error, warn, info, debug, trace, off, or directives such as info,broker::queue=debug
    #[arg(long, value_name = "LEVEL", env = "BROKER_LOG", default_value = "info", value_parser = logging::check_filter)]
    pub(super) log: String,
}

/// The variables of RabbitMQ's container image that name the first user and vhost.
const DEFAULTS: [&str; 3] = ["RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS", "RABBITMQ_DEFAULT_VHOST"];

/// Where something that speaks HTTP is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Http {
    Off,
    At(SocketAddr),
}

fn parse_http(text: &str) -> Result<Http, String> {
    parse_at(text, MANAGEMENT_PORT)
}

fn parse_metrics(text: &str) -> Result<Http, String> {
    parse_at(text, METRICS_PORT)
}

fn parse_at(text: &str, default_port: u16) -> Result<Http, String> {
    match text {
        "off" => Ok(Http::Off),
        text => parse_listen_at(text, default_port).map(Http::At),
    }
}

/// None where nothing was said of it; `off` beside addresses says nothing.
fn http_addresses(given: &[Http]) -> Option<Vec<SocketAddr>> {
    let address = |http: &Http| match http {
        Http::At(address) => Some(*address),
        Http::Off => None,
    };
    (!given.is_empty()).then(|| given.iter().filter_map(address).collect())
}

/// Runs the broker; the exit code says why it ended.
pub(super) fn run(args: RunArgs) -> u8 {
    logging::start(&args.log);
    let topology = match args.topology.as_deref().map(|file| load(file, &args.plugin_dir)).transpose() {
        Ok(topology) => topology.unwrap_or_default(),
        Err(code) => return code,
    };
    let definitions = args.definitions;
    let topology = completed(topology, definitions.clone());
    let reload = args.topology.clone().map(|file| {
        let plugin_dirs = args.plugin_dir.clone();
        apply_file::Source(Box::new(move || {
            let lines = |diagnostics: &[Diagnostic]| diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>();
            let topology = read(&file, &plugin_dirs).map_err(|diagnostics| lines(&diagnostics))?;
            Ok(completed(topology, definitions.clone()))
        }))
    });
    let options = NodeOptions {
        topology,
        listen: args.listen,
        http: http_addresses(&args.http),
        metrics: http_addresses(&args.metrics),
        topology_file: args.topology,
        data: args.data,
        plugin_dirs: args.plugin_dir,
        reload,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_park(trim::on_park).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("broker: the threads of the broker cannot be started: {error}; check the limits of this account");
            return exit::OS;
        }
    };
    match runtime.block_on(node::run(options)) {
        Ok(End::Closed) => exit::OK,
        Ok(End::Recovering | End::Stuck) => {
            runtime.shutdown_background();
            exit::OK
        }
        Err(error) => {
            eprintln!("broker: {error}");
            // A storage that failed may not give its threads back either.
            runtime.shutdown_timeout(THREADS_DEADLINE);
            error.exit_code()
        }
    }
}

/// For threads that are at something when the broker has failed.
const THREADS_DEADLINE: Duration = Duration::from_secs(5);

/// The topology with what the environment and the command line say beside the file.
fn completed(mut topology: Topology, definitions: Option<PathBuf>) -> Topology {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let [user, password, vhost] = DEFAULTS.map(variable);
    if !topology.set_defaults(user.as_deref(), password.as_deref(), vhost.as_deref()) {
        tracing::warn!(
            "RABBITMQ_DEFAULT_USER, _PASS or _VHOST is ignored, because the topology declares users or vhosts"
        );
    }
    if let Some(path) = definitions {
        let skip_if_unchanged = topology.definitions.is_some_and(|decl| decl.skip_if_unchanged);
        topology.definitions = Some(DefinitionsDecl { path, skip_if_unchanged });
    }
    topology
}

/// The topology of a file. Mistakes are printed as they are, not logged: people read them.
fn load(path: &Path, plugin_dirs: &[PathBuf]) -> Result<Topology, u8> {
    read(path, plugin_dirs).map_err(|diagnostics| refuse(&diagnostics))
}

/// The topology of a file, or its mistakes.
fn read(path: &Path, plugin_dirs: &[PathBuf]) -> Result<Topology, Vec<Diagnostic>> {
    let loaded = config::load(path, &|name| std::env::var(name).ok())?;
    // With plugins the node checks the types, when it knows them.
    if loaded.topology.plugins.is_empty() && plugin_dirs.is_empty() {
        let registry = Registry::builtin().map_err(|error| vec![loaded.error_of_file(&error.to_string())])?;
        let mut diagnostics = loaded.check_exchange_types(&registry.exchange_type_names());
        diagnostics.extend(loaded.judge_exchanges(&registry, Types::All));
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
    }
    for warning in &loaded.warnings {
        tracing::warn!(
            file = %warning.path.display(),
            line = warning.line,
            column = warning.column,
            help = %warning.help,
            "{}",
            warning.cause
        );
    }
    Ok(loaded.topology)
}

fn refuse(diagnostics: &[Diagnostic]) -> u8 {
    for diagnostic in diagnostics {
        eprintln!("{diagnostic}");
    }
    eprintln!("broker: not started, because the topology has mistakes; 'broker check' shows them without starting");
    super::check::exit_code(diagnostics)
}
