//! The JSON header: read in one pass, escapes undone in place, numbers taken where text is expected.

use std::borrow::Cow;

use super::{Command, Encoding, FieldWriter, FrameError, Head, Pairs, blank};
use crate::fields::{Fields, Pair, Value};
use crate::language::Language;

/// How deep an unknown member may nest before the header is refused.
const DEPTH_MAX: usize = 32;

pub(super) fn decode(header: &mut [u8]) -> Result<Command<'_>, FrameError> {
    let mut parser = Parser { text: header, at: 0 };
    let mut seen = Seen::default();
    parser.object(|parser, key| match parser.slice(key) {
        b"code" => parser.number().map(|value| seen.code = value),
        b"version" => parser.number().map(|value| seen.version = value),
        b"opaque" => parser.number().map(|value| seen.opaque = value),
        b"flag" => parser.number().map(|value| seen.flag = value),
        b"language" => parser.scalar().map(|value| seen.language = value),
        b"remark" => parser.scalar().map(|value| seen.remark = value),
        b"extFields" => parser.fields(&mut seen.pairs).map(|sent| seen.sent = sent),
        _ => parser.skip(DEPTH_MAX),
    })?;
    parser.blanks();
    if parser.at != parser.text.len() {
        return Err(parser.error());
    }
    let header: &[u8] = header;
    let slice = |(at, len): (usize, usize)| &header[at..at + len];
    let mut command = blank(Encoding::Json);
    command.code = seen.code;
    command.version = seen.version;
    command.opaque = seen.opaque;
    command.flag = seen.flag;
    command.language = match seen.language.map(slice) {
        // C++ clients send the ordinal.
        Some(text) => match i32::read("language", Some(text)) {
            Ok(ordinal) => Language::from_ordinal(u8::try_from(ordinal).unwrap_or(u8::MAX)),
            Err(_) => Language::from_name(text),
        },
        None => Language::Unknown,
    };
    command.remark = seen.remark.map(slice).map(String::from_utf8_lossy);
    command.fields = Fields::from_parts(header, seen.pairs, seen.sent);
    Ok(command)
}

type Span = (usize, usize);

#[derive(Default)]
struct Seen {
    code: i32,
    version: i32,
    opaque: i32,
    flag: i32,
    language: Option<Span>,
    remark: Option<Span>,
    pairs: Pairs,
    sent: bool,
}

struct Parser<'a> {
    text: &'a mut [u8],
    at: usize,
}

