//! Questions to auth backends and their answers as bytes: a field table each, so that they may grow by further entries.

use std::net::IpAddr;
use std::time::Duration;

use super::spec::contents;
use crate::auth::{
    Answer, AuthBackend, AuthError, ExternalLogin, Identity, Login, Permission, Renewal, Resource, ResourceRequest,
    Subject, TopicRequest, Verdict, VhostRequest,
};
use crate::error::Invalid;
use crate::value::{Table, Value};

// The host's side.

pub(crate) fn login(login: &Login<'_>) -> Vec<u8> {
    let table = Table::new()
        .with("ask", "login")
        .with("user", login.user)
        .with("password", Value::Bytes(login.password.to_vec()))
        .with("peer", login.peer.to_string());
    contents(&match login.vhost {
        Some(vhost) => table.with("vhost", vhost),
        None => table,
    })
}

/// Since 2.4.
pub(crate) fn external_login(login: &ExternalLogin<'_>) -> Vec<u8> {
    let table = Table::new().with("ask", "external").with("user", login.user);
    contents(&table.with("peer", login.peer.to_string()))
}

pub(crate) fn renewal(renewal: &Renewal<'_>) -> Vec<u8> {
    contents(&about("renew", &renewal.subject).with("secret", Value::Bytes(renewal.secret.to_vec())))
}

pub(crate) fn vhost(request: &VhostRequest<'_>) -> Vec<u8> {
    contents(&about("vhost", &request.subject).with("vhost", request.vhost))
}

pub(crate) fn resource(request: &ResourceRequest<'_>) -> Vec<u8> {
    let kind = match request.resource {
        Resource::Exchange => "exchange",
        Resource::Queue => "queue",
    };
    let table = about("resource", &request.subject).with("vhost", request.vhost).with("resource", kind);
    contents(&table.with("name", request.name).with("permission", name_of(request.permission)))
}

pub(crate) fn topic(request: &TopicRequest<'_>) -> Vec<u8> {
    let table = about("topic", &request.subject).with("vhost", request.vhost).with("exchange", request.exchange);
    contents(&table.with("routing_key", request.routing_key).with("permission", name_of(request.permission)))
}

fn about(ask: &str, subject: &Subject<'_>) -> Table {
    let tags = subject.tags.iter().map(|tag| Value::from(tag.as_str())).collect();
    let table = Table::new()
        .with("ask", ask)
        .with("user", subject.user)
        .with("tags", Value::Array(tags))
        .with("session", Value::Bytes(subject.session.to_vec()))
        .with("peer", subject.peer.to_string());
    with_expiry(table, subject.expires_at_ms)
}

fn with_expiry(table: Table, expires_at_ms: Option<u64>) -> Table {
    match expires_at_ms {
        Some(time) => table.with("expires_at_ms", number(time)),
        None => table,
    }
}

/// An answer of the plugin; an identity where a login or a renewal asked for one.
///
/// # Errors
/// A sentence about what is missing.
pub(crate) fn decode_answer(bytes: &[u8]) -> Result<Answer<Option<Identity>>, String> {
    let table = Table::decode(bytes).map_err(|error| error.to_string())?;
    let verdict = match table.get("verdict").and_then(Value::as_str) {
        Some("allow") => Verdict::Allow(match table.get("user") {
            Some(_) => Some(identity(&table).map_err(|error| error.text)?),
            None => None,
        }),
        Some("deny") => Verdict::Deny(text(&table, "reason").unwrap_or_default()),
        Some("not_mine") => Verdict::NotMine,
        other => return Err(format!("its verdict is {other:?}")),
    };
    let valid_ms = table.get("valid_ms").and_then(Value::as_i64).and_then(|ms| u64::try_from(ms).ok());
    Ok(Answer { verdict, valid_for: Duration::from_millis(valid_ms.unwrap_or_default()) })
}

// The plugin's side.

