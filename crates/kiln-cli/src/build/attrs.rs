//! Flags to frontend options (spec daemon-and-cli.md section 4, "Build flag mapping").

use super::args::BuildArgs;
use super::context::is_remote;
use super::layout::{self, Layout};
use super::limits;
use super::plan::LocalDir;
use crate::error::CliError;
use crate::pairs::unknown;
use std::collections::BTreeMap;
use std::path::PathBuf;

type Attrs = BTreeMap<String, String>;

/// Environment of the client.
pub type Vars<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Options from all flags that are not about contexts and results.
pub(crate) fn from_flags(args: &BuildArgs, vars: Vars<'_>) -> Result<Attrs, CliError> {
    let mut attrs = Attrs::new();
    build_args(args, vars, &mut attrs)?;
    for label in &args.label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        if key.is_empty() {
            return Err(CliError::Value {
                flag: "--label",
                value: label.clone(),
                why: "the name is missing".into(),
            });
        }
        attrs.insert(format!("label:{key}"), value.to_owned());
    }
    if let Some(target) = args.target.as_ref().filter(|t| !t.is_empty()) {
        attrs.insert("target".into(), target.clone());
    }
    if args.pull {
        attrs.insert("image-resolve-mode".into(), "pull".into());
    }
    if !args.no_cache_filter.is_empty() {
        attrs.insert("no-cache".into(), args.no_cache_filter.join(","));
    }
    if args.no_cache {
        attrs.insert("no-cache".into(), String::new());
    }
    platform(args, vars, &mut attrs)?;
    network(args, &mut attrs)?;
    limits::add(args, &mut attrs)?;
    Ok(attrs)
}

fn build_args(args: &BuildArgs, vars: Vars<'_>, attrs: &mut Attrs) -> Result<(), CliError> {
    for arg in &args.build_arg {
        let (key, value) = match arg.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (arg.as_str(), vars(arg)),
        };
        if key.is_empty() {
            return Err(CliError::Value {
                flag: "--build-arg",
                value: arg.clone(),
                why: "the name is missing".into(),
            });
        }
        // A name without a value that the environment has not either is not passed at all.
        if let Some(value) = value {
            attrs.insert(format!("build-arg:{key}"), value);
        }
    }
    if let Some(epoch) = vars("SOURCE_DATE_EPOCH") {
        attrs.entry("build-arg:SOURCE_DATE_EPOCH".into()).or_insert(epoch);
    }
    if let Some(cmdline) = attrs.get("build-arg:BUILDKIT_SYNTAX").cloned() {
        let source = cmdline.split_whitespace().next().unwrap_or_default().to_owned();
        if source.is_empty() {
            return Err(CliError::Usage("--build-arg BUILDKIT_SYNTAX= is empty".into()));
        }
        attrs.insert("source".into(), source);
        attrs.insert("cmdline".into(), cmdline);
    }
    Ok(())
}

fn platform(args: &BuildArgs, vars: Vars<'_>, attrs: &mut Attrs) -> Result<(), CliError> {
    let given =
        args.platform.first().cloned().or_else(|| vars("DOCKER_DEFAULT_PLATFORM")).filter(|p| !p.is_empty());
    let Some(text) = given else { return Ok(()) };
    let platform =
        if text == "local" { Ok(kiln_oci::Platform::host()) } else { kiln_oci::Platform::parse(&text) };
    let platform = platform.map_err(|e| CliError::Value {
        flag: "--platform",
        value: text.clone(),
        why: e.to_string(),
    })?;
    attrs.insert("platform".into(), platform.normalize().format_all());
    Ok(())
}

fn network(args: &BuildArgs, attrs: &mut Attrs) -> Result<(), CliError> {
    match args.network.as_str() {
        "" | "default" => {}
        mode @ ("none" | "host") => drop(attrs.insert("force-network-mode".into(), mode.to_owned())),
        other => {
            let why = unknown("network mode", other, &["default", "none", "host"]);
            return Err(CliError::Value { flag: "--network", value: other.to_owned(), why });
        }
    }
    Ok(())
}

/// `--allow`, and what `--network host` needs.
pub(crate) fn entitlements(args: &BuildArgs) -> Result<Vec<String>, CliError> {
    const KNOWN: [&str; 3] = ["network.host", "security.insecure", "device"];
    let mut list = Vec::new();
    // A device may be followed by options, which have commas of their own.
    let (devices, names): (Vec<_>, Vec<_>) = args.allow.iter().partition(|a| a.starts_with("device="));
    list.extend(devices.into_iter().cloned());
    for name in names.into_iter().flat_map(|a| a.split(',')) {
        if let Some(value) = name.strip_prefix(super::export::DELETE) {
            if !value.is_empty() {
                return Err(CliError::Usage(format!("{} does not accept a value", super::export::DELETE)));
            }
            continue;
        }
        if !KNOWN.contains(&name) {
            let why = unknown("entitlement", name, &KNOWN);
            return Err(CliError::Value { flag: "--allow", value: name.to_owned(), why });
        }
        list.push(name.to_owned());
    }
    if args.network == "host" {
        list.push("network.host".into());
    }
    list.sort();
    list.dedup();
    Ok(list)
}

/// `--build-context`: options, and what of this machine is to be served.
pub(crate) fn named_contexts(
    args: &BuildArgs,
    attrs: &mut Attrs,
) -> Result<(Vec<LocalDir>, Vec<Layout>), CliError> {
    let (mut dirs, mut layouts): (Vec<LocalDir>, Vec<Layout>) = (Vec::new(), Vec::new());
    for entry in args.build_context.iter().filter(|e| !e.is_empty()) {
        let wrong = |why: String| CliError::Value { flag: "--build-context", value: entry.clone(), why };
        let (name, value) = entry.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE".into()))?;
        let reference = kiln_oci::Reference::parse_docker(name).map_err(|e| wrong(e.to_string()))?;
        let familiar = reference.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned();
        if value.starts_with("oci-layout://") {
            let (path, digest) = layout::resolve(value).map_err(wrong)?;
            let id = format!("layout-{}", layouts.len());
            attrs.insert(format!("context:{name}"), format!("oci-layout://{id}@{digest}"));
            layouts.push(Layout { id, path });
            continue;
        }
        if is_remote(value) || value.starts_with("docker-image://") {
            attrs.insert(format!("context:{name}"), value.to_owned());
            continue;
        }
        let path = PathBuf::from(value);
        let meta = std::fs::metadata(&path).map_err(CliError::file("build context", &path))?;
        if !meta.is_dir() {
            return Err(wrong(format!("{value} is not a directory")));
        }
        attrs.insert(format!("context:{name}"), format!("local:{name}"));
        dirs.retain(|d| d.name != name);
        dirs.push(LocalDir { name, path });
    }
    if !args.build_context.is_empty() {
        attrs.insert("frontend.caps".into(), "moby.buildkit.frontend.contexts+forward".into());
    }
    Ok((dirs, layouts))
}
