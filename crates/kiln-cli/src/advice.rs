//! What a user can do about an error.

use crate::error::CliError;
use kiln_client::ConnectError;
use kiln_llb::errdefs::Code;

/// Hints for an error; at most a few, none when there is nothing to say.
pub(crate) fn hints(error: &CliError) -> Vec<String> {
    match error {
        CliError::Connect(error) => connect(error).into_iter().map(str::to_owned).collect(),
        CliError::Daemon(why) if why.starts_with("could not lock") => vec![
            "a daemon has this state directory: build with it, without --daemonless, or give another --root"
                .into(),
        ],
        CliError::Gone { log, .. } => vec![format!("the daemon went away; its log is {}", log.display())],
        CliError::NotBuilt { .. } => vec!["leave the flag out".into()],
        CliError::Program { program: "docker", .. } => {
            vec!["write the image to a file instead: -o type=docker,dest=image.tar".into()]
        }
        CliError::Build(build) => {
            by_message(build.code, &build.message).into_iter().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn connect(error: &ConnectError) -> Option<&'static str> {
    let is_denied = |e: &std::io::Error| e.kind() == std::io::ErrorKind::PermissionDenied;
    match error {
        ConnectError::NoDaemon { reason, .. } if reason.contains("Permission denied") => Some(
            "run kiln as root, or let the daemon give its socket to your group: gid in [grpc] of its configuration",
        ),
        ConnectError::NoDaemon { .. } => Some(
            "start a daemon with `kiln daemon`, name one with --addr, or build without one: --daemonless",
        ),
        ConnectError::Log { source, .. } | ConnectError::Spawn { source, .. } if is_denied(source) => {
            Some("there is no daemon yet, and builds need root: run kiln as root")
        }
        // The end of the log says why.
        ConnectError::Tls(_)
        | ConnectError::NotDaemon { .. }
        | ConnectError::Log { .. }
        | ConnectError::Spawn { .. }
        | ConnectError::Ended { .. }
        | ConnectError::Silent { .. } => None,
    }
}

fn by_message(code: Code, message: &str) -> Option<&'static str> {
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
            "allow it on both sides: `kiln build --allow network.host` and `kiln daemon --allow-insecure-entitlement network.host`"
        }
        () if has("security.insecure is not allowed") || has("entitlement security.insecure") => {
            "allow it on both sides: `kiln build --allow security.insecure` and `kiln daemon --allow-insecure-entitlement security.insecure`"
        }
        () if has("requested by the build but not allowed") => "allow it: `kiln build --allow device=NAME`",
        () if has("entitlement device is not") => {
            "the daemon offers no devices: it runs with --cdi-disabled, or its configuration says so"
        }
        () if has("401 Unauthorized") || has("authorization failed") || has("insufficient_scope") => {
            "log in to the registry: `docker login REGISTRY` (kiln reads the Docker config and its credential helpers)"
        }
        () if has("no space left on device") => {
            "free space with `kiln prune`, or give the daemon another --root"
        }
        () if code == Code::Unavailable => "the daemon went away; its log says why",
        () if has("git over ssh: ssh agent") => {
            "pass one with --ssh default, or keys with --ssh default=FILE"
        }
        () if has("secret") && has("not found") => {
            "pass it with --secret id=NAME,src=FILE or --secret id=NAME,env=VAR"
        }
        () => return None,
    };
    Some(hint)
}
