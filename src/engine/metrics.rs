//! What `/metrics` tells, in Prometheus' text format.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SenderLabel {
    pub sender: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct NameLabel {
    pub name: &'static str,
}

/// All counters and gauges; labels hold no values from alerts, so their number is bounded.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub alerts: Family<SenderLabel, Counter>,
    pub unreadable: Family<SenderLabel, Counter>,
    pub without_rule: Counter,
    pub untrusted: Counter,
    pub malformed: Counter,
    pub duplicates: Counter,
    /// States entered and outcomes reached.
    pub remediations: Family<NameLabel, Counter>,
    pub held: Family<NameLabel, Counter>,
    pub refused_clicks: Counter,
    pub slack_given_up: Counter,
    pub store_errors: Counter,
    /// By table.
    pub trimmed: Family<NameLabel, Counter>,
    pub connections: Gauge<i64, AtomicI64>,
    pub queue_depth: Gauge<i64, AtomicI64>,
    pub running: Gauge<i64, AtomicI64>,
    /// What became of Slack's deliveries, as the adapter counts them.
    pub deliveries: Family<NameLabel, Gauge<i64, AtomicI64>>,
    /// Seconds from a delivery to its commit.
    pub commit_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("heal");
        let mut metrics = Metrics {
            registry: Registry::default(),
            alerts: Family::default(),
            unreadable: Family::default(),
            without_rule: Counter::default(),
            untrusted: Counter::default(),
            malformed: Counter::default(),
            duplicates: Counter::default(),
            remediations: Family::default(),
            held: Family::default(),
            refused_clicks: Counter::default(),
            slack_given_up: Counter::default(),
            store_errors: Counter::default(),
            trimmed: Family::default(),
            connections: Gauge::default(),
            queue_depth: Gauge::default(),
            running: Gauge::default(),
            deliveries: Family::default(),
            commit_seconds: Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 3.0]),
        };
        registry.register("alerts", "Alerts read, by sender", metrics.alerts.clone());
        registry.register(
            "unreadable_messages",
            "Messages of senders that could not be read",
            metrics.unreadable.clone(),
        );
        registry.register("alerts_without_rule", "Alerts that no rule answers", metrics.without_rule.clone());
        registry.register(
            "untrusted_messages",
            "Messages in watched channels from no sender",
            metrics.untrusted.clone(),
        );
        registry.register(
            "malformed_events",
            "Events, clicks and commands that could not be read",
            metrics.malformed.clone(),
        );
        registry.register(
            "duplicate_deliveries",
            "Deliveries that were taken before",
            metrics.duplicates.clone(),
        );
        registry.register(
            "remediations",
            "States entered and outcomes reached",
            metrics.remediations.clone(),
        );
        registry.register(
            "trimmed_rows",
            "Rows deleted from the store because they are older than `retention`, by table",
            metrics.trimmed.clone(),
        );
        registry.register("held", "Remediations held, by gate", metrics.held.clone());
        registry.register("refused_clicks", "Clicks and commands refused", metrics.refused_clicks.clone());
        registry.register(
            "slack_given_up",
            "Messages that Slack refused for good",
            metrics.slack_given_up.clone(),
        );
        registry.register("store_errors", "Transactions that failed", metrics.store_errors.clone());
        registry.register(
            "slack_connections",
            "Socket Mode connections that are up",
            metrics.connections.clone(),
        );
        registry.register(
            "slack_queue_depth",
            "Calls to Slack waiting or under way",
            metrics.queue_depth.clone(),
        );
        registry.register(
            "slack_deliveries",
            "Deliveries of Slack, by what became of them",
            metrics.deliveries.clone(),
        );
        registry.register("running_commands", "Commands with SSM", metrics.running.clone());
        registry.register("commit_seconds", "From a delivery to its commit", metrics.commit_seconds.clone());
        metrics.registry = registry;
        metrics
    }
}

impl Metrics {
    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; an encoder's error would only cost this answer.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
