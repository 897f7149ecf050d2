//! The help, word for word: it is what a new user reads first.

use crate::app::Cli;
use clap::CommandFactory as _;

fn help(path: &[&str]) -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut at = &mut command;
    for name in path {
        at = at.find_subcommand_mut(name).unwrap();
    }
    at.clone().term_width(100).render_help().to_string()
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn whole_help() {
    let mut text = help(&[]);
    for name in ["build", "daemon", "du", "prune", "version", "completions"] {
        text.push_str(&format!("\n=== {name}\n{}", help(&[name])));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn completions_know_the_flags() {
    let mut script = Vec::new();
    clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "kiln", &mut script);
    let script = String::from_utf8(script).unwrap();
    for word in ["--no-cache-filter", "--daemonless", "prune", "completions"] {
        assert!(script.contains(word), "{word}");
    }
}
