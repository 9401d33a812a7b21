//! A second connection that hears when another replica owes something here. What is missed while it is
//! away costs nothing: everybody looks every second anyway.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_postgres::AsyncMessage;

use super::session::text;
use super::sql::{CHANNEL, EVERYBODY};
use super::tls::Tls;
use crate::config::Postgres;
use crate::store::{Error, Result};

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens on a thread of its own until what is returned is dropped.
pub(super) fn start(
    at: &Postgres,
    tls: &Tls,
    number: i64,
    called: Arc<Notify>,
) -> Result<oneshot::Sender<()>> {
    let (end, mut ended) = oneshot::channel();
    let (at, tls) = (at.clone(), tls.clone());
    let told = |error: std::io::Error| Error::Database(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(told)?;
    let listening = async move {
        loop {
            let heard = tokio::select! {
                // Nothing is ever sent: it ends with its sender.
                _ = &mut ended => return,
                heard = listen(&at, &tls, number, &called) => heard,
            };
            if let Err(error) = heard {
                tracing::debug!(error = %text(&error), "calls of other replicas are not heard for now");
            }
            tokio::select! {
                _ = &mut ended => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    };
    std::thread::Builder::new()
        .name("store-listen".to_owned())
        .spawn(move || runtime.block_on(listening))
        .map_err(told)?;
    Ok(end)
}

async fn listen(
    at: &Postgres,
    tls: &Tls,
    number: i64,
    called: &Notify,
) -> std::result::Result<(), tokio_postgres::Error> {
    let (client, mut connection) = at.client().connect(tls.clone()).await?;
    let me = number.to_string();
    let hearing = async {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(call) = message?
                && (call.payload() == me || call.payload() == EVERYBODY)
            {
                called.notify_one();
            }
        }
        Ok(())
    };
    let asking = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        // Whoever called before was not heard.
        called.notify_one();
        std::future::pending().await
    };
    tokio::select! {
        heard = hearing => heard,
        asked = asking => asked,
    }
}
