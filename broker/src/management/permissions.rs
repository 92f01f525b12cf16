//! Permissions and topic permissions of users in vhosts (semantics 25).

use serde_json::{Value as Json, json};

use super::body::text;
use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists::{self, Paging};
use super::reply::Reply;
use crate::access::AccessError;
use crate::topology::schema::{PermissionDecl, TopicPermissionDecl};

type Entry<D> = (String, D);

fn shown((user, decl): &Entry<PermissionDecl>) -> Json {
    json!({"user": user, "vhost": decl.vhost, "configure": decl.configure, "write": decl.write, "read": decl.read})
}

fn shown_topic((user, decl): &Entry<TopicPermissionDecl>) -> Json {
    json!({"user": user, "vhost": decl.vhost, "exchange": decl.exchange, "write": decl.write, "read": decl.read})
}

/// All entries, by vhost and user.
fn all(call: &Call) -> Vec<Entry<PermissionDecl>> {
    let access = &call.broker().access;
    let of = |name: &String| {
        access.permissions_of(name).into_iter().map({
            let name = name.clone();
            move |decl| (name.clone(), decl)
        })
    };
    let names: Vec<String> = access.users().iter().map(|user| user.name.clone()).collect();
    let mut entries: Vec<_> = names.iter().flat_map(of).collect();
    entries.sort_by(|a, b| (&a.1.vhost, &a.0).cmp(&(&b.1.vhost, &b.0)));
    entries
}

fn all_topics(call: &Call) -> Vec<Entry<TopicPermissionDecl>> {
    let access = &call.broker().access;
    let of = |name: &String| {
        access.topic_permissions_of(name).into_iter().map({
            let name = name.clone();
            move |decl| (name.clone(), decl)
        })
    };
    let names: Vec<String> = access.users().iter().map(|user| user.name.clone()).collect();
    let mut entries: Vec<_> = names.iter().flat_map(of).collect();
    entries.sort_by(|a, b| (&a.1.vhost, &a.0, &a.1.exchange).cmp(&(&b.1.vhost, &b.0, &b.1.exchange)));
    entries
}

fn answer(call: &Call, entries: Vec<Entry<PermissionDecl>>) -> Answer {
    lists::list(call, Paging::None, entries, |entry| &entry.0, shown)
}

fn answer_topics(call: &Call, entries: Vec<Entry<TopicPermissionDecl>>) -> Answer {
    lists::list(call, Paging::None, entries, |entry| &entry.0, shown_topic)
}

pub(super) fn list(call: &Call) -> Answer {
    answer(call, all(call))
}

pub(super) fn of_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let mut entries = all(call);
    entries.retain(|(_, decl)| *decl.vhost == *vhost.name);
    answer(call, entries)
}

pub(super) fn of_user(call: &Call) -> Answer {
    let user = user(call)?;
    let decls = call.broker().access.permissions_of(user).into_iter();
    answer(call, decls.map(|decl| (user.to_owned(), decl)).collect())
}

pub(super) fn topics(call: &Call) -> Answer {
    answer_topics(call, all_topics(call))
}

pub(super) fn topics_of_vhost(call: &Call) -> Answer {
    let vhost = call.vhost()?;
    let mut entries = all_topics(call);
    entries.retain(|(_, decl)| *decl.vhost == *vhost.name);
    answer_topics(call, entries)
}

pub(super) fn topics_of_user(call: &Call) -> Answer {
    let user = user(call)?;
    let decls = call.broker().access.topic_permissions_of(user).into_iter();
    answer_topics(call, decls.map(|decl| (user.to_owned(), decl)).collect())
}

/// The user that the path names.
fn user(call: &Call) -> Result<&str, ApiError> {
    let name = call.named("u");
    match call.broker().access.user(name) {
        Some(_) => Ok(name),
        None => Err(ApiError::object_not_found()),
    }
}

