//! The figures, for people and for machines.

use std::fs;

use serde_json::{Value, json};

/// One line of the table.
struct Row {
    group: String,
    what: String,
    unit: String,
    /// Sorted.
    figures: Vec<f64>,
}

/// All figures, and the machine they are of.
pub struct Report {
    machine: String,
    rows: Vec<Row>,
}

/// The value below which a share of the sorted figures lies; 0 without figures.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0)
}

impl Report {
    pub fn new() -> Report {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = read("/proc/loadavg");
        let machine = format!(
            "{}, {cores} cores, Linux {}, load {} before",
            model.unwrap_or("unknown CPU"),
            read("/proc/sys/kernel/osrelease").trim(),
            load.split(' ').next().unwrap_or("?"),
        );
        eprintln!("{machine}");
        Report { machine, rows: Vec::new() }
    }

    /// Adds the figures of several runs.
    pub fn add(&mut self, group: &str, what: &str, unit: &str, figures: &[f64]) {
        let mut figures = figures.to_vec();
        figures.sort_by(f64::total_cmp);
        let row = Row { group: group.to_owned(), what: what.to_owned(), unit: unit.to_owned(), figures };
        eprintln!("{}: {} {} {}", row.group, row.what, shown(quantile(&row.figures, 0.5)), row.unit);
        self.rows.push(row);
    }

    pub fn print(&self) {
        println!("\n{}\n", self.machine);
        println!("| | | median | min | max | of the first |\n|---|---|---:|---:|---:|---:|");
        for row in &self.rows {
            let [median, least, most] = [0.5, 0.0, 1.0].map(|share| quantile(&row.figures, share));
            let ratio = self.base(row).map(|base| format!("{:.2}", median / base)).unwrap_or_default();
            println!(
                "| {} | {} | {} {} | {} | {} | {ratio} |",
                row.group,
                row.what,
                shown(median),
                row.unit,
                shown(least),
                shown(most)
            );
        }
    }

    /// The median of the same figure in the first group that has it.
    fn base(&self, row: &Row) -> Option<f64> {
        let base = self.rows.iter().find(|other| other.what == row.what)?;
        let median = quantile(&base.figures, 0.5);
        (base.group != row.group && median > 0.0).then_some(median)
    }

    pub fn json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            json!({
                "group": row.group, "what": row.what, "unit": row.unit,
                "median": quantile(&row.figures, 0.5), "figures": row.figures,
                "of_the_first": self.base(row).map(|base| quantile(&row.figures, 0.5) / base),
            })
        });
        let all: Vec<Value> = rows.collect();
        format!("{:#}\n", json!({ "machine": self.machine, "rows": all }))
    }
}

/// Three digits that matter.
fn shown(figure: f64) -> String {
    match figure.abs() {
        big if big >= 100.0 => format!("{figure:.0}"),
        mid if mid >= 10.0 => format!("{figure:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{figure:.2}"),
    }
}
