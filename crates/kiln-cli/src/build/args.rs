//! The flags of `kiln build`: those of `docker build`, all of them (spec daemon-and-cli.md section 4).

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use std::path::PathBuf;

const BUILD: &str = "What is built";
const INPUT: &str = "Inputs";
const OUTPUT: &str = "Results";
const CACHE: &str = "Cache";
const STEPS: &str = "Build steps";
const LATER: &str = "Not built yet (refused)";

/// Flags and arguments.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BuildArgs {
    /// Build context: a directory, a git or http(s) URL, or - to read a tar archive or a Dockerfile from stdin
    #[arg(value_name = "PATH | URL | -")]
    pub(crate) context: String,

    /// Dockerfile [default: Dockerfile in the context]; - reads it from stdin
    #[arg(short, long, value_name = "PATH", help_heading = BUILD)]
    pub(crate) file: Option<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE", help_heading = BUILD)]
    pub(crate) target: Option<String>,
    /// Set a variable that ARG declares; without =VALUE the one of the environment
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = BUILD)]
    pub(crate) build_arg: Vec<String>,
    /// Platform to build for, such as linux/amd64
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', help_heading = BUILD)]
    pub(crate) platform: Vec<String>,
    /// Add a label to the image
    #[arg(long, value_name = "NAME=VALUE", help_heading = BUILD)]
    pub(crate) label: Vec<String>,

    /// Add a context under a name: a directory, docker-image://REF, or a URL
    #[arg(long, value_name = "NAME=VALUE", help_heading = INPUT)]
    pub(crate) build_context: Vec<String>,
    /// Give a secret to RUN --mount=type=secret: id=NAME[,src=FILE | ,env=VAR]
    #[arg(long, value_name = "SPEC", help_heading = INPUT)]
    pub(crate) secret: Vec<String>,
    /// Give an SSH agent or keys to RUN --mount=type=ssh: default or ID[=SOCKET|KEY,...]
    #[arg(long, value_name = "SPEC", help_heading = INPUT)]
    pub(crate) ssh: Vec<String>,
    /// Ask the registry for newer versions of all images
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = INPUT)]
    pub(crate) pull: bool,

    /// Name of the image: [REGISTRY/]NAME[:TAG] (may be repeated)
    #[arg(short, long, value_name = "NAME", help_heading = OUTPUT)]
    pub(crate) tag: Vec<String>,
    /// Where the result goes: type=local|tar|oci|docker|image|registry[,dest=PATH][,KEY=VALUE], or a directory
    #[arg(short, long, value_name = "SPEC", help_heading = OUTPUT)]
    pub(crate) output: Vec<String>,
    /// Push the image to its registry; same as --output type=registry
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = OUTPUT)]
    pub(crate) push: bool,
    /// Load the image into Docker; same as --output type=docker
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = OUTPUT)]
    pub(crate) load: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what is known of the result to a file, as JSON
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Show nothing but the image's id, at the end, on stdout
    #[arg(short, long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = OUTPUT)]
    pub(crate) quiet: bool,
    /// How progress is shown: auto, plain, tty, rawjson, quiet or none [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = modes(), hide_possible_values = true,
          help_heading = OUTPUT)]
    pub(crate) progress: String,

    /// Run every step again
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = CACHE)]
    pub(crate) no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',', help_heading = CACHE)]
    pub(crate) no_cache_filter: Vec<String>,

    /// Add a line to /etc/hosts of the steps
    #[arg(long, value_name = "HOST:IP", help_heading = STEPS)]
    pub(crate) add_host: Vec<String>,
    /// Network of the steps: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default", help_heading = STEPS)]
    pub(crate) network: String,
    /// Allow what the Dockerfile asks for: network.host or security.insecure
    #[arg(long, value_name = "NAME", help_heading = STEPS)]
    pub(crate) allow: Vec<String>,
    /// Size of /dev/shm, such as 128m
    #[arg(long, value_name = "SIZE", help_heading = STEPS)]
    pub(crate) shm_size: Option<String>,
    /// Limit of the steps' processes, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = STEPS)]
    pub(crate) ulimit: Vec<String>,
    /// Limit of one step: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    #[arg(long, value_name = "NAME=VALUE", help_heading = STEPS)]
    pub(crate) resource: Vec<String>,
    /// Parent cgroup of the steps
    #[arg(long, value_name = "PATH", help_heading = STEPS)]
    pub(crate) cgroup_parent: Option<String>,

    /// Attach a statement to the image
    #[arg(long, value_name = "SPEC", help_heading = LATER)]
    pub(crate) attest: Vec<String>,
    /// Attach how the image was made; =false is accepted
    #[arg(long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = LATER)]
    pub(crate) provenance: Option<String>,
    /// Attach what the image contains; =false is accepted
    #[arg(long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = LATER)]
    pub(crate) sbom: Option<String>,
    /// Use a cache from elsewhere
    #[arg(long, value_name = "SPEC", help_heading = LATER)]
    pub(crate) cache_from: Vec<String>,
    /// Store the cache elsewhere
    #[arg(long, value_name = "SPEC", help_heading = LATER)]
    pub(crate) cache_to: Vec<String>,
    /// Add an annotation to the image
    #[arg(long, value_name = "NAME=VALUE", help_heading = LATER)]
    pub(crate) annotation: Vec<String>,
    /// Ask something of the Dockerfile instead of building it
    #[arg(long, value_name = "METHOD", help_heading = LATER)]
    pub(crate) call: Option<String>,
    /// Same as --call check
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = LATER)]
    pub(crate) check: bool,
    /// Check sources against a policy
    #[arg(long, value_name = "SPEC", help_heading = LATER)]
    pub(crate) policy: Vec<String>,

    #[command(flatten)]
    pub(crate) old: OldArgs,
}

/// The words of `--progress`, for messages and completion; an empty one is as good as none.
fn modes() -> PossibleValuesParser {
    let words = ["auto", "plain", "tty", "rawjson", "quiet", "none"].map(PossibleValue::new);
    words.into_iter().chain([PossibleValue::new("").hide(true)]).collect::<Vec<_>>().into()
}

/// Flags of older clients: other names of `--resource`, and some without effect.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OldArgs {
    #[arg(short, long, hide = true)]
    pub(crate) memory: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    #[arg(short, long, hide = true)]
    pub(crate) cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cpu_period: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cpuset_mems: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) print: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) compress: Option<bool>,
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) security_opt: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) squash: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) force_rm: Option<bool>,
}
