//! broker context.

use std::os::unix::fs::PermissionsExt as _;

use super::{Setting, finish};

#[test]
fn a_context_names_a_broker_and_a_user() {
    let cli = Setting::new();
    cli.done(&["user", "add", "ann", "secret", "--tags", "administrator", "--grant", "/"]);
    let context = ["context", "set", "shop", "--user", "ann", "--password", "secret"];
    cli.done(&context);
    let file = cli.home.path().join(".config/broker/contexts.yaml");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "passwords are in it");
    let mut bare = cli.command();
    bare.env_remove("BROKER_URL").args(["api", "/whoami"]);
    let said = finish(&mut bare, "");
    assert!(said.out.contains(r#""name": "ann""#), "{said:?}");
    assert!(!cli.done(&["context", "list"]).contains("secret"));

    let said = cli.run(&["api", "/whoami", "--context", "other"]);
    assert!(said.code == 64 && said.err.contains("there are shop"), "{said:?}");
    cli.done(&["context", "delete", "shop"]);
    assert!(cli.done(&["api", "/whoami"]).contains(r#""name": "guest""#));
}

#[test]
fn a_broken_file_of_contexts_is_told_with_its_place() {
    let cli = Setting::new();
    std::fs::create_dir_all(cli.home.path().join(".config/broker")).unwrap();
    cli.home.write(".config/broker/contexts.yaml", "contexts: [");
    let said = cli.run(&["list", "queues"]);
    assert!(said.code == 65 && said.err.contains("contexts.yaml"), "{said:?}");
}
