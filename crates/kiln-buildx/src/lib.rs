//! The command line of docker-buildx, the plugin of the Docker CLI.
//!
//! [`run`] reads the arguments as the Docker CLI gives them, or as a program of its own gets them, and does what they
//! say: builders are kiln-builder's, builds are kiln-cli's.

#![forbid(unsafe_code)]

mod build;
mod commands;
mod context;
mod error;
mod flags;
mod format;
mod help;
mod plugin;
mod spec;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use kiln_builder::Flags;
use kiln_cli::{Hooks, printer};

use context::Context;
use error::Error;
use flags::{Parsed, Until};
use help::Style;
use spec::{Command, Place, Words};

/// Runs a command line, its first word being the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>, _hooks: Hooks) -> ExitCode {
    let mut args = args.into_iter().map(|a| a.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    if args.first().is_some_and(|a| a == plugin::METADATA) {
        let said = printer::data(plugin::metadata().as_bytes());
        return if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let is_plugin = plugin::is_plugin();
    let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let style = if is_plugin { Style::Plugin } else { Style::Alone(name) };
    if is_plugin {
        plugin::follow_docker();
    }
    match dispatch(args, &style) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(is_plugin),
    }
}

/// Finds the command and runs it.
fn dispatch(args: Vec<String>, style: &Style) -> Result<(), Error> {
    let (docker, args) = match style {
        Style::Plugin => docker_flags(args)?,
        Style::Alone(_) => (Parsed::default(), args),
    };
    let flag_error = |command: Option<&Command>| {
        let usage = style.usage(command);
        move |message| Error::Flag { message, usage }
    };
    if let Some("__complete" | "__completeNoDesc") = args.first().map(String::as_str) {
        return commands::complete::run(&args[1..]);
    }
    let mut global = Parsed::parse(args, &[&spec::GLOBAL], Until::Word).map_err(flag_error(None))?;
    let rest = std::mem::take(&mut global.rest);
    let is_experimental = is_experimental();
    let name = match global.words.first().map(String::as_str) {
        None => return show_help(style, None, is_experimental),
        Some("help") => {
            return show_help(style, rest.first().and_then(|n| spec::find(n)), is_experimental);
        }
        Some(name) => name.to_owned(),
    };
    let found = spec::find(&name).filter(|c| c.name != "debug" || is_experimental);
    let Some(command) = found else {
        show_help(style, None, is_experimental)?;
        return Err(Error::Text(format!("unknown command: {name:?}")));
    };
    if let Place::Later(why) | Place::LaterGroup(why) = command.place {
        return later(command, why, &rest, style, is_experimental);
    }
    if command.name == "debug" {
        return Err(Error::text("debug is not built yet: kiln cannot stop a build at a step"));
    }
    let flags: [&'static [spec::Flag]; 2] = [command.flags, &spec::GLOBAL];
    let own = Parsed::parse(rest, &flags, Until::End).map_err(flag_error(Some(command)))?;
    global.words.clear();
    let words = own.words.clone();
    global.merge(own);
    global.words = words;
    if global.help {
        return show_help(style, Some(command), is_experimental);
    }
    check_words(command, global.words.len(), style)?;
    let context = Context::new(&docker_options(&docker), &global, docker.switch("debug"))?;
    commands::run(command.name, &context, &global)
}

/// What stands before the word `buildx`.
fn docker_flags(args: Vec<String>) -> Result<(Parsed, Vec<String>), Error> {
    let mut docker = Parsed::parse(args, &[&spec::DOCKER], Until::Word).map_err(Error::Text)?;
    let mut rest = std::mem::take(&mut docker.rest);
    match docker.words.first() {
        Some(word) if word != "buildx" => rest.insert(0, word.clone()),
        _ => {}
    }
    Ok((docker, rest))
}

fn docker_options(docker: &Parsed) -> Flags {
    Flags {
        config: docker.word("config").map(Into::into),
        context: docker.word("context"),
        host: docker.list("host").pop(),
        tls: docker.switch("tls") || docker.switch("tlsverify") || docker.has("tlscacert"),
    }
}

fn check_words(command: &Command, count: usize, style: &Style) -> Result<(), Error> {
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let wants = match command.words {
        Words::Exactly(n) if count != n => format!("requires {n} argument{}", plural(n)),
        Words::AtMost(n) if count > n => format!("requires at most {n} argument{}", plural(n)),
        Words::No if count > 0 => "accepts no arguments".into(),
        _ => return Ok(()),
    };
    let path = style.path();
    let program = path.split(' ').next().unwrap_or_default();
    let usage = style.usage(Some(command));
    Err(Error::Text(format!("{program}: '{}' {wants}\n\n{usage}", style.of(Some(command)))))
}

/// Keeps the place of a command that is not built.
fn later(
    command: &Command,
    why: &str,
    rest: &[String],
    style: &Style,
    is_experimental: bool,
) -> Result<(), Error> {
    if rest.iter().any(|a| a == "--help" || a == "-h") {
        return show_help(style, Some(command), is_experimental);
    }
    Err(Error::Text(format!("{} is not built yet: {why}", command.name)))
}

fn show_help(style: &Style, command: Option<&Command>, is_experimental: bool) -> Result<(), Error> {
    commands::say(&style.help(command, is_experimental))
}

fn is_experimental() -> bool {
    let set = std::env::var("BUILDX_EXPERIMENTAL").unwrap_or_default();
    kiln_go::parse_bool(&set) == Some(true)
}
