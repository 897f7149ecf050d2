//! Flags over the file.

use crate::config::{Config, DiskSpace, Worker};
use crate::options::{OciOptions, Options, OptionsError};

/// Puts the flags that were given into the configuration.
///
/// # Errors
/// If a value cannot be read.
pub(crate) fn apply(o: &Options, c: &mut Config) -> Result<(), OptionsError> {
    replace(&mut c.root, &o.root);
    replace(&mut c.log.format, &o.log_format);
    if c.log.level.is_none() {
        c.log.level = level(c.debug, c.trace);
    }
    replace(&mut c.log.level, &level(o.debug, o.trace));
    replace(&mut c.log.level, &o.log_level);
    replace_list(&mut c.grpc.address, &o.addr);
    replace(&mut c.grpc.debug_address, &o.debug_addr);
    if let Some(group) = given(&o.group) {
        c.grpc.gid = Some(gid(group)?);
    }
    replace(&mut c.grpc.tls.cert, &o.tls_cert);
    replace(&mut c.grpc.tls.key, &o.tls_key);
    replace(&mut c.grpc.tls.ca, &o.tls_ca);
    replace_list(&mut c.insecure_entitlements, &o.allow_insecure_entitlements);
    c.proxy_network = o.proxy_network.unwrap_or(c.proxy_network);
    replace(&mut c.otel.socket_path, &o.otel_socket_path);
    replace(&mut c.cdi.disabled, &o.cdi_disabled);
    replace_list(&mut c.cdi.spec_dirs, &o.cdi_spec_dirs);
    if let Some(enabled) = &o.containerd_worker {
        c.worker.containerd.enabled = bool_or_auto("--containerd-worker", enabled)?;
    }
    oci(&o.oci, o.rootless, &mut c.worker.oci)
}

fn oci(o: &OciOptions, rootless: Option<bool>, c: &mut Worker) -> Result<(), OptionsError> {
    if let Some(enabled) = &o.enabled {
        c.enabled = bool_or_auto("--oci-worker", enabled)?;
    }
    c.labels.extend(o.labels.clone());
    replace_list(&mut c.platforms, &o.platforms);
    replace(&mut c.snapshotter, &o.snapshotter);
    replace(&mut c.proxy_snapshotter_path, &o.proxy_snapshotter_path);
    replace(&mut c.network_mode, &o.network);
    replace(&mut c.cni_config_path, &o.cni_config_path);
    replace(&mut c.cni_binary_path, &o.cni_binary_dir);
    replace(&mut c.cni_pool_size, &o.cni_pool_size);
    replace(&mut c.binary, &o.binary);
    replace(&mut c.apparmor_profile, &o.apparmor_profile);
    c.selinux = o.selinux.unwrap_or(c.selinux);
    replace(&mut c.max_parallelism, &o.max_parallelism);
    c.rootless = o.rootless.or(rootless).unwrap_or(c.rootless);
    c.no_process_sandbox = o.no_process_sandbox.unwrap_or(c.no_process_sandbox);
    replace(&mut c.gc, &o.gc);
    if let Some(text) = given(&o.gc_keepstorage) {
        let (reserved, free, maximum) = keep_storage(text)?;
        (c.reserved_space, c.min_free_space, c.max_used_space) = (Some(reserved), free, maximum);
    }
    Ok(())
}

fn replace<T: Clone>(place: &mut Option<T>, flag: &Option<T>) {
    if flag.is_some() {
        place.clone_from(flag);
    }
}

fn replace_list(place: &mut Vec<String>, flags: &[String]) {
    if !flags.is_empty() {
        *place = flags.to_vec();
    }
}

/// A text that says something.
pub(crate) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|t| !t.is_empty())
}

fn level(debug: bool, trace: bool) -> Option<String> {
    let name = if trace { "trace" } else { "debug" };
    (debug || trace).then(|| name.into())
}

/// `None` is auto.
fn bool_or_auto(flag: &'static str, text: &str) -> Result<Option<bool>, OptionsError> {
    match text.to_ascii_lowercase().as_str() {
        "" | "auto" => Ok(None),
        "true" | "1" | "t" => Ok(Some(true)),
        "false" | "0" | "f" => Ok(Some(false)),
        _ => Err(OptionsError::Value { what: flag, value: text.into(), known: "true, false, auto" }),
    }
}

