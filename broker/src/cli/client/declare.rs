//! `broker declare`: queues, exchanges and bindings.

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use serde_json::json;

use super::http::{Failure, exchange, path};
use super::{InVhost, Remote, complete, table, tell, with_api};

#[derive(Debug, Args)]
pub(in crate::cli) struct DeclareArgs {
    #[command(subcommand)]
    what: Declare,
}

#[derive(Debug, Subcommand)]
enum Declare {
    /// A queue; nothing happens when it is there with the same properties
    Queue {
        name: String,
        #[command(flatten)]
        vhost: InVhost,
        /// Gone when the broker ends, with its messages
        #[arg(long)]
        transient: bool,
        /// Deleted when its last consumer leaves
        #[arg(long)]
        auto_delete: bool,
        /// Another type of queue than the vhost's own
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// An argument, such as x-message-ttl=60000; values are JSON or text
        #[arg(short, long = "argument", value_name = "NAME=VALUE")]
        arguments: Vec<String>,
    },
    /// An exchange; nothing happens when it is there with the same properties
    Exchange {
        name: String,
        #[command(flatten)]
        vhost: InVhost,
        /// Its type: direct, fanout, topic, headers, or a plugin's
        #[arg(long = "type", value_name = "TYPE", default_value = "direct")]
        kind: String,
        /// Gone when the broker ends
        #[arg(long)]
        transient: bool,
        /// Deleted when its last binding goes
        #[arg(long)]
        auto_delete: bool,
        /// Clients cannot publish to it
        #[arg(long)]
        internal: bool,
        /// An argument, such as alternate-exchange=unrouted
        #[arg(short, long = "argument", value_name = "NAME=VALUE")]
        arguments: Vec<String>,
    },
    /// A binding from an exchange to a queue or another exchange
    Binding(BindingArgs),
}

/// Which binding.
#[derive(Debug, Args)]
pub(in crate::cli) struct BindingArgs {
    /// The exchange that messages come from
    #[arg(add = ArgValueCompleter::new(complete::exchanges))]
    pub(super) source: String,
    /// Where they go
    #[arg(add = ArgValueCompleter::new(complete::queues))]
    pub(super) destination: String,
    #[command(flatten)]
    pub(super) vhost: InVhost,
    /// What the destination is
    #[arg(long, value_enum, default_value_t)]
    pub(super) to: Destination,
    /// The routing key
    #[arg(short, long, value_name = "KEY", default_value = "")]
    pub(super) key: String,
    /// An argument, such as x-match=all
    #[arg(short, long = "argument", value_name = "NAME=VALUE")]
    pub(super) arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Destination {
    #[default]
    Queue,
    Exchange,
}

impl BindingArgs {
    /// All bindings between the two.
    pub(super) fn path(&self, vhost: &str) -> String {
        let (kind, destination) = match self.to {
            Destination::Queue => ("q", self.destination.as_str()),
            Destination::Exchange => ("e", exchange(&self.destination)),
        };
        path("bindings", &[vhost, "e", exchange(&self.source), kind, destination])
    }
}

pub(in crate::cli) fn declare(args: &DeclareArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        match &args.what {
            Declare::Queue { name, vhost, transient, auto_delete, kind, arguments } => {
                let mut arguments = table(arguments)?;
                if let Some(kind) = kind {
                    arguments.insert("x-queue-type".to_owned(), json!(kind));
                }
                let body = json!({"durable": !transient, "auto_delete": auto_delete, "arguments": arguments});
                api.put(&path("queues", &[vhost.name(api), name]), &body)?;
            }
            Declare::Exchange { name, vhost, kind, transient, auto_delete, internal, arguments } => {
                let arguments = table(arguments)?;
                let body = json!({"type": kind, "durable": !transient, "auto_delete": auto_delete, "internal": internal,
                    "arguments": arguments});
                api.put(&path("exchanges", &[vhost.name(api), name]), &body)?;
            }
            Declare::Binding(binding) => {
                let body = json!({"routing_key": binding.key, "arguments": table(&binding.arguments)?});
                api.post(&binding.path(binding.vhost.name(api)), &body)?;
            }
        }
        Ok::<u8, Failure>(tell("declared"))
    })
}
