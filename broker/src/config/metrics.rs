//! `metrics`: what Prometheus scrapes.

use super::management::{is_off, listen_at};
use super::reader::{Hint, Reader, Section};
use super::tls;
use super::yaml::Node;
use crate::topology::schema::{METRICS_PORT, METRICS_TLS_PORT, Topology};

pub(super) const METRICS: Section = Section {
    what: "metrics",
    keys: &["listen", "listen_tls", "tls", "per_object"],
    hints: &[
        ("port", Hint::Instead("did you mean 'listen'? It takes ADDR:PORT")),
        ("address", Hint::Instead("did you mean 'listen'?")),
        ("return_per_object_metrics", Hint::Instead("did you mean 'per_object'?")),
        ("https", Hint::Instead("did you mean 'listen_tls'?")),
        ("ssl", Hint::Instead("did you mean 'tls'?")),
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
    if let Some(node) = fields.get("listen_tls") {
        listen_at(reader, node, METRICS_TLS_PORT, &mut topology.metrics.listen_tls);
    }
    topology.metrics.tls = tls::of_section(reader, &fields, &topology.metrics.listen_tls, topology.tls.as_ref());
    if let Some(node) = fields.get("per_object") {
        topology.metrics.per_object = reader.flag(node).unwrap_or(false);
    }
}
