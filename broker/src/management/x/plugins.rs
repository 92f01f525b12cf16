//! How plugins and hooks fare.

use serde_json::{Value as Json, json};

use super::super::call::{Answer, Call};
use super::super::lists::{self, Paging};
use crate::hooks::{HookStatus, Scope};
use crate::plugin_host::{PluginState, PluginStatus};

pub(in super::super) fn plugins(call: &Call) -> Answer {
    let rows = call.broker().vhosts.registry().status();
    lists::list(call, Paging::None, rows, |plugin| &plugin.name, plugin)
}

fn plugin(status: &PluginStatus) -> Json {
    let state = match status.state {
        PluginState::Active => "active",
        PluginState::Degraded => "degraded",
        PluginState::Failed => "failed",
        PluginState::Refused => "refused",
    };
    json!({
        "name": status.name,
        "version": status.version,
        "state": state,
        "is_built_in": status.path.is_none(),
        "path": status.path.as_ref().map(|path| path.display().to_string()),
        "sha256": status.sha256,
        "exchange_types": status.exchange_types,
        "storages": status.storages,
        "auth_backends": status.auth_backends,
        "metrics": status.figures.iter().cloned().collect::<std::collections::BTreeMap<String, f64>>(),
        "faults": status.faults,
        "last_fault": status.last_fault,
    })
}

pub(in super::super) fn hooks(call: &Call) -> Answer {
    lists::list(call, Paging::None, call.broker().hooks.status(), |hook| &hook.name, hook)
}

fn hook(status: &HookStatus) -> Json {
    let counts = status.counts;
    let scope = match &status.scope {
        Scope::Broker => json!({"kind": "broker"}),
        Scope::Vhost(vhost) => json!({"kind": "vhost", "vhost": vhost}),
        Scope::Exchange { vhost, exchange } => json!({"kind": "exchange", "vhost": vhost, "exchange": exchange}),
    };
    json!({
        "name": status.name,
        "script": status.script.display().to_string(),
        "scope": scope,
        "on_error": status.on_error.to_string(),
        "workers": status.worker_count,
        "calls": counts.calls(),
        "passed": counts.passed,
        "rewritten": counts.rewritten,
        "dropped": counts.dropped,
        "rejected": counts.rejected,
        "failed": counts.failed,
        "time_limit_reached": counts.time_limit_reached,
        "memory_limit_reached": counts.memory_limit_reached,
        "mean_microseconds": counts.mean_time().map(|time| time.as_nanos() as f64 / 1000.0),
    })
}
