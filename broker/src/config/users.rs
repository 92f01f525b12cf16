//! `users` with their passwords and permissions.

use std::{fs::File, io::Read as _, path::Path};

use super::{
    policies,
    reader::{Fields, Hint, Named, Reader, Section},
    source::Span,
    yaml::{Entry, Node, Value},
};
use crate::{
    access::{HashAlgorithm, PasswordHash},
    topology::{
        check::{Item, Part},
        schema::{PasswordDecl, PermissionDecl, TopicPermissionDecl, Topology, UserDecl, UserLimitsDecl},
    },
};

pub(super) const USER: Section = Section {
    what: "a user",
    keys: &["password", "tags", "loopback_only", "permissions", "topic_permissions", "limits"],
    hints: &[
        ("password_hash", Hint::Instead("write 'password: { hash: …, algorithm: sha256 }'")),
        ("hashing_algorithm", Hint::Instead("write 'password: { hash: …, algorithm: sha256 }'")),
        ("password_env", Hint::Instead("write 'password: { env: … }'")),
        ("password_file", Hint::Instead("write 'password: { file: … }'")),
    ],
};

pub(super) const PASSWORD: Section =
    Section { what: "a password", keys: &["env", "file", "hash", "algorithm"], hints: &[] };

pub(super) const PERMISSION: Section = Section {
    what: "permissions",
    keys: &["configure", "write", "read"],
    hints: &[("vhost", Hint::Instead("the vhost is the key: 'permissions: { /: { read: .* } }'"))],
};

pub(super) const TOPIC_PERMISSION: Section = Section {
    what: "topic permissions",
    keys: &["write", "read"],
    hints: &[("configure", Hint::Instead("topic permissions are for publishing (write) and binding (read)"))],
};

/// A password file holds one line; more is a mistake, such as the wrong file.
const PASSWORD_FILE_BYTES_MAX: u64 = 4096;

pub(super) fn read(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    for named in reader.named(node, &USER) {
        let at = topology.users.len();
        reader.place(Item::User(at), Part::Whole, named.name_span);
        let fields = reader.named_fields(&named, &USER);
        let user = user(reader, &named, fields, at);
        topology.users.push(user);
    }
}

fn user(reader: &mut Reader<'_>, named: &Named<'_>, fields: Option<Fields<'_>>, at: usize) -> UserDecl {
    let mut user = UserDecl {
        name: named.name.clone(),
        // In its place until the password is read: with this one nobody can log in.
        password: PasswordDecl::Hash { hash: String::new(), algorithm: HashAlgorithm::default() },
        tags: Vec::new(),
        loopback_only: false,
        permissions: Vec::new(),
        topic_permissions: Vec::new(),
        limits: UserLimitsDecl::default(),
    };
    let node = |key| fields.as_ref().and_then(|fields| fields.get(key));
    match node("password") {
        Some(node) => user.password = password(reader, node).unwrap_or(user.password),
        None if named.body.is_none() || fields.is_some() => reader.error(
            named.name_span,
            format!("user '{}' has no password", named.name),
            "add 'password: …', or 'password: { hash: \"\" }' for a user that cannot log in with one",
        ),
        None => {}
    }
    if let Some(node) = node("tags") {
        tags(reader, node, at, &mut user.tags);
    }
    if let Some(node) = node("loopback_only") {
        user.loopback_only = reader.flag(node).unwrap_or(true);
    }
    if let Some(node) = node("permissions") {
        permissions(reader, node, at, &mut user.permissions);
    }
    if let Some(node) = node("topic_permissions") {
        topic_permissions(reader, node, at, &mut user.topic_permissions);
    }
    if let Some(fields) = node("limits").and_then(|node| reader.fields(node, &policies::USER_LIMITS)) {
        let mut limit = |key| fields.get(key).and_then(|node| policies::integer(reader, node));
        user.limits = UserLimitsDecl { max_connections: limit("max_connections"), max_channels: limit("max_channels") };
    }
    user
}

/// A list, or one text with commas as in RabbitMQ's old definitions.
fn tags(reader: &mut Reader<'_>, node: &Node, at: usize, tags: &mut Vec<String>) {
    for item in reader.items(node) {
        let Some(text) = reader.text(item) else { continue };
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            reader.place(Item::User(at), Part::Tag(tags.len()), item.span);
            tags.push(tag.to_owned());
        }
    }
}

fn permissions(reader: &mut Reader<'_>, node: &Node, user: usize, permissions: &mut Vec<PermissionDecl>) {
    let form = "write '/: { configure: …, write: …, read: … }'";
    let Some(entries) = mapping(reader, node, "a mapping from vhosts to patterns", form) else { return };
    for entry in entries {
        let item = Item::Permission(user, permissions.len());
        reader.place(item, Part::Whole, entry.key_span);
        permissions.push(permission(reader, &entry.key, &entry.value, item));
    }
}

/// Three patterns, or one text that stands for all three. What is left out matches nothing.
fn permission(reader: &mut Reader<'_>, vhost: &str, node: &Node, item: Item) -> PermissionDecl {
    let nothing = String::new;
    let mut decl = PermissionDecl { vhost: vhost.to_owned(), configure: nothing(), write: nothing(), read: nothing() };
    if matches!(node.value, Value::Scalar(_)) {
        if let Some(pattern) = reader.text(node) {
            // A pattern that is wrong is said to be wrong once.
            reader.place(item, Part::Configure, node.span);
            match crate::access::Pattern::new(&pattern) {
                Ok(_) => (decl.configure, decl.write, decl.read) = (pattern.clone(), pattern.clone(), pattern),
                Err(_) => decl.configure = pattern,
            }
        }
        return decl;
    }
    let Some(fields) = reader.fields(node, &PERMISSION) else { return decl };
    for (key, part, pattern) in [
        ("configure", Part::Configure, &mut decl.configure),
        ("write", Part::Write, &mut decl.write),
        ("read", Part::Read, &mut decl.read),
    ] {
        if let Some(node) = fields.get(key)
            && let Some(text) = reader.text(node)
        {
            reader.place(item, part, node.span);
            *pattern = text;
        }
    }
    decl
}

