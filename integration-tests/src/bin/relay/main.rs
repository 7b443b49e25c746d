//! A TCP relay that stands between stock RocketMQ processes and keeps the frames it is asked for.
//!
//! ```text
//! relay record DIR CONTROL NAME=LISTEN=TARGET=SOFTWARE…   forward, and write what `take` asks for
//! relay text DIR                                          write every .txt of DIR again from its .hex
//! relay hex OUT BYTES FILE COMMENT…                       the first BYTES of FILE in golden form
//! ```
//!
//! The control port takes lines of `key=value` fields separated by tabs; see [`take::Take::parse`].

mod frame;
mod golden;
mod stored;
mod take;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use take::{From, Takes};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// One address that is listened on, and the server behind it.
#[derive(Debug)]
struct Link {
    name: String,
    target: String,
    software: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["record", folder, control, links @ ..] => record(folder, control, links).await,
        ["text", folder] => golden::write_texts(Path::new(folder)),
        ["hex", out, bytes, file, comments @ ..] => {
            golden::cut(Path::new(out), bytes.parse()?, Path::new(file), comments)
        }
        _ => bail!("see the head of integration-tests/src/bin/relay/main.rs"),
    }
}

async fn record(folder: &str, control: &str, links: &[&str]) -> Result<()> {
    let takes = Arc::new(Takes::new(PathBuf::from(folder)));
    for link in links {
        let parts: Vec<&str> = link.splitn(4, '=').collect();
        let [name, listen, target, software] = parts.as_slice() else {
            bail!("a link is NAME=LISTEN=TARGET=SOFTWARE, not {link}");
        };
        let listener = TcpListener::bind(listen).await.with_context(|| format!("bind {listen}"))?;
        let link = Arc::new(Link {
            name: (*name).to_owned(),
            target: (*target).to_owned(),
            software: (*software).to_owned(),
        });
        tokio::spawn(accept(listener, link, Arc::clone(&takes)));
    }
    let listener = TcpListener::bind(control).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let takes = Arc::clone(&takes);
        tokio::spawn(async move { obey(stream, &takes).await });
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>, takes: Arc<Takes>) -> Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        // A server that is not up yet looks to its client like a closed port: the connection ends.
        let Ok(server) = TcpStream::connect(&link.target).await else { continue };
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let connection = takes.next_connection();
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        for (from, reads, writes) in [
            (From::Client, client_reads, server_writes),
            (From::Server, server_reads, client_writes),
        ] {
            let (link, takes) = (Arc::clone(&link), Arc::clone(&takes));
            tokio::spawn(async move {
                forward(reads, writes, |bytes| takes.see(&link, connection, from, bytes)).await
            });
        }
    }
}

/// Passes bytes on as they come and hands every whole frame to `see` before its last byte leaves.
async fn forward(
    mut reads: OwnedReadHalf,
    mut writes: OwnedWriteHalf,
    mut see: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut kept: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = reads.read(&mut chunk).await?;
        if count == 0 {
            return Ok(writes.shutdown().await?);
        }
        kept.extend_from_slice(&chunk[..count]);
        while let Some(length) = frame::whole(&kept)? {
            let rest = kept.split_off(length);
            see(&kept)?;
            kept = rest;
        }
        writes.write_all(&chunk[..count]).await?;
    }
}

/// Serves one control connection: `take …`, and `wait MILLISECONDS` for all that was asked.
async fn obey(stream: TcpStream, takes: &Takes) -> Result<()> {
    let (reads, mut writes) = stream.into_split();
    let mut lines = BufReader::new(reads).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match line.split_once([' ', '\t']) {
            Some(("take", fields)) => match takes.add(fields) {
                Ok(()) => "ok".to_owned(),
                Err(error) => format!("error {error:#}"),
            },
            Some(("wait", time)) => {
                let limit = Duration::from_millis(time.trim().parse()?);
                let _ = tokio::time::timeout(limit, takes.finished()).await;
                match takes.give_up().as_slice() {
                    [] => "done".to_owned(),
                    missing => format!("missing {}", missing.join(" ")),
                }
            }
            _ => format!("error unknown line {line}"),
        };
        writes.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}
