//! The OCI configuration of a run: the same sandbox as the launcher's, in the runtimes' words.
//!
//! Format: OCI runtime specification 1.0.2, `config.json`.

use crate::bundle::{Device, Placed};
use crate::child::DOCKER_CAPABILITY_NAMES;
use crate::hooks::OCI_VERSION;
use crate::seccomp::{self, Op};
use crate::spec::{
    DeviceAccess, DeviceNode, IntelRdt, Network, NodeKind, ProcessSpec, ProgramSpec, Resources, Security,
    Ulimit,
};
use kiln_sys::caps;
use serde_json::{Value, json};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Default seccomp answer of Docker's profile.
const EPERM: i32 = 1;

/// Builds `config.json`; `placed` are the mounts as they lie in the bundle.
pub(crate) fn config(spec: &ProcessSpec, rootfs: &Path, placed: &[Placed], own: &[Device]) -> Value {
    let insecure = spec.program.security == Security::Insecure;
    let mut linux = json!({
        "cgroupsPath": cgroups_path(spec),
        "namespaces": namespaces(&spec.network),
        "resources": resources(&spec.resources, insecure, own),
        "devices": own.iter().map(device).collect::<Vec<_>>(),
        "maskedPaths": [],
        "readonlyPaths": [],
    });
    if !insecure {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
        linux["seccomp"] = profile();
    }
    if let Some(rdt) = &spec.intel_rdt {
        linux["intelRdt"] = intel_rdt(rdt);
    }
    let mut mounts = standard_mounts(spec);
    mounts.extend(
        placed.iter().map(
            |p| json!({ "destination": p.dest, "type": p.kind, "source": p.source, "options": p.options }),
        ),
    );
    json!({
        "ociVersion": OCI_VERSION,
        "process": process(&spec.program),
        "root": { "path": rootfs, "readonly": spec.read_only_root },
        "hostname": spec.hostname,
        "mounts": mounts,
        "hooks": spec.hooks,
        "linux": linux,
    })
}

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The `process` of `config.json`, which is also what `exec --process` takes.
pub(super) fn process(spec: &ProgramSpec) -> Value {
    let insecure = spec.security == Security::Insecure;
    let caps: Vec<String> = if insecure {
        let permitted = caps::get().map(|sets| sets.permitted).unwrap_or(caps::Set::empty());
        permitted.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
    } else {
        DOCKER_CAPABILITY_NAMES.iter().map(|name| (*name).to_owned()).collect()
    };
    let inherited = if insecure { caps.clone() } else { Vec::new() };
    let rlimits: Vec<Value> = spec.ulimits.iter().map(rlimit).collect();
    let mut process = json!({
        "terminal": spec.tty.is_some(),
        "user": { "uid": spec.uid, "gid": spec.gid, "additionalGids": spec.additional_gids },
        "args": spec.args,
        "env": spec.env,
        "cwd": spec.cwd,
        "capabilities": {
            "bounding": caps, "permitted": caps, "effective": caps,
            "inheritable": inherited, "ambient": inherited,
        },
        "rlimits": rlimits,
        // Left out rather than false: a runtime is known that then loads seccomp too late.
    });
    if let Some(size) = spec.tty {
        // Runtimes copy their own terminal's size only after the process has started.
        process["consoleSize"] = json!({ "height": size.rows, "width": size.columns });
    }
    process
}

fn rlimit(limit: &Ulimit) -> Value {
    // Unlimited is the largest number.
    let value = |v: i64| u64::try_from(v).unwrap_or(u64::MAX);
    json!({
        "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
        "soft": value(limit.soft),
        "hard": value(limit.hard),
    })
}

fn cgroups_path(spec: &ProcessSpec) -> String {
    let parent = spec.cgroup_parent.as_deref().map(crate::cgroup::normal).unwrap_or_default();
    format!("/{}", parent.join("buildkit").join(&spec.id).display())
}

fn namespaces(network: &Network) -> Vec<Value> {
    let mut kinds = vec!["pid", "ipc", "uts", "mount"];
    let mut given = None;
    match network {
        Network::Host => {}
        Network::None => kinds.push("network"),
        // The descriptor is held as long as the runtime runs.
        Network::Namespace(fd) => {
            let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
            given = Some(json!({ "type": "network", "path": path }));
        }
    }
    // A cgroup namespace on v1 fails for hierarchies the runtime does not know.
    if Path::new("/sys/fs/cgroup/cgroup.subtree_control").exists() {
        kinds.push("cgroup");
    }
    kinds.into_iter().map(|kind| json!({ "type": kind })).chain(given).collect()
}

fn standard_mounts(spec: &ProcessSpec) -> Vec<Value> {
    let insecure = spec.program.security == Security::Insecure;
    let shm = format!("size={}", spec.shm_size.unwrap_or(crate::launcher::SHM_SIZE));
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let mut sys = vec!["nosuid", "noexec", "nodev"];
    if !insecure {
        sys.push("ro");
    }
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &sys),
        mount("/sys/fs/cgroup", "cgroup", &sys),
    ]
}

fn device((path, node): &Device) -> Value {
    let DeviceNode { major, minor, mode, uid, gid, .. } = node;
    json!({
        "path": path, "type": device_type(node), "major": major, "minor": minor,
        "fileMode": mode, "uid": uid, "gid": gid,
    })
}

fn device_type(node: &DeviceNode) -> &'static str {
    match node.kind {
        NodeKind::Block => "b",
        NodeKind::Char => "c",
        NodeKind::Fifo => "p",
    }
}

