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
pub struct BuildArgs {
    /// Build context: a directory, a git or http(s) URL, or - to read a tar archive or a Dockerfile from stdin
    #[arg(value_name = "PATH | URL | -")]
    pub context: String,

    /// Dockerfile [default: Dockerfile in the context]; - reads it from stdin, an http(s) URL is fetched
    #[arg(short, long, value_name = "PATH | URL | -", help_heading = BUILD)]
    pub file: Option<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE", help_heading = BUILD)]
    pub target: Option<String>,
    /// Set a variable that ARG declares; without =VALUE the one of the environment
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = BUILD)]
    pub build_arg: Vec<String>,
    /// Platform to build for, such as linux/amd64
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', help_heading = BUILD)]
    pub platform: Vec<String>,
    /// Add a label to the image
    #[arg(long, value_name = "NAME=VALUE", help_heading = BUILD)]
    pub label: Vec<String>,
    /// Ask the Dockerfile instead of building it: check, outline or targets, also with ,format=json
    #[arg(long, value_name = "METHOD", help_heading = BUILD)]
    pub call: Option<String>,
    /// Check the Dockerfile instead of building it; same as --call check
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = BUILD)]
    pub check: bool,

    /// Add a context under a name: a directory, docker-image://REF, or a URL
    #[arg(long, value_name = "NAME=VALUE", help_heading = INPUT)]
    pub build_context: Vec<String>,
    /// Give a secret to RUN --mount=type=secret: id=NAME[,src=FILE | ,env=VAR]
    #[arg(long, value_name = "SPEC", help_heading = INPUT)]
    pub secret: Vec<String>,
    /// Give an SSH agent or keys to RUN --mount=type=ssh: default or ID[=SOCKET|KEY,...]
    #[arg(long, value_name = "SPEC", help_heading = INPUT)]
    pub ssh: Vec<String>,
    /// Ask the registry for newer versions of all images
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = INPUT)]
    pub pull: bool,

    /// Name of the image: [REGISTRY/]NAME[:TAG] (may be repeated)
    #[arg(short, long, value_name = "NAME", help_heading = OUTPUT)]
    pub tag: Vec<String>,
    /// Where the result goes: type=local|tar|oci|docker|image|registry[,dest=PATH][,KEY=VALUE], or a directory
    #[arg(short, long, value_name = "SPEC", help_heading = OUTPUT)]
    pub output: Vec<String>,
    /// Push the image to its registry; same as --output type=registry
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = OUTPUT)]
    pub push: bool,
    /// Load the image into Docker; same as --output type=docker
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = OUTPUT)]
    pub load: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub iidfile: Option<PathBuf>,
    /// Write what is known of the result to a file, as JSON
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub metadata_file: Option<PathBuf>,
    /// Show nothing but the image's id, at the end, on stdout
    #[arg(short, long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = OUTPUT)]
    pub quiet: bool,
    /// How progress is shown: auto, plain, tty, rawjson, quiet or none [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = modes(), hide_possible_values = true,
          help_heading = OUTPUT)]
    pub progress: String,

    /// Run every step again
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "false",
          hide_possible_values = true, hide_default_value = true, value_name = "BOOL", help_heading = CACHE)]
    pub no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',', help_heading = CACHE)]
    pub no_cache_filter: Vec<String>,

    /// Add a line to /etc/hosts of the steps
    #[arg(long, value_name = "HOST:IP", help_heading = STEPS)]
    pub add_host: Vec<String>,
    /// Network of the steps: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default", help_heading = STEPS)]
    pub network: String,
    /// Let the steps reach the network only through a proxy of the daemon, which says what they fetch
    #[arg(long, help_heading = STEPS)]
    pub proxy_network: bool,
    /// Allow what the Dockerfile asks for: network.host, security.insecure, device or device=NAME[,alias=NAME]
    #[arg(long, value_name = "NAME", help_heading = STEPS)]
    pub allow: Vec<String>,
    /// Size of /dev/shm, such as 128m
    #[arg(long, value_name = "SIZE", help_heading = STEPS)]
    pub shm_size: Option<String>,
    /// Limit of the steps' processes, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = STEPS)]
    pub ulimit: Vec<String>,
    /// Limit of one step: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    #[arg(long, value_name = "NAME=VALUE", help_heading = STEPS)]
    pub resource: Vec<String>,
    /// Parent cgroup of the steps
    #[arg(long, value_name = "PATH", help_heading = STEPS)]
    pub cgroup_parent: Option<String>,

    /// Attach a statement to the image
    #[arg(long, value_name = "SPEC", help_heading = LATER)]
    pub attest: Vec<String>,
    /// Attach how the image was made; =false is accepted
    #[arg(long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = LATER)]
    pub provenance: Option<String>,
    /// Attach what the image contains; =false is accepted
    #[arg(long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = LATER)]
    pub sbom: Option<String>,
    /// Use a cache from elsewhere
    #[arg(long, value_name = "SPEC", help_heading = LATER)]
    pub cache_from: Vec<String>,
    /// Store the cache elsewhere
    #[arg(long, value_name = "SPEC", help_heading = LATER)]
    pub cache_to: Vec<String>,
    /// Add an annotation to the image
    #[arg(long, value_name = "NAME=VALUE", help_heading = LATER)]
    pub annotation: Vec<String>,
    /// Check sources against a policy; disabled=true is accepted
    #[arg(long, value_name = "SPEC", help_heading = LATER)]
    pub policy: Vec<String>,

    /// Flags of older clients
    #[command(flatten)]
    pub old: OldArgs,
}

/// The words of `--progress`, for messages and completion; an empty one is as good as none.
fn modes() -> PossibleValuesParser {
    let words = ["auto", "plain", "tty", "rawjson", "quiet", "none"].map(PossibleValue::new);
    words.into_iter().chain([PossibleValue::new("").hide(true)]).collect::<Vec<_>>().into()
}

/// Flags of older clients: other names of `--resource`, and some without effect.
#[derive(Args, Clone, Debug, Default)]
pub struct OldArgs {
    /// Limit of memory
    #[arg(short, long, hide = true)]
    pub memory: Option<String>,
    /// Limit of memory and swap
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Share of processor time
    #[arg(short, long, hide = true)]
    pub cpu_shares: Option<String>,
    /// Period of the processor limit
    #[arg(long, hide = true)]
    pub cpu_period: Option<String>,
    /// Processor time per period
    #[arg(long, hide = true)]
    pub cpu_quota: Option<String>,
    /// Processors
    #[arg(long, hide = true)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, hide = true)]
    pub cpuset_mems: Option<String>,
    /// Same as --call
    #[arg(long, hide = true)]
    pub print: Option<String>,
    /// No effect
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub compress: Option<bool>,
    /// No effect
    #[arg(long, hide = true)]
    pub isolation: Option<String>,
    /// No effect
    #[arg(long, hide = true)]
    pub security_opt: Vec<String>,
    /// No effect
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub squash: Option<bool>,
    /// No effect
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rm: Option<bool>,
    /// No effect
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub force_rm: Option<bool>,
}