impl Parser<'_> {
    fn error(&self) -> FrameError {
        FrameError::BadJson(self.at)
    }

    fn slice(&self, (at, len): Span) -> &[u8] {
        &self.text[at..at + len]
    }

    fn peek(&mut self) -> Result<u8, FrameError> {
        self.blanks();
        self.text.get(self.at).copied().ok_or_else(|| self.error())
    }

    fn blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), FrameError> {
        if self.peek()? != byte {
            return Err(self.error());
        }
        self.at += 1;
        Ok(())
    }

    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Span) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.peek()?;
            let key = self.string()?;
            self.expect(b':')?;
            self.peek()?;
            member(self, key)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error()),
            }
        }
    }

    /// Whether there is a list, and not null in its place.
    fn fields(&mut self, pairs: &mut Pairs) -> Result<bool, FrameError> {
        if self.text[self.at..].starts_with(b"null") {
            self.at += 4;
            return Ok(false);
        }
        self.object(|parser, key| {
            if let Some(value) = parser.scalar()? {
                // A header is below 16 MiB, so that its positions fit 32 bits.
                let narrow = |(at, len): Span| (at as u32, len as u32);
                pairs.push(Pair { key: narrow(key), value: narrow(value) });
            }
            Ok(())
        })?;
        Ok(true)
    }

    /// A string, number or boolean as text; `None` for null.
    fn scalar(&mut self) -> Result<Option<Span>, FrameError> {
        if self.peek()? == b'"' {
            return self.string().map(Some);
        }
        let start = self.at;
        while matches!(
            self.text.get(self.at),
            Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'+' | b'.')
        ) {
            self.at += 1;
        }
        match &self.text[start..self.at] {
            b"" => Err(self.error()),
            b"null" => Ok(None),
            word => Ok(Some((start, word.len()))),
        }
    }

    fn number(&mut self) -> Result<i32, FrameError> {
        match self.scalar()? {
            None => Ok(0),
            Some(span) => i32::read("", Some(self.slice(span))).map_err(|_| self.error()),
        }
    }

    /// A string, unescaped in place (what is unescaped is never longer).
    fn string(&mut self) -> Result<Span, FrameError> {
        self.expect(b'"')?;
        let start = self.at;
        let Some(plain) = self.text[start..].iter().position(|byte| matches!(byte, b'"' | b'\\'))
        else {
            return Err(self.error());
        };
        self.at += plain;
        let mut end = self.at;
        loop {
            match self.text.get(self.at).copied() {
                None => return Err(self.error()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok((start, end - start));
                }
                Some(b'\\') => {
                    let mut utf8 = [0; 4];
                    let unescaped = self.escape()?.encode_utf8(&mut utf8).as_bytes();
                    self.text[end..end + unescaped.len()].copy_from_slice(unescaped);
                    end += unescaped.len();
                }
                Some(byte) => {
                    self.text[end] = byte;
                    end += 1;
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, FrameError> {
        let letter = self.text.get(self.at + 1).copied().ok_or_else(|| self.error())?;
        self.at += 2;
        Ok(match letter {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'v' => '\u{b}',
            b'"' | b'\\' | b'/' | b'\'' => char::from(letter),
            b'u' => {
                let first = self.hex()?;
                let low_follows = self.text[self.at..].starts_with(b"\\u");
                if (0xD800..0xDC00).contains(&first) && low_follows {
                    self.at += 2;
                    let second = self.hex()?;
                    char::decode_utf16([first, second])
                        .next()
                        .and_then(Result::ok)
                        .ok_or_else(|| self.error())?
                } else {
                    char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
            }
            _ => return Err(self.error()),
        })
    }

    fn hex(&mut self) -> Result<u16, FrameError> {
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| self.error())?;
        let mut value = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or_else(|| self.error())?;
            value = value << 4 | digit as u16;
        }
        self.at += 4;
        Ok(value)
    }

    /// Passes over a value of any kind.
    fn skip(&mut self, depth: usize) -> Result<(), FrameError> {
        if depth == 0 {
            return Err(self.error());
        }
        match self.peek()? {
            b'{' => self.object(|parser, _| parser.skip(depth - 1)),
            b'[' => {
                self.at += 1;
                if self.peek()? == b']' {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.skip(depth - 1)?;
                    match self.peek()? {
                        b',' => self.at += 1,
                        b']' => {
                            self.at += 1;
                            return Ok(());
                        }
                        _ => return Err(self.error()),
                    }
                }
            }
            _ => self.scalar().map(drop),
        }
    }
}

/// Members in the alphabetical order in which Java writes them.
pub(super) fn encode(
    out: &mut Vec<u8>,
    head: &Head<'_>,
    fields: impl FnOnce(&mut FieldWriter<'_>),
) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"{\"code\":");
    out.extend_from_slice(digits.format(head.code).as_bytes());
    let before = out.len();
    out.extend_from_slice(b",\"extFields\":{");
    let mut writer = FieldWriter { out, encoding: Encoding::Json, count: 0, keep_empty: false };
    fields(&mut writer);
    if writer.count == 0 && !writer.keep_empty {
        out.truncate(before);
    } else {
        out.push(b'}');
    }
    out.extend_from_slice(b",\"flag\":");
    out.extend_from_slice(digits.format(head.flag).as_bytes());
    out.extend_from_slice(b",\"language\":\"");
    out.extend_from_slice(head.language.name().as_bytes());
    out.extend_from_slice(b"\",\"opaque\":");
    out.extend_from_slice(digits.format(head.opaque).as_bytes());
    if let Some(remark) = head.remark {
        out.extend_from_slice(b",\"remark\":");
        put_string(out, remark.as_bytes());
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    out.extend_from_slice(digits.format(head.version).as_bytes());
    out.push(b'}');
}

pub(super) fn put_field(out: &mut Vec<u8>, first: bool, name: &str, value: &[u8]) {
    if !first {
        out.push(b',');
    }
    put_string(out, name.as_bytes());
    out.push(b':');
    put_string(out, value);
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    // A field may hold bytes that are not text; JSON may not.
    let text = match std::str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(text),
    };
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            0x20.. => continue,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => b'u',
        };
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'0', b'0', high, low]);
        }
        plain = at + 1;
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}
