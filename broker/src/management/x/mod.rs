//! What RabbitMQ does not have, under `/api/x/`: what happens as it happens, why a message goes where it goes, how plugins and hooks fare, looking into a queue without
//! changing anything, a vhost as a graph, moving messages from one queue to another, and topology files: what they would change, and changing it;
//! and the watermarks of the alarms.

pub(super) mod alarms;
pub(super) mod browse;
pub(super) mod events;
pub(super) mod graph;
pub(super) mod hooks;
pub(super) mod plugins;
pub(super) mod route;
pub(super) mod shift;
pub(super) mod topology;
