//! A vhost as a graph: what is there, what leads where, and how much goes along it. Made for drawing; lists have more of each thing.
//!
//! Nodes are exchanges, queues and connections that publish or consume; their ids say the kind and the name. Bindings between the same two are one edge. The
//! binding of each queue to the default exchange is left out unless something goes along it. What an edge leads to may be missing: dead letters may go to an
//! exchange that nobody has declared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use plugin_api::exchange::DestinationKind;
use serde_json::{Map, Value as Json, json};

use super::super::bindings::properties_key;
use super::super::call::{Answer, Call};
use super::super::connections::may_see;
use super::super::reply::Reply;
use super::super::stats;
use crate::hooks::Scope;
use crate::metrics::connections::Opened;
use crate::metrics::exchanges::ExchangeStat;
use crate::metrics::read::Reader;
use crate::routing::Exchange;
use crate::vhost::policy::QueueType;
use crate::vhost::{QueueRecord, Vhost};

pub(in super::super) fn graph(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let reader = stats::reader(call)?;
    let mut graph = Graph::default();
    let mut queues = vhost.queues();
    queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut exchanges = vhost.exchanges();
    exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let names: HashMap<u64, &Arc<str>> = queues.iter().map(|queue| (queue.number, &queue.name)).collect();
    for exchange in &exchanges {
        graph.add_exchange(&reader, exchange);
        graph.add_bindings(exchange);
        for (queue, publish, rate) in exchange.stats.to_queues() {
            let Some(queue) = names.get(&queue).filter(|_| publish > 0) else { continue };
            let edge = graph.binding(&exchange.name, DestinationKind::Queue, queue);
            stats::put_rate(edge, "publish", publish, rate);
        }
    }
    for queue in &queues {
        graph.add_queue(&reader, queue);
    }
    graph.add_clients(call, &reader, &vhost, &names);
    Ok(Reply::ok(json!({
        "vhost": vhost.name.as_ref(),
        "nodes": graph.nodes.into_values().collect::<Vec<_>>(),
        "edges": graph.edges.into_values().collect::<Vec<_>>(),
        "hooks": hooks(call, &vhost),
    })))
}

/// Both in the order of their names.
#[derive(Default)]
struct Graph {
    nodes: BTreeMap<String, Json>,
    /// By kind and ends.
    edges: BTreeMap<(&'static str, String, String), Map<String, Json>>,
}

fn exchange_id(name: &str) -> String {
    format!("exchange/{name}")
}

fn queue_id(name: &str) -> String {
    format!("queue/{name}")
}

impl Graph {
    fn edge(&mut self, kind: &'static str, from: String, to: String) -> &mut Map<String, Json> {
        self.edges.entry((kind, from.clone(), to.clone())).or_insert_with(|| {
            let ends = [("kind", json!(kind)), ("from", json!(from)), ("to", json!(to))];
            ends.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
        })
    }

    fn binding(&mut self, exchange: &str, kind: DestinationKind, destination: &str) -> &mut Map<String, Json> {
        let to = match kind {
            DestinationKind::Queue => queue_id(destination),
            DestinationKind::Exchange => exchange_id(destination),
        };
        self.edge("binding", exchange_id(exchange), to)
    }

    fn add_exchange(&mut self, reader: &Reader<'_>, exchange: &Arc<Exchange>) {
        let (spec, facts) = (&exchange.spec, reader.exchange(exchange));
        let mut rates = Map::new();
        stats::put(&mut rates, "publish_in", facts.get(ExchangeStat::PublishIn));
        stats::put(&mut rates, "publish_out", facts.get(ExchangeStat::PublishOut));
        let id = exchange_id(&exchange.name);
        let node = json!({
            "id": id, "kind": "exchange", "name": spec.name, "type": spec.kind, "durable": spec.durable,
            "internal": spec.internal, "message_stats": rates,
        });
        self.nodes.insert(id, node);
        if let Some(alternate) = exchange.alternate() {
            self.edge("alternate", exchange_id(&exchange.name), exchange_id(&alternate));
        }
    }

    fn add_bindings(&mut self, exchange: &Exchange) {
        for binding in exchange.bindings() {
            let shown = json!({
                "routing_key": binding.routing_key,
                "properties_key": properties_key(&binding.routing_key, &binding.arguments),
            });
            let edge = self.binding(&exchange.name, binding.destination_kind, &binding.destination);
            if let Some(all) = edge.entry("bindings").or_insert_with(|| json!([])).as_array_mut() {
                all.push(shown);
            }
        }
    }

