//! What a topology file declares, as plain data with every default filled in.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use plugin_api::{exchange::DestinationKind, message::PropertiesBuf, value::Table};

use crate::{
    access::{HashAlgorithm, INTERNAL},
    hooks::HookDecl,
    plugin_host::Isolation,
    queue::Durability,
    vhost::{
        PREDECLARED,
        broker_exchanges::{EVENT_EXCHANGE, LOG_EXCHANGE},
        policy::{PolicyKind, PolicySpec},
        settings::{VhostLimits, VhostMetadata},
        strict::Strict,
    },
};

/// Everything one file declares.
#[derive(Clone, Debug)]
pub struct Topology {
    /// How the broker introduces itself.
    pub node: NodeDecl,
    /// Where it listens.
    pub listeners: ListenersDecl,
    /// How listeners encrypt.
    pub tls: Option<TlsDecl>,
    /// The management API.
    pub management: ManagementDecl,
    /// What Prometheus scrapes.
    pub metrics: MetricsDecl,
    /// What it allows its peers.
    pub limits: LimitsDecl,
    /// Where persistent messages go.
    pub storage: StorageDecl,
    /// Plugin files to load, in order.
    pub plugins: Vec<PluginDecl>,
    /// Who is asked about logins, in order.
    pub auth: Vec<AuthBackendDecl>,
    /// Internal users with their permissions.
    pub users: Vec<UserDecl>,
    /// Hooks of all scopes, in the order in which they run within one scope.
    pub hooks: Vec<HookDecl>,
    /// Virtual hosts with what is in them.
    pub vhosts: Vec<VhostDecl>,
    /// What is said about a binding whose ends are not equally durable.
    pub bindings_mixed_durability: MixedDurability,
    /// Definitions that are imported at each start.
    pub definitions: Option<DefinitionsDecl>,
    /// Parameters of the broker as a whole, by name.
    pub parameters: Vec<(String, serde_json::Value)>,
    /// What is not said here, and therefore only there where nothing has been stored.
    pub defaults: Defaults,
    /// Where the file is; none without one.
    pub folder: Option<PathBuf>,
    /// Whose file this is: what it declares is marked with this name, so that nobody prunes what is another's.
    pub owner: String,
    /// The sections at the top that the file has.
    pub sections: Vec<&'static str>,
    /// What messages shall reach, checked by `broker test`.
    pub tests: Vec<RouteTestDecl>,
}

/// The owner of a file that names none.
pub const DEFAULT_OWNER: &str = "topology";

/// One entry of `tests`: a message, and where it shall go.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTestDecl {
    /// For reports; none where the file gives none.
    pub name: Option<String>,
    /// Where it is published.
    pub vhost: String,
    /// To which exchange.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// With which properties, headers among them.
    pub properties: PropertiesBuf,
    /// With which body.
    pub body: Vec<u8>,
    /// Whether it comes back when no queue takes it.
    pub mandatory: bool,
    /// The user of the file who publishes it; none is somebody who may do everything.
    pub user: Option<String>,
    /// What shall become of it.
    pub expect: ExpectDecl,
}

/// What shall become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectDecl {
    /// It reaches these queues and no others.
    Queues(Vec<String>),
    /// It reaches no queue, or a hook drops it; the reason has this in it.
    Dropped(String),
    /// A hook sends it to the dead letters, where it reaches these queues and no others; none says nothing of queues.
    DeadLettered(Option<Vec<String>>),
    /// It reaches no queue and comes back to its publisher, because it is mandatory.
    Returned,
    /// A hook or a permission refuses it; the reason has this in it.
    Rejected(String),
}

/// Which sections a file leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// `users`: the only one is guest.
    pub users: bool,
    /// `vhosts`: the only one is `/`.
    pub vhosts: bool,
}

/// `definitions`: what a RabbitMQ has exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionsDecl {
    /// A file, or a folder whose `.json` files are imported in the order of their names.
    pub path: PathBuf,
    /// Whether nothing is imported while the content is that of the last import.
    pub skip_if_unchanged: bool,
}

/// `node`: how the broker introduces itself to clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDecl {
    /// `product` of the server properties; clients decide on it what they use.
    pub product: Option<String>,
    /// `version` of the server properties.
    pub version: Option<String>,
    /// `cluster_name` of the server properties.
    pub cluster_name: Option<String>,
    /// What is refused on request: `quorum_queues` and `transient_queues`.
    pub strict: Strict,
}

