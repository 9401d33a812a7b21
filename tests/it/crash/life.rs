//! One life of the bot: it runs on a runtime and a thread of its own, so that its end is everything's
//! end at once. A runtime that is dropped drops all tasks, and no code of the bot runs after.

use std::sync::Mutex;

use heal::app::{self, Settings};
use heal::sandbox::{Cut, Step};
use heal::store;
use tokio::sync::{oneshot, watch};

use super::world::Told;
use crate::story::log::Log;

/// What of the bot's log is kept for whoever reads a failure.
const LOGGED: &str = "warn,heal=debug";

/// A bot that lives.
pub struct Life {
    over: oneshot::Receiver<Told>,
    thread: std::thread::JoinHandle<()>,
}

impl Life {
    /// Begins a life that ends at the cut, or in order once `leave` says so.
    pub fn begin(mut settings: Settings, cut: &Cut, log: &Log, leave: watch::Receiver<bool>) -> Life {
        let (tell, over) = oneshot::channel();
        let life = cut.life();
        settings.store = store::Options { cut: commits(cut, life) };
        let (cut, log) = (cut.clone(), log.clone());
        let thread = std::thread::spawn(move || {
            let _guard = log.catch_of(LOGGED);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let ended = runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = cut.end_of(life) => Ok(()),
                    ended = live(settings, leave) => ended,
                }
            });
            drop(runtime);
            // Nobody asks any more where the replay has failed.
            let _ = tell.send(ended);
        });
        Life { over, thread }
    }

    /// Awaits the end; an error where the bot ended by itself.
    pub async fn ended(self) -> Told {
        let ended = self.over.await.map_err(|_| "the bot panicked".to_owned())?;
        tokio::task::spawn_blocking(move || self.thread.join()).await.unwrap().unwrap();
        ended
    }
}

async fn live(settings: Settings, mut leave: watch::Receiver<bool>) -> Told {
    let mut bot = app::start(settings).await.map_err(|error| format!("the bot did not start: {error:#}"))?;
    tokio::select! {
        _ = leave.wait_for(|leave| *leave) => {}
        ended = bot.ended() => return Err(format!("the bot ended by itself: {ended:?}")),
    }
    bot.stop().await;
    Ok(())
}

/// Every commit is a step of the bot of this life.
fn commits(cut: &Cut, life: u64) -> store::Cut {
    let cut = cut.clone();
    let under_way: Mutex<Option<Step>> = Mutex::new(None);
    store::Cut::new(move |moment| {
        let mut under_way = under_way.lock().unwrap();
        let lives = match moment {
            store::Moment::Before => cut.begin_of(life, "commit").map(|step| *under_way = Some(step)),
            store::Moment::After => under_way.take().map_or(Ok(()), |step| cut.finish(step)),
        };
        if lives.is_ok() { store::Verdict::GoOn } else { store::Verdict::Die }
    })
}
