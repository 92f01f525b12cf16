//! The management HTTP API: what RabbitMQ serves on port 15672, for the tools that are written for it.
//!
//! [`endpoints`] is the one table of paths, methods and who may call them; [`guard`] judges by it who does, [`dispatch`] carries a request through
//! in RabbitMQ's order of checks, and each resource has a file of its own. Changes go through the entries that AMQP uses (`vhost::declare`,
//! `access::changes`, policies, the registry of vhosts) with the calling user's permissions. Nothing here is on the way of a message, and nothing
//! walks messages to answer a list.

mod bindings;
mod body;
mod call;
mod connections;
mod cors;
mod definitions;
mod dispatch;
mod effective;
mod endpoints;
mod errors;
mod exchanges;
mod features;
mod guard;
mod health;
mod help;
mod limits;
mod lists;
mod login;
mod messages;
mod multipart;
mod nodes;
mod outlet;
mod overview;
mod parameters;
mod paths;
mod permissions;
mod policies;
pub mod prometheus;
mod queues;
mod reply;
mod server;
mod stats;
mod unread;
mod users;
mod vhosts;
mod x;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use self::endpoints::Routes;
use self::prometheus::Pages;
pub use self::server::serve;
use crate::runtime::Broker;
use crate::tls::Server;
use crate::topology::schema::ManagementDecl;

/// What the API serves, and how.
#[derive(Debug)]
pub struct Management {
    broker: Arc<Broker>,
    decl: ManagementDecl,
    node: NodeFacts,
    routes: Routes,
    /// What Prometheus may scrape here, too.
    pages: Arc<Pages>,
}

/// A listener of the node.
#[derive(Clone, Debug)]
pub struct Listener {
    /// As RabbitMQ names it: `amqp`, `amqp/ssl`, `http`, `https`, `http/prometheus` or `https/prometheus`.
    pub protocol: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Its certificate.
    pub tls: Option<Arc<Server>>,
}

impl Listener {
    /// Whether what is listened for is this, plain or with TLS.
    fn is_for(&self, plain: &str, encrypted: &str) -> bool {
        self.protocol == plain || self.protocol == encrypted
    }

    fn is_amqp(&self) -> bool {
        self.is_for("amqp", "amqp/ssl")
    }

    fn is_http(&self) -> bool {
        self.is_for("http", "https")
    }
}

/// What is known of the node from its start.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Everything that listens.
    pub listeners: Vec<Listener>,
    /// How it serves metrics.
    pub metrics_per_object: bool,
    /// The data folder, if there is one.
    pub data: Option<PathBuf>,
    /// The topology file, if there is one.
    pub topology: Option<PathBuf>,
    /// [`crate::topology::settings::settings`].
    pub settings: serde_json::Value,
}

/// Every method of every path below `/api`, with the names of its parts in braces.
pub fn operations() -> impl Iterator<Item = (&'static str, &'static str)> {
    endpoints::TABLE.iter().flat_map(|endpoint| endpoint.verbs().map(|verb| (verb.name(), endpoint.path)))
}

impl Management {
    /// An API for this broker.
    pub fn new(broker: Arc<Broker>, decl: ManagementDecl, node: NodeFacts) -> Arc<Self> {
        let pages = Pages::new(Arc::clone(&broker), node.metrics_per_object);
        Arc::new(Self { broker, decl, node, routes: Routes::new(endpoints::TABLE), pages })
    }

    /// The node's name as tools expect one: `NAME@HOST`.
    fn node_name(&self) -> String {
        node_name(&self.broker.identity.cluster_name)
    }
}

/// The name of the node of a cluster, as tools expect one: `NAME@HOST`.
pub(crate) fn node_name(cluster_name: &str) -> String {
    nodes::name(cluster_name)
}