/// A question, owned by the future that answers it.
pub(crate) enum Question {
    Login { user: String, password: Vec<u8>, vhost: Option<String>, peer: IpAddr },
    External { user: String, peer: IpAddr },
    Renew { about: About, secret: Vec<u8> },
    Vhost { about: About, vhost: String },
    Resource { about: About, vhost: String, resource: Resource, name: String, permission: Permission },
    Topic { about: About, vhost: String, exchange: String, routing_key: String, permission: Permission },
}

/// The user a question is about.
pub(crate) struct About {
    identity: Identity,
    peer: IpAddr,
}

impl About {
    fn subject(&self) -> Subject<'_> {
        self.identity.subject(self.peer)
    }
}

impl Question {
    /// # Errors
    /// A kind of question that this plugin does not know, or one that lacks something.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let table = &Table::decode(bytes).map_err(|error| Invalid::new(error.to_string()))?;
        let peer = text(table, "peer")?.parse().map_err(|_| missing("peer"))?;
        let about = || Ok::<_, Invalid>(About { identity: identity(table)?, peer });
        Ok(match text(table, "ask")?.as_str() {
            "login" => Self::Login {
                user: text(table, "user")?,
                password: bytes_of(table, "password").ok_or_else(|| missing("password"))?,
                vhost: text(table, "vhost").ok(),
                peer,
            },
            "external" => Self::External { user: text(table, "user")?, peer },
            "renew" => {
                Self::Renew { about: about()?, secret: bytes_of(table, "secret").ok_or_else(|| missing("secret"))? }
            }
            "vhost" => Self::Vhost { about: about()?, vhost: text(table, "vhost")? },
            "resource" => Self::Resource {
                about: about()?,
                vhost: text(table, "vhost")?,
                resource: match text(table, "resource")?.as_str() {
                    "exchange" => Resource::Exchange,
                    "queue" => Resource::Queue,
                    other => return Err(Invalid::new(format!("knows no resource '{other}'"))),
                },
                name: text(table, "name")?,
                permission: permission(table)?,
            },
            "topic" => Self::Topic {
                about: about()?,
                vhost: text(table, "vhost")?,
                exchange: text(table, "exchange")?,
                routing_key: text(table, "routing_key")?,
                permission: permission(table)?,
            },
            other => return Err(Invalid::new(format!("knows no question '{other}'"))),
        })
    }

    /// Asks the author's backend.
    ///
    /// # Errors
    /// The backend could not decide.
    pub(crate) async fn put_to(&self, backend: &dyn AuthBackend) -> Result<Answer<Option<Identity>>, AuthError> {
        Ok(match self {
            Self::Login { user, password, vhost, peer } => {
                let login = Login { user, password, vhost: vhost.as_deref(), peer: *peer };
                backend.login(&login).await?.map(Some)
            }
            Self::External { user, peer } => {
                backend.login_external(&ExternalLogin { user, peer: *peer }).await?.map(Some)
            }
            Self::Renew { about, secret } => {
                backend.renew(&Renewal { subject: about.subject(), secret }).await?.map(Some)
            }
            Self::Vhost { about, vhost } => {
                backend.vhost(&VhostRequest { subject: about.subject(), vhost }).await?.map(|()| None)
            }
            Self::Resource { about, vhost, resource, name, permission } => {
                let (resource, permission) = (*resource, *permission);
                let request = ResourceRequest { subject: about.subject(), vhost, resource, name, permission };
                backend.resource(&request).await?.map(|()| None)
            }
            Self::Topic { about, vhost, exchange, routing_key, permission } => {
                let (subject, permission) = (about.subject(), *permission);
                let request = TopicRequest { subject, vhost, exchange, routing_key, permission };
                backend.topic(&request).await?.map(|()| None)
            }
        })
    }
}

