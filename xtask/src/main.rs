//! Checks of the house, run by `cargo xtask check` and by the tests: floors, licences, where `unsafe` may stand.
#![allow(clippy::print_stderr)] // it is a command

mod floors;
mod licences;
mod metadata;
mod unsafety;
mod unused;

use metadata::Workspace;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("check") => check(),
        _ => {
            eprintln!("usage: cargo xtask check");
            ExitCode::FAILURE
        }
    }
}

fn check() -> ExitCode {
    let problems = problems();
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every rule that the tree breaks, each with what to do about it.
fn problems() -> Vec<String> {
    let workspace = Workspace::load();
    [
        floors::check(&workspace),
        licences::check(&workspace),
        unsafety::check(&workspace),
        unused::check(&workspace),
        unused::documented(&workspace),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_house_keeps_its_rules() {
        let problems = super::problems();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
