//! The reader: a serde deserializer over bytes that forgives what fastjson forgives.

mod scalar;
mod scan;

use std::borrow::Cow;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use self::scalar::Scalar;
use self::scan::{Failed, Reader, Result1};
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

impl Reader<'_> {
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
                Err(_) => visitor.visit_f64(Scalar::Number(text).float()?),
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
