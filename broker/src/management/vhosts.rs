//! Vhosts: what there are, making, describing, protecting and deleting them (semantics 24.1, 24.2).

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists;
use super::reply::Reply;
use super::stats;
use crate::metrics::read::Reader;
use crate::origin::Origin;
use crate::topology::schema::PermissionDecl;
use crate::vhost::Vhost;
use crate::vhost::policy::QueueType;

/// What a queue is that is declared without a type, where nobody has set another.
const QUEUE_TYPE: &str = "classic";

pub(super) fn list(call: &Call) -> Answer {
    let mut vhosts = call.broker().vhosts.list();
    vhosts.retain(|vhost| call.tags.is_monitor || call.may_enter(&vhost.name));
    let reader = stats::reader(call)?;
    lists::list(call, lists::Paging::OnDemand, vhosts, |vhost| &vhost.name, |vhost| shown(call, &reader, vhost))
}

pub(super) fn get(call: &Call) -> Answer {
    lists::one(call, shown(call, &stats::reader(call)?, &*call.vhost()?))
}

fn shown(call: &Call, reader: &Reader<'_>, vhost: &Vhost) -> Json {
    let metadata = vhost.metadata();
    let kind = metadata.default_queue_type.map(QueueType::name);
    let mut inner = Map::new();
    inner.insert("description".into(), json!(metadata.description));
    inner.insert("tags".into(), json!(metadata.tags));
    if let Some(kind) = kind {
        inner.insert("default_queue_type".into(), json!(kind));
    }
    let mut shown = json!({
        "name": vhost.name.as_ref(),
        "description": metadata.description,
        "tags": metadata.tags,
        "default_queue_type": kind.unwrap_or(QUEUE_TYPE),
        "metadata": inner,
        "tracing": vhost.is_traced(),
        "protected_from_deletion": metadata.protected_from_deletion,
        "cluster_state": {call.api.node_name(): "running"},
    });
    if let Some(shown) = shown.as_object_mut().filter(|_| !stats::are_disabled(call)) {
        let facts = reader.vhost(vhost);
        for (at, name) in ["messages", "messages_ready", "messages_unacknowledged"].into_iter().enumerate() {
            stats::put(shown, name, facts.lengths.get(at));
        }
        stats::put(shown, "recv_oct", facts.bytes.get(0));
        stats::put(shown, "send_oct", facts.bytes.get(1));
        if let Some(message_stats) = stats::message_stats(&facts.message_stats, stats::Of::Others) {
            shown.insert("message_stats".to_owned(), message_stats);
        }
    }
    shown
}

/// What the body leaves out stays as it is. Who makes a vhost has all permissions in it.
pub(super) fn put(call: &Call) -> Answer {
    let (broker, name) = (call.broker(), call.named("v"));
    let fields = call.fields()?;
    let old = broker.vhost(name).map(|vhost| vhost.metadata());
    let mut metadata = old.clone().unwrap_or_default();
    if let Some(description) = fields.text("description")? {
        description.clone_into(&mut metadata.description);
    }
    if let Some(tags) = fields.tags("tags")? {
        metadata.tags = tags;
    }
    // The second was its name in one release.
    for key in ["defaultqueuetype", "default_queue_type"] {
        match fields.text(key)? {
            None | Some("undefined" | "") => {}
            Some(kind) => {
                let kind = QueueType::parse_default(kind).map_err(|error| ApiError::bad_request(error.to_string()))?;
                metadata.default_queue_type = Some(kind);
            }
        }
    }
    if let Some(is_protected) = fields.flag("protected_from_deletion")? {
        metadata.protected_from_deletion = is_protected;
    }
    let is_traced = fields.flag("tracing")?;
    let has_changed = old.as_ref() != Some(&metadata);
    let (vhost, is_new, changed) = broker.vhosts.create(name, has_changed.then_some(metadata))?;
    if is_new && call.user.foreign.is_none() {
        // Nobody can remove the user in between and be surprised: it has just been asked for its permissions.
        broker.access.set_permission(&call.user.name, &PermissionDecl::all(name))?;
    }
    if let Some(is_traced) = is_traced
        && is_traced != vhost.is_traced()
    {
        vhost.set_tracing(is_traced);
    }
    let reply = Reply::put(is_new).when_stored(changed);
    Ok(if is_new { reply.when_all_stored() } else { reply })
}

pub(super) fn delete(call: &Call) -> Answer {
    call.broker().delete_vhost(call.named("v"))?;
    Ok(Reply::done().when_all_stored())
}

pub(super) fn protect(call: &Call) -> Answer {
    set_protection(call, &call.vhost()?, true)
}

pub(super) fn unprotect(call: &Call) -> Answer {
    set_protection(call, &call.vhost()?, false)
}

fn set_protection(_: &Call, vhost: &Arc<Vhost>, is_protected: bool) -> Answer {
    let mut metadata = vhost.metadata();
    if metadata.protected_from_deletion == is_protected {
        return Ok(Reply::done());
    }
    metadata.protected_from_deletion = is_protected;
    let changed = vhost.put_metadata(metadata, Origin::Runtime)?;
    Ok(Reply::done().when_stored(changed))
}

/// A vhost always runs.
pub(super) fn start(call: &Call) -> Answer {
    call.vhost()?;
    super::nodes::check_name(call)?;
    Ok(Reply::done())
}
