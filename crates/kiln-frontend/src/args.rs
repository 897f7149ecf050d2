//! Build arguments: predefined ones, global ones, proxy settings.

use crate::fail::{At, Result};
use crate::outline::{Declared, Parameter};
use crate::platform::Platforms;
use crate::state::EnvOf;
use kiln_dockerfile::shell::Lex;
use kiln_dockerfile::{Arg, Source};
use kiln_llb::ProxyEnv;
use kiln_llb::builder::EnvList;
use std::collections::BTreeMap;

/// ARGs that never become environment variables.
pub(crate) const NON_ENV: [&str; 2] = [SBOM_SCAN_CONTEXT, SBOM_SCAN_STAGE];
pub(crate) const SBOM_SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
pub(crate) const SBOM_SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";
pub(crate) const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The predefined global arguments; build arguments of the same name win.
pub(crate) fn predefined(p: &Platforms, overrides: &BTreeMap<String, String>, target: &str) -> EnvList {
    let host = Default::default();
    let (build, to) = (p.build.first().unwrap_or(&host), &p.target);
    let target = if target.is_empty() { "default" } else { target };
    let list = [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", build.os_version.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", to.format_all()),
        ("TARGETOS", to.os.clone()),
        ("TARGETOSVERSION", to.os_version.clone()),
        ("TARGETARCH", to.architecture.clone()),
        ("TARGETVARIANT", to.variant.clone()),
        ("TARGETSTAGE", target.to_string()),
    ];
    let mut env = EnvList::default();
    for (key, value) in list {
        env.set(key, overrides.get(key).unwrap_or(&value));
    }
    env
}

/// The global arguments after all ARG lines before the first FROM, and what was declared there.
pub(crate) fn global<'a>(
    mut env: EnvList,
    lex: &Lex,
    lines: impl Iterator<Item = (&'a Source, &'a Arg)>,
    build_args: &BTreeMap<String, String>,
) -> Result<(EnvList, Declared)> {
    let mut declared = Declared::new();
    for (source, arg) in lines {
        for pair in &arg.args {
            let mut info = Parameter::new(pair, source.range);
            let value = match (build_args.get(&pair.key), &pair.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let found = lex.process_word(default, &EnvOf(&env)).at(source.range)?;
                    info.needs = found.matched;
                    if info.needs.remove(&pair.key) {
                        let before = declared.get(&pair.key).map(|old| old.needs.clone());
                        info.needs.extend(before.unwrap_or_default());
                    }
                    Some(found.text)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                env.set(&pair.key, &value);
                info.value = value;
            }
            declared.insert(pair.key.clone(), info);
        }
    }
    Ok((env, declared))
}

/// Proxy settings among the build arguments, whatever their case.
pub(crate) fn proxy_env(build_args: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxy = ProxyEnv::default();
    let mut found = false;
    for (key, value) in build_args {
        let field = match key.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        *field = value.clone();
        found = true;
    }
    found.then_some(proxy)
}
