//! A plain remoting connection for tests: many requests in flight, answers as they come, no retries.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::fields::Header;
use protocol::frame::{Command, Encoding, frame_len};
use protocol::header::Empty;
use protocol::reply::ReplyCode;
use protocol::request::{Request, RequestCode};

/// How long an answer may take before the test calls it missing.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    /// How the headers of its requests are written.
    pub encoding: Encoding,
    out: Vec<u8>,
    input: Vec<u8>,
    opaque: i32,
}

/// A request that was answered with something else than success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request {request} was refused with {code}: {remark}")]
pub struct Refused {
    pub request: i32,
    pub code: i32,
    pub remark: String,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let (out, input) = (Vec::new(), Vec::new());
        Ok(Self { stream, encoding: Encoding::Json, out, input, opaque: 0 })
    }

    /// Puts a request where [`Wire::flush`] finds it; gives the opaque its answer will have.
    pub fn push(&mut self, mut request: Command<'_>) -> i32 {
        self.opaque += 1;
        request.opaque = self.opaque;
        request.encoding = self.encoding;
        request.encode(&mut self.out);
        self.opaque
    }

    /// Writes what was pushed.
    pub fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next frame from the other side; an error when the connection ends or nothing comes.
    pub fn receive(&mut self) -> Result<Command<'static>> {
        loop {
            if let Some(len) = frame_len(&self.input)?
                && let Some(frame) = self.input.get_mut(..len)
            {
                let command = Command::decode(frame)?.into_owned();
                self.input.drain(..len);
                return Ok(command);
            }
            self.fill()?;
        }
    }

    /// Whether another whole frame has been read already.
    pub fn has_received(&self) -> bool {
        frame_len(&self.input).is_ok_and(|len| len.is_some_and(|len| len <= self.input.len()))
    }

    fn fill(&mut self) -> Result<()> {
        let mut piece = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => {
                    self.input.extend_from_slice(&piece[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("no answer"),
            }
        }
    }

    /// Asks and waits; whatever answers, as long as something does. Requests of the server are passed over.
    pub fn call(&mut self, request: Command<'_>) -> Result<Command<'static>> {
        let code = request.code;
        let opaque = self.push(request);
        self.flush()?;
        loop {
            let reply = self.receive().with_context(|| format!("request {code}"))?;
            if reply.is_reply() && reply.opaque == opaque {
                return Ok(reply);
            }
        }
    }

    /// Asks under the header's own code; the reply's header and body.
    pub fn ask<R: Request>(&mut self, header: &R) -> Result<(R::Reply, Vec<u8>)> {
        let code = R::CODE.to_wire();
        let reply = success(code, self.call(Command::request(code, header))?)?;
        Ok((R::Reply::read(&reply.fields)?, reply.body.into_owned()))
    }

    /// Asks for something that has no header of its own; the reply's body.
    pub fn ask_plain(&mut self, code: RequestCode, body: Vec<u8>) -> Result<Vec<u8>> {
        let code = code.to_wire();
        let request = Command::request(code, &Empty {}).with_body(body);
        Ok(success(code, self.call(request)?)?.body.into_owned())
    }

    /// Whether the other side closes this connection before [`ANSWER_TIMEOUT`]; what it says until then
    /// is passed over.
    pub fn is_closed_by_server(&mut self) -> bool {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }
}

/// The reply, if it says success.
pub fn success(request: i32, reply: Command<'static>) -> Result<Command<'static>, Refused> {
    if reply.code == ReplyCode::Success.to_wire() {
        return Ok(reply);
    }
    let remark = reply.remark.unwrap_or_default().into_owned();
    Err(Refused { request, code: reply.code, remark })
}
