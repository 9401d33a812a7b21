//! `{{ labels.mountpoint }}`: the values of an alert that a rule asks for by name.
//!
//! A rendered value is data for an environment variable or a document's parameter, never shell. A
//! value that the alert does not have is an error that names it: an empty string in its place
//! could make `rm -rf "$DIR/cache"` mean another folder.

use super::Target;
use crate::alert::Alert;
use crate::rule::Template;

/// What was rendered, and whether anything of it came from the alert.
pub(super) struct Rendered {
    pub text: String,
    pub foreign: bool,
}

/// Fills the placeholders of `template`; the error names what is missing.
pub(super) fn render(template: &str, alert: &Alert, target: &Target) -> Result<Rendered, String> {
    let parsed = Template::parse(template).map_err(|error| error.to_string())?;
    let value = |name: &str| look_up(name, alert, target).map(str::to_owned);
    let text = parsed
        .render(&value)
        .map_err(|missing| format!("the alert has no `{}`, which the rule needs", missing.name))?;
    Ok(Rendered { text, foreign: !parsed.is_constant() })
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
        "start" => alert.start.as_deref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Status;
    use crate::plan::Platform;
    use crate::rule::template::NAMES;

    /// Cause: names were listed for the check and again for the look-up, and `start` in the first alone.
    #[test]
    fn every_name_that_a_rule_may_ask_for_is_looked_up() {
        let said = |value: &str| Some(value.to_owned());
        let alert = Alert {
            name: "DiskFull".to_owned(),
            status: Status::Firing,
            role: said("db"),
            host: said("db-1"),
            instance: said("db-1:9100"),
            instance_id: said("i-0abc"),
            severity: said("critical"),
            summary: said("full"),
            fingerprint: said("f00"),
            link: said("https://alerts.example.com/1"),
            start: said("2026-11-23T05:06:24Z"),
            labels: [("mountpoint".to_owned(), "/var/log".to_owned())].into(),
        };
        let target = Target {
            instance_id: "i-0abc".to_owned(),
            name: "db-1".to_owned(),
            address: None,
            platform: Platform::Linux,
        };
        for name in NAMES.iter().copied().chain(["labels.mountpoint"]) {
            let rendered = render(&format!("<{{{{ {name} }}}}>"), &alert, &target).unwrap();
            assert!(rendered.foreign && rendered.text.len() > 2, "{name}: {}", rendered.text);
        }
    }
}
