//! A file's text, with the way from a byte to its line and column.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::rule::{Diagnostic, Place};

/// Files larger than this are refused: ten thousand rules take about three mebibytes.
pub const MAX_BYTES: usize = 8 << 20;

/// A range of bytes in a [`Source`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Span {
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        Span { start, end: u32::try_from(end).unwrap_or(u32::MAX).max(start) }
    }

    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One file as it is shown in diagnostics: UTF-8, without a byte order mark, lines ended by `\n`.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    pub name: Arc<str>,
    pub text: String,
    /// Where each line begins.
    lines: Vec<u32>,
}

impl Source {
    pub fn new(name: &str, text: String) -> Arc<Source> {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| Span::new(at + 1, 0).start)).collect();
        Arc::new(Source { name: name.into(), text, lines })
    }

    /// The line (from 0) that holds byte `at`.
    pub fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start as usize <= at).saturating_sub(1)
    }

    /// The bytes of line `line` (from 0), without its end.
    pub fn line_range(&self, line: usize) -> Range<usize> {
        let start = self.lines.get(line).map_or(self.text.len(), |start| *start as usize);
        let end = self.lines.get(line + 1).map_or(self.text.len(), |next| *next as usize - 1);
        start..end.max(start)
    }

    pub fn place(&self, span: Span) -> Place {
        let at = floor(&self.text, span.start as usize);
        let line = self.line_of(at);
        let column = self.text[self.line_range(line).start.min(at)..at].chars().count() + 1;
        Place { file: Arc::clone(&self.name), line: line + 1, column }
    }

    /// `span` cut to its first line and to whole characters.
    pub fn first_line(&self, span: Span) -> Range<usize> {
        let start = floor(&self.text, span.start as usize);
        let line = self.line_range(self.line_of(start));
        let end = floor(&self.text, span.end as usize).clamp(start, line.end.max(start));
        start..end
    }
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Makes text of a file's bytes, or says why it is none.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Arc<Source>, Box<Diagnostic>> {
    let name = path.display().to_string();
    let refuse =
        |message: String, hint: &str| Err(Box::new(Diagnostic::of_file(&name, message).with_hint(hint)));
    if bytes.len() > MAX_BYTES {
        return refuse(
            format!("the file is larger than {} MiB", MAX_BYTES >> 20),
            "split it into several files",
        );
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return refuse("the file is UTF-16".to_owned(), "save it as UTF-8");
    }
    let bytes = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.replace("\r\n", "\n"),
        Err(error) => {
            let good = error.valid_up_to();
            let source = Source::new(&name, String::from_utf8_lossy(bytes).replace("\r\n", "\n"));
            // The good part may have held `\r\n`, which are one byte now.
            let at = good - bytes[..good].windows(2).filter(|two| two == b"\r\n").count();
            return Err(Box::new(
                Diagnostic::error(&source, Span::new(at, at + 3), "the file is not UTF-8")
                    .with_label(format!("the byte 0x{:02X}", bytes.get(good).copied().unwrap_or(0)))
                    .with_hint("save it as UTF-8"),
            ));
        }
    };
    let source = Source::new(&name, text);
    let odd = |ch: char| ch.is_control() && ch != '\n' && ch != '\t';
    if let Some((at, ch)) = source.text.char_indices().find(|(_, ch)| odd(*ch)) {
        let message = format!("the control character U+{:04X} stands in the file", u32::from(ch));
        return Err(Box::new(
            Diagnostic::error(&source, Span::new(at, at + ch.len_utf8()), message)
                .with_hint("remove it; only line ends and tabs may stand in a file"),
        ));
    }
    Ok(source)
}
