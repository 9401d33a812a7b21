//! The rule files of a directory: the thin part that touches the file system.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::rule::yaml::MAX_BYTES;
use crate::rule::{Diagnostic, Severity};

/// Folders within folders, at most.
const MAX_DEPTH: usize = 16;

/// Every `*.yaml`, `*.yml` and `*.json` under `dir`, sorted by path, with its bytes; and what could not
/// be read. Hidden files and folders are skipped, and so are rule tests (`*.test.yaml`). Links are followed (a
/// mounted ConfigMap is made of them), each folder once. `dir` may be one file too.
pub fn read_rules(dir: &Path) -> (Vec<(PathBuf, Vec<u8>)>, Vec<Diagnostic>) {
    let mut walk = Walk { files: Vec::new(), problems: Vec::new(), seen: BTreeSet::new() };
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => {
            walk.folder(dir, 0);
            if walk.files.is_empty() && walk.problems.is_empty() {
                walk.problems.push(Diagnostic {
                    severity: Severity::Warning,
                    ..Diagnostic::of_file(
                        &dir.display().to_string(),
                        "there are no rule files in this directory",
                    )
                    .with_hint("rules are *.yaml, *.yml and *.json files")
                });
            }
        }
        Ok(_) => walk.file(dir),
        Err(error) => walk.problems.push(
            Diagnostic::of_file(&dir.display().to_string(), format!("the rules cannot be read: {error}"))
                .with_hint("name the directory with --rules DIR, or with `rules:` in the config"),
        ),
    }
    (walk.files, walk.problems)
}

struct Walk {
    files: Vec<(PathBuf, Vec<u8>)>,
    problems: Vec<Diagnostic>,
    seen: BTreeSet<PathBuf>,
}

impl Walk {
    fn problem(&mut self, path: &Path, message: String) {
        self.problems.push(Diagnostic::of_file(&path.display().to_string(), message));
    }

    fn folder(&mut self, dir: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            self.problem(dir, format!("folders are nested more than {MAX_DEPTH} deep"));
            return;
        }
        if fs::canonicalize(dir).is_ok_and(|real| !self.seen.insert(real)) {
            return;
        }
        let entries = match fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()) {
            Ok(entries) => entries,
            Err(error) => {
                self.problem(dir, format!("the directory cannot be read: {error}"));
                return;
            }
        };
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() => self.folder(&path, depth + 1),
                Ok(found) if found.is_file() && is_rules(&name) => self.file(&path),
                Ok(_) => {}
                Err(error) if is_rules(&name) => {
                    self.problem(&path, format!("the file cannot be read: {error}"))
                }
                Err(_) => {}
            }
        }
    }

    fn file(&mut self, path: &Path) {
        match read_bounded(path) {
            Ok(bytes) => self.files.push((path.to_owned(), bytes)),
            Err(error) => self.problem(path, format!("the file cannot be read: {error}")),
        }
    }
}

/// At most one byte more than may be: enough to see that it is too much.
pub fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_rules(name: &str) -> bool {
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    matches!(kind, "yaml" | "yml" | "json") && !stem.ends_with(".test") && !stem.ends_with(".tests")
}