/// By vhost and exchange: `{ /: { amq.topic: { write: …, read: … } } }`.
fn topic_permissions(reader: &mut Reader<'_>, node: &Node, user: usize, permissions: &mut Vec<TopicPermissionDecl>) {
    let form = "write '/: { EXCHANGE: { write: …, read: … } }'";
    let Some(vhosts) = mapping(reader, node, "a mapping from vhosts to exchanges", form) else { return };
    for vhost in vhosts {
        let Some(exchanges) = mapping(reader, &vhost.value, "a mapping from exchanges to patterns", form) else {
            continue;
        };
        for exchange in exchanges {
            let item = Item::TopicPermission(user, permissions.len());
            reader.place(item, Part::Whole, exchange.key_span);
            reader.place(item, Part::Vhost, vhost.key_span);
            let mut decl = TopicPermissionDecl {
                vhost: vhost.key.clone(),
                exchange: exchange.key.clone(),
                write: String::new(),
                read: String::new(),
            };
            if let Some(fields) = reader.fields(&exchange.value, &TOPIC_PERMISSION) {
                for (key, part, pattern) in
                    [("write", Part::Write, &mut decl.write), ("read", Part::Read, &mut decl.read)]
                {
                    if let Some(node) = fields.get(key)
                        && let Some(text) = reader.text(node)
                    {
                        reader.place(item, part, node.span);
                        *pattern = text;
                    }
                }
            }
            permissions.push(decl);
        }
    }
}

fn mapping<'n>(reader: &mut Reader<'_>, node: &'n Node, what: &str, form: &str) -> Option<&'n [Entry]> {
    match &node.value {
        Value::Mapping(entries) => Some(entries),
        _ if node.is_null() => Some(&[]),
        _ => {
            reader.wrong(node, what, form);
            None
        }
    }
}

/// The password itself, or where it comes from.
fn password(reader: &mut Reader<'_>, node: &Node) -> Option<PasswordDecl> {
    if matches!(node.value, Value::Scalar(_)) {
        let text = reader.text(node)?;
        return plain(reader, text, node.span, "an empty password is never accepted");
    }
    let fields = reader.fields(node, &PASSWORD)?;
    let sources: Vec<_> = ["env", "file", "hash"].into_iter().filter_map(|key| fields.entry(key)).collect();
    let [source] = sources.as_slice() else {
        let cause =
            if sources.is_empty() { "this password comes from nowhere" } else { "this password is given twice" };
        reader.error(node.span, cause, "give one of env, file, hash");
        return None;
    };
    if let Some(algorithm) = fields.entry("algorithm")
        && source.key != "hash"
    {
        reader.error(algorithm.key_span, "an algorithm belongs to a hash", "remove it");
    }
    let text = reader.text(&source.value)?;
    let span = source.value.span;
    match source.key.as_str() {
        "env" => match (reader.environment)(&text) {
            Some(value) => plain(reader, value, span, "the variable is set but empty"),
            None => {
                reader.error(span, format!("environment variable '{text}' is not set"), "set it for the broker");
                None
            }
        },
        "file" => {
            let path = reader.path(&source.value)?;
            match read_secret(&path) {
                Ok(value) => plain(reader, value, span, "the file is empty"),
                Err(cause) => {
                    reader.error(span, cause, "paths are relative to this file's folder");
                    None
                }
            }
        }
        _ => hash(reader, text, span, fields.get("algorithm")),
    }
}

fn plain(reader: &mut Reader<'_>, password: String, span: Span, when_empty: &str) -> Option<PasswordDecl> {
    if password.is_empty() {
        reader.error(span, "the password is empty", when_empty);
        return None;
    }
    if password.contains('\0') {
        reader.error(span, "the password contains NUL", "no client can send it");
        return None;
    }
    Some(PasswordDecl::Plain(password))
}

fn hash(reader: &mut Reader<'_>, hash: String, span: Span, algorithm: Option<&Node>) -> Option<PasswordDecl> {
    let algorithm = match algorithm {
        None => HashAlgorithm::default(),
        Some(node) => {
            let name = reader.text(node)?;
            match HashAlgorithm::parse(&name) {
                Ok(algorithm) => algorithm,
                Err(error) => {
                    reader.error(node.span, error.to_string(), "write 'algorithm: sha256'");
                    return None;
                }
            }
        }
    };
    if !hash.is_empty()
        && let Err(error) = PasswordHash::parse(&hash, algorithm)
    {
        reader.error(span, error.to_string(), "take it from 'rabbitmqctl export_definitions', or give the password");
        return None;
    }
    Some(PasswordDecl::Hash { hash, algorithm })
}

/// The content of a secret file without its last line break.
fn read_secret(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("no password file {shown}"),
        _ => format!("the password file {shown} cannot be opened: {error}"),
    })?;
    let mut text = String::new();
    let count = file
        .take(PASSWORD_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("the password file {shown} cannot be read: {error}"))?;
    if count as u64 > PASSWORD_FILE_BYTES_MAX {
        return Err(format!("the password file {shown} is longer than {PASSWORD_FILE_BYTES_MAX} bytes"));
    }
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)).to_owned())
}
