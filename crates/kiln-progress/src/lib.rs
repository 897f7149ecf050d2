//! Progress of a build: its updates, and how they are shown.
//!
//! [`Update`] is what a build says; [`Display`] shows it in one of the [`Mode`]s. Environment variables, the terminal
//! and the clock are arguments.

mod display;
mod interval;
mod log;
mod options;
mod plain;
mod source;
mod tame;
mod text;
mod trace;
mod tty;
mod update;

pub use display::{Display, Next};
pub use options::{Color, Colors, DisplayOptions, Mode, ModeError, TerminalSize};
pub use source::print_source_excerpt;
pub use text::{format_bytes, printable, printable_lines};
pub use update::{
    LineRange, LogChunk, ProgressGroup, SourceFile, StatusUpdate, Update, VertexUpdate, Warning,
};

#[cfg(test)]
mod tests;