/// `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenersDecl {
    /// Plain AMQP 0-9-1.
    pub amqp: Vec<SocketAddr>,
    /// AMQP 0-9-1 over TLS, as `tls` says.
    pub amqps: Vec<SocketAddr>,
    /// Connections begin with the header of the PROXY protocol (semantics 2.10).
    pub proxy_protocol: bool,
}

/// `tls`: certificates and what is asked of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsDecl {
    /// The broker's certificate, with those between it and the authority behind it; PEM.
    pub certificate: PathBuf,
    /// The certificate's private key; PEM.
    pub key: PathBuf,
    /// The authorities that clients' certificates have to come from; PEM.
    pub ca: Option<PathBuf>,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
    /// The oldest version that is spoken.
    pub version_min: TlsVersion,
    /// What in a certificate names the user, for SASL EXTERNAL.
    pub login_from: LoginFrom,
}

/// Whether clients are asked for a certificate. One that is sent is always verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not (RabbitMQ: `verify_none`).
    #[default]
    None,
    /// They are, and may have none (`verify_peer` without `fail_if_no_peer_cert`).
    Request,
    /// Who has none is refused (`verify_peer` with `fail_if_no_peer_cert`).
    Require,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    V1_2,
    /// 1.3
    V1_3,
}

/// What in a certificate names the user (RabbitMQ: `ssl_cert_login_from`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginFrom {
    /// Nothing: EXTERNAL is not offered.
    Nothing,
    /// The whole subject, as RFC 4514 writes it: `CN=app,O=shop`.
    #[default]
    DistinguishedName,
    /// The common name in the subject.
    CommonName,
    /// The first DNS name among the alternative names.
    DnsName,
    /// The first e-mail address there.
    Email,
    /// The first URI there.
    Uri,
    /// The first IP address there.
    IpAddress,
}

/// `management`: the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagementDecl {
    /// Where it is served; nowhere when it is off.
    pub listen: Vec<SocketAddr>,
    /// Where it is served over TLS.
    pub listen_tls: Vec<SocketAddr>,
    /// How; as the file's `tls` in what it leaves out.
    pub tls: Option<TlsDecl>,
    /// The origins whose pages may use it; `*` stands for all, without credentials.
    pub cors_allow_origins: Vec<String>,
    /// How long browsers may remember that.
    pub cors_max_age_secs: u32,
    /// The longest body of a request.
    pub body_bytes_max: usize,
    /// What stands before each path, such as `/rabbit`; empty or with a slash at its beginning and none at its end.
    pub path_prefix: String,
    /// The header `strict-transport-security` of each answer, such as `max-age=31536000`.
    pub hsts: Option<String>,
    /// The header `content-security-policy` of each answer, instead of one that allows nothing.
    pub csp: Option<String>,
}

/// `metrics`: what Prometheus scrapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsDecl {
    /// Where it is served; nowhere when it is off.
    pub listen: Vec<SocketAddr>,
    /// Where it is served over TLS.
    pub listen_tls: Vec<SocketAddr>,
    /// How; as the file's `tls` in what it leaves out.
    pub tls: Option<TlsDecl>,
    /// Whether `/metrics` has a series for each object, as `/metrics/per-object` always does.
    pub per_object: bool,
}

/// `limits`: what peers may use up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsDecl {
    /// Largest frame offered in `connection.tune`, with header and end octet.
    pub frame_max_bytes: u32,
    /// Highest channel number offered in `connection.tune`.
    pub channel_max: u16,
    /// Heartbeat interval offered in `connection.tune`; 0 offers none.
    pub heartbeat_secs: u16,
    /// How long a client may take from connecting to `connection.open`.
    pub handshake_timeout_secs: u16,
    /// Largest body of one message.
    pub message_bytes_max: u64,
    /// Connections at the same time; `None` is unlimited.
    pub connections_max: Option<u32>,
    /// Consumers of one channel at the same time.
    pub consumer_max_per_channel: u32,
    /// Bindings that may lead to one queue, or to one exchange.
    pub bindings_per_queue_max: u32,
    /// What the publishes that the transactions of one connection hold may take in memory.
    pub transaction_bytes_max: u64,
    /// How long a stopping broker waits for its clients to go.
    pub shutdown_deadline_secs: u16,
    /// From so many bytes of messages in memory on, publishers are stopped; `None` is 60 % of the machine's or container's
    /// memory.
    pub memory_watermark_bytes: Option<u64>,
    /// With less than so many bytes free on the file system of the data folder, publishers are stopped; `None` is 50 MB, or a tenth
    /// of a file system below 500 MB.
    pub disk_free_bytes_min: Option<u64>,
    /// What messages may take in memory before queues put them out of it; `None` is 128 MiB, and no limit where nothing is
    /// written to disk.
    pub queue_memory_bytes: Option<u64>,
}

