//! The listing of commands, read page by page: as far as what is looked for may stand, and no further.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_ssm::types::{CommandFilter, CommandFilterKey, CommandInvocation};
use futures_util::stream::{self, StreamExt};

use super::client::Ssm;
use super::fault::Fault;
use super::status::{self, Standing};
use super::watch::{AT_A_TIME, Look, UNLISTED, Watched};

/// Pages that are read at most for what was sent since.
const FAR: usize = 60;
/// The listing is read at most so often twice as far as in the first look: some fifty pages for a few runs.
pub(super) const DEEPEST: u32 = 3;
/// SSM's clock and ours may differ that much.
const CLOCKS: Duration = Duration::from_secs(300);

/// What was read of the listing.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) pages: usize,
    /// It was read to its end: what it does not show is not shown yet.
    pub(super) whole: bool,
    pub(super) fault: Option<Fault>,
}

/// So many pages are read at most: a few times those that are filled by what is looked for and, where that
/// is many, by what was sent since, which stands above it.
fn furthest(unlisted: usize, besides: usize) -> usize {
    let pages = |runs: usize| runs.div_ceil(50) * 3 + 2;
    let above = if unlisted > UNLISTED { pages(unlisted + besides).min(FAR) } else { 0 };
    pages(unlisted).max(above)
}

/// Whether SSM says that nothing more comes of it.
fn is_over(invocation: &CommandInvocation) -> bool {
    let word = invocation.status.as_ref().map(|status| status.as_str());
    let standing = status::of_invocation(word, invocation.status_details.as_deref());
    matches!(standing, Standing::Over(_))
}

impl Ssm {
    /// Sees many commands by the listing, as far as it can be read, and leaves those that it did not show.
    /// It ends after a few times the pages that heal's own commands fill: in a busy account they may be
    /// few among others'.
    pub(super) async fn list<'a>(
        &self,
        look: &Look,
        depth: u32,
        unlisted: &mut HashMap<&'a str, &'a Watched>,
        besides: &mut HashMap<&'a str, &'a Watched>,
    ) -> Listing {
        let since = unlisted.values().map(|run| run.first_sent_at).min().unwrap_or_default().minus(CLOCKS);
        let mut listing = Listing::default();
        let after =
            match CommandFilter::builder().key(CommandFilterKey::InvokedAfter).value(since.rfc3339()).build()
            {
                Ok(after) => after,
                Err(error) => {
                    listing.fault = Some(Fault::Refused { why: error.to_string() });
                    return listing;
                }
            };
        let call = self.sends.list_command_invocations().filters(after).details(true);
        let mut pages = call.into_paginator().page_size(50).send();
        for _ in 0..furthest(unlisted.len(), besides.len()) << depth.min(DEEPEST) {
            let page = match pages.next().await {
                Some(Ok(page)) => page,
                Some(Err(error)) => {
                    listing.fault = Some(Fault::of(&error));
                    break;
                }
                None => {
                    listing.whole = true;
                    break;
                }
            };
            listing.pages += 1;
            let mut found = Vec::new();
            for invocation in page.command_invocations.unwrap_or_default() {
                let Some(id) = invocation.command_id.as_deref() else { continue };
                let on = |run: &&Watched| invocation.instance_id.as_ref() == Some(&run.instance_id);
                let run = match unlisted.get(id).is_some_and(on) {
                    true => unlisted.remove(id),
                    false if is_over(&invocation) && besides.get(id).is_some_and(on) => besides.remove(id),
                    false => None,
                };
                found.extend(run.map(|run| (run, invocation)));
            }
            stream::iter(found)
                .for_each_concurrent(AT_A_TIME, |(run, invocation)| self.see_listed(look, run, invocation))
                .await;
            if unlisted.is_empty() || look.is_throttled() {
                break;
            }
        }
        listing
    }
}
