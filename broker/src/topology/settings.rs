//! The settings of a topology as they may be shown: the sections about the broker itself with everything that was left out, by the keys of the file.
//!
//! Nothing that may hold a secret is among them: no users, and no `config` of plugins, storages and backends, which is theirs alone. Hooks change while
//! the broker runs; `/api/x/hooks` has those in force. Of keys and certificates
//! there are the names of the files.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::schema::{
    AuthBackendDecl, ClientCertificates, LimitsDecl, LoginFrom, ManagementDecl, MetricsDecl, PluginDecl, TlsDecl,
    TlsVersion, Topology,
};
use crate::plugin_host::Isolation;
use crate::vhost::quorum::QuorumQueues;
use crate::vhost::strict::TransientQueues;

/// See the module.
#[must_use]
pub fn settings(topology: &Topology) -> Json {
    let quorum_queues = match topology.node.strict.quorum_queues {
        QuorumQueues::Local => "local",
        QuorumQueues::Refused => "refuse",
    };
    let transient_queues = match topology.node.strict.transient_queues {
        TransientQueues::Allowed => "allow",
        TransientQueues::Refused => "refuse",
    };
    let mut all = json!({
        "node": {
            "product": topology.node.product,
            "version": topology.node.version,
            "quorum_queues": quorum_queues,
            "transient_queues": transient_queues,
        },
        "listeners": {
            "amqp": addresses(&topology.listeners.amqp),
            "amqps": addresses(&topology.listeners.amqps),
            "proxy_protocol": topology.listeners.proxy_protocol,
        },
        "management": management(&topology.management),
        "metrics": metrics(&topology.metrics),
        "limits": limits(&topology.limits),
        "storage": { "kind": topology.storage.kind, "data": topology.storage.data.as_deref().map(path) },
        "plugins": topology.plugins.iter().map(plugin).collect::<Vec<_>>(),
        "auth": { "backends": topology.auth.iter().map(backend).collect::<Vec<_>>() },
        "definitions": topology.definitions.as_ref().map(|decl| {
            json!({ "path": path(&decl.path), "skip_if_unchanged": decl.skip_if_unchanged })
        }),
        "tls": topology.tls.as_ref().map(tls),
        "owner": topology.owner,
    });
    without_nothing(&mut all);
    all
}

fn management(decl: &ManagementDecl) -> Json {
    json!({
        "listen": addresses(&decl.listen),
        "listen_tls": addresses(&decl.listen_tls),
        "tls": decl.tls.as_ref().map(tls),
        "cors_allow_origins": decl.cors_allow_origins,
        "cors_max_age_secs": decl.cors_max_age_secs,
        "body_bytes_max": decl.body_bytes_max,
        "path_prefix": decl.path_prefix,
        "hsts": decl.hsts,
        "csp": decl.csp,
    })
}

fn metrics(decl: &MetricsDecl) -> Json {
    json!({
        "listen": addresses(&decl.listen),
        "listen_tls": addresses(&decl.listen_tls),
        "tls": decl.tls.as_ref().map(tls),
        "per_object": decl.per_object,
    })
}

fn limits(decl: &LimitsDecl) -> Json {
    json!({
        "frame_max_bytes": decl.frame_max_bytes,
        "channel_max": decl.channel_max,
        "heartbeat_secs": decl.heartbeat_secs,
        "handshake_timeout_secs": decl.handshake_timeout_secs,
        "message_bytes_max": decl.message_bytes_max,
        "connections_max": decl.connections_max,
        "consumer_max_per_channel": decl.consumer_max_per_channel,
        "bindings_per_queue_max": decl.bindings_per_queue_max,
        "transaction_bytes_max": decl.transaction_bytes_max,
        "shutdown_deadline_secs": decl.shutdown_deadline_secs,
        "memory_watermark_bytes": decl.memory_watermark_bytes,
        "disk_free_bytes_min": decl.disk_free_bytes_min,
        "queue_memory_bytes": decl.queue_memory_bytes,
    })
}

fn tls(decl: &TlsDecl) -> Json {
    json!({
        "certificate": path(&decl.certificate),
        "key": path(&decl.key),
        "ca": decl.ca.as_deref().map(path),
        "client_certificates": match decl.client_certificates {
            ClientCertificates::None => "none",
            ClientCertificates::Request => "request",
            ClientCertificates::Require => "require",
        },
        "version_min": match decl.version_min {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        },
        "login_from": match decl.login_from {
            LoginFrom::Nothing => "none",
            LoginFrom::DistinguishedName => "distinguished_name",
            LoginFrom::CommonName => "common_name",
            LoginFrom::DnsName => "dns_name",
            LoginFrom::Email => "email",
            LoginFrom::Uri => "uri",
            LoginFrom::IpAddress => "ip_address",
        },
    })
}

fn plugin(decl: &PluginDecl) -> Json {
    json!({ "path": path(&decl.path), "sha256": decl.sha256, "required": decl.required })
}

fn backend(decl: &AuthBackendDecl) -> Json {
    json!({
        "kind": decl.kind,
        "name": decl.name,
        "timeout": format!("{}ms", decl.timeout.as_millis()),
        "authorization": decl.authorization,
        "isolation": match decl.isolation {
            Isolation::Thread => "thread",
            Isolation::None => "none",
        },
    })
}

fn addresses(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Takes out what has no value: the file does not say it, and there is no default.
fn without_nothing(value: &mut Json) {
    let keep = |object: &mut Map<String, Json>| object.retain(|_, value| !value.is_null());
    match value {
        Json::Object(object) => {
            keep(object);
            object.values_mut().for_each(without_nothing);
        }
        Json::Array(items) => items.iter_mut().for_each(without_nothing),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn settings_have_the_keys_of_the_file_and_no_secrets() {
        let text = "
node: { version: 4.2.0 }
limits: { heartbeat_secs: 7 }
storage: { config: { password: s3cret } }
auth: { backends: [internal, { kind: ldap, config: { bind_password: s3cret } }] }
users: { ann: { password: s3cret } }
";
        let mut topology = config::load_text("topology.yaml", text).unwrap().topology;
        let config = json!({ "password": "s3cret" });
        topology.plugins.push(PluginDecl { path: "a.so".into(), sha256: None, required: true, config });
        let shown = settings(&topology);
        assert_eq!(shown["plugins"], json!([{ "path": "a.so", "required": true }]));
        assert_eq!(shown["limits"]["heartbeat_secs"], 7);
        assert_eq!(shown["limits"]["frame_max_bytes"], 131_072);
        assert_eq!(shown["node"], json!({ "version": "4.2.0", "quorum_queues": "local", "transient_queues": "allow" }));
        assert_eq!(shown["auth"]["backends"][1]["kind"], "ldap");
        assert!(!shown.to_string().contains("s3cret"), "{shown}");
    }
}
