//! Who is who: the token's own identity, users, user groups; and the way into Socket Mode.

use serde_json::{Value, json};

use super::super::options::User;
use super::super::view::View;
use super::{Answer, Args, Fail};

pub(super) fn auth_test(view: &mut View, _args: &Args) -> Answer {
    let o = &view.options;
    Ok(json!({"url": format!("https://{}.slack.com/", o.team_name), "team": o.team_name, "user": o.bot.name,
        "team_id": o.team_id, "user_id": o.bot.user_id, "bot_id": o.bot.bot_id,
        "is_enterprise_install": false}))
}

pub(super) fn open_connection(view: &mut View, _args: &Args) -> Answer {
    let ticket = view.make_id("ticket-");
    let url = format!("ws://{}/link/?ticket={ticket}&app_id={}", view.address, view.options.bot.app_id);
    view.tickets.insert(ticket);
    Ok(json!({"url": url}))
}

pub(super) fn user_info(view: &mut View, args: &Args) -> Answer {
    let id = args.need("user")?;
    if id == view.options.bot.user_id {
        return Ok(json!({"user": bot_user(view)}));
    }
    let user = view.options.users.iter().find(|u| u.id == id).ok_or_else(|| Fail::new("user_not_found"))?;
    Ok(json!({"user": describe(view, user)}))
}

pub(super) fn users(view: &mut View, _args: &Args) -> Answer {
    let mut members: Vec<Value> = view.options.users.iter().map(|u| describe(view, u)).collect();
    members.push(bot_user(view));
    Ok(json!({"members": members, "response_metadata": {"next_cursor": ""}}))
}

fn describe(view: &View, user: &User) -> Value {
    let team = user.team_id.as_ref().unwrap_or(&view.options.team_id);
    let stranger = user.team_id.as_ref().is_some_and(|t| *t != view.options.team_id);
    json!({"id": user.id, "team_id": team, "name": user.name, "real_name": user.name, "deleted": false,
        "is_bot": false, "is_app_user": false, "is_admin": false, "is_restricted": false,
        "is_ultra_restricted": false, "is_stranger": stranger, "tz": "Etc/UTC", "tz_offset": 0,
        "profile": {"display_name": user.name, "real_name": user.name, "team": team}})
}

fn bot_user(view: &View) -> Value {
    let (bot, team) = (&view.options.bot, &view.options.team_id);
    json!({"id": bot.user_id, "team_id": team, "name": bot.name, "real_name": bot.name, "deleted": false,
        "is_bot": true, "is_app_user": false, "profile": {"bot_id": bot.bot_id, "api_app_id": bot.app_id,
        "display_name": bot.name, "real_name": bot.name, "team": team}})
}

pub(super) fn groups(view: &mut View, args: &Args) -> Answer {
    paid(view)?;
    let with_users = args.flag("include_users");
    let list: Vec<Value> = view
        .options
        .groups
        .iter()
        .map(|g| {
            let mut group = json!({"id": g.id, "team_id": view.options.team_id, "is_usergroup": true,
                "name": g.handle, "handle": g.handle, "is_external": false, "date_delete": 0,
                "user_count": g.members.len()});
            if with_users {
                group["users"] = json!(g.members);
            }
            group
        })
        .collect();
    Ok(json!({"usergroups": list}))
}

pub(super) fn group_members(view: &mut View, args: &Args) -> Answer {
    paid(view)?;
    let id = args.need("usergroup")?;
    let group =
        view.options.groups.iter().find(|g| g.id == id).ok_or_else(|| Fail::new("no_such_subteam"))?;
    Ok(json!({"users": group.members}))
}

fn paid(view: &View) -> Result<(), Fail> {
    if view.options.groups_need_upgrade { Err(Fail::new("plan_upgrade_required")) } else { Ok(()) }
}
