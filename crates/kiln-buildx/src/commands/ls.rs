//! `ls`: lists builders and their nodes.

use std::collections::BTreeMap;

use futures::future::join_all;
use kiln_builder::{Builder, Error as BuilderError, LoadedNode};
use kiln_cli::printer;
use kiln_cli::template::{Struct, Value as Field};
use kiln_oci::Platform;
use serde_json::{Map, Value, json};

use super::{platform_names, say};
use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;
use crate::format::Format;

const TABLE: &str = "{{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Buildkit}}\t{{.Platforms}}";

const HEADERS: [(&str, &str); 6] = [
    ("Name", "NAME/NODE"),
    ("DriverEndpoint", "DRIVER/ENDPOINT"),
    ("LastActivity", "LAST ACTIVITY"),
    ("Status", "STATUS"),
    ("Buildkit", "BUILDKIT"),
    ("Platforms", "PLATFORMS"),
];

/// Platforms in a row that is cut.
const MAX_PLATFORMS: usize = 4;

/// A builder with what is known of its nodes, or why nothing is.
struct Listed {
    builder: Builder,
    nodes: Result<Vec<LoadedNode>, BuilderError>,
    is_current: bool,
}

pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let format = Format::parse(&flags.word("format").unwrap_or_else(|| "table".into()), TABLE)?;
    let store = context.world.store()?;
    let current = context.world.find(&store, None)?.instance.name;
    let load = context.world.all(&store)?.into_iter().map(|mut builder| async {
        let loaded = context.in_time(context.world.nodes_with_facts(&mut builder)).await;
        let late = |e: Error| Err(BuilderError::Invalid(e.to_string()));
        let is_current = builder.instance.name == current;
        Listed { builder, nodes: loaded.unwrap_or_else(late), is_current }
    });
    let mut list = join_all(load).await;
    list.sort_by_key(|l| l.nodes.is_err());
    let trunc = format.is_table() && !flags.switch("no-trunc");
    let is_json = flags.word("format").is_some_and(|f| f == "json" || f.starts_with("{{json"));
    let mut rows = Vec::new();
    for listed in &list {
        rows.push(builder_row(listed, format.is_table()));
        for node in listed.nodes.iter().flatten().filter(|_| !is_json) {
            rows.push(node_row(listed, node, format.is_table(), trunc));
        }
    }
    say(&format.write(&HEADERS, &rows)?)?;
    if format.is_table() {
        printer::people(&problems(&list));
    }
    Ok(())
}

