//! Limits of steps.

use kiln_go::{csv, quote};
use kiln_llb::{LinuxResources, Ulimit};
use std::collections::BTreeMap;

/// The largest CPU or memory node that may be named.
const MAX_CPU: u32 = 8192;

pub(super) fn shm_size(v: &str) -> Result<u64, String> {
    if v.is_empty() {
        return Ok(0);
    }
    let n: i64 = v.parse().map_err(|_| format!("{} is not a number of bytes", quote(v)))?;
    Ok(u64::try_from(n).unwrap_or(0))
}

pub(super) fn ulimits(v: &str) -> Result<Vec<Ulimit>, String> {
    if v.is_empty() {
        return Ok(Vec::new());
    }
    csv::fields(v).map_err(|e| e.to_string())?.iter().map(|f| ulimit(f)).collect()
}

fn ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !Ulimit::NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |s: &str| s.parse::<i64>().map_err(|_| format!("{} is not a number", quote(s)));
    let parts: Vec<&str> = limits.split(':').collect();
    let (soft, hard) = match parts[..] {
        [both] => (number(both)?, number(both)?),
        [soft, hard] => (number(soft)?, number(hard)?),
        _ => {
            return Err(format!(
                "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
            ));
        }
    };
    let rule = "ulimit soft limit must be less than or equal to hard limit";
    if hard != -1 && soft == -1 {
        return Err(format!("{rule}: soft: -1 (unlimited), hard: {hard}"));
    }
    if hard != -1 && soft > hard {
        return Err(format!("{rule}: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_string(), soft, hard })
}

pub(super) fn resources(raw: &BTreeMap<String, String>) -> Result<Option<LinuxResources>, String> {
    let given = |key: &str| raw.get(key).filter(|v| !v.is_empty());
    let number = |key: &str, rule: &str, ok: fn(i64) -> bool| match given(key) {
        None => Ok(0),
        Some(v) => match v.parse::<i64>() {
            Ok(n) if ok(n) => Ok(n),
            Ok(_) => Err(format!("invalid {key} value: {v}: must be {rule}")),
            Err(e) => Err(format!("invalid {key} value: {v}: {e}")),
        },
    };
    let positive = |key: &str| number(key, "> 0", |n| n > 0);
    let unsigned = |key: &str| positive(key).map(i64::unsigned_abs);
    let set = |key: &str| match given(key) {
        None => Ok(String::new()),
        Some(v) => cpuset(v).map(|()| v.clone()).map_err(|e| format!("invalid {key} value: {v}: {e}")),
    };
    let out = LinuxResources {
        memory: positive("memory")?,
        memory_swap: number("memswap", "-1 (unlimited) or > 0", |n| n == -1 || n > 0)?,
        cpu_shares: unsigned("cpushares")?,
        cpu_period: unsigned("cpuperiod")?,
        cpu_quota: positive("cpuquota")?,
        cpuset_cpus: set("cpusetcpus")?,
        cpuset_mems: set("cpusetmems")?,
    };
    Ok((out != LinuxResources::default()).then_some(out))
}

fn cpuset(text: &str) -> Result<(), String> {
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (what, bounds) = match part.split_once('-') {
            None => ("element", part.parse::<u32>().ok().map(|n| (n, n))),
            Some((a, b)) => ("range", a.trim().parse().ok().zip(b.trim().parse().ok())),
        };
        match bounds {
            Some((low, high)) if low <= high && high <= MAX_CPU => {}
            Some((low, high)) if low <= high => {
                return Err(format!("cpuset {what} {} exceeds maximum {MAX_CPU}", quote(part)));
            }
            _ => return Err(format!("invalid cpuset {what} {}", quote(part))),
        }
    }
    Ok(())
}
