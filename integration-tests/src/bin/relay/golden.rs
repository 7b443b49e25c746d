//! Golden files: bytes as hex under a comment that says who wrote them, and what they mean beside.

use crate::frame::Frame;
use crate::stored;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::Path;

pub(crate) fn write_frame(
    folder: &Path,
    name: &str,
    comments: &[String],
    bytes: &[u8],
) -> Result<()> {
    let text = Frame::parse(bytes)?.text();
    fs::write(folder.join(format!("{name}.hex")), hex(comments, bytes))?;
    Ok(fs::write(folder.join(format!("{name}.txt")), text)?)
}

/// Writes the first `count` bytes of a stored file, and their text, in golden form.
pub(crate) fn cut(out: &Path, count: usize, file: &Path, comments: &[&str]) -> Result<()> {
    let mut bytes = fs::read(file).with_context(|| file.display().to_string())?;
    bytes.truncate(count);
    let comments: Vec<String> = comments.iter().map(|&line| line.to_owned()).collect();
    fs::write(out, hex(&comments, &bytes))?;
    write_text(out)
}

/// Writes every text of a folder again.
pub(crate) fn write_texts(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "hex") {
            write_text(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn write_text(hex: &Path) -> Result<()> {
    let bytes = bytes(&fs::read_to_string(hex)?)?;
    let name = hex.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let text = match stored::Kind::of(name) {
        Some(kind) => stored::text(kind, &bytes)?,
        None => Frame::parse(&bytes)?.text(),
    };
    Ok(fs::write(hex.with_extension("txt"), text)?)
}

fn hex(comments: &[String], bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3 + 200);
    for line in comments.iter().filter(|line| !line.is_empty()) {
        let _ = writeln!(text, "# {line}");
    }
    for line in bytes.chunks(16) {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{}", digits.join(" "));
    }
    text
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    digits.map(|digits| Ok(u8::from_str_radix(digits, 16)?)).collect()
}
