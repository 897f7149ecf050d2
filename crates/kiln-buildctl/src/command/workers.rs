//! `buildctl debug workers`, which probes use: it succeeds when the daemon is able to work.

use super::{format, info, print, print_formatted};
use crate::cli::Values;
use crate::connect::Daemon;
use crate::error::{Call, Error};
use kiln_cli::human::{exact_size, go_duration};
use kiln_cli::tabs::Tabs;
use kiln_cli::template::{Nil, Struct, Value};
use kiln_client::{Device, GcPolicy, Worker};
use kiln_oci::Platform;

pub(super) async fn run(values: &Values, daemon: &Daemon) -> Result<(), Error> {
    let client = daemon.client(Call::Unary("failed to list workers")).await?;
    let workers = client.workers(values.list("filter")).await?;
    if let Some(template) = format(values)? {
        return print_formatted(&template, &workers.iter().map(value).collect::<Vec<_>>().into());
    }
    print(&Tabs::USAGE.format(&if values.is("verbose") { verbose(&workers) } else { table(&workers) }))
}

fn platforms(list: &[Platform]) -> String {
    list.iter().map(|p| p.normalize().to_string()).collect::<Vec<_>>().join(",")
}

fn table(workers: &[Worker]) -> String {
    let rows = workers.iter().map(|w| format!("{}\t{}\n", w.id, platforms(&w.platforms)));
    std::iter::once("ID\tPLATFORMS\n".to_string()).chain(rows).collect()
}

fn verbose(workers: &[Worker]) -> String {
    let mut out = String::new();
    for w in workers {
        let version = info::line(&w.version.clone().unwrap_or_default());
        out.push_str(&format!("ID:\t{}\nPlatforms:\t{}\n", w.id, platforms(&w.platforms)));
        out.push_str(&format!("BuildKit:\t{version}\nLabels:\n"));
        for (key, value) in &w.labels {
            out.push_str(&format!("\t{key}:\t{value}\n"));
        }
        if !w.devices.is_empty() {
            out.push_str("Devices:\n");
            w.devices.iter().for_each(|d| out.push_str(&device(d)));
            out.push('\n');
        }
        for (number, rule) in w.gc_policy.iter().enumerate() {
            out.push_str(&policy(number, rule));
        }
        out.push('\n');
    }
    out
}

fn device(d: &Device) -> String {
    let (key, value) = if d.on_demand { ("OnDemand", true) } else { ("AutoAllow", d.auto_allow) };
    let mut out = format!("\tName:\t{}\n\t{key}:\t{value}\n", d.name);
    d.annotations.iter().for_each(|(k, v)| out.push_str(&format!("\tAnnotations:\t{k}:\t{v}\n")));
    out
}

fn policy(number: usize, rule: &GcPolicy) -> String {
    let mut out = format!("GC Policy rule#{number}:\n\tAll:\t{}\n", rule.all);
    let mut line = |key: &str, value: String| out.push_str(&format!("\t{key}:\t{value}\n"));
    if !rule.filters.is_empty() {
        line("Filters", rule.filters.join(" "));
    }
    if !rule.keep_duration.is_zero() {
        line("Keep duration", go_duration(rule.keep_duration));
    }
    let spaces = [
        ("Reserved space", rule.reserved_space),
        ("Minimum free space", rule.min_free_space),
        ("Maximum used space", rule.max_used_space),
    ];
    spaces.into_iter().filter(|(_, bytes)| *bytes > 0).for_each(|(key, bytes)| line(key, exact_size(bytes)));
    out
}

fn value(w: &Worker) -> Value {
    let gc: Vec<Value> = w.gc_policy.iter().map(policy_value).collect();
    let devices = match w.devices.as_slice() {
        [] => Value::Nil(Nil::List),
        all => all.iter().map(device_value).collect::<Vec<_>>().into(),
    };
    let list = |list: Vec<Value>| if list.is_empty() { Value::List(Vec::new()) } else { list.into() };
    Struct::new("*client.WorkerInfo")
        .with("ID", "id", w.id.as_str())
        .with("Labels", "labels", &w.labels)
        .with("Platforms", "platforms", w.platforms.iter().map(platform_value).collect::<Vec<_>>())
        .with("GCPolicy", "gcPolicy", list(gc))
        .with("BuildkitVersion", "buildkitVersion", info::value(&w.version.clone().unwrap_or_default()))
        .with("CDIDevices", "cdiDevices", devices)
        .into()
}

fn device_value(d: &Device) -> Value {
    Struct::new("client.CDIDevice")
        .with("Name", "name", d.name.as_str())
        .with("AutoAllow", "autoAllow", d.auto_allow)
        .with("Annotations", "annotations", &d.annotations)
        .with("OnDemand", "onDemand", d.on_demand)
        .into()
}

fn platform_value(p: &Platform) -> Value {
    Struct::new("v1.Platform")
        .with("Architecture", "architecture", p.architecture.as_str())
        .with("OS", "os", p.os.as_str())
        .omit("OSVersion", "os.version", p.os_version.as_str())
        .omit("OSFeatures", "os.features", p.os_features.as_slice())
        .omit("Variant", "variant", p.variant.as_str())
        .into()
}

fn policy_value(p: &GcPolicy) -> Value {
    let nanos = i64::try_from(p.keep_duration.as_nanos()).unwrap_or(i64::MAX);
    Struct::new("client.PruneInfo")
        .with("All", "all", p.all)
        .with("Filter", "filter", p.filters.as_slice())
        .with("KeepDuration", "keepDuration", nanos)
        .with("ReservedSpace", "reservedSpace", p.reserved_space)
        .with("MaxUsedSpace", "maxUsedSpace", p.max_used_space)
        .with("MinFreeSpace", "minFreeSpace", p.min_free_space)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn everything_about_a_worker() {
        let worker = Worker {
            id: "w".into(),
            labels: [("a.b".to_string(), "x".to_string())].into(),
            platforms: vec![Platform {
                os: "linux".into(),
                architecture: "amd64".into(),
                ..Platform::default()
            }],
            gc_policy: vec![GcPolicy {
                filters: vec!["type==source.local".into()],
                keep_duration: Duration::from_secs(172_800),
                max_used_space: 512_000_000,
                ..GcPolicy::default()
            }],
            version: None,
            devices: Vec::new(),
        };
        assert_eq!(
            Tabs::USAGE.format(&verbose(std::slice::from_ref(&worker))),
            "ID:\t\tw\nPlatforms:\tlinux/amd64\nBuildKit:\t  \nLabels:\n\ta.b:\tx\nGC Policy rule#0:\n\tAll:\t\t\tfalse\n\tFilters:\t\ttype==source.local\n\tKeep duration:\t\t48h0m0s\n\tMaximum used space:\t512MB\n\n"
        );
        assert_eq!(
            value(&worker).json().to_string(),
            "{\"id\":\"w\",\"labels\":{\"a.b\":\"x\"},\"platforms\":[{\"architecture\":\"amd64\",\"os\":\"linux\"}],\"gcPolicy\":[{\"all\":false,\"filter\":[\"type==source.local\"],\"keepDuration\":172800000000000,\"reservedSpace\":0,\"maxUsedSpace\":512000000,\"minFreeSpace\":0}],\"buildkitVersion\":{\"package\":\"\",\"version\":\"\",\"revision\":\"\"},\"cdiDevices\":null}"
        );
    }
}
