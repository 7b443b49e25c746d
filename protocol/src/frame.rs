//! A command, as bytes: a length word, a header in JSON or binary form, a body.
//!
//! Decoding borrows the frame (escapes are undone in place); encoding appends to a buffer.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::fields::{Fields, Header, Pair, Sink};
use crate::language::{Language, version};
use crate::reply::{Refusal, ReplyCode};

mod binary;
mod json;

/// What a peer may send as one frame, its length word not counted.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The form of a command's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    #[default]
    Json,
    Binary,
}

/// One request or reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<'a> {
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<Cow<'a, str>>,
    pub fields: Fields<'a>,
    pub body: Cow<'a, [u8]>,
    pub encoding: Encoding,
}

/// Everything of a command but its fields and body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<&'a str>,
    pub encoding: Encoding,
}

const REPLY: i32 = 1;
const ONEWAY: i32 = 2;

/// Bytes that are not a command; the connection they came on cannot be trusted any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLong(u64),
    #[error("a frame of {0} bytes cannot hold a header")]
    TooShort(usize),
    #[error("the header claims {claimed} bytes, the frame has {present}")]
    HeaderOverrun { claimed: usize, present: usize },
    #[error("header form {0} is neither JSON (0) nor binary (1)")]
    UnknownEncoding(u8),
    #[error("the JSON header is malformed at byte {0}")]
    BadJson(usize),
    #[error("the binary header ends early")]
    BadBinary,
}

/// The length of the first frame in `buffer`, its length word included, once that word is there.
///
/// A length over the limit is an error before anything is allocated for it.
pub fn frame_len(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(word) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_be_bytes(*word) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(len as u64));
    }
    Ok(Some(4 + len))
}

impl<'a> Command<'a> {
    /// Reads one whole frame, length word included.
    pub fn decode(frame: &'a mut [u8]) -> Result<Self, FrameError> {
        let present = frame.len();
        let Some((prefix, rest)) = frame.split_first_chunk_mut::<8>() else {
            return Err(FrameError::TooShort(present));
        };
        let [_, _, _, _, form, len @ ..] = *prefix;
        let claimed = u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize;
        if claimed > rest.len() {
            return Err(FrameError::HeaderOverrun { claimed, present: rest.len() });
        }
        let (header, body) = rest.split_at_mut(claimed);
        let mut command = match form {
            0 => json::decode(header)?,
            1 => binary::decode(header)?,
            other => return Err(FrameError::UnknownEncoding(other)),
        };
        command.body = Cow::Borrowed(body);
        Ok(command)
    }

    /// A request of ours.
    pub fn request<'h>(code: i32, header: &impl Header<'h>) -> Command<'static> {
        Command {
            code,
            language: Language::Java,
            version: version::OURS,
            opaque: 0,
            flag: 0,
            remark: None,
            fields: Fields::of(header),
            body: Cow::Borrowed(&[]),
            encoding: Encoding::Json,
        }
    }

    /// A successful reply of ours; [`Command::answering`] addresses it.
    pub fn reply<'h>(header: &impl Header<'h>) -> Command<'static> {
        Self::request(ReplyCode::Success.to_wire(), header)
    }

    /// A refusal as a reply.
    pub fn refusal(refusal: Refusal) -> Command<'static> {
        let mut reply = Self::request(refusal.code.to_wire(), &crate::header::Empty {});
        reply.remark = Some(refusal.remark);
        reply
    }

    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Cow::Owned(body.into());
        self
    }

    pub fn with_remark(mut self, remark: impl Into<Cow<'a, str>>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// Addresses this reply to the request with `opaque`.
    pub fn answering(mut self, opaque: i32, encoding: Encoding) -> Self {
        self.opaque = opaque;
        self.flag |= REPLY;
        self.encoding = encoding;
        self
    }

    pub fn is_reply(&self) -> bool {
        self.flag & REPLY != 0
    }

    pub fn is_oneway(&self) -> bool {
        self.flag & ONEWAY != 0
    }

    pub fn set_oneway(&mut self) {
        self.flag |= ONEWAY;
    }

    pub fn head(&self) -> Head<'_> {
        Head {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flag: self.flag,
            remark: self.remark.as_deref(),
            encoding: self.encoding,
        }
    }

    pub fn into_owned(self) -> Command<'static> {
        Command {
            remark: self.remark.map(|remark| Cow::Owned(remark.into_owned())),
            fields: self.fields.into_owned(),
            body: Cow::Owned(self.body.into_owned()),
            ..Command {
                code: self.code,
                language: self.language,
                version: self.version,
                opaque: self.opaque,
                flag: self.flag,
                remark: None,
                fields: Fields::default(),
                body: Cow::Borrowed(&[]),
                encoding: self.encoding,
            }
        }
    }

    /// Appends this command as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(
            out,
            &self.head(),
            |sink| {
                sink.keep_empty = self.fields.was_sent();
                for (name, value) in self.fields.iter() {
                    sink.put(&String::from_utf8_lossy(name), value);
                }
            },
            self.body.len(),
        );
        out.extend_from_slice(&self.body);
    }
}

impl Head<'_> {
    /// The head of our reply to the request with `opaque`.
    pub const fn reply(code: ReplyCode, opaque: i32, encoding: Encoding) -> Self {
        Self {
            code: code.to_wire(),
            language: Language::Java,
            version: version::OURS,
            opaque,
            flag: REPLY,
            remark: None,
            encoding,
        }
    }
}

/// Takes the fields of a frame under construction.
#[derive(Debug)]
pub struct FieldWriter<'o> {
    out: &'o mut Vec<u8>,
    encoding: Encoding,
    count: usize,
    /// An empty list is written too.
    keep_empty: bool,
}

impl Sink for FieldWriter<'_> {
    #[inline]
    fn put(&mut self, name: &str, value: &[u8]) {
        match self.encoding {
            Encoding::Json => json::put_field(self.out, self.count == 0, name, value),
            Encoding::Binary => binary::put_field(self.out, name, value),
        }
        self.count += 1;
    }
}

/// Appends a frame up to its body; `body_len` bytes of body must follow.
pub fn encode(
    out: &mut Vec<u8>,
    head: &Head<'_>,
    fields: impl FnOnce(&mut FieldWriter<'_>),
    body_len: usize,
) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    match head.encoding {
        Encoding::Json => json::encode(out, head, fields),
        Encoding::Binary => binary::encode(out, head, fields),
    }
    let header_len = out.len() - start - 8;
    let frame_len = u32::try_from(4 + header_len + body_len).expect("frames are below 4 GiB");
    let form = match head.encoding {
        Encoding::Json => 0,
        Encoding::Binary => 1 << 24,
    };
    out[start..start + 4].copy_from_slice(&frame_len.to_be_bytes());
    let marked = u32::try_from(header_len).expect("headers are below 16 MiB") | form;
    out[start + 4..start + 8].copy_from_slice(&marked.to_be_bytes());
}

/// A command with nothing in it yet, for the decoders to fill.
fn blank<'a>(encoding: Encoding) -> Command<'a> {
    Command {
        code: 0,
        language: Language::Unknown,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        fields: Fields::default(),
        body: Cow::Borrowed(&[]),
        encoding,
    }
}

type Pairs = SmallVec<[Pair; 20]>;

#[cfg(test)]
mod tests;
