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
    SlackBlockMarkDownText { text: cut(line.done()), verbatim: Some(true) }
}

/// A text over the limit loses its end; lines are bounded where they are made, so this is a last guard.
/// Cut before an open `<…>` or entity: half a sequence would show as such.
fn cut(text: String) -> String {
    if text.chars().count() <= TEXT {
        return text;
    }
    let mut short: String = text.chars().take(TEXT - 1).collect();
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
        .then(|| SlackBlock::Actions(SlackActionsBlock { block_id: None, elements: buttons }))
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
    (!elements.is_empty()).then(|| SlackBlock::RichText(SlackRichTextBlock { block_id: None, elements }))
}

fn bold(text: String) -> SlackRichTextInlineElement {
    let style = SlackRichTextStyle::new().with_bold(true);
    SlackRichTextInlineElement::Text(SlackRichTextText { text, style: Some(style) })
}
