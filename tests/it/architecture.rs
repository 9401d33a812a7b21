//! The order of the house, held by reading the source: who may know whom, what the core must not
//! touch, how long a file may be, and that the map names every room.
//!
//! Paths are read from tokens, not lines, so that grouped `use`s, `super::super::…` and paths inside
//! expressions count, and comments, strings and test code do not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The core from the ground up; each knows only what stands before it.
const CORE: &[&str] = &["time", "text", "alert", "rule", "plan", "gate", "lifecycle", "message"];
/// They know the core and the config's types, and not each other.
const ADAPTERS: &[&str] = &["store", "slack", "aws", "web"];
/// Above the adapters, from the ground up; those of the last line may know each other.
const SHELL: &[&[&str]] = &[&["engine"], &["app"], &["cli", "sandbox"]];
/// Crates of the shell, by the start of their name.
const SHELL_CRATES: &[&str] = &[
    "tokio",
    "rusqlite",
    "aws_",
    "hyper",
    "axum",
    "fastrand",
    "tempfile",
    "futures_util",
    "http_body_util",
    "prometheus_client",
    "clap",
    "tracing_subscriber",
];
/// Paths of the standard library that read a clock or reach outside.
const OUTSIDE: &[&str] = &[
    "std::time::SystemTime",
    "std::time::Instant",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
];
const MAX_LINES: usize = 600;

#[test]
fn no_module_knows_what_stands_above_it() {
    let found = judge_all(reaches_up);
    assert!(found.is_empty(), "the order is in lib.rs and ARCHITECTURE.md:\n{}", found.join("\n"));
}

#[test]
fn the_core_touches_nothing_outside() {
    let found = judge_all(touches_outside);
    assert!(found.is_empty(), "hand clock, randomness and answers in from the shell:\n{}", found.join("\n"));
}

#[test]
fn every_module_has_its_place_in_the_order() {
    let lost: Vec<String> = modules().into_iter().filter(|module| may_know(module).is_none()).collect();
    assert!(lost.is_empty(), "give them a place in tests/it/architecture.rs: {lost:?}");
}

