//! HEALTHCHECK.

use crate::ast::{CommandLine, Healthcheck};
use crate::error::ErrorKind;
use crate::flags::{FlagType, Flags};
use kiln_go::duration;

const FLAGS: [(&str, FlagType); 5] = [
    ("interval", FlagType::Text),
    ("timeout", FlagType::Text),
    ("start-period", FlagType::Text),
    ("start-interval", FlagType::Text),
    ("retries", FlagType::Text),
];

pub(crate) fn parse(given: &[String], args: Option<(String, CommandLine)>) -> Result<Healthcheck, ErrorKind> {
    let (kind, command) = args.ok_or(ErrorKind::AtLeastOne("HEALTHCHECK"))?;
    let is_empty = match &command {
        CommandLine::Shell(text) => text.is_empty(),
        CommandLine::Exec(list) => list.is_empty(),
    };
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        return if is_empty { Ok(Healthcheck::None) } else { Err(ErrorKind::HealthNone) };
    }
    let flags = Flags::parse(given, &FLAGS)?;
    if kind != "CMD" {
        return Err(ErrorKind::HealthType(kind));
    }
    if is_empty {
        return Err(ErrorKind::HealthNoCommand);
    }
    Ok(Healthcheck::Command {
        command,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, name: &'static str) -> Result<i64, ErrorKind> {
    const MILLISECOND: i64 = 1_000_000;
    let Some(text) = flags.text(name) else { return Ok(0) };
    match duration::parse(&text).map_err(ErrorKind::Duration)? {
        n if n != 0 && n < MILLISECOND => Err(ErrorKind::HealthInterval(name)),
        n => Ok(n),
    }
}

fn retries(flags: &Flags) -> Result<i32, ErrorKind> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let Some(value) = flags.text("retries") else { return Ok(0) };
    let number: i32 = value.parse().map_err(|e: std::num::ParseIntError| ErrorKind::Retries {
        reason: if matches!(e.kind(), PosOverflow | NegOverflow) {
            "value out of range"
        } else {
            "invalid syntax"
        },
        value: value.clone(),
    })?;
    if number < 0 { Err(ErrorKind::NegativeRetries(number.into())) } else { Ok(number) }
}
