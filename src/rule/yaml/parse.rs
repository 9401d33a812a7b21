//! From text to nodes. Depth, size and the work that aliases can cause are bounded, so that no file
//! can exhaust memory or the stack.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::{Entry, Node, Source, Span, Value};
use crate::rule::Diagnostic;

/// A rule file needs five levels.
const MAX_DEPTH: usize = 32;
/// Nodes and bytes of text that all aliases of one file may repeat (a "billion laughs" ends here).
const MAX_REPEATED: usize = 1 << 18;
/// Ten thousand rules have about three hundred thousand.
const MAX_NODES: usize = 1_000_000;

type Events<'a> = Parser<'a, StrInput<'a>>;

/// Reads `source` as one YAML document. `None` when there is none, or it holds nothing.
/// A slip that leaves the rest readable (a repeated key, say) is added to `problems`; what cannot
/// be read on from ends the reading and is the last of them.
pub fn read(source: &Arc<Source>, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut reader = Reader {
        source,
        events: Parser::new_from_str(&source.text),
        bytes: if source.text.is_ascii() {
            None
        } else {
            Some(source.text.char_indices().map(|(at, _)| Span::new(at, 0).start).collect())
        },
        anchors: HashMap::new(),
        repeated: 0,
        nodes: 0,
        problems,
    };
    match reader.document() {
        Ok(node) => node.filter(|node| !node.is_null()),
        Err(problem) => {
            problems.push(*problem);
            None
        }
    }
}

struct Reader<'a, 'p> {
    source: &'a Arc<Source>,
    events: Events<'a>,
    /// From character to byte, where the two differ.
    bytes: Option<Vec<u32>>,
    /// Finished anchored nodes, with their height and size.
    anchors: HashMap<usize, (Node, usize, usize)>,
    repeated: usize,
    nodes: usize,
    problems: &'p mut Vec<Diagnostic>,
}

type Failed = Box<Diagnostic>;

