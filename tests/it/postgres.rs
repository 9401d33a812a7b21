//! What a remediation costs the database, where each statement is a message.

use std::sync::Arc;

use heal::sandbox::fleet::HostSpec;
use heal::sandbox::postgres::Server;

use crate::story::{Mode, Plot, tell};

const ALERTS: usize = 12;

/// From the delivery to the reaction after the report, with all that is said of it.
const STATEMENTS: usize = 75;

#[test]
fn an_alert_that_heals_itself_costs_a_bounded_number_of_statements() {
    tell(async {
        let counting = [("shared_preload_libraries", "pg_stat_statements"), ("track_io_timing", "off")];
        let server = Arc::new(Server::start(&counting).unwrap());
        let database = server.database().unwrap();
        database.sql("CREATE EXTENSION pg_stat_statements").unwrap();
        let rule = "web:NginxDown: {stage: auto, grace: 0s, at_once: 100, commands: [\"true\"]}";
        let mut plot = Plot::new(rule).store(&database.url());
        let names: Vec<String> = (0..ALERTS).map(|number| format!("web-{number}")).collect();
        for name in &names {
            plot = plot.host(HostSpec::new(name, "web"));
        }
        let mut story = plot.start(Mode::Socket).await;
        // What is asked for the first time is prepared, and counts once.
        let first = story.alert("web", "NginxDown", &names[0]);
        story.report(&first, "ran well").await;
        story.resolve(&first);
        story.report(&first, "*healed*").await;
        story.declaration(&first, "*healed*").await;
        database.sql("SELECT pg_stat_statements_reset()").unwrap();
        let alerts: Vec<_> = names[1..].iter().map(|name| story.alert("web", "NginxDown", name)).collect();
        for alert in &alerts {
            story.report(alert, "ran well").await;
        }
        for alert in &alerts {
            story.resolve(alert);
        }
        for alert in &alerts {
            story.report(alert, "*healed*").await;
            story.declaration(alert, "*healed*").await;
            story.reaction(alert, "white_check_mark").await;
        }
        let rows = database
            .sql("SELECT calls, round((total_exec_time * 1000 / calls)::numeric), left(regexp_replace(query, '\\s+', ' ', 'g'), 100)
                  FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid WHERE rolname = 'heal' ORDER BY calls DESC")
            .unwrap();
        let calls =
            rows.iter().map(|row| row[0].as_deref().unwrap().parse::<usize>().unwrap()).sum::<usize>();
        let listed: Vec<String> =
            rows.iter().map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join("  ")).collect();
        println!("{calls} statements for {} alerts\n{}", alerts.len(), listed.join("\n"));
        assert!(calls / alerts.len() < STATEMENTS, "{calls} statements:\n{}", listed.join("\n"));
        story.finish().await;
    });
}
