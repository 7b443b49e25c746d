//! What a process has used, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// Since the start of the process, or now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Use {
    pub(super) cpu_seconds: f64,
    pub(super) rss_bytes: u64,
    pub(super) rss_anon_bytes: u64,
    pub(super) threads: u64,
}

/// Reads the use of process `pid`.
pub(super) fn of(pid: u32) -> Result<Use> {
    let stat = read(pid, "stat")?;
    let status = read(pid, "status")?;
    // The command name in parentheses may hold blanks; the fields after it do not.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ticks = fields.split_ascii_whitespace().skip(11);
    let mut next = || -> Option<u64> { ticks.next()?.parse().ok() };
    let (user, system) =
        next().zip(next()).with_context(|| format!("/proc/{pid}/stat is not understood"))?;
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(Use {
        cpu_seconds: (user + system) as f64 / per_second,
        rss_bytes: number(&status, "VmRSS:") * 1024,
        rss_anon_bytes: number(&status, "RssAnon:") * 1024,
        threads: number(&status, "Threads:"),
    })
}

/// The use of this process.
pub(super) fn own() -> Result<Use> {
    of(std::process::id())
}

/// The seconds all cores together have been busy since the machine started.
pub(super) fn machine_busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("the machine cannot be watched")?;
    let all = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        all.split_ascii_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; the rest is counted in user already.
    let busy: u64 = ticks
        .iter()
        .take(8)
        .enumerate()
        .filter(|(at, _)| !matches!(at, 3 | 4))
        .map(|(_, t)| t)
        .sum();
    Ok(busy as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn read(pid: u32, file: &str) -> Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .with_context(|| format!("process {pid} cannot be watched"))
}

fn number(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