impl<'a> Reader<'a, '_> {
    fn byte(&self, index: usize) -> usize {
        match &self.bytes {
            None => index.min(self.source.text.len()),
            Some(bytes) => bytes.get(index).map_or(self.source.text.len(), |at| *at as usize),
        }
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        Span::new(self.byte(span.start.index()), self.byte(span.end.index()))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Failed> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                let span = self.span(span);
                Ok((event, span))
            }
            Some(Err(error)) => Err(Box::new(self.syntax(&error))),
            None => Ok((Event::StreamEnd, Span::new(self.source.text.len(), self.source.text.len()))),
        }
    }

    fn fail<T>(&self, span: Span, message: &str, hint: &str) -> Result<T, Failed> {
        Err(Box::new(Diagnostic::error(self.source, span, message).with_hint(hint)))
    }

    fn document(&mut self) -> Result<Option<Node>, Failed> {
        let mut root = None;
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return self.fail(
                            span,
                            "a second YAML document begins here",
                            "one file holds one document: remove the `---`, or split the file",
                        );
                    }
                }
                other => root = Some(self.node(other, span, 0)?.0),
            }
        }
    }

    /// One node from its first event on, with its height (a scalar has 1) and its size.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<(Node, usize, usize), Failed> {
        if depth >= MAX_DEPTH {
            return self.too_deep(span);
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.fail(
                span,
                "the file holds more than a million values",
                "split it into several files",
            );
        }
        let (anchor, read) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.untagged(tag.is_some(), span)?;
                let plain = style == ScalarStyle::Plain;
                let size = 1 + text.len();
                let text = match text {
                    Cow::Borrowed(text) => text.to_owned(),
                    Cow::Owned(text) => text,
                };
                (anchor, (Node { span, value: Value::Scalar { text, plain } }, 1, size))
            }
            Event::SequenceStart(anchor, tag) => {
                self.untagged(tag.is_some(), span)?;
                (anchor, self.list(span, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.untagged(tag.is_some(), span)?;
                (anchor, self.map(span, depth)?)
            }
            Event::Alias(anchor) => {
                let Some((node, height, size)) = self.anchors.get(&anchor) else {
                    return self.fail(span, "this alias stands within its own anchor", "write the value out");
                };
                let (mut node, height, size) = (node.clone(), *height, *size);
                self.repeat(size, span)?;
                if depth + height > MAX_DEPTH {
                    return self.too_deep(span);
                }
                node.span = span;
                return Ok((node, height, size));
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd
            | Event::Nothing => return self.fail(span, "a value is missing here", "write a value"),
        };
        if anchor > 0 {
            self.repeat(read.2, span)?;
            self.anchors.insert(anchor, read.clone());
        }
        Ok(read)
    }

    fn too_deep<T>(&self, span: Span) -> Result<T, Failed> {
        let hint = "nothing in heal's files needs more than five levels";
        self.fail(span, "values are nested too deeply here", hint)
    }

    /// Counts what is kept once more.
    fn repeat(&mut self, size: usize, span: Span) -> Result<(), Failed> {
        self.repeated += size;
        if self.repeated <= MAX_REPEATED {
            return Ok(());
        }
        self.fail(
            span,
            "aliases repeat too much in this file",
            "write the values out, or put what rules share under `defaults` in the config",
        )
    }

    fn untagged(&self, tagged: bool, span: Span) -> Result<(), Failed> {
        if !tagged {
            return Ok(());
        }
        // The span of a tagged value leaves its tag out; the mark stands somewhat before.
        let line = self.source.line_range(self.source.line_of(span.start as usize));
        let before = &self.source.text[line.start..span.start as usize];
        let start = before.rfind('!').map_or(span.start as usize, |at| line.start + at);
        let message = "an unquoted `!` begins a YAML tag, and tags are not used here";
        Err(Box::new(
            Diagnostic::error(self.source, Span::new(start, (start + 1).max(span.end as usize)), message)
                .with_hint("put the whole text in quotes: \"! …\""),
        ))
    }

    fn list(&mut self, span: Span, depth: usize) -> Result<(Node, usize, usize), Failed> {
        let (mut items, mut height, mut size) = (Vec::new(), 1, 1);
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((Node { span, value: Value::List(items) }, height, size));
            }
            let (item, tall, large) = self.node(event, at, depth + 1)?;
            height = height.max(tall + 1);
            size += large;
            items.push(item);
        }
    }

    fn map(&mut self, span: Span, depth: usize) -> Result<(Node, usize, usize), Failed> {
        let (mut entries, mut height, mut size) = (Vec::<Entry>::new(), 1, 1);
        let mut seen: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                // A map without braces has no sign of its own; its first key stands for it.
                let first = entries.first().map(|entry| entry.key_span);
                let span = first.filter(|first| span.start == first.start).unwrap_or(span);
                return Ok((Node { span, value: Value::Map(entries) }, height, size));
            }
            let (key, _, _) = self.node(event, at, depth + 1)?;
            let null = key.is_null();
            let Value::Scalar { text, plain } = key.value else {
                return self.fail(
                    key.span,
                    "a key must be text, and this is a list or a map",
                    "a template or any text that begins with `{` or `[` needs quotes: \"{{ … }}\"",
                );
            };
            if null {
                return self.fail(key.span, "a key is missing here", "write `key: value`");
            }
            if plain && text == "<<" {
                return self.fail(
                    key.span,
                    "merge keys (`<<`) are not used here",
                    "write the keys out, or put what rules share under `defaults` in the config",
                );
            }
            let (event, at) = self.next()?;
            let (value, tall, large) = self.node(event, at, depth + 1)?;
            height = height.max(tall + 1);
            size += large + 1 + text.len();
            if let Some(first) = seen.get(&text) {
                self.problems.push(
                    Diagnostic::error(
                        self.source,
                        key.span,
                        format!("the key {} stands twice", crate::rule::diagnostic::quoted(&text)),
                    )
                    .with_label("again here")
                    .with_related(self.source, *first, "first here")
                    .with_hint("keep one of the two"),
                );
                continue;
            }
            seen.insert(text.clone(), key.span);
            entries.push(Entry { key: text, key_span: key.span, value });
        }
    }

    /// The scanner's error in plainer words, with what usually causes it.
    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let at = self.byte(error.marker().index());
        let line = self.source.line_range(self.source.line_of(at));
        let text = &self.source.text[line.clone()];
        let info = error.info();
        let indent = &text[..text.len() - text.trim_start().len()];
        let begins = |ch: char| {
            let value = text.trim_start().trim_start_matches("- ").trim_start();
            value.starts_with(ch) || value.contains(&format!(": {ch}"))
        };
        let hint = if indent.contains('\t') {
            "YAML indents with spaces; replace the tab"
        } else if info.contains("anchor") {
            "an unquoted `*` or `&` means an alias or anchor to YAML; quote the text: \"*:Alert\""
        } else if text.contains("[#") || text.contains("- #") {
            "an unquoted `#` begins a comment; quote the text: \"#alerts\""
        } else if info.contains("Unicode") {
            "write the character itself: YAML knows no pairs of \\u escapes"
        } else if info.contains("escape") {
            "within double quotes a backslash begins an escape; use single quotes, where it is itself"
        } else if info.contains("unexpected character") {
            "a text that begins with `%`, `@` or a backtick needs quotes: \"@sre\""
        } else if info.contains("quoted scalar") && !info.contains("trailing") {
            "is the quote closed?"
        } else if info.contains("flow") {
            "is every `{` and `[` closed, and is there a comma between the items?"
        } else if info.contains("mapping values") {
            "a `: ` within a text makes YAML see a key; quote the text, or look at the indentation"
        } else if begins('[') || begins('{') {
            "a text that begins with `[` or `{` is a list or map to YAML; quote it"
        } else if begins('"') || begins('\'') {
            "text behind a closing quote is not part of it; quote the whole, or use a `|` block"
        } else {
            "look at the indentation, the quotes and the brackets of this line and the one above"
        };
        let end = if at < line.end { at + 1 } else { at };
        Diagnostic::error(self.source, Span::new(at, end), format!("this is not YAML: {info}"))
            .with_hint(hint)
    }
}
