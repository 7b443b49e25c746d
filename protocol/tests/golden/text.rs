//! The `.txt` of a frame, as `golden/README.md` describes it.

use std::fmt::Write;

use protocol::frame::{Command, Encoding};

use crate::one_line::{one_line, words};

pub(crate) fn of(command: &Command<'_>) -> String {
    let kind = if command.is_reply() { "answer" } else { "request" };
    let encoding = match command.encoding {
        Encoding::Json => "json",
        Encoding::Binary => "binary",
    };
    let Command { code, opaque, flag, language, version, .. } = command;
    let language = language.name();
    let mut text = format!(
        "code {code} {kind} opaque {opaque} flag {flag} language {language} version {version} \
         {encoding}\n"
    );
    if let Some(remark) = &command.remark {
        writeln!(text, "remark: {}", one_line(remark)).unwrap();
    }
    for (name, value) in command.fields.iter() {
        let [name, value] = [name, value].map(|text| one_line(std::str::from_utf8(text).unwrap()));
        writeln!(text, "{name} = {value}").unwrap();
    }
    writeln!(text, "body {} bytes", command.body.len()).unwrap();
    if let Some(body) = words(&command.body).filter(|body| !body.is_empty()) {
        writeln!(text, "{body}").unwrap();
    }
    text
}
