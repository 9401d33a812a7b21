//! `{{ labels.mountpoint }}`: alert values in `env` and `parameters`, and nowhere else.
//!
//! A template is parsed when the file is loaded, so that a slip shows in `heal check` and not at 3 a.m.
//! There are names only: no expressions, defaults or filters. What a value becomes is data.

use std::fmt;
use std::ops::Range;

/// The names that a template may use besides `labels.NAME`.
pub const NAMES: &[&str] = &[
    "alert",
    "role",
    "host",
    "instance",
    "instance_id",
    "severity",
    "summary",
    "fingerprint",
    "link",
    "start",
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A name of [`NAMES`], or `labels.` and the label's name.
    Name(String),
}

/// Text with names in `{{ }}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// Why a text is no template; `range` counts bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub range: Range<usize>,
    pub message: String,
    pub hint: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The alert does not say the value that a template asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// As the template names it: `labels.mountpoint`.
    pub name: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the alert has no `{}`", self.name)
    }
}

impl std::error::Error for Missing {}

impl Template {
    pub fn parse(text: &str) -> Result<Template, Error> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find("{{").map(|found| at + found) {
            if open > at {
                parts.push(Part::Text(text[at..open].to_owned()));
            }
            let Some(close) = text[open..].find("}}").map(|found| open + found) else {
                return Err(Error {
                    range: open..text.len(),
                    message: "a `{{` has no `}}`".to_owned(),
                    hint: "write {{ labels.NAME }}, or one `{` if braces are meant".to_owned(),
                });
            };
            let name = text[open + 2..close].trim();
            known(name).map_err(|(message, hint)| Error { range: open..close + 2, message, hint })?;
            parts.push(Part::Name(name.to_owned()));
            at = close + 2;
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        Ok(Template { parts })
    }

    /// The text with each name replaced by what `value` answers to it (`host`, `labels.mountpoint`).
    /// A value that holds `{{` itself is not looked at again.
    pub fn render(&self, value: &dyn Fn(&str) -> Option<String>) -> Result<String, Missing> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name(name) => {
                    out.push_str(&value(name).ok_or_else(|| Missing { name: name.clone() })?);
                }
            }
        }
        Ok(out)
    }

    /// The names it asks for, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Whether it asks for no value at all.
    pub fn is_constant(&self) -> bool {
        self.names().next().is_none()
    }
}

fn known(name: &str) -> Result<(), (String, String)> {
    let quoted = super::diagnostic::quoted(name);
    if NAMES.contains(&name) {
        return Ok(());
    }
    if let Some(label) = name.strip_prefix("labels.") {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        return if !label.is_empty() && label.len() <= 200 && label.bytes().all(fine) {
            Ok(())
        } else {
            Err((
                format!("{quoted} is not the name of a label"),
                "a label's name holds letters, digits, `_`, `-` and `.`".to_owned(),
            ))
        };
    }
    if is_ssm_reference(name) {
        return Err((
            format!("{quoted} would be replaced by SSM, after the declaration"),
            "what runs must be what was declared; let the command or document read the value itself"
                .to_owned(),
        ));
    }
    let words = NAMES.iter().copied().chain(["labels.NAME"]);
    let hint = match super::yaml::closest(name, words) {
        Some(near) if near != "labels.NAME" => format!("did you mean `{{{{ {near} }}}}`?"),
        _ => format!("known names: labels.NAME, {}", NAMES.join(", ")),
    };
    Err((format!("a template knows no {quoted}"), hint))
}

/// What SSM itself replaces within `{{ }}` (Parameter Store and global references).
const SSM_REFERENCES: &[&str] =
    &["ssm:", "ssm-secure:", "global:", "automation:", "aws:", "platform:", "resolve:", "secretsmanager:"];

fn is_ssm_reference(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SSM_REFERENCES.iter().any(|prefix| name.starts_with(prefix))
}

/// Finds what looks like a template of heal or of SSM in shell text, where neither may stand. Other
/// uses of `{{ }}` (docker's `--format '{{.Names}}'`, Jinja, shell) are the command's own.
pub fn in_shell(text: &str) -> Option<Error> {
    let mut at = 0;
    while let Some(open) = text[at..].find("{{").map(|found| at + found) {
        let rest = &text[open + 2..];
        let end = rest.find("}}").map_or(text.len(), |found| open + 2 + found + 2);
        let inner = rest[..rest.find("}}").unwrap_or(rest.len())].trim();
        at = open + 2;
        if is_ssm_reference(inner) {
            return Some(Error {
                range: open..end,
                message: "SSM would replace this after the declaration".to_owned(),
                hint: "what runs must be what was declared; read the value within the command: \
                       aws ssm get-parameter --with-decryption --name …"
                    .to_owned(),
            });
        }
        if NAMES.contains(&inner) || inner == "labels" || inner.starts_with("labels.") {
            let variable: String = inner
                .trim_start_matches("labels.")
                .chars()
                .map(|ch| if ch.is_ascii_alphanumeric() { ch.to_ascii_uppercase() } else { '_' })
                .collect();
            return Some(Error {
                range: open..end,
                message: "alert values never become part of a command".to_owned(),
                hint: format!(
                    "hand it over as a variable: env: {{{variable}: \"{{{{ {inner} }}}}\"}}, and write \"${variable}\" here"
                ),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_text_is_kept() {
        let template = Template::parse("on {{host}}: {{ labels.mount-point }}!").unwrap();
        assert_eq!(template.names().collect::<Vec<_>>(), ["host", "labels.mount-point"]);
        let text = template.render(&|name| Some(format!("<{name} {{{{ host }}}}>"))).unwrap();
        assert_eq!(text, "on <host {{ host }}>: <labels.mount-point {{ host }}>!");
    }

    #[test]
    fn a_value_that_the_alert_does_not_say_is_missing_and_never_empty() {
        let template = Template::parse("{{ labels.a }}").unwrap();
        assert_eq!(template.render(&|_| None).unwrap_err().to_string(), "the alert has no `labels.a`");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "{{",
            "{{ }}",
            "{{ hots }}",
            "{{ labels }}",
            "{{ labels. }}",
            "{{ labels.a b }}",
            "{{ labels.$(x) }}",
            "{{ ssm:secret }}",
            "{{ {{ host }} }}",
            "{{ host | upper }}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert!(Template::parse("{{ hots }}").unwrap_err().hint.contains("{{ host }}"));
    }

    #[test]
    fn shell_text_may_hold_braces_of_its_own_but_no_alert_values() {
        for fine in ["docker ps --format '{{.Names}}'", "echo {{a,b},c}", "x {{", "echo '{{ foo }}'"] {
            assert_eq!(in_shell(fine), None, "{fine}");
        }
        for bad in [
            "rm {{ labels.dir }}",
            "x {{host}}",
            "{{ssm:a}}",
            "{{ ssm-secure:a }}",
            "{{SSM:a}}",
            "{{{{labels.a}}",
        ] {
            assert!(in_shell(bad).is_some(), "{bad}");
        }
    }
}
