//! Reads the members of a request as strictly as the service's own model does: a member that is
//! unknown, missing, too long or of the wrong shape is refused before anything happens.
//!
//! The limits are those of the SSM API model (botocore, `ssm/2014-11-06/service-2.json`).

use serde_json::{Map, Value};

/// An answer that says no: SSM's error code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl Refusal {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.to_owned(), message: message.into() }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }
}

/// The members of one request.
pub struct Members<'a>(&'a Map<String, Value>);

impl<'a> Members<'a> {
    /// Refuses members that the operation does not have.
    pub fn of(value: &'a Value, known: &[&str]) -> Result<Self, Refusal> {
        let map = value.as_object().ok_or_else(|| Refusal::new("SerializationException", "not an object"))?;
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                Err(Refusal::validation(format!("unknown member '{key}'; known: {}", known.join(", "))))
            }
            None => Ok(Self(map)),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A string of `least..=most` characters.
    pub fn text(&self, name: &str, least: usize, most: usize) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong_shape(name, "a string"))?;
        length(name, text, least, most)?;
        Ok(Some(text))
    }

    pub fn required_text(&self, name: &str, least: usize, most: usize) -> Result<&'a str, Refusal> {
        self.text(name, least, most)?.ok_or_else(|| missing(name))
    }

    pub fn number(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_i64().ok_or_else(|| wrong_shape(name, "a whole number"))?;
        if !(least..=most).contains(&number) {
            return Err(constraint(name, &number.to_string(), &format!("be between {least} and {most}")));
        }
        Ok(Some(number))
    }

    pub fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| wrong_shape(name, "true or false")),
        }
    }

    /// A list of strings, empty where it is absent.
    pub fn texts(&self, name: &str, least: usize, most: usize) -> Result<Vec<&'a str>, Refusal> {
        self.get(name).map_or(Ok(Vec::new()), |value| texts(name, value, least, most))
    }

    /// A list of objects, empty where it is absent.
    pub fn objects(&self, name: &str, least: usize, most: usize) -> Result<Vec<&'a Value>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| wrong_shape(name, "a list"))?;
        size(name, list.len(), least, most)?;
        Ok(list.iter().collect())
    }

    /// A document's parameters: a map of lists of strings.
    pub fn parameters(&self, name: &str) -> Result<Vec<(String, Vec<String>)>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let map = value.as_object().ok_or_else(|| wrong_shape(name, "a map"))?;
        map.iter()
            .map(|(key, value)| {
                let values = texts(key, value, 0, 1000)?;
                Ok((key.clone(), values.into_iter().map(str::to_owned).collect()))
            })
            .collect()
    }

    /// MaxConcurrency and MaxErrors: `10` or `10%`, at most 7 characters.
    pub fn rate(&self, name: &str) -> Result<(), Refusal> {
        let Some(text) = self.text(name, 1, 7)? else { return Ok(()) };
        let digits = text.strip_suffix('%').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(constraint(name, text, "match ^([1-9][0-9]*|[0]|[1-9][0-9]%|[0-9]%|100%)$"));
        }
        Ok(())
    }
}

fn texts<'a>(name: &str, value: &'a Value, least: usize, most: usize) -> Result<Vec<&'a str>, Refusal> {
    let list = value.as_array().ok_or_else(|| wrong_shape(name, "a list of strings"))?;
    size(name, list.len(), least, most)?;
    list.iter().map(|item| item.as_str().ok_or_else(|| wrong_shape(name, "a list of strings"))).collect()
}

fn length(name: &str, text: &str, least: usize, most: usize) -> Result<(), Refusal> {
    let count = text.chars().count();
    if count < least {
        return Err(constraint(name, text, &format!("have length greater than or equal to {least}")));
    }
    if count > most {
        return Err(constraint(name, text, &format!("have length less than or equal to {most}")));
    }
    Ok(())
}

fn size(name: &str, count: usize, least: usize, most: usize) -> Result<(), Refusal> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(constraint(name, &format!("{count} entries"), &format!("have between {least} and {most} entries")))
}

fn constraint(name: &str, value: &str, must: &str) -> Refusal {
    let shown: String = value.chars().take(120).collect();
    Refusal::validation(format!(
        "1 validation error detected: Value '{shown}' at '{name}' failed to satisfy constraint: Member must {must}"
    ))
}

fn missing(name: &str) -> Refusal {
    Refusal::validation(format!(
        "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
    ))
}

fn wrong_shape(name: &str, wanted: &str) -> Refusal {
    Refusal::new("SerializationException", format!("'{name}' is not {wanted}"))
}

/// Whether this has the form of an instance id, `i-…` or `mi-…`.
pub fn is_instance_id(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match (text.strip_prefix("i-"), text.strip_prefix("mi-")) {
        (Some(rest), _) => matches!(rest.len(), 8 | 17) && hex(rest),
        (_, Some(rest)) => rest.len() == 17 && hex(rest),
        _ => false,
    }
}

/// Whether this has the form of a UUID, as command ids and client tokens have.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// One page of a list: the items from the token on, and the token of the next page. A token
/// belongs to its operation; any other is refused as the service does.
pub fn page<T>(
    operation: &str,
    items: Vec<T>,
    token: Option<&str>,
    most: usize,
) -> Result<(Vec<T>, Option<String>), Refusal> {
    let from = match token {
        None => 0,
        Some(token) => token
            .strip_prefix(&format!("{operation}."))
            .and_then(|from| from.parse::<usize>().ok())
            .filter(|from| *from > 0)
            .ok_or_else(|| Refusal::new("InvalidNextToken", "The specified token isn't valid."))?,
    };
    let next = (items.len() > from + most).then(|| format!("{operation}.{}", from + most));
    Ok((items.into_iter().skip(from).take(most).collect(), next))
}
