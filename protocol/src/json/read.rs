//! The reader: a serde deserializer over bytes that forgives what fastjson forgives.

<<<<<<< HEAD
mod scalar;
mod scan;

use std::borrow::Cow;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
=======
use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
>>>>>>> nameserver
    Visitor,
};
use serde::forward_to_deserialize_any;

<<<<<<< HEAD
use self::scalar::Scalar;
use self::scan::{Failed, Reader, Result1};
=======
>>>>>>> nameserver
use super::{DEPTH_MAX, JsonError, MEMORY_PER_BYTE_MAX};

/// What a body may always ask for, however short it is.
const MEMORY_MIN: usize = 64 * 1024;

pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let mut reader = Reader {
        input: bytes,
        at: 0,
        depth: 0,
        memory_left: bytes.len().saturating_mul(MEMORY_PER_BYTE_MAX).saturating_add(MEMORY_MIN),
    };
    reader.whole().map_err(|Failed(what)| JsonError { what: what.into_owned(), at: reader.at })
}

<<<<<<< HEAD
impl Reader<'_> {
=======
/// An error on its way up; the place is where the reader stopped.
#[derive(Debug)]
pub(super) struct Failed(Cow<'static, str>);

type Result1<T> = Result<T, Failed>;

impl Failed {
    fn of<T>(what: &'static str) -> Result1<T> {
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

/// A value that is no object and no list, or the text of one where a string is wanted.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    Nested(&'a str),
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    depth: u32,
    memory_left: usize,
}

impl<'a> Reader<'a> {
>>>>>>> nameserver
    fn whole<T: DeserializeOwned>(&mut self) -> Result1<T> {
        match self.peek()? {
            None => return Failed::of("the text is empty"),
            Some(_) if self.null_ahead() => return Failed::of("null is not a body"),
            Some(_) => {}
        }
        let value = T::deserialize(&mut *self)?;
        match self.peek()? {
            None => Ok(value),
            Some(_) => Failed::of("there is more after the end"),
        }
    }

<<<<<<< HEAD
=======
    /// The next byte that is neither blank nor comment.
    fn peek(&mut self) -> Result1<Option<u8>> {
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

    fn expect(&mut self, byte: u8, otherwise: &'static str) -> Result1<()> {
        if self.peek()? != Some(byte) {
            return Failed::of(otherwise);
        }
        self.at += 1;
        Ok(())
    }

    fn enter(&mut self) -> Result1<()> {
        if self.depth == DEPTH_MAX {
            return Failed::of("nested too deeply");
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn leave(&mut self, close: u8) -> Result1<()> {
        self.depth -= 1;
        self.expect(close, "an object or list that is not closed")
    }

    fn charge(&mut self, bytes: usize) -> Result1<()> {
        match self.memory_left.checked_sub(bytes) {
            Some(left) => self.memory_left = left,
            None => return Failed::of("more values than a text of this size warrants"),
        }
        Ok(())
    }

    /// Whether the reader, standing at a value, stands at a null.
    fn null_ahead(&self) -> bool {
        let rest = &self.input[self.at..];
        rest.starts_with(b"null") && !rest.get(4).is_some_and(|&next| is_word(next))
    }

    /// Steps over a comma between two items; false at the end of the list or object.
    fn another(&mut self, first: &mut bool, close: u8) -> Result1<bool> {
        match self.peek()? {
            None => return Failed::of("the text ends too early"),
            Some(next) if next == close => return Ok(false),
            Some(_) if std::mem::take(first) => return Ok(true),
            Some(_) => self.expect(b',', "a comma is missing")?,
        }
        Ok(self.peek()? != Some(close))
    }

    fn scalar(&mut self) -> Result1<Scalar<'a>> {
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

    fn key(&mut self) -> Result1<Scalar<'a>> {
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
    fn skip(&mut self) -> Result1<()> {
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

    fn skip_key(&mut self) -> Result1<()> {
        self.key()?;
        self.expect(b':', "a colon is missing")
    }

>>>>>>> nameserver
    /// Hands an object to the visitor.
    fn object<'de, V: Visitor<'de>>(&mut self, visitor: V, counted: bool) -> Result1<V::Value> {
        match self.peek()? {
            Some(b'{') => {
                self.enter()?;
                let value = visitor.visit_map(Entries { reader: self, first: true, counted })?;
                self.leave(b'}')?;
                Ok(value)
            }
            _ => match self.scalar()? {
                Scalar::Null => empty_object(visitor),
                Scalar::Text(text) => self.object_in_text(&text, visitor, counted),
                _ => Failed::of("an object was expected"),
            },
        }
    }

    fn object_in_text<'de, V: Visitor<'de>>(
        &mut self,
        text: &str,
        visitor: V,
        counted: bool,
    ) -> Result1<V::Value> {
        if text.trim().is_empty() {
            return empty_object(visitor);
        }
        if !text.starts_with('{') {
            return Failed::of("an object was expected");
        }
        let mut inner = Reader {
            input: text.as_bytes(),
            at: 0,
            depth: self.depth + 1,
            memory_left: self.memory_left,
        };
        if inner.depth > DEPTH_MAX {
            return Failed::of("nested too deeply");
        }
        let value = inner.object(visitor, counted)?;
        self.memory_left = inner.memory_left;
        match inner.peek()? {
            None => Ok(value),
            Some(_) => Failed::of("an object in quotes with more after its end"),
        }
    }

    fn list<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result1<V::Value> {
        if self.peek()? == Some(b'[') {
            self.enter()?;
            let value = visitor.visit_seq(Elements { reader: self, first: true })?;
            self.leave(b']')?;
            return Ok(value);
        }
        match self.scalar()? {
            Scalar::Null => empty_list(visitor),
            Scalar::Text(text) if text.trim().is_empty() => empty_list(visitor),
            _ => Failed::of("a list was expected"),
        }
    }
}

fn empty_object<'de, V: Visitor<'de>>(visitor: V) -> Result1<V::Value> {
    visitor.visit_map(MapDeserializer::<_, Failed>::new(std::iter::empty::<((), ())>()))
}

fn empty_list<'de, V: Visitor<'de>>(visitor: V) -> Result1<V::Value> {
    visitor.visit_seq(SeqDeserializer::<_, Failed>::new(std::iter::empty::<()>()))
}

<<<<<<< HEAD
=======
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_' | b'$' | b'@')
}

fn utf8(bytes: &[u8]) -> Result1<&str> {
    std::str::from_utf8(bytes).or_else(|_| Failed::of("a string that is not UTF-8"))
}

impl<'a> Scalar<'a> {
    fn integer<T: TryFrom<i64>>(&self) -> Result1<T> {
        let value = match self {
            Self::Null => 0,
            Self::Bool(value) => i64::from(*value),
            Self::Number(text) => integer(text)?,
            Self::Text(text) if is_nothing(text) => 0,
            Self::Text(text) => integer(text)?,
            Self::Nested(_) => return Failed::of("a number was expected"),
        };
        T::try_from(value).or_else(|_| Failed::of("a number too large for its field"))
    }

    fn float(&self) -> Result1<f64> {
        match self {
            Self::Null => Ok(0.0),
            Self::Bool(value) => Ok(f64::from(u8::from(*value))),
            Self::Number(text) => float(text),
            Self::Text(text) if is_nothing(text) => Ok(0.0),
            Self::Text(text) => float(text),
            Self::Nested(_) => Failed::of("a number was expected"),
        }
    }

    fn bool(&self) -> Result1<bool> {
        match self {
            Self::Null => Ok(false),
            Self::Bool(value) => Ok(*value),
            Self::Number(text) => Ok(integer(text)? == 1),
            Self::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "y" | "t" => Ok(true),
                "false" | "0" | "n" | "f" | "" | "null" => Ok(false),
                _ => Failed::of("true or false was expected"),
            },
            Self::Nested(_) => Failed::of("true or false was expected"),
        }
    }

    fn text(self) -> Cow<'a, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Number(text) | Self::Nested(text) => Cow::Borrowed(text),
            Self::Text(text) => text,
        }
    }

    /// The variant's own spelling, for a name in any case or an ordinal.
    fn variant(self, variants: &'static [&'static str]) -> Result1<Cow<'a, str>> {
        let text = match self {
            Self::Number(text) => Cow::Borrowed(text),
            Self::Text(text) => text,
            _ => return Failed::of("a name was expected"),
        };
        if let Ok(ordinal) = text.parse::<usize>() {
            return match variants.get(ordinal) {
                Some(name) => Ok(Cow::Borrowed(name)),
                None => Failed::of("a number that stands for no name"),
            };
        }
        let known = variants.iter().find(|name| name.eq_ignore_ascii_case(&text));
        Ok(known.map_or(text, |name| Cow::Borrowed(*name)))
    }
}

