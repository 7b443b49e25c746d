//! The gRPC protocol we compile is the one that is spoken: every name, number, type and label of the table.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const PACKAGE: &str = ".apache.rocketmq.v2.";

/// Rows of the table, as the columns stand in it.
type Rows = BTreeSet<String>;

#[test]
fn the_compiled_protocol_is_the_recorded_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/grpc-v2.tsv");
    let table = std::fs::read_to_string(path).unwrap();
    let recorded: Rows = table.lines().skip(1).map(|row| row.trim_end().to_owned()).collect();
    let compiled = compiled();
    let missing: Vec<_> = recorded.difference(&compiled).collect();
    let beyond: Vec<_> = compiled.difference(&recorded).collect();
    assert!(missing.is_empty() && beyond.is_empty(), "missing {missing:#?}\nbeyond {beyond:#?}");
    assert!(compiled.len() > 500, "{} rows", compiled.len());
}

fn compiled() -> Rows {
    let set = FileDescriptorSet::decode(protocol::grpc::DESCRIPTORS).unwrap();
    let mut rows = Rows::new();
    for file in &set.file {
        let Some(name) = file.name().strip_prefix("apache/rocketmq/v2/") else { continue };
        let file_name = name.trim_end_matches(".proto");
        for each in &file.enum_type {
            enumeration(&mut rows, file_name, "", each);
        }
        for each in &file.message_type {
            message(&mut rows, file_name, "", each);
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |is: bool| if is { "stream " } else { "" };
                let (input, output) = (short(method.input_type()), short(method.output_type()));
                let (from, to) =
                    (stream(method.client_streaming()), stream(method.server_streaming()));
                let (name, method) = (service.name(), method.name());
                let row =
                    format!("{file_name}\trpc\t{name}\t{method}\t\t{from}{input} -> {to}{output}");
                rows.insert(row);
            }
        }
    }
    rows
}

fn enumeration(rows: &mut Rows, file: &str, within: &str, each: &EnumDescriptorProto) {
    for value in &each.value {
        let (name, value, number) = (each.name(), value.name(), value.number());
        rows.insert(format!("{file}\tenum\t{within}{name}\t{value}\t{number}"));
    }
}

fn message(rows: &mut Rows, file: &str, within: &str, each: &DescriptorProto) {
    let path = format!("{within}{}", each.name());
    if each.field.is_empty() {
        rows.insert(format!("{file}\tmessage\t{path}\t-\t-\t-\t-"));
    }
    for field in &each.field {
        let (kind, label) = (kind(each, field), label(each, field));
        let row = format!(
            "{file}\tmessage\t{path}\t{}\t{}\t{kind}\t{label}",
            field.name(),
            field.number()
        );
        rows.insert(row.trim_end().to_owned());
    }
    let within = format!("{path}.");
    for inner in &each.enum_type {
        enumeration(rows, file, &within, inner);
    }
    let is_map = |inner: &&DescriptorProto| inner.options.as_ref().is_some_and(|it| it.map_entry());
    for inner in each.nested_type.iter().filter(|inner| !is_map(inner)) {
        message(rows, file, &within, inner);
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix(PACKAGE).unwrap_or_else(|| name.trim_start_matches('.'))
}

/// The entry type of a map field.
fn map<'m>(of: &'m DescriptorProto, field: &FieldDescriptorProto) -> Option<&'m DescriptorProto> {
    let name = field.type_name().rsplit('.').next()?;
    let entry = of.nested_type.iter().find(|inner| inner.name() == name)?;
    entry.options.as_ref().filter(|it| it.map_entry()).map(|_| entry)
}

fn kind(of: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    if let Some(entry) = map(of, field) {
        let [key, value] = [&entry.field[0], &entry.field[1]].map(|field| kind(entry, field));
        return format!("map<{key},{value}>");
    }
    match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn label(of: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    if map(of, field).is_some() {
        return String::new();
    }
    if field.proto3_optional() {
        return "optional".to_owned();
    }
    if let Some(at) = field.oneof_index {
        return format!("oneof {}", of.oneof_decl[at as usize].name());
    }
    if field.label() == Label::Repeated { "repeated".to_owned() } else { String::new() }
}
