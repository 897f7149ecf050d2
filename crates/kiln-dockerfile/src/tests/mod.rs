//! Tests by part of the language.

mod errors;
mod expansion;
mod instructions;
mod lexical;
mod mounts;
mod properties;

use crate::{Dockerfile, Instruction, Kind, parse};

pub(crate) fn ok(text: &str) -> Dockerfile {
    parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

pub(crate) fn error(text: &str) -> String {
    parse(text.as_bytes()).expect_err(text).to_string()
}

/// The first instruction after `FROM x`.
pub(crate) fn one(line: &str) -> Instruction {
    let mut file = ok(&format!("FROM x\n{line}\n"));
    file.stages.remove(0).instructions.remove(0)
}

pub(crate) fn kind(line: &str) -> Kind {
    one(line).kind
}

pub(crate) fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}
