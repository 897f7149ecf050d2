//! Dockerfile text to instructions: lexer, parser, heredocs, variable expansion.
//!
//! [`parse`] turns the bytes of a Dockerfile into a [`Dockerfile`]: typed instructions with the lines they came
//! from. Nothing is expanded and nothing is resolved here; [`shell::Lex`] and [`Instruction::expand`] do the
//! expansion when the caller knows the variables.

#![forbid(unsafe_code)]

mod ast;
mod device;
pub mod directive;
mod error;
mod expand;
mod flags;
mod health;
mod heredoc;
mod instruction;
mod lines;
mod mount;
mod node;
pub mod shell;
mod suggest;
mod words;

pub use ast::{
    Add, Arg, ArgPair, CommandLine, Copy, Dockerfile, Env, Expose, Files, From, Healthcheck, InlineFile,
    Instruction, Kind, Label, Maintainer, NetworkMode, Onbuild, Pair, Range, Run, RunBody, SecurityMode,
    Source, Stage, Warning,
};
pub use device::Device;
pub use error::{ErrorKind, ParseError};
pub use heredoc::{Heredoc, HeredocWord};
pub use instruction::{Wrong, parse, parse_trigger, read};
pub use mount::{Mount, MountError, MountFlag, MountType, Sharing};
pub use suggest::nearest;

#[cfg(test)]
mod tests;