fn is_nothing(text: &str) -> bool {
    text.is_empty() || text == "null"
}

fn integer(text: &str) -> Result1<i64> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    if text.trim_start_matches(['+', '-']).bytes().all(|byte| byte.is_ascii_digit()) {
        return Failed::of("a number too large for its field");
    }
    let value = float(text)?;
    // Beyond 2^53 a fraction's integer is a guess, and the fields that large are never written so.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.abs() <= EXACT_MAX {
        Ok(value as i64)
    } else {
        Failed::of("a number too large for its field")
    }
}

fn float(text: &str) -> Result1<f64> {
    text.parse().or_else(|_| Failed::of("a number was expected"))
}

>>>>>>> nameserver
/// What a value and a map's key have in common: asked for a type, they bend towards it.
macro_rules! scalars {
    ($($method:ident $visit:ident $type:ty),+ $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
            visitor.$visit(self.scalar()?.integer::<$type>()?)
        }
    )+};
    () => {
        scalars! {
            deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
            deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
            deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
            deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
        }

        fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
            visitor.visit_f64(self.scalar()?.float()?)
        }

        fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
            visitor.visit_f64(self.scalar()?.float()?)
        }

        fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
            visitor.visit_bool(self.scalar()?.bool()?)
        }

        fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
            match self.scalar()?.text() {
                Cow::Borrowed(text) => visitor.visit_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            }
        }

        fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
            self.deserialize_str(visitor)
        }

        fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
            self.deserialize_str(visitor)
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _name: &'static str,
            variants: &'static [&'static str],
            visitor: V,
        ) -> Result1<V::Value> {
            visitor.visit_enum(self.scalar()?.variant(variants)?.into_deserializer())
        }

        fn deserialize_newtype_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            visitor: V,
        ) -> Result1<V::Value> {
            visitor.visit_newtype_struct(self)
        }
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'_> {
    type Error = Failed;

    scalars!();
    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit unit_struct }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        match self.peek()? {
            Some(b'{') => return self.object(visitor, true),
            Some(b'[') => return self.list(visitor),
            _ => {}
        }
        match self.scalar()? {
            Scalar::Null => visitor.visit_unit(),
            Scalar::Bool(value) => visitor.visit_bool(value),
            Scalar::Text(text) => visitor.visit_str(&text),
            Scalar::Number(text) => match text.parse() {
                Ok(value) => visitor.visit_i64(value),
<<<<<<< HEAD
                Err(_) => visitor.visit_f64(Scalar::Number(text).float()?),
=======
                Err(_) => visitor.visit_f64(float(text)?),
>>>>>>> nameserver
            },
            Scalar::Nested(_) => Failed::of("an object or list out of place"),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        if self.peek()?.is_some() && self.null_ahead() {
            self.skip()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result1<V::Value> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result1<V::Value> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        self.object(visitor, true)
    }

    // A struct's fields are part of the element or entry that holds it, which was charged for.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result1<V::Value> {
        self.object(visitor, false)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        self.skip()?;
        visitor.visit_unit()
    }
}

