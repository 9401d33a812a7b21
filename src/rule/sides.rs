//! Which of many patterns fit a text, and which of them can fit a common text, without trying all.
//!
//! Each pattern hangs at an anchor: its literal beginning or end, whichever is longer, or the end of
//! its longest inner literal. A look-up walks the anchors that the text has (their few distinct
//! lengths, hashed), then tries only the patterns that hang there. This is built in one pass over the
//! keys, and costs a hash entry a pattern; a `RegexSet` of ten thousand would have to be compiled at
//! every reload, and its lazy automaton grows with what is looked up.

use std::collections::{BTreeSet, HashMap};

use super::glob;

/// An id of a distinct side.
pub type Id = u32;

/// An inner anchor's longest length, in bytes; more would only add lengths to walk.
const INNER: usize = 12;

/// Distinct sides (texts or patterns), each with an id from 0 up.
#[derive(Debug, Default)]
pub struct Sides {
    texts: Vec<Box<str>>,
    ids: HashMap<Box<str>, Id>,
    prefixes: Anchors,
    suffixes: Anchors,
    inner: Anchors,
    /// Patterns of stars alone.
    any: Vec<Id>,
}

#[derive(Debug, Default)]
struct Anchors {
    lengths: BTreeSet<usize>,
    at: HashMap<Box<[u8]>, Vec<Id>>,
}

impl Anchors {
    fn hang(&mut self, anchor: &[u8], id: Id) {
        self.lengths.insert(anchor.len());
        self.at.entry(anchor.into()).or_default().push(id);
    }

    fn at(&self, anchor: &[u8]) -> &[Id] {
        self.at.get(anchor).map_or(&[], Vec::as_slice)
    }
}

impl Sides {
    /// The id of `side`, which is added when it is new.
    pub fn add(&mut self, side: &str) -> Id {
        if let Some(id) = self.ids.get(side) {
            return *id;
        }
        let id = Id::try_from(self.texts.len()).unwrap_or(Id::MAX);
        self.texts.push(side.into());
        self.ids.insert(side.into(), id);
        if glob::is_pattern(side) {
            let (prefix, suffix) = (glob::prefix(side), glob::suffix(side));
            if prefix.is_empty() && suffix.is_empty() {
                let longest = side.split('*').max_by_key(|literal| literal.len()).unwrap_or("").as_bytes();
                if longest.is_empty() {
                    self.any.push(id);
                } else {
                    self.inner.hang(&longest[longest.len().saturating_sub(INNER)..], id);
                }
            } else if prefix.len() >= suffix.len() {
                self.prefixes.hang(prefix.as_bytes(), id);
            } else {
                self.suffixes.hang(suffix.as_bytes(), id);
            }
        }
        id
    }

    pub fn text(&self, id: Id) -> &str {
        &self.texts[id as usize]
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The ids of all sides that fit `text`.
    pub fn matching(&self, text: &str) -> Vec<Id> {
        let bytes = text.as_bytes();
        let mut found: Vec<Id> = self.any.clone();
        let mut try_all = |ids: &[Id]| {
            found.extend(ids.iter().copied().filter(|id| glob::glob_match(self.text(*id), text)));
        };
        for length in self.prefixes.lengths.range(..=bytes.len()) {
            try_all(self.prefixes.at(&bytes[..*length]));
        }
        for length in self.suffixes.lengths.range(..=bytes.len()) {
            try_all(self.suffixes.at(&bytes[bytes.len() - *length..]));
        }
        for length in self.inner.lengths.range(..=bytes.len()) {
            for window in bytes.windows(*length) {
                try_all(self.inner.at(window));
            }
        }
        // An exact side is its own text; a text that holds a `*` is no side, it is only an odd name.
        if let Some(id) = self.ids.get(text).filter(|_| !glob::is_pattern(text)) {
            found.push(*id);
        }
        // An inner anchor may stand twice in the text.
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The sides in two orders, for finding those that overlap a given one.
pub struct Overlaps<'s> {
    sides: &'s Sides,
    /// By literal beginning, and by literal end read backwards.
    forward: Vec<(Vec<u8>, Id)>,
    backward: Vec<(Vec<u8>, Id)>,
}

impl<'s> Overlaps<'s> {
    pub fn new(sides: &'s Sides) -> Overlaps<'s> {
        let ids = || (0..sides.len()).map(|id| Id::try_from(id).unwrap_or(Id::MAX));
        let mut forward: Vec<_> = ids().map(|id| (glob::prefix(sides.text(id)).into(), id)).collect();
        let mut backward: Vec<_> =
            ids().map(|id| (glob::suffix(sides.text(id)).bytes().rev().collect(), id)).collect();
        forward.sort_unstable();
        backward.sort_unstable();
        Overlaps { sides, forward, backward }
    }

    /// The ids of all sides that have a text in common with side `id`, itself among them.
    pub fn of(&self, id: Id) -> Vec<Id> {
        let side = self.sides.text(id);
        let forward: Vec<u8> = glob::prefix(side).into();
        let backward: Vec<u8> = glob::suffix(side).bytes().rev().collect();
        let (order, key) = if forward.len() >= backward.len() {
            (&self.forward, forward)
        } else {
            (&self.backward, backward)
        };
        let from = order.partition_point(|(other, _)| *other < key);
        // Those whose literal goes on from this one's …
        let longer = order[from..].iter().take_while(|(other, _)| other.starts_with(&key));
        // … and those whose literal this one goes on from.
        let shorter = (0..key.len()).flat_map(|length| {
            let part = &key[..length];
            let from = order.partition_point(|(other, _)| other.as_slice() < part);
            order[from..].iter().take_while(move |(other, _)| other.as_slice() == part)
        });
        longer
            .chain(shorter)
            .map(|(_, other)| *other)
            .filter(|other| glob::overlap(side, self.sides.text(*other)))
            .collect()
    }
}
