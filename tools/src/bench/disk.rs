//! The bare loop every synchronous send is measured against: append 1.25 KiB, make it durable.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use remoting::clock;
use rustix::fs::{FallocateFlags, fallocate, fdatasync};

use super::figures::{self, Errors, Figures};
use super::process;

/// What a message of 1 KiB takes in the log.
const RECORD_BYTES: usize = 1280;
const FILE_BYTES: u64 = 1 << 30;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Where to write
    #[arg(long, default_value = ".")]
    pub(super) dir: PathBuf,
    #[arg(long, default_value_t = 5.0)]
    pub(super) duration: f64,
    /// Print the figures as one line of JSON at the end
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args) -> Result<Figures> {
    fs::create_dir_all(&args.dir)?;
    let path = args.dir.join(format!("bench-disk-{}", std::process::id()));
    let file = File::options().create_new(true).write(true).open(&path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    let outcome = write(args, &file);
    fs::remove_file(&path)?;
    outcome
}

fn write(args: &Args, file: &File) -> Result<Figures> {
    fallocate(file, FallocateFlags::empty(), 0, FILE_BYTES)?;
    file.sync_all()?;
    let record = [b'r'; RECORD_BYTES];
    let mut latency = figures::histogram();
    let mut count = 0;
    let client = process::own()?;
    let start = clock::instant();
    let mut before = start;
    while before.duration_since(start).as_secs_f64() < args.duration {
        let at = count * RECORD_BYTES as u64 % (FILE_BYTES - RECORD_BYTES as u64);
        file.write_all_at(&record, at)?;
        fdatasync(file)?;
        let now = clock::instant();
        figures::record(&mut latency, now.duration_since(before).as_nanos() as u64);
        before = now;
        count += 1;
    }
    let figures = Figures {
        workload: format!("disk: pwrite of {RECORD_BYTES} B and fdatasync"),
        messages: count,
        bytes: count * RECORD_BYTES as u64,
        seconds: before.duration_since(start).as_secs_f64(),
        timed: "write",
        errors: Errors::new(),
        ..Figures::default()
    };
    Ok(figures.complete(&latency, (client, process::own()?), None))
}
