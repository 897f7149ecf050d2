//! Whether a result is for the platforms that were asked for. What differs is shown as a warning.

use crate::hub::{Hub, Synthetic};
use kiln_digest::Digest;
use kiln_export::ExportInput;
use kiln_llb::errdefs::BuildError;
use kiln_oci::Platform;
use kiln_progress::Warning;
use std::collections::BTreeSet;

const PLATFORMS: &str = "refs.platforms";

/// Compares the result with the `platform` option of the build.
///
/// # Errors
/// If the result does not say, or says wrongly, which platforms it has.
pub(crate) fn platforms(input: &ExportInput, asked: Option<&str>) -> Result<Vec<String>, BuildError> {
    let is_map = input.refs.iter().any(|(key, _)| key.is_some());
    if !input.metadata.contains_key(PLATFORMS) {
        if is_map {
            return Err(invalid("build result contains multiple refs without platforms mapping"));
        }
        if input.refs.iter().all(|(_, snapshot)| snapshot.is_none()) {
            return Ok(Vec::new());
        }
    }
    let has = kiln_export::result_platforms(&input.metadata).map_err(|e| invalid(&e.to_string()))?;
    let has: Vec<Platform> = has.into_iter().map(|(_, platform)| platform).collect();
    let host = Platform::host().normalize().format_all();
    let mut wanted = BTreeSet::new();
    let mut warnings = Vec::new();
    for text in asked.unwrap_or(&host).split(',') {
        match Platform::parse(text) {
            Err(e) => warnings.push(format!("Invalid platform result requested {text:?}: {e}")),
            Ok(platform) if !wanted.insert(platform.normalize().format_all()) => {
                warnings.push(format!("Duplicate platform result requested {text:?}"));
            }
            Ok(_) => {}
        }
    }
    if warnings.is_empty() {
        warnings.extend(compare(&wanted, &has, is_map));
    }
    Ok(warnings)
}

fn compare(wanted: &BTreeSet<String>, has: &[Platform], is_map: bool) -> Option<String> {
    let names: BTreeSet<String> = has.iter().map(Platform::format_all).collect();
    let joined = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    match (wanted.len(), has) {
        (1, [one]) => {
            // A version of the operating system is rarely asked for, so it does not count.
            let plain = Platform { os_version: String::new(), ..one.clone() }.format_all();
            let fits = names.is_subset(wanted) || wanted.contains(&plain);
            (!fits).then(|| {
                let (wanted, names) = (joined(wanted), joined(&names));
                format!("Requested platform {wanted:?} does not match result platform {names:?}")
            })
        }
        (2.., _) if !is_map => Some("Multiple platforms requested but result is not multi-platform".into()),
        _ if *wanted == names && wanted.len() == has.len() => None,
        _ => {
            let (wanted, names) = (joined(wanted), joined(&names));
            Some(format!("Requested platforms {wanted} do not match result platforms {names}"))
        }
    }
}

fn invalid(message: &str) -> BuildError {
    BuildError::msg(message)
}

/// Shows the warnings below a step of their own.
pub(crate) fn show(hub: &Hub, warnings: Vec<String>) {
    if warnings.is_empty() {
        return;
    }
    let shown = Synthetic::start(hub, "Verifying build result");
    let vertex: Digest = shown.digest();
    for short in warnings {
        hub.warning(Warning {
            vertex,
            level: 0,
            short: short.into_bytes(),
            detail: Vec::new(),
            url: String::new(),
            source: None,
            ranges: Vec::new(),
        });
    }
    shown.finish(None);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "containerimage.config";

    fn result(metadata: &[(&str, &str)], keys: &[Option<&str>]) -> ExportInput {
        ExportInput {
            refs: keys.iter().map(|k| (k.map(str::to_string), None)).collect(),
            metadata: metadata.iter().map(|(k, v)| (k.to_string(), v.as_bytes().to_vec())).collect(),
        }
    }

    const TWO: &str = r#"{"Platforms":[
        {"ID":"a","Platform":{"os":"linux","architecture":"amd64"}},
        {"ID":"b","Platform":{"os":"linux","architecture":"arm64"}}]}"#;

    #[test]
    fn what_was_asked_for_is_compared_with_what_came() {
        let both = result(&[(PLATFORMS, TWO)], &[Some("a"), Some("b")]);
        assert!(platforms(&both, Some("linux/arm64,linux/amd64")).unwrap().is_empty());
        let other = platforms(&both, Some("linux/amd64,linux/s390x")).unwrap();
        assert_eq!(
            other,
            [
                "Requested platforms linux/amd64,linux/s390x do not match result platforms linux/amd64,linux/arm64"
            ]
        );
        let config = r#"{"os":"linux","architecture":"arm64"}"#;
        let one = result(&[(CONFIG, config), (PLATFORMS, &TWO.replace("arm64", "amd64"))], &[None]);
        assert_eq!(
            platforms(&one, Some("linux/amd64,linux/arm64")).unwrap(),
            ["Multiple platforms requested but result is not multi-platform"]
        );
        assert_eq!(platforms(&both, Some("?,linux/amd64")).unwrap().len(), 1);
        assert_eq!(platforms(&both, Some("linux/amd64,amd64")).unwrap().len(), 1);
    }

    #[test]
    fn several_results_must_say_what_they_are() {
        let nameless = result(&[], &[Some("a"), Some("b")]);
        let error = platforms(&nameless, None).unwrap_err();
        assert_eq!(error.message, "build result contains multiple refs without platforms mapping");
        assert!(platforms(&result(&[], &[None]), None).unwrap().is_empty());
        for bad in ["", "[]", "{}", r#"{"Platforms":[{"ID":"","Platform":{"os":"a","architecture":"b"}}]}"#] {
            assert!(platforms(&result(&[(PLATFORMS, bad)], &[None]), None).is_err(), "{bad}");
        }
    }
}
