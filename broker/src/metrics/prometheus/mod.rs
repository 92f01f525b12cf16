//! Everything that is counted, as Prometheus scrapes it, with RabbitMQ's names, types, labels and bounds, so that its dashboards and
//! alert rules work unchanged; and what only this broker has, under `broker_`.
//!
//! `/metrics` has sums over all objects, `/metrics/per-object` a series for each, `/metrics/detailed` chosen families,
//! `/metrics/memory-breakdown` what memory is used for. Who serves the pages is [`crate::management::prometheus`].
//!
//! Counters never go down while the process lives: sums of counters are those of all connections that ever were, not of objects
//! that are there now. Every series is there from the start, because a rate needs a first sample.

mod connections;
mod exchanges;
mod filter;
mod global;
mod node;
mod own;
mod queues;
mod text;

pub use self::filter::Filter;
use self::text::{Kind, Page, labels};
use super::read::{Ranges, Reader};
use crate::runtime::Broker;

/// Which page.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Sums over all objects.
    Aggregated,
    /// A series for each object.
    PerObject,
    /// Chosen families.
    Detailed(Filter),
    /// What memory is used for.
    MemoryBreakdown,
}

impl Scope {
    /// As `rabbitmq_identity_info` names it.
    const fn endpoint(&self) -> &'static str {
        match self {
            Self::Aggregated => "aggregated",
            Self::PerObject => "per-object",
            Self::Detailed(_) => "detailed",
            Self::MemoryBreakdown => "memory-breakdown",
        }
    }
}

/// Writes a page. It may take a while where there are many objects, so it belongs on a thread that may block.
pub fn page(broker: &Broker, scope: &Scope) -> String {
    let reader = Reader::new(broker, Ranges::default());
    let mut page = Page::new("rabbitmq_");
    match scope {
        Scope::Aggregated => {
            global::write(&mut page, &reader);
            node::write(&mut page, &reader);
            queues::write_sums(&mut page, &reader);
            connections::write_sums(&mut page, &reader);
            own::write(&mut page, &reader);
        }
        Scope::PerObject => {
            global::write(&mut page, &reader);
            node::write(&mut page, &reader);
            queues::write_each(&mut page, &reader);
            exchanges::write_each(&mut page, &reader);
            connections::write_each(&mut page, &reader);
            own::write(&mut page, &reader);
        }
        Scope::Detailed(filter) => filter::write(&mut page, &reader, filter),
        Scope::MemoryBreakdown => node::write_memory(&mut page, &reader),
    }
    page.set_prefix("rabbitmq_");
    write_identity(&mut page, broker, scope);
    page.into_text()
}

/// The two series that every dashboard joins with: exactly one of each on every page.
fn write_identity(page: &mut Page, broker: &Broker, scope: &Scope) {
    let identity = &broker.identity;
    let node = crate::management::node_name(&identity.cluster_name);
    page.family("identity_info", Kind::Untyped, "Which node and cluster this is.");
    let info = labels(&[
        ("rabbitmq_node", &node),
        ("rabbitmq_cluster", &broker.cluster_name()),
        ("rabbitmq_cluster_permanent_id", &permanent_id(&identity.cluster_name)),
        ("rabbitmq_endpoint", scope.endpoint()),
    ]);
    page.series(&info, 1_u64);
    page.family("build_info", Kind::Untyped, "Versions of what runs here.");
    let info = labels(&[
        ("rabbitmq_version", &identity.version),
        ("prometheus_plugin_version", &identity.version),
        ("prometheus_client_version", env!("CARGO_PKG_VERSION")),
        ("erlang_version", "none"),
        ("product_name", &identity.product),
        ("product_version", env!("CARGO_PKG_VERSION")),
    ]);
    page.series(&info, 1_u64);
}

/// The same for every start of a cluster of that name.
pub(crate) fn permanent_id(cluster_name: &str) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write;

    let mut id = String::from("rabbitmq-cluster-id-");
    for byte in Sha256::digest(cluster_name.as_bytes()).iter().take(12) {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::session::tests::broker;

    #[test]
    fn every_page_says_once_who_it_is_of() {
        let broker = broker();
        let filter = Filter::from_query(&[("family".into(), "queue_coarse_metrics".into())]).expect("a valid filter");
        for (scope, endpoint) in [
            (Scope::Aggregated, "aggregated"),
            (Scope::PerObject, "per-object"),
            (Scope::Detailed(filter), "detailed"),
            (Scope::MemoryBreakdown, "memory-breakdown"),
        ] {
            let text = page(&broker, &scope);
            let infos: Vec<&str> = text.lines().filter(|line| line.starts_with("rabbitmq_identity_info{")).collect();
            assert_eq!(infos.len(), 1, "{endpoint}");
            assert!(infos[0].contains(&format!("rabbitmq_endpoint=\"{endpoint}\"")), "{infos:?}");
            assert_eq!(text.matches("\nrabbitmq_build_info{").count(), 1, "{endpoint}");
        }
    }

    #[test]
    fn every_family_of_the_detailed_page_is_there_or_known_to_be_empty() {
        let broker = broker();
        for family in filter::FAMILIES {
            let asked = Filter::from_query(&[("family".to_owned(), family.to_owned())]).expect("a valid filter");
            let text = page(&broker, &Scope::Detailed(asked));
            let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE rabbitmq_"));
            let count = families.filter(|name| name.starts_with("detailed_") || name.starts_with("cluster_")).count();
            assert_eq!(count == 0, filter::EMPTY.contains(&family), "{family}: {text}");
        }
    }

    #[test]
    fn no_family_comes_twice_and_every_series_has_one() {
        let broker = broker();
        for scope in [Scope::Aggregated, Scope::PerObject, Scope::Detailed(Filter::all()), Scope::MemoryBreakdown] {
            let text = page(&broker, &scope);
            let mut families = Vec::new();
            for line in text.lines() {
                match line.strip_prefix("# TYPE ") {
                    Some(family) => families.push(family.split(' ').next().unwrap_or_default()),
                    None if line.starts_with("# HELP ") => {}
                    None => {
                        let family = families.last().copied().unwrap_or_default();
                        assert!(line.starts_with(family), "{line} is not of {family}");
                    }
                }
            }
            let mut once = families.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), families.len(), "{families:?}");
        }
    }
}
