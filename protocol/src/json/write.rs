//! The writer: a serde serializer that puts down exactly what stock puts down.

use std::fmt;

use serde::ser::{
    self, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple,
    SerializeTupleStruct, Serializer,
};

use super::Dialect;

pub(super) fn write<T: Serialize + ?Sized>(value: &T, dialect: Dialect) -> Result<Vec<u8>, Failed> {
    let mut writer = Writer { out: Vec::with_capacity(128), dialect, level: 0 };
    value.serialize(&mut writer)?;
    Ok(writer.out)
}

/// A double as `Double.toString` prints it, which is how stock puts figures into text and JSON:
/// `1.0`, `0.001`, `9.0E-4`, `1.0E7`.
pub fn java_double(value: f64) -> String {
    let plain = (1e-3..1e7).contains(&value.abs()) || value == 0.0;
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else if plain {
        format!("{value:?}")
    } else {
        let text = format!("{value:E}");
        match text.split_once('E') {
            Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
            _ => text,
        }
    }
}

/// Whether anything but null was written.
type Wrote = bool;

#[derive(Debug)]
pub(super) struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

struct Writer {
    out: Vec<u8>,
    dialect: Dialect,
    level: usize,
}

impl Writer {
    fn integer(&mut self, value: impl itoa::Integer) -> Result<Wrote, Failed> {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        Ok(true)
    }

    fn text(&mut self, text: &str) {
        self.out.push(b'"');
        for character in text.chars() {
            match character {
                '"' => self.out.extend_from_slice(b"\\\""),
                '\\' => self.out.extend_from_slice(b"\\\\"),
                '\n' => self.out.extend_from_slice(b"\\n"),
                '\r' => self.out.extend_from_slice(b"\\r"),
                '\t' => self.out.extend_from_slice(b"\\t"),
                '\u{8}' => self.out.extend_from_slice(b"\\b"),
                '\u{c}' => self.out.extend_from_slice(b"\\f"),
                '\0'..' ' => self.escape(character),
                ' '..='~' => self.out.push(character as u8),
                _ if self.dialect == Dialect::Standard => self.escape(character),
                _ => self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.out.push(b'"');
    }

    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            self.out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
        }
    }

    fn open(&mut self, bracket: u8, close: u8) -> Nested<'_> {
        self.out.push(bracket);
        self.level += 1;
        Nested { writer: self, close, empty: true, item_start: 0 }
    }

    fn new_line(&mut self) {
        if self.dialect == Dialect::File {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + self.level, b'\t');
        }
    }

    /// A map's key: text as it is; anything else bare, or in quotes where only JSON will do.
    fn key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), Failed> {
        let start = self.out.len();
        let dialect = self.dialect;
        if dialect == Dialect::File {
            self.dialect = Dialect::Fastjson;
        }
        key.serialize(&mut *self)?;
        self.dialect = dialect;
        if dialect == Dialect::Standard && self.out.get(start) != Some(&b'"') {
            let bare = self.out.split_off(start);
            self.text(std::str::from_utf8(&bare).expect("only text was written"));
        }
        Ok(())
    }
}

fn unsupported<T>() -> Result<T, Failed> {
    Err(ser::Error::custom("no body holds raw bytes or variants with values"))
}

macro_rules! integers {
    ($($method:ident $type:ty),+ $(,)?) => {$(
        fn $method(self, value: $type) -> Result<Wrote, Failed> {
            self.integer(value)
        }
    )+};
}

impl<'w> Serializer for &'w mut Writer {
    type Ok = Wrote;
    type Error = Failed;
    type SerializeSeq = Nested<'w>;
    type SerializeTuple = Nested<'w>;
    type SerializeTupleStruct = Nested<'w>;
    type SerializeTupleVariant = Impossible<Wrote, Failed>;
    type SerializeMap = Nested<'w>;
    type SerializeStruct = Nested<'w>;
    type SerializeStructVariant = Impossible<Wrote, Failed>;

    integers! {
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64,
    }

    fn serialize_bool(self, value: bool) -> Result<Wrote, Failed> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(true)
    }

    fn serialize_f32(self, value: f32) -> Result<Wrote, Failed> {
        self.serialize_f64(f64::from(value))
    }

    // A figure that is no number is a null that stays: the field is there, its value is not.
    fn serialize_f64(self, value: f64) -> Result<Wrote, Failed> {
        if value.is_finite() {
            self.out.extend_from_slice(java_double(value).as_bytes());
        } else {
            self.out.extend_from_slice(b"null");
        }
        Ok(true)
    }

    fn serialize_char(self, value: char) -> Result<Wrote, Failed> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<Wrote, Failed> {
        self.text(value);
        Ok(true)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<Wrote, Failed> {
        unsupported()
    }

    fn serialize_none(self) -> Result<Wrote, Failed> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Wrote, Failed> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Wrote, Failed> {
        self.out.extend_from_slice(b"null");
        Ok(false)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Wrote, Failed> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Wrote, Failed> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Wrote, Failed> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<Wrote, Failed> {
        unsupported()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Nested<'w>, Failed> {
        Ok(self.open(b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Nested<'w>, Failed> {
        Ok(self.open(b'[', b']'))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Nested<'w>, Failed> {
        Ok(self.open(b'[', b']'))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleVariant, Failed> {
        unsupported()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Nested<'w>, Failed> {
        Ok(self.open(b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Nested<'w>, Failed> {
        Ok(self.open(b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant, Failed> {
        unsupported()
    }
}

/// An object or a list that is being written.
pub(super) struct Nested<'w> {
    writer: &'w mut Writer,
    close: u8,
    empty: bool,
    item_start: usize,
}

impl Nested<'_> {
    fn begin_item(&mut self) {
        self.item_start = self.writer.out.len();
        if !self.empty {
            self.writer.out.push(b',');
        }
        self.writer.new_line();
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.begin_item();
        value.serialize(&mut *self.writer)?;
        self.empty = false;
        Ok(())
    }

    /// The value after a key; both are taken back when it is null.
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.writer.out.push(b':');
        if value.serialize(&mut *self.writer)? {
            self.empty = false;
        } else {
            self.writer.out.truncate(self.item_start);
        }
        Ok(())
    }

    fn finish(self) -> Result<Wrote, Failed> {
        self.writer.level -= 1;
        if !self.empty {
            self.writer.new_line();
        }
        self.writer.out.push(self.close);
        Ok(true)
    }
}

macro_rules! lists {
    ($($trait:ident $method:ident),+ $(,)?) => {$(
        impl $trait for Nested<'_> {
            type Ok = Wrote;
            type Error = Failed;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
                self.element(value)
            }

            fn end(self) -> Result<Wrote, Failed> {
                self.finish()
            }
        }
    )+};
}

lists! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
}

impl SerializeMap for Nested<'_> {
    type Ok = Wrote;
    type Error = Failed;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failed> {
        self.begin_item();
        self.writer.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.value(value)
    }

    fn end(self) -> Result<Wrote, Failed> {
        self.finish()
    }
}

impl SerializeStruct for Nested<'_> {
    type Ok = Wrote;
    type Error = Failed;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        self.begin_item();
        self.writer.text(key);
        self.value(value)
    }

    fn end(self) -> Result<Wrote, Failed> {
        self.finish()
    }
}
