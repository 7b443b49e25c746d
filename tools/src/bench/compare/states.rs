//! What is measured of a server apart from loads: starts, restarts, rest, memory.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use remoting::clock;

use super::rows::{self, State};
use super::servers::{Flush, Kind, Setting};
use super::{Comparison, target};
use crate::bench::target::Header;
use crate::bench::{process, send};

const MIB: f64 = 1024.0 * 1024.0;
/// What a message of 1 KiB takes in the log.
const RECORD_BYTES: f64 = 1280.0;

type Measured = Vec<(String, f64)>;

impl Comparison {
    pub(super) fn measure(&self, state: State, kind: Kind) -> Result<Measured> {
        let setting = Setting { flush: Flush::Async, pretouch: false };
        match state {
            State::Disk => bail!("the disk is no server"),
            State::Start => {
                let server = self.ground.start(kind, setting)?;
                let millis = server.started_in.as_secs_f64() * 1000.0;
                Ok(vec![("start on an empty store, ms".to_owned(), millis)])
            }
            State::Idle => self.idle(kind, setting),
            State::Memory => {
                let server = self.ground.start(kind, setting)?;
                let count = self.effort.memory_messages;
                self.fill(Header::Binary, &server, count)?;
                let used = process::of(server.process.id())?;
                let after = format!("after {:.1}M messages, MiB", count as f64 / 1e6);
                Ok(vec![
                    (format!("anonymous RSS {after}"), used.rss_anon_bytes as f64 / MIB),
                    (format!("RSS {after}"), used.rss_bytes as f64 / MIB),
                ])
            }
            State::RestartLog => {
                let server = self.ground.start(kind, setting)?;
                let gigabytes = self.args.restart_gb;
                let count = gigabytes * 1e9 / RECORD_BYTES;
                self.fill(Header::Binary, &server, count as u64)?;
                drop(server);
                let what = format!("start after kill -9, {gigabytes} GB of log, ms");
                self.restart(kind, setting, what)
            }
            State::RestartTopics => self.restart_topics(kind, setting),
        }
    }

    fn idle(&self, kind: Kind, setting: Setting) -> Result<Measured> {
        let server = self.ground.start(kind, setting)?;
        // A start has its aftermath; a JVM compiles on for seconds.
        let seconds = Duration::from_secs_f64(self.effort.idle_seconds);
        thread::sleep(seconds);
        let (before, start) = (process::of(server.process.id())?, clock::instant());
        thread::sleep(seconds);
        let after = process::of(server.process.id())?;
        let seconds = (clock::instant() - start).as_secs_f64();
        let cpu = (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0;
        Ok(vec![
            ("idle CPU, % of a core".to_owned(), cpu),
            ("idle RSS, MiB".to_owned(), after.rss_bytes as f64 / MIB),
            ("idle anonymous RSS, MiB".to_owned(), after.rss_anon_bytes as f64 / MIB),
            ("threads".to_owned(), after.threads as f64),
        ])
    }

    fn restart_topics(&self, kind: Kind, setting: Setting) -> Result<Measured> {
        let topics = self.args.restart_topics;
        let server = self.ground.start(kind, setting)?;
        // Stock fails at some 20,000 queue files, so that only one queue of each is written to.
        let mut load = rows::load("many", 1, 16);
        (load.topics, load.queues, load.duration) = (topics, 4, 300.0);
        load.count = Some(topics as u64);
        let target = target(&server, Header::Binary);
        let sent = send::run_first_queues(&send::Args { target, load })?;
        drop(server);
        let what = format!("start after kill -9, {topics} topics × 4 queues, ms");
        let mut measured = self.restart(kind, setting, what)?;
        let failed = sent.errors.values().sum::<u64>() as f64;
        measured.push((format!("sends refused while filling {topics} topics"), failed));
        Ok(measured)
    }

    fn restart(&self, kind: Kind, setting: Setting, what: String) -> Result<Measured> {
        let server = self.ground.start(kind, setting)?;
        Ok(vec![(what, server.started_in.as_secs_f64() * 1000.0)])
    }
}
