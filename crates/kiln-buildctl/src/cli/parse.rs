//! Reading the words of a command line.

use super::{Command, Flag, Kind, ROOT, Values};

/// A command with what it was given.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) command: &'static Command,
    pub(crate) values: Values,
    pub(crate) args: Vec<String>,
}

/// What the words mean.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Do it.
    Run(Invocation),
    /// Show the help of the last of these; the first is the program.
    Help(Vec<&'static Command>),
    /// Show the version.
    Version,
    /// There is no such command.
    NoTopic(String),
    /// The words are wrong; with the help of the program if that is where they are.
    Wrong { why: String, show_help: bool },
}

const HELP: Flag = Flag { name: "help", alias: "h", kind: Kind::Bool, usage: "show help", default: "" };
const VERSION: Flag =
    Flag { name: "version", alias: "v", kind: Kind::Bool, usage: "print the version", default: "" };

impl Flag {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || (!self.alias.is_empty() && self.alias == name)
    }
}

/// Reads the words after the program's name.
pub(crate) fn parse(words: &[String]) -> Outcome {
    let mut path = vec![&ROOT];
    let mut values = Values::default();
    let mut words = words;
    loop {
        let level = match read_level(&path, &mut values, words) {
            Ok(level) => level,
            Err(why) => return Outcome::Wrong { why, show_help: path.len() == 1 },
        };
        let command = path[path.len() - 1];
        let first = level.args.first().map(String::as_str);
        if level.help {
            return topic(path, first.filter(|_| level.rest.is_empty()));
        }
        if level.version {
            return Outcome::Version;
        }
        match (level.next, first) {
            (Some(next), _) => {
                path.push(next);
                words = level.rest;
            }
            (None, Some("help" | "h")) => {
                return topic(path, level.rest.first().or(level.args.get(1)).map(String::as_str));
            }
            (None, Some(name)) if !command.commands.is_empty() => return Outcome::NoTopic(name.to_owned()),
            (None, None) if !command.commands.is_empty() => return Outcome::Help(path),
            (None, _) => return Outcome::Run(Invocation { command, values, args: level.args }),
        }
    }
}

fn topic(mut path: Vec<&'static Command>, name: Option<&str>) -> Outcome {
    let command = path[path.len() - 1];
    match name.filter(|n| !n.is_empty()) {
        None => Outcome::Help(path),
        Some(name) => match command.find(name) {
            Some(found) => {
                path.push(found);
                Outcome::Help(path)
            }
            None => Outcome::NoTopic(name.to_owned()),
        },
    }
}

#[derive(Default)]
struct Level<'a> {
    args: Vec<String>,
    /// The command that reads the rest.
    next: Option<&'static Command>,
    rest: &'a [String],
    help: bool,
    version: bool,
}

/// Reads the words of one command, up to the name of a command below it.
fn read_level<'a>(
    path: &[&'static Command],
    values: &mut Values,
    mut words: &'a [String],
) -> Result<Level<'a>, String> {
    let command = path[path.len() - 1];
    let mut level = Level::default();
    while let [word, rest @ ..] = words {
        let trimmed = word.trim();
        words = rest;
        let name = match trimmed.strip_prefix("--").or_else(|| trimmed.strip_prefix('-')) {
            Some("") if trimmed == "--" => {
                level.args.extend_from_slice(rest);
                break;
            }
            Some("") => {
                level.args.push(trimmed.to_owned());
                break;
            }
            // `-5` is no flag, and what follows is none either.
            Some(name) if !trimmed.starts_with("--") && !name.starts_with(char::is_alphabetic) => {
                level.args.push(word.clone());
                level.args.extend_from_slice(rest);
                break;
            }
            Some(name) => name,
            None => {
                level.next = command.find(trimmed);
                if level.next.is_some() {
                    level.rest = rest;
                    break;
                }
                level.args.push(if trimmed.is_empty() { word.clone() } else { trimmed.to_owned() });
                if matches!(trimmed, "help" | "h") && level.args.len() == 1 {
                    level.rest = rest;
                    break;
                }
                continue;
            }
        };
        let (name, value) = name.split_once('=').map_or((name, None), |(n, v)| (n, Some(v)));
        let flag = find(path, name).ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let value = match (value, flag.kind) {
            (None | Some(""), Kind::Bool) => "true",
            (Some(value), _) => value,
            (None, _) => {
                let (value, rest) =
                    rest.split_first().ok_or_else(|| format!("flag needs an argument: {trimmed}"))?;
                words = rest;
                value
            }
        };
        values.set(flag, value)?;
        level.help |= flag.name == HELP.name && values.is(HELP.name);
        level.version |= flag.name == VERSION.name && values.is(VERSION.name);
    }
    Ok(level)
}

/// The flag of this name, of the command itself or of those above it.
fn find(path: &[&'static Command], name: &str) -> Option<&'static Flag> {
    static BUILT_IN: [Flag; 2] = [HELP, VERSION];
    let own = |command: &&'static Command| command.flags.iter().find(|f| f.is_called(name));
    let [help, version] = &BUILT_IN;
    match path.last().and_then(own) {
        Some(flag) => Some(flag),
        None if help.is_called(name) => Some(help),
        None if path.len() == 1 && version.is_called(name) => Some(version),
        None => path.iter().rev().skip(1).find_map(own),
    }
}
