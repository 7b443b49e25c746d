//! Golden files: bytes as hex under comments that say who sent them, and beside them what they mean.

use std::fs;
use std::path::{Path, PathBuf};

/// One recorded frame.
pub(crate) struct Golden {
    /// The file's name without `.hex`: `CODE.request[.VARIANT]` or `CODE.answer[.VARIANT]`.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Golden {
    pub(crate) fn is_answer(&self) -> bool {
        self.name.split('.').nth(1) == Some("answer")
    }
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The names with this extension in a folder, sorted, without it.
pub(crate) fn names(folder: &Path, extension: &str) -> Vec<String> {
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
pub(crate) fn frames(folder: &Path) -> Vec<Golden> {
    names(folder, "hex").into_iter().map(|name| frame(folder, name)).collect()
}

fn frame(folder: &Path, name: String) -> Golden {
    let text = fs::read_to_string(folder.join(format!("{name}.hex"))).unwrap();
    let digits = text.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let bytes = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
    Golden { name, bytes }
}
