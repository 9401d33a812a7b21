//! A problem in a file, as data, and as text in the manner of rustc.
//!
//! Reading collects them all; nothing prints by itself, so tests and `/heal` can show them too.

use std::fmt::Write as _;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

use super::Place;
use super::yaml::{Source, Span};

/// Lines longer than this (bytes) are not shown, only their place.
const MAX_LINE: usize = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file must not be used.
    Error,
    /// The file works, perhaps not as meant.
    Warning,
}

/// Where a problem is shown: a place, and the text around it where it is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub place: Place,
    pub span: Span,
    pub source: Option<Arc<Source>>,
    pub label: Option<String>,
}

/// One problem: what is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    /// The file, line and column; line 0 when it is about the file as a whole.
    pub place: Place,
    pub span: Span,
    pub source: Option<Arc<Source>>,
    /// What stands under the caret.
    pub label: Option<String>,
    /// Other places that take part.
    pub related: Vec<Spot>,
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn error(source: &Arc<Source>, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            place: source.place(span),
            span,
            source: Some(Arc::clone(source)),
            label: None,
            related: Vec::new(),
            hint: None,
        }
    }

    pub fn warning(source: &Arc<Source>, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(source, span, message) }
    }

    /// A problem at a place whose text is not at hand.
    pub fn at(place: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            place,
            span: Span::default(),
            source: None,
            label: None,
            related: Vec::new(),
            hint: None,
        }
    }

    /// A problem of a file as a whole.
    pub fn of_file(file: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(Place { file: file.into(), line: 0, column: 0 }, message)
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub fn label(&mut self, label: impl Into<String>) -> &mut Diagnostic {
        self.label = Some(label.into());
        self
    }

    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label(label);
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint(hint);
        self
    }

    pub fn with_related(mut self, source: &Arc<Source>, span: Span, label: impl Into<String>) -> Diagnostic {
        self.related.push(Spot {
            place: source.place(span),
            span,
            source: Some(Arc::clone(source)),
            label: Some(label.into()),
        });
        self
    }

    /// The problem as text, ending in a line end. `colour` for terminals only.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut elements: Vec<Element<'_>> = Vec::new();
        // Places of one file share a picture.
        let mut others: Vec<&Spot> = self.related.iter().collect();
        let same = |spot: &&Spot| spot.source.is_some() && spot.place.file == self.place.file;
        let own: Vec<&Spot> = others.iter().copied().filter(same).collect();
        others.retain(|spot| !same(spot));
        elements.push(picture(
            &self.place,
            self.source.as_deref(),
            std::iter::once((AnnotationKind::Primary, self.span, self.label.as_deref()))
                .chain(own.iter().map(|spot| (AnnotationKind::Context, spot.span, spot.label.as_deref()))),
        ));
        for spot in others {
            let annotation = (AnnotationKind::Context, spot.span, spot.label.as_deref());
            elements.push(picture(&spot.place, spot.source.as_deref(), std::iter::once(annotation)));
        }
        if let Some(hint) = &self.hint {
            elements.push(Level::HELP.with_name("hint").message(hint.as_str()).into());
        }
        let group = level.primary_title(self.message.as_str()).elements(elements);
        let mut text = renderer.render(&[group]);
        text.push('\n');
        text
    }
}

/// The lines of a file that the annotations stand in, or only its name where there is no text.
fn picture<'a>(
    place: &'a Place,
    source: Option<&'a Source>,
    annotations: impl Iterator<Item = (AnnotationKind, Span, Option<&'a str>)>,
) -> Element<'a> {
    let bare = || {
        let mut origin = Origin::path(place.file.as_ref());
        if place.line > 0 {
            origin = origin.line(place.line).char_column(place.column);
        }
        origin.into()
    };
    let Some(source) = source else { return bare() };
    let marks: Vec<_> =
        annotations.map(|(kind, span, label)| (kind, source.first_line(span), label)).collect();
    let lines = || marks.iter().map(|(_, range, _)| source.line_of(range.start));
    let (Some(first), Some(last)) = (lines().min(), lines().max()) else { return bare() };
    if lines().any(|line| source.line_range(line).len() > MAX_LINE) {
        return bare();
    }
    let window = source.line_range(first).start..source.line_range(last).end;
    let mut snippet = Snippet::source(crate::text::mask_passwords(&source.text[window.clone()]))
        .line_start(first + 1)
        .path(place.file.as_ref());
    for (kind, range, label) in marks {
        let annotation = kind.span(range.start - window.start..range.end - window.start);
        snippet = snippet.annotation(annotation.label(label));
    }
    snippet.into()
}

/// All problems as text, one after the other, in the order of files and lines.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        let _ = writeln!(text, "{}", diagnostic.render(colour));
    }
    text
}

/// Orders problems by file, line and column.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by(|a, b| {
        (&a.place.file, a.place.line, a.place.column).cmp(&(&b.place.file, b.place.line, b.place.column))
    });
}

/// A piece of a file within a message: cleaned, bounded, in backticks.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", crate::text::clean(text, 80))
}