#[test]
fn no_file_outgrows_a_reader() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter_map(|path| {
            let lines = read(&path).lines().count();
            (lines > MAX_LINES).then(|| format!("{}: {lines} lines, look for the seam", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_map_names_every_module() {
    let map = read(&root().join("ARCHITECTURE.md"));
    let words: BTreeSet<&str> = map.split(|ch: char| !(ch.is_alphanumeric() || ch == '_')).collect();
    let missing: Vec<String> =
        modules().into_iter().filter(|module| !words.contains(module.as_str())).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not mention {missing:?}");
}

/// What a module may know of its own crate; `None` for one without a place.
fn may_know(module: &str) -> Option<BTreeSet<&'static str>> {
    if let Some(at) = CORE.iter().position(|name| *name == module) {
        return Some(CORE[..=at].iter().copied().collect());
    }
    let mut known: BTreeSet<&str> = CORE.iter().copied().collect();
    known.insert("config");
    if module == "config" {
        return Some(known);
    }
    if let Some(adapter) = ADAPTERS.iter().find(|name| **name == module) {
        known.insert(adapter);
        return Some(known);
    }
    known.extend(ADAPTERS);
    for floor in SHELL {
        known.extend(*floor);
        if floor.contains(&module) {
            return Some(known);
        }
    }
    // The crate's root and the binary wire everything.
    ["lib", "main"].contains(&module).then(|| {
        known.extend(SHELL.iter().copied().flatten());
        known
    })
}

fn reaches_up(file: &File<'_>) -> Vec<String> {
    let Some(known) = may_know(file.module()) else { return Vec::new() };
    let modules = modules();
    file.paths()
        .into_iter()
        .filter_map(|path| {
            let reached = file.in_crate(&path)?;
            let forbidden = modules.contains(reached) && !known.contains(reached.as_str());
            forbidden.then(|| format!("`{}` must not know `{reached}`", file.module()))
        })
        .collect()
}

fn touches_outside(file: &File<'_>) -> Vec<String> {
    if !CORE.contains(&file.module()) {
        return Vec::new();
    }
    file.paths()
        .into_iter()
        .filter_map(|path| {
            let joined = path.join("::");
            let root = path.first()?;
            let shell = SHELL_CRATES.iter().any(|name| root.starts_with(name))
                // Block Kit's model types are plain data; the module that renders may use them.
                || (root == "slack_morphism" && file.module() != "message");
            let outside =
                OUTSIDE.iter().any(|name| joined == *name || joined.starts_with(&format!("{name}::")));
            (shell || outside).then(|| format!("the core module `{}` uses `{joined}`", file.module()))
        })
        .collect()
}

fn judge_all(judge: fn(&File<'_>) -> Vec<String>) -> Vec<String> {
    let mut found = Vec::new();
    for path in sources() {
        let within = path.strip_prefix(root().join("src")).unwrap().to_owned();
        let is_test = within
            .components()
            .any(|part| Path::new(part.as_os_str()).file_stem().is_some_and(|stem| stem == "tests"));
        if is_test {
            continue;
        }
        let source = read(&path);
        for what in judge(&File { within: &within, source: &source }) {
            found.push(format!("src/{}: {what}", within.display()));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The modules that lib.rs declares.
fn modules() -> BTreeSet<String> {
    let tokens = without_tests(tokens(&read(&root().join("src/lib.rs"))));
    tokens.windows(2).filter(|pair| pair[0] == "mod").map(|pair| pair[1].clone()).collect()
}

/// A source file, by its path within `src`.
struct File<'a> {
    within: &'a Path,
    source: &'a str,
}

impl File<'_> {
    /// The top-level module it belongs to.
    fn module(&self) -> &str {
        let first = self.within.components().next().unwrap().as_os_str().to_str().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules lie between the crate's root and the file's items.
    fn depth(&self) -> usize {
        let parts = self.within.components().count();
        let stem = self.within.file_stem().unwrap();
        if stem == "mod" || stem == "lib" || stem == "main" { parts - 1 } else { parts }
    }

    fn paths(&self) -> Vec<Vec<String>> {
        paths(&without_tests(tokens(self.source)))
    }

    /// The top-level name of this crate that a path begins at, also by way of `super`.
    fn in_crate<'p>(&self, path: &'p [String]) -> Option<&'p String> {
        match path.first()?.as_str() {
            "crate" | "heal" => path.get(1),
            "self" | "super" => {
                let ups = path.iter().filter(|part| *part == "super").count();
                let begin = path.iter().position(|part| part != "super" && part != "self")?;
                (ups >= self.depth()).then(|| &path[begin])
            }
            _ => None,
        }
    }
}

/// Words and marks, without comments, strings, characters and lifetimes.
fn tokens(source: &str) -> Vec<String> {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut out = Vec::new();
    let mut index = 0;
    while index < chars.len() {
        let ch = chars[index];
        if ch == '/' && at(index + 1) == '/' {
            while index < chars.len() && chars[index] != '\n' {
                index += 1;
            }
        } else if ch == '/' && at(index + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(index), at(index + 1)) {
                    ('/', '*') => (depth, index) = (depth + 1, index + 2),
                    ('*', '/') => (depth, index) = (depth - 1, index + 2),
                    _ => index += 1,
                }
                if depth == 0 || index >= chars.len() {
                    break;
                }
            }
        } else if ch == '"' {
            index = after_text(&chars, index);
        } else if ch == '\'' {
            // A character ends in a quote; a lifetime does not.
            if at(index + 1) == '\\' {
                index += 3;
                while index < chars.len() && chars[index] != '\'' {
                    index += 1;
                }
                index += 1;
            } else {
                index += if at(index + 2) == '\'' { 3 } else { 1 };
            }
        } else if ch.is_alphanumeric() || ch == '_' {
            let begin = index;
            while index < chars.len() && (chars[index].is_alphanumeric() || chars[index] == '_') {
                index += 1;
            }
            let word: String = chars[begin..index].iter().collect();
            let raw = ["r", "br", "cr"].contains(&word.as_str()) && (at(index) == '"' || at(index) == '#');
            let hashes = chars[index..].iter().take_while(|ch| **ch == '#').count();
            if raw && at(index + hashes) == '"' {
                let end: String = format!("\"{}", "#".repeat(hashes));
                index += hashes + 1;
                while index < chars.len() && !chars[index..].iter().zip(end.chars()).all(|(a, b)| *a == b) {
                    index += 1;
                }
                index += end.len();
            } else {
                out.push(word);
            }
        } else if ch == ':' && at(index + 1) == ':' {
            out.push("::".to_owned());
            index += 2;
        } else {
            if !ch.is_whitespace() {
                out.push(ch.to_string());
            }
            index += 1;
        }
    }
    out
}

/// The index behind the string that begins at `index`.
fn after_text(chars: &[char], mut index: usize) -> usize {
    index += 1;
    while index < chars.len() && chars[index] != '"' {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// Leaves out what stands behind `#[cfg(test)]` (or `#[test]`): one item, to its `;` or closing brace.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let mut out = Vec::new();
    let mut index = 0;
    let follows = |index: usize, words: &[&str]| {
        tokens.len() >= index + words.len()
            && words.iter().enumerate().all(|(at, word)| tokens[index + at] == *word)
    };
    while index < tokens.len() {
        let test = follows(index, &["#", "[", "cfg", "(", "test", ")", "]"])
            || follows(index, &["#", "[", "test", "]"]);
        if !test {
            out.push(tokens[index].clone());
            index += 1;
            continue;
        }
        let (mut braces, mut others) = (0usize, 0usize);
        while index < tokens.len() {
            match tokens[index].as_str() {
                "{" => braces += 1,
                "(" | "[" => others += 1,
                ")" | "]" => others = others.saturating_sub(1),
                "}" => braces = braces.saturating_sub(1),
                _ => {}
            }
            let ends = (tokens[index] == ";" || tokens[index] == "}") && braces == 0 && others == 0;
            index += 1;
            if ends {
                break;
            }
        }
    }
    out
}

/// Every path of two parts or more, with groups spelled out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        if is_word(&tokens[index]) {
            index = tree(tokens, index, &[], &mut out);
        } else {
            index += 1;
        }
    }
    out.retain(|path| path.len() > 1);
    out
}

