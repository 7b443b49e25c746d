//! JSON as RocketMQ speaks it: whatever fastjson 1 or fastjson2 sends is read, what stock sends is written.
//!
//! Two habits of fastjson are not JSON: integer map keys stand without quotes (`{0:"a"}`), and a map
//! keyed by a bean has that bean's object as its key (`{{"queueId":0,"topic":"T"}:1}`). Stock 5.5.0
//! (fastjson2) still writes both everywhere except in route answers for new clients.
//!
//! Where a text can be read in more than one way, this is what we do, and what Java does:
//!
//! | text | here | fastjson 1.2 (≤ 5.3) | fastjson2 (5.5.0) |
//! | --- | --- | --- | --- |
//! | `null` for a field, a map's value or a list's element | as if it were not there | a primitive keeps its default, else null | a primitive becomes 0, else null |
//! | `""` or `"null"` for a number or bool | 0, false | keeps the default | 0, false |
//! | `""` for an object, a map or a list | empty | null | null |
//! | `"12"`, `true`, `1.7` for an integer | 12, 1, 1 | the same, `"1.7"` is an error | the same |
//! | an integer too large for its field | error | error | error |
//! | `1`, `2`, `"1"`, `"Y"` for a bool | true, false, true, true | the same | the same |
//! | a number, bool, object or list for a string | its text | its text | its text |
//! | an enum's name (in any case) or its ordinal, also in quotes | that value | the same, quoted ordinals not | the same |
//! | an enum's name nobody knows | error | null | null |
//! | an object key in quotes (`"{\"topic\":…}"`) | that object | that object | error |
//! | a key without quotes (`{a:1}`) | that key | that key | error, unless it is a number |
//! | the same field twice | error | the first | the last |
//! | trailing commas, `'…'`, comments | read | read | read |
//! | half a surrogate pair | `?` | `?` | `?` |
//! | bytes that are not UTF-8 | error | error | error |
//! | nothing, or `null`, as the whole body | error | null, then code 1 | null, then code 1 |
//! | a `$ref` to an earlier object (fastjson 1) | an object of defaults | resolved | resolved |

mod read;
mod write;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use write::java_double;

/// How many objects and lists may stand inside each other.
pub const DEPTH_MAX: u32 = 64;

/// How many bytes of lists and maps each byte of text may ask for: `[{},{},…]` must not become a
/// hundred times its size. Every body a stock client or server sends stays below 10.
pub const MEMORY_PER_BYTE_MAX: usize = 16;

/// Which of fastjson's habits the reader expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// What any JSON parser reads: every key quoted, non-ASCII text as `\u` escapes.
    /// For route answers to clients that ask for it or are new enough.
    Standard,
    /// What stock sends everywhere else: integer keys bare, object keys as objects, text as UTF-8.
    Fastjson,
    /// `Fastjson` over many lines, indented with tabs: `config/*.json`.
    File,
}

/// Why a text could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at byte {at} of the JSON")]
pub struct JsonError {
    /// What was found or missed there.
    pub what: String,
    /// How many bytes were read before.
    pub at: usize,
}

/// Reads a whole body.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    read::read(bytes)
}

/// Writes a value without blanks (but see [`Dialect::File`]). Fields come in the order of their
/// declaration, `None` and its like are left out, except from lists.
///
/// # Panics
/// If a hand-written `Serialize` reports an error or offers raw bytes; our bodies do neither.
pub fn write<T: Serialize + ?Sized>(value: &T, dialect: Dialect) -> Vec<u8> {
    write::write(value, dialect).expect("bodies are plain structs, which always serialize")
}

#[cfg(test)]
mod tests;
