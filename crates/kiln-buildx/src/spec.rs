//! The commands and their flags (spec daemon-and-cli.md section 4).

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// A word; the last one counts. What the help calls it.
    Word(&'static str),
    /// A word each time. What the help calls it.
    List(&'static str),
    /// A size such as `10gb`; the last one counts.
    Size,
    /// A duration such as `20s`; the last one counts.
    Duration,
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    /// As the help shows it; empty = not shown.
    pub(crate) default: &'static str,
    /// Empty = not in the help.
    pub(crate) help: &'static str,
}

/// How many words a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    Exactly(usize),
    AtMost(usize),
    /// None, said in other words.
    No,
    Any,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// Behind the name, in the usage line.
    pub(crate) usage: &'static str,
    pub(crate) short: &'static str,
    pub(crate) words: Words,
    pub(crate) flags: &'static [Flag],
    pub(crate) place: Place,
    /// `--builder` means nothing here.
    pub(crate) hides_builder: bool,
}

/// Where a command stands in the list, and whether there is anything behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Listed,
    Hidden,
    /// Not built yet.
    Later(&'static str),
    /// Not built yet; it has commands of its own.
    LaterGroup(&'static str),
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, kind: Kind::Switch, default: "", help }
}

const fn word(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, kind: Kind::Word("string"), default: "", help }
}

const fn list(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, kind: Kind::List("stringArray"), default: "", help }
}

const fn size(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, kind: Kind::Size, default: "", help }
}

impl Flag {
    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    const fn default(mut self, text: &'static str) -> Self {
        self.default = text;
        self
    }

    const fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }
}

const TIMEOUT: Flag = Flag {
    name: "timeout",
    short: None,
    kind: Kind::Duration,
    default: "20s",
    help: "Override the default timeout for loading builder status",
};

/// Flags of every command.
pub(crate) const GLOBAL: [Flag; 2] = [
    word("builder", "Override the configured builder instance"),
    switch("debug", "Enable debug logging").short('D'),
];

/// Flags of the Docker CLI, before the word `buildx`.
pub(crate) const DOCKER: [Flag; 10] = [
    word("config", ""),
    word("context", "").short('c'),
    switch("debug", "").short('D'),
    list("host", "").short('H'),
    word("log-level", "").short('l'),
    switch("tls", ""),
    word("tlscacert", ""),
    word("tlscert", ""),
    word("tlskey", ""),
    switch("tlsverify", ""),
];

const BUILD: &[Flag] = &[
    list("add-host", "Add a custom host-to-IP mapping (format: \"host:ip\")").kind(Kind::List("strings")),
    list("allow", "Allow extra privileged entitlement (e.g., \"network.host\", \"security.insecure\", \"device\", \"buildx.local.delete\")"),
    list("annotation", "Add annotation to the image"),
    list("attest", "Attestation parameters (format: \"type=sbom,generator=image\")"),
    list("build-arg", "Set build-time variables"),
    list("build-context", "Additional build contexts (e.g., name=path)"),
    list("cache-from", "External cache sources (e.g., \"user/app:cache\", \"type=local,src=path/to/dir\")"),
    list("cache-to", "Cache export destinations (e.g., \"user/app:cache\", \"type=local,dest=path/to/dir\")"),
    word("call", "Set method for evaluating build (\"check\", \"outline\", \"targets\")").default("\"build\""),
    word("cgroup-parent", "Set the parent cgroup for the \"RUN\" instructions during build"),
    switch("check", "Shorthand for \"--call=check\""),
    word("file", "Name of the Dockerfile (default: \"PATH/Dockerfile\")").short('f'),
    word("iidfile", "Write the image ID to a file"),
    list("label", "Set metadata for an image"),
    switch("load", "Shorthand for \"--output=type=docker\""),
    word("metadata-file", "Write build result metadata to a file"),
    word("network", "Set the networking mode for the \"RUN\" instructions during build").default("\"default\""),
    switch("no-cache", "Do not use cache when building the image"),
    list("no-cache-filter", "Do not cache specified stages"),
    list("output", "Output destination (format: \"type=local,dest=path\")").short('o'),
    list("platform", "Set target platform for build"),
    list("policy", "Policy configuration (only \"disabled=true\": kiln does not evaluate policies)"),
    word("progress", "Set type of progress output (\"auto\", \"none\",  \"plain\", \"quiet\", \"rawjson\", \"tty\"). Use plain to show container output")
        .default("\"auto\""),
    word("provenance", "Shorthand for \"--attest=type=provenance\""),
    switch("pull", "Always attempt to pull all referenced images"),
    switch("push", "Shorthand for \"--output=type=registry,unpack=false\""),
    switch("quiet", "Suppress the build output and print image ID on success").short('q'),
    list("resource", "Resource limits for build containers (format: \"memory=2g\", \"cpu-quota=50000\")"),
    word("sbom", "Shorthand for \"--attest=type=sbom\""),
    list("secret", "Secret to expose to the build (format: \"id=mysecret[,src=/local/secret]\")"),
    size("shm-size", "Shared memory size for build containers"),
    list("ssh", "SSH agent socket or keys to expose to the build (format: \"default|<id>[=<socket>|<key>[,<key>]]\")"),
    list("tag", "Image identifier (format: \"[registry/]repository[:tag]\")").short('t'),
    word("target", "Set the target build stage to build"),
    list("ulimit", "Ulimit options").kind(Kind::List("ulimit")).default("[]"),
    // Old names of --call and --resource.
    word("print", ""),
    word("memory", "").short('m'),
    word("memory-swap", ""),
    word("cpu-shares", "").short('c'),
    word("cpu-period", ""),
    word("cpu-quota", ""),
    word("cpuset-cpus", ""),
    word("cpuset-mems", ""),
    // Without effect.
    switch("compress", ""),
    word("isolation", ""),
    list("security-opt", ""),
    switch("squash", ""),
    switch("rm", ""),
    switch("force-rm", ""),
];

