//! The few Block Kit shapes that heal's messages are made of, within Slack's limits.
//!
//! Limits: 50 blocks, 3,000 characters a text, 75 a button (slack_sdk/models); all blocks together
//! about 13,200 (bolt-js#2509), of which heal uses 12,000.

use slack_morphism::prelude::*;

use crate::text::clip;

use super::line::Line;

/// Characters of one text object.
pub(super) const TEXT: usize = 3_000;

/// Button ids; stable, since messages of old versions stay in their threads. The value of each is the remediation's id.
pub const APPROVE: &str = "heal:approve";
pub const REJECT: &str = "heal:reject";
pub const HOLD: &str = "heal:hold";
pub const PAUSE: &str = "heal:pause";
pub const AGAIN: &str = "heal:again";

fn markup(line: Line) -> SlackBlockMarkDownText {
    // Verbatim: Slack parses our sequences and leaves plain URLs and #names alone.
    SlackBlockMarkDownText { text: cut(line.done(), TEXT), verbatim: Some(true) }
}

/// A text over the limit loses its end; lines are bounded where they are made, so this is a last guard.
/// Cut before an open `<…>` or entity: half a sequence would show as such.
fn cut(text: String, max: usize) -> String {
    if text.chars().count() <= max {
        return text;
    }
    let mut short: String = text.chars().take(max - 1).collect();
    for open in ['<', '&'] {
        if let Some(at) = short.rfind(open)
            && !short[at..].contains(if open == '<' { '>' } else { ';' })
        {
            short.truncate(at);
        }
    }
    short.push('…');
    short
}

/// All characters of a message's blocks that heal allows itself.
const TOTAL: usize = 12_000;
/// What any one line keeps where a message would be too long.
const LEAST: usize = 400;

/// Cuts prose, longest first, until Slack takes the message. Commands and output are never touched:
/// they are bounded where they are made, so that this always suffices.
pub(super) fn fit(mut blocks: Vec<SlackBlock>) -> Vec<SlackBlock> {
    while blocks.iter().map(weight).sum::<usize>() > TOTAL {
        let longest = blocks.iter_mut().filter_map(prose).max_by_key(|text| text.chars().count());
        match longest {
            Some(text) if text.chars().count() > LEAST => *text = cut(std::mem::take(text), LEAST),
            _ => break,
        }
    }
    blocks
}

fn prose(block: &mut SlackBlock) -> Option<&mut String> {
    match block {
        SlackBlock::Section(SlackSectionBlock { text: Some(SlackBlockText::MarkDown(text)), .. }) => {
            Some(&mut text.text)
        }
        SlackBlock::Context(context) => match context.elements.first_mut() {
            Some(SlackContextBlockElement::MarkDown(text)) => Some(&mut text.text),
            _ => None,
        },
        _ => None,
    }
}

/// Characters of a block as Slack may count them; buttons are counted generously.
fn weight(block: &SlackBlock) -> usize {
    match block {
        SlackBlock::Section(SlackSectionBlock { text: Some(SlackBlockText::MarkDown(text)), .. }) => {
            text.text.chars().count()
        }
        SlackBlock::Context(context) => context
            .elements
            .iter()
            .map(|element| match element {
                SlackContextBlockElement::MarkDown(text) => text.text.chars().count(),
                _ => 0,
            })
            .sum(),
        SlackBlock::RichText(rich) => rich
            .elements
            .iter()
            .map(|element| match element {
                SlackRichTextElement::Section(part) => inline(&part.elements),
                SlackRichTextElement::Preformatted(part) => inline(&part.elements),
                _ => 0,
            })
            .sum(),
        _ => 600,
    }
}

fn inline(elements: &[SlackRichTextInlineElement]) -> usize {
    elements
        .iter()
        .map(|element| match element {
            SlackRichTextInlineElement::Text(text) => text.text.chars().count(),
            _ => 0,
        })
        .sum()
}

pub(super) fn section(line: Line) -> SlackBlock {
    let text = SlackBlockText::MarkDown(markup(line));
    SlackBlock::Section(SlackSectionBlock {
        block_id: None,
        text: Some(text),
        fields: None,
        accessory: None,
        expand: None,
    })
}

/// Small grey text.
pub(super) fn context(line: Line) -> SlackBlock {
    SlackBlock::Context(SlackContextBlock {
        block_id: None,
        elements: vec![SlackContextBlockElement::MarkDown(markup(line))],
    })
}

pub(super) fn actions(buttons: Vec<SlackActionBlockElement>) -> Option<SlackBlock> {
    (!buttons.is_empty())
        .then_some(SlackBlock::Actions(SlackActionsBlock { block_id: None, elements: buttons }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Primary,
    Danger,
}

pub(super) fn button(action: &str, label: &str, value: &str, look: Look) -> SlackActionBlockElement {
    SlackActionBlockElement::Button(SlackBlockButtonElement {
        action_id: Some(SlackActionId(action.to_owned())),
        text: plain(label),
        url: None,
        value: Some(clip(value, 2_000)),
        style: match look {
            Look::Plain => None,
            Look::Primary => Some(SlackBlockButtonStyle::Primary),
            Look::Danger => Some(SlackBlockButtonStyle::Danger),
        },
        confirm: None,
        accessibility_label: None,
    })
}

/// A button that asks once more before it acts. `title` holds 100 characters, `text` 300, the answers 30.
pub(super) fn asking(
    button: SlackActionBlockElement,
    title: &str,
    text: &str,
    yes: &str,
) -> SlackActionBlockElement {
    match button {
        SlackActionBlockElement::Button(mut element) => {
            element.confirm = Some(SlackBlockConfirmItem {
                title: plain(&clip(title, 100)),
                text: SlackBlockText::Plain(SlackBlockPlainText {
                    text: clip(text, 300),
                    emoji: Some(false),
                }),
                confirm: plain(&clip(yes, 30)),
                deny: plain("Not now"),
                style: None,
            });
            SlackActionBlockElement::Button(element)
        }
        other => other,
    }
}

fn plain(text: &str) -> SlackBlockPlainTextOnly {
    SlackBlockPlainTextOnly::from(SlackBlockPlainText { text: text.to_owned(), emoji: Some(false) })
}

/// Labelled text as it is: nothing in `rich_text` text is parsed, so what is shown is what it is.
pub(super) fn verbatim(parts: Vec<(String, String)>) -> Option<SlackBlock> {
    let mut elements = Vec::with_capacity(parts.len() * 2);
    for (label, text) in parts {
        if !label.is_empty() {
            elements
                .push(SlackRichTextElement::Section(SlackRichTextSection { elements: vec![bold(label)] }));
        }
        if !text.is_empty() {
            let text = SlackRichTextInlineElement::Text(SlackRichTextText { text, style: None });
            elements.push(SlackRichTextElement::Preformatted(SlackRichTextPreformatted {
                elements: vec![text],
                border: None,
                language: None,
            }));
        }
    }
    (!elements.is_empty()).then_some(SlackBlock::RichText(SlackRichTextBlock { block_id: None, elements }))
}

fn bold(text: String) -> SlackRichTextInlineElement {
    let style = SlackRichTextStyle::new().with_bold(true);
    SlackRichTextInlineElement::Text(SlackRichTextText { text, style: Some(style) })
}
