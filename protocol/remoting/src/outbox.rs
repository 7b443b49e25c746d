//! Frames on their way out. Heads share one buffer; large bodies stay where they are.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;

use bytes::Bytes;
use protocol::fields::Header;
use protocol::frame::{self, Command, Encoding, FieldWriter, Head};
use protocol::reply::{Refusal, ReplyCode};

/// Bodies up to this size are copied behind their head; a larger one is written from its place.
const COPY_BYTES_MAX: usize = 2048;

/// Encoded frames.
#[derive(Debug, Default)]
pub struct Chunk {
    text: Vec<u8>,
    /// A body, and how much of `text` precedes it.
    bodies: Vec<(usize, Bytes)>,
    body_bytes: usize,
}

/// An answer that comes later.
pub type Later = Pin<Box<dyn Future<Output = Chunk> + Send>>;

/// An answer that comes later, and how many bytes are held for it.
pub(crate) type Held = (usize, Later);

/// What has to happen before more is read.
pub(crate) type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a session leaves for its connection to write, now or later.
#[derive(Default)]
pub struct Outbox {
    pub now: Chunk,
    /// Since the last read of this connection, nothing of any other was served.
    pub alone: bool,
    pub(crate) later: Vec<Held>,
    /// The size of the request that is being served, which its answer may keep until it is there.
    pub(crate) serving_bytes: usize,
    pub(crate) pause: Option<Pause>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("now", &self.now).field("later", &self.later.len()).finish()
    }
}

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    pub opaque: i32,
    pub encoding: Encoding,
    /// Nobody waits: whatever is answered is dropped.
    pub oneway: bool,
}

impl ReplyTo {
    pub fn new(request: &Command<'_>) -> Self {
        Self { opaque: request.opaque, encoding: request.encoding, oneway: request.is_oneway() }
    }
}

impl Outbox {
    /// Writes what `answer` gives once it is done; the connection goes on meanwhile.
    pub fn later(&mut self, answer: impl Future<Output = Chunk> + Send + 'static) {
        self.later.push((self.serving_bytes, Box::pin(answer)));
    }

    /// Reads nothing more from this connection until `until` is done; then `flush` is called again.
    pub fn pause(&mut self, until: impl Future<Output = ()> + Send + 'static) {
        self.pause = Some(Box::pin(until));
    }

    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }
}

impl Chunk {
    /// Appends a frame whose fields are written by `fields`, with the body in parts.
    pub fn frame(
        &mut self,
        head: &Head<'_>,
        fields: impl FnOnce(&mut FieldWriter<'_>),
        body: &[Bytes],
    ) {
        frame::encode(&mut self.text, head, fields, body.iter().map(Bytes::len).sum());
        for part in body {
            self.body(part);
        }
    }

    fn body(&mut self, part: &Bytes) {
        if part.len() <= COPY_BYTES_MAX {
            self.text.extend_from_slice(part);
        } else {
            self.bodies.push((self.text.len(), part.clone()));
            self.body_bytes += part.len();
        }
    }

    /// Appends a whole command.
    pub fn command(&mut self, command: &Command<'_>) {
        command.encode(&mut self.text);
    }

    /// Appends a successful reply.
    pub fn reply<'h>(&mut self, to: ReplyTo, header: &impl Header<'h>, body: &[Bytes]) {
        self.reply_with_code(to, ReplyCode::Success, header, body);
    }