/// User and vhost that the path names, to be changed.
fn both(call: &Call) -> Result<(&str, &str), ApiError> {
    let (vhost, user) = (call.named("v"), call.named("u"));
    if call.broker().vhost(vhost).is_none() || call.broker().access.user(user).is_none() {
        return Err(ApiError::bad_request("vhost_or_user_not_found"));
    }
    Ok((vhost, user))
}

fn entry(call: &Call) -> Option<PermissionDecl> {
    let vhost = call.named("v");
    call.broker().access.permissions_of(call.named("u")).into_iter().find(|decl| decl.vhost == vhost)
}

pub(super) fn get(call: &Call) -> Answer {
    let decl = entry(call).ok_or_else(ApiError::object_not_found)?;
    lists::one(call, shown(&(call.named("u").to_owned(), decl)))
}

pub(super) fn put(call: &Call) -> Answer {
    let (vhost, user) = both(call)?;
    let fields = call.fields()?;
    let [configure, write, read] = fields.require(["configure", "write", "read"])?;
    let decl = PermissionDecl {
        vhost: vhost.to_owned(),
        configure: text("configure", configure)?.to_owned(),
        write: text("write", write)?.to_owned(),
        read: text("read", read)?.to_owned(),
    };
    let is_new = entry(call).is_none();
    call.broker().access.set_permission(user, &decl).map_err(refused)?;
    Ok(Reply::put(is_new).when_all_stored())
}

pub(super) fn delete(call: &Call) -> Answer {
    entry(call).ok_or_else(ApiError::object_not_found)?;
    call.broker().access.remove_permission(call.named("u"), call.named("v")).map_err(refused)?;
    Ok(Reply::done().when_all_stored())
}

/// The topic permissions of a user in a vhost.
fn topics_here(call: &Call) -> Vec<TopicPermissionDecl> {
    let vhost = call.named("v");
    let mut decls = call.broker().access.topic_permissions_of(call.named("u"));
    decls.retain(|decl| decl.vhost == vhost);
    decls
}

/// A list, because there may be one for each exchange.
pub(super) fn topics_of_both(call: &Call) -> Answer {
    let decls = topics_here(call);
    if decls.is_empty() {
        return Err(ApiError::object_not_found());
    }
    let user = call.named("u");
    answer_topics(call, decls.into_iter().map(|decl| (user.to_owned(), decl)).collect())
}

pub(super) fn put_topic(call: &Call) -> Answer {
    let (vhost, user) = both(call)?;
    let fields = call.fields()?;
    let [exchange, write, read] = fields.require(["exchange", "write", "read"])?;
    let decl = TopicPermissionDecl {
        vhost: vhost.to_owned(),
        exchange: text("exchange", exchange)?.to_owned(),
        write: text("write", write)?.to_owned(),
        read: text("read", read)?.to_owned(),
    };
    let is_new = topics_here(call).is_empty();
    call.broker().access.set_topic_permission(user, &decl).map_err(refused)?;
    Ok(Reply::put(is_new).when_all_stored())
}

pub(super) fn delete_topics(call: &Call) -> Answer {
    remove_topics(call, None)
}

pub(super) fn delete_topic(call: &Call) -> Answer {
    remove_topics(call, Some(call.named("exchange")))
}

fn remove_topics(call: &Call, exchange: Option<&str>) -> Answer {
    if !topics_here(call).iter().any(|decl| exchange.is_none_or(|exchange| decl.exchange == exchange)) {
        return Err(ApiError::object_not_found());
    }
    let access = &call.broker().access;
    access.remove_topic_permissions(call.named("u"), call.named("v"), exchange).map_err(refused)?;
    Ok(Reply::done().when_all_stored())
}

/// The user may be gone meanwhile; patterns may be none.
fn refused(error: AccessError) -> ApiError {
    match error {
        AccessError::NoSuchUser(_) => ApiError::bad_request("vhost_or_user_not_found"),
        other => other.into(),
    }
}
