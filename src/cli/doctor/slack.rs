//! Slack: the secrets, the scopes, the channels, and whether the approvers exist and may approve.

use std::collections::BTreeMap;
use std::io::{Result, Write};

use super::super::manifest::SCOPES;
use super::Report;
use crate::app::Secrets;
use crate::config::{Config, Mode};
use crate::rule::RuleSet;
use crate::slack::{Channel, Client, Error, Group, Identity, Options, Secret};

/// People who are looked up one by one; a list of more is a group's work.
const PEOPLE: usize = 100;

pub(super) async fn examine(
    config: &Config,
    rules: &RuleSet,
    secrets: &Secrets,
    report: &mut Report<impl Write>,
) -> Result<()> {
    let bot_token = token(
        "SLACK_BOT_TOKEN",
        secrets.bot_token.as_ref(),
        "xoxb-",
        "the bot token from your Slack app's page \"OAuth & Permissions\"",
        report,
    )?;
    let app_token = match config.slack.mode {
        Mode::Socket => token(
            "SLACK_APP_TOKEN",
            secrets.app_token.as_ref(),
            "xapp-",
            "an app-level token with connections:write, from \"Basic Information\"; or set slack.mode: http",
            report,
        )?,
        Mode::Http => {
            signing_secret(secrets, report)?;
            None
        }
    };
    let Some(bot_token) = bot_token else { return Ok(()) };
    let api_url = std::env::var("SLACK_API_URL").ok().filter(|url| !url.is_empty());
    let client = match Client::new(bot_token, &Options { api_url, ..Options::default() }) {
        Ok(client) => client,
        Err(why) => return report.fail(&format!("SLACK_API_URL: {why}"), None),
    };
    let identity = match client.auth_test().await {
        Ok(identity) => identity,
        Err(error) if error.is_permanent() => {
            return failed("Slack does not take the bot token", &error, report);
        }
        Err(error) => {
            let hint = Some("check the network, a proxy between, and SLACK_API_URL where it is set");
            return report.fail(&format!("Slack cannot be asked: {error}"), hint);
        }
    };
    report.ok(&format!("Slack knows the bot: {} in {}", identity.user_id, identity.url))?;
    scopes(&identity, report)?;
    if let Some(app_token) = app_token {
        // The address that it gives is not used, and lapses by itself.
        match client.connections_open(app_token).await {
            Ok(_) => report.ok("SLACK_APP_TOKEN opens a Socket Mode connection")?,
            Err(error) => failed_socket(&error, report)?,
        }
    }
    channels(config, &client, report).await?;
    approvers(config, rules, &client, &identity, report).await
}

/// The token, where there is one of the right kind.
fn token<'s>(
    name: &str,
    value: Option<&'s Secret>,
    prefix: &str,
    hint: &str,
    report: &mut Report<impl Write>,
) -> Result<Option<&'s Secret>> {
    let Some(value) = value else {
        report.fail(&format!("{name} is not set"), Some(hint))?;
        return Ok(None);
    };
    if value.expose().starts_with(prefix) {
        report.ok(&format!("{name} is set, and begins with {prefix}"))?;
        return Ok(Some(value));
    }
    // Only the well-known beginnings are named: of anything else not a letter is shown.
    let kinds = [
        ("xoxb-", "a bot token"),
        ("xapp-", "an app-level token"),
        ("xoxp-", "a person's token"),
        ("xoxe", "a token that is rotated"),
    ];
    let kind = kinds.iter().find(|(begin, _)| value.expose().starts_with(begin));
    let is = kind.map_or("no token of Slack's".to_owned(), |(begin, what)| format!("{what} ({begin}…)"));
    report.fail(&format!("{name} holds {is}; it must begin with {prefix}"), Some(hint))?;
    Ok(None)
}

fn signing_secret(secrets: &Secrets, report: &mut Report<impl Write>) -> Result<()> {
    let hint = Some("the signing secret from your Slack app's page \"Basic Information\"");
    match &secrets.signing_secret {
        None => report.fail("SLACK_SIGNING_SECRET is not set", hint),
        Some(secret) if secret.expose().starts_with("xox") || secret.expose().starts_with("xapp-") => {
            report.fail("SLACK_SIGNING_SECRET holds a token, not the signing secret", hint)
        }
        Some(_) => report
            .ok("SLACK_SIGNING_SECRET is set; only a request of Slack's can show that it is the right one"),
    }
}

fn scopes(identity: &Identity, report: &mut Report<impl Write>) -> Result<()> {
    if identity.scopes.is_empty() {
        return report.warn("Slack does not say which scopes the bot token has", None);
    }
    let mut missing = 0;
    for (scope, purpose) in SCOPES {
        if !identity.scopes.iter().any(|has| has == scope) {
            missing += 1;
            report.fail(
                &format!("the bot token lacks the scope {scope}, for {purpose}"),
                Some("update the app from `heal manifest`, install it again, and copy the new bot token"),
            )?;
        }
    }
    if missing == 0 {
        report.ok(&format!("the bot token has all {} scopes that heal needs", SCOPES.len()))?;
    }
    Ok(())
}

