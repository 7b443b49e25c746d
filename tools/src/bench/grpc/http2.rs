//! The few frames of HTTP/2 that gRPC calls take, without a task or an allocation for each call.
//!
//! Header blocks of answers are not looked into: an answer without a message is a failure, and what a
//! message says is in it. So nothing of the peer's header compression has to be followed.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// What a peer takes in one frame unless it says otherwise.
const FRAME_BYTES_MAX: usize = 16_384;
const WINDOW_DEFAULT: i64 = 65_535;
/// What the peer may send ahead: more than any load has in flight.
const OWN_WINDOW: u32 = 1 << 30;
/// Bytes of a gRPC message's head: whether it is compressed, and its length.
const MESSAGE_HEAD: usize = 5;
const READ_BYTES: usize = 256 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that is longer is a defect of the peer's.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Index of the first header of the dynamic table.
const STATIC_HEADERS: usize = 61;

mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const ACK: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
}

mod setting {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// Something that came for a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// One message, without its head.
    Message(&'a [u8]),
    /// No more will come: the call ended, in whatever way.
    End,
}

/// One connection.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Bytes to be written.
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    filled: usize,
    next_stream: u32,
    /// What the peer takes on the connection, and on a new stream.
    window: i64,
    stream_window: i64,
    streams_max: usize,
    open: usize,
    /// Requests that wait for room in the window.
    waiting: VecDeque<(u32, Vec<u8>, Vec<u8>, bool)>,
    /// Messages of which only a part has come.
    partial: HashMap<u32, Vec<u8>>,
    received_since_update: u32,
    headers: Headers,
}

