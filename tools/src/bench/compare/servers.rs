//! The servers that are compared: how each is started, stopped, frozen while another is measured.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use protocol::frame;
use protocol::header::send::Send;
use protocol::reply::ReplyCode;
use protocol::request::RequestCode;
use remoting::clock;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::wire::Wire;

/// Release of the stock server; the pom names the same.
pub(super) const STOCK: &str = "5.5.0";
const POM: &str = include_str!("../../../stock/pom.xml");
/// A server that takes no message for so long does not come up.
const START_MAX: Duration = Duration::from_secs(300);
/// How often a starting server is tried.
const TRY_EVERY: Duration = Duration::from_millis(2);

/// Everything that runs, to be ended with this process.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Ferromq,
    /// With its shipped defaults
    Stock,
    /// With writeWithoutMmap=true, its best setting for synchronous flushes
    StockPwrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    Async,
    Sync,
}

/// Where the servers live.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) dir: PathBuf,
    /// First of a hundred ports.
    pub(super) port: u16,
    /// Java heap of the stock broker, as for -Xmx.
    pub(super) heap: String,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) flush: Flush,
    /// Have the JVM touch its heap first: steadier under load, slower to start and larger.
    pub(super) pretouch: bool,
}

/// A process that dies with its owner.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: Pid,
}

/// A server that takes messages.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) kind: Kind,
    pub(super) address: String,
    /// From the start of the process to its first accepted message.
    pub(super) started_in: Duration,
    pub(super) process: Process,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ferromq => "FerroMQ",
            Self::Stock => "stock",
            Self::StockPwrite => "stock, writeWithoutMmap",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Ferromq => "ferromq",
            Self::Stock => "stock",
            Self::StockPwrite => "stock-pwrite",
        }
    }

    /// Listening port of the broker, from the first port; the nameserver's is ten below, and a
    /// broker also takes those two below and one above its own.
    fn port(self) -> u16 {
        match self {
            Self::Ferromq => 20,
            Self::Stock => 40,
            Self::StockPwrite => 60,
        }
    }
}

impl Ground {
    /// Starts a server on the store it left, or an empty one, and waits for its first message.
    pub(super) fn start(&self, kind: Kind, setting: Setting) -> Result<Server> {
        let dir = self.dir.join(kind.folder());
        fs::create_dir_all(&dir)?;
        let conf = dir.join("broker.conf");
        let port = self.port + kind.port();
        fs::write(&conf, self.broker_conf(kind, setting.flush, &dir))?;
        let mut command = match kind {
            Kind::Ferromq => ferromq(&dir, &conf, self.port + kind.nameserver_port())?,
            Kind::Stock | Kind::StockPwrite => self.stock_broker(&dir, &conf, setting.pretouch),
        };
        let address = format!("127.0.0.1:{port}");
        ensure!(Wire::connect(&address).is_err(), "{address} is in use");
        let start = clock::instant();
        let mut process = Process::spawn(&mut command, &dir.join("out.log"))?;
        while let Err(error) = first_send(&address) {
            let waited = clock::instant().duration_since(start);
            ensure!(waited < START_MAX, "{} is not up after {waited:?}: {error}", kind.name());
            process.check(&dir.join("out.log"))?;
            std::thread::sleep(TRY_EVERY);
        }
        let started_in = clock::instant().duration_since(start);
        Ok(Server { kind, address, started_in, process })
    }

    /// Starts the nameserver the stock brokers register with.
    pub(super) fn stock_nameserver(&self) -> Result<Process> {
        let dir = self.dir.join("stock-nameserver");
        fs::create_dir_all(&dir)?;
        let port = self.port + 30;
        let conf = dir.join("namesrv.conf");
        fs::write(&conf, format!("listenPort={port}\n"))?;
        let mut command = self.java(&dir);
        command.args(["-server", "-Xms512m", "-Xmx512m", "-XX:+UseG1GC"]);
        command.args(["org.apache.rocketmq.namesrv.NamesrvStartup", "-c"]).arg(&conf);
        let start = clock::instant();
        let address = format!("127.0.0.1:{port}");
        ensure!(Wire::connect(&address).is_err(), "{address} is in use");
        let mut process = Process::spawn(&mut command, &dir.join("out.log"))?;
        while Wire::connect(&address).is_err() {
            ensure!(clock::instant() - start < START_MAX, "the stock nameserver is not up");
            process.check(&dir.join("out.log"))?;
            std::thread::sleep(TRY_EVERY);
        }
        Ok(process)
    }

