//! Nameserver, broker and proxy together, as they are compared over gRPC.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use remoting::clock;

use super::servers::{Ground, Process, first_send};
use crate::bench::grpc;
use crate::bench::wire::Wire;

/// Servers that take no message for so long do not come up.
const START_MAX: Duration = Duration::from_secs(300);
const TRY_EVERY: Duration = Duration::from_millis(5);
/// The stock proxy ends when a broker is not ready for its topic yet.
const PROXY_STARTS_MAX: usize = 5;

/// How the roles are spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// FerroMQ: broker and proxy apart, beside a nameserver
    Two,
    /// FerroMQ: everything in one process
    One,
    /// RocketMQ: nameserver, broker and proxy in cluster mode
    Stock,
}

/// Servers that take messages over gRPC.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) shape: Shape,
    pub(super) proxy: String,
    pub(super) broker: String,
    /// From the start of the first process to the first message accepted over gRPC.
    pub(super) started_in: Duration,
    /// The proxy is the last.
    processes: Vec<Process>,
}

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Two => "FerroMQ in two processes",
            Self::One => "FerroMQ in one process",
            Self::Stock => "stock",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Two => "grpc-two",
            Self::One => "grpc-one",
            Self::Stock => "grpc-stock",
        }
    }

    /// From the first port; a broker also takes the ports two below and one above its own.
    fn port(self) -> u16 {
        match self {
            Self::Two => 0,
            Self::One => 20,
            Self::Stock => 40,
        }
    }
}

/// Where the roles of one cluster listen.
#[derive(Debug, Clone, Copy)]
struct Ports {
    nameserver: u16,
    broker: u16,
    proxy: u16,
    proxy_remoting: u16,
}

impl Cluster {
    /// Starts on an empty store and waits for the first message.
    pub(super) fn start(
        ground: &Ground,
        shape: Shape,
        proxy_heap: &str,
        pretouch: bool,
    ) -> Result<Self> {
        let dir = ground.dir.join(shape.folder());
        clear(&dir)?;
        fs::create_dir_all(&dir)?;
        let first = ground.port + shape.port();
        let ports = Ports {
            nameserver: first,
            broker: first + 5,
            proxy: first + 10,
            proxy_remoting: first + 11,
        };
        let address = |port: u16| format!("127.0.0.1:{port}");
        let (broker, proxy) = (address(ports.broker), address(ports.proxy));
        ensure!(Wire::connect(&broker).is_err(), "{broker} is in use");
        ensure!(Wire::connect(&proxy).is_err(), "{proxy} is in use");
        write_configuration(&dir, ports)?;
        let start = clock::instant();
        let mut cluster =
            Self { shape, proxy, broker, started_in: Duration::ZERO, processes: Vec::new() };
        let commands = match shape {
            Shape::One => vec![("all", one(&dir, ports)?)],
            Shape::Two => two(&dir, ports)?,
            Shape::Stock => stock(ground, &dir, proxy_heap, pretouch),
        };
        for (name, mut command) in commands {
            cluster.start_process(name, &mut command, &dir, &address(ports.nameserver))?;
        }
        cluster.started_in = clock::instant() - start;
        Ok(cluster)
    }

    fn start_process(
        &mut self,
        name: &str,
        command: &mut Command,
        dir: &Path,
        nameserver: &str,
    ) -> Result<()> {
        let log = dir.join(format!("{name}.log"));
        let start = clock::instant();
        for attempt in 1..=PROXY_STARTS_MAX {
            let mut process = Process::spawn(command, &log)?;
            loop {
                let ready = match name {
                    "nameserver" => Wire::connect(nameserver).map(|_| ()),
                    "broker" => first_send(&self.broker),
                    _ => grpc::first_send(&self.proxy, &self.broker),
                };
                let Err(error) = ready else {
                    self.processes.push(process);
                    return Ok(());
                };
                let waited = clock::instant() - start;
                ensure!(waited < START_MAX, "{name} is not up after {waited:?}: {error:#}");
                if let Err(ended) = process.check(&log) {
                    let again = name == "proxy" && attempt < PROXY_STARTS_MAX;
                    ensure!(again, "{name}: {ended:#}");
                    break;
                }
                std::thread::sleep(TRY_EVERY);
            }
        }
        bail!("{name} does not stay up")
    }

    pub(super) fn freeze(&self) -> Result<()> {
        self.processes.iter().try_for_each(Process::freeze)
    }

