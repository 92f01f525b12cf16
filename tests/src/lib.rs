//! The harness that the test suites share: brokers and a RabbitMQ on free ports, connections that speak frames, and the
//! scenario engine. Nothing here decides what is right; scenario files and suites do.

pub mod broker_process;
pub mod certificates;
pub mod clock;
pub mod crash;
pub mod event_stream;
pub mod http;
pub mod machine;
pub mod oracle;
pub mod scenario;
pub mod soak;
pub mod temp;
pub mod transport;
pub mod wire;
