//! The command line: tables of commands and flags, read the way buildctl's users know.
//!
//! A table of our own instead of clap: one dash or two, `-flag=value`, global flags anywhere, the texts of errors and
//! of the help, and what goes to which stream, are those that scripts around buildctl were written against.

mod flags;
mod help;
mod parse;
mod table;

pub(crate) use flags::Values;
pub(crate) use help::help;
pub(crate) use parse::{Invocation, Outcome, parse};
pub(crate) use table::{Action, ROOT};

/// A flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// One letter, or empty.
    pub(crate) alias: &'static str,
    pub(crate) kind: Kind,
    pub(crate) usage: &'static str,
    /// Empty if there is none to show.
    pub(crate) default: &'static str,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Text,
    /// Texts; the flag may be repeated.
    List,
    Int,
    Float,
    Duration,
}

/// A command, or a group of them.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) alias: &'static str,
    pub(crate) usage: &'static str,
    /// Instead of the generated line.
    pub(crate) usage_text: &'static str,
    pub(crate) args_usage: &'static str,
    pub(crate) hidden: bool,
    pub(crate) flags: &'static [Flag],
    pub(crate) commands: &'static [Command],
    pub(crate) action: Action,
}

impl Command {
    /// The subcommand of this name.
    fn find(&self, name: &str) -> Option<&'static Command> {
        self.commands.iter().find(|c| c.name == name || (!c.alias.is_empty() && c.alias == name))
    }
}

#[cfg(test)]
mod tests;
