//! A call's arguments, from a form, a query or JSON. Slack takes nested values in forms as JSON
//! text, so every reader here takes either.

use serde_json::{Map, Value};

use super::super::view::{Room, View};
use super::Fail;

/// The arguments of one call and its bearer token.
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub token: Option<String>,
    pub map: Map<String, Value>,
}

impl Args {
    /// Reads a request: the `Authorization` header, the query and the body by its content type.
    pub fn read(
        authorization: Option<&str>,
        query: Option<&str>,
        content_type: &str,
        body: &[u8],
    ) -> Option<Self> {
        let mut args = Args::default();
        let mut form = |text: &[u8]| {
            for (name, value) in url::form_urlencoded::parse(text) {
                args.map.insert(name.into_owned(), Value::String(value.into_owned()));
            }
        };
        form(query.unwrap_or_default().as_bytes());
        if content_type.starts_with("application/json") {
            match serde_json::from_slice(body).ok()? {
                Value::Object(map) => args.map.extend(map),
                _ => return None,
            }
        } else {
            form(body);
        }
        let bearer = authorization.and_then(|a| a.strip_prefix("Bearer ")).map(str::to_owned);
        let given = args.map.remove("token").and_then(|t| t.as_str().map(str::to_owned));
        args.token = bearer.or(given);
        Some(args)
    }

    /// A text argument; numbers and flags are given as text. An empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.map.get(name)? {
            Value::String(s) if s.is_empty() => None,
            Value::String(s) => Some(s.clone()),
            Value::Number(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            _ => None,
        }
    }

    pub fn need(&self, name: &str) -> Result<String, Fail> {
        self.text(name).ok_or_else(|| {
            Fail::with("invalid_arguments", vec![format!("[ERROR] missing required field: {name}")])
        })
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name).as_deref(), Some("true" | "1"))
    }

    pub fn number(&self, name: &str) -> Option<usize> {
        self.text(name)?.parse().ok()
    }

    /// A nested argument, given as JSON or as its text. `Err` when the text is no JSON.
    pub fn nested(&self, name: &str) -> Result<Option<Value>, Fail> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) if s.is_empty() => Ok(None),
            Some(Value::String(s)) => serde_json::from_str(s).map(Some).map_err(|e| {
                Fail::with(format!("invalid_{name}_format"), vec![format!("[ERROR] {name}: {e}")])
            }),
            Some(value) => Ok(Some(value.clone())),
        }
    }

    /// The channel argument, or `channel_not_found`. With `member`, the bot must be in it.
    pub fn channel(&self, view: &View, member: bool) -> Result<String, Fail> {
        let wanted = self.need("channel")?;
        let room: &Room = view.room(&wanted).ok_or_else(|| Fail::new("channel_not_found"))?;
        if member && !room.is_member {
            return Err(Fail::new("not_in_channel"));
        }
        Ok(room.id.clone())
    }

    /// As [`Args::channel`], for the methods that take an id and no name.
    pub fn channel_id(&self, view: &View, member: bool) -> Result<String, Fail> {
        let id = self.channel(view, member)?;
        if self.text("channel").as_deref() == Some(&id) {
            Ok(id)
        } else {
            Err(Fail::new("channel_not_found"))
        }
    }
}
