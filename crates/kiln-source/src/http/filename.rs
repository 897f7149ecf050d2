//! The name of a downloaded file.

use percent_encoding::percent_decode_str;
use url::Url;

use super::HttpId;

const DEFAULT: &str = "download";

/// The name asked for, else the server's, else the last part of the address, else `download`. Never a path.
pub(super) fn choose(id: &HttpId, disposition: Option<&str>) -> String {
    if let Some(name) = &id.filename {
        return safe(name);
    }
    if let Some(name) = disposition.and_then(from_disposition).filter(|n| !n.is_empty() && !n.ends_with('/'))
    {
        return safe(&name);
    }
    let url = Url::parse(&id.url).ok();
    let path = url.map(|u| percent_decode_str(u.path()).decode_utf8_lossy().into_owned()).unwrap_or_default();
    safe(&path)
}

/// The last element of a path if it can be a file name.
pub(crate) fn safe(text: &str) -> String {
    let trimmed = text.trim().trim_end_matches('/');
    let name = trimmed.rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." | ".." => DEFAULT.to_string(),
        name if name.chars().any(char::is_control) || name.len() > 255 => DEFAULT.to_string(),
        name => name.to_string(),
    }
}

/// The `filename` of a `Content-Disposition` (RFC 6266); `filename*` in UTF-8 goes first (RFC 8187).
fn from_disposition(header: &str) -> Option<String> {
    let mut plain = None;
    let mut extended = None;
    let mut rest = &header[header.find(';')?..];
    while let Some(after) = rest.strip_prefix(';') {
        let (name, after) = after.split_once('=')?;
        let (value, after) = value(after.trim_start())?;
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value),
            "filename*" => extended = extended_value(&value),
            _ => {}
        }
        rest = after.trim_start();
    }
    // A malformed header is no header.
    rest.is_empty().then_some(extended.or(plain)?)
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        let value = text[..end].trim();
        return (!value.contains(char::is_whitespace)).then(|| (value.to_string(), &text[end..]));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((out, &quoted[i + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

fn extended_value(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '\'');
    let (charset, _language, value) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    percent_decode_str(value).decode_utf8().ok().map(|v| v.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn name(url: &str, filename: Option<&str>, disposition: Option<&str>) -> String {
        let mut id = HttpId::parse(url, &BTreeMap::new()).unwrap();
        id.filename = filename.map(str::to_string);
        choose(&id, disposition)
    }

    #[test]
    fn order_of_sources() {
        let d = Some("attachment; filename=\"server.txt\"");
        assert_eq!(name("http://h/a/url.txt?q=/z", None, None), "url.txt");
        assert_eq!(name("http://h/a/url.txt", None, d), "server.txt");
        assert_eq!(name("http://h/a/url.txt", Some("mine"), d), "mine");
        assert_eq!(name("http://h/", None, None), "download");
        assert_eq!(name("http://h/a%20b", None, None), "a b");
        assert_eq!(name("http://h/dir/", None, None), "dir");
    }

    #[test]
    fn dispositions() {
        for (header, expected) in [
            ("attachment; filename=plain.txt", "plain.txt"),
            ("attachment; filename=\"a\\\"b\"; size=3", "a\"b"),
            ("attachment; filename=x; filename*=UTF-8''na%C3%AFve", "naïve"),
            ("attachment; filename=\"../../etc/passwd\"", "passwd"),
            ("attachment; filename=\"dir/\"", "u"),
            ("attachment; filename=a b", "u"),
            ("attachment", "u"),
            ("attachment; filename=\"open", "u"),
            ("attachment; filename=\"..\"", "download"),
        ] {
            assert_eq!(name("http://h/u", None, Some(header)), expected, "{header}");
        }
    }

    #[test]
    fn never_a_path() {
        for bad in ["..", ".", "../", "a/..", "a\0b", "a\nb", "/", " "] {
            assert_eq!(name("http://h/u", Some(bad), None), "download", "{bad:?}");
        }
        assert_eq!(name("http://h/%2e%2e%2fx", None, None), "x");
        assert_eq!(name("http://h/u", Some("/abs/x"), None), "x");
        assert_eq!(name("http://h/u", Some(&"x".repeat(300)), None), "download");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_one_component(header in "\\PC*", filename in proptest::option::of("\\PC*")) {
            let n = name("http://h/u", filename.as_deref(), Some(&header));
            proptest::prop_assert!(!n.is_empty() && !n.contains('/') && n != "." && n != ".." && n.len() <= 255);
        }
    }
}