const CREATE: &[Flag] = &[
    switch("append", "Append a node to builder instead of changing it"),
    switch("bootstrap", "Boot builder after creation"),
    word("buildkitd-config", "BuildKit daemon config file"),
    word("buildkitd-flags", "BuildKit daemon flags"),
    word("config", ""),
    word("driver", "Driver to use (available: \"docker-container\", \"kiln\", \"remote\")"),
    list("driver-opt", "Options for the driver"),
    switch("leave", "Remove a node from builder instead of changing it"),
    word("name", "Builder instance name"),
    word("node", "Create/modify node with given name"),
    list("platform", "Fixed platforms for current node"),
    TIMEOUT,
    switch("use", "Set the current builder instance"),
];

const DU: &[Flag] = &[
    list("filter", "Provide filter values").kind(Kind::List("filter")),
    word("format", "Format the output"),
    TIMEOUT,
    switch("verbose", "Shorthand for \"--format=pretty\""),
];

const PRUNE: &[Flag] = &[
    switch("all", "Include internal/frontend images").short('a'),
    list("filter", "Provide filter values").kind(Kind::List("filter")),
    switch("force", "Do not prompt for confirmation").short('f'),
    size("keep-storage", ""),
    size("max-used-space", "Maximum amount of disk space allowed to keep for cache"),
    size("min-free-space", "Target amount of free disk space after pruning"),
    size("reserved-space", "Amount of disk space always allowed to keep for cache"),
    TIMEOUT,
    switch("verbose", "Provide a more verbose output"),
];

const RM: &[Flag] = &[
    switch("all-inactive", "Remove all inactive builders"),
    switch("force", "Do not prompt for confirmation").short('f'),
    switch("keep-daemon", "Keep the BuildKit daemon running"),
    switch("keep-state", "Keep BuildKit state"),
    TIMEOUT,
];

const LS: &[Flag] = &[
    word("format", "Format the output").default("\"table\""),
    switch("no-trunc", "Don't truncate output"),
    TIMEOUT,
];

const INSPECT: &[Flag] = &[switch("bootstrap", "Ensure builder has booted before inspecting"), TIMEOUT];

const USE: &[Flag] = &[
    switch("default", "Set builder as default for current context"),
    switch("global", "Builder persists context changes"),
];

const DIAL: &[Flag] = &[
    word("platform", "Target platform: this is used for node selection"),
    word("progress", "Set type of progress output (\"auto\", \"plain\", \"rawjson\", \"tty\"). Use plain to show container output")
        .default("\"none\""),
];

const fn command(name: &'static str, usage: &'static str, short: &'static str, words: Words) -> Command {
    let (aliases, flags): (&[&str], &[Flag]) = (&[], &[]);
    Command { name, aliases, usage, short, words, flags, place: Place::Listed, hides_builder: false }
}

impl Command {
    const fn flags(mut self, flags: &'static [Flag]) -> Self {
        self.flags = flags;
        self
    }

    const fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn without_builder(mut self) -> Self {
        self.hides_builder = true;
        self
    }
}

const HINT: &str = "docker buildx build builds one target at a time";

/// All commands in the order of the help.
pub(crate) const COMMANDS: [Command; 19] = [
    command("bake", "[OPTIONS] [TARGET...]", "Build from a file", Words::Any)
        .alias(&["f"])
        .place(Place::Later(HINT)),
    command("build", "[OPTIONS] PATH | URL | -", "Start a build", Words::Exactly(1))
        .alias(&["b"])
        .flags(BUILD),
    command("create", "[OPTIONS] [CONTEXT|ENDPOINT]", "Create a new builder instance", Words::AtMost(1))
        .flags(CREATE)
        .without_builder(),
    command("dap", "", "Start debug adapter protocol compatible debugger", Words::Any)
        .place(Place::LaterGroup("kiln cannot stop a build at a step")),
    command("debug", "", "Start debugger", Words::Any).place(Place::Hidden),
    command("dial-stdio", "", "Proxy current stdio streams to builder instance", Words::No).flags(DIAL),
    command("du", "", "Disk usage", Words::No).flags(DU),
    command("history", "", "Commands to work on build records", Words::Any)
        .place(Place::LaterGroup("buildctl debug histories lists the builds of a daemon")),
    command("imagetools", "", "Commands to work on images in registry", Words::Any)
        .place(Place::LaterGroup("a registry's own tools show its images")),
    command("inspect", "[NAME]", "Inspect current builder instance", Words::AtMost(1)).flags(INSPECT),
    command("install", "", "Install buildx as a 'docker builder' alias", Words::Any).place(Place::Hidden),
    command("ls", "", "List builder instances", Words::Exactly(0)).flags(LS).without_builder(),
    command("policy", "", "Commands for working with build policies", Words::Any)
        .place(Place::LaterGroup("kiln does not evaluate policies")),
    command("prune", "", "Remove build cache", Words::No).flags(PRUNE),
    command("rm", "[OPTIONS] [NAME...]", "Remove one or more builder instances", Words::Any).flags(RM),
    command("stop", "[NAME]", "Stop builder instance", Words::AtMost(1)),
    command("uninstall", "", "Uninstall the 'docker builder' alias", Words::Any).place(Place::Hidden),
    command("use", "[OPTIONS] NAME", "Set the current builder instance", Words::AtMost(1)).flags(USE),
    command("version", "", "Show buildx version information", Words::Exactly(0)).without_builder(),
];

/// The command of a name.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|c| c.name == name || c.aliases.contains(&name))
}
