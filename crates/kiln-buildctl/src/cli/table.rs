//! All commands and flags (spec daemon-and-cli.md section 2).

use super::{Command, Flag, Kind};

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Shows its own help.
    Help,
    Build,
    Du,
    Prune,
    PruneHistories,
    DialStdio,
    DumpLlb,
    DumpMetadata,
    Workers,
    Info,
    Monitor,
    Logs,
    Ctl,
    Get,
    Histories,
}

const fn flag(name: &'static str, kind: Kind, usage: &'static str) -> Flag {
    Flag { name, alias: "", kind, usage, default: "" }
}

const fn short(name: &'static str, alias: &'static str, kind: Kind, usage: &'static str) -> Flag {
    Flag { name, alias, kind, usage, default: "" }
}

const fn preset(name: &'static str, kind: Kind, usage: &'static str, default: &'static str) -> Flag {
    Flag { name, alias: "", kind, usage, default }
}

const fn command(name: &'static str, usage: &'static str, flags: &'static [Flag], action: Action) -> Command {
    Command {
        name,
        alias: "",
        usage,
        usage_text: "",
        args_usage: "",
        hidden: false,
        flags,
        commands: &[],
        action,
    }
}

const FORMAT: Flag =
    flag("format", Kind::Text, "Format the output using the given Go template, e.g, '{{json .}}'");
const FILTER: Flag = short("filter", "f", Kind::List, "Filter records");
const VERBOSE: Flag = short("verbose", "v", Kind::Bool, "Verbose output");

/// The program.
pub(crate) static ROOT: Command = Command {
    commands: &[
        command("du", "disk usage", &[FILTER, VERBOSE, FORMAT], Action::Du),
        command("prune", "clean up build cache", PRUNE, Action::Prune),
        command("prune-histories", "clean up build histories", &[FORMAT], Action::PruneHistories),
        Command { alias: "b", usage_text: BUILD_TEXT, ..command("build", "build", BUILD, Action::Build) },
        DEBUG,
        Command {
            hidden: true,
            ..command(
                "dial-stdio",
                "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
                &[],
                Action::DialStdio,
            )
        },
    ],
    ..command("buildctl", "build utility", GLOBAL, Action::Help)
};

const GLOBAL: &[Flag] = &[
    flag("debug", Kind::Bool, "enable debug output in logs"),
    preset("addr", Kind::Text, "buildkitd address", "unix:///run/buildkit/buildkitd.sock"),
    preset("log-format", Kind::Text, "log formatter: json or text", "text"),
    flag("tlsservername", Kind::Text, "buildkitd server name for certificate validation"),
    flag("tlscacert", Kind::Text, "CA certificate for validation"),
    flag("tlscert", Kind::Text, "client certificate"),
    flag("tlskey", Kind::Text, "client key"),
    flag(
        "tlsdir",
        Kind::Text,
        "directory containing CA certificate, client certificate, and client key. Supported file names are (ca.pem, cert.pem, key.pem) or (ca.crt, tls.crt, tls.key)",
    ),
    preset("timeout", Kind::Int, "timeout backend connection after value seconds", "5"),
    flag("wait", Kind::Bool, "block RPCs until the connection becomes available"),
];

const PRUNE: &[Flag] = &[
    flag("keep-duration", Kind::Duration, "Keep data newer than this limit"),
    flag("keep-storage", Kind::Float, "Keep data below this limit (in MB)"),
    flag("keep-storage-min", Kind::Float, "Always allow data above this limit (in MB)"),
    flag("free-storage", Kind::Float, "Keep free data below this limit (in MB)"),
    FILTER,
    flag("all", Kind::Bool, "Include internal/frontend references"),
    VERBOSE,
    FORMAT,
];

const BUILD_TEXT: &str = "
  To build and push an image using Dockerfile:
    $ buildctl build --frontend dockerfile.v0 --opt target=foo --opt build-arg:foo=bar --local context=. --local dockerfile=. --output type=image,name=docker.io/username/image,push=true
  ";