    /// Appends a reply that is neither plain success nor a refusal.
    pub fn reply_with_code<'h>(
        &mut self,
        to: ReplyTo,
        code: ReplyCode,
        header: &impl Header<'h>,
        body: &[Bytes],
    ) {
        if !to.oneway {
            let head = Head::reply(code, to.opaque, to.encoding);
            self.frame(&head, |sink| header.write(sink), body);
        }
    }

    /// Appends a refusal.
    pub fn refuse(&mut self, to: ReplyTo, refusal: &Refusal) {
        if !to.oneway {
            let mut head = Head::reply(refusal.code, to.opaque, to.encoding);
            head.remark = Some(shown(&refusal.remark));
            self.frame(&head, |_| {}, &[]);
        }
    }

    /// Appends a reply put together as a command.
    pub fn answer(&mut self, to: ReplyTo, reply: Command<'_>) {
        if !to.oneway {
            reply.answering(to.opaque, to.encoding).encode(&mut self.text);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Moves what `other` holds behind what is here.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let before = self.text.len();
        self.text.extend_from_slice(&other.text);
        self.bodies.extend(other.bodies.into_iter().map(|(at, body)| (before + at, body)));
        self.body_bytes += other.body_bytes;
    }

    /// The frames as they would be written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        if self.bodies.is_empty() {
            return self.text;
        }
        let mut bytes = Vec::with_capacity(self.len());
        let mut text_at = 0;
        for (at, body) in &self.bodies {
            bytes.extend_from_slice(&self.text[text_at..*at]);
            bytes.extend_from_slice(body);
            text_at = *at;
        }
        bytes.extend_from_slice(&self.text[text_at..]);
        bytes
    }

    pub fn len(&self) -> usize {
        self.text.len() + self.body_bytes
    }

    /// The bytes from `written` on, in order, as many parts as `slices` takes.
    pub(crate) fn slices<'a>(&'a self, mut written: usize, slices: &mut Vec<IoSlice<'a>>) {
        const PARTS_MAX: usize = 64;
        let mut push = |part: &'a [u8]| {
            if written >= part.len() {
                written -= part.len();
            } else {
                slices.push(IoSlice::new(&part[written..]));
                written = 0;
            }
            slices.len() < PARTS_MAX
        };
        let mut text_at = 0;
        for (at, body) in &self.bodies {
            if !(push(&self.text[text_at..*at]) && push(body)) {
                return;
            }
            text_at = *at;
        }
        push(&self.text[text_at..]);
    }

    /// Empties this for reuse; gives memory back that one large batch took.
    pub(crate) fn clear(&mut self) {
        const KEEP_BYTES_MAX: usize = 256 * 1024;
        self.text.clear();
        self.bodies.clear();
        self.body_bytes = 0;
        self.text.shrink_to(KEEP_BYTES_MAX);
    }
}

/// A remark may repeat what a client sent, which may be of any length.
fn shown(remark: &str) -> &str {
    const REMARK_BYTES_MAX: usize = 4096;
    let mut end = remark.len().min(REMARK_BYTES_MAX);
    while !remark.is_char_boundary(end) {
        end -= 1;
    }
    &remark[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(chunk: &Chunk, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < chunk.len() {
            let mut slices = Vec::new();
            chunk.slices(all.len(), &mut slices);
            let flat: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            all.extend_from_slice(&flat[..step.min(flat.len())]);
        }
        all
    }

    #[test]
    fn a_long_remark_is_cut_between_characters() {
        assert_eq!(shown("short"), "short");
        let long = format!("x{}", "ü".repeat(4096));
        assert_eq!(shown(&long).len(), 4095);
    }

    #[test]
    fn bodies_are_spliced_in_where_they_belong_however_little_is_written_at_once() {
        let large = Bytes::from(vec![b'x'; COPY_BYTES_MAX + 1]);
        let to = ReplyTo { opaque: 7, encoding: Encoding::Binary, oneway: false };
        let mut one = Chunk::default();
        one.reply(to, &protocol::header::Empty {}, &[Bytes::from_static(b"ab"), large.clone()]);
        let mut chunk = Chunk::default();
        chunk.refuse(to, &Refusal::unsupported(9));
        chunk.append(one);
        chunk.reply(to, &protocol::header::Empty {}, &[large]);
        let whole = written(&chunk, usize::MAX);
        for step in [1, 7, 1000] {
            assert_eq!(written(&chunk, step), whole);
        }
        let mut rest = whole.as_slice();
        let mut bodies = Vec::new();
        while let Ok(Some(len)) = frame::frame_len(rest) {
            let mut frame = rest[..len].to_vec();
            bodies.push(Command::decode(&mut frame).unwrap().body.len());
            rest = &rest[len..];
        }
        assert_eq!(bodies, [0, COPY_BYTES_MAX + 3, COPY_BYTES_MAX + 1]);
    }
}
