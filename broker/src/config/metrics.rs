//! `metrics`: what Prometheus scrapes.

use super::management::{is_off, listen_at};
use super::reader::{Hint, Reader, Section};
use super::yaml::Node;
use crate::topology::schema::{METRICS_PORT, Topology};

pub(super) const METRICS: Section = Section {
    what: "metrics",
    keys: &["listen", "per_object"],
    hints: &[
        ("port", Hint::Instead("did you mean 'listen'? It takes ADDR:PORT")),
        ("address", Hint::Instead("did you mean 'listen'?")),
        ("return_per_object_metrics", Hint::Instead("did you mean 'per_object'?")),
        ("tls", Hint::NotYet),
    ],
};

/// A mapping, or `off`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    if is_off(node) {
        topology.metrics.listen.clear();
        return;
    }
    let Some(fields) = reader.fields(node, &METRICS) else { return };
    if let Some(node) = fields.get("listen") {
        listen_at(reader, node, METRICS_PORT, &mut topology.metrics.listen);
    }
    if let Some(node) = fields.get("per_object") {
        topology.metrics.per_object = reader.flag(node).unwrap_or(false);
    }
}
