//! Who and where: channels, people and user groups, read leniently and in full (every page).
//!
//! What Slack leaves out of a person is taken to be the unsafe way round by whoever decides; here it is
//! only `None`.

use serde::Deserialize;

use super::{Client, Error};

/// A channel the bot can see.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Channel {
    pub id: String,
    /// Without the `#`.
    #[serde(default)]
    pub name: String,
    /// Is the bot in it?
    #[serde(default)]
    pub is_member: bool,
    #[serde(default)]
    pub is_archived: bool,
    #[serde(default)]
    pub is_private: bool,
    /// Shared with another organisation (Slack Connect).
    #[serde(default)]
    pub is_ext_shared: bool,
}

/// A person or bot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct User {
    pub id: String,
    /// Another team's id means an external member (Slack Connect).
    pub team_id: Option<String>,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub deleted: bool,
    #[serde(default)]
    pub is_bot: bool,
    /// A multi-channel guest; with `is_ultra_restricted` a single-channel guest.
    #[serde(default)]
    pub is_restricted: bool,
    #[serde(default)]
    pub is_ultra_restricted: bool,
    /// From another organisation.
    #[serde(default)]
    pub is_stranger: bool,
}

/// A user group; mentioned as `@handle`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Group {
    pub id: String,
    /// Without the `@`.
    #[serde(default)]
    pub handle: String,
    #[serde(default)]
    pub name: String,
}

#[derive(Deserialize, Default)]
pub(crate) struct Cursor {
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// No workspace has more pages than this; a server that always names a next one must not hold us for ever.
const MAX_PAGES: usize = 200;

impl Client {
    /// Every public and private channel that the bot can see (`conversations.list`).
    pub async fn channels(&self) -> Result<Vec<Channel>, Error> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            channels: Vec<serde_json::Value>,
            #[serde(default)]
            response_metadata: Option<Cursor>,
        }
        let mut all = Vec::new();
        let mut cursor = String::new();
        for _ in 0..MAX_PAGES {
            let page: Page = self
                .ask(
                    "conversations.list",
                    &[
                        ("types", "public_channel,private_channel"),
                        ("exclude_archived", "true"),
                        ("limit", "999"),
                        ("cursor", &cursor),
                    ],
                )
                .await?;
            // One odd channel must not hide the others.
            all.extend(
                page.channels.into_iter().filter_map(|one| serde_json::from_value::<Channel>(one).ok()),
            );
            cursor = page.response_metadata.and_then(|meta| meta.next_cursor).unwrap_or_default();
            if cursor.is_empty() {
                break;
            }
        }
        Ok(all)
    }

    /// One channel by its id (`conversations.info`).
    pub async fn channel_info(&self, id: &str) -> Result<Channel, Error> {
        #[derive(Deserialize)]
        struct Raw {
            channel: Channel,
        }
        let raw: Raw = self.ask("conversations.info", &[("channel", id)]).await?;
        Ok(raw.channel)
    }

    /// One person (`users.info`).
    pub async fn user(&self, id: &str) -> Result<User, Error> {
        #[derive(Deserialize)]
        struct Raw {
            user: User,
        }
        let raw: Raw = self.ask("users.info", &[("user", id)]).await?;
        Ok(raw.user)
    }

    /// All user groups that are not disabled (`usergroups.list`).
    pub async fn user_groups(&self) -> Result<Vec<Group>, Error> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            usergroups: Vec<serde_json::Value>,
        }
        let raw: Raw = self.ask("usergroups.list", &[]).await?;
        Ok(raw.usergroups.into_iter().filter_map(|one| serde_json::from_value::<Group>(one).ok()).collect())
    }

    /// The user ids in a group (`usergroups.users.list`, tier 2: keep the answer for a while).
    pub async fn group_members(&self, id: &str) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Raw {
            users: Vec<String>,
        }
        let raw: Raw = self.ask("usergroups.users.list", &[("usergroup", id)]).await?;
        Ok(raw.users)
    }
}
