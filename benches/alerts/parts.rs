//! The parts of the benchmark: each makes its scenes, some times over, and adds lines to the report.

use std::time::Duration;

use super::Options;
use super::bot::Making;
use super::report::{Report, quantile};
use super::story::{Burst, Scene, Stage};

/// Alerts of the big burst.
const BIG: usize = 10_000;
/// Remediations that a restart finds: finished, and under way.
const FINISHED: usize = 100_000;
const OPEN: usize = 1000;

/// One part, with all that it needs.
pub struct Part<'a> {
    pub options: &'a Options,
    pub making: &'a Making,
    pub rules: usize,
    pub group: &'a str,
    pub report: &'a mut Report,
}

impl Part<'_> {
    async fn scene(&self, alerts: usize) -> anyhow::Result<Scene> {
        Scene::set(self.making, alerts, self.rules).await
    }

    pub async fn starts(&mut self) -> anyhow::Result<()> {
        let (mut ready, mut resident) = (Vec::new(), Vec::new());
        for start in 0..self.options.starts {
            let scene = self.scene(0).await?;
            ready.extend(scene.bots.iter().map(|bot| millis(bot.ready)));
            if start < 3 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                resident.push(scene.memory()?.now);
            }
        }
        self.report.add(self.group, "start to ready", "ms", &ready);
        self.report.add(self.group, "resident, idle for 10 s", "MiB", &resident);
        Ok(())
    }

    pub async fn steady(&mut self) -> anyhow::Result<()> {
        let count = (self.options.rate * self.options.seconds) as usize;
        for (stage, word) in [(Stage::Approve, "approve"), (Stage::Auto, "auto, all of it healed")] {
            let (mut p50, mut p99, mut most) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..self.options.runs {
                let scene = self.scene(count).await?;
                scene.warm_up().await?;
                let took = scene.steady(stage, self.options.rate).await?;
                p50.push(quantile(&took, 0.5));
                p99.push(quantile(&took, 0.99));
                most.push(quantile(&took, 1.0));
            }
            let what = |figure: &str| format!("delivered to declared, {figure} ({word})");
            self.report.add(self.group, &what("p50"), "ms", &p50);
            self.report.add(self.group, &what("p99"), "ms", &p99);
            self.report.add(self.group, &what("max"), "ms", &most);
        }
        Ok(())
    }

    /// A burst of `--alerts`, every tenth twice where `doubled`.
    pub async fn bursts(&mut self, doubled: bool) -> anyhow::Result<()> {
        let name = if doubled { "burst, every tenth twice" } else { "burst" };
        self.all_at_once(name, self.options.alerts, doubled).await
    }

    /// A burst that is longer than anything that is kept in memory should be.
    pub async fn big(&mut self) -> anyhow::Result<()> {
        self.all_at_once(&format!("burst of {BIG}"), BIG, false).await
    }

    async fn all_at_once(&mut self, name: &str, count: usize, doubled: bool) -> anyhow::Result<()> {
        let thousands = count as f64 / 1000.0;
        let mut bursts = Vec::new();
        let mut complaints = Vec::new();
        for _ in 0..self.options.runs {
            let scene = self.scene(count).await?;
            scene.warm_up().await?;
            if self.options.pause > 0 {
                for bot in &scene.bots {
                    eprintln!(
                        "the bot is process {}; the burst comes in {} s",
                        bot.pid(),
                        self.options.pause
                    );
                }
                tokio::time::sleep(Duration::from_secs(self.options.pause)).await;
            }
            bursts.push(scene.burst(doubled).await?);
            complaints.push(scene.bots.iter().map(|bot| bot.complaints()).sum::<usize>() as f64);
        }
        let (report, group) = (&mut *self.report, self.group);
        let mut add = |what: &str, unit: &str, of: &dyn Fn(&Burst) -> f64| {
            let figures: Vec<f64> = bursts.iter().map(of).collect();
            report.add(group, &format!("{name}: {what}"), unit, &figures);
        };
        let rate = |took: Duration| count as f64 / took.as_secs_f64();
        add("to the last report", "alerts/s", &|burst| rate(burst.took));
        add("to the last declaration", "alerts/s", &|burst| rate(burst.declared));
        add("to the last command", "alerts/s", &|burst| rate(burst.commanded));
        add("CPU to the last report, per 1,000", "s", &|burst| burst.cpu / thousands);
        add("CPU with all reactions, per 1,000", "s", &|burst| burst.cpu_quiet / thousands);
        add("CPU of resolving, per 1,000", "s", &|burst| burst.cpu_resolved / thousands);
        add("acknowledged, p99", "ms", &|burst| quantile(&burst.acks, 0.99));
        add("acknowledged, max", "ms", &|burst| quantile(&burst.acks, 1.0));
        add("resolved to the last healed", "alerts/s", &|burst| rate(burst.healed));
        add("resident, peak", "MiB", &|burst| burst.memory.peak);
        add("resident, after", "MiB", &|burst| burst.memory.now);
        add("calls to Slack, per alert", "", &|burst| burst.slack_calls as f64 / count as f64);
        add("calls to SSM, per alert", "", &|burst| burst.ssm_calls as f64 / count as f64);
        add("CPU of the fakes, per 1,000", "s", &|burst| burst.cpu_fakes / thousands);
        report.add(group, &format!("{name}: warnings and errors logged"), "", &complaints);
        Ok(())
    }

    /// `kill -9` with commands under way, which end while nobody looks; then a start on a long past.
    pub async fn restarts(&mut self) -> anyhow::Result<()> {
        let (mut ready, mut reported, mut peak) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.options.runs {
            let mut scene = self.scene(OPEN).await?;
            scene.warm_up().await?;
            scene.hold().await?;
            scene.let_go();
            let took = scene.restart(FINISHED).await?;
            ready.push(millis(took));
            reported.push(scene.released().await?.as_secs_f64());
            peak.push(scene.memory()?.peak);
        }
        let what = |figure: &str| format!("restart on {FINISHED} finished and {OPEN} open: {figure}");
        self.report.add(self.group, &what("start to ready"), "ms", &ready);
        self.report.add(self.group, &what("ready to the last report"), "s", &reported);
        self.report.add(self.group, &what("resident, peak"), "MiB", &peak);
        Ok(())
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
