//! Java properties text: `broker.conf`, and the bodies that read and change a server's settings.
//!
//! Java reads such files as Latin-1; we read UTF-8, so that names need no `\u` escapes.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Reads lines of `key=value`, `key:value` or `key value`; of a key given twice the last counts.
///
/// Blank lines and lines that begin with `#` or `!` are passed over. A line that ends with an odd
/// number of backslashes goes on in the next, whose leading blanks do not count. No text is
/// refused: an escape that Java would choke on stands for itself.
pub fn read(text: &str) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let text = text.replace("\r\n", "\n");
    let mut lines = text.split(['\n', '\r']);
    while let Some(line) = lines.next() {
        let line = line.trim_start_matches(is_blank);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while ends_in_escape(&whole) {
            whole.pop();
            let next = lines.next().unwrap_or_default();
            whole.push_str(next.trim_start_matches(is_blank));
        }
        let (key, value) = split(&whole);
        properties.insert(unescape(key), unescape(value));
    }
    properties
}

/// Writes `key=value` lines in the order of the keys, as stock answers do. Only what would not
/// come back the same is escaped.
pub fn write<'a>(properties: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let sorted: BTreeMap<&str, &str> = properties.into_iter().collect();
    let mut text = String::new();
    for (key, value) in sorted {
        escape(&mut text, key, true);
        text.push('=');
        escape(&mut text, value, false);
        text.push('\n');
    }
    text
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

fn ends_in_escape(line: &str) -> bool {
    line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// The key ends at the first `=`, `:` or blank that no backslash hides.
fn split(line: &str) -> (&str, &str) {
    let mut hidden = false;
    let end = line.find(|character| {
        let ends = !hidden && (is_blank(character) || matches!(character, '=' | ':'));
        hidden = !hidden && character == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, value.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> String {
    let mut units: Vec<u16> = Vec::new();
    let mut rest = text.chars();
    let put = |units: &mut Vec<u16>, character: char| {
        units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
    };
    while let Some(character) = rest.next() {
        if character != '\\' {
            put(&mut units, character);
            continue;
        }
        match rest.next() {
            None => {}
            Some('t') => put(&mut units, '\t'),
            Some('n') => put(&mut units, '\n'),
            Some('r') => put(&mut units, '\r'),
            Some('f') => put(&mut units, '\u{c}'),
            Some('u') => {
                let digits = rest.as_str().get(..4).unwrap_or("");
                match u16::from_str_radix(digits, 16) {
                    Ok(unit) if digits.len() == 4 && !digits.starts_with('+') => {
                        units.push(unit);
                        rest = rest.as_str()[4..].chars();
                    }
                    _ => put(&mut units, 'u'),
                }
            }
            Some(other) => put(&mut units, other),
        }
    }
    String::from_utf16_lossy(&units)
}

fn escape(out: &mut String, text: &str, key: bool) {
    for (at, character) in text.char_indices() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{c}' => out.push_str("\\f"),
            ' ' if key || at == 0 => out.push_str("\\ "),
            '=' | ':' if key => {
                write!(out, "\\{character}").expect("writing to a string does not fail");
            }
            '#' | '!' if key && at == 0 => {
                write!(out, "\\{character}").expect("writing to a string does not fail");
            }
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// What `java.util.Properties` made of each text.
    #[test]
    fn text_is_read_as_java_reads_it() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("a=b", &[("a", "b")]),
            ("a = b ", &[("a", "b ")]),
            ("a:b", &[("a", "b")]),
            ("a b", &[("a", "b")]),
            ("a", &[("a", "")]),
            ("=b", &[("", "b")]),
            ("#c\n!d\na=1", &[("a", "1")]),
            ("a=1\\\n  2", &[("a", "12")]),
            ("a=1\\\n\n  b=2", &[("a", "1"), ("b", "2")]),
            ("a=1\\\r\n  2\r\nb=3", &[("a", "12"), ("b", "3")]),
            ("a\\=b=c", &[("a=b", "c")]),
            ("a\\ b=c", &[("a b", "c")]),
            ("a=\\u4e2d\\t\\q", &[("a", "中\tq")]),
            ("a==b", &[("a", "=b")]),
            ("a= = b", &[("a", "= b")]),
            ("  a  =  b", &[("a", "b")]),
            ("a=b\\\\\nc=d", &[("a", "b\\"), ("c", "d")]),
            ("a=1\\\n#x\nb=2", &[("a", "1#x"), ("b", "2")]),
            ("a=1\rb=2", &[("a", "1"), ("b", "2")]),
            ("a=1\na=2", &[("a", "2")]),
            ("a=\\", &[("a", "")]),
            ("a:=b", &[("a", "=b")]),
            ("a =:b", &[("a", ":b")]),
            ("\\#a=1", &[("#a", "1")]),
            ("a=b#c", &[("a", "b#c")]),
            ("a=\\ud83d\\ude00", &[("a", "😀")]),
            ("a=\\u12", &[("a", "u12")]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            let expected: BTreeMap<String, String> = expected
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn settings_are_written_as_stock_writes_them() {
        let settings = [("brokerName", "broker-a"), ("brokerId", "0"), ("hosts", "a:1;b=2")];
        assert_eq!(write(settings), "brokerId=0\nbrokerName=broker-a\nhosts=a:1;b=2\n");
    }

    #[test]
    fn whatever_is_written_reads_back_the_same() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let letters: Vec<char> = "ab =:#!\\\n\r\t\u{c}u0é中😀".chars().collect();
        for _ in 0..2000 {
            let mut word = |length| -> String {
                (0..random.random_range(0..length))
                    .map(|_| *letters.choose(&mut random).unwrap())
                    .collect()
            };
            let settings: BTreeMap<String, String> = (0..4).map(|_| (word(6), word(12))).collect();
            let text = write(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            assert_eq!(read(&text), settings, "{text:?}");
        }
    }
}
