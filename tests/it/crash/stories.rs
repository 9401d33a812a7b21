//! The kinds of story.

use super::ends::End::{Declared, Not, Ran};
use super::world::{Stage, Told};
use crate::story::{LEAD, Plot, SRE};

/// Its work can be counted on the host.
const CURE: &str = "commands: [\"echo x >>/var/run/cured\"], verify: test -s /var/run/cured";

fn rule(stage: &str) -> String {
    format!("web:NginxDown: {{stage: {stage}, {CURE}}}\n")
}

/// Makes each story a test on every database. `least`: fewer cut points would mean that steps were missed.
macro_rules! matrix {
    ($($(#[doc = $doc:literal])* async fn $name:ident($stage:ident: Stage) -> Told, least $least:literal $body:block)*) => {$(
        $(#[doc = $doc])*
        async fn $name($stage: Stage) -> Told $body

        mod $name {
            use crate::crash::{database::Database, replay};

            #[test]
            fn on_sqlite() {
                replay::everywhere(stringify!($name), Database::Sqlite, $least, super::$name);
            }
        }
    )*};
}

matrix! {
    async fn an_alert_that_a_person_approves_is_healed(stage: Stage) -> Told, least 60 {
        let mut world = stage.set(Plot::new(&rule("approve"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.press(SRE, &alert, "Approve", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }

    async fn an_alert_of_stage_auto_is_healed(stage: Stage) -> Told, least 60 {
        let mut world = stage.set(Plot::new(&rule("auto"))).await;
        let alert = world.alert("NginxDown", &["web-1"]);
        world.reads(&alert, "declaration", "unless somebody presses Hold").await?;
        world.reads_later(16, &alert, "report", "").await?;
        world.runs_well(SRE, &alert, "web-1").await?;
        world.resolve(&alert);
        world.ends(&alert, "white_check_mark", &[("web-1", Ran("*healed*"))]).await?;
        world.finish(&[("web-1", 1)]).await
    }
}