/// Header fields the peer has been told before.
#[derive(Debug, Default)]
struct Headers {
    told: Vec<(String, String)>,
    /// Where the fields of calls of a kind are in `told`.
    kinds: Vec<(&'static str, Vec<usize>)>,
}

impl Headers {
    /// Appends the block of these fields, the same for all calls of a kind: one byte each once they were told.
    fn encode(&mut self, kind: &'static str, fields: &[(&str, &str)], block: &mut Vec<u8>) {
        if let Some((_, places)) = self.kinds.iter().find(|(known, _)| *known == kind) {
            for at in places {
                integer(block, 0x80, 7, STATIC_HEADERS + self.told.len() - at);
            }
            return;
        }
        let mut places = Vec::new();
        for (name, value) in fields {
            let known = self.told.iter().position(|(n, v)| n == name && v == value);
            if let Some(at) = known {
                integer(block, 0x80, 7, STATIC_HEADERS + self.told.len() - at);
                places.push(at);
                continue;
            }
            block.push(0x40);
            text(block, name);
            text(block, value);
            places.push(self.told.len());
            self.told.push(((*name).to_owned(), (*value).to_owned()));
        }
        self.kinds.push((kind, places));
    }
}

fn integer(out: &mut Vec<u8>, flags: u8, bits: u32, mut value: usize) {
    let max = (1usize << bits) - 1;
    if value < max {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | max as u8);
    value -= max;
    while value >= 128 {
        out.push((value % 128) as u8 | 0x80);
        value /= 128;
    }
    out.push(value as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn frame_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

impl Connection {
    /// Connects and waits for the peer's settings; blocking from here on until polled.
    pub(super) fn connect(address: &str) -> Result<Self> {
        use std::net::ToSocketAddrs;
        let resolved = address.to_socket_addrs()?.next().context("the address is not known")?;
        let stream = TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        let mut out = PREFACE.to_vec();
        let settings = [
            (setting::HEADER_TABLE_SIZE, 0),
            (2, 0), // no pushes
            (setting::INITIAL_WINDOW_SIZE, OWN_WINDOW),
        ];
        frame_head(&mut out, settings.len() * 6, frame::SETTINGS, 0, 0);
        for (id, value) in settings {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        frame_head(&mut out, 4, frame::WINDOW_UPDATE, 0, 0);
        out.extend_from_slice(&OWN_WINDOW.to_be_bytes());
        let mut connection = Self {
            stream,
            out,
            written: 0,
            input: vec![0; READ_BYTES],
            filled: 0,
            next_stream: 1,
            window: WINDOW_DEFAULT,
            stream_window: WINDOW_DEFAULT,
            streams_max: usize::MAX,
            open: 0,
            waiting: VecDeque::new(),
            partial: HashMap::new(),
            received_since_update: 0,
            headers: Headers::default(),
        };
        connection.flush()?;
        // The acknowledgement of the peer's settings is what is first written after them.
        while connection.out.is_empty() {
            ensure!(connection.read(|_, _| {})?, "{address} ended the connection");
        }
        connection.flush()?;
        Ok(connection)
    }

    /// Begins a call of a kind, whose fields never differ on a connection; `message` is the request without its head. With `more`, the call stays open for
    /// [`Connection::say`].
    pub(super) fn call(
        &mut self,
        kind: &'static str,
        fields: &[(&str, &str)],
        message: &[u8],
        more: bool,
    ) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let fits =
            self.waiting.is_empty() && self.fits(message.len()) && self.open < self.streams_max;
        self.open += 1;
        if fits {
            let mut block = Vec::with_capacity(64);
            self.headers.encode(kind, fields, &mut block);
            self.begin(stream, &block, message, more);
        } else {
            // Blocks must be written in the order in which they are made: waiting ones tell nothing new.
            let mut block = Vec::new();
            for (name, value) in fields {
                block.push(0);
                text(&mut block, name);
                text(&mut block, value);
            }
            self.waiting.push_back((stream, block, message.to_vec(), more));
        }
        stream
    }

    fn fits(&self, message: usize) -> bool {
        let length = (message + MESSAGE_HEAD) as i64;
        length <= self.window && length <= self.stream_window
    }

    fn begin(&mut self, stream: u32, block: &[u8], message: &[u8], more: bool) {
        frame_head(&mut self.out, block.len(), frame::HEADERS, frame::END_HEADERS, stream);
        self.out.extend_from_slice(block);
        self.say(stream, message, more);
    }

    /// One more message of an open call.
    pub(super) fn say(&mut self, stream: u32, message: &[u8], more: bool) {
        let mut head = [0; MESSAGE_HEAD];
        head[1..].copy_from_slice(&(message.len() as u32).to_be_bytes());
        self.window -= (message.len() + MESSAGE_HEAD) as i64;
        let end = |last: bool| if last && !more { frame::END_STREAM } else { 0 };
        let first = message.len().min(FRAME_BYTES_MAX - MESSAGE_HEAD);
        let (now, mut rest) = message.split_at(first);
        frame_head(&mut self.out, first + MESSAGE_HEAD, frame::DATA, end(rest.is_empty()), stream);
        self.out.extend_from_slice(&head);
        self.out.extend_from_slice(now);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(FRAME_BYTES_MAX));
            frame_head(&mut self.out, now.len(), frame::DATA, end(later.is_empty()), stream);
            self.out.extend_from_slice(now);
            rest = later;
        }
    }

    /// Writes what there is; `false` if the socket takes no more for now.
    pub(super) fn flush(&mut self) -> Result<bool> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the connection takes nothing more"),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads once and hands out what came; `false` when the peer has ended the connection.
    pub(super) fn read(&mut self, mut on: impl FnMut(u32, Event<'_>)) -> Result<bool> {
        if self.filled == self.input.len() {
            ensure!(self.input.len() <= MESSAGE_BYTES_MAX, "a frame is too long");
            self.input.resize(self.input.len() * 2, 0);
        }
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Ok(false),
            Ok(count) => self.filled += count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        }
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some(head) = input[at..self.filled].first_chunk::<FRAME_HEAD>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
            let end = at + FRAME_HEAD + length;
            if end > self.filled {
                break;
            }
            let payload = &input[at + FRAME_HEAD..end];
            self.frame(kind, flags, stream, payload, &mut on)?;
            at = end;
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        self.begin_waiting();
        Ok(true)
    }

    fn begin_waiting(&mut self) {
        while let Some((_, _, message, _)) = self.waiting.front()
            && self.fits(message.len())
            && self.open - self.waiting.len() < self.streams_max
        {
            let Some((stream, block, message, more)) = self.waiting.pop_front() else { return };
            self.begin(stream, &block, &message, more);
        }
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<()> {
        let ended = flags & frame::END_STREAM != 0;
        match kind {
            frame::DATA => {
                self.received_since_update += payload.len() as u32;
                if self.received_since_update > OWN_WINDOW / 2 {
                    frame_head(&mut self.out, 4, frame::WINDOW_UPDATE, 0, 0);
                    self.out.extend_from_slice(&self.received_since_update.to_be_bytes());
                    self.received_since_update = 0;
                }
                let data = if flags & frame::PADDED == 0 { payload } else { unpadded(payload)? };
                self.data(stream, data, on)?;
                if ended {
                    self.end(stream, on);
                }
            }
            frame::HEADERS if ended => self.end(stream, on),
            frame::RST_STREAM => self.end(stream, on),
            frame::SETTINGS if flags & frame::ACK == 0 => self.settings(payload),
            frame::PING if flags & frame::ACK == 0 => {
                frame_head(&mut self.out, payload.len(), frame::PING, frame::ACK, 0);
                self.out.extend_from_slice(payload);
            }
            frame::GOAWAY => {
                let reason = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
                bail!("the server goes away: {reason}");
            }
            frame::WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                self.window += i64::from(more);
            }
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match id {
                setting::INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
                setting::MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                _ => {}
            }
        }
        frame_head(&mut self.out, 0, frame::SETTINGS, frame::ACK, 0);
    }

    /// Hands out the whole messages in what came on a stream.
    fn data(
        &mut self,
        stream: u32,
        data: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<()> {
        let Some(mut kept) = self.partial.remove(&stream) else {
            let rest = messages(stream, data, on)?;
            if !rest.is_empty() {
                self.partial.insert(stream, rest.to_vec());
            }
            return Ok(());
        };
        kept.extend_from_slice(data);
        ensure!(kept.len() <= MESSAGE_BYTES_MAX, "a message is too long");
        let rest = messages(stream, &kept, on)?.len();
        if rest > 0 {
            kept.drain(..kept.len() - rest);
            self.partial.insert(stream, kept);
        }
        Ok(())
    }

    fn end(&mut self, stream: u32, on: &mut impl FnMut(u32, Event<'_>)) {
        self.open = self.open.saturating_sub(1);
        self.partial.remove(&stream);
        on(stream, Event::End);
    }
}

/// Hands out whole messages; what is left is the beginning of another.
fn messages<'a>(
    stream: u32,
    mut data: &'a [u8],
    on: &mut impl FnMut(u32, Event<'_>),
) -> Result<&'a [u8]> {
    while let Some((head, rest)) = data.split_first_chunk::<MESSAGE_HEAD>() {
        ensure!(head[0] == 0, "an answer is compressed");
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some((message, rest)) = rest.split_at_checked(length) else { break };
        on(stream, Event::Message(message));
        data = rest;
    }
    Ok(data)
}

fn unpadded(payload: &[u8]) -> Result<&[u8]> {
    let (padding, rest) = payload.split_first().context("a padded frame is empty")?;
    let length = rest.len().checked_sub(usize::from(*padding));
    let length = length.context("a frame has more padding than bytes")?;
    Ok(&rest[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_are_told_once() {
        let mut headers = Headers::default();
        let fields = [(":method", "POST"), (":path", "/a"), ("te", "trailers")];
        let (mut first, mut second) = (Vec::new(), Vec::new());
        headers.encode("a", &fields, &mut first);
        headers.encode("a", &fields, &mut second);
        let mut other = Vec::new();
        headers.encode("b", &fields[..1], &mut other);
        assert!(first.starts_with(b"\x40\x07:method\x04POST\x40"));
        // The last one told has the lowest index, 62.
        assert_eq!(second, [0x80 | 64, 0x80 | 63, 0x80 | 62]);
        assert_eq!(other, [0x80 | 64], "what is common to kinds is told once");
    }

    #[test]
    fn long_numbers_take_more_bytes() {
        let encoded = |bits, value| {
            let mut out = Vec::new();
            integer(&mut out, 0, bits, value);
            out
        };
        // The examples of RFC 7541, C.1.
        assert_eq!(encoded(5, 10), [10]);
        assert_eq!(encoded(5, 1337), [31, 154, 10]);
        assert_eq!(encoded(8, 42), [42]);
    }

    #[test]
    fn messages_are_put_together_from_pieces() {
        let mut seen = Vec::new();
        let mut on = |stream, event: Event<'_>| {
            if let Event::Message(message) = event {
                seen.push((stream, message.to_vec()));
            }
        };
        let bytes = b"\0\0\0\0\x02ab\0\0\0\0\0\0\0\0\0\x03xy";
        let rest = messages(7, bytes, &mut on).unwrap();
        assert_eq!(rest, b"\0\0\0\0\x03xy");
        assert_eq!(seen, [(7, b"ab".to_vec()), (7, Vec::new())]);
        assert!(messages(7, b"\x01\0\0\0\0", &mut |_, _| {}).is_err());
        assert_eq!(unpadded(b"\x02abcd").unwrap(), b"ab");
        assert!(unpadded(b"\x09ab").is_err() && unpadded(b"").is_err());
    }
}
