//! Users: what there are, adding, changing and deleting them. Hashes of passwords are shown to administrators, as RabbitMQ does, because definitions
//! are made of them; passwords never are.

use serde_json::{Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::lists;
use super::reply::Reply;
use crate::access::{HashAlgorithm, PasswordHash, TAGS_MAX, UserRecord, UserUpdate};
use crate::topology::definitions::exported_user;

pub(super) fn list(call: &Call) -> Answer {
    answer(call, call.broker().access.records())
}

pub(super) fn without_permissions(call: &Call) -> Answer {
    let access = &call.broker().access;
    let mut records = access.records();
    records.retain(|record| access.permissions_of(&record.name).is_empty());
    answer(call, records)
}

fn answer(call: &Call, records: Vec<UserRecord>) -> Answer {
    lists::list(call, lists::Paging::OnDemand, records, |record| &record.name, exported_user)
}

pub(super) fn get(call: &Call) -> Answer {
    let name = call.named("u");
    let record = call.broker().access.records().into_iter().find(|record| record.name == name);
    lists::one(call, exported_user(&record.ok_or_else(ApiError::object_not_found)?))
}

/// A user without a password or hash has none from then on, as in RabbitMQ.
pub(super) fn put(call: &Call) -> Answer {
    let fields = call.fields()?;
    let tags = match fields.tags("tags")? {
        Some(tags) => tags,
        // Releases before 3.3 had one.
        None => match fields.flag("administrator")? {
            Some(true) => vec!["administrator".to_owned()],
            Some(false) => Vec::new(),
            None => return Err(ApiError::bad_request("tags_not_present")),
        },
    };
    if tags.len() > TAGS_MAX {
        let text = format!("A user can have at most {TAGS_MAX} tags (received {})", tags.len());
        return Err(ApiError::bad_request(text));
    }
    let algorithm = match fields.text("hashing_algorithm")? {
        Some(name) => Some(HashAlgorithm::parse(name).map_err(|error| ApiError::bad_request(error.to_string()))?),
        None => None,
    };
    let password = match (fields.text("password")?, fields.text("password_hash")?) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("both_password_and_password_hash_are_provided"));
        }
        (Some(password), None) => Some(PasswordHash::of(password.as_bytes(), algorithm.unwrap_or_default())),
        (None, Some("") | None) => None,
        (None, Some(hash)) => {
            let parsed = match algorithm {
                Some(algorithm) => PasswordHash::parse(hash, algorithm),
                None => PasswordHash::parse_unnamed(hash),
            };
            Some(parsed.map_err(|error| ApiError::bad_request(error.to_string()))?)
        }
    };
    let update = UserUpdate { password: Some(password), tags: Some(tags), ..UserUpdate::default() };
    let is_new = call.broker().access.put_user(call.named("u"), update)?;
    Ok(Reply::put(is_new).when_all_stored())
}

pub(super) fn delete(call: &Call) -> Answer {
    if call.broker().access.remove_user(call.named("u")) {
        Ok(Reply::done().when_all_stored())
    } else {
        Err(ApiError::object_not_found())
    }
}

pub(super) fn bulk_delete(call: &Call) -> Answer {
    let fields = call.fields()?;
    let [users] = fields.require(["users"])?;
    let wrong = |value: &Json| super::body::wrong("users", "a list of names", value);
    let names: Vec<&str> = users
        .as_array()
        .ok_or_else(|| wrong(users))?
        .iter()
        .map(|name| name.as_str().ok_or_else(|| wrong(name)))
        .collect::<Result<_, _>>()?;
    for name in names {
        call.broker().access.remove_user(name);
    }
    Ok(Reply::done().when_all_stored())
}

/// The limits of a user as lists show them; none where it has none.
pub(super) fn limits(record: &UserRecord) -> Option<Json> {
    let shown = exported_user(record);
    let limits = shown.get("limits")?.as_object().filter(|limits| !limits.is_empty())?;
    Some(json!({"user": record.name, "value": limits}))
}
