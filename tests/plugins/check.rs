//! `broker check` of files that name plugins.

use std::process::Command;
use tests::broker_process::binary;
use tests::temp::TempDir;

use crate::build;

/// Exit code and everything that was printed.
fn check(topology: &str, options: &[&str]) -> (Option<i32>, String) {
    let folder = TempDir::new("check");
    let path = folder.write("topology.yaml", topology);
    let output = Command::new(binary().unwrap())
        .arg("check")
        .args(options)
        .arg(path)
        // Set to nothing, as in container files: as if it were not set.
        .env("BROKER_PLUGIN_DIR", "")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn exchange_types_of_plugins_are_judged_when_plugins_are_loaded() {
    let plugin = build::copied(&build::stand_alone("examples/plugins/exchange-geo"), "check");
    let file =
        |kind: &str| format!("plugins: [{}]\nvhosts: {{ /: {{ exchanges: [depots: {kind}] }} }}\n", plugin.display());
    let (code, text) = check(&file("x-geo"), &[]);
    assert!(code == Some(0) && text.contains("not judged") && text.contains("x-geo"), "{code:?} {text}");
    let (code, text) = check(&file("x-geo"), &["--load-plugins"]);
    assert!(code == Some(0) && !text.contains("not judged"), "{code:?} {text}");
    let (code, text) = check(&file("x-goe"), &["--load-plugins"]);
    assert!(code == Some(65) && text.contains("did you mean 'x-geo'?"), "{code:?} {text}");
}

#[test]
fn a_plugin_that_would_be_refused_is_a_mistake_of_the_file() {
    let plugin = build::written(b"\x7fELF and then nothing", "check-refused", "broken.so");
    let file = |required: bool| format!("plugins: [{{ path: {}, required: {required} }}]\n", plugin.display());
    for options in [&[][..], &["--load-plugins"]] {
        let (code, text) = check(&file(true), options);
        assert!(code == Some(65) && text.contains(":1:19: the plugin cannot be used: "), "{code:?} {text}");
        let (code, text) = check(&file(false), options);
        assert!(code == Some(0) && text.contains("1 warning"), "{code:?} {text}");
    }
}
