//! Values of flags.

use super::{Flag, Kind};
use kiln_go::{duration::parse as parse_duration, parse_bool};
use std::collections::HashMap;
use std::time::Duration;

/// What was given on the command line; the texts fit the kinds of their flags.
#[derive(Debug, Default)]
pub(crate) struct Values(HashMap<&'static str, Vec<String>>);

impl Values {
    /// Takes a value in, if it is one of the flag's kind.
    pub(crate) fn set(&mut self, flag: &Flag, text: &str) -> Result<(), String> {
        let wrong = |why: String| format!("invalid value {text:?} for flag -{}: {why}", flag.name);
        let syntax = |f: &str| format!("strconv.{f}: parsing {text:?}: invalid syntax");
        match flag.kind {
            Kind::Text | Kind::List => Ok(()),
            Kind::Bool => parse_bool(text).map(drop).ok_or("parse error".to_string()),
            Kind::Int => text.parse::<i64>().map(drop).map_err(|_| syntax("ParseInt")),
            Kind::Float => text.parse::<f64>().map(drop).map_err(|_| syntax("ParseFloat")),
            Kind::Duration => parse_duration(text).map(drop).map_err(|e| e.to_string()),
        }
        .map_err(wrong)?;
        let values = self.0.entry(flag.name).or_default();
        if flag.kind != Kind::List {
            values.clear();
        }
        values.push(text.to_owned());
        Ok(())
    }

    /// The text of a flag; empty if it was not given.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(|v| v.last()).map_or("", String::as_str)
    }

    /// The text of a flag, or its default.
    pub(crate) fn text_or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).and_then(|v| v.last()).map_or(default, String::as_str)
    }

    /// All texts of a flag.
    pub(crate) fn list(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a flag is on.
    pub(crate) fn is(&self, name: &str) -> bool {
        parse_bool(self.text(name)) == Some(true)
    }

    /// A number, or the default.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.text(name).parse().unwrap_or(default)
    }

    /// A number; 0 if it was not given.
    pub(crate) fn float(&self, name: &str) -> f64 {
        self.text(name).parse().unwrap_or(0.0)
    }

    /// A time; 0 if it was not given.
    pub(crate) fn duration(&self, name: &str) -> Duration {
        let nanos = parse_duration(self.text(name)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}
