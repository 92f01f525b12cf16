//! The broker as a library: the module map, and what tests may use.

pub mod access;
pub mod amqp;
pub mod cli;
pub mod config;
pub mod dry_run;
pub mod events;
pub mod hooks;
pub mod management;
pub mod message;
pub mod metrics;
pub mod node;
pub mod origin;
pub mod plugin_host;
pub mod progress;
pub mod queue;
pub mod routing;
pub mod runtime;
pub mod store;
pub mod tls;
pub mod topology;
pub mod vhost;
pub mod window;
