//! Joining the machines: connections, queues and the store, on tokio.
//!
//! [`Session`] joins a connection machine with the vhost and is still without a socket; [`connection_task`] gives it one. [`QueueShell`] lets
//! whoever posts to a queue run it. Everything asynchronous on the message path stands here.

pub mod alarms;
pub mod broker;
pub mod broker_exchanges;
pub mod buffers;
pub mod census;
pub mod clock;
pub mod connection_task;
mod dead_letters;
pub mod disk;
pub mod entropy;
mod errands;
pub mod hands;
pub mod holder;
pub mod listener;
pub mod mailbox;
pub mod paging;
mod passage;
pub mod process;
pub mod proxy_protocol;
pub mod queue_shell;
pub mod quiet;
pub mod sampler;
pub mod session;
pub mod timer;
pub mod transactions;
pub mod trim;

pub use broker::Broker;
pub use clock::Clock;
pub use mailbox::Mailbox;
pub use paging::Paging;
pub use queue_shell::{QueueShell, Shells};
pub use session::Session;
pub use timer::Timer;
