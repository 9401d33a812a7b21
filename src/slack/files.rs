//! Output that no message holds goes up as a file, by the flow that replaced `files.upload`:
//! an address, the bytes, and the sharing (docs.slack.dev, files.getUploadURLExternal).

use ::http::{HeaderValue, Method};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

use super::client::{Nothing, plain};
use super::{Client, Error};

/// A file for a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub channel: String,
    /// The parent's `ts`; a reply's would be misplaced.
    pub thread_ts: String,
    pub filename: String,
    pub title: String,
    pub bytes: Bytes,
}

impl Client {
    /// Uploads and shares the file. Until the last step nothing is to be seen, so a failure before it
    /// is [`Error::NotDone`] and safe to repeat.
    pub async fn upload(&self, upload: &Upload) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Place {
            upload_url: String,
            file_id: String,
        }
        #[derive(Serialize)]
        struct Complete<'a> {
            files: [File<'a>; 1],
            channel_id: &'a str,
            thread_ts: &'a str,
        }
        #[derive(Serialize)]
        struct File<'a> {
            id: &'a str,
            title: &'a str,
        }

        let length = upload.bytes.len().to_string();
        let place: Place = self
            .ask("files.getUploadURLExternal", &[("filename", &upload.filename), ("length", &length)])
            .await
            .map_err(unseen)?;
        let url = Url::parse(&place.upload_url)
            .map_err(|_| Error::refused("upload_url_not_slack", "it is not a URL"))?;
        // Our output may hold what only this workspace should see: it goes to Slack and nowhere else.
        if !self.wire().permits(&url, |host| host.ends_with(".slack.com")) {
            return Err(Error::refused("upload_url_not_slack", "it leads to another host than Slack's"));
        }
        let binary = HeaderValue::from_static("application/octet-stream");
        let body = Some((binary, upload.bytes.clone()));
        let answer = self.wire().exchange(Method::POST, url.as_str(), None, body).await.map_err(unseen)?;
        plain(&answer).map_err(unseen)?;

        let complete = Complete {
            files: [File { id: &place.file_id, title: &upload.title }],
            channel_id: &upload.channel,
            thread_ts: &upload.thread_ts,
        };
        let Nothing {} = self.call("files.completeUploadExternal", &complete).await?;
        Ok(())
    }
}

/// A failure while nothing can be seen yet.
fn unseen(error: Error) -> Error {
    match error {
        Error::Unclear { why } => Error::NotDone { why },
        other => other,
    }
}
