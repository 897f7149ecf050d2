//! The interface as a table of lines, and how it becomes descriptors.
//!
//! `file NAME PACKAGE`, `import FILE`, `message PATH`, `enum PATH`, `service NAME`; indented below them ` NUMBER NAME TYPE
//! [ONEOF]` of a field (`T*` repeated, `map:K:V`), ` NUMBER NAME` of a value, ` NAME IN OUT` of a method (`*` streams).

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions, MethodDescriptorProto, OneofDescriptorProto,
    ServiceDescriptorProto,
};
use std::collections::HashSet;

/// Services and messages of BuildKit's daemon.
pub(super) const INTERFACE: &str = include_str!("interface.txt");

/// What lines below a heading belong to.
#[derive(Clone, Copy)]
enum Heading<'a> {
    None,
    Message(&'a str),
    Enum(&'a str),
    Service,
}

/// Lines that say nothing are passed over: the table is a constant, checked by tests.
pub(super) fn descriptors(table: &str) -> FileDescriptorSet {
    let enums = enums(table);
    let mut files: Vec<FileDescriptorProto> = Vec::new();
    let mut heading = Heading::None;
    for line in table.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if !line.starts_with(' ') {
            heading = begin(&mut files, &words);
            continue;
        }
        let Some(file) = files.last_mut() else { continue };
        match (heading, words.as_slice()) {
            (Heading::Message(path), [number, name, kind, oneof @ ..]) => {
                let scope = format!(".{}.{path}", file.package());
                let message = message_at(&mut file.message_type, path);
                let mut field = FieldDescriptorProto {
                    name: Some((*name).into()),
                    number: number.parse().ok(),
                    oneof_index: oneof.first().map(|oneof| oneof_index(message, oneof)),
                    ..FieldDescriptorProto::default()
                };
                set_type(&mut field, kind, &enums, message, &scope);
                message.field.push(field);
            }
            (Heading::Enum(path), [number, name]) => {
                enum_at(file, path).value.push(EnumValueDescriptorProto {
                    name: Some((*name).into()),
                    number: number.parse().ok(),
                    options: None,
                })
            }
            (Heading::Service, [name, input, output]) => {
                if let Some(service) = file.service.last_mut() {
                    service.method.push(method(name, input, output));
                }
            }
            _ => {}
        }
    }
    FileDescriptorSet { file: files }
}

fn begin<'a>(files: &mut Vec<FileDescriptorProto>, words: &[&'a str]) -> Heading<'a> {
    if let ["file", name, package] = words {
        files.push(FileDescriptorProto {
            name: Some((*name).into()),
            package: Some((*package).into()),
            syntax: Some("proto3".into()),
            ..FileDescriptorProto::default()
        });
        return Heading::None;
    }
    let Some(file) = files.last_mut() else { return Heading::None };
    match words {
        ["import", name] => file.dependency.push((*name).into()),
        ["message", path] => {
            let _ = message_at(&mut file.message_type, path);
            return Heading::Message(path);
        }
        ["enum", path] => return Heading::Enum(path),
        ["service", name] => {
            file.service.push(ServiceDescriptorProto { name: Some((*name).into()), ..Default::default() });
            return Heading::Service;
        }
        _ => {}
    }
    Heading::None
}

/// Full names of all enums.
fn enums(table: &str) -> HashSet<String> {
    let mut package = "";
    let mut found = HashSet::new();
    for line in table.lines() {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["file", _, name] => package = name,
            ["enum", path] => drop(found.insert(format!("{package}.{path}"))),
            _ => {}
        }
    }
    found
}

/// The message of a path such as `Outer.Inner`; made where it is not there.
fn message_at<'a>(messages: &'a mut Vec<DescriptorProto>, path: &str) -> &'a mut DescriptorProto {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let at = messages.iter().position(|m| m.name() == name).unwrap_or_else(|| {
        messages.push(DescriptorProto { name: Some(name.into()), ..DescriptorProto::default() });
        messages.len() - 1
    });
    match rest {
        Some(rest) => message_at(&mut messages[at].nested_type, rest),
        None => &mut messages[at],
    }
}

