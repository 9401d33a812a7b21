//! heal cures nothing while it cannot hear that the cure is not wanted any more.

use std::time::{Duration, Instant};

use heal::sandbox::workspace::{Fault, View};

use crate::story::{Alert, BOUND, LEAD, Mode, Plot, Story, tell, web};
use crate::way::{CURE, rule};

const HISTORY: &str = "conversations.history";
const OPEN: &str = "apps.connections.open";

/// Slack gives up at once what it cannot deliver: only the history has it.
fn plot(rules: &str) -> Plot {
    Plot::new(rules).workspace(|options| {
        options.redeliver_after = Duration::from_secs(2);
        options.redeliveries = 0;
    })
}

fn auto() -> String {
    format!("web:NginxDown:\n  stage: auto{CURE}")
}

/// All lines are cut and none can be opened; calls over HTTPS go on as ever.
async fn deafen(story: &Story) {
    story.workspace.fail_next(OPEN, 1000, Fault::ServerError);
    story.workspace.cut_sockets();
    let knows = async {
        while web::get(story.listen(), "/readyz").await.0 != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, knows).await.unwrap();
}

/// A cure that is declared, in its grace, when all lines go; then the grace is over.
async fn grace_over_without_a_line(story: &mut Story) -> Alert {
    let alert = story.alert("web", "NginxDown", "web-1");
    story.declaration(&alert, "unless somebody presses Hold").await;
    story.settled().await;
    deafen(story).await;
    story.clock.advance(Duration::from_secs(30));
    story.declaration(&alert, "has not read it yet").await;
    alert
}

#[test]
fn what_resolves_while_no_line_is_up_is_not_cured() {
    tell(async {
        let mut story = plot(&auto()).start(Mode::Socket).await;
        let alert = grace_over_without_a_line(&mut story).await;
        story.resolve(&alert);
        story.runs(0).await;
        story.workspace.clear_faults();
        story.declaration(&alert, "resolved by itself").await;
        story.reaction(&alert, "leftwards_arrow_with_hook").await;
        story.runs(0).await;
        story.finish().await;
    });
}

#[test]
fn a_cure_that_waited_for_the_line_runs_once_the_history_was_read_and_no_later() {
    tell(async {
        let mut story = plot(&auto()).start(Mode::Socket).await;
        let alert = grace_over_without_a_line(&mut story).await;
        story.workspace.clear_faults();
        story.workspace.fail_next(HISTORY, 1, Fault::RateLimited(2));
        let up = |view: &View| view.connections() > 0;
        story.workspace.wait_until(BOUND, up).await.unwrap();
        let since = Instant::now();
        story.runs(0).await;
        story.report(&alert, "ran well").await;
        let took = since.elapsed();
        assert!(took > Duration::from_millis(1500), "it ran before the history was read: {took:?}");
        assert!(took < Duration::from_secs(8), "it waited for the second look: {took:?}");
        story.declaration(&alert, "ran well").await;
        story.runs(1).await;
        story.finish().await;
    });
}

#[test]
fn a_cure_that_waits_for_the_line_too_long_is_held_with_the_reason() {
    tell(async {
        let mut story = plot(&auto()).start(Mode::Socket).await;
        let alert = grace_over_without_a_line(&mut story).await;
        story.clock.advance(Duration::from_secs(16 * 60));
        story.declaration(&alert, "*held*").await;
        story.declaration(&alert, "has not read it yet").await;
        story.workspace.clear_faults();
        story.runs(0).await;
        story.finish().await;
    });
}

#[test]
fn an_approval_runs_at_once_also_while_the_history_is_unread() {
    tell(async {
        let mut story = plot(&rule("approve")).start(Mode::Socket).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declaration = story.declaration(&alert, "Waits for Approve").await;
        story.settled().await;
        story.workspace.fail_next(HISTORY, 1, Fault::RateLimited(30));
        let lines = |view: &View| view.calls_of(OPEN).count();
        let before = story.workspace.view(lines);
        story.workspace.cut_sockets();
        let back = |view: &View| lines(view) > before && view.connections() > 0;
        story.workspace.wait_until(BOUND, back).await.unwrap();
        story.click(LEAD, &declaration, "Approve").await;
        story.report(&alert, "ran well").await;
        story.declaration(&alert, "ran well").await;
        story.runs(1).await;
        story.finish().await;
    });
}

/// Lines are refreshed every few hours; nothing waits for that.
#[test]
fn a_line_that_is_replaced_in_order_holds_up_nothing() {
    tell(async {
        let mut story = plot(&auto()).start(Mode::Socket).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        story.declaration(&alert, "unless somebody presses Hold").await;
        story.settled().await;
        // Should anything ask for the history now, it would have to wait for it.
        story.workspace.fail_next(HISTORY, 1, Fault::RateLimited(60));
        let lines = |view: &View| view.calls_of(OPEN).count();
        let before = story.workspace.view(lines);
        story.workspace.disconnect_all("warning");
        story.workspace.wait_until(BOUND, |view| lines(view) > before).await.unwrap();
        story.clock.advance(Duration::from_secs(30));
        story.report(&alert, "ran well").await;
        story.declaration(&alert, "ran well").await;
        story.finish().await;
    });
}
