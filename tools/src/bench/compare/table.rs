//! Medians and ratios, as a table for people.

use std::fmt::Write;

use serde::Serialize;

use crate::bench::figures::Figures;

/// One workload, one server, all its runs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Runs {
    pub(super) workload: String,
    pub(super) server: &'static str,
    pub(super) start_ms: f64,
    /// Cores that neither server nor generator used: what disturbed the runs, at worst.
    pub(super) others_cores: f64,
    pub(super) runs: Vec<Figures>,
}

/// Something else that is measured of a server.
#[derive(Debug, Serialize)]
pub(super) struct State {
    pub(super) what: String,
    pub(super) server: &'static str,
    pub(super) values: Vec<f64>,
}

pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

type Column = (&'static str, fn(&Figures) -> f64);

/// What is compared of a run.
const COLUMNS: [Column; 5] = [
    ("messages/s", |run| run.per_second),
    ("p50 µs", |run| run.latency.p50),
    ("p99 µs", |run| run.latency.p99),
    ("server CPU s per million", |run| run.server.map_or(0.0, |server| server.us_per_message)),
    ("server RSS MiB", |run| run.server.map_or(0.0, |server| server.rss_bytes as f64 / MIB)),
];

/// The row that the bare disk bounds.
const SYNC_ONE: &str = "sync-1";
const MIB: f64 = 1024.0 * 1024.0;

/// The workloads: a row for each rival of the first server.
pub(super) fn workloads(all: &[Runs]) -> String {
    let mut text = String::from("| workload | against |");
    for (name, _) in COLUMNS {
        let _ = write!(text, " {name} |");
    }
    text.push_str(
        " start ms | errors | others, cores |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for group in all.chunk_by(|a, b| a.workload == b.workload) {
        let Some((subject, rivals)) = group.split_first() else { continue };
        if rivals.is_empty() {
            text.push_str(&row(subject, None));
        }
        for rival in rivals {
            text.push_str(&row(subject, Some(rival)));
        }
    }
    text
}

fn row(subject: &Runs, rival: Option<&Runs>) -> String {
    let against = rival
        .map_or_else(|| format!("({} alone)", subject.server), |rival| rival.server.to_owned());
    let mut text = format!("| {} | {against} |", subject.workload);
    let errors =
        |runs: &Runs| -> u64 { runs.runs.iter().flat_map(|run| run.errors.values()).sum() };
    let Some(rival) = rival else {
        for (_, of) in COLUMNS {
            let _ = write!(text, " {} |", short(median(subject.runs.iter().map(of))));
        }
        let _ = writeln!(
            text,
            " {:.0} | {} | {:.2} |",
            subject.start_ms,
            errors(subject),
            subject.others_cores
        );
        return text;
    };
    for (_, of) in COLUMNS {
        let pairs = subject.runs.iter().zip(&rival.runs);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| of(ours) / of(theirs)).collect();
        let (ours, theirs) =
            (median(subject.runs.iter().map(of)), median(rival.runs.iter().map(of)));
        let _ = write!(text, " {} / {} = {} |", short(ours), short(theirs), spread(&ratios));
    }
    let _ = writeln!(
        text,
        " {:.0} / {:.0} = {} | {} / {} | {:.2} |",
        subject.start_ms,
        rival.start_ms,
        ratio(subject.start_ms / rival.start_ms),
        errors(subject),
        errors(rival),
        subject.others_cores.max(rival.others_cores)
    );
    text
}

/// The other figures: a row for each, a column for each server, and the ratios of each to the last.
pub(super) fn states(all: &[State], servers: &[&str]) -> String {
    let mut text = String::from("| |");
    for server in servers {
        let _ = write!(text, " {server} |");
    }
    text.push_str(" ratio |\n|---|");
    text.push_str(&"---|".repeat(servers.len() + 1));
    text.push('\n');
    let mut whats: Vec<&str> = Vec::new();
    for state in all {
        if !whats.contains(&state.what.as_str()) {
            whats.push(&state.what);
        }
    }
    for what in whats {
        let of = |server: &str| -> Option<f64> {
            let state = all.iter().find(|state| state.what == what && state.server == server)?;
            Some(median(state.values.iter().copied()))
        };
        let _ = write!(text, "| {what} |");
        for server in servers {
            let _ = write!(text, " {} |", of(server).map_or_else(|| "–".to_owned(), short));
        }
        let ratios: Vec<String> = match servers {
            [subjects @ .., rival] => subjects
                .iter()
                .filter_map(|subject| Some(ratio(of(subject)? / of(rival)?)))
                .collect(),
            [] => Vec::new(),
        };
        let _ = writeln!(text, " {} |", ratios.join(", "));
    }
    text
}

/// The bare disk, and how near to it a single synchronous producer comes.
pub(super) fn disk(disk: &Figures, all: &[Runs]) -> String {
    let mut text = format!(
        "Bare loop of pwrite + fdatasync of 1.25 KiB on this disk: {} writes/s, p50 {:.0} µs",
        short(disk.per_second),
        disk.latency.p50
    );
    for runs in all.iter().filter(|runs| runs.workload == SYNC_ONE) {
        let share = median(runs.runs.iter().map(|run| run.per_second)) / disk.per_second;
        let _ = write!(text, "; one producer of {} reaches {:.0} %", runs.server, share * 100.0);
    }
    text.push_str(".\n");
    text
}

/// The median ratio, with the lowest and highest if there are several.
fn spread(ratios: &[f64]) -> String {
    let middle = ratio(median(ratios.iter().copied()));
    let (low, high) = ratios
        .iter()
        .fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(*value), high.max(*value)));
    match ratios.len() {
        0 | 1 => format!("**{middle}**"),
        _ => format!("**{middle}** ({} … {})", ratio(low), ratio(high)),
    }
}

/// 4.2× or 1/4.2.
fn ratio(value: f64) -> String {
    match value {
        value if !value.is_finite() || value <= 0.0 => "–".to_owned(),
        value if value >= 1.0 => format!("{value:.2}×"),
        value => format!("1/{:.2}", 1.0 / value),
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{:.2}M", value / 1e6),
        value if value >= 9_995.0 => format!("{:.1}k", value / 1e3),
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_read_as_the_goals_are_written() {
        for (value, text) in [(12.0, "12.00×"), (0.25, "1/4.00"), (f64::NAN, "–")] {
            assert_eq!(ratio(value), text);
        }
        assert_eq!(spread(&[2.0, 0.5, 3.0]), "**2.00×** (1/2.00 … 3.00×)");
    }

    #[test]
    fn a_median_of_pairs_lies_between_them() {
        assert!((median([4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!((median([9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    }
}
