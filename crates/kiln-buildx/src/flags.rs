//! Flags and words of a command line, as the commands of Docker read them.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_go::units::parse_bytes;
use kiln_go::{duration::parse as parse_duration, parse_bool};

use crate::spec::{Flag, Kind};

/// A command line that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    values: BTreeMap<&'static str, Vec<String>>,
    /// What is no flag.
    pub(crate) words: Vec<String>,
    /// `--help` was among the flags.
    pub(crate) help: bool,
    /// What was not read: it follows the first word.
    pub(crate) rest: Vec<String>,
}

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// At the first word.
    Word,
    End,
}

impl Parsed {
    /// Reads arguments.
    ///
    /// # Errors
    /// A flag that there is not, or a value that cannot be used; in the words of the real one.
    pub(crate) fn parse(args: Vec<String>, flags: &[&'static [Flag]], until: Until) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.strip_prefix("--") {
                Some("") => {
                    parsed.words.extend(args.by_ref());
                    break;
                }
                Some(long) => parsed.long(&arg, long, flags, &mut args)?,
                None if arg.len() > 1 && arg.starts_with('-') => parsed.letters(&arg, flags, &mut args)?,
                None if until == Until::Word => {
                    parsed.words.push(arg);
                    parsed.rest = args.collect();
                    break;
                }
                None => parsed.words.push(arg),
            }
        }
        Ok(parsed)
    }

    fn long(
        &mut self,
        arg: &str,
        text: &str,
        flags: &[&'static [Flag]],
        args: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v.to_owned())));
        if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: {arg}"));
        }
        let Some(flag) = flags.iter().copied().flatten().find(|f| f.name == name) else {
            if name == "help" {
                self.help = true;
                return Ok(());
            }
            return Err(format!("unknown flag: --{name}"));
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Switch) => "true".into(),
            (None, _) => args.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.set(flag, value)
    }

    fn letters(
        &mut self,
        arg: &str,
        flags: &[&'static [Flag]],
        args: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let mut letters = arg[1..].chars();
        while let Some(letter) = letters.next() {
            let Some(flag) = flags.iter().copied().flatten().find(|f| f.short == Some(letter)) else {
                if letter == 'h' {
                    self.help = true;
                    return Ok(());
                }
                return Err(format!("unknown shorthand flag: '{letter}' in {arg}"));
            };
            let rest = letters.as_str();
            let (value, is_over) = match (rest.strip_prefix('='), flag.kind) {
                (Some(value), _) => (value.to_owned(), true),
                (None, Kind::Switch) => ("true".into(), false),
                (None, _) if !rest.is_empty() => (rest.to_owned(), true),
                (None, _) => {
                    let missing = || format!("flag needs an argument: '{letter}' in {arg}");
                    (args.next().ok_or_else(missing)?, true)
                }
            };
            self.set(flag, value)?;
            if is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    fn set(&mut self, flag: &'static Flag, value: String) -> Result<(), String> {
        let why = match flag.kind {
            Kind::Switch if parse_bool(&value).is_none() => {
                Some(format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))
            }
            Kind::Size if parse_bytes(&value).is_none() => Some(format!("invalid size: '{value}'")),
            Kind::Duration => duration(&value).err(),
            Kind::List("filter") if !value.is_empty() && !value.contains('=') => {
                Some("bad format of filter (expected name=value)".into())
            }
            _ => None,
        };
        if let Some(why) = why {
            let name = flag.short.map_or(format!("--{}", flag.name), |s| format!("-{s}, --{}", flag.name));
            return Err(format!("invalid argument {value:?} for {name:?} flag: {why}"));
        }
        let values = self.values.entry(flag.name).or_default();
        if !matches!(flag.kind, Kind::List(_)) {
            values.clear();
        }
        values.push(value);
        Ok(())
    }

    /// Adds what another part of the line says.
    pub(crate) fn merge(&mut self, other: Self) {
        self.values.extend(other.values);
        self.help |= other.help;
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A switch; off when it was not given.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.switch_if_given(name).unwrap_or(false)
    }

    /// A switch; None when it was not given.
    pub(crate) fn switch_if_given(&self, name: &str) -> Option<bool> {
        parse_bool(self.values.get(name)?.last()?)
    }

    /// A word; None when it was not given or is empty.
    pub(crate) fn word(&self, name: &str) -> Option<String> {
        self.values.get(name)?.last().filter(|v| !v.is_empty()).cloned()
    }

    /// All words of a list.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.values.get(name).cloned().unwrap_or_default()
    }

    /// A size in bytes; 0 when it was not given.
    pub(crate) fn size(&self, name: &str) -> i64 {
        self.word(name).and_then(|v| parse_bytes(&v)).unwrap_or(0)
    }

    /// A duration.
    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        duration(&self.word(name)?).ok()
    }
}

