//! Rule, alert and target become a [`Plan`]: every value rendered, judged and bounded once, here.
//!
//! What cannot be carried safely is refused, never mended: the declaration shows exactly what runs.

use std::collections::BTreeMap;

use super::template::render;
use super::{Plan, Platform, Step, StepKind, Target, Unusable, Work, script};
use crate::alert::Alert;
use crate::rule::{Action, Rule};

/// Bytes of one value. Linux takes 128 KiB for one `NAME=value`; nothing an alert says is that long.
const VALUE_MAX: usize = 4096;
/// Bytes of all parameters together (SSM documents are limited to 64 KB, AWS service quotas).
const PARAMETERS_MAX: usize = 32 * 1024;
/// Bytes of the script, under the 64 KB that SSM takes for a document with its parameters.
const SCRIPT_MAX: usize = 56 * 1024;
/// Steps of one rule: each needs its line in the head of the output that SSM keeps.
const STEPS_MAX: usize = 64;

/// Variables that decide what a shell or a program loads and runs. A rule may set them, an alert may not.
const COMMANDING: &[&str] = &["PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "PS4", "PYTHONPATH", "PERL5LIB"];

/// Exactly what will run, or why it cannot.
pub fn plan(rule: &Rule, alert: &Alert, target: &Target) -> Result<Plan, Unusable> {
    let work = match &rule.action {
        Action::Commands(commands) => {
            if target.platform == Platform::Windows {
                return Err(Unusable::Platform { target: target.clone() });
            }
            let step = |kind| move |text: &String| Step { kind, text: text.clone() };
            let steps: Vec<Step> = (rule.confirm.iter().map(step(StepKind::Confirm)))
                .chain(commands.iter().map(step(StepKind::Command)))
                .chain(rule.verify.iter().map(step(StepKind::Verify)))
                .collect();
            if steps.len() > STEPS_MAX {
                return Err(unfit(format!("the rule has {} steps; {STEPS_MAX} at most", steps.len())));
            }
            if steps.iter().any(|step| step.text.contains('\0')) {
                return Err(unfit("a command holds a NUL character".to_owned()));
            }
            let mut env = BTreeMap::new();
            for (name, template) in &rule.env {
                env.insert(name.clone(), variable(name, template, alert, target)?);
            }
            Work::Shell { steps, env }
        }
        Action::Document { name, parameters } => {
            Work::Document { name: name.clone(), parameters: fill(parameters, alert, target)? }
        }
        Action::Automation { name, parameters } => {
            Work::Automation { name: name.clone(), parameters: fill(parameters, alert, target)? }
        }
    };
    let plan = Plan { work, timeout: rule.timeout };
    if let Some(length) = script::length(&plan)
        && length > SCRIPT_MAX
    {
        return Err(unfit(format!("the script has {length} bytes; SSM takes {SCRIPT_MAX}")));
    }
    Ok(plan)
}

fn unfit(why: String) -> Unusable {
    Unusable::Unfit { why }
}

/// The value of one environment variable.
fn variable(name: &str, template: &str, alert: &Alert, target: &Target) -> Result<String, Unusable> {
    let mut bytes = name.bytes();
    let fit = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with("heal_");
    if !fit {
        return Err(unfit(format!("`{name}` cannot be the name of a variable")));
    }
    let rendered = render(template, alert, target).map_err(unfit)?;
    if rendered.foreign
        && (COMMANDING.contains(&name) || name.starts_with("LD_") || name.starts_with("DYLD_"))
    {
        return Err(unfit(format!("`{name}` decides what programs run; an alert's value may not set it")));
    }
    if rendered.text.contains('\0') {
        return Err(unfit(format!("the value of `{name}` holds a NUL character")));
    }
    bounded(name, rendered.text)
}

/// The parameters of a document. SSM interpolates `{{ … }}` in values (`{{ssm:secret}}` reads the
/// Parameter Store), so a value that holds braces after the alert's data came in is refused.
fn fill(
    parameters: &BTreeMap<String, Vec<String>>,
    alert: &Alert,
    target: &Target,
) -> Result<BTreeMap<String, Vec<String>>, Unusable> {
    let mut filled = BTreeMap::new();
    let mut total = 0;
    for (name, templates) in parameters {
        let mut values = Vec::with_capacity(templates.len());
        for template in templates {
            let rendered = render(template, alert, target).map_err(unfit)?;
            if rendered.text.contains("{{") || rendered.text.contains("}}") {
                let why = format!("the value of parameter `{name}` holds braces that SSM would interpolate");
                return Err(unfit(why));
            }
            if rendered.text.chars().any(char::is_control) {
                return Err(unfit(format!("the value of parameter `{name}` holds a control character")));
            }
            let value = bounded(name, rendered.text)?;
            total += name.len() + value.len();
            values.push(value);
        }
        filled.insert(name.clone(), values);
    }
    if total > PARAMETERS_MAX {
        return Err(unfit(format!("the parameters have {total} bytes; {PARAMETERS_MAX} at most")));
    }
    Ok(filled)
}

fn bounded(name: &str, value: String) -> Result<String, Unusable> {
    if value.len() > VALUE_MAX {
        let length = value.len();
        return Err(unfit(format!("the value of `{name}` has {length} bytes; {VALUE_MAX} at most")));
    }
    Ok(value)
}
