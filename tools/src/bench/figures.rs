//! What a run measured, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::process::Use;

/// The longest latency told apart from longer ones.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// The outcome of one measured window.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Figures {
    pub(super) workload: String,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    /// What `latency` is the time of.
    pub(super) timed: &'static str,
    pub(super) latency: Latency,
    /// By reply code or kind.
    pub(super) errors: BTreeMap<String, u64>,
    /// CPU of this process a message; it shares the machine with the server.
    pub(super) client_us_per_message: f64,
    pub(super) server: Option<Server>,
}

/// Microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// What the server process used in the window, and what it held at its end.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Server {
    pub(super) cpu_seconds: f64,
    pub(super) us_per_message: f64,
    pub(super) rss_bytes: u64,
    pub(super) rss_anon_bytes: u64,
    pub(super) threads: u64,
}

pub(super) type Errors = BTreeMap<String, u64>;

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are in order")
}

/// Adds a latency; one over the maximum counts as the maximum.
pub(super) fn record(histogram: &mut Histogram<u64>, nanos: u64) {
    histogram.saturating_record(nanos.max(1));
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let max = if histogram.is_empty() { 0.0 } else { histogram.max() as f64 / 1000.0 };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }
}

impl Figures {
    /// Fills in what follows from counts, time and the use of both processes.
    pub(super) fn complete(
        mut self,
        histogram: &Histogram<u64>,
        client: (Use, Use),
        server: Option<(Use, Use)>,
    ) -> Self {
        let messages = self.messages.max(1) as f64;
        let spent = |(before, after): (Use, Use)| after.cpu_seconds - before.cpu_seconds;
        self.latency = Latency::of(histogram);
        self.per_second = self.messages as f64 / self.seconds.max(1e-9);
        self.client_us_per_message = spent(client) * 1e6 / messages;
        self.server = server.map(|(before, after)| Server {
            cpu_seconds: spent((before, after)),
            us_per_message: spent((before, after)) * 1e6 / messages,
            rss_bytes: after.rss_bytes,
            rss_anon_bytes: after.rss_anon_bytes,
            threads: after.threads,
        });
        self
    }

    /// Prints itself, and as one line of JSON at the end if asked.
    pub(super) fn print(&self, json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        write!(out, "{self}")?;
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib_per_second = self.bytes as f64 / self.seconds.max(1e-9) / (1024.0 * 1024.0);
        writeln!(f, "workload     {}", self.workload)?;
        writeln!(
            f,
            "throughput   {:.0} messages/s, {mib_per_second:.1} MiB/s ({} messages in {:.2} s)",
            self.per_second, self.messages, self.seconds
        )?;
        let Latency { p50, p90, p99, p999, max } = self.latency;
        writeln!(
            f,
            "{:<12} p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1} µs",
            self.timed
        )?;
        match self.errors.len() {
            0 => writeln!(f, "errors       none")?,
            _ => writeln!(f, "errors       {:?}", self.errors)?,
        }
        writeln!(f, "client       {:.3} µs CPU a message", self.client_us_per_message)?;
        if let Some(server) = &self.server {
            let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
            writeln!(
                f,
                "server       {:.2} s CPU, {:.3} µs a message; RSS {:.0} MiB, anonymous {:.0} MiB; \
                 {} threads",
                server.cpu_seconds,
                server.us_per_message,
                mib(server.rss_bytes),
                mib(server.rss_anon_bytes),
                server.threads
            )?;
        }
        Ok(())
    }
}