/// Reads one path (or `use` tree) at `index` and returns the index behind it.
fn tree(tokens: &[String], mut index: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(index) {
        if is_word(token) || token == "*" {
            path.push(token.clone());
            index += 1;
            if tokens.get(index).is_none_or(|next| next != "::") {
                break;
            }
            index += 1;
        } else if token == "{" && index > 0 && tokens[index - 1] == "::" {
            index += 1;
            while tokens.get(index).is_some_and(|token| token != "}") {
                let word = is_word(&tokens[index]) || tokens[index] == "*";
                if word && tokens[index] != "as" {
                    index = tree(tokens, index, &path, out);
                } else if tokens[index] == "as" {
                    index += 2;
                } else {
                    index += 1;
                }
            }
            return index + 1;
        } else {
            break;
        }
    }
    out.push(path);
    index
}

fn is_word(token: &str) -> bool {
    token.starts_with(|ch: char| ch.is_alphabetic() || ch == '_')
}

fn judged(judge: fn(&File<'_>) -> Vec<String>, within: &str, source: &str) -> Vec<String> {
    let mut found = judge(&File { within: Path::new(within), source });
    found.dedup();
    found
}

#[test]
fn a_reach_upward_is_seen_however_it_is_written() {
    for (within, source) in [
        ("alert/mod.rs", "use crate::rule::Rule;"),
        ("alert/host.rs", "use crate::{text::clean, rule::{self, Rule}};"),
        ("alert/host.rs", "fn f() { let x = crate::store::open(); }"),
        ("alert/mod.rs", "use super::rule;"),
        ("alert/host.rs", "use super::super::engine::Engine;"),
        ("slack/send.rs", "use crate::aws::Ssm as S;"),
        ("text.rs", "pub use crate::alert::*;"),
        ("config/mod.rs", "use crate::store::Store;"),
        ("engine/mod.rs", "use crate::{alert, app};"),
        ("alert/mod.rs", "#[cfg(test)]\nmod tests { use crate::app::App; }\nuse crate::plan::Plan;"),
    ] {
        assert_eq!(judged(reaches_up, within, source).len(), 1, "{within}: {source}");
    }
}

#[test]
fn what_stands_below_may_be_known_and_test_code_may_know_all() {
    for (within, source) in [
        (
            "alert/host.rs",
            "use super::message; use crate::text::clean; // crate::app\nconst A: &str = \"crate::app::x\";",
        ),
        ("alert/alertmanager/details.rs", "use super::super::plan;"),
        ("slack/send.rs", "use crate::{config::Slack, message::Blocks, slack::Error};"),
        ("cli/serve.rs", "use crate::{app::App, sandbox};"),
        ("plan/mod.rs", "#[cfg(test)]\nuse crate::app::App;\n#[test] fn f() { crate::cli::run(); }"),
        (
            "plan/mod.rs",
            "fn f<'a>(c: &'a char) -> bool { *c == '\"' || *c == '\\'' } const R: &str = r#\"crate::app::\"x\"#;",
        ),
    ] {
        assert_eq!(judged(reaches_up, within, source), Vec::<String>::new(), "{within}: {source}");
    }
}

#[test]
fn a_clock_or_a_socket_in_the_core_is_seen() {
    for (within, source) in [
        ("gate/mod.rs", "use std::time::{Duration, Instant};"),
        ("gate/mod.rs", "fn f() { std::time::SystemTime::now(); }"),
        ("plan/mod.rs", "use std::{env, fmt};"),
        ("rule/mod.rs", "use std::fs;"),
        ("alert/host.rs", "use std::net::{IpAddr, TcpStream};"),
        ("plan/mod.rs", "let x = fastrand::u64(..);"),
        ("lifecycle/mod.rs", "#[tokio::main] fn f() {}"),
        ("alert/mod.rs", "use aws_sdk_ssm::Client;"),
        ("alert/mod.rs", "use slack_morphism::prelude::*;"),
    ] {
        assert_eq!(judged(touches_outside, within, source).len(), 1, "{within}: {source}");
    }
    for (within, source) in [
        ("message/mod.rs", "use slack_morphism::prelude::*;"),
        ("gate/mod.rs", "use std::time::Duration; use std::net::IpAddr;"),
        ("engine/mod.rs", "use std::time::Instant; use tokio::time;"),
    ] {
        assert_eq!(judged(touches_outside, within, source), Vec::<String>::new(), "{within}: {source}");
    }
}
