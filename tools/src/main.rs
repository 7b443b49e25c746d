//! The `ferromq` binary: every role in one process, or one role of a cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod bench;
mod roles;
mod store;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A message broker that RocketMQ clients cannot tell from their own.
#[derive(Debug, Parser)]
#[command(name = "ferromq", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything there is in one process (the default).
    Standalone(Standalone),
    /// Route discovery.
    Nameserver(Role),
    /// The store and what clients ask of it.
    Broker(BrokerRole),
    /// The front door for gRPC clients, before brokers elsewhere.
    Proxy(ProxyRole),
    /// Measure a server.
    Bench(bench::Args),
    /// Look after a store that no broker has open.
    Store(store::Args),
}

/// How to start everything in one process.
#[derive(Debug, Args)]
pub(crate) struct Standalone {
    /// Where everything is kept.
    #[arg(short, long, default_value = "./data")]
    pub(crate) data: PathBuf,
    /// A stock broker.conf.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// The nameserver's port.
    #[arg(long, default_value_t = 9876)]
    pub(crate) nameserver_port: u16,
    /// The broker's port, unless the file says it.
    #[arg(long)]
    pub(crate) broker_port: Option<u16>,
    /// Where gRPC clients come in.
    #[arg(long, default_value_t = 8081)]
    pub(crate) proxy_port: u16,
    /// A stock rmq-proxy.json.
    #[arg(long)]
    pub(crate) proxy_config: Option<PathBuf>,
    /// A broker key and its value, over the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
}

impl Default for Standalone {
    fn default() -> Self {
        Self {
            data: "./data".into(),
            config: None,
            nameserver_port: 9876,
            broker_port: None,
            proxy_port: 8081,
            proxy_config: None,
            settings: Vec::new(),
        }
    }
}

/// How to start a nameserver.
#[derive(Debug, Args)]
pub(crate) struct Role {
    /// Where its few files are kept.
    #[arg(short, long, default_value = "./data/nameserver")]
    pub(crate) data: PathBuf,
    /// A stock namesrv.conf.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// A key and its value, over the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
}

/// How to start a broker.
#[derive(Debug, Args)]
pub(crate) struct BrokerRole {
    /// A stock broker.conf.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// Nameservers, `host:port` between semicolons.
    #[arg(short, long)]
    pub(crate) namesrv: Option<String>,
    /// A key and its value, over the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
}

/// How to start a proxy.
#[derive(Debug, Args)]
pub(crate) struct ProxyRole {
    /// A stock rmq-proxy.json.
    #[arg(short, long, visible_alias = "pc")]
    pub(crate) config: Option<PathBuf>,
    /// Nameservers, `host:port` between semicolons.
    #[arg(short, long)]
    pub(crate) namesrv: Option<String>,
    /// Where gRPC clients come in, unless the file says it.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// A key and its value, over the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command.unwrap_or_else(|| Command::Standalone(Standalone::default())) {
        Command::Standalone(args) => roles::run(roles::standalone(args)),
        Command::Nameserver(args) => roles::run(roles::nameserver(args)),
        Command::Broker(args) => roles::run(roles::broker(args)),
        Command::Proxy(args) => roles::run(roles::proxy(args)),
        Command::Bench(args) => bench::run(args),
        Command::Store(args) => store::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