fn enum_at<'a>(file: &'a mut FileDescriptorProto, path: &str) -> &'a mut EnumDescriptorProto {
    let (enums, name) = match path.rsplit_once('.') {
        Some((outer, name)) => (&mut message_at(&mut file.message_type, outer).enum_type, name),
        None => (&mut file.enum_type, path),
    };
    let at = enums.iter().position(|e| e.name() == name).unwrap_or_else(|| {
        enums.push(EnumDescriptorProto { name: Some(name.into()), ..EnumDescriptorProto::default() });
        enums.len() - 1
    });
    &mut enums[at]
}

fn oneof_index(message: &mut DescriptorProto, name: &str) -> i32 {
    let at = message.oneof_decl.iter().position(|o| o.name() == name).unwrap_or_else(|| {
        message.oneof_decl.push(OneofDescriptorProto { name: Some(name.into()), options: None });
        message.oneof_decl.len() - 1
    });
    i32::try_from(at).unwrap_or(0)
}

fn set_type(
    field: &mut FieldDescriptorProto,
    kind: &str,
    enums: &HashSet<String>,
    message: &mut DescriptorProto,
    scope: &str,
) {
    let repeated = kind.ends_with('*') || kind.starts_with("map:");
    field.set_label(if repeated { Label::Repeated } else { Label::Optional });
    if let Some((key, value)) = kind.strip_prefix("map:").and_then(|k| k.split_once(':')) {
        let entry = map_entry(field.name(), key, value, enums);
        field.set_type(Type::Message);
        field.type_name = Some(format!("{scope}.{}", entry.name()));
        message.nested_type.push(entry);
        return;
    }
    let kind = kind.trim_end_matches('*');
    match scalar(kind) {
        Some(scalar) => field.set_type(scalar),
        None => {
            field.set_type(if enums.contains(kind) { Type::Enum } else { Type::Message });
            field.type_name = Some(format!(".{kind}"));
        }
    }
}

/// The message that a map is on the wire.
fn map_entry(field: &str, key: &str, value: &str, enums: &HashSet<String>) -> DescriptorProto {
    let mut camel = String::new();
    for part in field.split('_') {
        let mut chars = part.chars();
        camel.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        camel.push_str(chars.as_str());
    }
    let mut entry = DescriptorProto {
        name: Some(format!("{camel}Entry")),
        options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
        ..DescriptorProto::default()
    };
    for (number, name, kind) in [(1, "key", key), (2, "value", value)] {
        let mut field = FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            ..FieldDescriptorProto::default()
        };
        set_type(&mut field, kind, enums, &mut entry, "");
        entry.field.push(field);
    }
    entry
}

fn scalar(kind: &str) -> Option<Type> {
    Some(match kind {
        "double" => Type::Double,
        "float" => Type::Float,
        "int64" => Type::Int64,
        "uint64" => Type::Uint64,
        "int32" => Type::Int32,
        "fixed64" => Type::Fixed64,
        "fixed32" => Type::Fixed32,
        "bool" => Type::Bool,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "uint32" => Type::Uint32,
        "sfixed32" => Type::Sfixed32,
        "sfixed64" => Type::Sfixed64,
        "sint32" => Type::Sint32,
        "sint64" => Type::Sint64,
        _ => return None,
    })
}

fn method(name: &str, input: &str, output: &str) -> MethodDescriptorProto {
    let full = |name: &str| Some(format!(".{}", name.trim_end_matches('*')));
    MethodDescriptorProto {
        name: Some(name.into()),
        input_type: full(input),
        output_type: full(output),
        client_streaming: input.ends_with('*').then_some(true),
        server_streaming: output.ends_with('*').then_some(true),
        options: None,
    }
}