    pub(super) fn thaw(&self) -> Result<()> {
        self.processes.iter().try_for_each(Process::thaw)
    }

    pub(super) fn all_pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// The processes a message goes through.
    pub(super) fn charged_pids(&self) -> Vec<u32> {
        let nameserver = usize::from(self.shape != Shape::One);
        self.processes.iter().skip(nameserver).map(Process::id).collect()
    }

    pub(super) fn proxy_pid(&self) -> u32 {
        self.processes.last().map(Process::id).expect("a cluster has a proxy")
    }

    /// Ends it and forgets what it stored.
    pub(super) fn end(self, ground: &Ground) -> Result<()> {
        let dir = ground.dir.join(self.shape.folder());
        drop(self);
        clear(&dir)
    }
}

fn clear(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot clear {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// The same files for all, in the stock server's forms.
fn write_configuration(dir: &Path, ports: Ports) -> Result<()> {
    let Ports { nameserver, broker, proxy, proxy_remoting } = ports;
    let store = dir.join("store");
    let broker = format!(
        "brokerClusterName=DefaultCluster\nbrokerName=bench\nbrokerId=0\nbrokerIP1=127.0.0.1\n\
         listenPort={broker}\nnamesrvAddr=127.0.0.1:{nameserver}\nautoCreateTopicEnable=true\n\
         storePathRootDir={}\nstorePathCommitLog={}\nflushDiskType=ASYNC_FLUSH\n",
        store.display(),
        store.join("commitlog").display(),
    );
    fs::write(dir.join("broker.conf"), broker)?;
    fs::write(dir.join("namesrv.conf"), format!("listenPort={nameserver}\n"))?;
    let proxy = serde_json::json!({
        "rocketMQClusterName": "DefaultCluster",
        "namesrvAddr": format!("127.0.0.1:{nameserver}"),
        "grpcServerPort": proxy,
        "remotingListenPort": proxy_remoting,
    });
    fs::create_dir_all(dir.join("conf"))?;
    fs::write(dir.join("conf/rmq-proxy.json"), proxy.to_string())?;
    Ok(())
}

fn one(dir: &Path, ports: Ports) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("standalone").arg("--data").arg(dir.join("data"));
    command.arg("--config").arg(dir.join("broker.conf"));
    command.args(["--nameserver-port", &ports.nameserver.to_string()]);
    command.args(["--proxy-port", &ports.proxy.to_string()]);
    Ok(command)
}

fn two(dir: &Path, ports: Ports) -> Result<Vec<(&'static str, Command)>> {
    let own = std::env::current_exe()?;
    let role = |name: &str| {
        let mut command = Command::new(&own);
        command.arg(name);
        command
    };
    let mut nameserver = role("nameserver");
    nameserver.arg("--data").arg(dir.join("nameserver"));
    nameserver.arg("--config").arg(dir.join("namesrv.conf"));
    let mut broker = role("broker");
    broker.arg("--config").arg(dir.join("broker.conf"));
    let mut proxy = role("proxy");
    proxy.arg("--namesrv").arg(format!("127.0.0.1:{}", ports.nameserver));
    proxy.args(["--port", &ports.proxy.to_string()]);
    Ok(vec![("nameserver", nameserver), ("broker", broker), ("proxy", proxy)])
}

fn stock(
    ground: &Ground,
    dir: &Path,
    proxy_heap: &str,
    pretouch: bool,
) -> Vec<(&'static str, Command)> {
    let mut nameserver = ground.java(dir);
    nameserver.args(["-server", "-Xms512m", "-Xmx512m", "-XX:+UseG1GC"]);
    nameserver.args(["org.apache.rocketmq.namesrv.NamesrvStartup", "-c"]);
    nameserver.arg(dir.join("namesrv.conf"));
    let broker = ground.stock_broker(dir, &dir.join("broker.conf"), pretouch);
    let mut proxy = ground.java(dir);
    proxy.args([format!("-Xms{proxy_heap}"), format!("-Xmx{proxy_heap}")]);
    if pretouch {
        proxy.arg("-XX:+AlwaysPreTouch");
    }
    proxy.args([
        "-server",
        "-XX:+UseG1GC",
        "--add-opens=java.base/java.nio=ALL-UNNAMED",
        "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "org.apache.rocketmq.proxy.ProxyStartup",
        "-pm",
        "cluster",
        "-pc",
    ]);
    proxy.arg(dir.join("conf/rmq-proxy.json"));
    vec![("nameserver", nameserver), ("broker", broker), ("proxy", proxy)]
}
