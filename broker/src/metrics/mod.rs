//! Statistics: what is counted, how it is summed, and what may be read of it.
//!
//! Counting must cost the message path nothing that could be measured. Each counter has one writer: a connection counts what it publishes
//! and delivers in cells that only its task writes ([`cells`]), once for each batch; a queue counts in plain fields of its machine
//! ([`crate::queue::Counts`]), which are copied out only when somebody asks. Sums are made by whoever reads. What a connection
//! counted stays in the sums when it ends ([`connections`]), so those never go down.
//!
//! Rates come from samples: [`sampler`](crate::runtime::sampler) looks at everything each five seconds, and each object keeps what
//! was seen of it ([`history`]). The answers to people and tools are made in [`read`], as plain values without JSON.
//!
//! Nothing here knows a socket. What belongs to one connection, channel, exchange or queue lives and ends with it, so closed objects are
//! never seen in an answer.

pub mod cells;
pub mod connections;
pub mod exchanges;
pub mod history;
pub mod logins;
pub mod node;
pub mod prometheus;
pub mod queues;
pub mod read;
pub mod sizes;
pub mod stats;

pub use self::cells::Cells;
pub use self::connections::{ChannelStats, ConnectionStats, Connections};
pub use self::exchanges::ExchangeStats;
pub use self::history::{History, Range, Rate, Sampled};
pub use self::node::Metrics;
pub use self::queues::{QueueHistory, QueueStats};
pub use self::stats::{MessageStats, Stat, Total, Totals};
