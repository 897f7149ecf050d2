//! `--export-cache` and `--import-cache`.

use super::outputs::typed;
use crate::error::Error;
use kiln_client::CacheEntry;
use kiln_go::parse_bool;
use std::collections::BTreeMap;

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where cache goes.
pub(super) fn exports(
    texts: &[String],
    env: Env<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<CacheEntry>, Error> {
    let mut entries = parse("--export-cache", texts, env, warnings)?;
    for entry in &mut entries {
        entry.attrs.entry("mode".into()).or_insert_with(|| "min".into());
    }
    Ok(entries)
}

/// Where cache comes from.
pub(super) fn imports(
    texts: &[String],
    env: Env<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<CacheEntry>, Error> {
    parse("--import-cache", texts, env, warnings)
}

fn parse(
    flag: &str,
    texts: &[String],
    env: Env<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<CacheEntry>, Error> {
    let mut entries = Vec::new();
    for text in texts {
        if !text.contains("type=") {
            warnings.push(format!(
                "{flag} <ref> is deprecated. Please use {flag} type=registry,ref=<ref>,<opt>=<optval>[,<opt>=<optval>] instead"
            ));
            let attrs = [("ref".to_string(), text.clone())].into();
            entries.push(CacheEntry { kind: "registry".into(), attrs });
            continue;
        }
        let (kind, mut attrs) = typed(text)?;
        match kind.as_str() {
            "" => return Err(format!("{flag} requires type=<type>").into()),
            "gha" => github(&mut attrs, env)?,
            _ => {}
        }
        entries.push(CacheEntry { kind, attrs });
    }
    Ok(entries)
}

/// What the runner of GitHub's actions says in the environment.
fn github(attrs: &mut BTreeMap<String, String>, env: Env<'_>) -> Result<(), Error> {
    let is_second = match attrs.get("version") {
        Some(version) => version == "2",
        None => env("ACTIONS_CACHE_SERVICE_V2").and_then(|v| parse_bool(&v)) == Some(true),
    };
    let mut fill = |key: &str, value: Option<String>| {
        if let (false, Some(value)) = (attrs.contains_key(key), value) {
            attrs.insert(key.to_owned(), value);
        }
    };
    if is_second {
        fill("url_v2", env("ACTIONS_RESULTS_URL"));
    }
    fill("url", env("ACTIONS_CACHE_URL").or_else(|| env("ACTIONS_RESULTS_URL")));
    fill("token", env("ACTIONS_RUNTIME_TOKEN"));
    match () {
        () if !attrs.contains_key("url") && !attrs.contains_key("url_v2") => {
            Err("cache with type gha requires url parameter to be set".into())
        }
        () if !attrs.contains_key("token") => {
            Err("cache with type gha requires token parameter or $ACTIONS_RUNTIME_TOKEN".into())
        }
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str, vars: &'static [(&'static str, &'static str)]) -> Result<CacheEntry, String> {
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_string());
        let entries = imports(&[text.to_string()], &env, &mut Vec::new());
        entries.map(|mut e| e.remove(0)).map_err(|e| e.to_string())
    }

    #[test]
    fn both_forms_are_read() {
        let mut warnings = Vec::new();
        let texts = ["example.com/a/b".to_string(), "type=local,Dest=d,mode=max".to_string()];
        let list = exports(&texts, &|_| None, &mut warnings).unwrap();
        assert_eq!((list[0].kind.as_str(), list[0].attrs["ref"].as_str()), ("registry", "example.com/a/b"));
        assert_eq!((list[0].attrs["mode"].as_str(), list[1].attrs["mode"].as_str()), ("min", "max"));
        assert_eq!(list[1].attrs["dest"], "d");
        assert!(warnings[0].starts_with("--export-cache <ref> is deprecated"));
        assert_eq!(entry("type=,x=y", &[]).unwrap_err(), "--import-cache requires type=<type>");
        assert_eq!(entry("type=local,x", &[]).unwrap_err(), "invalid value x");
    }

    #[test]
    fn the_runner_says_where_its_cache_is() {
        let vars = &[
            ("ACTIONS_CACHE_SERVICE_V2", "True"),
            ("ACTIONS_CACHE_URL", "u1"),
            ("ACTIONS_RESULTS_URL", "u2"),
            ("ACTIONS_RUNTIME_TOKEN", "t"),
        ];
        let given = entry("type=gha,url=mine,token=own", vars).unwrap().attrs;
        let expected = [("token", "own"), ("url", "mine"), ("url_v2", "u2")];
        assert_eq!(given, expected.map(|(k, v)| (k.to_string(), v.to_string())).into());
        assert_eq!(
            entry("type=gha", &[]).unwrap_err(),
            "cache with type gha requires url parameter to be set"
        );
        assert_eq!(
            entry("type=gha,url=x", &[]).unwrap_err(),
            "cache with type gha requires token parameter or $ACTIONS_RUNTIME_TOKEN"
        );
    }
}
