//! A nameserver alone: `serve FOLDER PORT [namesrv.conf]`. For trying it with other software.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, bail};
use nameserver::config::Config;
use tracing::warn;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, port, file) = match arguments.as_slice() {
        [folder, port] => (Path::new(folder), port, None),
        [folder, port, file] => (Path::new(folder), port, Some(file)),
        _ => bail!("usage: serve FOLDER PORT [namesrv.conf]"),
    };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    let config = match file {
        None => Config::new(folder),
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
            let (config, without_effect) = Config::read(&text, folder)?;
            if !without_effect.is_empty() {
                warn!(keys = ?without_effect, "these settings change nothing here");
            }
            config
        }
    };
    let shutdown = remoting::process::shutdown_on_signal()?;
    nameserver::start(config, listen, shutdown).await?.stopped().await
}
