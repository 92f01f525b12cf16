//! The tests of scripts, and the scripts that we ship.

use super::*;
use crate::hooks::script_test::{self, Report};

const SCRIPT: &str = "local calls = 0
return {
    on_publish = function(msg)
        calls += 1
        if msg.routing_key == 'reject' then broker.reject('not this one') end
        if msg.routing_key == 'drop' then return false end
        if msg.routing_key == 'fail' then local x = nil; return x.y end
        if msg.routing_key == 'loop' then while true do end end
        if msg.routing_key == 'body' then msg.headers.body = msg:body() end
        msg.headers.calls = calls
    end,
}";

fn run_tests(tests: &str) -> Report {
    let folder = Folder::new();
    folder.write("x.lua", SCRIPT);
    let file = folder.write("x_test.lua", tests);
    script_test::run(&file)
}

/// The failures of a report, without the folder.
fn failures(report: &Report) -> Vec<String> {
    let tests = report.files.iter().flat_map(|file| &file.tests).filter_map(|test| test.failure.clone());
    report.files.iter().filter_map(|file| file.error.clone()).chain(tests).collect()
}

#[test]
fn shipped_scripts_pass_their_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let report = script_test::run(&folder);
    assert!(report.is_ok() && report.files.len() >= 2, "{report}");
    let scripts = std::fs::read_dir(&folder).expect("folder").filter_map(Result::ok);
    let names: Vec<_> = scripts.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    for script in names.iter().filter(|name| name.ends_with(".lua") && !name.ends_with("_test.lua")) {
        assert!(names.contains(&script.replace(".lua", "_test.lua")), "{script} has no tests");
    }
}

#[test]
fn what_holds_passes() {
    let report = run_tests(
        "test('all of it', function()
            local out = publish { routing_key = 'a.b', exchange = 'e', vhost = 'v', user = 'u', priority = 3,
                type = 't', user_id = 'u', timestamp = 5, headers = { list = { 1, 'two' }, flag = true } }
            expect(out):passes()
            expect(out.outcome):equals('pass')
            expect(out.reason):is_nil()
            expect(out.routing_key):equals('a.b')
            expect(out.exchange .. out.vhost .. out.user .. out.type .. out.user_id):equals('evutu')
            expect(out.priority + out.timestamp):equals(8)
            expect(out.message_id):is_nil()
            expect(out.headers):equals({ list = { 1, 'two' }, flag = true, calls = 1 })
            expect(out.headers):differs({ calls = 1 })
            expect(out.headers.flag):exists()
            expect(publish { routing_key = 'drop' }):drops()
            expect(publish { routing_key = 'reject' }):rejects('not this')
            expect(publish { routing_key = 'fail' }):fails('attempt to index nil')
            expect(publish { routing_key = 'body', body = 'hello' }.headers.body):contains('ell')
            expect(publish { routing_key = 'body' }):fails('body: true')
            expect('a1'):matches('^%a%d$')
            expect(publish({}).headers.calls):equals(7)
        end)
        test('a new interpreter for each test', function()
            expect(publish({}).headers.calls):equals(1)
        end)
        test('stopped like in a broker, and usable again', function()
            expect(publish { routing_key = 'loop' }):fails('time limit')
            expect(publish({}).headers.calls):equals(1)
        end)",
    );
    assert!(report.is_ok(), "{report}");
    assert_eq!((report.passed(), report.failed()), (3, 0));
}

