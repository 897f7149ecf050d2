//! Help texts: of the Docker CLI when it runs us, else of a program of its own.

use crate::spec::{COMMANDS, Command, Flag, GLOBAL, Kind, Place};

/// Columns of a page: one less than a terminal has.
const WIDTH: usize = 79;
const LONG: &str = "Extended build capabilities with BuildKit";
const EXPERIMENTAL: &str =
    "Experimental commands and flags are hidden. Set BUILDX_EXPERIMENTAL=1 to show them.";

/// Who shows the help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// The Docker CLI.
    Plugin,
    /// The program under its own name.
    Alone(String),
}

impl Style {
    /// What is typed to get here: `docker buildx`, or the name of the program.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Plugin => "docker buildx".into(),
            Self::Alone(name) => name.clone(),
        }
    }

    /// `Usage:  docker buildx build [OPTIONS] PATH | URL | -` and where to read more.
    pub(crate) fn usage(&self, command: Option<&Command>) -> String {
        let path = self.of(command);
        format!("Usage:  {}\n\nRun '{path} --help' for more information", self.line(command))
    }

    /// What is typed to run a command.
    pub(crate) fn of(&self, command: Option<&Command>) -> String {
        command.map_or_else(|| self.path(), |c| format!("{} {}", self.path(), c.name))
    }

    fn line(&self, command: Option<&Command>) -> String {
        let usage = command.map_or("", |c| c.usage);
        format!("{} {usage}", self.of(command)).trim_end().to_owned()
    }

    /// The whole help of a command, or of all.
    pub(crate) fn help(&self, command: Option<&Command>, is_experimental: bool) -> String {
        let mut out = match (self, command) {
            (Self::Plugin, None) => self.plugin_root(),
            (Self::Plugin, Some(command)) => self.plugin_command(command),
            (Self::Alone(_), command) => self.alone(command),
        };
        let shows_hint = command.is_none() || matches!(self, Self::Alone(_));
        if shows_hint && !is_experimental {
            out.push_str(&format!("\n{EXPERIMENTAL}\n"));
        }
        out
    }

    fn plugin_root(&self) -> String {
        let path = self.path();
        let mut out = format!("Usage:  {path} [OPTIONS] COMMAND\n\n{LONG}\n\nOptions:\n");
        out.push_str(&flag_lines(&GLOBAL.iter().collect::<Vec<_>>(), Some(WIDTH)));
        let groups = COMMANDS.iter().filter(|c| matches!(c.place, Place::LaterGroup(_)));
        out.push_str(&format!("\nManagement Commands:\n{}", command_lines(groups)));
        let single = COMMANDS.iter().filter(|c| matches!(c.place, Place::Listed | Place::Later(_)));
        out.push_str(&format!("\nCommands:\n{}", command_lines(single)));
        out.push_str(&format!("\nRun '{path} COMMAND --help' for more information on a command.\n"));
        out
    }

    fn plugin_command(&self, command: &Command) -> String {
        let mut out = format!("Usage:  {}\n\n{}\n", self.line(Some(command)), command.short);
        if command.name == "build" {
            let names = "docker build, docker builder build, docker image build, docker buildx b";
            out.push_str(&format!("\nAliases:\n  {names}\n"));
        } else if let [alias] = command.aliases {
            let path = self.path();
            out.push_str(&format!("\nAliases:\n  {path} {}, {path} {alias}\n", command.name));
        }
        let global = GLOBAL.iter().filter(|f| f.name != "builder" || !command.hides_builder);
        let flags: Vec<&Flag> = command.flags.iter().chain(global).collect();
        out.push_str(&format!("\nOptions:\n{}", flag_lines(&flags, Some(WIDTH))));
        out
    }

    fn alone(&self, command: Option<&Command>) -> String {
        let path = self.of(command);
        let help = format!("help for {}", command.map_or_else(|| self.path(), |c| c.name.to_owned()));
        let mut out = match command {
            None => {
                let mut out =
                    format!("{LONG}\n\nUsage:\n  {path}\n  {path} [command]\n\nAvailable Commands:\n");
                let (before, after): (Vec<&Command>, Vec<_>) =
                    COMMANDS.iter().filter(|c| c.place != Place::Hidden).partition(|c| c.name < "help");
                out.push_str(&command_lines(before.into_iter()));
                out.push_str(&format!("  {:<11} Help about any command\n", "help"));
                out.push_str(&command_lines(after.into_iter()));
                out
            }
            Some(command) => {
                let mut out = format!("{}\n\nUsage:\n  {}\n", command.short, self.line(Some(command)));
                if let [alias] = command.aliases {
                    out.push_str(&format!("\nAliases:\n  {}, {alias}\n", command.name));
                }
                out
            }
        };
        // The text of the help flag is known here only.
        let help: &'static str = Box::leak(help.into_boxed_str());
        let help = Flag { name: "help", short: Some('h'), kind: Kind::Switch, default: "", help };
        let own: &[Flag] = command.map_or(&GLOBAL, |c| c.flags);
        let flags: Vec<&Flag> = own.iter().chain([&help]).collect();
        out.push_str(&format!("\nFlags:\n{}", flag_lines(&flags, None)));
        match command {
            None => out.push_str(&format!(
                "\nUse \"{path} [command] --help\" for more information about a command.\n"
            )),
            Some(command) => {
                let global = GLOBAL.iter().filter(|f| f.name != "builder" || !command.hides_builder);
                let lines = flag_lines(&global.collect::<Vec<_>>(), None);
                out.push_str(&format!("\nGlobal Flags:\n{lines}"));
            }
        }
        out
    }
}

fn command_lines<'a>(commands: impl Iterator<Item = &'a Command>) -> String {
    commands.map(|c| format!("  {:<11} {}\n", c.name, c.short)).collect()
}

/// Flags in order; texts are wrapped at a width.
fn flag_lines(flags: &[&Flag], width: Option<usize>) -> String {
    let mut flags: Vec<&&Flag> = flags.iter().filter(|f| !f.help.is_empty()).collect();
    flags.sort_by_key(|f| f.name);
    let heads: Vec<String> = flags.iter().map(|f| head(f)).collect();
    let column = heads.iter().map(String::len).max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (flag, head) in flags.iter().zip(&heads) {
        let default =
            if flag.default.is_empty() { String::new() } else { format!(" (default {})", flag.default) };
        let text = format!("{}{default}", flag.help);
        let lines = match width {
            Some(width) if width > column + 24 => wrap(&text, width - column),
            _ => vec![text],
        };
        let text = lines.join(&format!("\n{:column$}", ""));
        out.push_str(&format!("{head:column$}{text}\n"));
    }
    out
}

fn head(flag: &Flag) -> String {
    let short = flag.short.map_or("    ".into(), |s| format!("-{s}, "));
    let value = match flag.kind {
        Kind::Switch => "",
        Kind::Word(name) | Kind::List(name) => name,
        Kind::Size => "bytes",
        Kind::Duration => "duration",
    };
    format!("  {short}--{} {value}", flag.name).trim_end().to_owned()
}

/// Lines of at most a width less a margin; the last one may reach into the margin.
fn wrap(text: &str, width: usize) -> Vec<String> {
    const MARGIN: usize = 5;
    let width = width.saturating_sub(MARGIN);
    let (mut lines, mut rest) = (Vec::new(), text);
    while rest.len() >= width + MARGIN {
        let Some(at) = rest.get(..width).and_then(|head| head.rfind(' ')).filter(|at| *at > 0) else { break };
        lines.push(rest[..at].to_owned());
        rest = &rest[at + 1..];
    }
    lines.push(rest.to_owned());
    lines
}