    /// Forgets what a server stored.
    pub(super) fn clear(&self, kind: Kind) -> Result<()> {
        let dir = self.dir.join(kind.folder());
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot clear {}", dir.display()))
            }
            _ => Ok(()),
        }
    }

    /// One file for both servers, so that they promise the same durability.
    fn broker_conf(&self, kind: Kind, flush: Flush, dir: &Path) -> String {
        let (port, namesrv) = (self.port + kind.port(), self.port + kind.nameserver_port());
        let flush = match flush {
            Flush::Async => "ASYNC_FLUSH",
            Flush::Sync => "SYNC_FLUSH",
        };
        let store = dir.join("store");
        let (store, log) = (store.display(), store.join("commitlog"));
        let mut conf = format!(
            "brokerClusterName=DefaultCluster\nbrokerName={}\nbrokerId=0\nbrokerIP1=127.0.0.1\n\
             listenPort={port}\nnamesrvAddr=127.0.0.1:{namesrv}\nautoCreateTopicEnable=true\n\
             storePathRootDir={store}\nstorePathCommitLog={}\nflushDiskType={flush}\n",
            kind.folder(),
            log.display(),
        );
        if kind == Kind::StockPwrite {
            conf.push_str("writeWithoutMmap=true\n");
        }
        conf
    }

    fn lib(&self) -> PathBuf {
        self.dir.join(format!("stock-{STOCK}")).join("lib")
    }

    /// Resolves the stock server from Maven Central, once.
    pub(super) fn resolve_stock(&self) -> Result<()> {
        let lib = self.lib();
        if lib.join(format!("rocketmq-proxy-{STOCK}.jar")).exists() {
            return Ok(());
        }
        let pom = self.dir.join("pom.xml");
        fs::write(&pom, POM)?;
        let mut mvn = Command::new("mvn");
        mvn.args([
            "-q",
            "-B",
            "-Dstyle.color=never",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            "-f",
        ]);
        mvn.arg(&pom).arg(format!("-DoutputDirectory={}", lib.display()));
        let status = mvn.stdout(Stdio::null()).status().context("mvn does not start")?;
        if !status.success() {
            // What came so far is not all of it.
            let _ = fs::remove_dir_all(&lib);
            bail!("mvn could not resolve the stock server: {status}");
        }
        Ok(())
    }

    pub(super) fn java(&self, dir: &Path) -> Command {
        let mut command = Command::new("java");
        command.arg(format!("-Duser.home={}", dir.display()));
        command.arg("-cp").arg(self.lib().join("*")).env("ROCKETMQ_HOME", dir);
        command
    }

    pub(super) fn stock_broker(&self, dir: &Path, conf: &Path, pretouch: bool) -> Command {
        let mut command = self.java(dir);
        command.arg("-server");
        command.args([format!("-Xms{}", self.heap), format!("-Xmx{}", self.heap)]);
        if pretouch {
            command.arg("-XX:+AlwaysPreTouch");
        }
        command.args([
            "-XX:MaxDirectMemorySize=4g",
            "-XX:+UseG1GC",
            "-XX:G1HeapRegionSize=16m",
            "-XX:G1ReservePercent=25",
            "-XX:InitiatingHeapOccupancyPercent=30",
            "-XX:-OmitStackTraceInFastThrow",
            "--add-opens=java.base/java.nio=ALL-UNNAMED",
            "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
            "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
            "-Dio.netty.tryReflectionSetAccessible=true",
            "org.apache.rocketmq.broker.BrokerStartup",
            "-c",
        ]);
        command.arg(conf);
        command
    }
}

impl Kind {
    /// Both stock brokers register with the one stock nameserver.
    fn nameserver_port(self) -> u16 {
        match self {
            Self::Ferromq => 10,
            Self::Stock | Self::StockPwrite => 30,
        }
    }
}

/// THE START COMMAND OF FERROMQ: this binary, everything in one process, a stock broker.conf.
fn ferromq(dir: &Path, conf: &Path, nameserver_port: u16) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("standalone").arg("--data").arg(dir).arg("--config").arg(conf);
    command.arg("--nameserver-port").arg(nameserver_port.to_string());
    command.args(["--proxy-port", "0"]);
    Ok(command)
}

impl Process {
    pub(super) fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let name = command.get_program().to_owned();
        let child =
            command.spawn().with_context(|| format!("{} does not start", name.display()))?;
        let pid = Pid::from_child(&child);
        RUNNING.lock().push(pid);
        Ok(Self { child, pid })
    }

    pub(super) fn check(&mut self, log: &Path) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = fs::read_to_string(log).unwrap_or_default();
            bail!("the server ended with {status}: {}", said.trim());
        }
        Ok(())
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Takes the processor away, so that it does not disturb the measurement of another.
    pub(super) fn freeze(&self) -> Result<()> {
        Ok(kill_process(self.pid, Signal::STOP)?)
    }

    pub(super) fn thaw(&self) -> Result<()> {
        Ok(kill_process(self.pid, Signal::CONT)?)
    }
}

impl Drop for Process {
    /// As `kill -9`: the restart rows depend on it, the others do not care.
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        RUNNING.lock().retain(|pid| *pid != self.pid);
    }
}

/// Ends all servers and this process when it is asked to end.
pub(super) fn end_with_this_process() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
            ) else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            for pid in RUNNING.lock().iter() {
                let _ = kill_process(*pid, Signal::KILL);
            }
            std::process::exit(130);
        });
    });
    Ok(())
}

/// Sends one message to a topic that is created by it.
pub(super) fn first_send(address: &str) -> Result<()> {
    let send = Send {
        producer_group: "ferromq-bench",
        topic: "bench-first",
        default_topic: "TBW102",
        default_topic_queue_nums: 1,
        queue_id: 0,
        sys_flag: 0,
        born_timestamp: clock::now_ms(),
        flag: 0,
        properties: None,
        reconsume_times: None,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    };
    let request = frame::Command::request(RequestCode::SendMessage.to_wire(), &send)
        .with_body(b"first".as_slice());
    let reply = Wire::connect(address)?.call(&request)?;
    if reply.code != ReplyCode::Success.to_wire() {
        bail!("refused with {}: {}", reply.code, reply.remark.as_deref().unwrap_or_default());
    }
    Ok(())
}
