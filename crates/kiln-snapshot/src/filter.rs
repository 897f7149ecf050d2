//! containerd's filter language, for disk usage and prune.
//!
//! `selector ("," selector)*` with `selector := field [("==" | "!=" | "~=") value]`; all selectors must match. A value is
//! bare (up to a comma or space) or a Go string in quotes; a regular expression may also stand in `/` or `|`.

use regex_lite::Regex;

use crate::UsageRecord;

/// A filter that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid filter {filter:?}: {reason}")]
pub struct FilterError {
    /// The filter as given.
    pub filter: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A list of filters: matches what any of them matches, and everything when empty.
#[derive(Clone, Debug, Default)]
pub struct Filter(Vec<Vec<Selector>>);

#[derive(Clone, Debug)]
struct Selector {
    field: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Parses the entries of a list. An empty entry matches everything.
    pub fn parse_all<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self, FilterError> {
        entries.into_iter().map(|entry| parse(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a record matches. Fields: `id`, `parents` (joined by `;`), `description`, `inuse`, `mutable`, `immutable`,
    /// `type`, `shared`, `private`; an unknown field is absent.
    pub fn matches(&self, record: &UsageRecord) -> bool {
        self.matches_fields(|name| field(record, name))
    }

    /// Whether something that has other fields matches. `field` gives the value of a field (its path joined by dots),
    /// `None` when it is absent.
    pub fn matches_fields(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        let matches = |selector: &Selector| selector.matches(field(&selector.field));
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(matches))
    }

    /// Whether every record matches.
    pub fn matches_all(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(Vec::is_empty)
    }
}

impl Selector {
    fn matches(&self, value: Option<String>) -> bool {
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(want) => value.as_ref() == Some(want),
            // What is absent is compared as an empty text, as containerd does.
            Test::NotEqual(want) => value.unwrap_or_default() != *want,
            Test::Matches(regex) => regex.is_match(&value.unwrap_or_default()),
        }
    }
}

fn field(record: &UsageRecord, name: &str) -> Option<String> {
    let flag = |on: bool| on.then(String::new);
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    match name {
        "id" => text(record.id.to_string()),
        "parents" => text(record.parents.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(";")),
        "description" => text(record.description.clone()),
        "type" => text(record.kind.as_str().to_string()),
        "inuse" => flag(record.in_use),
        "mutable" => flag(record.mutable),
        "immutable" => flag(!record.mutable),
        "shared" => flag(record.shared),
        "private" => flag(!record.shared),
        _ => None,
    }
}

fn parse(entry: &str) -> Result<Vec<Selector>, FilterError> {
    let fail = |reason: String| FilterError { filter: entry.to_string(), reason };
    let mut selectors = Vec::new();
    let mut rest = entry;
    while !entry.is_empty() {
        let (selector, after) = parse_selector(rest).map_err(fail)?;
        selectors.push(selector);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => break,
            None => return Err(fail(format!("unexpected input: {after}"))),
        }
    }
    Ok(selectors)
}

fn parse_selector(input: &str) -> Result<(Selector, &str), String> {
    let (mut path, mut rest) = parse_field(input)?;
    while let Some(after) = rest.strip_prefix('.') {
        let (next, after) = parse_field(after)?;
        path = format!("{path}.{next}");
        rest = after;
    }
    if rest.is_empty() || rest.starts_with(',') {
        return Ok((Selector { field: path, test: Test::Present }, rest));
    }
    let Some((operator, after)) = rest.split_at_checked(2).filter(|(op, _)| ["==", "!=", "~="].contains(op))
    else {
        return Err(r#"expected an operator ("=="|"!="|"~=")"#.to_string());
    };
    let (value, rest) = parse_value(after, operator == "~=")?;
    let test = match operator {
        "==" => Test::Equal(value),
        "!=" => Test::NotEqual(value),
        _ => Test::Matches(Regex::new(&value).map_err(|error| error.to_string())?),
    };
    Ok((Selector { field: path, test }, rest))
}

fn parse_field(input: &str) -> Result<(String, &str), String> {
    if input.starts_with(['"', '\'']) {
        return parse_quoted(input);
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = input.find(|c| !word(c)).unwrap_or(input.len());
    if end == 0 || !input.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("expected field or quoted".to_string());
    }
    Ok((input[..end].to_string(), &input[end..]))
}

fn parse_value(input: &str, regex: bool) -> Result<(String, &str), String> {
    if input.starts_with(['"', '\'']) || regex && input.starts_with(['/', '|']) {
        return parse_quoted(input);
    }
    let end = input.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(input.len());
    if end == 0 {
        return Err("expected value or quoted".to_string());
    }
    Ok((input[..end].to_string(), &input[end..]))
}

/// A Go string in the quotes it starts with. In `/` and `|` only the quote itself can be escaped.
fn parse_quoted(input: &str) -> Result<(String, &str), String> {
    let mut chars = input.char_indices();
    let quote = chars.next().map(|(_, quote)| quote).ok_or("expected value or quoted")?;
    let escapes = matches!(quote, '"' | '\'');
    let mut out = String::new();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((out, &input[at + c.len_utf8()..]));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some((_, escaped)) = chars.next() else { break };
        match escaped {
            c if c == quote => out.push(c),
            c if !escapes => out.extend(['\\', c]),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '\\' => out.push('\\'),
            'x' => out.push(hex(&mut chars, 2)?),
            'u' => out.push(hex(&mut chars, 4)?),
            'U' => out.push(hex(&mut chars, 8)?),
            c => return Err(format!("unquoting failed: unknown escape \\{c}")),
        }
    }
    Err("quoted literal not terminated".to_string())
}

fn hex(chars: &mut std::str::CharIndices<'_>, digits: usize) -> Result<char, String> {
    let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
    let value = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
    value.and_then(char::from_u32).ok_or_else(|| format!("unquoting failed: bad escape {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RecordKind, SnapshotId};
    use std::time::UNIX_EPOCH;

    fn record() -> UsageRecord {
        let id: SnapshotId = "0123456789abcdefghijklmno".parse().unwrap();
        UsageRecord {
            id: id.clone(),
            mutable: true,
            in_use: false,
            size: 1,
            created_at: UNIX_EPOCH,
            last_used_at: None,
            usage_count: 0,
            description: "cached mount /c, from exec".into(),
            kind: RecordKind::CacheMount,
            shared: false,
            parents: vec![id],
        }
    }

    #[test]
    fn entries_are_or_and_selectors_are_and() {
        let matches = |entries: &[&str]| Filter::parse_all(entries).unwrap().matches(&record());
        for yes in [
            &[][..],
            &[""],
            &["nope", ""],
            &["type==exec.cachemount"],
            &["type!=regular,mutable,private"],
            &["type==source.local", "type==exec.cachemount"],
            &["id~=^0123"],
            &["description~=/mount \\/c,/"],
            &["description==\"cached mount /c, from exec\""],
            &["id!=x,parents"],
            &["unknown!=1"],
        ] {
            assert!(matches(yes), "{yes:?}");
        }
        for no in [
            &["inuse"][..],
            &["shared"],
            &["immutable"],
            &["type==regular"],
            &["mutable,inuse"],
            &["unknown"],
            &["type~=^mount"],
        ] {
            assert!(!matches(no), "{no:?}");
        }
    }

    #[test]
    fn bad_filters_are_refused() {
        for bad in [
            "=x",
            "type=",
            "type==",
            "type=x",
            "a,",
            "id~=[",
            "id==\"x",
            "id==\"\\q\"",
            "1a",
            "type==a b",
            "a b",
        ] {
            let error = Filter::parse_all([bad]).unwrap_err();
            assert!(error.to_string().contains(bad) || bad.contains('\\') || bad.contains('"'), "{error}");
        }
    }
}
