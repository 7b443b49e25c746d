//! What a stock configuration file may say: the keys we honour, the keys that change nothing here,
//! and for every other key the one that was probably meant.

use std::collections::BTreeMap;
use std::fmt::Write;

/// One key of a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub key: &'static str,
    pub kind: Kind,
    /// The value when the file does not name the key; `None` leaves the key out of what is shown.
    pub default: Option<&'static str>,
    /// Whether anything here depends on it, or it only tunes a JVM and its thread pools.
    pub honoured: bool,
}

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Flag,
    Int,
    Long,
    Decimal,
}

impl Setting {
    pub const fn new(key: &'static str, kind: Kind, default: &'static str) -> Self {
        Self { key, kind, default: Some(default), honoured: true }
    }

    /// A key that a stock file may hold and that changes nothing here.
    pub const fn without_effect(key: &'static str, kind: Kind, default: &'static str) -> Self {
        Self { key, kind, default: Some(default), honoured: false }
    }

    /// The same key without a value of its own.
    pub const fn unset(self) -> Self {
        Self { default: None, ..self }
    }
}

/// A key or a value that is refused; what is told to whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("unknown key `{key}`{}", meant(*.suggestion))]
    Unknown { key: String, suggestion: Option<&'static str> },
    #[error("`{key}` must be {}, not `{value}`", wanted(*.kind))]
    Unreadable { key: &'static str, kind: Kind, value: String },
}

/// All that is wrong with a file at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", sentence(.0))]
pub struct Problems(pub Vec<Problem>);

/// Keys and values that passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    pub values: BTreeMap<&'static str, String>,
    /// Those of them that change nothing here, for one warning.
    pub without_effect: Vec<&'static str>,
}

/// Looks every key up in `table` and every value over.
pub fn check(
    table: &'static [Setting],
    given: &BTreeMap<String, String>,
) -> Result<Accepted, Problems> {
    let mut accepted = Accepted::default();
    let mut problems = Vec::new();
    for (key, value) in given {
        match judge(table, key, value) {
            Ok(setting) => {
                if !setting.honoured && setting.default != Some(value.trim()) {
                    accepted.without_effect.push(setting.key);
                }
                accepted.values.insert(setting.key, value.trim().to_owned());
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(accepted) } else { Err(Problems(problems)) }
}

/// Looks one key up and its value over.
pub fn judge(
    table: &'static [Setting],
    key: &str,
    value: &str,
) -> Result<&'static Setting, Problem> {
    let Some(setting) = table.iter().find(|setting| setting.key == key) else {
        let suggestion = closest(table.iter().map(|setting| setting.key), key);
        return Err(Problem::Unknown { key: shortened(key), suggestion });
    };
    if setting.kind.accepts(value.trim()) {
        Ok(setting)
    } else {
        let value = shortened(value);
        Err(Problem::Unreadable { key: setting.key, kind: setting.kind, value })
    }
}

impl Kind {
    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Flag => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
            Self::Int => value.parse::<i32>().is_ok(),
            Self::Long => value.parse::<i64>().is_ok(),
            Self::Decimal => value.parse::<f64>().is_ok_and(f64::is_finite),
        }
    }
}

/// The known key with the fewest differing letters, if they are few.
pub fn closest<'k>(known: impl Iterator<Item = &'k str>, key: &str) -> Option<&'k str> {
    const KEY_CHARS_MAX: usize = 128;
    let wanted: Vec<char> = key.chars().take(KEY_CHARS_MAX).flat_map(char::to_lowercase).collect();
    let (distance, best) = known.map(|known| (distance(&wanted, known), known)).min()?;
    (distance <= (best.len() / 3).max(2)).then_some(best)
}

/// How many letters to add, drop or change, small and large letters being the same.
fn distance(wanted: &[char], known: &str) -> usize {
    let known: Vec<char> = known.chars().flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (at, wanted) in wanted.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, known) in known.iter().enumerate() {
            let changed = diagonal + usize::from(wanted != known);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[known.len()]
}

/// What is shown of something that may be of any length.
fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

fn meant(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!(", did you mean `{key}`?")).unwrap_or_default()
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Flag => "true or false",
        Kind::Int => "a whole number of 32 bits",
        Kind::Long => "a whole number of 64 bits",
        Kind::Decimal => "a number",
    }
}

fn sentence(problems: &[Problem]) -> String {
    const SHOWN_MAX: usize = 20;
    let mut text = String::new();
    for (at, problem) in problems.iter().take(SHOWN_MAX).enumerate() {
        let separator = if at == 0 { "" } else { "; " };
        write!(text, "{separator}{problem}").expect("writing to a string does not fail");
    }
    if let Some(more @ 1..) = problems.len().checked_sub(SHOWN_MAX) {
        write!(text, "; and {more} more").expect("writing to a string does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: &[Setting] = &[
        Setting::new("listenPort", Kind::Int, "9876"),
        Setting::new("enableTopicList", Kind::Flag, "true"),
        Setting::without_effect("serverWorkerThreads", Kind::Int, "8"),
    ];

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn known_keys_pass_and_those_without_effect_are_named() {
        let accepted = check(
            TABLE,
            &given(&[
                ("listenPort", " 9999 "),
                ("enableTopicList", "FALSE"),
                ("serverWorkerThreads", "16"),
            ]),
        )
        .unwrap();
        assert_eq!(accepted.values["listenPort"], "9999");
        assert_eq!(accepted.without_effect, ["serverWorkerThreads"]);
    }

    #[test]
    fn a_default_written_down_needs_no_warning() {
        let accepted = check(TABLE, &given(&[("serverWorkerThreads", "8")])).unwrap();
        assert!(accepted.without_effect.is_empty());
    }

    #[test]
    fn whatever_else_a_file_says_is_answered_by_a_sentence() {
        for (key, value, sentence) in [
            ("listenport", "1", "unknown key `listenport`, did you mean `listenPort`?"),
            (
                "enableTopiclst",
                "1",
                "unknown key `enableTopiclst`, did you mean `enableTopicList`?",
            ),
            ("nothingLikeIt", "1", "unknown key `nothingLikeIt`"),
            ("", "", "unknown key ``"),
            ("listenPort", "x", "`listenPort` must be a whole number of 32 bits, not `x`"),
            ("enableTopicList", "yes", "`enableTopicList` must be true or false, not `yes`"),
        ] {
            let problems = check(TABLE, &given(&[(key, value)])).unwrap_err();
            assert_eq!(problems.to_string(), sentence);
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once_up_to_a_limit() {
        let many: BTreeMap<String, String> =
            (0..30).map(|n| (format!("{n:02}_nobody_knows"), String::new())).collect();
        let text = check(TABLE, &many).unwrap_err().to_string();
        assert_eq!(text.matches("unknown key").count(), 20);
        assert!(text.ends_with("; and 10 more"), "{text}");
    }
}
