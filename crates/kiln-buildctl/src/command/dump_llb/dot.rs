//! A graph in graphviz' language.

use super::Entry;
use kiln_go::quote;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use kiln_proto::pb::op::Op;

/// The drawing.
pub(super) fn text(entries: &[Entry]) -> String {
    let mut out = String::from("digraph {\n");
    for entry in entries {
        let (name, shape) = looks(entry);
        out.push_str(&format!("  {:?} [label={} shape={shape:?}];\n", entry.digest, quote(&name)));
    }
    for entry in entries {
        for (index, input) in entry.op.inputs.iter().enumerate() {
            let label = quote(label(&entry.op, index));
            out.push_str(&format!("  {} -> {:?} [label={label}];\n", quote(&input.digest), entry.digest));
        }
    }
    out.push_str("}\n");
    out
}

/// Where an input is mounted.
fn label(op: &pb::Op, input: usize) -> &str {
    let Some(Op::Exec(exec)) = &op.op else { return "" };
    let mut mounts = exec.mounts.iter().filter(|m| usize::try_from(m.input) == Ok(input) && m.dest != "/");
    mounts.next_back().map_or("", |m| m.dest.as_str())
}

fn looks(entry: &Entry) -> (String, &'static str) {
    match &entry.op.op {
        Some(Op::Source(source)) => (source.identifier.clone(), "ellipse"),
        Some(Op::Exec(exec)) => (exec.meta.as_ref().map(|m| m.args.join(" ")).unwrap_or_default(), "box"),
        Some(Op::Build(_)) => ("build".into(), "box3d"),
        Some(Op::Merge(_)) => ("merge".into(), "invtriangle"),
        Some(Op::Diff(_)) => ("diff".into(), "doublecircle"),
        Some(Op::File(file)) => (file.actions.iter().map(action).collect::<Vec<_>>().join(","), "note"),
        None => (entry.digest.clone(), "plaintext"),
    }
}

fn action(action: &pb::FileAction) -> String {
    match &action.action {
        Some(Action::Copy(a)) => format!("copy{{src={}, dest={}}}", a.src, a.dest),
        Some(Action::Mkfile(a)) => format!("mkfile{{path={}}}", a.path),
        Some(Action::Mkdir(a)) => format!("mkdir{{path={}}}", a.path),
        Some(Action::Rm(a)) => format!("rm{{path={}}}", a.path),
        Some(Action::Symlink(a)) => format!("symlink{{oldpath={}, newpath={}}}", a.oldpath, a.newpath),
        None => String::new(),
    }
}
