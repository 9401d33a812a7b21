//! Who may, and what a press comes to.

use heal::sandbox::workspace::{Fault, User};

use crate::story::{CHANNEL, DEV, EXTERN, LEAD, Plot, SRE};
use crate::way::rule;

const FAILING: &str = "web:NginxDown: {commands: [\"exit 7\"]}\n";

stories! {
    async fn somebody_who_is_no_approver_is_told_so_in_private_and_changes_nothing(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        for (button, verb) in [("Approve", "approve this"), ("Reject", "reject this"), ("Pause rule", "pause rules")] {
            story.click(DEV, &declared, button).await;
            let told = story.whispered(DEV, &format!("You may not {verb}")).await;
            assert!(told.contains("S0SRE") || told.contains("@sre"), "{told}");
        }
        story.declaration(&alert, "Waits for Approve").await;
        assert_eq!(story.metric("heal_refused_clicks_total").await, Some(3.0));
        story.runs(0).await;
        story.finish().await;
    }

    async fn somebody_of_another_workspace_may_nothing_even_when_named(mode: Mode) {
        let plot = Plot::new(&rule("approve")).config("approvers: [\"@sre\", U0EXTERN]");
        let mut story = plot.start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(EXTERN, &declared, "Approve").await;
        story.whispered(EXTERN, "people of other workspaces never may").await;
        story.declaration(&alert, "Waits for Approve").await;
        story.runs(0).await;
        story.finish().await;
    }

    async fn while_the_groups_cannot_be_looked_up_nobody_of_them_may(mode: Mode) {
        let plot = Plot::new(&rule("approve")).config("approvers: [\"@sre\", U0NAMED]");
        let plot = plot.workspace(|options| {
            options.groups_need_upgrade = true;
            options.users.push(User::new("U0NAMED", "nam"));
        });
        let mut story = plot.start(mode).await;
        story.allow_refusal("plan_upgrade_required");
        story.allow_error("approvers that cannot be looked up");
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        story.whispered(SRE, "could not look up whether you may approve this").await;
        story.runs(0).await;
        // Who is named by id needs no group.
        story.click("U0NAMED", &declared, "Approve").await;
        story.report(&alert, "approved by <@U0NAMED>").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn a_user_whom_slack_cannot_tell_of_may_not_until_it_can(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        story.allow_refusal("user_not_found");
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.workspace.fail_next("users.info", 1, Fault::Refused("user_not_found".to_owned()));
        story.click(SRE, &declared, "Approve").await;
        story.whispered(SRE, "could not look up whether you may approve this").await;
        story.runs(0).await;
        story.click(SRE, &declared, "Approve").await;
        story.report(&alert, "approved by <@U0SRE>").await;
        story.runs(1).await;
        story.finish().await;
    }

    async fn two_presses_at_once_are_one_approval_and_one_run(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        let press = |user: &'static str| story.workspace.click_as_it_was(user, CHANNEL, &declared.raw, "Approve");
        let (first, second, third) = tokio::join!(press(SRE), press(SRE), press(LEAD));
        first.unwrap();
        second.unwrap();
        third.unwrap();
        story.report(&alert, "ran well").await;
        story.runs(1).await;
        story.resolve(&alert);
        story.report(&alert, "*healed*").await;
        story.reaction(&alert, "white_check_mark").await;
        story.settled().await;
        let told = story.workspace.view(|view| [view.ephemerals(SRE), view.ephemerals(LEAD)].concat());
        let refused = told.iter().filter(|one| one.text.contains("Your press changed nothing")).count();
        assert_eq!(refused, 2, "{told:?}");
        for _ in story.workspace.ephemerals(SRE).iter().filter(|one| one.text.contains("changed nothing")) {
            story.whispered(SRE, "changed nothing").await;
        }
        for _ in story.workspace.ephemerals(LEAD).iter().filter(|one| one.text.contains("changed nothing")) {
            story.whispered(LEAD, "changed nothing").await;
        }
        story.finish().await;
    }

    async fn a_rule_with_two_approvals_needs_two_different_people(mode: Mode) {
        let rules = format!("{}  approvals: 2\n", rule("approve"));
        let mut story = Plot::new(&rules).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        let declared = story.declaration(&alert, "1 of 2").await;
        story.click(SRE, &declared, "Approve").await;
        story.whispered(SRE, "You approved this already").await;
        story.runs(0).await;
        story.click(LEAD, &declared, "Approve").await;
        let report = story.report(&alert, "ran well").await;
        assert!(report.read().contains("<@U0SRE>") && report.read().contains("<@U0LEAD>"), "{}", report.read());
        story.runs(1).await;
        story.finish().await;
    }

    async fn run_again_after_a_failure_runs_once_more_and_only_once(mode: Mode) {
        let mut story = Plot::new(FAILING).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        story.click(SRE, &declared, "Approve").await;
        let report = story.report(&alert, "*failed*").await;
        story.reaction(&alert, "x").await;
        story.click(DEV, &report, "Run again").await;
        story.whispered(DEV, "You may not run this again").await;
        story.click(LEAD, &report, "Run again").await;
        story.runs(2).await;
        story.workspace.click_as_it_was(SRE, CHANNEL, &report.raw, "Run again").await.unwrap();
        story.whispered(SRE, "Somebody ran this again already").await;
        // Two declarations, two reports.
        let thread = story.read_thread(&alert, 4).await;
        assert!(thread.iter().all(|message| message.read().contains("`web-1`")));
        story.runs(2).await;
        story.finish().await;
    }

    async fn a_forged_press_on_another_message_changes_nothing(mode: Mode) {
        let mut story = Plot::new(&rule("approve")).start(mode).await;
        let alert = story.alert("web", "NginxDown", "web-1");
        let declared = story.declaration(&alert, "Waits for Approve").await;
        // The button's value, on a message that is not the declaration.
        let mut forged = declared.raw.clone();
        forged["ts"] = alert.ts.clone().into();
        story.workspace.click_as_it_was(SRE, CHANNEL, &forged, "Approve").await.unwrap();
        story.whispered(SRE, "does not know this remediation").await;
        let unknown = serde_json::json!({"action_id": "heal_nonsense", "type": "button", "value": "nonsense", "block_id": "b"});
        story.workspace.click_action(SRE, CHANNEL, &declared.raw, unknown).await.unwrap();
        story.whispered(SRE, "Your press changed nothing").await;
        story.declaration(&alert, "Waits for Approve").await;
        story.runs(0).await;
        story.finish().await;
    }
}
