//! Flags of docker build that kiln does not do yet: refused by name, never ignored.

use super::args::BuildArgs;
use crate::error::CliError;
use crate::pairs::Pairs;
use kiln_go::parse_bool;

/// Refuses what is not built; gives warnings about flags without effect.
pub(crate) fn check(args: &BuildArgs) -> Result<Vec<String>, CliError> {
    let refuse = |given: bool, flag: &str, why| {
        if given { Err(CliError::NotBuilt { flag: flag.to_owned(), why }) } else { Ok(()) }
    };
    refuse(!args.cache_from.is_empty(), "--cache-from", "kiln cannot import a build cache")?;
    refuse(!args.cache_to.is_empty(), "--cache-to", "kiln cannot export a build cache")?;
    refuse(!args.annotation.is_empty(), "--annotation", "kiln does not write annotations")?;
    refuse(args.platform.len() > 1, "--platform with several values", "kiln builds one platform at a time")?;
    refuse(is_on(args.provenance.as_deref())?, "--provenance", "kiln does not write attestations")?;
    refuse(is_on(args.sbom.as_deref())?, "--sbom", "kiln does not write attestations")?;
    for spec in &args.attest {
        let disabled = Pairs::parse("--attest", spec)?.take(&["disabled"]);
        let on = disabled.is_none_or(|d| parse_bool(&d) != Some(true));
        refuse(on, "--attest", "kiln does not write attestations")?;
    }
    if args.build_arg.iter().any(|a| {
        a.split_once('=').is_some_and(|(k, v)| k == "BUILDKIT_INLINE_CACHE" && parse_bool(v) == Some(true))
    }) {
        refuse(true, "--build-arg BUILDKIT_INLINE_CACHE=1", "kiln cannot export a build cache")?;
    }
    Ok(without_effect(args))
}

/// Whether the value of `--provenance` or `--sbom` asks for something.
fn is_on(value: Option<&str>) -> Result<bool, CliError> {
    match value {
        None => Ok(false),
        Some(text) if parse_bool(text).is_some() => Ok(parse_bool(text) == Some(true)),
        Some(text) => {
            let disabled = Pairs::parse("--provenance", text)?.take(&["disabled"]);
            Ok(disabled.is_none_or(|d| parse_bool(&d) != Some(true)))
        }
    }
}

fn without_effect(args: &BuildArgs) -> Vec<String> {
    let old = &args.old;
    let given = [
        (old.isolation.is_some(), "--isolation has no effect"),
        (!old.security_opt.is_empty(), "--security-opt has no effect; see RUN --security=insecure"),
        (old.squash == Some(true), "--squash has no effect; a multi-stage build does the same better"),
    ];
    given.into_iter().filter(|(on, _)| *on).map(|(_, text)| text.to_owned()).collect()
}
