//! `__complete`: what a shell offers. Commands, flags and builders; files are the shell's own affair.

use kiln_builder::{Builder, Flags};

use super::say;
use crate::context::Context;
use crate::error::Error;
use crate::flags::Parsed;
use crate::spec::{self, COMMANDS, GLOBAL, Place};

/// Nothing but what is listed.
const ONLY: u8 = 4;
/// Whatever the shell thinks.
const SHELL: u8 = 0;

/// Offers what can stand at the last of these words.
pub(crate) fn run(words: &[String]) -> Result<(), Error> {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(l, b)| (l.as_str(), b));
    let before = match before.first().map(String::as_str) {
        Some("buildx") => &before[1..],
        _ => before,
    };
    let command = before.iter().find_map(|w| spec::find(w));
    let (offers, directive) = match command {
        _ if last.starts_with('-') => {
            let own = command.map_or(&[][..], |c| c.flags);
            let all = GLOBAL.iter().chain(own).filter(|f| !f.help.is_empty());
            (all.map(|f| format!("--{}\t{}", f.name, f.help)).collect(), ONLY)
        }
        None => {
            let listed = COMMANDS.iter().filter(|c| c.place != Place::Hidden);
            (listed.map(|c| format!("{}\t{}", c.name, c.short)).collect(), ONLY)
        }
        Some(c) if matches!(c.name, "use" | "rm" | "stop" | "inspect") => (builders(), ONLY),
        Some(_) => (Vec::new(), SHELL),
    };
    let offers = offers.into_iter().filter(|o| o.starts_with(last)).map(|o| o + "\n");
    say(&format!("{}:{directive}\n", offers.collect::<String>()))
}

/// Names of builders; none when they cannot be read: nobody could read the reason either.
fn builders() -> Vec<String> {
    let list = || -> Result<Vec<Builder>, Error> {
        let context = Context::new(&Flags::default(), &Parsed::default(), false)?;
        Ok(context.world.all(&context.world.store()?)?)
    };
    list().unwrap_or_default().into_iter().map(|b| b.instance.name).collect()
}
