//! File: a chain of changes to a filesystem.

/// Actions in order; an action may use the results of earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOp {
    /// Not empty once decoded.
    pub actions: Vec<FileAction>,
}

impl FileOp {
    /// How many actions are results of the vertex. Decoded ops number them 0.. without gaps or repetition.
    pub fn output_count(&self) -> usize {
        self.actions.iter().filter(|a| a.output.is_some()).count()
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAction {
    /// What is changed; `None` is scratch.
    pub input: Option<ActionInput>,
    /// What is copied from; `None` is scratch.
    pub secondary: Option<ActionInput>,
    /// Number of the vertex's result that this becomes.
    pub output: Option<usize>,
    /// The change.
    pub kind: FileActionKind,
}

/// A filesystem that an action uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionInput {
    /// Index of the vertex's inputs.
    Op(usize),
    /// Index of an earlier action.
    Action(usize),
}

impl ActionInput {
    /// The number on the wire, where actions count on after the `inputs` of the vertex.
    pub fn to_wire(self, inputs: usize) -> i64 {
        let n = match self {
            ActionInput::Op(i) => i,
            ActionInput::Action(i) => inputs + i,
        };
        i64::try_from(n).unwrap_or(i64::MAX)
    }
}

/// What an action does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies from `secondary` to `input`.
    Copy(CopyAction),
    /// Writes a file.
    MkFile(MkFileAction),
    /// Makes a directory.
    MkDir(MkDirAction),
    /// Removes.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// Permission bits of what is made or copied (12 bits), as the wire has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileMode {
    /// As the source has them (-1 on the wire).
    #[default]
    Keep,
    /// These.
    Bits(u32),
}

/// Copies files. Paths are those of the two filesystems, never of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyAction {
    /// Source path, may hold wildcards.
    pub src: String,
    /// Destination path; a trailing slash means a directory.
    pub dest: String,
    /// New owner of everything copied.
    pub owner: Option<ChownOpt>,
    /// New permission bits.
    pub mode: FileMode,
    /// Resolve a symbolic link at the end of `src`.
    pub follow_symlink: bool,
    /// Copy what is in a directory and not the directory.
    pub dir_copy_contents: bool,
    /// Unpack `src` when it is an archive.
    pub attempt_unpack: bool,
    /// Make the parents of `dest`.
    pub create_dest_path: bool,
    /// `src` may be a pattern (Go's filepath.Match).
    pub allow_wildcard: bool,
    /// A pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// Modification time for what is copied, nanoseconds since 1970.
    pub timestamp: Option<i64>,
    /// Only what matches one of these (dockerignore patterns).
    pub include_patterns: Vec<String>,
    /// Not what matches one of these.
    pub exclude_patterns: Vec<String>,
    /// Replace a destination of another type.
    pub always_replace_existing_dest_paths: bool,
    /// Symbolic mode such as `u=rwX,go=rX`; wins over `mode`.
    pub mode_str: String,
    /// With include patterns: paths that must exist.
    pub required_paths: Vec<String>,
}

/// Writes a file with given content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MkFileAction {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: FileMode,
    /// Content.
    pub data: Vec<u8>,
    /// Owner; root without.
    pub owner: Option<ChownOpt>,
    /// Modification time, nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Makes a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MkDirAction {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: FileMode,
    /// Make parents too.
    pub make_parents: bool,
    /// Owner; root without.
    pub owner: Option<ChownOpt>,
    /// Modification time, nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Removes a file or a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RmAction {
    /// What.
    pub path: String,
    /// Missing is no error.
    pub allow_not_found: bool,
    /// `path` may be a pattern.
    pub allow_wildcard: bool,
}

/// Makes a symbolic link at `newpath` that points to `oldpath`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymlinkAction {
    /// The target.
    pub oldpath: String,
    /// The link.
    pub newpath: String,
    /// Owner; root without.
    pub owner: Option<ChownOpt>,
    /// Modification time, nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Owner of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChownOpt {
    /// User; root without.
    pub user: Option<UserOpt>,
    /// Group; without, the user's own when it was given by name, else root.
    pub group: Option<UserOpt>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserOpt {
    /// By number.
    Id(u32),
    /// By name, looked up in `/etc/passwd` or `/etc/group` of a filesystem.
    Name {
        /// The name.
        name: String,
        /// The filesystem; scratch has no names, so `None` fails when it is run.
        input: Option<ActionInput>,
    },
}
