//! The stock server and its `mqadmin` from Maven Central, and the official client suites: real software to test against.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{Process, workspace};

/// Set when what needs Java, Maven, Go and minutes is to run.
pub const SWITCH: &str = "FERROMQ_CLIENT_SUITES";
/// How long a JVM on a busy machine may take to serve.
const PATIENCE: Duration = Duration::from_secs(180);

const BROKER_POM: &str = "tools/stock/pom.xml";
const PROXY_POM: &str = "integration-tests/clients/stock-proxy/pom.xml";
const ADMIN_POM: &str = "integration-tests/clients/mqadmin/pom.xml";
const OPENS: [&str; 3] = [
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
];

/// Whether to run against other software; says so if not.
#[expect(clippy::print_stdout, reason = "whoever runs the tests is told what was not run")]
pub fn wanted() -> bool {
    let wanted = std::env::var(SWITCH).is_ok_and(|value| value == "1");
    if !wanted {
        println!("skipped: {SWITCH}=1 runs it; it needs Java 17, Maven and Go, and takes minutes");
    }
    wanted
}

/// The stock nameserver; its files go below `home`.
pub fn nameserver(home: &Path) -> Result<(Process, SocketAddr)> {
    fs::create_dir_all(home)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(&[0])?));
    let conf = home.join("namesrv.conf");
    fs::write(&conf, format!("listenPort={}\n", address.port()))?;
    let mut command = java(BROKER_POM, home, "512m")?;
    command.arg("org.apache.rocketmq.namesrv.NamesrvStartup").arg("-c").arg(conf);
    let process = Process::start(command)?;
    let ready = |line: &str| line.contains("Name Server boot success").then_some(());
    process.line_within(PATIENCE, ready)?;
    Ok((process, address))
}

/// The stock broker of this name; its files go below `home`.
pub fn broker(home: &Path, namesrv: SocketAddr, name: &str) -> Result<(Process, SocketAddr)> {
    broker_with(home, namesrv, name, &[])
}

/// The stock broker of this name with settings of its own.
pub fn broker_with(
    home: &Path,
    namesrv: SocketAddr,
    name: &str,
    settings: &[(&str, &str)],
) -> Result<(Process, SocketAddr)> {
    fs::create_dir_all(home)?;
    // It also takes the port two below for old clients and the one above for replicas.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(&[-2, 0, 1])?));
    let (port, ha_port) = (address.port(), address.port() + 1);
    let conf = home.join("broker.conf");
    let store = home.join("store");
    let mut text = format!(
        "brokerClusterName=DefaultCluster\nbrokerName={name}\nbrokerId=0\nbrokerIP1=127.0.0.1\n\
         listenPort={port}\nhaListenPort={ha_port}\nnamesrvAddr={namesrv}\n\
         storePathRootDir={}\nstorePathCommitLog={}\nautoCreateTopicEnable=true\n",
        store.display(),
        store.join("commitlog").display(),
    );
    for (key, value) in settings {
        text += &format!("{key}={value}\n");
    }
    fs::write(&conf, text)?;
    let mut command = java(BROKER_POM, home, "1g")?;
    command.arg("-XX:MaxDirectMemorySize=1g");
    command.arg("org.apache.rocketmq.broker.BrokerStartup").arg("-c").arg(conf);
    let process = Process::start(command)?;
    process.line_within(PATIENCE, |line| line.contains("boot success").then_some(()))?;
    Ok((process, address))
}

/// The stock proxy in cluster mode; its files go below `home`.
pub fn proxy(home: &Path, namesrv: SocketAddr) -> Result<(Process, SocketAddr)> {
    fs::create_dir_all(home)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(&[0])?));
    let conf = home.join("rmq-proxy.json");
    let (port, remoting) = (address.port(), free_port(&[0])?);
    let text = format!(
        r#"{{"rocketMQClusterName":"DefaultCluster","grpcServerPort":{port},"remotingListenPort":{remoting}}}"#
    );
    fs::write(&conf, text)?;
    let mut command = java(PROXY_POM, home, "512m")?;
    command.args(["org.apache.rocketmq.proxy.ProxyStartup", "-pm", "cluster", "-n"]);
    command.arg(namesrv.to_string()).arg("-pc").arg(conf);
    let process = Process::start(command)?;
    process.line_within(PATIENCE, |line| line.contains("startup successfully").then_some(()))?;
    Ok((process, address))
}

