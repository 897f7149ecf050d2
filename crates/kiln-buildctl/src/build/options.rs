//! `--opt`.

use std::collections::BTreeMap;

/// `key=value` texts; the last of a key wins.
pub(super) fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, String> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("invalid value {text}")),
    };
    texts.iter().map(pair).collect()
}

/// The options. A build argument without a value has that of the environment, or is left out.
pub(super) fn parse(
    texts: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, String> {
    let epoch = env("SOURCE_DATE_EPOCH").map(|v| format!("build-arg:SOURCE_DATE_EPOCH={v}"));
    let resolved = texts.iter().filter_map(|text| {
        let name = text.strip_prefix("build-arg:").filter(|n| !n.is_empty() && !n.contains('='));
        match name {
            Some(name) => env(name).map(|value| format!("{text}={value}")),
            None => Some(text.clone()),
        }
    });
    pairs(&epoch.into_iter().chain(resolved).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_arguments_may_come_from_the_environment() {
        let env = |name: &str| match name {
            "IMAGE" => Some("alpine".to_string()),
            "EMPTY" => Some(String::new()),
            "SOURCE_DATE_EPOCH" => Some("5".to_string()),
            _ => None,
        };
        for (texts, expected) in [
            (&["target=foo", "build-arg:A=b=c"][..], "build-arg:A=b=c target=foo"),
            (&["build-arg:IMAGE"], "build-arg:IMAGE=alpine"),
            (&["build-arg:NONE"], ""),
            (&["build-arg:EMPTY"], "build-arg:EMPTY="),
            (&["build-arg:IMAGE=", "build-arg:NONE"], "build-arg:IMAGE="),
            (&["build-arg:IMAGE=busybox", "build-arg:IMAGE"], "build-arg:IMAGE=alpine"),
            (&["build-arg:IMAGE", "build-arg:IMAGE=busybox"], "build-arg:IMAGE=busybox"),
        ] {
            let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
            let mut map = parse(&texts, &env).unwrap();
            assert_eq!(map.remove("build-arg:SOURCE_DATE_EPOCH").as_deref(), Some("5"));
            let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(pairs.join(" "), expected);
        }
        for text in ["target", "build-arg:"] {
            assert_eq!(parse(&[text.to_string()], &|_| None).unwrap_err(), format!("invalid value {text}"));
        }
    }
}