const BUILD: &[Flag] = &[
    short(
        "output",
        "o",
        Kind::List,
        "Define exports for build result, e.g. --output type=image,name=docker.io/username/image,push=true",
    ),
    preset(
        "progress",
        Kind::Text,
        "Set type of progress (auto, plain, tty, rawjson). Use plain to show container output",
        "auto",
    ),
    flag("trace", Kind::Text, "Path to trace file. Defaults to no tracing."),
    flag("local", Kind::List, "Allow build access to the local directory"),
    flag("oci-layout", Kind::List, "Allow build access to the local OCI layout"),
    flag("frontend", Kind::Text, "Define frontend used for build"),
    flag(
        "opt",
        Kind::List,
        "Define custom options for frontend, e.g. --opt target=foo --opt build-arg:foo=bar",
    ),
    flag("no-cache", Kind::Bool, "Disable cache for all the vertices"),
    flag(
        "export-cache",
        Kind::List,
        "Export build cache, e.g. --export-cache type=registry,ref=example.com/foo/bar, or --export-cache type=local,dest=path/to/dir",
    ),
    flag(
        "import-cache",
        Kind::List,
        "Import build cache, e.g. --import-cache type=registry,ref=example.com/foo/bar, or --import-cache type=local,src=path/to/dir",
    ),
    flag("secret", Kind::List, "Secret value exposed to the build. Format id=secretname,src=filepath"),
    flag(
        "allow",
        Kind::List,
        "Allow extra privileged entitlement, e.g. network.host, security.insecure, device",
    ),
    flag(
        "ssh",
        Kind::List,
        "Allow forwarding SSH agent or a raw Unix socket to the builder. Format default|<id>[=<socket>[,raw=false]|<key>[,<key>]]",
    ),
    flag("metadata-file", Kind::Text, "Output build metadata (e.g., image digest) to a file as JSON"),
    flag("source-policy-file", Kind::Text, "Read source policy file from a JSON file"),
    flag("proxy-network", Kind::Bool, "Run build with proxy network enforcement"),
    flag("ref-file", Kind::Text, "Write build ref to a file"),
    flag(
        "registry-auth-tlscontext",
        Kind::List,
        "Overwrite TLS configuration when authenticating with registries, e.g. --registry-auth-tlscontext host=https://myserver:2376,insecure=false,ca=/path/to/my/ca.crt,cert=/path/to/my/cert.crt,key=/path/to/my/key.crt",
    ),
    flag(
        "debug-json-cache-metrics",
        Kind::Text,
        "Where to output json cache metrics, use 'stdout' or 'stderr' for standard (error) output.",
    ),
];

const DEBUG: Command = Command {
    commands: &[
        Command {
            args_usage: "<llbfile>",
            ..command(
                "dump-llb",
                "dump LLB in human-readable format. LLB can be also passed via stdin. This command does not require the daemon to be running.",
                &[flag("dot", Kind::Bool, "Output dot format")],
                Action::DumpLlb,
            )
        },
        command(
            "dump-metadata",
            "dump the meta in human-readable format.  This command requires the daemon NOT to be running.",
            &[preset("root", Kind::Text, "path to state directory", "/var/lib/buildkit")],
            Action::DumpMetadata,
        ),
        command(
            "workers",
            "list workers",
            &[short("filter", "f", Kind::List, "containerd-style filter string slice"), VERBOSE, FORMAT],
            Action::Workers,
        ),
        command("info", "display internal information", &[FORMAT], Action::Info),
        command(
            "monitor",
            "display build events",
            &[
                flag("completed", Kind::Bool, "show completed builds"),
                flag("ref", Kind::Text, "show events for a specific build"),
            ],
            Action::Monitor,
        ),
        command(
            "logs",
            "display build logs",
            &[
                preset("progress", Kind::Text, "progress output type", "auto"),
                flag("trace", Kind::Bool, "show opentelemetry trace"),
            ],
            Action::Logs,
        ),
        command(
            "ctl",
            "control build records",
            &[
                flag("pin", Kind::Bool, "Pin build so it will not be garbage collected"),
                flag("unpin", Kind::Bool, "Unpin build so it will be garbage collected"),
                flag("delete", Kind::Bool, "Delete build record"),
            ],
            Action::Ctl,
        ),
        command("get", "retrieve a blob from contentstore", &[], Action::Get),
        command("histories", "list build records", &[FORMAT], Action::Histories),
    ],
    ..command("debug", "debug utilities", &[], Action::Help)
};
