//! A directory of the host that no build may read or change.

use crate::common::World;
use kiln_testkit::Output;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What no build may learn.
pub(crate) const TEXT: &str = "host-canary-51c7";

/// The directory, and how it was.
pub(crate) struct Canary {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Canary {
    /// With a secret, and with empty files and directories as mount points leave them behind.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-canary-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["secret", "passwd", "sub/secret"] {
            fs::create_dir_all(dir.path().join("sub")).unwrap();
            fs::write(dir.path().join(name), format!("{TEXT}:x:0:0\n")).unwrap();
        }
        for name in ["empty", "hosts", "resolv.conf"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        for name in ["emptydir", "shm", "pts"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let before = state(dir.path());
        Self { dir, before }
    }

    pub(crate) fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// Nothing in it was added, removed, changed or told, and the daemon serves the next build.
    #[track_caller]
    pub(crate) fn unharmed(&self, w: &World, said: &Output) {
        assert_eq!(state(self.dir.path()), self.before);
        for text in [&said.stdout, &said.stderr, &w.daemon.as_ref().unwrap().log()] {
            assert!(!text.contains(TEXT), "{text}");
        }
        assert!([0, 1].contains(&said.status), "{}", said.stderr);
    }

    /// Also not in the result.
    #[track_caller]
    pub(crate) fn unread(&self, w: &World, said: &Output, result: &Path) {
        self.unharmed(w, said);
        assert_eq!(files_with(result, TEXT), Vec::<PathBuf>::new(), "{}", said.stderr);
    }
}

/// Every file below `dir` with what can be changed of it.
fn state(dir: &Path) -> Vec<String> {
    let mut all = vec![line(dir)];
    walk(dir, &mut |path| all.push(line(path)));
    all.sort();
    all
}

fn line(path: &Path) -> String {
    let m = fs::symlink_metadata(path).unwrap();
    let text = if m.is_file() { fs::read_to_string(path).unwrap() } else { String::new() };
    let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    format!("{} {:o} {}:{} {} {times:?} {text:?}", path.display(), m.mode(), m.uid(), m.gid(), m.nlink())
}

/// Regular files below `dir` that hold `text`; links are not followed, pipes and devices not opened.
pub(crate) fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut grep = Command::new("grep");
    let out =
        grep.args(["-rlF", "--devices=skip", "-e", text, "."]).current_dir(dir).env("LC_ALL", "C").output();
    let out = out.map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&out).lines().map(|l| dir.join(l)).collect()
}

pub(crate) fn holds(data: &[u8], text: &str) -> bool {
    data.windows(text.len()).any(|w| w == text.as_bytes())
}

fn walk(dir: &Path, see: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        see(&entry.path());
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), see);
        }
    }
}

/// Builds `dockerfile` into a fresh directory, whatever comes of it.
pub(crate) fn attempt(w: &World, dockerfile: &str, args: &[&str]) -> (Output, PathBuf) {
    let out = w.env.path().join("out");
    drop(fs::remove_dir_all(&out));
    let output = format!("type=local,dest={}", out.display());
    (w.build(dockerfile, &[&["--output", &output][..], args].concat()), out)
}
