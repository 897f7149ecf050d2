//! URLs as they are shown: without what grants access.

use url::Url;

/// Stands for a secret (BuildKit's word).
const MASK: &str = "xxxxx";

/// Parts of the names of query parameters that hold secrets: those of signed downloads, and of services that take their
/// token in the address.
const SECRETS: [&str; 8] =
    ["token", "signature", "secret", "password", "credential", "apikey", "api_key", "api-key"];
/// Whole names.
const SECRET_NAMES: [&str; 4] = ["sig", "auth", "pwd", "passwd"];

/// The URL with masked credentials, without its fragment.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    if !url.username().is_empty() || url.password().is_some() {
        let masked = url.set_username(MASK).and_then(|()| url.set_password(Some(MASK)));
        debug_assert!(masked.is_ok(), "a URL with credentials has a host");
    }
    if let Some(query) = url.query() {
        let masked: Vec<String> = query.split('&').map(parameter).collect();
        url.set_query(Some(&masked.join("&")));
    }
    url.into()
}

fn parameter(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) if !value.is_empty() && is_secret(name) => format!("{name}={MASK}"),
        _ => text.to_string(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
    SECRET_NAMES.contains(&name.as_str()) || SECRETS.iter().any(|part| name.contains(part))
}

/// Text of others on one short line.
pub(crate) fn line(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    if line.len() < text.len() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grants_access_is_not_shown() {
        for (url, want) in [
            ("https://u:p@h/f?a=b#c", "https://xxxxx:xxxxx@h/f?a=b"),
            ("https://:p@h/", "https://xxxxx:xxxxx@h/"),
            ("https://token@h/", "https://xxxxx:xxxxx@h/"),
            ("https://h:443/f", "https://h/f"),
            ("http://h:80/f", "http://h/f"),
            ("https://h:8443/f", "https://h:8443/f"),
            ("https://[2001:db8::1]:443/f", "https://[2001:db8::1]/f"),
            (
                "https://h/f?X-Amz-Signature=1&x=2&X-Amz-Security%2DToken=3",
                "https://h/f?X-Amz-Signature=xxxxx&x=2&X-Amz-Security%2DToken=xxxxx",
            ),
            ("https://h/f?sig=1&signal=2&token=&key=3", "https://h/f?sig=xxxxx&signal=2&token=&key=3"),
        ] {
            assert_eq!(shown(&Url::parse(url).unwrap()), want, "{url}");
        }
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(line("no\r\n\u{1b}[31mred"), "no   [31mred");
        assert_eq!(line(&"\u{e9}".repeat(400)).chars().count(), 303);
    }
}
