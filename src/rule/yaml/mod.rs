//! YAML with places: the tree that rules and config are read from, and the reader that makes it.
//!
//! Own nodes instead of serde: every value knows where it stands, so that every problem can be shown
//! in its line, and all of them at once. What YAML offers and a file of orders to root does not need
//! (tags, merge keys, several documents) is refused in plain words; anchors work within a bound.
//! JSON is read as the YAML that it is.

mod fields;
mod parse;
mod source;

pub use fields::{Fields, Problems, closest};
pub use parse::read;
pub use source::{MAX_BYTES, Source, Span, decode};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

/// What a value is. A scalar keeps its text as written: `080` stays `080`, and who reads it decides
/// what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Scalar {
        text: String,
        /// Written without quotes, so that `null`, `true` and numbers have their meaning.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value` of a map. Keys are unique within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Node {
    /// Nothing was written, or `null` or `~`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for people: `a list`, `a map`, `text`, `nothing`.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

#[cfg(test)]
mod tests;
