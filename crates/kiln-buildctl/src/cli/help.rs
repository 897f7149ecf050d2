//! The help texts.

use super::{Command, Flag, Kind};

/// The help of the last command of a path.
/// `address` is the daemon's if no flag names another.
pub(crate) fn help(path: &[&Command], version: &str, address: &str) -> String {
    let Some(command) = path.last() else { return String::new() };
    let full = path.iter().map(|c| c.name).collect::<Vec<_>>().join(" ");
    let is_root = path.len() == 1;
    let mut out =
        format!("NAME:\n   {full} - {}\n\nUSAGE:\n   {}", command.usage, usage(command, &full, is_root));
    if is_root {
        out.push_str(&format!("\n\nVERSION:\n   {version}"));
    }
    let visible: Vec<_> = command.commands.iter().filter(|c| !c.hidden).collect();
    if !visible.is_empty() {
        out.push_str("\n\nCOMMANDS:");
        out.push_str(&commands(&visible, is_root));
    }
    let row = |flag: &Flag| label_and_usage(flag, address);
    let own = command.flags.iter().map(row);
    let help = ("--help, -h".to_string(), "show help".to_string());
    let version = is_root.then(|| ("--version, -v".to_string(), "print the version".to_string()));
    let title = if is_root { "GLOBAL OPTIONS" } else { "OPTIONS" };
    out.push_str(&format!("\n\n{title}:\n{}", flags(own.chain([help]).chain(version).collect())));
    if let [root, .., _] = path
        && command.commands.is_empty()
    {
        let global = root.flags.iter().map(row).collect();
        out.push_str(&format!("\nGLOBAL OPTIONS:\n{}", flags(global)));
    }
    out
}

fn usage(command: &Command, full: &str, is_root: bool) -> String {
    if !command.usage_text.is_empty() {
        return command.usage_text.replace('\n', "\n   ");
    }
    let options = match () {
        () if is_root => " [global options]",
        () if command.commands.is_empty() => " [options]",
        () => "",
    };
    let commands = if command.commands.is_empty() { "" } else { " [command [command options]]" };
    let args = if command.args_usage.is_empty() { String::new() } else { format!(" {}", command.args_usage) };
    format!("{full}{options}{commands}{args}")
}

fn commands(list: &[&Command], is_root: bool) -> String {
    let names = |c: &Command| match c.alias {
        "" => c.name.to_string(),
        alias => format!("{}, {alias}", c.name),
    };
    let help = is_root
        .then(|| ("help, h".to_string(), "Shows a list of commands or help for one command".to_string()));
    let rows: Vec<_> = list.iter().map(|c| (names(c), c.usage.to_string())).chain(help).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, usage)| format!("\n   {name:width$}  {usage}")).collect()
}

fn label_and_usage(flag: &Flag, address: &str) -> (String, String) {
    let kind = match flag.kind {
        Kind::Bool => "",
        Kind::Text | Kind::List => " string",
        Kind::Int => " int",
        Kind::Float => " float",
        Kind::Duration => " duration",
    };
    let mut label = format!("--{}{kind}", flag.name);
    if !flag.alias.is_empty() {
        label.push_str(&format!(", -{}{kind}", flag.alias));
    }
    if flag.kind == Kind::List {
        label = format!("{label} [ {label} ]");
    }
    let default = if flag.name == "addr" { address } else { flag.default };
    let default = match (flag.kind, default) {
        (Kind::Float | Kind::Duration, "") => {
            if flag.kind == Kind::Float {
                " (default: 0)".to_string()
            } else {
                " (default: 0s)".to_string()
            }
        }
        (_, "") => String::new(),
        (Kind::Text, text) => format!(" (default: {text:?})"),
        (_, text) => format!(" (default: {text})"),
    };
    (label, format!("{}{default}", flag.usage))
}

fn flags(rows: Vec<(String, String)>) -> String {
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    rows.iter().map(|(label, usage)| format!("   {label:width$}  {usage}\n")).collect()
}