/// `1h30m`, `20s`, `0`: Go's form, without days; less than nothing is refused.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = parse_duration(text).map_err(|e| e.to_string())?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("time: negative duration {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{COMMANDS, GLOBAL, find};

    fn build(args: &[&str]) -> Result<Parsed, String> {
        let args = args.iter().map(ToString::to_string).collect();
        Parsed::parse(args, &[find("build").unwrap().flags, &GLOBAL], Until::End)
    }

    #[test]
    fn flags_of_every_form() {
        let p =
            build(&["-t", "a", "-tb", "-t=c", "--tag", "d", "--tag=e", ".", "--load", "-q", "--push=false"]);
        let p = p.unwrap();
        assert_eq!(p.list("tag"), ["a", "b", "c", "d", "e"]);
        assert_eq!(p.words, ["."]);
        assert!(p.switch("load") && p.switch("quiet") && !p.switch("push") && p.has("push"));
        let p = build(&["-qf", "x", "--", "-t"]).unwrap();
        assert_eq!((p.word("file").as_deref(), p.words.as_slice()), (Some("x"), &["-t".to_owned()][..]));
        assert!(build(&["-h"]).unwrap().help && build(&["--help", "x"]).unwrap().help);
    }

    #[test]
    fn mistakes_in_the_words_of_the_real_one() {
        let error = |args: &[&str]| build(args).unwrap_err();
        assert_eq!(error(&["--foo"]), "unknown flag: --foo");
        assert_eq!(error(&["-qZ"]), "unknown shorthand flag: 'Z' in -qZ");
        assert_eq!(error(&["--tag"]), "flag needs an argument: --tag");
        assert_eq!(error(&["-t"]), "flag needs an argument: 't' in -t");
        assert_eq!(
            error(&["--load=x"]),
            "invalid argument \"x\" for \"--load\" flag: strconv.ParseBool: parsing \"x\": invalid syntax"
        );
        assert!(error(&["-q=x"]).starts_with("invalid argument \"x\" for \"-q, --quiet\" flag: "));
        assert_eq!(error(&["--=x"]), "bad flag syntax: --=x");
    }

    #[test]
    fn reading_can_end_at_a_word() {
        let args = ["--builder", "b", "ls", "--x"].map(String::from).to_vec();
        let p = Parsed::parse(args, &[&GLOBAL], Until::Word).unwrap();
        assert_eq!((p.word("builder").as_deref(), p.rest.as_slice()), (Some("b"), &["--x".to_owned()][..]));
    }

    #[test]
    fn names_are_unique() {
        for command in &COMMANDS {
            let all: Vec<_> = command.flags.iter().chain(&GLOBAL).collect();
            for (i, flag) in all.iter().enumerate() {
                let twin = all[..i]
                    .iter()
                    .any(|f| f.name == flag.name || (f.short.is_some() && f.short == flag.short));
                assert!(!twin, "{} --{}", command.name, flag.name);
            }
        }
    }
}
