//! One connection to a server: many frames out in one write, frames in with the least reading.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::frame::{Command, frame_len};
use protocol::reply::ReplyCode;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a single call may take; creating a topic on a loaded broker takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Room for one read: some hundred send replies, or a few pull replies of 32 × 1 KiB.
const READ_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    /// Frames to be written; [`Wire::flush`] writes them.
    pub(super) out: Vec<u8>,
    written: usize,
    read: Vec<u8>,
    start: usize,
    end: usize,
}

/// What a load generator must know of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glance {
    pub(super) code: i32,
    pub(super) opaque: i32,
}

impl Wire {
    pub(super) fn connect(address: &str) -> Result<Self> {
        let socket = address
            .to_socket_addrs()
            .with_context(|| format!("{address} is not host:port"))?
            .next()
            .with_context(|| format!("{address} resolves to nothing"))?;
        let stream = TcpStream::connect_timeout(&socket, CONNECT_TIMEOUT)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Another end of the same connection, to read it on another thread.
    pub(super) fn reader(&self) -> io::Result<Self> {
        Ok(Self::over(self.stream.try_clone()?))
    }

    /// A connection somebody made.
    pub(super) fn over(stream: TcpStream) -> Self {
        let read = vec![0; READ_BYTES];
        Self { stream, out: Vec::new(), written: 0, read, start: 0, end: 0 }
    }

    /// Writes what there is; `false` when the socket is full and some is left.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads once; `false` when there is nothing to read now.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.read.len() {
            if self.start == 0 {
                self.read.resize(self.read.len() * 2, 0);
            }
            self.read.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match self.stream.read(&mut self.read[self.end..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.end += read;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the next whole frame out of what was read.
    pub(super) fn frame(&mut self) -> Result<Option<&mut [u8]>> {
        let present = &self.read[self.start..self.end];
        match frame_len(present)? {
            Some(len) if len <= present.len() => {
                let frame = self.start..self.start + len;
                self.start += len;
                Ok(Some(&mut self.read[frame]))
            }
            _ => Ok(None),
        }
    }

    /// Sends one request and waits for its reply; only for a connection with nothing in flight.
    pub(super) fn call(&mut self, request: &Command<'_>) -> Result<Command<'static>> {
        self.stream.set_read_timeout(Some(CALL_TIMEOUT))?;
        request.encode(&mut self.out);
        self.flush()?;
        loop {
            while let Some(frame) = self.frame()? {
                let reply = Command::decode(frame)?;
                if reply.is_reply() && reply.opaque == request.opaque {
                    return Ok(reply.into_owned());
                }
            }
            if !self.fill()? {
                bail!("code {} was not answered within {CALL_TIMEOUT:?}", request.code);
            }
        }
    }

    /// As [`Wire::call`]; a reply other than success is an error.
    pub(super) fn ask(&mut self, request: &Command<'_>) -> Result<Command<'static>> {
        let reply = self.call(request)?;
        if reply.code != ReplyCode::Success.to_wire() {
            let remark = reply.remark.as_deref().unwrap_or_default();
            bail!("code {} was refused with {}: {remark}", request.code, reply.code);
        }
        Ok(reply)
    }
}

/// Reads code and opaque. A success is not decoded: the generator shares its cores with the server.
pub(super) fn glance(frame: &mut [u8]) -> Result<Glance> {
    if let Some(glance) = success(frame) {
        return Ok(glance);
    }
    let reply = Command::decode(frame)?;
    Ok(Glance { code: reply.code, opaque: reply.opaque })
}

fn success(frame: &[u8]) -> Option<Glance> {
    const OPAQUE: &[u8] = b"\"opaque\":";
    const OPAQUE_Q: usize = 4;
    let [_, _, _, _, form, a, b, c] = *frame.first_chunk::<8>()?;
    let len = u32::from_be_bytes([0, a, b, c]) as usize;
    let header = frame.get(8..8 + len)?;
    if form == 1 {
        let (code, opaque) = (header.get(..2)?, header.get(5..)?.first_chunk()?);
        let success = code == [0, 0];
        return success.then(|| Glance { code: 0, opaque: i32::from_be_bytes(*opaque) });
    }
    if !header.starts_with(b"{\"code\":0,") {
        return None;
    }
    // From the end, as the fields before it may hold any text; by its rarest letter, to be quick.
    let mut rest = header;
    let after = loop {
        let letter = rest.iter().rposition(|byte| *byte == b'q')?;
        let start = letter.checked_sub(OPAQUE_Q)?;
        match header[start..].strip_prefix(OPAQUE) {
            Some(after) => break after,
            None => rest = &header[..letter],
        }
    };
    let mut opaque = 0i32;
    for byte in after.iter().take_while(|byte| byte.is_ascii_digit()) {
        opaque = opaque.checked_mul(10)?.checked_add(i32::from(byte - b'0'))?;
    }
    Some(Glance { code: 0, opaque })
}

#[cfg(test)]
mod tests {
    use protocol::frame::Encoding;
    use protocol::header::Empty;

    use super::*;

    #[test]
    fn a_glance_sees_what_a_decode_sees() {
        let mut refused = Command::request(14, &Empty {}).with_remark("full");
        refused.flag = 1;
        for reply in [Command::reply(&Empty {}), refused] {
            for encoding in [Encoding::Json, Encoding::Binary] {
                let mut frame = Vec::new();
                let code = reply.code;
                reply.clone().answering(1_234_567_890, encoding).encode(&mut frame);
                let seen = glance(&mut frame).unwrap();
                assert_eq!(seen, Glance { code, opaque: 1_234_567_890 });
            }
        }
    }
}