#[test]
fn what_does_not_hold_fails_at_its_line() {
    for (body, failure) in [
        ("expect(1):equals(2)", "expected 2, got 1"),
        ("expect({a = {1}}):equals({a = {2}})", "expected { a = { [1] = 2 } }, got { a = { [1] = 1 } }"),
        ("expect('1'):equals(1)", "expected 1, got \"1\""),
        ("expect(1):differs(1)", "expected anything but 1"),
        ("expect(1):is_nil()", "expected nil, got 1"),
        ("expect(nil):exists()", "expected a value, got nil"),
        ("expect('a.b'):contains('.c')", "expected text with \".c\", got \"a.b\""),
        ("expect(5):matches('%d')", "expected text like \"%d\", got 5"),
        ("expect(publish { routing_key = 'reject' }):passes()", "expected outcome pass, got reject (not this one)"),
        (
            "expect(publish { routing_key = 'reject' }):rejects('why')",
            "expected a reason with \"why\", got \"not this one\"",
        ),
        ("expect({}):passes()", "expect(…):passes() takes what publish or its like returned, not {  }"),
        ("expect(1):equal(1)", "expect has no check 'equal'"),
        ("return publish({}).routing_kye", "a result has no 'routing_kye'; did you mean 'routing_key'?"),
        ("publish { prority = 1 }", "publish takes no 'prority'; did you mean 'priority'?"),
        ("publish { priority = 'high' }", "msg.priority has to be a whole number from 0 to 255, or nil, not \"high\""),
        ("publish { routing_key = 5 }", "routing_key has to be a string, not a integer"),
        ("publish { headers = 5 }", "headers have to be a table"),
        ("test('nested', function() end)", "test cannot be used inside a test"),
        ("error('boom')", "boom"),
    ] {
        let report = run_tests(&format!("test('fails', function()\n{body}\nend)\ntest('passes', function() end)"));
        assert_eq!((report.passed(), report.failed()), (1, 1), "{body}: {report}");
        let failures = failures(&report);
        assert!(failures[0].starts_with(&format!("x_test.lua:2: {failure}")), "{body}: {failures:?}");
    }
}

#[test]
fn file_that_cannot_run_is_a_failure() {
    for (tests, failure) in [
        ("", "declares no tests; a test is 'test(name, function() … end)'"),
        ("test('x'", "x_test.lua:1: Expected"),
        ("\npublish {}", "x_test.lua:2: hooks can be called only inside a test"),
        ("os.exit()", "x_test.lua:1: 'os' does not exist here"),
    ] {
        let report = run_tests(tests);
        assert_eq!((report.passed(), report.failed()), (0, 1), "{tests}: {report}");
        assert!(failures(&report)[0].contains(failure), "{tests}: {report}");
    }
    let folder = Folder::new();
    let test = folder.write("x_test.lua", "test('x', function() end)");
    assert!(script_test::run(&test).to_string().contains("x.lua: hook 'x': cannot be read: "));
    let script = folder.write("x.lua", "return { on_publish = 5 }");
    assert!(script_test::run(&test).to_string().contains("x.lua: hook 'x': on_publish has to be a function"));
    let lonely = folder.write("lonely.lua", SCRIPT);
    assert!(script_test::run(&lonely).to_string().contains("has no tests: there is no '"));
    assert!(!script_test::run(&folder.0.join("missing")).is_ok());
    assert!(!script_test::run(&Folder::new().0).is_ok());
    assert_eq!(script_test::run(&script).files.len(), 1, "the path of a script means its tests");
}

#[test]
fn report_shows_each_test_and_the_reason_of_failures() {
    let folder = Folder::new();
    folder.write("sub/x.lua", SCRIPT);
    let tests = "test('fine', function() expect(publish({}).headers.calls):equals(1) end)
    test('broken', function() expect(publish({ routing_key = 'fail' })):passes() end)";
    let file = folder.write("sub/x_test.lua", tests);
    let script = folder.0.join("sub/x.lua");
    let expected = format!(
        "{}
  ok    fine
  FAIL  broken
        x_test.lua:2: expected outcome pass, got error (attempt to index nil with 'y')
        {}:7: hook 'x': attempt to index nil with 'y'
1 passed, 1 failed
",
        file.display(),
        script.display()
    );
    assert_eq!(script_test::run(&folder.0).to_string(), expected);
}
