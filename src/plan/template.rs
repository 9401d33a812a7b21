//! `{{ labels.mountpoint }}`: the values of an alert that a rule asks for by name.
//!
//! A rendered value is data for an environment variable or a document's parameter, never shell. A
//! value that the alert does not have is an error that names it: an empty string in its place
//! could make `rm -rf "$DIR/cache"` mean another folder.

use super::Target;
use crate::alert::Alert;

/// What was rendered, and whether anything of it came from the alert.
pub(super) struct Rendered {
    pub text: String,
    pub foreign: bool,
}

/// Fills the placeholders of `template`; the error names what is missing.
pub(super) fn render(template: &str, alert: &Alert, target: &Target) -> Result<Rendered, String> {
    let mut text = String::with_capacity(template.len());
    let mut foreign = false;
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, behind) =
            after.split_once("}}").ok_or_else(|| format!("`{{{{` without `}}}}` in `{template}`"))?;
        text.push_str(before);
        let name = name.trim();
        let value = look_up(name, alert, target)
            .ok_or_else(|| format!("the alert has no `{name}`, which the rule needs"))?;
        text.push_str(value);
        foreign = true;
        rest = behind;
    }
    text.push_str(rest);
    Ok(Rendered { text, foreign })
}

/// The value of a name; `instance_id` is the node that was found, not what the alert claims.
fn look_up<'a>(name: &str, alert: &'a Alert, target: &'a Target) -> Option<&'a str> {
    if let Some(label) = name.strip_prefix("labels.") {
        return alert.labels.get(label).map(String::as_str);
    }
    match name {
        "instance_id" => Some(&target.instance_id),
        "host" => alert.host.as_deref(),
        "instance" => alert.instance.as_deref(),
        "role" => alert.role.as_deref(),
        "alert" => Some(&alert.name),
        "severity" => alert.severity.as_deref(),
        "summary" => alert.summary.as_deref(),
        "fingerprint" => alert.fingerprint.as_deref(),
        "link" => alert.link.as_deref(),
        _ => None,
    }
}
