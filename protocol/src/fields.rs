//! Header fields: the flat list of text pairs that every command carries, and
//! [`header!`](crate::header!), which declares a struct over them.
//!
//! A decoded list borrows the frame it came from; nothing is copied until someone wants to keep it.

use std::borrow::Cow;

use smallvec::SmallVec;

/// The `extFields` of a command, in wire order.
#[derive(Clone, Default)]
pub struct Fields<'a> {
    text: Cow<'a, [u8]>,
    pairs: SmallVec<[Pair; 20]>,
    /// The list was sent, though nothing may be in it.
    sent: bool,
}

/// Where one key and its value lie in the text.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pair {
    pub(crate) key: (u32, u32),
    pub(crate) value: (u32, u32),
}

/// A struct carried by [`Fields`]; `'f` is how long it may borrow from them.
pub trait Header<'f>: Sized {
    fn read(fields: &'f Fields<'_>) -> Result<Self, FieldError>;
    fn write(&self, sink: &mut impl Sink);
}

/// Something that takes fields one by one: a list, or a frame under construction.
pub trait Sink {
    fn put(&mut self, name: &str, value: &[u8]);
}

/// A header that does not fit the fields it is read from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    #[error("the field `{0}` cannot be `{1}`")]
    Unreadable(&'static str, String),
}

impl<'a> Fields<'a> {
    pub(crate) fn from_parts(text: &'a [u8], pairs: SmallVec<[Pair; 20]>, sent: bool) -> Self {
        Self { text: Cow::Borrowed(text), pairs, sent }
    }

    /// The pairs as they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|pair| (self.slice(pair.key), self.slice(pair.value)))
    }

    /// The value of `name`, if it was sent and is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.iter().find(|(key, _)| *key == name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Whether there was a list at all: in JSON an empty one and none are not the same bytes.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// Reads a `T`, ignoring the fields it does not name.
    pub fn read<'f, T: Header<'f>>(&'f self) -> Result<T, FieldError> {
        T::read(self)
    }

    /// A copy that owns its text.
    pub fn into_owned(self) -> Fields<'static> {
        Fields { text: Cow::Owned(self.text.into_owned()), pairs: self.pairs, sent: self.sent }
    }

    fn slice(&self, (start, len): (u32, u32)) -> &[u8] {
        &self.text[start as usize..][..len as usize]
    }
}

impl Fields<'static> {
    /// The fields of one header.
    pub fn of<'h>(header: &impl Header<'h>) -> Self {
        let mut fields = Self::default();
        header.write(&mut fields);
        fields
    }

    /// Adds one pair.
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.put(name, value.as_ref().as_bytes());
        self
    }
}

impl Sink for Fields<'_> {
    fn put(&mut self, name: &str, value: &[u8]) {
        let text = self.text.to_mut();
        let start = u32::try_from(text.len()).expect("headers are below 16 MiB");
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(value);
        let (name, value) = (name.len() as u32, value.len() as u32);
        self.pairs.push(Pair { key: (start, name), value: (start + name, value) });
    }
}

impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields<'_> {}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(
                self.iter().map(|(k, v)| (String::from_utf8_lossy(k), String::from_utf8_lossy(v))),
            )
            .finish()
    }
}

/// A value that one field can hold.
pub trait Value<'f>: Sized {
    fn read(name: &'static str, text: Option<&'f [u8]>) -> Result<Self, FieldError>;
    /// Puts nothing when there is nothing to say.
    fn write(&self, name: &str, sink: &mut impl Sink);
}

fn unreadable(name: &'static str, text: &[u8]) -> FieldError {
    let shown = &text[..text.len().min(64)];
    FieldError::Unreadable(name, String::from_utf8_lossy(shown).into_owned())
}

impl<'f> Value<'f> for &'f str {
    fn read(name: &'static str, text: Option<&'f [u8]>) -> Result<Self, FieldError> {
        let text = text.ok_or(FieldError::Missing(name))?;
        std::str::from_utf8(text).map_err(|_| unreadable(name, text))
    }
    fn write(&self, name: &str, sink: &mut impl Sink) {
        sink.put(name, self.as_bytes());
    }
}

