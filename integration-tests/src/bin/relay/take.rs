//! Which frames are wanted, and what happens when one passes.

use crate::frame::Frame;
use crate::{Link, golden};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The side of a connection that a frame came from: who connected, or who listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Server,
}

/// A wish for one request and its answer.
#[derive(Debug, Default)]
pub(crate) struct Take {
    name: String,
    variant: Option<String>,
    code: i64,
    by: String,
    call: String,
    link: Option<String>,
    server_sends: bool,
    has: Vec<String>,
    answer: Option<i64>,
    request_only: bool,
    answer_only: bool,
    /// Requests that fit and wait for their answer.
    candidates: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    connection: u64,
    from: From,
    opaque: i64,
    bytes: Vec<u8>,
}

impl Take {
    /// Fields: `name`, `code`, `by` (the client's software) and `call` are needed; `variant` names
    /// the file; `link`, `from=server`, `has` (text in a header value or the body, or a whole
    /// `key=value`; all of them) and `answer` (its code) narrow the choice; `only=request|answer` keeps one.
    fn parse(fields: &str) -> Result<Self> {
        let mut take = Self { code: i64::MIN, ..Self::default() };
        for field in fields.split('\t') {
            let (key, value) = field.split_once('=').with_context(|| format!("field {field}"))?;
            let text = value.to_owned();
            match key {
                "name" => take.name = text,
                "variant" => take.variant = Some(text),
                "code" => take.code = value.parse()?,
                "by" => take.by = text,
                "call" => take.call = text,
                "link" => take.link = Some(text),
                "from" => take.server_sends = value == "server",
                "has" => take.has.push(text),
                "answer" => take.answer = Some(value.parse()?),
                "only" => match value {
                    "request" => take.request_only = true,
                    "answer" => take.answer_only = true,
                    _ => bail!("only={value}"),
                },
                _ => bail!("unknown field {key}"),
            }
        }
        if take.name.is_empty() || take.by.is_empty() || take.code == i64::MIN {
            bail!("name, code and by are needed");
        }
        Ok(take)
    }

    fn wants(&self, link: &Link, from: From, frame: &Frame) -> bool {
        frame.code == self.code
            && (from == From::Server) == self.server_sends
            && self.link.as_ref().is_none_or(|name| *name == link.name)
            && self.has.iter().all(|text| frame.has(text))
    }

    fn label(&self) -> String {
        let variant = self.variant.as_ref().map_or(String::new(), |variant| format!(".{variant}"));
        format!("{}{variant}", self.name)
    }

    fn file(&self, kind: &str) -> String {
        let variant = self.variant.as_ref().map_or(String::new(), |variant| format!(".{variant}"));
        format!("{}.{kind}{variant}", self.name)
    }
}

/// All wishes, and the folder where fulfilled ones go.
#[derive(Debug)]
pub(crate) struct Takes {
    folder: PathBuf,
    open: Mutex<Vec<Take>>,
    connections: AtomicU64,
    closed_one: Notify,
}

impl Takes {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: Mutex::default(),
            connections: AtomicU64::new(0),
            closed_one: Notify::new(),
        }
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Take>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, fields: &str) -> Result<()> {
        self.open().push(Take::parse(fields)?);
        Ok(())
    }

    /// Returns once nothing is wanted any more.
    pub(crate) async fn finished(&self) {
        loop {
            let closed = self.closed_one.notified();
            if self.open().is_empty() {
                return;
            }
            closed.await;
        }
    }

    /// Forgets what is still open and names it.
    pub(crate) fn give_up(&self) -> Vec<String> {
        self.open().drain(..).map(|take| take.label()).collect()
    }

    pub(crate) fn see(&self, link: &Link, connection: u64, from: From, bytes: &[u8]) -> Result<()> {
        let frame = Frame::parse(bytes)?;
        let mut open = self.open();
        if frame.is_answer() {
            let position = open.iter().enumerate().find_map(|(at, take)| {
                let is_it = |request: &Candidate| {
                    request.connection == connection
                        && request.from != from
                        && request.opaque == frame.opaque
                };
                Some((at, take.candidates.iter().position(is_it)?))
            });
            let Some((at, candidate)) = position else { return Ok(()) };
            let request = open[at].candidates.swap_remove(candidate);
            if open[at].answer.is_none_or(|code| code == frame.code) {
                let take = open.remove(at);
                self.keep(&take, link, Some(&request.bytes), Some(bytes))?;
            }
        } else if let Some(at) = open.iter().position(|take| take.wants(link, from, &frame)) {
            if frame.is_oneway() || open[at].request_only {
                let take = open.remove(at);
                self.keep(&take, link, Some(bytes), None)?;
            } else {
                let opaque = frame.opaque;
                let bytes = bytes.to_vec();
                open[at].candidates.push(Candidate { connection, from, opaque, bytes });
            }
        }
        Ok(())
    }

    fn keep(
        &self,
        take: &Take,
        link: &Link,
        request: Option<&[u8]>,
        answer: Option<&[u8]>,
    ) -> Result<()> {
        let (client, server, call) = (&take.by, &link.software, &take.call);
        let (sender, receiver) =
            if take.server_sends { (server, client) } else { (client, server) };
        if let Some(bytes) = request.filter(|_| !take.answer_only) {
            let comments = [format!("{sender} to {receiver}"), call.clone()];
            golden::write_frame(&self.folder, &take.file("request"), &comments, bytes)?;
        }
        if let Some(bytes) = answer {
            let comments = [format!("{receiver} answers {sender}"), call.clone()];
            golden::write_frame(&self.folder, &take.file("answer"), &comments, bytes)?;
        }
        self.closed_one.notify_waiters();
        Ok(())
    }
}
