//! What the tests of this crate share.

use crate::error::Error;
use crate::meta::FileKind;
use crate::root::Root;
use crate::walk::{Step, walk};
use std::path::PathBuf;

/// A host directory with a canary, and a root in it.
pub(crate) struct Host {
    pub(crate) tmp: tempfile::TempDir,
    pub(crate) root: Root,
}

impl Host {
    pub(crate) fn new() -> Host {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("canary"), "host").unwrap();
        std::fs::create_dir(tmp.path().join("root")).unwrap();
        let root = Root::open(tmp.path().join("root")).unwrap();
        Host { tmp, root }
    }

    pub(crate) fn path(&self, p: &str) -> PathBuf {
        self.tmp.path().join("root").join(p)
    }

    pub(crate) fn assert_intact(&self) {
        assert_eq!(std::fs::read_to_string(self.tmp.path().join("canary")).unwrap(), "host");
        let names = std::fs::read_dir(self.tmp.path()).unwrap().count();
        assert_eq!(names, 2, "something was made outside the root");
    }
}

/// What is in a tree: `path=content`, `path/`, `path->link`, `path:Kind`.
pub(crate) fn listing(root: &Root) -> Vec<String> {
    let mut all = Vec::new();
    walk::<Error>(root, "/", |e| {
        let path = e.path().display();
        all.push(match e.kind()? {
            FileKind::Dir => format!("{path}/"),
            FileKind::File => format!("{path}={}", std::io::read_to_string(e.open()?).unwrap()),
            FileKind::Symlink => format!("{path}->{}", e.read_link()?.display()),
            FileKind::CharDevice if e.metadata()?.is_overlay_whiteout() => format!("{path}:whiteout"),
            kind => format!("{path}:{kind:?}"),
        });
        Ok(Step::Continue)
    })
    .unwrap();
    all
}