/// What `mqadmin` prints; an error if it says that it failed.
pub fn mqadmin(args: &[&str]) -> Result<String> {
    let home = workspace().join("target/stock/home");
    let mut command = java(ADMIN_POM, &home, "256m")?;
    command.arg("org.apache.rocketmq.tools.command.MQAdminStartup").args(args);
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mqadmin {args:?}: {}\n{said}{complaint}", output.status);
    ensure!(!complaint.contains("Exception"), "mqadmin {args:?}:\n{said}{complaint}");
    Ok(said)
}

/// Runs an official client suite, `clients/run ARGS`; an error holds all that it printed.
///
/// A case that fails is tried once more by itself: the clients have timers of their own (a first rebalance
/// that is skipped comes 20 s later), and on a busy machine a case may run out of patience. What is wrong
/// with a server fails twice.
pub fn suite(args: &[&str], environment: &[(&str, &str)]) -> Result<String> {
    let first = match script("run", args, environment) {
        Ok(said) => return Ok(said),
        Err(error) => error,
    };
    let said = format!("{first:#}");
    let failed: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("FAIL ")?.split_once(':'))
        .map(|(case, _)| case)
        .collect();
    const TRIED_AGAIN_MAX: usize = 3;
    ensure!((1..=TRIED_AGAIN_MAX).contains(&failed.len()), "{said}");
    let only = failed.join(",");
    let without_only = args.iter().take_while(|argument| **argument != "--only");
    let again: Vec<&str> = without_only.copied().chain(["--only", &only]).collect();
    script("run", &again, environment).with_context(|| format!("failed before:\n{said}"))
}

/// A program of the official clients, `clients/run ARGS`, to be run beside a test.
pub fn client(args: &[&str]) -> Command {
    let mut command = Command::new(workspace().join("integration-tests/clients/run"));
    command.args(args);
    command
}

/// Compares what `mqadmin` prints of two clusters; an error holds every difference.
pub fn compare_mqadmin(stock: SocketAddr, ours: SocketAddr) -> Result<String> {
    script("mqadmin/run", &[&stock.to_string(), &ours.to_string()], &[])
}

/// Runs a script of `clients/`.
fn script(name: &str, args: &[&str], environment: &[(&str, &str)]) -> Result<String> {
    // One at a time: each wants a gigabyte and a core.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let script = workspace().join("integration-tests/clients").join(name);
    let mut command = Command::new(script);
    command.args(args).envs(environment.iter().copied()).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{name} {args:?} ended with {}:\n{said}\n{complaint}", output.status);
    }
    Ok(said)
}

/// A port that is free, with those at these distances from it.
fn free_port(distances: &[i32]) -> Result<u16> {
    for _ in 0..1000 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let free = |distance: &i32| {
            let port = u16::try_from(i32::from(port) + distance);
            port.is_ok_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        };
        if distances.iter().all(free) {
            return Ok(port);
        }
    }
    bail!("no free ports at {distances:?}")
}

/// A JVM with the jars of a pom.
fn java(pom: &str, home: &Path, heap: &str) -> Result<Command> {
    let jars = jars(pom)?;
    fs::create_dir_all(home)?;
    let mut command = Command::new("java");
    command.args([format!("-Xms{heap}"), format!("-Xmx{heap}")]);
    command.args(["-XX:+UseSerialGC", "-Dio.netty.tryReflectionSetAccessible=true"]).args(OPENS);
    command.arg(format!("-Duser.home={}", home.display()));
    command.arg("-cp").arg(jars.join("*")).env("ROCKETMQ_HOME", home);
    Ok(command)
}

/// The folder with the jars of a pom, resolved when they are first wanted.
fn jars(pom: &str) -> Result<PathBuf> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = Path::new(pom).parent().and_then(Path::file_name).context("a pom in a folder")?;
    let lib = workspace().join("target/stock").join(name);
    if lib.exists() {
        return Ok(lib);
    }
    // Another name until all have come, so that a broken download is not taken for the whole.
    let coming = lib.with_extension("coming");
    let status = Command::new("mvn")
        .args(["-q", "-B", "-Dstyle.color=never", "dependency:copy-dependencies"])
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", coming.display()))
        .arg("-f")
        .arg(workspace().join(pom))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("mvn does not start")?;
    ensure!(status.success(), "mvn could not resolve {pom}: {status}");
    fs::rename(&coming, &lib)?;
    Ok(lib)
}
