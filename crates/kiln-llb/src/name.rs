//! The name of a vertex when its metadata has none (spec llb-and-solver section 1).

use crate::mask_credentials;
use crate::op::{FileActionKind, Op};

/// `inputs` are the names of the vertex's inputs.
pub(crate) fn of(op: &Op, inputs: &[&str]) -> String {
    let side = |i: Option<usize>| match i.and_then(|i| inputs.get(i)) {
        Some(name) => format!("({name})"),
        None => "scratch".to_string(),
    };
    match op {
        Op::Source(s) => mask_credentials(&s.identifier).into_owned(),
        Op::Exec(e) => mask_credentials(&e.meta.args.join(" ")).into_owned(),
        Op::File(f) => f.actions.iter().map(|a| action(&a.kind)).collect::<Vec<_>>().join(", "),
        Op::Build(_) => "build".to_string(),
        Op::Merge(_) => format!("merge ({})", inputs.join(", ")),
        Op::Diff(d) => format!("diff {} -> {}", side(d.lower), side(d.upper)),
        Op::Passthrough(p) => format!("passthrough {}", p.id),
    }
}

fn action(kind: &FileActionKind) -> String {
    match kind {
        FileActionKind::Copy(a) => format!("copy {} {}", a.src, a.dest),
        FileActionKind::MkFile(a) => format!("mkfile {}", a.path),
        FileActionKind::MkDir(a) => format!("mkdir {}", a.path),
        FileActionKind::Rm(a) => format!("rm {}", a.path),
        FileActionKind::Symlink(a) => format!("symlink {} -> {}", a.newpath, a.oldpath),
    }
}
