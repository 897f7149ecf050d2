//! `--resource`, `--ulimit`, `--shm-size`, `--add-host`: limits and files of the steps.

use super::args::BuildArgs;
use crate::error::CliError;
use crate::pairs::unknown;
use kiln_go::units::parse_bytes;
use kiln_llb::Ulimit;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Keys of `--resource` and the frontend's names for them.
const RESOURCES: [(&str, &str); 7] = [
    ("memory", "memory"),
    ("memory-swap", "memswap"),
    ("cpu-shares", "cpushares"),
    ("cpu-period", "cpuperiod"),
    ("cpu-quota", "cpuquota"),
    ("cpuset-cpus", "cpusetcpus"),
    ("cpuset-mems", "cpusetmems"),
];

/// Adds the frontend options of all of them.
pub(crate) fn add(args: &BuildArgs, attrs: &mut BTreeMap<String, String>) -> Result<(), CliError> {
    for entry in &args.resource {
        resource(entry, attrs)?;
    }
    let old = &args.old;
    let old = [
        ("memory", &old.memory),
        ("memory-swap", &old.memory_swap),
        ("cpu-shares", &old.cpu_shares),
        ("cpu-period", &old.cpu_period),
        ("cpu-quota", &old.cpu_quota),
        ("cpuset-cpus", &old.cpuset_cpus),
        ("cpuset-mems", &old.cpuset_mems),
    ];
    for (key, value) in old {
        if let Some(value) = value {
            resource(&format!("{key}={value}"), attrs)?;
        }
    }
    if let Some(size) = &args.shm_size {
        let bytes =
            parse_bytes(size).ok_or_else(|| wrong("--shm-size", size, "expected a size such as 128m"))?;
        attrs.insert("shm-size".into(), bytes.to_string());
    }
    if !args.ulimit.is_empty() {
        let list: Vec<String> = args.ulimit.iter().map(|u| ulimit(u)).collect::<Result<_, _>>()?;
        attrs.insert("ulimit".into(), list.join(","));
    }
    if let Some(parent) = &args.cgroup_parent {
        attrs.insert("cgroup-parent".into(), parent.clone());
    }
    let mut hosts = Vec::new();
    for entry in args.add_host.iter().flat_map(|e| split_hosts(e)) {
        hosts.extend(host(entry)?);
    }
    if !hosts.is_empty() {
        attrs.insert("add-hosts".into(), hosts.join(","));
    }
    Ok(())
}

fn wrong(flag: &'static str, value: &str, why: impl Into<String>) -> CliError {
    CliError::Value { flag, value: value.to_owned(), why: why.into() }
}

fn resource(entry: &str, attrs: &mut BTreeMap<String, String>) -> Result<(), CliError> {
    let flag = "--resource";
    let (key, value) = entry.split_once('=').ok_or_else(|| wrong(flag, entry, "expected NAME=VALUE"))?;
    let (key, value) = (key.trim(), value.trim());
    let names = RESOURCES.map(|(name, _)| name);
    let known = RESOURCES.iter().find(|(name, _)| *name == key);
    let (_, attr) = known.ok_or_else(|| wrong(flag, entry, unknown("resource", key, &names)))?;
    let value = match key {
        "memory-swap" if value == "-1" => value.to_owned(),
        "memory" | "memory-swap" => {
            parse_bytes(value).ok_or_else(|| wrong(flag, entry, "expected a size such as 2g"))?.to_string()
        }
        "cpuset-cpus" | "cpuset-mems" => value.to_owned(),
        _ => value.parse::<i64>().map_err(|_| wrong(flag, entry, "expected a number"))?.to_string(),
    };
    // Zero means no limit, and is not sent.
    if !value.is_empty() && value != "0" {
        attrs.insert((*attr).to_owned(), value);
    }
    Ok(())
}

fn ulimit(entry: &str) -> Result<String, CliError> {
    let flag = "--ulimit";
    let (name, limits) =
        entry.split_once('=').ok_or_else(|| wrong(flag, entry, "expected NAME=SOFT[:HARD]"))?;
    if !Ulimit::NAMES.contains(&name) {
        return Err(wrong(flag, entry, unknown("ulimit", name, &Ulimit::NAMES)));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number =
        |text: &str| text.parse::<i64>().map_err(|_| wrong(flag, entry, "limits are numbers, -1 for none"));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(wrong(flag, entry, "the soft limit is above the hard one"));
    }
    Ok(format!("{name}={soft}:{hard}"))
}

/// Several entries may be in one value, at commas; commas between addresses of one host separate nothing.
fn split_hosts(entry: &str) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::new();
    let mut start = 0;
    for (at, _) in entry.match_indices(',') {
        let next = &entry[at + 1..];
        let part = next.split(',').next().unwrap_or_default();
        if part.contains('=')
            || (part.contains(':') && part.trim_matches(['[', ']']).parse::<IpAddr>().is_err())
        {
            out.push(&entry[start..at]);
            start = at + 1;
        }
    }
    out.push(&entry[start..]);
    out
}

/// `host=ip[,ip]` or `host:ip` as `host=ip` entries.
fn host(entry: &str) -> Result<Vec<String>, CliError> {
    let flag = "--add-host";
    let (name, addresses) = entry
        .split_once('=')
        .or_else(|| entry.split_once(':'))
        .filter(|(name, ip)| !name.is_empty() && !ip.is_empty())
        .ok_or_else(|| wrong(flag, entry, "expected HOST:IP"))?;
    if addresses == "host-gateway" {
        return Err(wrong(flag, entry, "host-gateway is not supported; name the address itself"));
    }
    addresses
        .split(',')
        .map(|ip| {
            let bare = ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(ip);
            match bare.parse::<IpAddr>() {
                Ok(_) => Ok(format!("{name}={bare}")),
                Err(_) => Err(wrong(flag, entry, format!("'{bare}' is not an IP address"))),
            }
        })
        .collect()
}
