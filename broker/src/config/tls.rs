//! `tls`: certificates and keys, of the file and of the sections that have their own.
//!
//! The files are read when the topology is, so that a mistake in one of them has its line in the topology, and `broker check` finds it.

use std::net::SocketAddr;

use super::diagnostic::Diagnostic;
use super::reader::{Fields, Hint, Reader, Section};
use super::yaml::Node;
use crate::tls::{self, Inside, Part};
use crate::topology::schema::{ClientCertificates, LoginFrom, TlsDecl, TlsVersion, Topology};

pub(super) const TLS: Section = Section {
    what: "tls",
    keys: &["certificate", "key", "ca", "client_certificates", "version_min", "login_from"],
    hints: &[
        ("cert", Hint::Instead("did you mean 'certificate'?")),
        ("certfile", Hint::Instead("did you mean 'certificate'?")),
        ("keyfile", Hint::Instead("did you mean 'key'?")),
        ("cacertfile", Hint::Instead("did you mean 'ca'?")),
        ("ca_file", Hint::Instead("did you mean 'ca'?")),
        ("verify", Hint::Instead("did you mean 'client_certificates: none, request or require'?")),
        ("fail_if_no_peer_cert", Hint::Instead("did you mean 'client_certificates: require'?")),
        ("versions", Hint::Instead("did you mean 'version_min'?")),
        ("min_version", Hint::Instead("did you mean 'version_min'?")),
        ("ssl_cert_login_from", Hint::Instead("did you mean 'login_from'?")),
        (
            "password",
            Hint::Instead("keys with a password are not read: 'openssl pkey -in FILE -out FILE' takes it away"),
        ),
        ("listen", Hint::Instead("addresses stand where they are listened on: 'listeners: { amqps: 5671 }'")),
        ("ciphers", Hint::NotYet),
        ("crl", Hint::NotYet),
    ],
};

const CLIENT_CERTIFICATES: &[(&str, ClientCertificates)] = &[
    ("none", ClientCertificates::None),
    ("request", ClientCertificates::Request),
    ("require", ClientCertificates::Require),
];

const VERSIONS: &[(&str, TlsVersion)] = &[
    ("1.2", TlsVersion::V1_2),
    ("1.3", TlsVersion::V1_3),
    ("tlsv1.2", TlsVersion::V1_2),
    ("tlsv1.3", TlsVersion::V1_3),
];

const LOGIN_FROM: &[(&str, LoginFrom)] = &[
    ("none", LoginFrom::Nothing),
    ("distinguished_name", LoginFrom::DistinguishedName),
    ("common_name", LoginFrom::CommonName),
    ("dns_name", LoginFrom::DnsName),
    ("email", LoginFrom::Email),
    ("uri", LoginFrom::Uri),
    ("ip_address", LoginFrom::IpAddress),
    // RabbitMQ's word, with its default for the type of name.
    ("subject_alternative_name", LoginFrom::DnsName),
];

/// The section of the file.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, topology: &mut Topology) {
    topology.tls = settings(reader, node, None, Inside::Amqp);
}

/// The settings of a section, and what those of the file say where it says nothing.
pub(super) fn settings(
    reader: &mut Reader<'_>,
    node: &Node,
    above: Option<&TlsDecl>,
    inside: Inside,
) -> Option<TlsDecl> {
    let fields = reader.fields(node, &TLS)?;
    let mut path = |key: &str| fields.get(key).map(|node| reader.path(node));
    let (certificate, key, ca) = (path("certificate"), path("key"), path("ca"));
    let certificate = certificate.unwrap_or_else(|| above.map(|above| above.certificate.clone()));
    // A certificate of its own has a key of its own.
    let above_key = above.filter(|_| fields.get("certificate").is_none());
    let is_key_given = key.is_some() || above_key.is_some();
    let key = key.unwrap_or_else(|| above_key.map(|above| above.key.clone()));
    if certificate.is_none() && fields.get("certificate").is_none() {
        reader.error(node.span, "tls needs a certificate", "add 'certificate: FILE' and 'key: FILE'");
    }
    if !is_key_given {
        reader.error(node.span, "tls needs the key of its certificate", "add 'key: FILE'");
    }
    let ca = ca.unwrap_or_else(|| above.and_then(|above| above.ca.clone()));
    let client_certificates = choice(reader, &fields, "client_certificates", CLIENT_CERTIFICATES);
    let version_min = choice(reader, &fields, "version_min", VERSIONS);
    let login_from = choice(reader, &fields, "login_from", LOGIN_FROM);
    let decl = TlsDecl {
        certificate: certificate?,
        key: key?,
        ca,
        client_certificates: client_certificates.or(above.map(|above| above.client_certificates)).unwrap_or_default(),
        version_min: version_min.or(above.map(|above| above.version_min)).unwrap_or_default(),
        login_from: login_from.or(above.map(|above| above.login_from)).unwrap_or_default(),
    };
    if let Some(node) = fields.get("login_from")
        && decl.client_certificates == ClientCertificates::None
        && decl.login_from != LoginFrom::Nothing
    {
        let cause = "clients are not asked for the certificate that is to name their user";
        reader.warning(node.span, cause, "add 'client_certificates: request' or 'require'");
    }
    check_files(reader, node, &fields, &decl, inside);
    Some(decl)
}

