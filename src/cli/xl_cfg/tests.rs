//! The language as a whole: the answers of libxlutil, and generated texts.

use std::fmt::Write;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::checks::{Aim, Checks};
use super::diagnostic::Diagnostics;
use super::document::Document;
use super::guest::{Report, check};
use super::source::Source;
use super::value::Value;

fn read(text: &[u8]) -> Result<Document, String> {
    let sources = [Source::new("t".to_owned(), text.to_vec())];
    let mut diagnostics = Diagnostics::default();
    let document = Document::read(&sources, &mut diagnostics);
    if diagnostics.failed() { Err(diagnostics.text(&sources)) } else { Ok(document) }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{:?}", String::from_utf8_lossy(&text.bytes())),
        Value::List(list) => format!("[{}]", list.items.iter().map(shown).collect::<Vec<_>>().join(", ")),
    }
}

/// The first lines are libxlutil's own answers (Xen 4.17); the last ones are where it is stricter for no reason.
#[test]
fn texts_are_read_as_libxlutil_reads_them() {
    for (text, a) in [
        ("a=\"x\\ty\\\\z\"", "\"x\\ty\\\\z\""),
        ("a='q\"r'", "\"q\\\"r\""),
        ("a=1;b=2 ; c = 0x10", "\"1\""),
        ("a = [ 1, \"b\",\n# comment\n\n [ 2, \"c\", ], ]", "[\"1\", \"b\", [\"2\", \"c\"]]"),
        ("a = [\n]", "[]"),
        ("a = [ ]", "[]"),
        ("a=\"1\"\na=\"2\"", "\"2\""),
        ("a+=\"1\"\na+=\"2\"", "\"12\""),
        ("a=[\"1\"]\na+=[\"2\"]", "[\"1\", \"2\"]"),
        ("a=1\na+=1", "\"11\""),
        ("a = \"é\"", "\"é\""),
        ("  a = 1\n\tb = 2", "\"1\""),
        ("a=\"\"", "\"\""),
        (";;\n;a=1;;", "\"1\""),
        ("a=12abc", "\"12abc\""),
        ("a=1\r\nb=2\r\n", "\"1\""),
        ("\u{feff}a = 1", "\"1\""),
        ("a = \"x\" # no newline at end", "\"x\""),
        ("a = [ # c\r\n1 # d\r\n, # e\r\n]\r\n# f", "[\"1\"]"),
    ] {
        let document = read(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let value = document.get("a").map(|setting| shown(&setting.value));
        assert_eq!(value.as_deref(), Some(a), "{text:?}");
    }
}

#[test]
fn what_libxlutil_refuses_has_a_place_and_a_reason() {
    for (text, place, words) in [
        (r#"a="A\x41B""#, "1:3", "escapes by number"),
        (r#"a="A\101B""#, "1:3", "escapes by number"),
        (r#"a="A\d""#, "1:3", "a backslash takes one of"),
        ("a=-1", "1:3", "a negative number stands in quotes: \"-1\""),
        ("A=1", "1:1", "\"A\" is no key"),
        ("aB = 1", "1:1", "\"aB\" is no key"),
        ("_a=1", "1:1", "\"_a\" is no key"),
        ("install-method = x", "1:1", "\"install-method\" is no key"),
        ("a = True", "1:5", "True is Python: write 1"),
        ("a = False", "1:5", "write 0"),
        ("a = None", "1:5", "leave the key out"),
        ("a = yes", "1:5", "write 1"),
        ("a = yes_x", "1:5", "stands here without quotes"),
        ("a = [ ,1 ]", "1:7", ", cannot stand here"),
        ("a = [ 1,, 2 ]", "1:9", ", cannot stand here"),
        ("a = [ 1 2 ]", "1:9", "a comma comes between"),
        ("a = [ 1, 2", "1:5", "no ] at its end"),
        ("a = [", "1:5", "no ] at its end"),
        ("a = \n 1", "1:5", "the line ends here"),
        ("a = ", "1:5", "the text ends here"),
        ("a", "1:2", "= or += comes after the key a"),
        ("a = \"x\" \"y\"", "1:9", "texts do not join"),
        ("a = \"\"\"x\"\"\"", "1:7", "Python"),
        ("a = \"x\ny\"", "1:5", "no second \""),
        ("a=[\"1\"]\na+=\"2\"", "2:4", "a is a list so far, and a text cannot be appended to it"),
        ("a=\"1\"\na+=[\"2\"]", "2:4", "a is a text so far, and a list"),
        ("import os\na=1", "1:1", "import is no key; this looks like Python"),
        ("a = \"x\" + \"y\"", "1:9", "this looks like Python"),
        ("a = (1,2)", "1:5", "this looks like Python"),
        ("if x:\n  a = 1", "1:1", "this looks like Python"),
        ("name = 'a%d' % 3", "1:14", "this looks like Python"),
        ("a = [ 'x', \\\n 'y' ]", "1:12", "without a backslash"),
        ("a = \\\n 1", "1:5", "without a backslash"),
        ("a=1 b=2", "1:5", "followed by the end of the line"),
        ("a\n=1", "1:2", "= or += comes after"),
        ("a=1\rb=2", "1:4", "carriage return"),
        ("a=\"x\0y\"", "1:3", "NUL"),
        ("é=1", "1:1", "is unknown here"),
        ("[[[[[[[[[[[[[[[[[[", "1:1", "a key comes first"),
        ("a=[[[[[[[[[[[[[[[[[[", "1:19", "more than 16 deep"),
    ] {
        let error = read(text.as_bytes()).expect_err(text);
        assert!(error.starts_with(&format!("t:{place}: error: ")) && error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn reading_goes_on_after_an_error() {
    let text = "a = yes\nb = [ 'x', \\\n  'y',\n 'z' ]\nc = 1 2\nd = 1\n";
    let error = read(text.as_bytes()).expect_err("refused");
    let places: Vec<_> = error.lines().filter(|line| line.starts_with("t:")).map(|line| &line[..4]).collect();
    assert_eq!(places, ["t:1:", "t:2:", "t:5:"], "{error}");
}

/// Whatever stands in a file ends soon, in a report or in errors that point into it.
pub(super) fn check_any(text: &[u8], aim: Aim) -> Report {
    let sources = [Source::new("t".to_owned(), text.to_vec()), Source::new("argument 1".to_owned(), b"a = 1".to_vec())];
    let checks = Checks { strict: text.len().is_multiple_of(2) && aim != Aim::Create, aim, ..Checks::default() };
    let report = check(&sources, &checks);
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    for problem in report.diagnostics.json(&sources).as_array().expect("a list") {
        let inside = problem["line"]
            .as_u64()
            .is_none_or(|line| line >= 1 && usize::try_from(line).is_ok_and(|line| line <= lines));
        assert!(inside && problem["message"].as_str().is_some_and(|message| !message.is_empty()), "{problem}");
    }
    let text = report.diagnostics.text(&sources);
    assert!(!text.contains(|character| character != '\n' && crate::os::is_hidden(character)), "{text:?}");
    report
}

/// For one aim or another.
fn check_for_one(text: &[u8]) {
    check_any(text, if text.len().is_multiple_of(3) { Aim::Create } else { Aim::LibxlJson });
}

/// A piece of a file, right or wrong.
fn piece() -> impl Strategy<Value = String> {
    const FIXED: &[&str] = &[
        "name",
        "memory",
        "vcpus",
        "disk",
        "vif",
        "vfb",
        "extra",
        "type",
        "viridian",
        "cpus",
        "vnuma",
        "=",
        "+=",
        "[",
        "]",
        ",",
        ";",
        "\n",
        "\r\n",
        "#",
        "'",
        "\"",
        "\\",
        " ",
        "\t",
        "'x'",
        "\"web\"",
        "1024",
        "0x10",
        "010",
        "-1",
        "True",
        "'pvh'",
        "'hvm'",
        "[]",
        "['phy:/dev/x,xvda,w']",
        "[[ 'a' ]]",
        "(",
        "\u{0}",
        "é",
        "\u{feff}",
        "\u{202e}",
    ];
    prop_oneof![proptest::sample::select(FIXED).prop_map(str::to_owned), "[a-z_]{1,12}", "\\PC{0,4}"]
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_report_or_in_errors(bytes: Vec<u8>) {
        check_for_one(&bytes);
    }

    #[test]
    fn any_pieces_do(pieces in proptest::collection::vec(piece(), 0..40)) {
        check_for_one(pieces.concat().as_bytes());
    }

    #[test]
    fn any_settings_do(settings in proptest::collection::vec((piece(), "[ '\"\\[\\]0-9a-z,=:/\\\\]{0,12}"), 0..12)) {
        let text: String = settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        check_for_one(text.as_bytes());
    }

    /// What is written in quotes is read back.
    #[test]
    fn texts_are_read_back(text in "[^\u{0}\n\r]{0,40}") {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let document = read(format!("a = \"{quoted}\"").as_bytes()).map_err(TestCaseError::fail)?;
        let value = document.get("a").and_then(|setting| setting.text()).map(|text| text.bytes().into_owned());
        prop_assert_eq!(value, Some(text.into_bytes()));
    }
}

/// The work grows with the text, and not with its square, with which these texts would take minutes each.
#[test]
fn large_texts_take_no_longer_than_they_are_large() {
    let mut keys = String::new();
    for index in 0..40_000 {
        // Writing to a string does not fail.
        let _ = writeln!(keys, "k{index} = 1");
    }
    let texts = [
        "[".repeat(500_000),
        format!("a = {}", "[".repeat(500_000)),
        "a += 'x'\n".repeat(60_000),
        "a += ['x']\n".repeat(60_000),
        "a = 'x'\n".repeat(60_000),
        "a 'x".repeat(120_000),
        "a = 'x' 'y ".repeat(50_000),
        format!("a = '{}'", "\\n".repeat(250_000)),
        format!("disk = [ {} ]", "'x', ".repeat(100_000)),
        "(\n".repeat(250_000),
        "é".repeat(250_000),
        keys,
    ];
    for text in texts {
        let start = Instant::now();
        check_for_one(text.as_bytes());
        let most = Duration::from_secs(20);
        assert!(start.elapsed() < most, "{:?} for {:?}...", start.elapsed(), text.get(..20));
    }
}
