//! What is refused when hooks are loaded, and what `require` finds.

use super::*;
use crate::hooks::ErrorKind;

fn load_errors(decls: &[HookDecl]) -> Vec<String> {
    let errors = HookSet::load(decls).err().unwrap_or_default();
    errors.into_iter().map(|error| error.to_string()).collect()
}

#[test]
fn script_that_is_wrong_is_refused_with_file_line_and_cause() {
    for (script, line, cause) in [
        ("return {\n  on_publish = function(msg)\n", ":3", "Expected 'end' (to close 'function' at line 2)"),
        ("local x = = 1", ":1", "Expected identifier when parsing expression, got '='"),
        ("local x\n\nx.y = 1\nreturn {}", ":3", "attempt to index nil with 'y'"),
        ("error('not today')", ":1", "not today"),
        ("", "", "the script has to return a table of hooks, as in 'return { on_publish = … }', not a nil"),
        ("return function() end", "", "the script has to return a table of hooks"),
        ("return {}", "", "the script returns no hook; 'on_publish' is one"),
        ("return { on_publsh = function() end }", "", "there is no hook 'on_publsh'; did you mean 'on_publish'?"),
        ("return { function() end }", "", "there is no hook '1'"),
        ("return { on_publish = 5 }", "", "on_publish has to be a function, not a integer"),
        ("broker.drop('x')", ":1", "broker.drop can be used only while a hook runs"),
        ("while true do end", ":1", "time limit of 250ms reached"),
        ("local t = {}\nfor i = 1, 1e9 do t[i] = i end", "", "memory limit reached"),
        ("require('nothing')", ":1", "module 'nothing': "),
    ] {
        let folder = Folder::new();
        let path = folder.write("wrong.lua", script);
        let errors = load_errors(&[decl("hook", path.clone())]);
        let expected = format!("{}{line}: hook 'hook': {cause}", path.display());
        assert!(errors.len() == 1 && errors[0].starts_with(&expected), "expected {expected:?}, got {errors:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let folder = Folder::new();
    let fine = folder.write("fine.lua", "return { on_publish = function(msg) end }");
    let decls = [
        decl("one", folder.write("one.lua", "return {")),
        decl("two", folder.0.join("missing.lua")),
        decl("three", fine.clone()),
        decl("three", fine),
        decl("four", folder.write("four.lua", "return 4")),
        decl("five", folder.0.clone()),
        decl("one again", folder.0.join("one.lua")),
    ];
    let errors = HookSet::load(&decls).expect_err("five errors");
    let told: Vec<_> = errors.iter().map(|error| (error.hook.as_str(), error.kind)).collect();
    let expected = [
        ("one", ErrorKind::Syntax),
        ("two", ErrorKind::File),
        ("three", ErrorKind::Declaration),
        ("four", ErrorKind::Declaration),
        ("five", ErrorKind::File),
    ];
    assert_eq!(told, expected);
}

#[test]
fn bytecode_and_oversized_files_are_no_scripts() {
    let folder = Folder::new();
    let bytecode = mlua::chunk::Compiler::new().compile("return {}").expect("compiles");
    let path = folder.0.join("code.lua");
    std::fs::write(&path, bytecode).expect("file");
    let kinds = |path: PathBuf| HookSet::load(&[decl("hook", path)]).expect_err("refused")[0].kind;
    assert_eq!(kinds(path), ErrorKind::Syntax);
    assert_eq!(kinds(folder.write("large.lua", &" ".repeat((1 << 20) + 1))), ErrorKind::File);
}

#[test]
fn modules_are_found_beside_the_script_and_run_once() {
    let folder = Folder::new();
    folder.write("lib/names.lua", "local parts = require 'lib/parts' return { key = parts.a .. parts.b }");
    folder.write("lib/parts.lua", "return { a = 'x', b = 'y', fresh = {} }");
    let script = folder.write(
        "hook.lua",
        "local names, parts = require 'lib/names', require('lib/parts')
        assert(parts == require 'lib/parts')
        return { on_publish = function(msg) msg.routing_key = names.key end }",
    );
    let chain = load(&[decl("hook", script)]);
    std::fs::remove_dir_all(folder.0.join("lib")).expect("modules removed");
    let expected = Outcome::Rewrite { routing_key: Some("xy".to_owned()), properties: None };
    assert_eq!(chain.on_publish(&publish(&[0, 0])), expected, "the compiled modules are used, not the files");
}

#[test]
fn require_stays_in_the_folder_of_the_script() {
    let outside = Folder::new();
    outside.write("secret.lua", "return 'secret'");
    let folder = Folder::new();
    folder.write("lib/up.lua", "return require '../secret'");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&outside.0, folder.0.join("link")).expect("link");
    let absolute = outside.0.join("secret").display().to_string();
    for (name, cause) in [
        ("../secret", "require takes the path of a file in the script's folder"),
        ("./secret", "require takes the path of a file in the script's folder"),
        ("lib/../../secret", "require takes the path of a file in the script's folder"),
        (absolute.as_str(), "require takes the path of a file in the script's folder"),
        ("lib//up", "require takes the path of a file in the script's folder"),
        ("lib\\\\up", "require takes the path of a file in the script's folder"),
        ("lib.up", "require takes the path of a file in the script's folder"),
        ("", "require takes the path of a file in the script's folder"),
        ("lib/up", "require takes the path of a file in the script's folder"),
        ("link/secret", "module 'link/secret' lies outside the script's folder"),
    ] {
        let script = folder.write("hook.lua", &format!("require('{name}')"));
        let errors = load_errors(&[decl("hook", script)]);
        assert!(errors.len() == 1 && errors[0].contains(cause), "{name}: {errors:?}");
    }
}

#[test]
fn modules_that_cannot_be_used_say_why_and_where() {
    for (module, place, cause) in [
        ("local x = = 1", "m.lua:1", "Expected identifier"),
        ("\nerror('in the module')", "m.lua:2", "in the module"),
        ("local x = 1", "hook.lua:1", "module 'm' returns nothing; end it with 'return'"),
        ("return require 'm'", "m.lua:1", "modules require each other: m -> m"),
        ("while true do end", "m.lua:1", "time limit of 250ms reached"),
    ] {
        let folder = Folder::new();
        folder.write("m.lua", module);
        let script = folder.write("hook.lua", "require 'm'\nreturn { on_publish = function(msg) end }");
        let errors = load_errors(&[decl("hook", script)]);
        let expected = format!("{}: hook 'hook': {cause}", folder.0.join(place).display());
        assert!(errors.len() == 1 && errors[0].starts_with(&expected), "{module}: {errors:?}");
    }
}

#[test]
fn require_works_only_while_the_script_loads() {
    let folder = Folder::new();
    folder.write("m.lua", "return 1");
    let reason = rejected(chain_of(&folder, "require 'm'").on_publish(&publish(&[0, 0])));
    assert_eq!(reason, "require works only while the script loads; move it to the top of the file");
}

#[test]
fn interpreters_of_a_set_that_is_gone_are_dropped() {
    let folder = Folder::new();
    for round in 0..3 {
        let chain = chain_of(&folder, &format!("msg.routing_key = '{round}'"));
        let expected = Outcome::Rewrite { routing_key: Some(round.to_string()), properties: None };
        assert_eq!(chain.on_publish(&publish(&[0, 0])), expected);
        // The set of this round, and the one before that nobody has asked to forget yet.
        assert!(crate::hooks::worker::resident_sets() <= 2);
    }
}