impl<'f> Value<'f> for String {
    fn read(name: &'static str, text: Option<&'f [u8]>) -> Result<Self, FieldError> {
        <&str>::read(name, text).map(str::to_owned)
    }
    fn write(&self, name: &str, sink: &mut impl Sink) {
        sink.put(name, self.as_bytes());
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl<'f> Value<'f> for $ty {
            fn read(name: &'static str, text: Option<&'f [u8]>) -> Result<Self, FieldError> {
                let text = text.ok_or(FieldError::Missing(name))?;
                let number = decimal(text).ok_or_else(|| unreadable(name, text))?;
                Self::try_from(number).map_err(|_| unreadable(name, text))
            }
            fn write(&self, name: &str, sink: &mut impl Sink) {
                sink.put(name, itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )*};
}

integers!(i32, i64);

/// A signed decimal number that fits 64 bits.
fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = 0i64;
    for &digit in digits {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        let tens = number.checked_mul(10)?;
        number = if negative { tens.checked_sub(digit)? } else { tens.checked_add(digit)? };
    }
    Some(number)
}

/// As Java's `Boolean.parseBoolean`: whatever is not "true" is false.
impl<'f> Value<'f> for bool {
    fn read(name: &'static str, text: Option<&'f [u8]>) -> Result<Self, FieldError> {
        Ok(text.ok_or(FieldError::Missing(name))?.eq_ignore_ascii_case(b"true"))
    }
    fn write(&self, name: &str, sink: &mut impl Sink) {
        sink.put(name, if *self { b"true" } else { b"false" });
    }
}

impl<'f, T: Value<'f>> Value<'f> for Option<T> {
    fn read(name: &'static str, text: Option<&'f [u8]>) -> Result<Self, FieldError> {
        text.map(|text| T::read(name, Some(text))).transpose()
    }
    fn write(&self, name: &str, sink: &mut impl Sink) {
        if let Some(value) = self {
            value.write(name, sink);
        }
    }
}

/// Declares a header: a plain struct, read from [`Fields`] and written to a [`Sink`].
///
/// A field travels under its camelCase name unless `as "name"` says otherwise; `| "other"` is read
/// too. A missing field is an error unless it is an `Option` or has a `= default`.
#[macro_export]
macro_rules! header {
    ($(#[$meta:meta])* pub struct $name:ident { $(
        $(#[$field_meta:meta])*
        pub $field:ident: $ty:ty $(as $wire:literal)? $(| $other:literal)? $(= $default:expr)?
    ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty),* }

        impl<'f> $crate::fields::Header<'f> for $name {
            fn read(
                _fields: &'f $crate::fields::Fields<'_>,
            ) -> Result<Self, $crate::fields::FieldError> {
                $(let mut $field: Option<&'f [u8]> = None;)*
                for (_key, _value) in _fields.iter() {
                    $(
                        if $field.is_none()
                            && (_key == $crate::wire_name!($field $($wire)?).as_bytes()
                                $(|| _key == $other.as_bytes())?)
                        {
                            $field = Some(_value);
                            continue;
                        }
                    )*
                }
                Ok(Self { $($field: {
                    const NAME: &str = $crate::wire_name!($field $($wire)?);
                    match $field {
                        $(None => $default,)?
                        text => $crate::fields::Value::read(NAME, text)?,
                    }
                }),* })
            }

            fn write(&self, _sink: &mut impl $crate::fields::Sink) {
                $($crate::fields::Value::write(
                    &self.$field,
                    $crate::wire_name!($field $($wire)?),
                    _sink,
                );)*
            }
        }
    };
}

/// The name of a field on the wire: what `as` says, else the field in camelCase.
#[doc(hidden)]
#[macro_export]
macro_rules! wire_name {
    ($field:ident) => {{
        const NAME: $crate::fields::CamelCase<{ stringify!($field).len() }> =
            $crate::fields::CamelCase::of(stringify!($field));
        NAME.as_str()
    }};
    ($field:ident $wire:literal) => {
        $wire
    };
}

/// `queue_id` as `queueId`, worked out by the compiler.
#[doc(hidden)]
#[derive(Debug)]
pub struct CamelCase<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> CamelCase<N> {
    pub const fn of(snake_case: &str) -> Self {
        let source = snake_case.as_bytes();
        let mut name = Self { bytes: [0; N], len: 0 };
        let mut at = 0;
        while at < source.len() {
            if source[at] != b'_' {
                let starts_word = at > 0 && source[at - 1] == b'_';
                name.bytes[name.len] =
                    if starts_word { source[at].to_ascii_uppercase() } else { source[at] };
                name.len += 1;
            }
            at += 1;
        }
        name
    }

    pub const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(name) => name,
            Err(_) => panic!("a Rust identifier is UTF-8"),
        }
    }
}
