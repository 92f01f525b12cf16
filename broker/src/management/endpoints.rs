//! The one table: every path, its methods, who may call them, and who carries them out.
//!
//! The first path that fits counts, so literal parts stand before named ones. `{v}` is always a vhost and `{u}` a user: the guard judges by them.

use std::pin::Pin;
use std::sync::Arc;

use axum::http::Method;

use super::call::{Answer, Call};
use super::guard::Who;
use super::paths::Template;
use super::{
    bindings, connections, definitions, effective, exchanges, features, health, limits, login, messages, nodes,
    overview, parameters, permissions, policies, queues, users, vhosts, x,
};

/// What is done with what a path names. GET includes HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Put,
    Post,
    Delete,
}

impl Verb {
    pub(super) fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::PUT => Some(Self::Put),
            Method::POST => Some(Self::Post),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    pub(super) fn has_body(self) -> bool {
        matches!(self, Self::Put | Self::Post)
    }
}

type Later = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// How a handler runs.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// It takes no time.
    Now(fn(&Call) -> Answer),
    /// It may take long: it hashes, or goes through all queues.
    Blocking(fn(&Call) -> Answer),
    /// It waits for queues or the store.
    Waiting(fn(Arc<Call>) -> Later),
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Blocking(_) => "Blocking",
            Self::Waiting(_) => "Waiting",
        })
    }
}

/// One method of a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) verb: Verb,
    pub(super) who: Who,
    pub(super) run: Run,
}

/// Which types of bodies an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepts {
    /// JSON, whatever the header says.
    Anything,
    Json,
    Form,
    JsonOrMultipart,
    /// It has no body, and what it answers is a stream of events.
    Stream,
    /// It has no body, and what it answers is plain text.
    Text,
}

impl Accepts {
    pub(super) fn takes(self, kind: &str) -> bool {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is = |known: &str| kind.eq_ignore_ascii_case(known);
        match self {
            Self::Anything | Self::Stream | Self::Text => true,
            Self::Json => is("application/json"),
            Self::Form => is("application/x-www-form-urlencoded"),
            Self::JsonOrMultipart => is("application/json") || is("multipart/form-data"),
        }
    }

    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Anything | Self::Stream | Self::Text => "",
            Self::Json => "the body should be application/json",
            Self::Form => "the body should be application/x-www-form-urlencoded",
            Self::JsonOrMultipart => "the body should be application/json or multipart/form-data",
        }
    }
}

/// One path.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    operations: &'static [Operation],
    pub(super) accepts: Accepts,
    /// Below the limit that all bodies have.
    pub(super) body_bytes_max: Option<usize>,
}

impl Endpoint {
    const fn new(path: &'static str, operations: &'static [Operation]) -> Self {
        Self { path, operations, accepts: Accepts::Anything, body_bytes_max: None }
    }

    const fn accepts(self, accepts: Accepts) -> Self {
        Self { accepts, ..self }
    }

    const fn body_bytes_max(self, bytes: usize) -> Self {
        Self { body_bytes_max: Some(bytes), ..self }
    }

    pub(super) fn operation(&self, verb: Verb) -> Option<&'static Operation> {
        self.operations.iter().find(|operation| operation.verb == verb)
    }

    pub(super) fn verbs(&self) -> impl Iterator<Item = Verb> + use<> {
        self.operations.iter().map(|operation| operation.verb)
    }

    /// For `allow`.
    pub(super) fn methods(&self) -> String {
        let mut methods = Vec::new();
        for operation in self.operations {
            methods.push(match operation.verb {
                Verb::Get => "HEAD, GET",
                Verb::Put => "PUT",
                Verb::Post => "POST",
                Verb::Delete => "DELETE",
            });
        }
        methods.push("OPTIONS");
        methods.join(", ")
    }
}

