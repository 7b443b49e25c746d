//! Real processes on free ports: started, awaited by what they print, killed, started again; gone when dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use remoting::clock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::suites::{Place, Side};

/// How long a process of ours may take to start or to end before a test calls it stuck.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process whose lines are read; it does not outlive this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    said: Arc<Mutex<String>>,
    name: String,
}

impl Process {
    /// Starts `command` and reads what it prints, on either stream.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = Path::new(command.get_program()).display().to_string();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = mpsc::channel();
        let said = Arc::<Mutex<String>>::default();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let (sender, said) = (sender.clone(), said.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.push_str(&line);
                    said.push('\n');
                    drop(said);
                    // Nobody may want lines any more; they are kept in `said`.
                    let _ = sender.send(line);
                }
            });
        }
        Ok(Self { child, lines, said, name })
    }

    /// Waits for a line that `wanted` makes something of, unless one has been said already: lines of the two
    /// pipes come in any order.
    pub fn line<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.line_within(PATIENCE, wanted)
    }

    pub fn line_within<T>(
        &self,
        patience: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        if let Some(found) = self.said().lines().find_map(&wanted) {
            return Ok(found);
        }
        let started = clock::instant();
        loop {
            let left = patience.saturating_sub(started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = wanted(&line) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{} did not say it within {patience:?}; it said:\n{}",
                        self.name,
                        self.said()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended; it said:\n{}", self.name, self.said())
                }
            }
        }
    }

    /// Everything it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; what it does then is for the caller to await.
    pub fn terminate(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        Ok(())
    }

    /// Waits until it has ended: both its streams, then itself.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let started = clock::instant();
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(self.child.wait()?),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} goes on after {PATIENCE:?}; it said:\n{}", self.name, self.said())
                }
            }
        }
    }

    /// Whether it still runs, or how it ended, and the last it said: what a failed test wants to know.
    pub fn condition(&mut self) -> String {
        const LINES: usize = 20;
        let state = match self.child.try_wait() {
            Ok(None) => "still runs".to_owned(),
            Ok(Some(status)) => format!("ended with {status}"),
            Err(error) => format!("cannot be asked: {error}"),
        };
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        format!("{} {state}; it said:\n{last}", self.name)
    }

    /// Memory in use, as the kernel counts it.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lets others work before a question is asked once more: what is waited for needs the cores itself.
pub fn a_moment() {
    const MOMENT: Duration = Duration::from_millis(10);
    std::thread::sleep(MOMENT);
}

/// Our nameserver and broker in one process.
#[derive(Debug)]
pub struct Standalone {
    pub process: Process,
    pub nameserver: SocketAddr,
    pub broker: SocketAddr,
}

impl Standalone {
    /// Starts on `data` and waits until it says it is ready.
    pub fn start(data: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        Self::ready(Process::start(Self::command(data, settings))?)
    }

    /// The same for a process that was started in another way.
    pub fn ready(process: Process) -> Result<Self> {
        let address = |line: &str, name: &str| {
            line.trim().strip_prefix(name).and_then(|rest| rest.trim().parse().ok())
        };
        let nameserver = process.line(|line| address(line, "nameserver "))?;
        let broker = process.line(|line| address(line, "broker "))?;
        Ok(Self { process, nameserver, broker })
    }

    /// The command line, on free ports.
    pub fn command(data: &Path, settings: &[(&str, &str)]) -> Command {
        let mut command = ferromq();
        command.args(["standalone", "--nameserver-port", "0", "--broker-port", "0"]);
        command.args(["--proxy-port", "0", "--data"]);
        command.arg(data);
        for (key, value) in settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
    }
}

/// Our nameserver, broker and proxy, each a process.
#[derive(Debug)]
pub struct Cluster {
    pub processes: [Process; 3],
    pub nameserver: SocketAddr,
    pub proxy: SocketAddr,
    _data: TempDir,
}

impl Cluster {
    /// Starts on a folder of its own and waits until all are ready.
    pub fn start() -> Result<Self> {
        let data = tempfile::tempdir()?;
        let (map, nameserver) = nameserver(&data.path().join("map"))?;
        // Nobody has to wait half a minute to be asked about a transaction.
        let settings = [("enablePropertyFilter", "true"), ("transactionCheckInterval", "5000")];
        let (work, _) = broker(&data.path().join("work"), &nameserver.to_string(), &settings)?;
        let (door, proxy) = proxy(nameserver, &[])?;
        Ok(Self { processes: [map, work, door], nameserver, proxy, _data: data })
    }

    /// Where clients find it.
    pub fn place(&self, tls: bool) -> Place {
        let endpoints = self.proxy.to_string();
        Place { side: Side::Ours, nameserver: self.nameserver, endpoints, tls }
    }
}

/// Our nameserver alone.
pub fn nameserver(data: &Path) -> Result<(Process, SocketAddr)> {
    let mut command = ferromq();
    command.arg("nameserver").arg("--data").arg(data).args(["--set", "listenPort=0"]);
    let process = Process::start(command)?;
    let address = process.line(|line| logged_address(line, "the nameserver is ready"))?;
    Ok((process, address))
}

/// Our broker alone.
pub fn broker(
    data: &Path,
    namesrv: &str,
    settings: &[(&str, &str)],
) -> Result<(Process, SocketAddr)> {
    let mut command = ferromq();
    command.args(["broker", "--namesrv", namesrv, "--set", "listenPort=0", "--set"]);
    command.arg(format!("storePathRootDir={}", data.display()));
    for (key, value) in settings {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let process = Process::start(command)?;
    let address = process.line(|line| logged_address(line, "broker ready"))?;
    Ok((process, address))
}

/// Our proxy alone; both kinds of clients come in at its address.
pub fn proxy(namesrv: SocketAddr, settings: &[(&str, &str)]) -> Result<(Process, SocketAddr)> {
    let mut command = ferromq();
    command.args(["proxy", "--namesrv", &namesrv.to_string()]);
    for port in ["grpcServerPort=0", "remotingListenPort=0"] {
        command.args(["--set", port]);
    }
    for (key, value) in settings {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let process = Process::start(command)?;
    let address = process.line(|line| logged_address(line, "proxy ready"))?;
    Ok((process, address))
}

/// `address=…` of a log line with this sentence.
fn logged_address(line: &str, sentence: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(sentence)?;
    rest.split_whitespace().find_map(|word| word.strip_prefix("address=")?.parse().ok())
}

/// The `ferromq` binary of the profile these tests were built with, built now if it is not.
pub fn ferromq() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(|| build().expect("the tests cannot run without the binary"));
    let mut command = Command::new(path);
    // What it logs is read here.
    command.env("NO_COLOR", "1");
    command
}

fn build() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("CARGO_BIN_EXE_ferromq") {
        return Ok(given.into());
    }
    let own = std::env::current_exe()?;
    // A test lies in target/PROFILE/deps, a program beside that.
    let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let folder = folder.context("no folder above the program")?;
    let profile = folder.file_name().and_then(|name| name.to_str()).context("no profile")?;
    let target = folder.parent().context("no target folder")?;
    let profile = if profile == "debug" { "dev" } else { profile };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "ferromq", "--bin", "ferromq"])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace())
        .status()?;
    ensure!(built.success(), "the ferromq binary does not build");
    Ok(folder.join("ferromq"))
}

/// The folder of the whole project.
pub fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("integration-tests lies in the workspace")
}
