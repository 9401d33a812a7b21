use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::rule::{Diagnostic, diagnostic};

fn read_bytes(bytes: &[u8]) -> (Option<Node>, Vec<Diagnostic>) {
    match decode(Path::new("x.yaml"), bytes) {
        Ok(source) => {
            let mut problems = Vec::new();
            let node = read(&source, &mut problems);
            (node, problems)
        }
        Err(problem) => (None, vec![*problem]),
    }
}

/// The tree as text: `{a: [b, c]}`.
fn tree(node: &Node) -> String {
    match &node.value {
        _ if node.is_null() => "null".to_owned(),
        Value::Scalar { text, .. } => text.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(tree).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let each = entries.iter().map(|entry| format!("{}: {}", entry.key, tree(&entry.value)));
            format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
        }
    }
}

fn good(text: &str) -> String {
    let (node, problems) = read_bytes(text.as_bytes());
    assert!(problems.is_empty(), "{text:?}\n{}", diagnostic::render_all(&problems, false));
    node.map_or_else(String::new, |node| tree(&node))
}

#[test]
fn yaml_and_json_become_the_same_tree() {
    for (text, expected) in [
        ("a:\n  - b\n  - c: d\n", "{a: [b, {c: d}]}"),
        ("a:\n- b\n", "{a: [b]}"),
        ("{\"a\": [\"b\", {\"c\": \"d\"}]}", "{a: [b, {c: d}]}"),
        ("{\"a\":\"b\",\"c\":[1,2]}", "{a: b, c: [1, 2]}"),
        ("{\n\t\"a\": [\n\t\t\"b\"\n\t]\n}\n", "{a: [b]}"),
        ("{\"a\": \"\\u00e9\\/\\\"\\n\"}", "{a: é/\"\n}"),
        ("a: |\n  b\n  c\nd: >\n  e\n  f\n", "{a: b\nc\n, d: e f\n}"),
        ("a: 080\nb: yes\nc: ~\nd:\n", "{a: 080, b: yes, c: null, d: null}"),
        ("a: ''\n", "{a: }"),
        ("---\na: b\n...\n", "{a: b}"),
        ("", ""),
        ("# nothing\n", ""),
        ("---\n", ""),
        ("null", ""),
    ] {
        assert_eq!(good(text), expected, "{text:?}");
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    assert_eq!(good("\u{FEFF}a: b\r\nc:\r\n  - d\r\n"), "{a: b, c: [d]}");
    assert_eq!(good("a: |\r\n  b\r\n  c\r\n"), "{a: b\nc\n}");
    let source = decode(Path::new("x"), "\u{FEFF}é: 1\r\nb: 日本 x\r\n".as_bytes()).unwrap();
    let mut problems = Vec::new();
    let Some(Node { value: Value::Map(entries), .. }) = read(&source, &mut problems) else { panic!() };
    let place = |span| source.place(span).to_string();
    assert_eq!(place(entries[0].key_span), "x:1:1");
    assert_eq!(place(entries[1].key_span), "x:2:1");
    assert_eq!(place(entries[1].value.span), "x:2:4");
    assert_eq!(&source.text[entries[1].value.span.range()], "日本 x");
}

#[test]
fn anchors_stand_for_what_they_name_within_a_bound() {
    assert_eq!(good("a: &x {b: [c]}\nd: *x\n"), "{a: {b: [c]}, d: {b: [c]}}");
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let _ = writeln!(laughs, "a{level}: &a{level} [{}]", vec![format!("*a{}", level - 1); 10].join(", "));
    }
    let (node, problems) = read_bytes(laughs.as_bytes());
    assert!(node.is_none());
    assert_eq!(problems[0].message, "aliases repeat too much in this file");
    let long = format!("a: &x {}\nb: [{}]\n", "x".repeat(1 << 19), ["*x"; 50].join(", "));
    assert_eq!(read_bytes(long.as_bytes()).1[0].message, "aliases repeat too much in this file");
}

