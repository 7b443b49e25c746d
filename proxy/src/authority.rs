//! Makes the `:authority` of clients that dial several endpoints at once one that HTTP/2 servers take.
//!
//! gRPC's C core, and with it the Python and C++ clients, puts the whole list there: `10.0.0.1:8081,10.0.0.2:8081`.
//! That is no authority, and `h2` resets every stream that has it. Nobody here looks at it, so it is changed on its
//! way in, byte for byte: what is behind it in the connection, and the tables both ends keep of headers, stay as long
//! as they were.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const FRAME_HEAD_BYTES: usize = 9;
const NAME: &[u8] = b":authority";
/// Its place among the headers that are known beforehand.
const NAME_INDEX: u32 = 1;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// The bytes that a client sends, with its `:authority` changed where that is necessary.
#[derive(Debug)]
pub(crate) struct OneAuthority<S> {
    stream: S,
    /// Until the first headers have been seen, and for good if those were not as they should be.
    reading: Option<Reading>,
}

impl<S> OneAuthority<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, reading: Some(Reading::default()) }
    }
}

/// How far the bytes of a connection have been understood.
#[derive(Debug, Default)]
struct Reading {
    preface: usize,
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    /// Of the frame, behind its head.
    left: usize,
    /// In front of the headers in this frame, and behind them.
    skip: usize,
    padding: usize,
    awaits_padding: bool,
    field: Field,
    changed: bool,
    /// A whole block of headers was seen.
    seen: bool,
}

/// Where in a header the next byte belongs.
#[derive(Debug, Default)]
enum Field {
    #[default]
    Start,
    /// Of a number that did not fit into the bits of its first byte.
    Number(Number),
    /// The first byte of a text.
    Length(Part),
    Text {
        part: Part,
        left: u32,
        plain: bool,
        /// Bytes of it that were looked at.
        at: usize,
    },
}

#[derive(Debug)]
struct Number {
    value: u32,
    shift: u32,
    then: Then,
}

/// What a number says.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Nothing that is followed by text.
    Whole,
    NameIndex,
    Length {
        part: Part,
        plain: bool,
    },
}

/// What a text is.
#[derive(Debug, Clone, Copy)]
enum Part {
    Name { is_ours: bool },
    Value(Value),
}

/// Of an authority: a list begins with its first comma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Other,
    Authority { in_list: bool },
}

impl Reading {
    /// Looks at what came next.
    fn read(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if self.preface < PREFACE_BYTES {
                let step = (PREFACE_BYTES - self.preface).min(bytes.len() - at);
                self.preface += step;
                at += step;
            } else if self.head_bytes < FRAME_HEAD_BYTES {
                self.head[self.head_bytes] = bytes[at];
                self.head_bytes += 1;
                at += 1;
                if self.head_bytes == FRAME_HEAD_BYTES {
                    self.begin_frame();
                }
            } else {
                at += self.frame(&mut bytes[at..]);
            }
            if self.head_bytes == FRAME_HEAD_BYTES && self.left == 0 {
                self.end_frame();
            }
        }
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        (self.padding, self.skip, self.awaits_padding) = (0, 0, false);
        if kind == HEADERS {
            self.field = Field::Start;
            self.awaits_padding = flags & PADDED != 0;
            self.skip = if flags & PRIORITY != 0 { 5 } else { 0 };
        } else if kind != CONTINUATION {
            self.skip = self.left;
        }
    }

    /// Takes some bytes of the frame, and says how many.
    fn frame(&mut self, bytes: &mut [u8]) -> usize {
        let took = if self.awaits_padding {
            self.awaits_padding = false;
            self.padding = usize::from(bytes[0]);
            1
        } else if self.skip > 0 {
            let skipped = self.skip.min(bytes.len()).min(self.left);
            self.skip -= skipped;
            skipped
        } else if self.left <= self.padding {
            self.left.min(bytes.len())
        } else {
            let headers = (self.left - self.padding).min(bytes.len());
            for byte in &mut bytes[..headers] {
                self.header(byte);
            }
            headers
        };
        self.left -= took;
        took
    }

    fn end_frame(&mut self) {
        let [_, _, _, kind, flags, ..] = self.head;
        self.seen |= matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
        self.head_bytes = 0;
    }

    /// One byte of a block of headers, as HPACK (RFC 7541) puts it.
    fn header(&mut self, byte: &mut u8) {
        self.field = match std::mem::take(&mut self.field) {
            Field::Start => match *byte {
                0x80.. => number(*byte, 7, Then::Whole),
                0x40.. => number(*byte, 6, Then::NameIndex),
                0x20.. => number(*byte, 5, Then::Whole),
                _ => number(*byte, 4, Then::NameIndex),
            },
            Field::Number(Number { value, shift, then }) => {
                let more = u32::from(*byte & 0x7f).checked_shl(shift).unwrap_or(u32::MAX);
                let value = value.saturating_add(more);
                if *byte & 0x80 != 0 {
                    Field::Number(Number { value, shift: shift.saturating_add(7), then })
                } else {
                    known(value, then)
                }
            }
            Field::Length(part) => {
                number(*byte, 7, Then::Length { part, plain: *byte & 0x80 == 0 })
            }
            Field::Text { part, left, plain, at } => {
                let part = self.text(byte, part, plain, at);
                text(part, left - 1, plain, at + 1)
            }
        };
    }

    /// One byte of a text; what is known of the text then.
    fn text(&mut self, byte: &mut u8, part: Part, plain: bool, at: usize) -> Part {
        match part {
            Part::Name { is_ours } => {
                Part::Name { is_ours: is_ours && plain && NAME.get(at) == Some(byte) }
            }
            Part::Value(Value::Authority { in_list }) if plain => {
                let in_list = in_list || *byte == b',';
                if in_list && !byte.is_ascii_alphanumeric() && *byte != b'.' {
                    *byte = b'-';
                    self.changed = true;
                }
                Part::Value(Value::Authority { in_list })
            }
            Part::Value(value) => Part::Value(value),
        }
    }
}