fn letters(access: DeviceAccess) -> String {
    let DeviceAccess { read, write, mknod } = access;
    [(read, 'r'), (write, 'w'), (mknod, 'm')].into_iter().filter_map(|(set, l)| set.then_some(l)).collect()
}

fn intel_rdt(rdt: &IntelRdt) -> Value {
    let mut out = json!({});
    let texts = [
        ("closID", &rdt.clos_id),
        ("l3CacheSchema", &rdt.l3_cache_schema),
        ("memBwSchema", &rdt.mem_bw_schema),
    ];
    for (key, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
        out[key] = value.as_str().into();
    }
    if !rdt.schemata.is_empty() {
        out["schemata"] = json!(rdt.schemata);
    }
    if rdt.enable_monitoring {
        out["enableMonitoring"] = true.into();
    }
    out
}

fn resources(r: &Resources, insecure: bool, own: &[Device]) -> Value {
    let mut devices = vec![json!({ "allow": insecure, "access": "rwm" })];
    let own = own.iter().filter(|(_, n)| n.kind != NodeKind::Fifo);
    devices.extend(own.map(|(_, n)| {
        let access = letters(n.access);
        json!({ "allow": true, "type": device_type(n), "major": n.major, "minor": n.minor, "access": access })
    }));
    let mut out = json!({ "devices": devices });
    let mut put = |group: &str, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            out[group][key] = value;
        }
    };
    // Zero counts as not set.
    let number = |v: Option<i64>| v.filter(|v| *v != 0).map(Value::from);
    let positive = |v: Option<u64>| v.filter(|v| *v != 0).map(Value::from);
    let text = |v: &Option<String>| v.clone().filter(|v| !v.is_empty()).map(Value::from);
    put("memory", "limit", number(r.memory));
    put("memory", "swap", number(r.memory_swap));
    put("cpu", "shares", positive(r.cpu_shares));
    put("cpu", "quota", number(r.cpu_quota));
    put("cpu", "period", positive(r.cpu_period));
    put("cpu", "cpus", text(&r.cpuset_cpus));
    put("cpu", "mems", text(&r.cpuset_mems));
    put("pids", "limit", number(r.pids));
    out
}

fn profile() -> Value {
    let architectures: Vec<&str> = seccomp::native_architecture()
        .into_iter()
        .chain(seccomp::sub_architectures().iter().map(|(name, _)| *name))
        .collect();
    let syscalls: Vec<Value> = seccomp::rules().iter().map(rule).collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures,
        "syscalls": syscalls,
    })
}

fn rule(rule: &seccomp::Rule) -> Value {
    let mut out = json!({ "names": [rule.name], "action": "SCMP_ACT_ALLOW" });
    if let Some(errno) = rule.refuse {
        out["action"] = "SCMP_ACT_ERRNO".into();
        out["errnoRet"] = errno.into();
    }
    if let Some(c) = rule.condition {
        // For the masked comparison `value` is the mask and `valueTwo` (zero when left out) the result.
        let op = match c.op {
            Op::Less => "SCMP_CMP_LT",
            Op::Greater => "SCMP_CMP_GT",
            Op::Equal => "SCMP_CMP_EQ",
            Op::Without => "SCMP_CMP_MASKED_EQ",
        };
        out["args"] = json!([{ "index": c.index, "value": c.value, "op": op }]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn spec() -> ProcessSpec {
        ProcessSpec::new("id", File::open("/").unwrap().into(), ProgramSpec::new(vec!["true".into()]))
    }

    #[test]
    fn a_sandboxed_step_has_docker_limits() {
        let mut spec = spec();
        spec.cgroup_parent = Some("../up".into());
        spec.program.ulimits = vec![Ulimit { name: "nofile".into(), soft: 5, hard: -1 }];
        spec.resources.memory = Some(9);
        let c = config(&spec, Path::new("/b/rootfs"), &[], &[]);
        assert_eq!(c["linux"]["cgroupsPath"], "/up/buildkit/id");
        assert_eq!(c["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
        assert_eq!(c["process"]["capabilities"]["ambient"], json!([]));
        assert_eq!(c["process"]["rlimits"][0]["type"], "RLIMIT_NOFILE");
        assert_eq!(c["process"]["rlimits"][0]["hard"], u64::MAX);
        assert_eq!(c["linux"]["resources"]["memory"], json!({ "limit": 9 }));
        assert_eq!(c["linux"]["resources"]["devices"][0]["allow"], false);
        assert!(c["linux"]["seccomp"]["syscalls"].as_array().unwrap().len() > 300);
        assert_eq!(c["linux"]["maskedPaths"].as_array().unwrap().len(), 11);
        assert!(c["process"].get("noNewPrivileges").is_none());
        assert!(c["process"].get("consoleSize").is_none());
        spec.program.tty = Some(crate::spec::TerminalSize { rows: 33, columns: 111 });
        let c = config(&spec, Path::new("/b/rootfs"), &[], &[]);
        assert_eq!(c["process"]["consoleSize"], json!({ "height": 33, "width": 111 }));
    }

    #[test]
    fn an_insecure_step_has_none() {
        let mut spec = spec();
        spec.program.security = Security::Insecure;
        spec.network = Network::None;
        let c = config(&spec, Path::new("/b/rootfs"), &[], &[]);
        assert!(c["linux"].get("seccomp").is_none());
        assert_eq!(c["linux"]["maskedPaths"], json!([]));
        assert_eq!(c["linux"]["namespaces"][4], json!({ "type": "network" }));
    }
}
