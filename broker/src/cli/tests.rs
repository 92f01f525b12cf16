//! The command line as users type it, and the output of `check`.

use std::path::Path;

use super::plugins::Plugins;
use super::*;

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
}

#[track_caller]
fn check_refused(line: &str, expected: &str) {
    let error = parse(line).unwrap_err();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn options_of_a_run() {
    let cli = parse(
        "broker --topology t.yaml --listen 127.0.0.1:5673 --listen 5674,[::1]:1 --data /d --plugin-dir a --plugin-dir b \
         --log debug",
    )
    .unwrap();
    let run = cli.run;
    let listen: Vec<String> = run.listen.iter().map(ToString::to_string).collect();
    assert!(cli.command.is_none());
    assert_eq!(run.topology.as_deref(), Some(Path::new("t.yaml")));
    assert_eq!(listen, ["127.0.0.1:5673", "0.0.0.0:5674", "[::1]:1"]);
    assert_eq!(run.data.as_deref(), Some(Path::new("/d")));
    assert_eq!(run.plugin_dir, [Path::new("a"), Path::new("b")]);
    assert_eq!(run.log, "debug");
    assert_eq!(parse("broker").unwrap().run.log, "info");
}

#[test]
fn every_option_has_its_variable() {
    let command = Cli::command();
    for option in ["topology", "listen", "data", "plugin-dir", "log"] {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(option)).unwrap();
        let variable = format!("BROKER_{}", option.to_uppercase().replace('-', "_"));
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        assert!(argument.get_help().is_some());
    }
}

#[test]
fn variables_that_are_set_to_nothing_are_not_set() {
    let is_empty = |name: &OsStr| name == "BROKER_LISTEN" || name == "BROKER_PLUGIN_DIR";
    let command = without_variables(Cli::command(), &is_empty);
    let with_variable = |command: &clap::Command| -> Vec<String> {
        let with = command.get_arguments().filter(|argument| argument.get_env().is_some());
        with.map(|argument| argument.get_id().to_string()).collect()
    };
    assert_eq!(with_variable(&command), ["topology", "http", "metrics", "data", "definitions", "log"]);
    assert!(command.get_subcommands().all(|inner| !with_variable(inner).contains(&"plugin_dir".to_owned())));
}

#[test]
fn wrong_command_lines_have_a_way_out() {
    check_refused("broker --listen rabbit:5672", "is not ADDR:PORT with an IP address, such as 127.0.0.1:5672");
    check_refused("broker --log inof", "did you mean 'info'?");
    check_refused("broker --topolgy x", "a similar argument exists: '--topology'");
    check_refused("broker check", "<FILE>");
    check_refused("broker chekc x", "a similar subcommand exists: 'check'");
    check_refused("broker --log debug check x", "cannot be used with");
}

#[test]
fn check_prints_diagnostics_and_a_summary() {
    let folder = std::env::temp_dir().join(format!("broker-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("topology.yaml");
    let name = file.display();
    let report = |text: &str| {
        std::fs::write(&file, text).unwrap();
        check::report(&file, Plugins::default(), &|_| None)
    };
    assert_eq!(
        report("vhosts: { /: { exchanges: [a: topic], queues: [q, r], bindings: [a -> q] }, eu: {} }"),
        (format!("{name}: 2 vhosts, 1 exchange, 2 queues, 1 binding, 1 user, no errors\n"), 0)
    );
    let (text, code) =
        report("vhosts: { /: { exchanges: [a: topic], queues: [q: { durable: false }], bindings: [a -> q] } }");
    assert!(text.ends_with("1 binding, 1 user, no errors, 1 warning\n"), "{text}");
    assert_eq!(code, 0);
    let (text, code) = report("vhost: {}\nusers: 5\n");
    assert!(text.ends_with(&format!("\n{name}: 2 errors\n")), "{text}");
    assert_eq!(code, 65);
    let (text, code) = report("vhosts: { /: { exchanges: [a: topik] } }");
    assert!(text.contains("did you mean 'topic'?") && text.ends_with(": 1 error\n"), "{text}");
    assert_eq!(code, 65);
    let refused =
        "vhosts: { /: { exchanges: [h: { type: x-recent-history, arguments: { x-recent-history-length: 0 } }] } }";
    let (text, code) = report(refused);
    assert!(text.contains(":1:95: Invalid argument 0, 'x-recent-history-length' must be a positive integer"), "{text}");
    assert!(text.contains("exchange type 'x-recent-history' refuses it"), "{text}");
    assert_eq!(code, 65);
    let (text, code) =
        report("vhosts: { /: { exchanges: [h: x-consistent-hash], queues: [q], bindings: [h -> q : ten] } }");
    assert!(text.contains("The binding key must be an integer: <<\"ten\">>"), "{text}");
    assert_eq!(code, 65);
    std::fs::write(&file, "vhosts: { /: { exchanges: [a: topik] } }").unwrap();
    let with_plugins = Plugins { folders: std::slice::from_ref(&folder), load: false };
    let (text, code) = check::report(&file, with_plugins, &|_| None);
    assert!(text.contains("exchange type 'topik' is not built in") && text.contains("did you mean 'topic'?"), "{text}");
    assert_eq!(code, 0, "the type may come from a plugin");
    std::fs::write(&file, "vhosts: { /: { exchanges: [a: x-geo, b: x-geo, c: x-hash] } }").unwrap();
    let (text, code) = check::report(&file, with_plugins, &|_| None);
    assert!(text.starts_with(&format!("{name}: not judged, because plugins")), "{text}");
    assert!(text.contains("exchange types x-geo, x-hash;"), "{text}");
    assert_eq!(code, 0);
    let (text, code) = report("plugins: [topology.yaml]");
    assert!(text.starts_with(&format!("{name}:1:11: the plugin cannot be used: ")), "{text}");
    assert_eq!(code, 65);

    std::fs::write(folder.join("broken.lua"), "return {\n  on_publish = functoin(msg) end\n}\n").unwrap();
    let (text, code) = report("vhosts: { /: { hooks: [broken.lua] } }");
    assert!(text.starts_with(&format!("{name}:1:24: hook 'broken' cannot be used: ")), "{text}");
    assert!(text.contains("broken.lua:2") && text.ends_with(": 1 error\n"), "{text}");
    assert_eq!(code, 65);

    std::fs::remove_dir_all(&folder).unwrap();
    let missing = format!("{name}: no such file; check the path, which is relative to the current folder\n");
    assert_eq!(check::report(&file, Plugins::default(), &|_| None), (missing, 66));
}

#[test]
fn quickstart_topology_is_good() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart/topology.yaml");
    let (text, code) = check::report(&file, Plugins::default(), &|_| None);
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("no errors\n") && text.lines().count() == 1, "{text}");
}

#[test]
fn script_test_takes_files_and_folders() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let run = |paths: &str| match parse(&format!("broker script test {paths}")).unwrap().command.map(|command| *command)
    {
        Some(Command::Script(args)) => script::script(&args),
        other => panic!("{other:?}"),
    };
    let scripts = scripts.display();
    assert_eq!(run(&format!("{scripts} {scripts}/tenant_prefix.lua")), 0);
    assert_eq!(run(&format!("{scripts}/no_such_script.lua")), 1);
    check_refused("broker script test", "<PATH>...");
}
