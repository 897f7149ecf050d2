//! `--driver-opt` of driver docker-container.

use kiln_go::units::parse_bytes;
use serde_json::{Value, json};

use super::boolean;
use crate::Error;
use crate::instance::Node;

/// What a container is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) image: Option<String>,
    pub(super) default_load: bool,
    pub(super) cgroup_parent: Option<String>,
    /// `NAME=VALUE`
    env: Vec<String>,
    network: Option<String>,
    restart: Restart,
    memory: Option<i64>,
    memory_swap: Option<i64>,
    cpu_period: Option<i64>,
    cpu_quota: Option<i64>,
    cpu_shares: Option<i64>,
    cpuset_cpus: Option<String>,
    cpuset_mems: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Restart {
    name: String,
    retries: i64,
}

impl Default for Restart {
    fn default() -> Self {
        Self { name: "unless-stopped".into(), retries: 0 }
    }
}

impl Options {
    pub(super) fn new(node: &Node) -> Result<Self, Error> {
        let mut o = Self::default();
        for (name, value) in node.options() {
            let text = || Some(value.to_owned());
            let number = || {
                let wrong = |_| Error::Invalid(format!("driver option {name}: {value:?} is not a number"));
                value.parse().map(Some).map_err(wrong)
            };
            let size = || {
                let wrong = || Error::Invalid(format!("driver option {name}: invalid size: '{value}'"));
                parse_bytes(value).map(Some).ok_or_else(wrong)
            };
            match name {
                "network" => o.network = text(),
                "image" => o.image = text(),
                "memory" => o.memory = size()?,
                "memory-swap" if value == "-1" => o.memory_swap = Some(-1),
                "memory-swap" => o.memory_swap = size()?,
                "cpu-period" => o.cpu_period = number()?,
                "cpu-quota" => o.cpu_quota = number()?,
                "cpu-shares" => o.cpu_shares = number()?,
                "cpuset-cpus" => o.cpuset_cpus = text(),
                "cpuset-mems" => o.cpuset_mems = text(),
                "cgroup-parent" => o.cgroup_parent = text(),
                "restart-policy" => o.restart = restart(value)?,
                "default-load" => o.default_load = boolean(name, value)?,
                // Nothing is verified or attested here yet, so there is nothing to turn off.
                "provenance-add-gha" | "allow-untrusted-image" => drop(boolean(name, value)?),
                "env." => {
                    return Err(Error::Invalid(format!(
                        "invalid env option {name:?}, expecting env.FOO=bar"
                    )));
                }
                _ => match name.strip_prefix("env.") {
                    Some(variable) => o.env.push(format!("{variable}={value}")),
                    None => {
                        return Err(Error::Invalid(format!(
                            "invalid driver option {name} for docker-container driver"
                        )));
                    }
                },
            }
        }
        Ok(o)
    }

    /// `Config` of the container.
    pub(super) fn config(&self, image: &str, command: &[String]) -> Value {
        json!({"Image": image, "Env": self.env, "Cmd": command})
    }

    /// `HostConfig` of the container, with a volume for the daemon's state.
    pub(super) fn host(&self, volume: &str, state_dir: &str) -> Value {
        let mut host = json!({
            "Privileged": true,
            // Reaps what build steps leave behind.
            "Init": true,
            "RestartPolicy": {"Name": self.restart.name, "MaximumRetryCount": self.restart.retries},
            "Mounts": [{"Type": "volume", "Source": volume, "Target": state_dir}],
        });
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                host[key] = value;
            }
        };
        set("NetworkMode", self.network.clone().map(Value::from));
        set("Memory", self.memory.map(Value::from));
        set("MemorySwap", self.memory_swap.map(Value::from));
        set("CpuPeriod", self.cpu_period.map(Value::from));
        set("CpuQuota", self.cpu_quota.map(Value::from));
        set("CpuShares", self.cpu_shares.map(Value::from));
        set("CpusetCpus", self.cpuset_cpus.clone().map(Value::from));
        set("CpusetMems", self.cpuset_mems.clone().map(Value::from));
        host
    }
}

/// `no`, `always`, `unless-stopped`, `on-failure[:N]`.
fn restart(text: &str) -> Result<Restart, Error> {
    let (name, retries) = text.split_once(':').map_or((text, None), |(n, r)| (n, Some(r)));
    let wrong = |why: &str| Error::Invalid(format!("invalid restart policy {text:?}: {why}"));
    if !["no", "always", "unless-stopped", "on-failure"].contains(&name) {
        return Err(wrong("expected no, always, unless-stopped or on-failure[:N]"));
    }
    let retries = match retries {
        None => 0,
        Some(_) if name != "on-failure" => return Err(wrong("only on-failure has a number of retries")),
        Some(n) => n.parse().map_err(|_| wrong("maximum retry count must be an integer"))?,
    };
    Ok(Restart { name: name.to_owned(), retries })
}