/// The table with its paths ready to be compared.
#[derive(Debug)]
pub(super) struct Routes(Vec<(Template, &'static Endpoint)>);

impl Routes {
    pub(super) fn new(table: &'static [Endpoint]) -> Self {
        Self(table.iter().map(|endpoint| (Template::new(endpoint.path), endpoint)).collect())
    }

    pub(super) fn find(&self, segments: &[String]) -> Option<(&'static Endpoint, Vec<(&'static str, String)>)> {
        self.0.iter().find_map(|(template, endpoint)| Some((*endpoint, template.fit(segments)?)))
    }
}

const fn get(who: Who, handler: fn(&Call) -> Answer) -> Operation {
    Operation { verb: Verb::Get, who, run: Run::Now(handler) }
}

/// A list that may be long, or what is summed up over all queues.
const fn list(who: Who, handler: fn(&Call) -> Answer) -> Operation {
    Operation { verb: Verb::Get, who, run: Run::Blocking(handler) }
}

const fn put(who: Who, handler: fn(&Call) -> Answer) -> Operation {
    Operation { verb: Verb::Put, who, run: Run::Now(handler) }
}

const fn post(who: Who, handler: fn(&Call) -> Answer) -> Operation {
    Operation { verb: Verb::Post, who, run: Run::Now(handler) }
}

const fn delete(who: Who, handler: fn(&Call) -> Answer) -> Operation {
    Operation { verb: Verb::Delete, who, run: Run::Now(handler) }
}

const fn blocking(verb: Verb, who: Who, handler: fn(&Call) -> Answer) -> Operation {
    Operation { verb, who, run: Run::Blocking(handler) }
}

const fn waiting(verb: Verb, who: Who, handler: fn(Arc<Call>) -> Later) -> Operation {
    Operation { verb, who, run: Run::Waiting(handler) }
}

/// A binding's key and arguments need no more; RabbitMQ has the same limit.
const BINDING_BYTES_MAX: usize = 5000;

/// See the module.
pub(super) const TABLE: &[Endpoint] = &[
    Endpoint::new("/overview", &[list(Who::Any, overview::get)]),
    Endpoint::new("/whoami", &[get(Who::Any, login::whoami)]),
    Endpoint::new("/version", &[get(Who::Everyone, overview::version)]),
    Endpoint::new(
        "/cluster-name",
        &[get(Who::Any, overview::cluster_name), put(Who::Admin, overview::set_cluster_name)],
    ),
    Endpoint::new("/nodes", &[get(Who::Monitor, nodes::list)]),
    Endpoint::new("/nodes/{node}", &[get(Who::Monitor, nodes::get)]),
    Endpoint::new("/nodes/{node}/memory", &[get(Who::Monitor, nodes::memory)]),
    Endpoint::new("/nodes/{node}/memory/relative", &[get(Who::Monitor, nodes::memory_relative)]),
    // Vhosts
    Endpoint::new("/vhosts", &[list(Who::Any, vhosts::list)]),
    Endpoint::new(
        "/vhosts/{v}",
        &[
            get(Who::Admin, vhosts::get),
            blocking(Verb::Put, Who::Admin, vhosts::put),
            blocking(Verb::Delete, Who::Admin, vhosts::delete),
        ],
    ),
    Endpoint::new("/vhosts/{v}/permissions", &[get(Who::Admin, permissions::of_vhost)]),
    Endpoint::new("/vhosts/{v}/topic-permissions", &[get(Who::Admin, permissions::topics_of_vhost)]),
    Endpoint::new(
        "/vhosts/{v}/deletion/protection",
        &[post(Who::Admin, vhosts::protect), delete(Who::Admin, vhosts::unprotect)],
    ),
    Endpoint::new("/vhosts/{v}/start/{node}", &[post(Who::Admin, vhosts::start)]),
    // Users and permissions
    Endpoint::new("/users", &[list(Who::Admin, users::list)]),
    Endpoint::new("/users/bulk-delete", &[post(Who::Admin, users::bulk_delete)]),
    Endpoint::new("/users/without-permissions", &[get(Who::Admin, users::without_permissions)]),
    Endpoint::new(
        "/users/{u}",
        &[get(Who::Admin, users::get), blocking(Verb::Put, Who::Admin, users::put), delete(Who::Admin, users::delete)],
    ),
    Endpoint::new("/users/{u}/permissions", &[get(Who::Admin, permissions::of_user)]),
    Endpoint::new("/users/{u}/topic-permissions", &[get(Who::Admin, permissions::topics_of_user)]),
    Endpoint::new("/users/{u}/queues", &[list(Who::Any, queues::of_user)]),
    Endpoint::new("/permissions", &[list(Who::Admin, permissions::list)]),
    Endpoint::new(
        "/permissions/{v}/{u}",
        &[
            get(Who::Admin, permissions::get),
            put(Who::Admin, permissions::put),
            delete(Who::Admin, permissions::delete),
        ],
    ),
    Endpoint::new("/topic-permissions", &[list(Who::Admin, permissions::topics)]),
    Endpoint::new(
        "/topic-permissions/{v}/{u}",
        &[
            get(Who::Admin, permissions::topics_of_both),
            put(Who::Admin, permissions::put_topic),
            delete(Who::Admin, permissions::delete_topics),
        ],
    ),
    Endpoint::new("/topic-permissions/{v}/{u}/{exchange}", &[delete(Who::Admin, permissions::delete_topic)]),
    Endpoint::new(
        "/auth/attempts/{node}",
        &[get(Who::Monitor, login::attempts), delete(Who::Admin, login::reset_attempts)],
    ),
    Endpoint::new(
        "/auth/attempts/{node}/source",
        &[get(Who::Monitor, login::attempts_by_source), delete(Who::Admin, login::reset_attempts)],
    ),
    Endpoint::new("/auth/hash_password", &[blocking(Verb::Put, Who::Admin, login::hash_password_of_body)]),
    Endpoint::new("/auth/hash_password/{password}", &[blocking(Verb::Get, Who::Admin, login::hash_password)]),
    Endpoint::new("/auth", &[get(Who::Everyone, login::auth)]),
    Endpoint::new(
        "/login",
        &[
            waiting(Verb::Post, Who::Everyone, |call| Box::pin(login::login(call))),
            delete(Who::Everyone, login::logout),
        ],
    )
    .accepts(Accepts::Form),
    // Limits, policies, parameters
    Endpoint::new("/vhost-limits", &[get(Who::VhostOrMonitor, limits::of_vhosts)]),
    Endpoint::new("/vhost-limits/{v}", &[get(Who::VhostOrMonitor, limits::of_vhost)]),
    Endpoint::new("/vhost-limits/{v}/{limit}", &[put(Who::Admin, limits::put), delete(Who::Admin, limits::delete)])
        .accepts(Accepts::Json),
    Endpoint::new("/user-limits", &[get(Who::Admin, limits::of_users)]),
    Endpoint::new("/user-limits/{u}", &[get(Who::MonitorOrSelf, limits::of_user)]),
    Endpoint::new(
        "/user-limits/{u}/{limit}",
        &[put(Who::Admin, limits::put_user), delete(Who::Admin, limits::delete_user)],
    )
    .accepts(Accepts::Json),
    Endpoint::new("/policies", &[get(Who::Vhost, policies::list)]),
    Endpoint::new("/policies/{v}", &[get(Who::Vhost, policies::list)]),
    Endpoint::new(
        "/policies/{v}/{policy}",
        &[
            get(Who::Policy, policies::get),
            blocking(Verb::Put, Who::Policy, policies::put),
            blocking(Verb::Delete, Who::Policy, policies::delete),
        ],
    ),
    Endpoint::new("/operator-policies", &[get(Who::Vhost, policies::list_operator)]),
    Endpoint::new("/operator-policies/{v}", &[get(Who::Vhost, policies::list_operator)]),
    Endpoint::new(
        "/operator-policies/{v}/{policy}",
        &[
            get(Who::Admin, policies::get_operator),
            blocking(Verb::Put, Who::Admin, policies::put_operator),
            blocking(Verb::Delete, Who::Admin, policies::delete_operator),
        ],
    )
    .accepts(Accepts::Json),
    Endpoint::new("/parameters", &[get(Who::Policy, parameters::list)]),
    Endpoint::new("/parameters/{component}", &[get(Who::Policy, parameters::list)]),
    Endpoint::new("/parameters/{component}/{v}", &[get(Who::Policy, parameters::list)]),
    Endpoint::new(
        "/parameters/{component}/{v}/{parameter}",
        &[
            get(Who::Policy, parameters::get),
            blocking(Verb::Put, Who::Policy, parameters::put),
            blocking(Verb::Delete, Who::Policy, parameters::delete),
        ],
    ),
    Endpoint::new("/global-parameters", &[get(Who::Policymaker, parameters::list_global)]),
    Endpoint::new(
        "/global-parameters/{parameter}",
        &[
            get(Who::Policymaker, parameters::get_global),
            put(Who::Policymaker, parameters::put_global),
            delete(Who::Policymaker, parameters::delete_global),
        ],
    ),
    // Connections, channels, consumers
    Endpoint::new("/connections", &[list(Who::Any, connections::list)]),
    Endpoint::new(
        "/connections/{connection}",
        &[get(Who::Any, connections::get), delete(Who::Any, connections::close)],
    ),
    Endpoint::new(
        "/connections/username/{u}",
        &[get(Who::Any, connections::of_user), delete(Who::Any, connections::close_of_user)],
    ),
    Endpoint::new("/connections/{connection}/channels", &[get(Who::Any, connections::channels_of_connection)]),
    Endpoint::new("/vhosts/{v}/connections", &[list(Who::Vhost, connections::of_vhost)]),
    Endpoint::new("/channels", &[list(Who::Any, connections::channels)]),
    Endpoint::new("/channels/{channel}", &[get(Who::Any, connections::channel)]),
    Endpoint::new("/vhosts/{v}/channels", &[list(Who::Vhost, connections::channels_of_vhost)]),
    Endpoint::new("/consumers", &[list(Who::Any, connections::consumers)]),
    Endpoint::new("/consumers/{v}", &[list(Who::Vhost, connections::consumers)]),
    // Exchanges, queues, bindings
    Endpoint::new("/exchanges", &[list(Who::Vhost, exchanges::list)]),
    Endpoint::new("/exchanges/{v}", &[list(Who::Vhost, exchanges::list)]),
    Endpoint::new(
        "/exchanges/{v}/{exchange}",
        &[list(Who::Vhost, exchanges::get), put(Who::Vhost, exchanges::put), delete(Who::Vhost, exchanges::delete)],
    ),
    Endpoint::new("/exchanges/{v}/{exchange}/bindings/source", &[list(Who::Vhost, bindings::from_exchange)]),
    Endpoint::new("/exchanges/{v}/{exchange}/bindings/destination", &[list(Who::Vhost, bindings::to_exchange)]),
    Endpoint::new(
        "/exchanges/{v}/{exchange}/publish",
        &[waiting(Verb::Post, Who::Vhost, |call| Box::pin(messages::publish(call)))],
    ),
    Endpoint::new("/queues", &[list(Who::Vhost, queues::list)]),
    Endpoint::new("/queues/detailed", &[list(Who::Vhost, queues::list)]),
    Endpoint::new("/queues/{v}", &[list(Who::Vhost, queues::list)]),
    Endpoint::new(
        "/queues/{v}/{queue}",
        &[
            list(Who::Vhost, queues::get),
            put(Who::Vhost, queues::put),
            waiting(Verb::Delete, Who::Vhost, |call| Box::pin(queues::delete(call))),
        ],
    ),
    Endpoint::new("/queues/{v}/{queue}/bindings", &[list(Who::Vhost, bindings::to_queue)]),
    Endpoint::new(
        "/queues/{v}/{queue}/contents",
        &[waiting(Verb::Delete, Who::Vhost, |call| Box::pin(queues::purge(call)))],
    ),
    Endpoint::new("/queues/{v}/{queue}/get", &[waiting(Verb::Post, Who::Vhost, |call| Box::pin(messages::get(call)))]),
    Endpoint::new("/queues/{v}/{queue}/actions", &[post(Who::Admin, queues::act)]),
    Endpoint::new("/bindings", &[list(Who::Vhost, bindings::list)]),
    Endpoint::new("/bindings/{v}", &[list(Who::Vhost, bindings::list)]),
    Endpoint::new(
        "/bindings/{v}/e/{source}/{kind}/{destination}",
        &[list(Who::Vhost, bindings::between), post(Who::Vhost, bindings::post)],
    )
    .body_bytes_max(BINDING_BYTES_MAX),
    Endpoint::new(
        "/bindings/{v}/e/{source}/{kind}/{destination}/{props}",
        &[get(Who::Vhost, bindings::get), delete(Who::Vhost, bindings::delete)],
    ),
    // Definitions
    Endpoint::new("/definitions", DEFINITIONS).accepts(Accepts::JsonOrMultipart),
    Endpoint::new("/all-configuration", DEFINITIONS).accepts(Accepts::JsonOrMultipart),
    Endpoint::new(
        "/definitions/{v}",
        &[
            blocking(Verb::Get, Who::Admin, definitions::export_vhost),
            blocking(Verb::Post, Who::Admin, definitions::import_vhost),
        ],
    )
    .accepts(Accepts::JsonOrMultipart),
    Endpoint::new("/config/effective", &[get(Who::Admin, effective::get)]).accepts(Accepts::Text),
    // Health
    Endpoint::new("/aliveness-test/{v}", &[get(Who::Vhost, health::aliveness)]),
    Endpoint::new("/healthchecks/node", &[get(Who::Any, health::node)]),
    Endpoint::new("/healthchecks/node/{node}", &[get(Who::Any, health::node)]),
    Endpoint::new("/health/checks/alarms", &[get(Who::Any, health::alarms)]),
    Endpoint::new("/health/checks/local-alarms", &[get(Who::Any, health::alarms)]),
    Endpoint::new("/health/checks/virtual-hosts", &[get(Who::Any, health::vhosts)]),
    Endpoint::new("/health/checks/node-is-quorum-critical", &[get(Who::Any, health::quorum_critical)]),
    Endpoint::new("/health/checks/node-is-mirror-sync-critical", &[get(Who::Any, health::quorum_critical)]),
    Endpoint::new("/health/checks/port-listener/{port}", &[get(Who::Any, health::port)]),
    Endpoint::new("/health/checks/protocol-listener/{protocols}", &[get(Who::Any, health::protocols)]),
    Endpoint::new("/health/checks/certificate-expiration/{within}/{unit}", &[get(Who::Any, health::certificates)]),
    Endpoint::new("/health/checks/is-in-service", &[get(Who::Everyone, health::fine)]),
    Endpoint::new("/health/checks/ready-to-serve-clients", &[get(Who::Everyone, health::ready)]),
    Endpoint::new("/health/checks/below-node-connection-limit", &[get(Who::Everyone, health::connections)]),
    Endpoint::new("/health/checks/reached-target-cluster-size", &[get(Who::Everyone, health::cluster_size)]),
    Endpoint::new("/health/checks/metadata-store/initialized", &[get(Who::Any, health::fine)]),
    Endpoint::new("/health/checks/metadata-store/initialized/with-data", &[get(Who::Any, health::fine)]),
    Endpoint::new("/health/checks/quorum-queues-without-elected-leaders/all-vhosts", &[get(Who::Any, health::fine)]),
    Endpoint::new(
        "/health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}",
        &[get(Who::Any, health::fine)],
    ),
    Endpoint::new("/health/checks/quorum-queues-without-elected-leaders/vhost/{v}", &[get(Who::Any, health::leaders)]),
    Endpoint::new(
        "/health/checks/quorum-queues-without-elected-leaders/vhost/{v}/pattern/{pattern}",
        &[get(Who::Any, health::leaders)],
    ),
    // What this broker has not, or has always
    Endpoint::new("/feature-flags", &[get(Who::Any, features::flags)]),
    Endpoint::new("/feature-flags/{flag}/enable", &[put(Who::Admin, features::enable)]).accepts(Accepts::Json),
    Endpoint::new("/deprecated-features", &[get(Who::Any, features::nothing)]),
    Endpoint::new("/deprecated-features/used", &[get(Who::Any, features::nothing)]),
    Endpoint::new("/extensions", &[get(Who::Any, features::nothing)]),
    Endpoint::new("/federation-links", &[get(Who::Monitor, features::nothing)]),
    Endpoint::new("/federation-links/{v}", &[get(Who::Monitor, features::nothing)]),
    Endpoint::new("/shovels", &[get(Who::Monitor, features::nothing)]),
    Endpoint::new("/shovels/{v}", &[get(Who::Monitor, features::nothing)]),
    Endpoint::new("/rebalance/queues", &[post(Who::Admin, features::done)]),
    // Beyond RabbitMQ
    Endpoint::new("/x/route", &[blocking(Verb::Post, Who::Any, x::route::route)]),
    Endpoint::new("/x/graph/{v}", &[list(Who::Vhost, x::graph::graph)]),
    Endpoint::new("/x/alarms", &[get(Who::Monitor, x::alarms::get), put(Who::Admin, x::alarms::put)]),
    Endpoint::new("/x/topology", &[blocking(Verb::Get, Who::Admin, x::topology::show)]),
    Endpoint::new("/x/plan", &[blocking(Verb::Post, Who::Admin, x::topology::plan)]),
    Endpoint::new("/x/apply", &[blocking(Verb::Post, Who::Admin, x::topology::apply)]),
    Endpoint::new("/x/events", &[get(Who::Monitor, x::events::events)]).accepts(Accepts::Stream),
    Endpoint::new("/x/plugins", &[get(Who::Monitor, x::plugins::plugins)]),
    Endpoint::new("/x/hooks", &[get(Who::Monitor, x::hooks::hooks)]),
    Endpoint::new("/x/hooks/{hook}/records", &[get(Who::Monitor, x::hooks::records)]),
    Endpoint::new(
        "/x/queues/{v}/{queue}/browse",
        &[waiting(Verb::Get, Who::Vhost, |call| Box::pin(x::browse::browse(call)))],
    ),
    Endpoint::new(
        "/x/queues/{v}/{queue}/move",
        &[waiting(Verb::Post, Who::Vhost, |call| Box::pin(x::shift::shift(call)))],
    ),
];

const DEFINITIONS: &[Operation] =
    &[blocking(Verb::Get, Who::Admin, definitions::export), blocking(Verb::Post, Who::Admin, definitions::import)];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A path that an earlier one covers would never be reached.
    #[test]
    fn every_path_is_reached() {
        let routes = Routes::new(TABLE);
        let mut seen = BTreeSet::new();
        for endpoint in TABLE {
            assert!(seen.insert(endpoint.path), "{} stands twice", endpoint.path);
            let segments: Vec<String> = endpoint.path.trim_start_matches('/').split('/').map(str::to_owned).collect();
            let (found, _) = routes.find(&segments).expect("every path fits itself");
            assert_eq!(found.path, endpoint.path);
        }
    }

    #[test]
    fn no_path_has_a_method_twice() {
        for endpoint in TABLE {
            for verb in [Verb::Get, Verb::Put, Verb::Post, Verb::Delete] {
                let count = endpoint.operations.iter().filter(|operation| operation.verb == verb).count();
                assert!(count <= 1, "{} {verb:?}", endpoint.path);
            }
        }
    }

    #[test]
    fn options_list_the_methods() {
        let queue = TABLE.iter().find(|endpoint| endpoint.path == "/queues/{v}/{queue}").unwrap();
        assert_eq!(queue.methods(), "HEAD, GET, PUT, DELETE, OPTIONS");
    }
}
