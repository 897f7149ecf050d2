mod cachekey;
mod decode;
mod marshal;
mod newer;

use crate::*;
use kiln_digest::Digest;
use kiln_oci::Platform;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn amd64() -> Platform {
    Platform { os: "linux".into(), architecture: "amd64".into(), ..Default::default() }
}

fn digest(hex: &str) -> Digest {
    format!("sha256:{hex}").parse().unwrap()
}

/// A vertex with made-up inputs.
fn vertex(op: Op, inputs: usize) -> Vertex {
    let inputs = (0..inputs).map(|i| Input { digest: Digest::sha256([i as u8]), index: 0 }).collect();
    Vertex::new(op, inputs, None, OpMetadata::default())
}

fn copy(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        src: src.into(),
        dest: dest.into(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..Default::default()
    }
}

fn action(
    input: Option<ActionInput>,
    secondary: Option<ActionInput>,
    output: Option<usize>,
    c: CopyAction,
) -> FileAction {
    FileAction { input, secondary, output, kind: FileActionKind::Copy(c) }
}

fn workdir(path: &str) -> Op {
    let kind = FileActionKind::MkDir(MkDirAction {
        path: path.into(),
        mode: FileMode::Bits(0o755),
        make_parents: true,
        owner: None,
        timestamp: None,
    });
    Op::File(FileOp { actions: vec![FileAction { input: None, secondary: None, output: Some(0), kind }] })
}
