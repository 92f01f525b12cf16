//! `broker bench`: what a broker of AMQP 0-9-1 can do, measured from outside.
//!
//! It knows nothing of the broker but its address, so that RabbitMQ, LavinMQ and this one are measured by the same means; given process
//! ids, it also reads CPU time and memory from /proc. The generator encodes messages by the project's own codec, one thread drives all
//! connections by epoll, and every message is checked: nothing lost, nothing twice, in order.
//!
//! [`flow`] declares and connects, [`worker`] is the thread, [`publisher`] and [`consumer`] are its pure halves, [`ledger`] says what is
//! wrong, [`pace`] when messages are meant to leave.

mod client;
mod connections;
mod consumer;
mod error;
mod flow;
mod ledger;
mod link;
mod pace;
mod publisher;
mod report;
mod scenarios;
mod target;
mod template;
mod usage;
mod worker;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};

use self::error::BenchError;
use self::report::Report;
use self::target::Target;
use self::usage::Processes;
use super::client::Remote;
use super::client::http::Api;
use super::client::output::{Format, at};
use super::client::tls::TlsArgs;

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Debug)]
enum Scenario {
    /// Publish and consume as fast as it goes
    #[command(after_help = THROUGHPUT)]
    Throughput(flow::FlowArgs),
    /// Publish at a fixed rate, and look how long messages take
    #[command(after_help = LATENCY)]
    Latency(scenarios::LatencyArgs),
    /// Fill queues that nobody reads, then drain them
    Backlog(scenarios::BacklogArgs),
    /// Publish through an exchange with many bindings
    Routing(scenarios::RoutingArgs),
    /// Open many connections, and look what they take
    Connections(connections::ConnectionsArgs),
    /// Open and close connections, channels, queues or bindings over and over
    Churn(connections::ChurnArgs),
}

#[derive(Args, Clone, Debug)]
struct Common {
    /// The broker to measure; amqps is for TLS
    #[arg(
        long,
        value_name = "URL",
        env = "BROKER_AMQP_URL",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2F",
        hide_env_values = true,
        global = true,
        help_heading = "Broker"
    )]
    url: String,
    /// The certificates to trust, for amqps
    #[arg(long, value_name = "FILE", env = "BROKER_CA_FILE", global = true, help_heading = "Broker")]
    ca_file: Option<PathBuf>,
    /// Process ids of the broker, separated by commas, for its CPU time and memory; on this machine only
    #[arg(long, value_name = "PID", value_delimiter = ',', global = true, help_heading = "Broker")]
    broker_pid: Vec<u32>,
    /// The management API, for the memory of a broker elsewhere; as the user of --url
    #[arg(long, value_name = "URL", global = true, help_heading = "Broker")]
    management: Option<String>,
    /// How the result is written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, env = "BROKER_FORMAT", global = true)]
    format: Format,
}

pub(super) const LONG_ABOUT: &str = "\
Measure a broker of AMQP 0-9-1 from outside: this one, RabbitMQ or any other.

Start the broker on one core and the benchmark on another (taskset -c 0 …, taskset -c 1 broker bench …), and compare only what was measured \
side by side. With --broker-pid the broker's CPU time for each message is shown, which depends less on what else the machine does than rates do.

Bodies from 16 bytes on carry publisher, number and time, and at the end the 'verdict' says whether every message came, once and in \
order. Queues and exchanges are named bench-… and removed at the end; Ctrl-C ends a run early, with its result.

Exit code 0: measured. 1: messages were lost, doubled, out of order or refused. 64: the options make no sense. 69: no broker. 76: it has \
closed the connection. 77: it refuses user or vhost.";

const THROUGHPUT: &str = "\
Without --inflight and --confirm-window a fast publisher builds a backlog, and that is what is measured.

  broker bench throughput --size 16 --inflight 20000 --broker-pid $(pidof broker)
  broker bench throughput --persistent --confirm-window 1000 --ack-every 100 --prefetch 1000";

const LATENCY: &str = "\
Each message has its time by the rate alone, and its latency counts from that time: a broker that stalls cannot hide it by slowing the \
generator down. 'sent_late' is by how much the generator was late itself; it is part of the latency.";

/// Which broker is measured, and how it is looked at.
struct Setting {
    target: Target,
    processes: Processes,
    management: Option<Api>,
}

impl Setting {
    fn new(common: &Common) -> Result<Self, BenchError> {
        let target = Target::new(&common.url, common.ca_file.as_deref())?;
        let processes = Processes::new(&common.broker_pid);
        processes.usage()?;
        let remote = common.management.as_ref().map(|url| Remote {
            url: Some(url.clone()),
            user: Some(target.user.clone()),
            password: Some(target.password.clone()),
            tls: TlsArgs::trusting(common.ca_file.clone()),
            timeout: 60,
            ..Remote::default()
        });
        let management = remote.map(|remote| Api::new(&remote)).transpose();
        let management = management.map_err(|failure| BenchError::Usage(failure.to_string()))?;
        Ok(Self { target, processes, management })
    }

    fn report(&self, scenario: &'static str) -> Report {
        Report::new(scenario, &self.target.address())
    }

    /// What the broker says that all of its nodes use, in bytes.
    fn memory(&self) -> Result<Option<f64>, BenchError> {
        let Some(api) = &self.management else { return Ok(None) };
        let foreign = |reason: String| {
            BenchError::Foreign(format!("the management API does not say what memory is used: {reason}"))
        };
        let nodes = api.get("/nodes").map_err(|failure| foreign(failure.to_string()))?;
        let nodes = nodes.as_array().ok_or_else(|| foreign("no list of nodes".into()))?;
        Ok(Some(nodes.iter().filter_map(|node| at(node, "mem_used")?.as_f64()).sum()))
    }
}

pub(super) fn bench(args: &BenchArgs) -> u8 {
    match measure(args) {
        Ok(report) => report.print(args.common.format),
        Err(error) => {
            eprintln!("broker: {error}");
            error.exit_code()
        }
    }
}

fn measure(args: &BenchArgs) -> Result<Report, BenchError> {
    let setting = Setting::new(&args.common)?;
    watch_interrupt()?;
    match &args.scenario {
        Scenario::Throughput(args) => scenarios::throughput(&setting, args),
        Scenario::Latency(args) => scenarios::latency(&setting, args),
        Scenario::Backlog(args) => scenarios::backlog(&setting, args),
        Scenario::Routing(args) => scenarios::routing(&setting, args),
        Scenario::Connections(args) => connections::connections(&setting, args),
        Scenario::Churn(args) => connections::churn(&setting, args),
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody has asked for an end.
fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// The first Ctrl-C ends the run, the second one the process.
fn watch_interrupt() -> Result<(), BenchError> {
    let refused = |error: std::io::Error| BenchError::System(format!("Ctrl-C cannot be watched: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(refused)?;
    let watch = move || {
        runtime.block_on(async {
            let mut count = 0;
            while tokio::signal::ctrl_c().await.is_ok() {
                INTERRUPTED.store(true, Relaxed);
                count += 1;
                if count > 1 {
                    std::process::exit(130);
                }
            }
        });
    };
    std::thread::Builder::new().name("bench-signals".into()).spawn(watch).map(drop).map_err(refused)
}

/// A name that hardly any other run has, short as names of queues are, and a number of the same kind.
fn unique() -> (String, u16) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    // Two runs at a time differ in the process, two of a process in the time.
    let mixed = (now ^ u64::from(std::process::id()) << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (format!("bench-{:06x}", mixed >> 40), (mixed >> 24) as u16)
}