/// A map's key: may stand without quotes, and may be an object.
struct Key<'r, 'a>(&'r mut Reader<'a>);

impl<'a> Key<'_, 'a> {
    fn scalar(self) -> Result1<Scalar<'a>> {
        self.0.key()
    }
}

impl<'de> Deserializer<'de> for Key<'_, '_> {
    type Error = Failed;

    scalars!();
    forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct seq tuple tuple_struct option ignored_any
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result1<V::Value> {
        self.0.object(visitor, true)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result1<V::Value> {
        self.0.object(visitor, false)
    }
}

/// The entries of an object, less those whose value is null.
struct Entries<'r, 'a> {
    reader: &'r mut Reader<'a>,
    first: bool,
    counted: bool,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Failed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result1<Option<K::Value>> {
        while self.reader.another(&mut self.first, b'}')? {
            let start = self.reader.at;
            self.reader.skip_key()?;
            if self.reader.peek()?.is_some() && self.reader.null_ahead() {
                self.reader.skip()?;
                continue;
            }
            self.reader.at = start;
            if self.counted {
                self.reader.charge(size_of::<K::Value>())?;
            }
            return seed.deserialize(Key(self.reader)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result1<V::Value> {
        self.reader.expect(b':', "a colon is missing")?;
        if self.counted {
            self.reader.charge(size_of::<V::Value>())?;
        }
        seed.deserialize(&mut *self.reader)
    }
}

/// The elements of a list, less those that are null.
struct Elements<'r, 'a> {
    reader: &'r mut Reader<'a>,
    first: bool,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Failed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result1<Option<T::Value>> {
        while self.reader.another(&mut self.first, b']')? {
            if self.reader.null_ahead() {
                self.reader.skip()?;
                continue;
            }
            self.reader.charge(size_of::<T::Value>())?;
            return seed.deserialize(&mut *self.reader).map(Some);
        }
        Ok(None)
    }
}
