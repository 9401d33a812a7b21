//! Reads one frame of Socket Mode: what it is, leniently, with the payload kept as raw JSON.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::slack::Payload;

/// A frame, understood.
#[derive(Debug)]
pub(super) enum Frame {
    Hello,
    /// Slack is about to close this connection, or has just refused it.
    Disconnect {
        reason: String,
    },
    Envelope(Envelope),
    /// A type we do not know; acknowledged where it has an id, so that Slack does not repeat it.
    Unknown {
        kind: String,
        envelope_id: Option<String>,
    },
    /// No JSON, or something essential is missing. Never acknowledged.
    Malformed {
        why: String,
    },
}

#[derive(Debug)]
pub(super) struct Envelope {
    pub envelope_id: String,
    pub payload: Payload,
    pub raw: Box<str>,
    pub retry_attempt: u32,
}

/// Only `type` is needed to tell frames apart; odd values elsewhere must not hide it.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    envelope_id: Option<Value>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    retry_attempt: Option<Value>,
    #[serde(default)]
    reason: Option<Value>,
}

pub(super) fn read(text: &str) -> Frame {
    let malformed = |why: &str| Frame::Malformed { why: why.to_owned() };
    let raw: Raw<'_> = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) => return Frame::Malformed { why: error.to_string() },
    };
    let envelope_id = match raw.envelope_id {
        Some(Value::String(id)) if !id.is_empty() => Some(id),
        _ => None,
    };
    let make: fn(Value) -> Payload = match raw.kind.as_deref() {
        None => return malformed("it has no type"),
        Some("hello") => return Frame::Hello,
        Some("disconnect") => {
            let reason = raw.reason.as_ref().and_then(Value::as_str).unwrap_or("none given").to_owned();
            return Frame::Disconnect { reason };
        }
        Some("events_api") => Payload::Event,
        Some("interactive") => Payload::Interaction,
        Some("slash_commands") => Payload::Command,
        Some(other) => return Frame::Unknown { kind: crate::text::clip(other, 80), envelope_id },
    };
    let Some(envelope_id) = envelope_id else { return malformed("it has no envelope_id") };
    let Some(payload) = raw.payload else { return malformed("it has no payload") };
    match serde_json::from_str::<Value>(payload.get()) {
        Ok(value) if value.is_object() => Frame::Envelope(Envelope {
            envelope_id,
            payload: make(value),
            raw: payload.get().into(),
            retry_attempt: retries(raw.retry_attempt.as_ref()),
        }),
        Ok(_) => malformed("its payload is no object"),
        Err(error) => Frame::Malformed { why: format!("its payload cannot be read: {error}") },
    }
}

fn retries(value: Option<&Value>) -> u32 {
    value.and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_types_become_payloads_with_their_raw_text() {
        let text = r#"{"type":"events_api","envelope_id":"e1","retry_attempt":2,"payload":{"event_id":"Ev1","event":{"odd":5}}}"#;
        let Frame::Envelope(envelope) = read(text) else { panic!("{:?}", read(text)) };
        assert_eq!(envelope.envelope_id, "e1");
        assert_eq!(envelope.retry_attempt, 2);
        assert_eq!(&*envelope.raw, r#"{"event_id":"Ev1","event":{"odd":5}}"#);
        let Payload::Event(value) = envelope.payload else { panic!("not an event") };
        assert_eq!(value["event"]["odd"], 5);
    }

    #[test]
    fn a_hello_or_disconnect_without_details_is_understood() {
        assert!(matches!(read(r#"{"type":"hello"}"#), Frame::Hello));
        assert!(matches!(read(r#"{"type":"disconnect","reason":5}"#), Frame::Disconnect { .. }));
    }

    #[test]
    fn hostile_frames_are_malformed_or_unknown_and_never_a_payload() {
        for text in [
            "",
            "null",
            "[]",
            "{",
            "{}",
            r#"{"type":5}"#,
            r#"{"type":"events_api"}"#,
            r#"{"type":"events_api","envelope_id":"e","payload":null}"#,
            r#"{"type":"events_api","envelope_id":"e","payload":"x"}"#,
            r#"{"type":"events_api","envelope_id":7,"payload":{}}"#,
            r#"{"type":"interactive","payload":{}}"#,
        ] {
            assert!(matches!(read(text), Frame::Malformed { .. }), "{text:?}: {:?}", read(text));
        }
        let deep = format!(r#"{{"type":"events_api","envelope_id":"e","payload":{}}}"#, "[".repeat(100_000));
        assert!(matches!(read(&deep), Frame::Malformed { .. }));
        assert!(matches!(
            read(r#"{"type":"news","envelope_id":"e9"}"#),
            Frame::Unknown { envelope_id: Some(id), .. } if id == "e9"
        ));
    }
}
