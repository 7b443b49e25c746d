//! The `.txt` of a frame, as `golden/README.md` describes it.

use std::fmt::Write;

use protocol::frame::{Command, Encoding};

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
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    match std::str::from_utf8(&command.body) {
        Ok(body) if !body.is_empty() && body.chars().all(plain) => {
            writeln!(text, "{}", one_line(body)).unwrap();
        }
        _ => {}
    }
    text
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() => write!(line, "\\u{:04x}", u32::from(c)).unwrap(),
            c => line.push(c),
        }
    }
    line
}