/// A number whose first byte has so many bits for it.
fn number(byte: u8, bits: u32, then: Then) -> Field {
    let max = (1_u8 << bits) - 1;
    match byte & max {
        value if value == max => Field::Number(Number { value: value.into(), shift: 0, then }),
        value => known(value.into(), then),
    }
}

fn known(value: u32, then: Then) -> Field {
    match then {
        Then::Whole => Field::Start,
        Then::NameIndex if value == 0 => Field::Length(Part::Name { is_ours: true }),
        Then::NameIndex => Field::Length(value_of(value == NAME_INDEX)),
        Then::Length { part, plain } => text(part, value, plain, 0),
    }
}

fn value_of(is_ours: bool) -> Part {
    Part::Value(if is_ours { Value::Authority { in_list: false } } else { Value::Other })
}

/// The rest of a text, or what follows it.
fn text(part: Part, left: u32, plain: bool, at: usize) -> Field {
    match part {
        _ if left > 0 => Field::Text { part, left, plain, at },
        Part::Name { is_ours } => Field::Length(value_of(is_ours && at == NAME.len())),
        Part::Value(_) => Field::Start,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for OneAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        if let Some(reading) = &mut self.reading {
            reading.read(&mut into.filled_mut()[before..]);
            // Who began well goes on so: a client dials one list of endpoints.
            if reading.seen && !reading.changed {
                self.reading = None;
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for OneAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn text(text: &str) -> Vec<u8> {
        let mut bytes = vec![u8::try_from(text.len()).unwrap()];
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// A connection up to its first call, with an authority whose name is told by its place or in full.
    fn connection(authority: &str, by_index: bool, padded: bool) -> Vec<u8> {
        let mut block = vec![0x83, 0x40];
        block.extend([text("x-before"), text(&"a,b:c".repeat(20))].concat());
        block.extend(if by_index { vec![0x41] } else { [vec![0x40], text(":authority")].concat() });
        block.extend([text(authority), vec![0x86, 0x04], text("/p,q:r:s")].concat());
        let (flags, payload) = match padded {
            true => (PADDED | PRIORITY, [vec![3], vec![0; 5], block, vec![9; 3]].concat()),
            false => (0, block),
        };
        let mut bytes = vec![b'p'; PREFACE_BYTES];
        bytes.extend(frame(4, 0, &[0; 6]));
        bytes.extend(frame(HEADERS, flags, &payload));
        bytes.extend(frame(CONTINUATION, END_HEADERS, &[&[0x41][..], &text("h,h:1")].concat()));
        bytes.extend(frame(0, 1, b"\x41\x05a,b:c,"));
        bytes
    }

    #[test]
    fn a_list_becomes_one_name_of_the_same_length_however_it_is_cut() {
        for (by_index, padded) in [(true, false), (false, false), (true, true), (false, true)] {
            let sent = connection("10.0.0.1:8081,[::1]:8082", by_index, padded);
            let mut wanted = connection("10.0.0.1:8081----1--8082", by_index, padded);
            // The list in the second block is of an authority, too.
            let end = wanted.windows(5).position(|five| five == b"h,h:1").unwrap();
            wanted[end..end + 5].copy_from_slice(b"h-h-1");
            for step in [1, 2, 7, 1000] {
                let (mut reading, mut bytes) = (Reading::default(), sent.clone());
                bytes.chunks_mut(step).for_each(|part| reading.read(part));
                let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
                assert_eq!(shown(&bytes), shown(&wanted));
                assert!(reading.seen && reading.changed);
            }
        }
    }

    #[test]
    fn other_authorities_and_anything_else_stay_as_they_are() {
        for authority in ["proxy.example:8081", "[::1]:8081", "127.0.0.1", "IPAuthority", ""] {
            let sent = connection(authority, false, false);
            let sent = &sent[..sent.windows(5).position(|five| five == b"h,h:1").unwrap() - 11];
            let (mut reading, mut bytes) = (Reading::default(), sent.to_vec());
            reading.read(&mut bytes);
            assert_eq!(bytes, sent);
            assert!(!reading.changed);
        }
    }

    #[test]
    fn no_bytes_upset_it() {
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..64)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state.to_be_bytes()[0]
                })
                .collect();
            // Mostly frames of headers, so that their content is read.
            bytes[..5].copy_from_slice(&[0, 0, 50, HEADERS, state.to_be_bytes()[1]]);
            let mut reading = Reading { preface: PREFACE_BYTES, ..Reading::default() };
            reading.read(&mut bytes);
        }
    }
}