/// `storage`: the plugin that keeps persistent messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageDecl {
    /// Name of the storage, such as `memory`; none is `log` where there is a data folder, and `memory` elsewhere.
    pub kind: Option<String>,
    /// The file that it comes from; it is among [`Topology::plugins`], too.
    pub plugin: Option<PathBuf>,
    /// The data folder, relative paths resolved against the topology file's folder; `--data` wins over it.
    pub data: Option<PathBuf>,
    /// Handed to the storage as it is.
    pub config: serde_json::Value,
}

/// One entry of `plugins`.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginDecl {
    /// The shared library, relative paths resolved against the topology file's folder.
    pub path: PathBuf,
    /// Lower-case hexadecimal digest that the file must have.
    pub sha256: Option<String>,
    /// Whether the broker refuses to start without it.
    pub required: bool,
    /// Handed to the plugin as it is.
    pub config: serde_json::Value,
}

/// One entry of `auth.backends`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthBackendDecl {
    /// `internal`, or what a plugin offers.
    pub kind: String,
    /// Unique among the backends; the kind unless something else is said.
    pub name: String,
    /// Handed to the backend as it is.
    pub config: serde_json::Value,
    /// After that, a question counts as refused.
    pub timeout: Duration,
    /// Who says what the users that it lets in may do; empty is itself, several must all agree.
    pub authorization: Vec<String>,
    /// Which threads run it.
    pub isolation: Isolation,
}

impl AuthBackendDecl {
    /// A backend of this kind with everything else as it is when nothing is said.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            name: kind.to_owned(),
            config: serde_json::Value::Null,
            timeout: AUTH_TIMEOUT,
            authorization: Vec::new(),
            isolation: Isolation::default(),
        }
    }
}

/// How long a question to an auth backend may take unless the file says otherwise.
const AUTH_TIMEOUT: Duration = Duration::from_secs(5);

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDecl {
    /// Name for the login.
    pub name: String,
    /// Password or its hash.
    pub password: PasswordDecl,
    /// `administrator`, `monitoring`, …
    pub tags: Vec<String>,
    /// Whether logins are accepted from the broker's own machine only.
    pub loopback_only: bool,
    /// At most one entry for a vhost.
    pub permissions: Vec<PermissionDecl>,
    /// At most one entry for an exchange of a vhost.
    pub topic_permissions: Vec<TopicPermissionDecl>,
    /// How many connections and channels the user may have.
    pub limits: UserLimitsDecl,
}

/// A password as it was declared. Its `Debug` form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordDecl {
    /// The password itself, from the file, the environment or a secret file.
    Plain(String),
    /// A stored hash (RabbitMQ: "Password Hashing"); an empty one makes password login impossible.
    Hash {
        /// Base64 of salt and digest.
        hash: String,
        /// How it was made.
        algorithm: HashAlgorithm,
    },
}

/// What a user may do in one vhost: three patterns searched in resource names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionDecl {
    /// The vhost this is about.
    pub vhost: String,
    /// Declare and delete.
    pub configure: String,
    /// Publish, and be bound to.
    pub write: String,
    /// Consume, get, purge, and be bound from.
    pub read: String,
}

/// What a user may do with a topic exchange, by routing key: two patterns in which `{username}` and `{vhost}` stand for their values
/// (RabbitMQ: "Access Control", topic authorisation).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPermissionDecl {
    /// The vhost this is about.
    pub vhost: String,
    /// The exchange there.
    pub exchange: String,
    /// Keys to publish with.
    pub write: String,
    /// Keys to bind with.
    pub read: String,
}

/// How many connections and channels a user may have; nothing and negative values are no limit, 0 allows none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimitsDecl {
    /// `max-connections`
    pub max_connections: Option<i64>,
    /// `max-channels`, of all its connections together.
    pub max_channels: Option<i64>,
}

