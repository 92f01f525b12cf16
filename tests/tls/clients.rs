//! Certificates of clients: not asked for, asked for, required; missing, from somebody else, expired.

use tests::certificates::{Asked, Authority};

use super::Bench;

#[test]
fn required_certificate_has_to_be_there_right_and_in_time() {
    let bench = Bench::new(", client_certificates: require", "");
    bench.login(&bench.authority.trusting(None)).map(|_| ()).unwrap_err();
    bench.logged(&["refused connection", "peer sent no certificates"]);

    // An authority of the same name with another key.
    let forged = Authority::new("the authority").client("ann");
    bench.login(&bench.authority.trusting(Some(&forged))).map(|_| ()).unwrap_err();
    bench.logged(&["refused connection", "invalid peer certificate: BadSignature"]);

    let unknown = Authority::new("the others").client("ann");
    bench.login(&bench.authority.trusting(Some(&unknown))).map(|_| ()).unwrap_err();
    bench.logged(&["refused connection", "invalid peer certificate: UnknownIssuer"]);

    let expired = bench.authority.sign(&Asked { common_name: "ann", has_expired: true, ..Asked::default() });
    bench.login(&bench.authority.trusting(Some(&expired))).map(|_| ()).unwrap_err();
    bench.logged(&["refused connection", "certificate expired"]);

    let right = bench.authority.client("ann");
    bench.login(&bench.authority.trusting(Some(&right))).unwrap();
}

#[test]
fn requested_certificate_may_be_missing_and_not_be_wrong() {
    let bench = Bench::new(", client_certificates: request", "");
    bench.login(&bench.authority.trusting(None)).unwrap();
    let unknown = Authority::new("the others").client("ann");
    bench.login(&bench.authority.trusting(Some(&unknown))).map(|_| ()).unwrap_err();
    bench.login(&bench.authority.trusting(Some(&bench.authority.client("ann")))).unwrap();
}

#[test]
fn certificate_that_is_not_asked_for_means_nothing() {
    let bench = Bench::new("", "");
    let unknown = Authority::new("the others").client("ann");
    bench.login(&bench.authority.trusting(Some(&unknown))).unwrap();
}
