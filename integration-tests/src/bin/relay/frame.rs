//! One remoting frame, taken apart without any of our own codec, so that the codec can be held to it.

use anyhow::{Context as _, bail, ensure};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt::{self, Write as _};

/// The limit of the stock decoder.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

const LANGUAGES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP",
    "OMS", "RUST", "NODE_JS",
];

#[derive(Debug)]
pub(crate) struct Frame {
    pub code: i64,
    pub flag: i64,
    pub opaque: i64,
    language: String,
    version: i64,
    remark: Option<String>,
    fields: Vec<(String, String)>,
    binary: bool,
    body: Vec<u8>,
}

/// The length of the frame at the head of `bytes`, once all of it is there.
pub(crate) fn whole(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize + 4;
    ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
    Ok((bytes.len() >= length).then_some(length))
}

impl Frame {
    pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut input = Input(bytes);
        ensure!(input.int()? as usize + 4 == bytes.len(), "a length word that lies");
        let word = input.int()?;
        let header = input.take((word & 0x00ff_ffff) as usize)?;
        let body = input.0.to_vec();
        match word >> 24 {
            0 => Self::json(header, body),
            1 => Self::binary(header, body),
            kind => bail!("serialize type {kind}"),
        }
    }

    fn json(header: &[u8], body: Vec<u8>) -> anyhow::Result<Self> {
        let JsonHeader { code, flag, opaque, language, version, remark, fields } =
            serde_json::from_slice(header)?;
        let words = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let fields = fields.unwrap_or_default().0.into_iter();
        let fields = fields.map(|(key, value)| (key, words(value))).collect();
        Ok(Self { code, flag, opaque, language, version, remark, fields, binary: false, body })
    }

    fn binary(header: &[u8], body: Vec<u8>) -> anyhow::Result<Self> {
        let mut input = Input(header);
        let code = input.short()?;
        let language = usize::from(input.take(1)?[0]);
        let version = input.short()?;
        let (opaque, flag) = (input.int()?, input.int()?);
        let length = input.int()? as usize;
        let remark = input.text(length)?;
        let length = input.int()? as usize;
        let mut input = Input(input.take(length)?);
        let mut fields = Vec::new();
        while !input.0.is_empty() {
            let length = input.short()? as usize;
            let key = input.text(length)?;
            let length = input.int()? as usize;
            fields.push((key, input.text(length)?));
        }
        Ok(Self {
            code: i64::from(code as u16 as i16),
            flag: flag as i32 as i64,
            opaque: opaque as i32 as i64,
            language: LANGUAGES.get(language).unwrap_or(&"OTHER").to_string(),
            version: i64::from(version as u16 as i16),
            remark: (!remark.is_empty()).then_some(remark),
            fields,
            binary: true,
            body,
        })
    }

    pub(crate) fn is_answer(&self) -> bool {
        self.flag & 1 != 0
    }

    pub(crate) fn is_oneway(&self) -> bool {
        self.flag & 2 != 0
    }

    /// Whether some header value or the body contains `text`.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.fields
            .iter()
            .any(|(key, value)| value.contains(text) || format!("{key}={value}") == text)
            || String::from_utf8_lossy(&self.body).contains(text)
    }

    /// The `.txt` of this frame; `protocol/golden/README.md` describes it.
    pub(crate) fn text(&self) -> String {
        let kind = if self.is_answer() { "answer" } else { "request" };
        let encoding = if self.binary { "binary" } else { "json" };
        let Self { code, opaque, flag, language, version, body, .. } = self;
        let mut text = format!(
            "code {code} {kind} opaque {opaque} flag {flag} language {language} version {version} \
             {encoding}\n"
        );
        if let Some(remark) = &self.remark {
            let _ = writeln!(text, "remark: {}", one_line(remark));
        }
        for (key, value) in &self.fields {
            let _ = writeln!(text, "{} = {}", one_line(key), one_line(value));
        }
        let _ = writeln!(text, "body {} bytes", body.len());
        if let Some(words) = readable(body) {
            let _ = writeln!(text, "{}", one_line(words));
        }
        text
    }
}

#[derive(serde::Deserialize)]
struct JsonHeader {
    code: i64,
    flag: i64,
    opaque: i64,
    language: String,
    version: i64,
    remark: Option<String>,
    #[serde(rename = "extFields")]
    fields: Option<Entries>,
}

/// An object's entries in the order of the wire.
#[derive(Default)]
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

/// A non-empty body that is text: UTF-8 whose only control characters are line ends and tabs.
pub(crate) fn readable(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok().filter(|text| !text.is_empty())?;
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    text.chars().all(plain).then_some(text)
}

/// The text with backslashes and control characters escaped, so that it takes one line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", c as u32);
            }
            c => line.push(c),
        }
    }
    line
}

/// Big-endian input that runs out politely.
#[derive(Debug)]
pub(crate) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn take(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).context("cut short")?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn text(&mut self, count: usize) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.take(count)?.to_vec())?)
    }

    pub(crate) fn short(&mut self) -> anyhow::Result<u32> {
        let bytes = self.take(2)?;
        Ok(u32::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    }

    pub(crate) fn int(&mut self) -> anyhow::Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into()?))
    }

    pub(crate) fn long(&mut self) -> anyhow::Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }
}
