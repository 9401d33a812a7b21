//! Who may. Authority is a Slack user id in a configured list or group, looked up fresh enough; a
//! group that cannot be looked up has nobody in it. External users never may, and neither may guests,
//! bots and deleted users as far as Slack can be asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::slack::Client;

/// How long what Slack said of groups and users is believed (usergroups.users.list: 20 calls a minute).
const FRESH: Duration = Duration::from_secs(300);

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    NotListed,
    /// From another workspace, a guest, a bot, or gone.
    Outsider,
    /// Slack could not be asked.
    Unknown {
        why: String,
    },
}

#[derive(Default)]
struct Cache {
    groups: Option<(Instant, Arc<BTreeMap<String, String>>)>,
    members: HashMap<String, (Instant, Arc<HashSet<String>>)>,
    insiders: HashMap<String, (Instant, bool)>,
}

pub(super) struct People {
    slack: Client,
    home: String,
    cache: Mutex<Cache>,
}

impl People {
    pub(super) fn new(slack: Client, home: String) -> People {
        People { slack, home, cache: Mutex::default() }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Group ids by handle, as far as they are known; for mentions.
    pub(super) fn groups(&self) -> Arc<BTreeMap<String, String>> {
        self.cache().groups.as_ref().map(|(_, groups)| Arc::clone(groups)).unwrap_or_default()
    }

    /// Whether this user is one of `approvers` (user ids and `@handles`).
    pub(super) async fn may(
        &self,
        user: &str,
        team: Option<&str>,
        approvers: &[String],
    ) -> Result<(), Denied> {
        if team.is_some_and(|team| team != self.home) {
            return Err(Denied::Outsider);
        }
        if !self.is_insider(user, team.is_some()).await? {
            return Err(Denied::Outsider);
        }
        let (listed, unknown) = self.members(approvers).await;
        match (listed.contains(user), unknown) {
            (true, _) => Ok(()),
            (false, Some(why)) => Err(Denied::Unknown { why }),
            (false, None) => Err(Denied::NotListed),
        }
    }

    /// Everybody whom these approvers name, and what could not be looked up.
    pub(super) async fn members(&self, approvers: &[String]) -> (HashSet<String>, Option<String>) {
        let mut all = HashSet::new();
        let mut unknown = None;
        for approver in approvers {
            let Some(handle) = approver.strip_prefix('@') else {
                all.insert(approver.clone());
                continue;
            };
            match self.group(handle).await {
                Ok(members) => all.extend(members.iter().cloned()),
                Err(why) => unknown = Some(why),
            }
        }
        (all, unknown)
    }

    async fn group(&self, handle: &str) -> Result<Arc<HashSet<String>>, String> {
        let groups = self.fresh_groups().await?;
        let Some(id) = groups.get(handle) else {
            return Err(format!("there is no user group @{handle}"));
        };
        if let Some((at, members)) = self.cache().members.get(id)
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(members));
        }
        let members = self.slack.group_members(id).await.map_err(|error| error.to_string())?;
        let members: Arc<HashSet<String>> = Arc::new(members.into_iter().collect());
        self.cache().members.insert(id.clone(), (Instant::now(), Arc::clone(&members)));
        Ok(members)
    }

    async fn fresh_groups(&self) -> Result<Arc<BTreeMap<String, String>>, String> {
        if let Some((at, groups)) = &self.cache().groups
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(groups));
        }
        let groups = self.slack.user_groups().await.map_err(|error| {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{error}{hint}")
        })?;
        let groups: Arc<BTreeMap<String, String>> =
            Arc::new(groups.into_iter().map(|group| (group.handle, group.id)).collect());
        self.cache().groups = Some((Instant::now(), Arc::clone(&groups)));
        Ok(groups)
    }

    /// A full member of the bot's own workspace. `signed`: Slack signed that the user is of it; then
    /// the list of approvers decides where the app may not ask about people at all.
    async fn is_insider(&self, user: &str, signed: bool) -> Result<bool, Denied> {
        if let Some((at, insider)) = self.cache().insiders.get(user)
            && at.elapsed() < FRESH
        {
            return Ok(*insider);
        }
        let found = match self.slack.user(user).await {
            Ok(found) => found,
            Err(error) if signed && matches!(error.code(), Some("missing_scope" | "unknown_method")) => {
                tracing::warn!(user, %error, "heal may not ask whether {user} is a guest; see heal doctor");
                return Ok(true);
            }
            Err(error) => return Err(Denied::Unknown { why: error.to_string() }),
        };
        let insider = !found.deleted
            && !found.is_bot
            && !found.is_stranger
            && !found.is_restricted
            && !found.is_ultra_restricted
            && found.team_id.as_deref().map_or(signed, |team| team == self.home);
        self.cache().insiders.insert(user.to_owned(), (Instant::now(), insider));
        Ok(insider)
    }

    /// Looks the groups of `approvers` up, so that the first click need not wait; the handles that
    /// cannot be resolved, with why.
    pub(super) async fn warm(&self, approvers: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        for handle in approvers.iter().filter_map(|approver| approver.strip_prefix('@')) {
            if let Err(why) = self.group(handle).await {
                problems.push(format!("@{handle}: {why}"));
            }
        }
        problems
    }
}