async fn channels(config: &Config, client: &Client, report: &mut Report<impl Write>) -> Result<()> {
    let by_name = config.slack.channels.iter().any(|channel| channel.starts_with('#'));
    let known = match if by_name { client.channels().await } else { Ok(Vec::new()) } {
        Ok(known) => Some(known),
        Err(error) => {
            failed("Slack does not list its channels", &error, report)?;
            None
        }
    };
    for wanted in &config.slack.channels {
        let found = match (wanted.strip_prefix('#'), &known) {
            (Some(_), None) => continue,
            (Some(name), Some(known)) => known.iter().find(|channel| channel.name == name).cloned(),
            (None, _) => match client.channel_info(wanted).await {
                Ok(channel) => Some(channel),
                Err(error) if error.code() == Some("channel_not_found") => None,
                Err(error) => {
                    failed(&format!("Slack does not show the channel {wanted}"), &error, report)?;
                    continue;
                }
            },
        };
        match found {
            Some(channel) => channel_found(wanted, &channel, report)?,
            None => report.fail(
                &format!("Slack shows no channel {wanted}"),
                Some("check slack.channels; an archived channel is not shown, a private one only after /invite @heal in it"),
            )?,
        }
    }
    Ok(())
}

fn channel_found(wanted: &str, channel: &Channel, report: &mut Report<impl Write>) -> Result<()> {
    if channel.is_archived {
        let hint = Some("take it out of slack.channels, or unarchive it");
        return report.fail(&format!("{wanted} is archived: no alerts come there"), hint);
    }
    if !channel.is_member {
        let hint = format!("in that channel: /invite @heal (its id: {})", channel.id);
        return report.fail(&format!("heal is not in {wanted}, so it sees no alerts there"), Some(&hint));
    }
    if channel.is_ext_shared {
        let hint = Some("declarations show commands and host names; use a channel of your own");
        return report
            .warn(&format!("{wanted} is shared with another organisation, which reads along"), hint);
    }
    report.ok(&format!("heal is in {wanted} ({})", channel.id))
}

/// Everybody who is named as an approver, with who names them.
async fn approvers(
    config: &Config,
    rules: &RuleSet,
    client: &Client,
    identity: &Identity,
    report: &mut Report<impl Write>,
) -> Result<()> {
    let mut named: BTreeMap<&str, String> = BTreeMap::new();
    for approver in &config.approvers {
        named.entry(approver).or_insert_with(|| "approvers".to_owned());
    }
    for rule in rules.iter() {
        for approver in &rule.approvers {
            named.entry(approver).or_insert_with(|| format!("the rule {}", rule.key));
        }
    }
    let by_group = named.keys().any(|name| name.starts_with('@'));
    let groups = match if by_group { client.user_groups().await } else { Ok(Vec::new()) } {
        Ok(groups) => Some(groups),
        Err(error) => {
            failed("Slack does not list its user groups", &error, report)?;
            None
        }
    };
    for (name, whose) in named.iter().take(PEOPLE) {
        match (name.strip_prefix('@'), &groups) {
            (Some(handle), Some(groups)) => group(handle, whose, groups, client, report).await?,
            (Some(_), None) => {}
            (None, _) => person(name, whose, client, identity, report).await?,
        }
    }
    if named.len() > PEOPLE {
        report.warn(&format!("only {PEOPLE} of {} approvers were looked up", named.len()), None)?;
    }
    Ok(())
}

async fn group(
    handle: &str,
    whose: &str,
    groups: &[Group],
    client: &Client,
    report: &mut Report<impl Write>,
) -> Result<()> {
    let Some(group) = groups.iter().find(|group| group.handle == handle) else {
        let hint = Some("check the handle; a disabled group is not listed");
        return report.fail(&format!("there is no user group @{handle} ({whose})"), hint);
    };
    match client.group_members(&group.id).await {
        Ok(members) if members.is_empty() => report.fail(
            &format!("nobody is in @{handle}, so it approves nothing ({whose})"),
            Some("add people to it in Slack"),
        ),
        Ok(members) => {
            let people =
                if members.len() == 1 { "1 person".to_owned() } else { format!("{} people", members.len()) };
            report.ok(&format!("@{handle} has {people} ({whose})"))
        }
        Err(error) => failed(&format!("Slack does not say who is in @{handle}"), &error, report),
    }
}

async fn person(
    id: &str,
    whose: &str,
    client: &Client,
    identity: &Identity,
    report: &mut Report<impl Write>,
) -> Result<()> {
    let user = match client.user(id).await {
        Ok(user) => user,
        Err(error) if matches!(error.code(), Some("user_not_found" | "user_not_visible")) => {
            return report.fail(
                &format!("Slack knows nobody with the id {id} ({whose})"),
                Some("copy the member id from the person's profile"),
            );
        }
        Err(error) => return failed(&format!("Slack does not show {id}"), &error, report),
    };
    let outside = user.is_stranger || user.team_id.as_deref().is_some_and(|team| team != identity.team_id);
    let why = if user.deleted {
        "is deactivated"
    } else if user.is_bot {
        "is a bot"
    } else if user.is_restricted || user.is_ultra_restricted {
        "is a guest"
    } else if outside {
        "is from another organisation"
    } else {
        return report.ok(&format!("{} ({id}) may approve ({whose})", user.name));
    };
    report.fail(
        &format!("{} ({id}) {why}, so may not approve ({whose})", user.name),
        Some("name somebody else"),
    )
}

fn failed(what: &str, error: &Error, report: &mut Report<impl Write>) -> Result<()> {
    report.fail(&format!("{what}: {error}"), error.hint())
}

fn failed_socket(error: &Error, report: &mut Report<impl Write>) -> Result<()> {
    let hint = match error.code() {
        Some("missing_scope" | "not_allowed_token_type") => {
            Some("give the app-level token connections:write")
        }
        Some("forbidden" | "access_denied" | "socket_mode_not_enabled") => {
            Some("switch Socket Mode on in the Slack app's page")
        }
        _ => error.hint(),
    };
    report.fail(&format!("SLACK_APP_TOKEN opens no Socket Mode connection: {error}"), hint)
}