pub(crate) fn encode_answer(answer: &Answer<Option<Identity>>) -> Vec<u8> {
    let valid_ms = u64::try_from(answer.valid_for.as_millis()).unwrap_or(u64::MAX);
    let table = Table::new().with("valid_ms", number(valid_ms));
    contents(&match &answer.verdict {
        Verdict::Allow(None) => table.with("verdict", "allow"),
        Verdict::Allow(Some(identity)) => {
            let tags = identity.tags.iter().map(|tag| Value::from(tag.as_str())).collect();
            let table = table
                .with("verdict", "allow")
                .with("user", &identity.user)
                .with("tags", Value::Array(tags))
                .with("session", Value::Bytes(identity.session.clone()));
            with_expiry(table, identity.expires_at_ms)
        }
        Verdict::Deny(reason) => table.with("verdict", "deny").with("reason", reason),
        Verdict::NotMine => table.with("verdict", "not_mine"),
    })
}

// Both sides.

fn identity(table: &Table) -> Result<Identity, Invalid> {
    let tags = match table.get("tags") {
        Some(Value::Array(tags)) => tags.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Ok(Identity {
        user: text(table, "user")?,
        tags,
        expires_at_ms: table.get("expires_at_ms").and_then(Value::as_i64).and_then(|ms| u64::try_from(ms).ok()),
        session: bytes_of(table, "session").unwrap_or_default(),
    })
}

fn name_of(permission: Permission) -> &'static str {
    match permission {
        Permission::Configure => "configure",
        Permission::Write => "write",
        Permission::Read => "read",
    }
}

fn permission(table: &Table) -> Result<Permission, Invalid> {
    match text(table, "permission")?.as_str() {
        "configure" => Ok(Permission::Configure),
        "write" => Ok(Permission::Write),
        "read" => Ok(Permission::Read),
        other => Err(Invalid::new(format!("knows no permission '{other}'"))),
    }
}

fn number(number: u64) -> Value {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}

fn text(table: &Table, key: &str) -> Result<String, Invalid> {
    table.get(key).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| missing(key))
}

fn bytes_of(table: &Table, key: &str) -> Option<Vec<u8>> {
    match table.get(key) {
        Some(Value::Bytes(bytes)) => Some(bytes.clone()),
        _ => None,
    }
}

fn missing(key: &str) -> Invalid {
    Invalid::new(format!("the question lacks '{key}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_the_crossing() {
        let identity = Identity {
            user: "é".into(),
            tags: vec!["administrator".into(), "x".into()],
            expires_at_ms: Some(1_700_000_000_000),
            session: vec![0, 255],
        };
        for answer in [
            Answer::allow(Some(identity)).valid_for(Duration::from_secs(5)),
            Answer::allow(Some(Identity::new("app", ["management"]))),
            Answer::allow(None),
            Answer::deny("because"),
            Answer::not_mine().valid_for(Duration::from_millis(1)),
        ] {
            assert_eq!(decode_answer(&encode_answer(&answer)), Ok(answer));
        }
        let for_ever = decode_answer(&encode_answer(&Answer::allow(None).valid_for(Duration::MAX))).unwrap();
        assert!(for_ever.valid_for > Duration::from_secs(1 << 40));
        assert!(decode_answer(b"").unwrap_err().contains("verdict"));
    }

    #[test]
    fn question_that_lacks_something_is_refused_by_name() {
        let peer = IpAddr::from([127, 0, 0, 1]);
        let whole = login(&Login { user: "u", password: b"\xff", vhost: None, peer });
        assert!(Question::decode(&whole).is_ok());
        let table = Table::new().with("ask", "login").with("peer", "::1");
        let error = Question::decode(&contents(&table)).err().unwrap();
        assert_eq!(error.text, "the question lacks 'user'");
        let named = external_login(&ExternalLogin { user: "u", peer });
        assert!(matches!(Question::decode(&named), Ok(Question::External { user, .. }) if user == "u"));
        let table = Table::new().with("ask", "weather").with("peer", "::1").with("user", "u");
        assert_eq!(Question::decode(&contents(&table)).err().unwrap().text, "knows no question 'weather'");
    }
}
