//! What a user can do about an error.

use crate::error::CliError;
use kiln_client::ConnectError;
use kiln_llb::errdefs::Code;

/// What the commands are called that are to be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// Builds.
    pub build: &'static str,
    /// Removes cache.
    pub prune: &'static str,
    /// What to do when no daemon answers.
    pub no_daemon: &'static str,
}

/// The commands of kiln itself.
pub const KILN: Words = Words {
    build: "kiln build",
    prune: "kiln prune",
    no_daemon: "start a daemon with `kiln daemon`, name one with --addr, or build without one: --daemonless",
};

/// Hints for an error; at most a few, none when there is nothing to say.
pub fn hints(error: &CliError, words: &Words) -> Vec<String> {
    match error {
        CliError::Connect(error) => on_connecting(error, words).into_iter().map(str::to_owned).collect(),
        CliError::Daemon(why) if why.starts_with("could not lock") => vec![
            "a daemon has this state directory: build with it, without --daemonless, or give another --root"
                .into(),
        ],
        CliError::Gone { log, .. } => vec![format!("the daemon went away; its log is {}", log.display())],
        CliError::NotBuilt { .. } => vec!["leave the flag out".into()],
        CliError::Engine(error) if matches!(**error, kiln_builder::Error::NoEngine { .. }) => vec![
            "there is no Docker Engine to load the image into; name the image with -t and leave --load out, or write it to a file: -o type=docker,dest=FILE".into(),
        ],
        CliError::Build(build) => by_message(build.code, &build.message, words).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// A hint for a daemon that cannot be reached or started.
pub fn on_connecting(error: &ConnectError, words: &Words) -> Option<&'static str> {
    let is_denied = |e: &std::io::Error| e.kind() == std::io::ErrorKind::PermissionDenied;
    match error {
        ConnectError::NoDaemon { reason, .. } if reason.contains("Permission denied") => Some(
            "run this as root, or let the daemon give its socket to your group: `kiln daemon --group GROUP`",
        ),
        ConnectError::NoDaemon { .. } => Some(words.no_daemon),
        ConnectError::Log { source, .. } | ConnectError::Spawn { source, .. } if is_denied(source) => Some(
            "there is no daemon yet, and builds need root: run this as root, or let root's daemon give its socket to your group: `kiln daemon --group GROUP`",
        ),
        // The end of the log says why.
        ConnectError::Tls(_)
        | ConnectError::NotDaemon { .. }
        | ConnectError::Log { .. }
        | ConnectError::Spawn { .. }
        | ConnectError::Ended { .. }
        | ConnectError::Silent { .. } => None,
    }
}

fn by_message(code: Code, message: &str, words: &Words) -> Option<String> {
    let has = |part: &str| message.contains(part);
    let hint = match () {
        () if has("failed to read dockerfile: open") => {
            "-f PATH names the Dockerfile, relative to the current directory; in an archive or URL, relative to the context"
        }
        () if has("target stage") && has("could not be found") => {
            "--target takes the name after AS in a FROM line"
        }
        () if has("failed to calculate checksum of ref") && has("not found") => {
            "paths of COPY and ADD are relative to the build context; see whether .dockerignore excludes it"
        }
        () if has("network.host is not allowed") || has("entitlement network.host") => {
            return Some(both_sides("network.host", words));
        }
        () if has("security.insecure is not allowed") || has("entitlement security.insecure") => {
            return Some(both_sides("security.insecure", words));
        }
        () if has("requested by the build but not allowed") => {
            return Some(format!("allow it: `{} --allow device=NAME`", words.build));
        }
        () if has("entitlement device is not") => {
            "the daemon offers no devices: it runs with --cdi-disabled, or its configuration says so"
        }
        () if has("401 Unauthorized") || has("authorization failed") || has("insufficient_scope") => {
            "log in to the registry: `docker login REGISTRY` (kiln reads the Docker config and its credential helpers)"
        }
        () if has("no space left on device") => {
            return Some(format!("free space with `{}`, or give the daemon another --root", words.prune));
        }
        () if code == Code::Unavailable => "the daemon went away; its log says why",
        () if has("git over ssh: ssh agent") => {
            "pass one with --ssh default, or keys with --ssh default=FILE"
        }
        () if has("secret") && has("not found") && !has("give it with --secret") => {
            "pass it with --secret id=NAME,src=FILE or --secret id=NAME,env=VAR"
        }
        () => return None,
    };
    Some(hint.to_owned())
}

/// What an entitlement needs.
fn both_sides(name: &str, words: &Words) -> String {
    let build = words.build;
    format!(
        "allow it on both sides: `{build} --allow {name}`, and the daemon with --allow-insecure-entitlement {name}"
    )
}