/// `Reserved[,Free[,Maximum]]`, each in units of 10^6 bytes.
fn keep_storage(text: &str) -> Result<(DiskSpace, Option<DiskSpace>, Option<DiskSpace>), OptionsError> {
    let wrong = || {
        let form = "expected Reserved[,Free[,Maximum]] in MB";
        OptionsError::Invalid(format!("--oci-worker-gc-keepstorage {text:?}: {form}"))
    };
    let parts = text.split(',').map(|part| part.trim().parse::<u64>());
    let parts = parts.map(|n| n.ok().and_then(|n| n.checked_mul(1_000_000)).map(DiskSpace::Bytes));
    match parts.collect::<Option<Vec<_>>>().ok_or_else(wrong)?.as_slice() {
        [reserved] => Ok((*reserved, None, None)),
        [reserved, free] => Ok((*reserved, Some(*free), None)),
        [reserved, free, maximum] => Ok((*reserved, Some(*free), Some(*maximum))),
        _ => Err(wrong()),
    }
}

/// The number of a group, by number or by its name in `/etc/group`.
fn gid(group: &str) -> Result<u32, OptionsError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let wrong = |why: String| OptionsError::Invalid(format!("--group {group}: {why}"));
    let text = std::fs::read_to_string("/etc/group").map_err(|e| wrong(format!("read /etc/group: {e}")))?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.ok_or_else(|| wrong("no such group".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_and_what_is_not_given_stays() {
        let text = "root = \"/f\"\ninsecure-entitlements = [\"device\"]\n[grpc]\naddress = [\"unix:///f\"]\n\
                    [log]\nlevel = \"warn\"\n[worker.oci]\nsnapshotter = \"native\"\nlabels = { a = \"f\", b = \"f\" }\n";
        let (mut c, _) = crate::config::parse(text).unwrap();
        let oci = OciOptions {
            labels: [("b".into(), "flag".into())].into(),
            gc_keepstorage: Some("5,6".into()),
            enabled: Some("TRUE".into()),
            ..OciOptions::default()
        };
        let o = Options {
            addr: vec!["unix:///flag".into()],
            debug: true,
            group: Some("0".into()),
            oci,
            ..Options::default()
        };
        apply(&o, &mut c).unwrap();
        assert_eq!(c.root.unwrap(), std::path::Path::new("/f"));
        assert_eq!((c.grpc.address, c.grpc.gid), (vec!["unix:///flag".to_string()], Some(0)));
        assert_eq!(c.log.level.as_deref(), Some("debug"));
        assert_eq!(c.insecure_entitlements, ["device"]);
        let w = c.worker.oci;
        assert_eq!((w.snapshotter.as_deref(), w.enabled), (Some("native"), Some(true)));
        assert_eq!((w.labels["a"].as_str(), w.labels["b"].as_str()), ("f", "flag"));
        assert_eq!(w.reserved_space, Some(DiskSpace::Bytes(5_000_000)));
        assert_eq!((w.min_free_space, w.max_used_space), (Some(DiskSpace::Bytes(6_000_000)), None));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |o: Options| apply(&o, &mut Config::default()).unwrap_err().to_string();
        let oci = |oci| Options { oci, ..Options::default() };
        let wrong = error(oci(OciOptions { enabled: Some("yes".into()), ..OciOptions::default() }));
        assert_eq!(wrong, "invalid --oci-worker \"yes\": one of true, false, auto");
        for text in ["x", "1,2,3,4", "-1", "1,,2", "99999999999999999"] {
            let wrong = error(oci(OciOptions { gc_keepstorage: Some(text.into()), ..OciOptions::default() }));
            assert!(wrong.starts_with("--oci-worker-gc-keepstorage"), "{wrong}");
        }
        let wrong = error(Options { group: Some("no-such-group".into()), ..Options::default() });
        assert_eq!(wrong, "--group no-such-group: no such group");
        assert_eq!(gid("root").unwrap(), 0);
    }
}
