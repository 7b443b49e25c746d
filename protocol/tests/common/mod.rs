//! Golden files: bytes as hex under comments that say who sent them, and beside them what they mean.

use std::fs;
use std::path::{Path, PathBuf};

/// One recorded frame.
pub struct Golden {
    /// The file's name without `.hex`: `CODE.request[.VARIANT]` or `CODE.answer[.VARIANT]`.
    pub name: String,
    /// The comments, without `#`.
    pub comments: Vec<String>,
    pub bytes: Vec<u8>,
}

impl Golden {
    pub fn is_answer(&self) -> bool {
        self.name.split('.').nth(1) == Some("answer")
    }
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The names with this extension in a folder, sorted, without it.
pub fn names(folder: &Path, extension: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Every frame of a folder.
pub fn frames(folder: &Path) -> Vec<Golden> {
    names(folder, "hex").into_iter().map(|name| frame(folder, name)).collect()
}

fn frame(folder: &Path, name: String) -> Golden {
    let text = fs::read_to_string(folder.join(format!("{name}.hex"))).unwrap();
    let (comments, digits): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with('#'));
    let comments = comments.iter().map(|line| line[1..].trim().to_owned()).collect();
    let digits = digits.into_iter().flat_map(str::split_whitespace);
    let bytes = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
    Golden { name, comments, bytes }
}