fn problems(list: &[Listed]) -> String {
    let mut out = String::new();
    for listed in list {
        let name = &listed.builder.instance.name;
        match &listed.nodes {
            Err(e) => out.push_str(&format!("Cannot load builder {name}: {e}\n")),
            Ok(nodes) => {
                for (node, e) in nodes.iter().filter_map(|n| Some((&n.node.name, n.error()?))) {
                    out.push_str(&format!("Failed to get status for {name} ({node}): {e}\n"));
                }
            }
        }
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

fn row(listed: &Listed, fields: [(&'static str, String); 7]) -> Field {
    let row = Struct::new("*commands.lsContext").with_whole(whole(listed));
    fields.into_iter().fold(row, |row, (name, value)| row.with(name, name, value)).into()
}

fn builder_row(listed: &Listed, is_table: bool) -> Field {
    let instance = &listed.builder.instance;
    let mark = if listed.is_current && is_table { "*" } else { "" };
    let error = listed.nodes.as_ref().err().map(ToString::to_string);
    let fields = [
        ("Name", format!("{}{mark}", instance.name)),
        ("DriverEndpoint", instance.driver.clone()),
        ("LastActivity", instance.last_activity.map(|t| t.to_string()).unwrap_or_default()),
        ("Status", if error.is_some() { "error".into() } else { String::new() }),
        ("Buildkit", String::new()),
        ("Platforms", String::new()),
        ("Error", error.unwrap_or_default()),
    ];
    row(listed, fields)
}

fn node_row(listed: &Listed, node: &LoadedNode, is_table: bool, trunc: bool) -> Field {
    let indent = if is_table { " \\_ " } else { "" };
    let known = node.known();
    let platforms = platform_names(node.node.platforms(), known.map_or(&[], |f| &f.platforms));
    let status = match (node.error(), known) {
        (Some(_), _) => "error".into(),
        (None, Some(facts)) => facts.status.to_string(),
        (None, None) => String::new(),
    };
    let fields = [
        ("Name", format!("{indent}{}", node.node.name)),
        ("DriverEndpoint", format!("{indent}{}", node.node.endpoint)),
        ("LastActivity", String::new()),
        ("Status", status),
        ("Buildkit", known.map(|f| f.version.clone()).unwrap_or_default()),
        ("Platforms", if trunc { cut_platforms(&platforms) } else { platforms.join(", ") }),
        ("Error", node.error().map(ToString::to_string).unwrap_or_default()),
    ];
    row(listed, fields)
}

/// A builder as JSON, as buildx writes it.
fn whole(listed: &Listed) -> Value {
    let instance = &listed.builder.instance;
    let mut map = Map::new();
    map.insert("Current".into(), listed.is_current.into());
    map.insert("Driver".into(), instance.driver.clone().into());
    map.insert("Dynamic".into(), instance.dynamic.into());
    if let Err(e) = &listed.nodes {
        map.insert("Err".into(), e.to_string().into());
    }
    let never = "0001-01-01T00:00:00Z".to_owned();
    let last = instance.last_activity.map_or(never, |t| t.to_string());
    map.insert("LastActivity".into(), last.into());
    map.insert("Name".into(), instance.name.clone().into());
    let nodes = match &listed.nodes {
        Ok(nodes) => nodes.iter().map(node_json).collect(),
        Err(_) => instance.nodes.iter().map(|_| json!({"Name": "", "Endpoint": ""})).collect(),
    };
    map.insert("Nodes".into(), Value::Array(nodes));
    let mut whole = Value::Object(map);
    whole.sort_all_objects();
    whole
}

fn node_json(node: &LoadedNode) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        let is_empty = match &value {
            Value::String(s) => s.is_empty() && !matches!(key, "Name" | "Endpoint"),
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
            other => other.is_null(),
        };
        if !is_empty {
            map.insert(key.to_owned(), value);
        }
    };
    let n = &node.node;
    put("Name", n.name.clone().into());
    put("Endpoint", n.endpoint.clone().into());
    put("Flags", n.flags().into());
    put("DriverOpts", json!(n.driver_opts));
    put("Files", serde_json::to_value(n).map(|v| v["Files"].clone()).unwrap_or_default());
    let facts = node.known();
    let status = if node.error().is_some() {
        "error".into()
    } else {
        facts.map(|f| f.status.to_string()).unwrap_or_default()
    };
    put("Status", status.into());
    put("Version", facts.map(|f| f.version.clone()).unwrap_or_default().into());
    put("Err", node.error().map(ToString::to_string).unwrap_or_default().into());
    put("IDs", facts.map(|f| json!(f.ids)).unwrap_or_default());
    let all: Vec<&Platform> = n.platforms().iter().chain(facts.iter().flat_map(|f| &f.platforms)).collect();
    put("Platforms", all.iter().map(ToString::to_string).collect::<Vec<_>>().into());
    let gc = facts.map(|f| &f.gc).into_iter().flatten().map(|rule| {
        json!({
            "all": rule.all, "filter": (!rule.filters.is_empty()).then_some(&rule.filters), "keepDuration": rule.keep_duration.as_nanos() as u64,
            "reservedSpace": rule.reserved_space, "maxUsedSpace": rule.max_used_space,
            "minFreeSpace": rule.min_free_space,
        })
    });
    put("GCPolicy", Value::Array(gc.collect()));
    put("Labels", facts.map(|f| json!(f.labels)).unwrap_or_default());
    Value::Object(map)
}

/// The usual platforms first, variants together, the rest as a number.
fn cut_platforms(names: &[String]) -> String {
    const MAJOR: [&str; 7] = [
        "linux/amd64",
        "linux/arm64",
        "linux/arm",
        "linux/ppc64le",
        "linux/s390x",
        "linux/riscv64",
        "linux/mips64",
    ];
    let base = |name: &String| {
        let name = name.trim_end_matches('*');
        name.splitn(3, '/').take(2).collect::<Vec<_>>().join("/")
    };
    let mut groups: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for major in MAJOR.iter().filter(|m| names.iter().any(|n| base(n) == **m)).take(MAX_PLATFORMS) {
        groups.insert((*major).to_owned(), names.iter().filter(|n| base(n) == *major).collect());
    }
    for name in names {
        let base = base(name);
        let is_known = groups.contains_key(&base) && !MAJOR.contains(&base.as_str());
        if is_known || (groups.len() < MAX_PLATFORMS && !groups.contains_key(&base)) {
            groups.entry(base).or_default().push(name);
        }
    }
    let order = MAJOR.iter().map(ToString::to_string).filter(|m| groups.contains_key(m));
    let others = groups.keys().filter(|k| !MAJOR.contains(&k.as_str())).cloned();
    let mut count = 0;
    let mut out = Vec::new();
    for key in order.chain(others) {
        let group = &groups[&key];
        count += group.len();
        out.push(match group.as_slice() {
            [one] => (*one).clone(),
            many => {
                let mark = if many.iter().any(|n| n.ends_with('*')) { "*" } else { "" };
                format!("{key}{mark} (+{})", many.len())
            }
        });
    }
    if count < names.len() {
        out.push(format!("({} more)", names.len() - count));
    }
    out.join(", ")
}

#[cfg(test)]
mod tests {
    use super::cut_platforms;

    #[test]
    fn platforms_are_grouped_and_cut() {
        let cut = |text: &str| {
            cut_platforms(&text.split(' ').filter(|t| !t.is_empty()).map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(cut(""), "");
        assert_eq!(cut("linux/amd64 linux/amd64/v2 linux/386"), "linux/amd64 (+2), linux/386");
        assert_eq!(cut("linux/arm64* linux/amd64"), "linux/amd64, linux/arm64*");
        let many = "linux/amd64* linux/arm/v7 linux/arm/v6 linux/arm64 linux/s390x linux/ppc64le linux/386";
        assert_eq!(cut(many), "linux/amd64*, linux/arm64, linux/arm (+2), linux/ppc64le, (2 more)");
    }
}
