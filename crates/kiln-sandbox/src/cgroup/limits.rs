//! What is written where for each limit, in both versions.

use crate::error::SandboxError;
use crate::spec::Resources;
use kiln_sys::bpf::{Access, DeviceKind, DeviceRule};

/// File names and what is written into them, in order.
pub(super) type Files = Vec<(String, String)>;

/// A controller that has a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) controller: &'static str,
    pub(super) v1: Files,
    pub(super) v2: Files,
}

/// The controllers with a limit. Zero counts as not set, as in the wire form.
pub(super) fn wanted(resources: &Resources) -> Result<Vec<Controller>, SandboxError> {
    let all = [memory(resources)?, cpu(resources), cpuset(resources), pids(resources)];
    Ok(all.into_iter().flatten().collect())
}

fn files(list: &[(&str, Option<String>)]) -> Files {
    list.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?))).collect()
}

fn set<T: Default + PartialEq + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|v| *v != T::default())
}

fn memory(r: &Resources) -> Result<Option<Controller>, SandboxError> {
    let (memory, both) = (set(r.memory), set(r.memory_swap));
    if memory.is_none() && both.is_none() {
        return Ok(None);
    }
    // v1 limits memory and swap together, v2 swap alone.
    let swap = match (both, memory) {
        (None, _) => None,
        (Some(-1), _) => Some("max".to_owned()),
        (Some(both), Some(memory)) if both >= memory && memory > 0 => Some((both - memory).to_string()),
        _ => {
            return Err(SandboxError::invalid(
                "resources",
                "the limit of memory and swap together needs a memory limit that is not larger",
            ));
        }
    };
    let or_max = |v: i64| if v < 0 { "max".to_owned() } else { v.to_string() };
    Ok(Some(Controller {
        controller: "memory",
        v1: files(&[
            ("memory.limit_in_bytes", memory.map(|m| m.to_string())),
            ("memory.memsw.limit_in_bytes", both.map(|b| b.to_string())),
        ]),
        v2: files(&[("memory.max", memory.map(or_max)), ("memory.swap.max", swap)]),
    }))
}

fn cpu(r: &Resources) -> Option<Controller> {
    let (shares, quota, period) = (set(r.cpu_shares), set(r.cpu_quota), set(r.cpu_period));
    if shares.is_none() && quota.is_none() && period.is_none() {
        return None;
    }
    // The mapping every runtime uses: 2..=262144 onto 1..=10000.
    let weight = shares.map(|s| 1 + (s.clamp(2, 262_144) - 2) * 9999 / 262_142);
    let max = (quota.is_some() || period.is_some()).then(|| {
        let quota = quota.filter(|q| *q > 0).map_or("max".to_owned(), |q| q.to_string());
        format!("{quota} {}", period.unwrap_or(100_000))
    });
    Some(Controller {
        controller: "cpu",
        v1: files(&[
            ("cpu.shares", shares.map(|s| s.to_string())),
            // Before the quota: it is checked against the period.
            ("cpu.cfs_period_us", period.map(|p| p.to_string())),
            ("cpu.cfs_quota_us", quota.map(|q| q.to_string())),
        ]),
        v2: files(&[("cpu.weight", weight.map(|w| w.to_string())), ("cpu.max", max)]),
    })
}

fn cpuset(r: &Resources) -> Option<Controller> {
    let given = |v: &Option<String>| v.clone().filter(|v| !v.is_empty());
    let both = files(&[("cpuset.cpus", given(&r.cpuset_cpus)), ("cpuset.mems", given(&r.cpuset_mems))]);
    (!both.is_empty()).then(|| Controller { controller: "cpuset", v1: both.clone(), v2: both })
}

fn pids(r: &Resources) -> Option<Controller> {
    let pids = set(r.pids)?;
    let max = if pids < 0 { "max".to_owned() } else { pids.to_string() };
    let both = files(&[("pids.max", Some(max))]);
    Some(Controller { controller: "pids", v1: both.clone(), v2: both })
}

/// For the v1 controller of devices: making nodes is allowed (they are opened through it again), and what is listed
/// (the kernel's cgroup-v1/devices.rst).
pub(super) fn device_files(allowed: &[DeviceRule]) -> Files {
    let allow = |what: String| ("devices.allow".to_owned(), what);
    let rule = |r: &DeviceRule| {
        let kind = match r.kind {
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let minor = r.minor.map_or("*".to_owned(), |minor| minor.to_string());
        let Access { read, write } = r.access;
        allow(format!(
            "{kind} {}:{minor} {}{}m",
            r.major,
            if read { "r" } else { "" },
            if write { "w" } else { "" }
        ))
    };
    let any_node = ["b *:* m", "c *:* m"].map(|all| allow(all.to_owned()));
    let nothing = ("devices.deny".to_owned(), "a".to_owned());
    std::iter::once(nothing).chain(any_node).chain(allowed.iter().map(rule)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(files: &Files) -> String {
        files.iter().map(|(f, v)| format!("{f}={v}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nothing_set_wants_nothing() {
        assert_eq!(wanted(&Resources::default()).unwrap(), []);
        let zero = Resources { memory: Some(0), cpu_shares: Some(0), ..Resources::default() };
        assert_eq!(wanted(&zero).unwrap(), []);
    }

    #[test]
    fn every_limit_has_its_files() {
        let r = Resources {
            memory: Some(1000),
            memory_swap: Some(1500),
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: None,
            pids: Some(-1),
        };
        let wanted = wanted(&r).unwrap();
        let lines: Vec<_> =
            wanted.iter().map(|c| format!("{}: {} | {}", c.controller, text(&c.v1), text(&c.v2))).collect();
        assert_eq!(
            lines,
            [
                "memory: memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1500 | memory.max=1000 memory.swap.max=500",
                "cpu: cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 | cpu.weight=39 cpu.max=50000 100000",
                "cpuset: cpuset.cpus=0-1 | cpuset.cpus=0-1",
                "pids: pids.max=max | pids.max=max",
            ]
        );
    }

    #[test]
    fn devices_are_denied_before_some_are_allowed() {
        let rule = |minor, read, write| DeviceRule {
            kind: DeviceKind::Char,
            major: 1,
            minor,
            access: Access { read, write },
        };
        let files = device_files(&[rule(Some(3), true, true), rule(None, true, false)]);
        assert_eq!(
            text(&files),
            "devices.deny=a devices.allow=b *:* m devices.allow=c *:* m devices.allow=c 1:3 rwm devices.allow=c 1:* rm"
        );
    }

    #[test]
    fn swap_below_memory_is_refused() {
        for memory in [None, Some(2000)] {
            let r = Resources { memory, memory_swap: Some(1500), ..Resources::default() };
            assert!(wanted(&r).is_err());
        }
        let unlimited = Resources { memory: Some(5), memory_swap: Some(-1), ..Resources::default() };
        assert_eq!(text(&wanted(&unlimited).unwrap()[0].v2), "memory.max=5 memory.swap.max=max");
    }
}
