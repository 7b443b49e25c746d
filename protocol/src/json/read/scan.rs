//! Stepping through the text: blanks, words, quotes, and how deep and how large it may become.

use std::borrow::Cow;
use std::fmt;

use serde::de;

use super::scalar::Scalar;
use crate::json::DEPTH_MAX;

/// An error on its way up; the place is where the reader stopped.
#[derive(Debug)]
pub(in crate::json) struct Failed(pub(super) Cow<'static, str>);

pub(super) type Result1<T> = Result<T, Failed>;

impl Failed {
    pub(super) fn of<T>(what: &'static str) -> Result1<T> {
        Err(Self(Cow::Borrowed(what)))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl de::Error for Failed {
    fn custom<T: fmt::Display>(what: T) -> Self {
        // Serde repeats the input in its sentences; a client need not get all of it back.
        const SENTENCE_MAX: usize = 200;
        let mut what = what.to_string();
        if let Some((end, _)) = what.char_indices().nth(SENTENCE_MAX) {
            what.truncate(end);
            what.push('…');
        }
        Self(Cow::Owned(what))
    }
}

/// A text and how far it has been read.
pub(super) struct Reader<'a> {
    pub(super) input: &'a [u8],
    pub(super) at: usize,
    pub(super) depth: u32,
    pub(super) memory_left: usize,
}

impl<'a> Reader<'a> {
    /// The next byte that is neither blank nor comment.
    pub(super) fn peek(&mut self) -> Result1<Option<u8>> {
        loop {
            match self.input.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(b'/') => self.comment()?,
                next => return Ok(next.copied()),
            }
        }
    }

    fn comment(&mut self) -> Result1<()> {
        let rest = &self.input[self.at..];
        let length = match rest.get(1) {
            Some(b'/') => rest.iter().position(|&byte| byte == b'\n').map(|n| n + 1),
            Some(b'*') => rest[2..].windows(2).position(|end| end == b"*/").map(|n| n + 4),
            _ => return Failed::of("a / that begins no comment"),
        };
        self.at += length.unwrap_or(rest.len());
        Ok(())
    }

    pub(super) fn expect(&mut self, byte: u8, otherwise: &'static str) -> Result1<()> {
        if self.peek()? != Some(byte) {
            return Failed::of(otherwise);
        }
        self.at += 1;
        Ok(())
    }

    pub(super) fn enter(&mut self) -> Result1<()> {
        if self.depth == DEPTH_MAX {
            return Failed::of("nested too deeply");
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self, close: u8) -> Result1<()> {
        self.depth -= 1;
        self.expect(close, "an object or list that is not closed")
    }

    pub(super) fn charge(&mut self, bytes: usize) -> Result1<()> {
        match self.memory_left.checked_sub(bytes) {
            Some(left) => self.memory_left = left,
            None => return Failed::of("more values than a text of this size warrants"),
        }
        Ok(())
    }

    /// Whether the reader, standing at a value, stands at a null.
    pub(super) fn null_ahead(&self) -> bool {
        let rest = &self.input[self.at..];
        rest.starts_with(b"null") && !rest.get(4).is_some_and(|&next| is_word(next))
    }

    /// Steps over a comma between two items; false at the end of the list or object.
    pub(super) fn another(&mut self, first: &mut bool, close: u8) -> Result1<bool> {
        match self.peek()? {
            None => return Failed::of("the text ends too early"),
            Some(next) if next == close => return Ok(false),
            Some(_) if std::mem::take(first) => return Ok(true),
            Some(_) => self.expect(b',', "a comma is missing")?,
        }
        Ok(self.peek()? != Some(close))
    }

    pub(super) fn scalar(&mut self) -> Result1<Scalar<'a>> {
        Ok(match self.peek()? {
            None => return Failed::of("the text ends where a value should be"),
            Some(b'"' | b'\'') => Scalar::Text(self.quoted()?),
            Some(b'{' | b'[') => {
                let start = self.at;
                self.skip()?;
                Scalar::Nested(utf8(&self.input[start..self.at])?)
            }
            Some(b'-' | b'+' | b'.' | b'0'..=b'9') => Scalar::Number(self.word()?),
            Some(_) => match self.word()? {
                "null" => Scalar::Null,
                "true" => Scalar::Bool(true),
                "false" => Scalar::Bool(false),
                word @ "NaN" => Scalar::Number(word),
                _ => return Failed::of("neither a value nor quoted"),
            },
        })
    }

    /// A run of letters, digits and what numbers are made of.
    fn word(&mut self) -> Result1<&'a str> {
        let rest = &self.input[self.at..];
        let length = rest.iter().take_while(|&&byte| is_word(byte)).count();
        if length == 0 {
            return Failed::of("an unexpected character");
        }
        self.at += length;
        utf8(&rest[..length])
    }

    pub(super) fn key(&mut self) -> Result1<Scalar<'a>> {
        match self.peek()? {
            Some(b'"' | b'\'' | b'{' | b'[') => self.scalar(),
            _ => Ok(Scalar::Text(Cow::Borrowed(self.word()?))),
        }
    }

    fn quoted(&mut self) -> Result1<Cow<'a, str>> {
        let quote = self.input[self.at];
        self.at += 1;
        let start = self.at;
        let ends = |byte: u8| byte == quote || byte == b'\\';
        let mut text = Vec::new();
        loop {
            let rest = &self.input[self.at..];
            let Some(length) = rest.iter().position(|&byte| ends(byte)) else {
                return Failed::of("a string that is not closed");
            };
            self.at += length + 1;
            if rest[length] == quote {
                if text.is_empty() && self.at - 1 - start == length {
                    return utf8(&rest[..length]).map(Cow::Borrowed);
                }
                text.extend_from_slice(&rest[..length]);
                return match String::from_utf8(text) {
                    Ok(text) => Ok(Cow::Owned(text)),
                    Err(_) => Failed::of("a string that is not UTF-8"),
                };
            }
            text.extend_from_slice(&rest[..length]);
            let character = self.escape()?;
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result1<char> {
        let Some(&byte) = self.input.get(self.at) else {
            return Failed::of("a string that is not closed");
        };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\'' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'v' => '\u{b}',
            b'0'..=b'7' => char::from(byte - b'0'),
            b'x' => char::from(u8::try_from(self.hex(2)?).expect("two digits fit a byte")),
            b'u' => return self.unicode(),
            _ => return Failed::of("an unknown escape in a string"),
        })
    }

    fn unicode(&mut self) -> Result1<char> {
        let high = self.hex(4)?;
        if !(0xd800..0xdc00).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or('?'));
        }
        let before_low = self.at;
        if self.input[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.hex(4)?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).expect("a whole pair is a character"));
            }
        }
        self.at = before_low;
        Ok('?')
    }

    fn hex(&mut self, digits: usize) -> Result1<u32> {
        let Some(text) = self.input.get(self.at..self.at + digits) else {
            return Failed::of("a string that is not closed");
        };
        self.at += digits;
        text.iter().try_fold(0, |value, &digit| match char::from(digit).to_digit(16) {
            Some(digit) => Ok(value * 16 + digit),
            None => Failed::of("an escape that is not hexadecimal"),
        })
    }

    /// Steps over any value.
    pub(super) fn skip(&mut self) -> Result1<()> {
        let (open, close) = match self.peek()? {
            Some(b'{') => (b'{', b'}'),
            Some(b'[') => (b'[', b']'),
            _ => return self.scalar().map(drop),
        };
        self.enter()?;
        let mut first = true;
        while self.another(&mut first, close)? {
            if open == b'{' {
                self.skip_key()?;
            }
            self.skip()?;
        }
        self.leave(close)
    }

    pub(super) fn skip_key(&mut self) -> Result1<()> {
        self.key()?;
        self.expect(b':', "a colon is missing")
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_' | b'$' | b'@')
}

fn utf8(bytes: &[u8]) -> Result1<&str> {
    std::str::from_utf8(bytes).or_else(|_| Failed::of("a string that is not UTF-8"))
}
