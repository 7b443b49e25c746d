//! The binary header: fixed numbers, then length-prefixed text.

use std::borrow::Cow;

use super::{Command, Encoding, FieldWriter, FrameError, Head, Pairs, blank};
use crate::fields::{Fields, Pair};
use crate::language::Language;

/// Codes that do not fit the header's 16 bits travel cut to them; these get their value back.
const CUT_CODES: [i32; 7] = [200_050, 200_051, 200_052, 200_053, 200_054, 200_055, 200_151];

pub(super) fn decode(header: &[u8]) -> Result<Command<'_>, FrameError> {
    let mut reader = Reader { header, at: 0 };
    let mut command = blank(Encoding::Binary);
    command.code = i32::from(i16::from_be_bytes(reader.array()?));
    if let Some(code) = CUT_CODES.iter().find(|code| (*code & 0xFFFF) == command.code) {
        command.code = *code;
    }
    command.language = Language::from_ordinal(u8::from_be_bytes(reader.array()?));
    command.version = i32::from(i16::from_be_bytes(reader.array()?));
    command.opaque = i32::from_be_bytes(reader.array()?);
    command.flag = i32::from_be_bytes(reader.array()?);
    let (at, len) = reader.text_32()?;
    if len > 0 {
        let remark = String::from_utf8_lossy(&header[at..at + len]);
        command.remark = Some(Cow::Owned(remark.into_owned()));
    }
    let (start, len) = reader.text_32()?;
    let mut fields = Reader { header: &header[..start + len], at: start };
    let mut pairs = Pairs::new();
    while fields.at < start + len {
        let key = fields.text_16()?;
        let value = fields.text_32()?;
        // A header is below 16 MiB, so that its positions fit 32 bits.
        let narrow = |(at, len): (usize, usize)| (at as u32, len as u32);
        pairs.push(Pair { key: narrow(key), value: narrow(value) });
    }
    command.fields = Fields::from_parts(header, pairs, true);
    Ok(command)
}

struct Reader<'a> {
    header: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let bytes = self.header.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        self.at += N;
        bytes.copied().ok_or(FrameError::BadBinary)
    }

    fn text_16(&mut self) -> Result<(usize, usize), FrameError> {
        let len = i16::from_be_bytes(self.array()?);
        self.text(len.into())
    }

    fn text_32(&mut self) -> Result<(usize, usize), FrameError> {
        let len = i32::from_be_bytes(self.array()?);
        self.text(len)
    }

    fn text(&mut self, len: i32) -> Result<(usize, usize), FrameError> {
        let len = usize::try_from(len).map_err(|_| FrameError::BadBinary)?;
        let at = self.at;
        if len > self.header.len().saturating_sub(at) {
            return Err(FrameError::BadBinary);
        }
        self.at += len;
        Ok((at, len))
    }
}

pub(super) fn encode(
    out: &mut Vec<u8>,
    head: &Head<'_>,
    fields: impl FnOnce(&mut FieldWriter<'_>),
) {
    // The format has 16 bits for code and version; what is over is cut, as every peer expects.
    out.extend_from_slice(&(head.code as i16).to_be_bytes());
    out.push(head.language.ordinal());
    out.extend_from_slice(&(head.version as i16).to_be_bytes());
    out.extend_from_slice(&head.opaque.to_be_bytes());
    out.extend_from_slice(&head.flag.to_be_bytes());
    let remark = head.remark.unwrap_or_default();
    out.extend_from_slice(&length(remark.len()).to_be_bytes());
    out.extend_from_slice(remark.as_bytes());
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fields(&mut FieldWriter { out, encoding: Encoding::Binary, count: 0, keep_empty: true });
    let len = length(out.len() - at - 4);
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

pub(super) fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let name = &name.as_bytes()[..name.len().min(i16::MAX as usize)];
    out.extend_from_slice(&(name.len() as i16).to_be_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(&length(value.len()).to_be_bytes());
    out.extend_from_slice(value);
}

fn length(len: usize) -> i32 {
    i32::try_from(len).expect("headers are below 16 MiB")
}