/// One virtual host.
#[derive(Clone, Debug, Default)]
pub struct VhostDecl {
    /// Name, as clients give it in `connection.open`.
    pub name: String,
    /// What confirms wait for in queues that do not say it themselves.
    pub durability: Durability,
    /// Description, tags and default queue type, if the file says anything of them.
    pub metadata: Option<VhostMetadata>,
    /// What there may be at most, if the file says so.
    pub limits: Option<VhostLimits>,
    /// Policies and operator policies.
    pub policies: Vec<(PolicyKind, PolicySpec)>,
    /// Parameters, but for those that have a place of their own.
    pub parameters: Vec<ParameterDecl>,
    /// Whether publishes and deliveries are copied to `amq.rabbitmq.trace` (semantics 29.1).
    pub is_traced: bool,
    /// Whether what happens in the broker is published to `amq.rabbitmq.event` (semantics 29.2).
    pub has_event_exchange: bool,
    /// Whether the log is published to `amq.rabbitmq.log` (semantics 29.3).
    pub has_log_exchange: bool,
    /// Exchanges beside the predeclared ones.
    pub exchanges: Vec<ExchangeDecl>,
    /// Queues.
    pub queues: Vec<QueueDecl>,
    /// Bindings.
    pub bindings: Vec<BindingDecl>,
}

impl VhostDecl {
    /// The exchanges that are there without being declared: name, type, whether it is internal. All are durable.
    pub fn own_exchanges(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let of_the_broker =
            [(EVENT_EXCHANGE, self.has_event_exchange), (LOG_EXCHANGE, self.has_log_exchange)].into_iter();
        let of_the_broker = of_the_broker.filter(|(_, is_there)| *is_there).map(|(name, _)| (name, "topic", true));
        PREDECLARED.into_iter().chain(of_the_broker)
    }
}

/// A parameter of a vhost (RabbitMQ: "Parameters and Policies").
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterDecl {
    /// Whose it is, such as `federation-upstream`.
    pub component: String,
    /// Unique in its component.
    pub name: String,
    /// As whoever asks for it gets it.
    pub value: serde_json::Value,
}

/// One exchange.
#[derive(Clone, Debug)]
pub struct ExchangeDecl {
    /// Unique in its vhost.
    pub name: String,
    /// Exchange type, built in or from a plugin.
    pub kind: String,
    /// Survives a restart.
    pub durable: bool,
    /// Goes away with its last binding.
    pub auto_delete: bool,
    /// Clients may not publish to it.
    pub internal: bool,
    /// Declaration arguments, friendly keys included.
    pub arguments: Table,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueDecl {
    /// Unique in its vhost.
    pub name: String,
    /// Survives a restart.
    pub durable: bool,
    /// Goes away with its last consumer.
    pub auto_delete: bool,
    /// Declaration arguments, friendly keys included.
    pub arguments: Table,
}

/// One binding.
#[derive(Clone, Debug)]
pub struct BindingDecl {
    /// The exchange that messages come from.
    pub source: String,
    /// The queue or exchange that they go to.
    pub destination: String,
    /// Which of the two.
    pub destination_kind: DestinationKind,
    /// Binding key.
    pub routing_key: String,
    /// Binding arguments.
    pub arguments: Table,
}

/// `bindings.mixed_durability`: what to do about a binding that does not survive a restart although one end does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MixedDurability {
    /// Bind it, as RabbitMQ does, and say so.
    #[default]
    Warn,
    /// The file is in error.
    Refuse,
}

/// The port of AMQP without TLS (IANA).
pub const AMQP_PORT: u16 = 5672;
/// The port that RabbitMQ's metrics are on.
pub const METRICS_PORT: u16 = 15692;
/// Where AMQP over TLS is spoken.
pub const AMQPS_PORT: u16 = 5671;
/// Where metrics are served over TLS, as by RabbitMQ.
pub const METRICS_TLS_PORT: u16 = 15691;
/// Where the management API is served over TLS, as by RabbitMQ.
pub const MANAGEMENT_TLS_PORT: u16 = 15671;

/// The port of RabbitMQ's management API.
pub const MANAGEMENT_PORT: u16 = 15672;

impl Default for Topology {
    /// What the broker runs without a file: vhost `/`, and guest/guest from the same machine.
    fn default() -> Self {
        let vhosts = vec![VhostDecl { name: "/".to_owned(), ..VhostDecl::default() }];
        Self {
            node: NodeDecl::default(),
            listeners: ListenersDecl::default(),
            tls: None,
            management: ManagementDecl::default(),
            metrics: MetricsDecl::default(),
            limits: LimitsDecl::default(),
            storage: StorageDecl::default(),
            plugins: Vec::new(),
            auth: vec![AuthBackendDecl::new(INTERNAL)],
            users: vec![UserDecl::guest(&vhosts)],
            hooks: Vec::new(),
            vhosts,
            bindings_mixed_durability: MixedDurability::default(),
            definitions: None,
            parameters: Vec::new(),
            defaults: Defaults { users: true, vhosts: true },
            owner: DEFAULT_OWNER.to_owned(),
            sections: Vec::new(),
            tests: Vec::new(),
            folder: None,
        }
    }
}

