//! A value on its own, and how it bends towards the type that is wanted.

use std::borrow::Cow;

use super::scan::{Failed, Result1};

/// A value that is no object and no list, or the text of one where a string is wanted.
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    Nested(&'a str),
}

impl<'a> Scalar<'a> {
    pub(super) fn integer<T: TryFrom<i64>>(&self) -> Result1<T> {
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

    pub(super) fn float(&self) -> Result1<f64> {
        match self {
            Self::Null => Ok(0.0),
            Self::Bool(value) => Ok(f64::from(u8::from(*value))),
            Self::Number(text) => float(text),
            Self::Text(text) if is_nothing(text) => Ok(0.0),
            Self::Text(text) => float(text),
            Self::Nested(_) => Failed::of("a number was expected"),
        }
    }

    pub(super) fn bool(&self) -> Result1<bool> {
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

    pub(super) fn text(self) -> Cow<'a, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Number(text) | Self::Nested(text) => Cow::Borrowed(text),
            Self::Text(text) => text,
        }
    }

    /// The variant's own spelling, for a name in any case or an ordinal.
    pub(super) fn variant(self, variants: &'static [&'static str]) -> Result1<Cow<'a, str>> {
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
