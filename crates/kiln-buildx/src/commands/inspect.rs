//! `inspect`: everything about a builder.

use kiln_builder::{Facts, LoadedNode, Steps};
use kiln_cli::build::run;
use kiln_cli::human::{binary_size, go_duration};
use kiln_cli::tabs::Tabs;
use kiln_client::{Device, GcPolicy};
use kiln_progress::Mode;

use super::{platform_names, say};
use crate::build::options;
use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;

pub(crate) async fn run(context: &Context, flags: &Parsed) -> Result<(), Error> {
    let world = &context.world;
    let mut builder = context.find(flags.words.first())?;
    let mut loaded = context.in_time(world.nodes_with_facts(&mut builder)).await?;
    if flags.switch("bootstrap") {
        let nodes = loaded?;
        loaded = match boot(&nodes).await? {
            true => context.in_time(world.nodes_with_facts(&mut builder)).await?,
            false => Ok(nodes),
        };
    }
    let instance = &builder.instance;
    let mut out = format!("Name:\t{}\nDriver:\t{}\n", instance.name, instance.driver);
    if let Some(time) = instance.last_activity {
        let time = time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC");
        out.push_str(&format!("Last Activity:\t{time}\n"));
    }
    match &loaded {
        Err(e) => out.push_str(&format!("Error:\t{e}\n")),
        Ok(nodes) => {
            out.push_str("\nNodes:\n");
            let nodes: Vec<String> = nodes.iter().map(node_text).collect();
            out.push_str(&nodes.join("\n"));
        }
    }
    say(&Tabs::LIST.format(&out))
}

/// Boots what does not run, and shows it; whether there was anything to boot.
pub(super) async fn boot(nodes: &[LoadedNode]) -> Result<bool, Error> {
    let (done, _) = run::shown(Mode::Auto, options(String::new()).0, &[], |updates| async move {
        kiln_builder::boot(nodes, &Steps::new(updates)).await.map_err(Error::Builder)
    })
    .await?;
    done
}

fn node_text(node: &LoadedNode) -> String {
    let n = &node.node;
    let mut out = format!("Name:\t{}\nEndpoint:\t{}\n", n.name, n.endpoint);
    let options: Vec<String> = n.options().map(|(k, v)| format!("{k}={v:?}")).collect();
    if !options.is_empty() {
        out.push_str(&format!("Driver Options:\t{}\n", options.join(" ")));
    }
    match (node.error(), node.known()) {
        (Some(e), _) => out.push_str(&format!("Error:\t{e}\n")),
        (None, Some(facts)) => out.push_str(&facts_text(node, facts)),
        (None, None) => {}
    }
    out
}

fn facts_text(node: &LoadedNode, facts: &Facts) -> String {
    let mut out = format!("Status:\t{}\n", facts.status);
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{key}:\t{value}\n"));
        }
    };
    line("BuildKit daemon flags", node.node.flags().join(" "));
    line("BuildKit version", facts.version.clone());
    line("Platforms", platform_names(node.node.platforms(), &facts.platforms).join(", "));
    if !facts.labels.is_empty() {
        out.push_str("Labels:\n");
    }
    for (key, value) in &facts.labels {
        out.push_str(&format!("\t{key}:\t{value}\n"));
    }
    if !facts.devices.is_empty() {
        out.push_str("Devices:\n");
    }
    facts.devices.iter().for_each(|d| out.push_str(&device_text(d)));
    for (i, rule) in facts.gc.iter().enumerate() {
        out.push_str(&format!("GC Policy rule#{i}:\n{}", rule_text(rule)));
    }
    for (name, data) in node.node.files() {
        out.push_str(&format!("File#{name}:\n"));
        for text in String::from_utf8_lossy(data).split('\n') {
            out.push_str(&format!("\t> {text}\n"));
        }
    }
    out
}

fn device_text(d: &Device) -> String {
    let (key, value) = match d.on_demand {
        true => ("On-Demand", true),
        false => ("Automatically allowed", d.auto_allow),
    };
    let mut out = format!("\tName:\t{}\n\t{key}:\t{value}\n", d.name);
    if !d.annotations.is_empty() {
        out.push_str("\tAnnotations:\n");
    }
    d.annotations.iter().for_each(|(key, value)| out.push_str(&format!("\t\t{key}:\t{value}\n")));
    out
}

fn rule_text(rule: &GcPolicy) -> String {
    let mut out = format!("\tAll:\t{}\n", rule.all);
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            out.push_str(&format!("\t{key}:\t{value}\n"));
        }
    };
    let size = |n: i64| (n > 0).then(|| binary_size(n));
    line("Filters", (!rule.filters.is_empty()).then(|| rule.filters.join(" ")));
    line("Keep Duration", (!rule.keep_duration.is_zero()).then(|| go_duration(rule.keep_duration)));
    line("Reserved Space", size(rule.reserved_space));
    line("Max Used Space", size(rule.max_used_space));
    line("Min Free Space", size(rule.min_free_space));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let device = Device {
            name: "v/d=x".into(),
            auto_allow: true,
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            on_demand: false,
        };
        let text = "\tName:\tv/d=x\n\tAutomatically allowed:\ttrue\n\tAnnotations:\n\t\ta:\tb\n";
        assert_eq!(device_text(&device), text);
    }
}
