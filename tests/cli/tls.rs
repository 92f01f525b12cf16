//! Commands over TLS, against the broker's own listener.

use std::net::SocketAddr;
use std::process::Command;

use tests::broker_process::{BrokerOptions, BrokerProcess, binary};
use tests::certificates::{Asked, Authority};
use tests::temp::TempDir;

use super::{Said, finish};

/// A broker whose API is served over TLS, and the files of its authority.
struct Bench {
    authority: Authority,
    _broker: BrokerProcess,
    api: SocketAddr,
    plain: SocketAddr,
    home: TempDir,
}

impl Bench {
    fn new(more: &str) -> Self {
        let authority = Authority::new("the authority");
        // Commands name the broker by its address.
        let names = vec![rcgen::SanType::IpAddress([127, 0, 0, 1].into())];
        authority.install(&authority.sign(&Asked { common_name: "broker", names, ..Asked::default() }));
        let folder = TempDir::new("topology");
        let topology = authority.topology(more, "management: { listen_tls: '127.0.0.1:0' }\n");
        let topology = folder.write("topology.yaml", &topology);
        let broker = BrokerOptions::default().topology(topology).http().start().unwrap();
        let api = broker.address_in_log("management API with TLS").unwrap();
        let plain = broker.http();
        Self { authority, _broker: broker, api, plain, home: TempDir::new("cli-tls") }
    }

    fn run(&self, words: &[&str]) -> Said {
        let mut command = Command::new(binary().expect("the broker is built"));
        command.env_clear().env("HOME", self.home.path()).args(words);
        finish(&mut command, "")
    }

    fn file(&self, name: &str) -> String {
        self.authority.path(name).display().to_string()
    }

    fn url(&self) -> String {
        format!("https://{}", self.api)
    }
}

const WHO: [&str; 2] = ["api", "/whoami"];

#[test]
fn certificate_of_the_broker_is_looked_at_unless_told_otherwise() {
    let bench = Bench::new("");
    let (url, ca) = (bench.url(), bench.file("ca.pem"));
    let ask = |more: &[&str]| bench.run(&[&WHO[..], &["--url", &url], more].concat());
    for good in [&["--ca-file", &ca][..], &["--tls", "--tls-ca-cert-file", &ca], &["--insecure"]] {
        let said = ask(good);
        assert!(said.code == 0 && said.out.contains("guest"), "{good:?}: {said:?}");
    }
    let said = ask(&[]);
    assert!(said.code == 69 && said.err.contains("UnknownIssuer") && said.err.contains("--ca-file"), "{said:?}");
    let other = Authority::new("the others");
    let said = ask(&["--ca-file", &other.path("ca.pem").display().to_string()]);
    assert_eq!(said.code, 69, "{said:?}");
    let said = ask(&["--ca-file", &bench.file("server.key")]);
    assert!(said.code == 66 && said.err.contains("server.key: has no certificate in PEM form"), "{said:?}");
    let said = ask(&["--ca-file", &bench.file("none.pem")]);
    assert_eq!(said.code, 66, "{said:?}");
    let said = ask(&["--ca-file", &ca, "--cert-file", &ca]);
    assert!(said.code == 64 && said.err.contains("--key-file"), "{said:?}");
    // Not what was meant, either way.
    let plain = format!("http://{}", bench.plain);
    let said = bench.run(&[&WHO[..], &["--url", &plain, "--tls"]].concat());
    assert!(said.code == 64 && said.err.contains("is without TLS"), "{said:?}");
    let said = bench.run(&[&WHO[..], &["--url", &format!("https://{}", bench.plain), "--insecure"]].concat());
    assert!(said.code == 69 && said.err.contains("there is no TLS at this port"), "{said:?}");
}

#[test]
fn broker_that_wants_a_certificate_gets_the_one_of_the_context() {
    let bench = Bench::new(", client_certificates: require");
    let (url, ca) = (bench.url(), bench.file("ca.pem"));
    let signed = bench.authority.client("ann");
    bench.authority.write("ann.pem", &signed.certificate);
    bench.authority.write("ann.key", &signed.key);
    let (certificate, key) = (bench.file("ann.pem"), bench.file("ann.key"));
    let said = bench.run(&[&WHO[..], &["--url", &url, "--ca-file", &ca]].concat());
    assert!(said.code == 69 && said.err.contains("--cert-file"), "{said:?}");
    let client = ["--cert-file", &certificate, "--key-file", &key];
    let said = bench.run(&[&WHO[..], &["--url", &url, "--ca-file", &ca], &client].concat());
    assert_eq!(said.code, 0, "{said:?}");
    // The context keeps where files are, and none that cannot be used.
    let set = ["context", "set", "shop", "--url", &url, "--ca-file", &ca];
    let said = bench.run(&[&set[..], &["--cert-file", &certificate]].concat());
    assert!(said.code == 64 && said.err.contains("--key-file"), "{said:?}");
    let said = bench.run(&[&set[..], &client].concat());
    assert_eq!(said.code, 0, "{said:?}");
    for words in [&["list", "vhosts"][..], &["health"], &WHO] {
        let said = bench.run(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
    }
}