impl Topology {
    /// Puts other names in the place of the default vhost `/` and the default user guest, as RabbitMQ's container does. What the file
    /// declares stays. True if everything that was given has been used.
    pub fn set_defaults(&mut self, user: Option<&str>, password: Option<&str>, vhost: Option<&str>) -> bool {
        if let (Some(name), true) = (vhost, self.defaults.vhosts) {
            self.vhosts = vec![VhostDecl { name: name.to_owned(), ..VhostDecl::default() }];
        }
        let is_user_given = user.is_some() || password.is_some();
        if self.defaults.users {
            self.users = vec![UserDecl::first(user.unwrap_or("guest"), password.unwrap_or("guest"), &self.vhosts)];
        }
        (vhost.is_none() || self.defaults.vhosts) && (!is_user_given || self.defaults.users)
    }
}

impl Default for ListenersDecl {
    fn default() -> Self {
        let amqp = vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), AMQP_PORT)];
        Self { amqp, amqps: Vec::new(), proxy_protocol: false }
    }
}

impl Default for ManagementDecl {
    fn default() -> Self {
        Self {
            // Whoever may change everything should not be reachable from everywhere unless somebody said so.
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), MANAGEMENT_PORT)],
            listen_tls: Vec::new(),
            tls: None,
            cors_allow_origins: Vec::new(),
            // RabbitMQ's values.
            cors_max_age_secs: 1800,
            body_bytes_max: 20_000_000,
            path_prefix: String::new(),
            hsts: None,
            csp: None,
        }
    }
}

impl Default for MetricsDecl {
    fn default() -> Self {
        // Names of queues may say much, and nobody is asked for a password here.
        let listen = vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), METRICS_PORT)];
        Self { listen, listen_tls: Vec::new(), tls: None, per_object: false }
    }
}

impl Default for LimitsDecl {
    fn default() -> Self {
        Self {
            // RabbitMQ's values: clients size their buffers and timers by them.
            frame_max_bytes: 131_072,
            channel_max: 2047,
            heartbeat_secs: 60,
            handshake_timeout_secs: 10,
            message_bytes_max: 16 * 1024 * 1024,
            connections_max: None,
            // Each may have deliveries of 16 KiB on their way at least, which makes 256 MiB of a channel.
            consumer_max_per_channel: 16_384,
            // About 50 MB of memory.
            bindings_per_queue_max: 100_000,
            // Four of the largest messages.
            transaction_bytes_max: 64 * 1024 * 1024,
            // Less than the 30 s after which service managers and container runtimes kill.
            shutdown_deadline_secs: 10,
            memory_watermark_bytes: None,
            disk_free_bytes_min: None,
            queue_memory_bytes: None,
        }
    }
}

impl UserDecl {
    /// RabbitMQ's default user, with all permissions on the given vhosts.
    #[must_use]
    pub fn guest(vhosts: &[VhostDecl]) -> Self {
        Self::first("guest", "guest", vhosts)
    }

    /// The user of a broker that nobody told of any, with all permissions on the given vhosts. Guest may log in from this machine only.
    #[must_use]
    pub fn first(name: &str, password: &str, vhosts: &[VhostDecl]) -> Self {
        let names: BTreeSet<&str> = vhosts.iter().map(|vhost| vhost.name.as_str()).collect();
        Self {
            name: name.to_owned(),
            password: PasswordDecl::Plain(password.to_owned()),
            tags: vec!["administrator".to_owned()],
            loopback_only: name == "guest",
            permissions: names.into_iter().map(PermissionDecl::all).collect(),
            topic_permissions: Vec::new(),
            limits: UserLimitsDecl::default(),
        }
    }
}

impl PermissionDecl {
    /// Everything is allowed.
    #[must_use]
    pub fn all(vhost: &str) -> Self {
        let all = || ".*".to_owned();
        Self { vhost: vhost.to_owned(), configure: all(), write: all(), read: all() }
    }
}

impl fmt::Debug for PasswordDecl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(..)"),
            Self::Hash { algorithm, .. } => write!(f, "Hash({algorithm}, ..)"),
        }
    }
}
