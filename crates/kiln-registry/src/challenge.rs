//! The `WWW-Authenticate` header (RFC 9110 section 11.6.1).

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to be convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token of a token server.
    Bearer(Bearer),
    /// User name and password in each request.
    Basic,
}

/// The parameters of a bearer challenge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) realm: String,
    pub(crate) service: String,
    pub(crate) scope: String,
    /// Such as `insufficient_scope`, in answer to a token.
    pub(crate) error: String,
}

/// The challenge to answer: bearer if offered, else basic; other schemes are not known.
pub(crate) fn choose(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        for (scheme, mut params) in parse(text) {
            match scheme.as_str() {
                "bearer" => {
                    let mut take = |key: &str| params.remove(key).unwrap_or_default();
                    return Some(Challenge::Bearer(Bearer {
                        realm: take("realm"),
                        service: take("service"),
                        scope: take("scope"),
                        error: take("error"),
                    }));
                }
                "basic" => basic = Some(Challenge::Basic),
                _ => {}
            }
        }
    }
    basic
}

/// Splits a header into challenges: scheme in lower case and parameters with lower-case names.
fn parse(text: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut out: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return out;
        }
        let assigned = after.trim_start().strip_prefix('=');
        match (assigned, out.last_mut()) {
            (Some(value), Some((_, params))) => {
                let (value, after) = self::value(value.trim_start());
                params.entry(word.to_lowercase()).or_insert(value);
                rest = after;
            }
            (Some(_), None) => return out,
            (None, _) => {
                out.push((word.to_lowercase(), BTreeMap::new()));
                rest = after;
            }
        }
    }
}

fn token(s: &str) -> (&str, &str) {
    let end =
        s.find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~/".contains(c)).unwrap_or(s.len());
    s.split_at(end)
}

fn value(s: &str) -> (String, &str) {
    let Some(quoted) = s.strip_prefix('"') else {
        let end = s.find([',', ' ', '\t']).unwrap_or(s.len());
        return (s[..end].to_string(), &s[end..]);
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return (out, &quoted[i + 1..]),
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            c => out.push(c),
        }
    }
    (out, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for v in values {
            headers.append(WWW_AUTHENTICATE, v.parse().unwrap());
        }
        choose(&headers)
    }

    #[test]
    fn reads_challenges() {
        let full = r#"Bearer realm="https://a/t?x=1,2",service="r.io",scope="repository:a:pull,push",error="insufficient_scope""#;
        assert_eq!(
            of(&[full]),
            Some(Challenge::Bearer(Bearer {
                realm: "https://a/t?x=1,2".into(),
                service: "r.io".into(),
                scope: "repository:a:pull,push".into(),
                error: "insufficient_scope".into(),
            }))
        );
        assert_eq!(of(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        assert!(
            matches!(of(&[r#"Basic realm="x", BEARER Realm = "y""#]), Some(Challenge::Bearer(b)) if b.realm == "y")
        );
        assert!(
            matches!(of(&["Basic x", "Bearer realm=https://plain"]), Some(Challenge::Bearer(b)) if b.realm == "https://plain")
        );
        assert!(matches!(of(&[r#"Bearer realm="a\"b"#]), Some(Challenge::Bearer(b)) if b.realm == "a\"b"));
        for nothing in ["", "Negotiate", "=", "realm=x", ",,,", "\"", "Digest realm=\"x"] {
            assert_eq!(of(&[nothing]), None, "{nothing}");
        }
    }
}
