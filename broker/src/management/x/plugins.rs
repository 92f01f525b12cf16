//! How plugins fare.

use serde_json::{Value as Json, json};

use super::super::call::{Answer, Call};
use super::super::lists::{self, Paging};
use crate::plugin_host::PluginStatus;

pub(in super::super) fn plugins(call: &Call) -> Answer {
    let rows = call.broker().vhosts.registry().status();
    lists::list(call, Paging::None, rows, |plugin| &plugin.name, plugin)
}

fn plugin(status: &PluginStatus) -> Json {
    json!({
        "name": status.name,
        "version": status.version,
        "state": status.state.name(),
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