    fn add_queue(&mut self, reader: &Reader<'_>, queue: &Arc<QueueRecord>) {
        let id = queue_id(&queue.name);
        let mut node = Map::new();
        let mut put = |key: &str, value: Json| node.insert(key.to_owned(), value);
        put("id", json!(id));
        put("kind", json!("queue"));
        put("name", json!(queue.name.as_ref()));
        put("type", json!(QueueType::of(&queue.arguments).name()));
        put("durable", json!(queue.durable));
        put("exclusive", json!(queue.owner.is_some()));
        if let Some(facts) = reader.queue(queue) {
            put("consumers", json!(facts.report.consumers));
            put("state", json!(facts.state()));
            for (at, name) in ["messages", "messages_ready", "messages_unacknowledged"].into_iter().enumerate() {
                stats::put(&mut node, name, facts.lengths.get(at));
            }
            if let Some(rates) = stats::message_stats(&facts.message_stats, stats::Of::Queue) {
                node.insert("message_stats".to_owned(), rates);
            }
        }
        self.nodes.insert(id.clone(), Json::Object(node));
        let target = queue.settings.read().dead_letter.clone();
        if let Some(target) = target {
            let edge = self.edge("dead_letter", id, exchange_id(&target.exchange));
            edge.insert("routing_key".to_owned(), json!(target.routing_key.as_deref()));
        }
    }

    /// Those that the caller may see.
    fn add_clients(&mut self, call: &Call, reader: &Reader<'_>, vhost: &Vhost, queues: &HashMap<u64, &Arc<str>>) {
        for channel in reader.channels() {
            let Some(opened) = channel.opened().filter(|opened| is_shown(call, vhost, opened)) else { continue };
            for to in reader.publishes(&channel) {
                let (id, number) = (self.connection(opened), to.stats.get(0));
                add_publish(self.edge("publish", id, exchange_id(&to.exchange)), number.value, number.rate);
            }
        }
        for (queue, name) in queues {
            for consumer in reader.consumers_of(*queue) {
                let Some(opened) = consumer.opened().filter(|opened| is_shown(call, vhost, opened)) else { continue };
                let id = self.connection(opened);
                let edge = self.edge("consume", queue_id(name), id);
                let shown = json!({
                    "consumer_tag": consumer.facts.tag, "channel": consumer.channel,
                    "prefetch_count": consumer.facts.prefetch_count, "active": consumer.active,
                });
                if let Some(all) = edge.entry("consumers").or_insert_with(|| json!([])).as_array_mut() {
                    all.push(shown);
                }
            }
        }
    }

    /// The id of a connection, which is a node from here on.
    fn connection(&mut self, opened: &Opened) -> String {
        let id = format!("connection/{}", opened.name);
        self.nodes.entry(id.clone()).or_insert_with(|| {
            let client = opened.client_name.as_deref();
            json!({
                "id": id, "kind": "connection", "name": opened.name.as_ref(), "user": opened.user.as_ref(),
                "user_provided_name": client,
            })
        });
        id
    }
}

/// Adds to what goes along an edge: several channels of a connection are one.
fn add_publish(edge: &mut Map<String, Json>, value: u64, rate: f64) {
    let before = edge.get("publish").and_then(Json::as_u64).unwrap_or(0);
    let rate_before = edge.get("publish_details").and_then(|details| details.get("rate")?.as_f64()).unwrap_or(0.0);
    stats::put_rate(edge, "publish", before + value, rate_before + rate);
}

fn is_shown(call: &Call, vhost: &Vhost, opened: &Opened) -> bool {
    *opened.vhost == *vhost.name && may_see(call, opened)
}

/// Hooks that something in the vhost passes: of the broker, the vhost, an exchange or a queue, with the id of the node where it is one.
fn hooks(call: &Call, vhost: &Vhost) -> Vec<Json> {
    let mut seen = BTreeSet::new();
    let all = call.broker().hooks.status();
    let here = all.iter().filter_map(|hook| {
        let (scope, node) = match &hook.scope {
            Scope::Broker => ("broker", None),
            Scope::Vhost(name) if **name == *vhost.name => ("vhost", None),
            Scope::Exchange { vhost: of, exchange } if **of == *vhost.name => ("exchange", Some(exchange_id(exchange))),
            Scope::Queue { vhost: of, queue } if **of == *vhost.name => ("queue", Some(queue_id(queue))),
            Scope::Vhost(_) | Scope::Exchange { .. } | Scope::Queue { .. } => return None,
        };
        let point = hook.point.function();
        seen.insert((hook.name.clone(), point))
            .then(|| json!({ "name": hook.name, "point": point, "scope": scope, "node": node, "shadow": hook.shadow }))
    });
    here.collect()
}
