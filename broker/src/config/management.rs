//! `management`: the HTTP API.

use std::net::SocketAddr;

use super::address::parse_listen_at;
use super::reader::{Hint, Reader, Section};
use super::tls;
use super::yaml::{Node, Plain, Value};
use crate::topology::schema::{MANAGEMENT_PORT, MANAGEMENT_TLS_PORT, Topology};

pub(super) const MANAGEMENT: Section = Section {
    what: "management",
    keys: &[
        "listen",
        "listen_tls",
        "tls",
        "cors_allow_origins",
        "cors_max_age_secs",
        "body_bytes_max",
        "path_prefix",
        "hsts",
        "csp",
    ],
    hints: &[
        ("port", Hint::Instead("did you mean 'listen'? It takes ADDR:PORT")),
        ("address", Hint::Instead("did you mean 'listen'?")),
        ("http", Hint::Instead("did you mean 'listen'?")),
        ("https", Hint::Instead("did you mean 'listen_tls'?")),
        ("ssl", Hint::Instead("did you mean 'tls'?")),
    ],
};

/// What switches the API off.
const OFF: &str = "off";

/// A day is longer than any browser remembers.
const CORS_MAX_AGE_SECS: std::ops::RangeInclusive<u64> = 0..=86_400;

/// Definitions of a large broker have tens of megabytes.
const BODY_BYTES_MAX: std::ops::RangeInclusive<u64> = 1024..=256 * 1024 * 1024;

/// A mapping, or `off`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    if is_off(node) {
        topology.management.listen.clear();
        return;
    }
    let Some(fields) = reader.fields(node, &MANAGEMENT) else { return };
    if let Some(node) = fields.get("listen") {
        listen_at(reader, node, MANAGEMENT_PORT, &mut topology.management.listen);
    }
    if let Some(node) = fields.get("listen_tls") {
        listen_at(reader, node, MANAGEMENT_TLS_PORT, &mut topology.management.listen_tls);
    }
    topology.management.tls = tls::of_section(reader, &fields, &topology.management.listen_tls, topology.tls.as_ref());
    if let Some(node) = fields.get("cors_allow_origins") {
        let origins = reader.items(node).iter().filter_map(|item| {
            let text = reader.text(item)?;
            if text == "*" || text.starts_with("http://") || text.starts_with("https://") {
                return Some(text.trim_end_matches('/').to_owned());
            }
            reader.error(
                item.span,
                format!("'{text}' is not an origin"),
                "write it as https://HOST or https://HOST:PORT",
            );
            None
        });
        topology.management.cors_allow_origins = origins.collect();
    }
    if let Some(prefix) = fields.get("path_prefix").and_then(|node| path_prefix(reader, node)) {
        topology.management.path_prefix = prefix;
    }
    topology.management.hsts = fields.get("hsts").and_then(|node| header(reader, node));
    topology.management.csp = fields.get("csp").and_then(|node| header(reader, node));
    if let Some(seconds) = fields.get("cors_max_age_secs").and_then(|node| reader.number(node, CORS_MAX_AGE_SECS)) {
        topology.management.cors_max_age_secs = u32::try_from(seconds).unwrap_or(u32::MAX);
    }
    if let Some(bytes) = fields.get("body_bytes_max").and_then(|node| reader.size(node, BODY_BYTES_MAX)) {
        topology.management.body_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
}

/// A prefix as it is compared: without a slash at the end.
fn path_prefix(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    let prefix = text.trim_end_matches('/');
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if (!prefix.is_empty() && !prefix.starts_with('/')) || prefix.contains("//") || !prefix.bytes().all(is_kept) {
        let help = "write it as /NAME, of letters, digits, '-', '.', '_' and '~'";
        reader.error(node.span, format!("'{text}' cannot stand before paths"), help);
        return None;
    }
    Some(prefix.to_owned())
}

/// What may be the value of a header.
fn header(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    if text.is_empty() || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        reader.error(node.span, "not the value of a header", "write one line of printable ASCII");
        return None;
    }
    Some(text)
}

/// Where something other than AMQP is served: an address, a list, or `off`.
pub(super) fn listen_at(reader: &mut Reader<'_>, node: &Node, port: u16, addresses: &mut Vec<SocketAddr>) {
    if node.is_null() {
        let instead = format!("write ADDR:PORT, off, or leave 'listen' out for port {port} of this machine");
        return reader.wrong(node, "an address", &instead);
    }
    addresses.clear();
    if is_off(node) {
        return;
    }
    for item in reader.items(node) {
        let Some(text) = reader.text(item) else { continue };
        match parse_listen_at(&text, port) {
            Ok(address) if address.port() != 0 && addresses.contains(&address) => {
                reader.error(item.span, format!("listener {address} is declared twice"), "remove one");
            }
            Ok(address) => addresses.push(address),
            Err(error) => reader.error(item.span, error, "write ADDR:PORT, PORT for all interfaces, or off"),
        }
    }
}

/// Other YAML readers take the word for `false`, so that is understood, too.
pub(super) fn is_off(node: &Node) -> bool {
    match (node.plain(), &node.value) {
        (Some(Plain::Bool(false)), _) => true,
        (_, Value::Scalar(scalar)) => scalar.text == OFF,
        _ => false,
    }
}
