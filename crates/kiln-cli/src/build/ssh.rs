//! `--ssh`.

use super::args::BuildArgs;
use super::attrs::Vars;
use super::context::is_remote;
use crate::error::CliError;
use kiln_go::parse_bool;
use std::path::PathBuf;

/// An agent, or keys, under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// What the Dockerfile calls it.
    pub id: String,
    /// One socket, or key files.
    pub paths: Vec<PathBuf>,
    /// The socket is no agent: bytes are passed on as they are.
    pub raw: bool,
}

/// All that the flags name. A context behind ssh is fetched with the user's agent, if there is one.
pub(crate) fn of(args: &BuildArgs, vars: Vars<'_>) -> Result<Vec<Ssh>, CliError> {
    let agent = vars("SSH_AUTH_SOCK").filter(|a| !a.is_empty());
    let context = &args.context;
    let is_ssh = context.starts_with("ssh://") || (context.contains('@') && !context.contains("://"));
    if args.ssh.is_empty() && agent.is_some() && is_ssh && is_remote(context) {
        return Ok(vec![parse("default", agent.as_deref())?]);
    }
    args.ssh.iter().map(|s| parse(s, agent.as_deref())).collect()
}

/// Reads `default`, or `ID[=SOCKET|KEY[,KEY][,raw=BOOL]]`. Without paths it is the agent of $SSH_AUTH_SOCK.
pub fn parse(text: &str, agent: Option<&str>) -> Result<Ssh, CliError> {
    let wrong = |why: &str| CliError::Value { flag: "--ssh", value: text.to_owned(), why: why.to_owned() };
    let (id, paths) = text.split_once('=').map_or((text, None), |(id, paths)| (id, Some(paths)));
    let id = if id.is_empty() { "default" } else { id };
    let (mut list, mut raw): (Vec<PathBuf>, bool) = (Vec::new(), false);
    for part in paths.into_iter().flat_map(|p| p.split(',')).filter(|p| !p.is_empty()) {
        match part.strip_prefix("raw=") {
            Some(value) => raw = parse_bool(value).ok_or_else(|| wrong("raw is true or false"))?,
            None => list.push(part.into()),
        }
    }
    if raw && list.len() != 1 {
        return Err(wrong("raw needs exactly one socket"));
    }
    if list.is_empty() {
        let agent = agent.filter(|a| !a.is_empty()).ok_or_else(|| {
            wrong("there is no SSH agent ($SSH_AUTH_SOCK is not set); start one or name a socket or keys: ID=PATH")
        })?;
        list.push(agent.into());
    }
    Ok(Ssh { id: id.to_owned(), paths: list, raw })
}