/// The settings of `management` or `metrics`; those of the file, where it has none of its own.
pub(super) fn of_section(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    listen_tls: &[SocketAddr],
    above: Option<&TlsDecl>,
) -> Option<TlsDecl> {
    let decl = match fields.get("tls") {
        Some(node) => {
            if listen_tls.is_empty() && fields.get("listen_tls").is_none() {
                reader.warning(node.span, "nothing listens with TLS here", "add 'listen_tls: ADDR:PORT'");
            }
            return settings(reader, node, above, Inside::Http);
        }
        None => above.cloned(),
    };
    if let Some(node) = fields.get("listen_tls") {
        check_listen(reader, node, listen_tls, decl.is_some());
    }
    decl
}

/// Whoever listens with TLS needs a certificate.
pub(super) fn check_listen(reader: &mut Reader<'_>, node: &Node, addresses: &[SocketAddr], has_tls: bool) {
    // What is wrong with `tls` itself has been said.
    if !addresses.is_empty() && !has_tls && !reader.diagnostics.iter().any(Diagnostic::is_error) {
        let help = "add 'tls: { certificate: FILE, key: FILE }' to the file";
        reader.error(node.span, "listening with TLS needs a certificate", help);
    }
}

/// Settings that nothing uses are most likely a forgotten listener.
pub(super) fn check_use(reader: &mut Reader<'_>, node: &Node, topology: &Topology) {
    let Topology { listeners, management, metrics, .. } = topology;
    if listeners.amqps.is_empty() && management.listen_tls.is_empty() && metrics.listen_tls.is_empty() {
        reader.warning(node.span, "nothing listens with TLS", "add 'listeners: { amqps: 5671 }'");
    }
}

fn check_files(reader: &mut Reader<'_>, node: &Node, fields: &Fields<'_>, decl: &TlsDecl, inside: Inside) {
    let span = |key: &str| fields.get(key).map_or(node.span, |node| node.span);
    let loaded = match tls::load(decl, inside) {
        Ok(loaded) => loaded,
        Err(error) => {
            let key = match error.part {
                Part::Certificate => "certificate",
                Part::Key => "key",
                Part::Ca if decl.ca.is_none() => "client_certificates",
                Part::Ca => "ca",
            };
            return reader.error(span(key), error.cause, error.help);
        }
    };
    if tls::key_is_exposed(&decl.key) {
        let cause = format!("everybody on this machine may read the key {}", decl.key.display());
        reader.warning(span("key"), cause, "chmod 600, and let the broker's user own it");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    for (key, certificates) in [("certificate", &loaded.chain), ("ca", &loaded.authorities)] {
        for certificate in certificates {
            let cause = if certificate.not_after < now {
                format!("the certificate of {} has expired: {}", certificate.subject, certificate.validity)
            } else if certificate.not_before > now {
                format!("the certificate of {} is not valid yet: {}", certificate.subject, certificate.validity)
            } else {
                continue;
            };
            reader.warning(span(key), cause, "replace the file; a running broker takes the new one over");
        }
    }
}

fn choice<T: Copy>(reader: &mut Reader<'_>, fields: &Fields<'_>, key: &str, words: &[(&'static str, T)]) -> Option<T> {
    fields.get(key).and_then(|node| reader.choice(node, words))
}