#[test]
fn depth_is_bounded_however_it_is_written() {
    let depth = 100_000;
    for text in [
        "[".repeat(depth),
        "{a: ".repeat(depth),
        "- ".repeat(depth),
        "? ".repeat(depth),
        "[".repeat(40) + &"]".repeat(40),
        (0..60).map(|level| " ".repeat(level) + "a:\n").collect::<String>(),
    ] {
        let (node, problems) = read_bytes(text.as_bytes());
        assert!(node.is_none() && problems.len() == 1, "{:.20}", text);
        diagnostic::render_all(&problems, false);
    }
    let nested =
        (0..20).map(|level| format!("a{level}: &a{level} [[[*a{}]]]\n", level - 1)).collect::<String>();
    assert!(!read_bytes(nested.replace("*a-1", "x").as_bytes()).1.is_empty());
}

#[test]
fn what_is_no_text_is_refused() {
    let mistakes: &[(&str, &[u8])] = &[
        ("not UTF-8", b"a: b\r\nc: d\r\ne: \xE9t\xE9\n"),
        ("UTF-16", b"\xFF\xFEa\0:\0"),
        ("a NUL", b"a: b\0c\n"),
        ("a lone carriage return", b"a: b\rc: d\n"),
        ("an escape sequence", b"a: \x1b[31mred\n"),
    ];
    let mut shown = String::new();
    for (mistake, bytes) in mistakes {
        let (node, problems) = read_bytes(bytes);
        assert!(node.is_none());
        let _ = writeln!(shown, "── {mistake}\n\n{}", diagnostic::render_all(&problems, false));
    }
    insta::assert_snapshot!("no_text", shown);
    let large = vec![b'#'; MAX_BYTES + 1];
    assert_eq!(read_bytes(&large).1[0].message, "the file is larger than 8 MiB");
}

#[test]
fn every_slip_of_yaml_is_shown_with_what_to_do() {
    let mistakes: &[(&str, &str)] = &[
        ("a tab", "a:\n\tb: c\n"),
        ("a second document", "a: b\n---\nc: d\n"),
        ("a key twice", "a: b\nc: d\na: e\n"),
        ("a merge key", "a: &x {b: c}\nd:\n  <<: *x\n"),
        ("a tag", "a: !!str b\n"),
        ("an own tag", "a: !include b.yaml\n"),
        ("an unquoted star", "*:DiskFull:\n  commands: [x]\n"),
        ("an alias within its anchor", "a: &x [b, *x]\n"),
        ("an unquoted channel", "channels: [#alerts]\n"),
        ("an unquoted handle", "approvers: [@sre]\n"),
        ("a colon within text", "about: nginx: is down\n"),
        ("a key without a space", "a:\n  b:c\n  d: e\n"),
        ("a bracket first", "commands:\n  - [ -f /x ] && y\n"),
        ("text behind a quote", "confirm: \"a\" || b\n"),
        ("an open quote", "a: \"b\nc: d\n"),
        ("an open bracket", "a: [b, c\nd: e\n"),
        ("an open brace", "{\"a\": {\"b\": \"c\"}\n"),
        ("a wrong indentation", "a:\n    b: c\n  d: e\n"),
        ("a percent sign first", "a: %b\n"),
        ("an escape that YAML does not know", "a: \"\\w+\"\n"),
        ("a character in two halves", "{\"a\": \"\\ud83d\\ude00\"}"),
        ("a map as a key", "{a: b}: c\n"),
        ("no key", "? \n: b\n"),
    ];
    let mut shown = String::new();
    for (mistake, text) in mistakes {
        let (_, problems) = read_bytes(text.as_bytes());
        let _ = writeln!(shown, "── {mistake}\n\n{}", diagnostic::render_all(&problems, false));
    }
    insta::assert_snapshot!("slips", shown);
}
