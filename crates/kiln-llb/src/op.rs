//! The typed operations (pb.Op, spec llb-and-solver section 2).

mod exec;
mod file;
mod source;

pub use exec::{
    CacheSharing, CdiDevice, ContentCache, ExecMeta, ExecOp, HostIp, Mount, MountKind, NetMode, ProxyEnv,
    SecretEnv, SecretOpt, SecurityMode, SshOpt, Ulimit,
};
pub use file::{
    ActionInput, ChownOpt, CopyAction, FileAction, FileActionKind, FileMode, FileOp, MkDirAction,
    MkFileAction, RmAction, SymlinkAction, UserOpt,
};
pub use source::{ResolveMode, SourceOp, attr};

use std::collections::BTreeMap;

/// What a vertex does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "vertices are shared by Arc; a box would be in everyone's way")]
pub enum Op {
    /// Brings something in: an image, a client directory, a repository, a download.
    Source(SourceOp),
    /// Runs a process.
    Exec(ExecOp),
    /// Changes files without running anything.
    File(FileOp),
    /// Solves a definition that is stored in a file of an input.
    Build(BuildOp),
    /// Stacks layers of its inputs.
    Merge(MergeOp),
    /// The layers that lead from one input to another.
    Diff(DiffOp),
    /// Forwards inputs, used to force an order.
    Passthrough(PassthroughOp),
}

impl Op {
    /// How many results the operation has.
    pub fn output_count(&self) -> usize {
        match self {
            Op::Source(_) | Op::Build(_) | Op::Merge(_) | Op::Diff(_) => 1,
            Op::Exec(e) => e.outputs().count(),
            Op::File(f) => f.output_count(),
            Op::Passthrough(p) => p.outputs.len(),
        }
    }
}

/// Solves the definition found in one of its inputs. Only the built-in builder (`-1` on the wire) exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOp {
    /// Named inputs, as indices of the vertex's inputs. `buildkit.llb.definition` holds the definition.
    pub inputs: BTreeMap<String, usize>,
    /// `llbbuild.filename`: where in that input the definition is.
    pub attrs: BTreeMap<String, String>,
}

/// Later inputs are laid over earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeOp {
    /// Indices of the vertex's inputs; `None` is scratch.
    pub inputs: Vec<Option<usize>>,
}

/// What has to be added to `lower` to get `upper`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffOp {
    /// Index of the vertex's inputs; `None` is scratch.
    pub lower: Option<usize>,
    /// Index of the vertex's inputs; `None` is scratch.
    pub upper: Option<usize>,
}

/// Output `i` is input `outputs[i]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassthroughOp {
    /// Not empty.
    pub id: String,
    /// Indices of the vertex's inputs, not empty.
    pub outputs: Vec<usize>,
}
