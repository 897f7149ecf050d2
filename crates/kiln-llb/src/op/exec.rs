//! Exec: one process in a root made of mounts.

/// Runs `meta.args` with `mounts`. A decoded op has arguments and exactly what a root needs: a mount at `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOp {
    /// The process.
    pub meta: ExecMeta,
    /// In the order of the wire.
    pub mounts: Vec<Mount>,
    /// Which network the process sees.
    pub network: NetMode,
    /// How far it is confined.
    pub security: SecurityMode,
    /// Secrets given as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// Devices by CDI name.
    pub cdi_devices: Vec<CdiDevice>,
}

impl ExecOp {
    /// Indices into `mounts` of those that become results, in the order of the results.
    ///
    /// Results are counted by position among the bind mounts with an output, as BuildKit does, whatever number
    /// the mount carries.
    pub fn outputs(&self) -> impl Iterator<Item = usize> + '_ {
        let out = |m: &Mount| m.output.is_some() && matches!(m.kind, MountKind::Bind);
        self.mounts.iter().enumerate().filter(move |(_, m)| out(m)).map(|(i, _)| i)
    }

    /// Index into `mounts` of the root.
    pub fn root_mount(&self) -> Option<usize> {
        self.mounts.iter().position(|m| m.dest == "/")
    }
}

/// The process of an exec (pb.Meta).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecMeta {
    /// Program and arguments; not empty.
    pub args: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// `user[:group]`, looked up in the root; empty is root.
    pub user: String,
    /// Proxy variables; not part of the cache key.
    pub proxy_env: Option<ProxyEnv>,
    /// Lines for `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Empty is the daemon's default.
    pub hostname: String,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Empty is the daemon's default.
    pub cgroup_parent: String,
    /// Remove also the parents of mount points that were made for mounts.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that count as success; empty means 0 only.
    pub valid_exit_codes: Vec<i32>,
}

/// Values of the proxy variables; empty ones are not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyEnv {
    /// `HTTP_PROXY`
    pub http_proxy: String,
    /// `HTTPS_PROXY`
    pub https_proxy: String,
    /// `FTP_PROXY`
    pub ftp_proxy: String,
    /// `NO_PROXY`
    pub no_proxy: String,
    /// `ALL_PROXY`
    pub all_proxy: String,
}

/// A host name and its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostIp {
    /// Name.
    pub host: String,
    /// IPv4 or IPv6 address.
    pub ip: String,
}

/// A resource limit (getrlimit(2)), `name` without `RLIMIT_`, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// Such as `nofile`.
    pub name: String,
    /// Soft limit, -1 is unlimited.
    pub soft: i64,
    /// Hard limit, -1 is unlimited.
    pub hard: i64,
}

impl Ulimit {
    /// Names of setrlimit(2), as docker/go-units has them: those that a user may set.
    pub const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
}

/// A secret in an environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretEnv {
    /// What the client is asked for.
    pub id: String,
    /// The variable.
    pub name: String,
    /// Whether a missing secret is skipped.
    pub optional: bool,
}

/// A device by its Container Device Interface name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdiDevice {
    /// `vendor/class=device`
    pub name: String,
    /// Whether a missing device is skipped.
    pub optional: bool,
}

/// Which network a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetMode {
    /// The daemon's own choice.
    #[default]
    Default,
    /// The host's network (needs an entitlement).
    Host,
    /// Only a loopback device.
    None,
}

/// How far a process is confined. Unknown values of the wire are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurityMode {
    /// Capabilities, seccomp, masked paths.
    #[default]
    Sandbox,
    /// Privileged (needs an entitlement).
    Insecure,
}

/// One mount of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Index of the vertex's inputs; `None` is scratch.
    pub input: Option<usize>,
    /// Path below the input that is mounted; empty is its root.
    pub selector: String,
    /// Where it is mounted.
    pub dest: String,
    /// The number of the result; `None` when what is written is thrown away.
    pub output: Option<usize>,
    /// No writes.
    pub readonly: bool,
    /// What is mounted.
    pub kind: MountKind,
    /// Id of a result that exists already (only interactive containers).
    pub result_id: String,
    /// Whether the cache may compare this mount by content.
    pub content_cache: ContentCache,
}

/// What is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// An input.
    #[default]
    Bind,
    /// A file with a secret.
    Secret(SecretOpt),
    /// A socket to the client's ssh agent.
    Ssh(SshOpt),
    /// A directory kept between builds.
    Cache {
        /// Not a path: any text, never joined to one. Empty stands for `dest`.
        id: String,
        /// What happens when two steps use it.
        sharing: CacheSharing,
    },
    /// A memory filesystem.
    Tmpfs {
        /// Bytes; 0 is the default of the system. `None` when the wire had no options at all.
        size: Option<u64>,
    },
}

/// A secret as file. Attributes are those of the file made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretOpt {
    /// What the client is asked for.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Whether a missing secret is skipped.
    pub optional: bool,
}

/// A forwarded ssh agent. Attributes are those of the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshOpt {
    /// Which agent; empty is `default`.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Whether a missing agent is skipped.
    pub optional: bool,
}

/// What happens when two steps use one cache mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSharing {
    /// Both write.
    #[default]
    Shared,
    /// The second gets a new one.
    Private,
    /// The second waits.
    Locked,
}

/// Whether a mount is compared by content (pb.MountContentCache).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentCache {
    /// Where it is safe, except the root.
    #[default]
    Default,
    /// Always; an error where it is unsafe.
    On,
    /// Never.
    Off,
}
