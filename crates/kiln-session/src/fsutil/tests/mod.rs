//! Both sides against each other, and each side against a peer that does not play by the rules.

mod hostile_receiver;
mod hostile_sender;
mod model;
mod slow;
mod trees;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use kiln_digest::{Digest, Hasher};
use kiln_fs::Root;

use super::*;
use crate::RawStream;

/// `path -> description` of everything below a directory.
pub(super) fn listing(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut queue = vec![dir.to_path_buf()];
    while let Some(next) = queue.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let mode = meta.permissions().mode();
            let what = if meta.is_dir() {
                queue.push(path.clone());
                format!("dir {:o}", mode & 0o7777)
            } else if meta.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else if meta.is_file() {
                format!("{:o} {}", mode & 0o7777, String::from_utf8_lossy(&std::fs::read(&path).unwrap()))
            } else {
                format!("special {:o} {}", mode, meta.rdev())
            };
            all.insert(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned(), what);
        }
    }
    all
}

/// Remembers what it hears; hashes contents only.
#[derive(Default)]
pub(super) struct Heard(Mutex<Vec<String>>);

impl Heard {
    pub(super) fn take(&self) -> Vec<String> {
        let mut list = std::mem::take(&mut *self.0.lock().unwrap());
        list.sort();
        list
    }
}

impl Observer for Heard {
    fn hasher(&self, _: &Stat) -> Box<dyn ContentHasher> {
        Box::new(Hasher::new())
    }

    fn changed(&self, stat: &Stat, digest: Digest) {
        self.0.lock().unwrap().push(format!("{} {}", stat.path().display(), digest.short()));
    }

    fn removed(&self, path: &Path) {
        self.0.lock().unwrap().push(format!("{} gone", path.display()));
    }
}

pub(super) fn root(dir: &Path) -> Root {
    Root::open(dir).unwrap()
}

pub(super) fn mirror() -> ReceiveOptions {
    ReceiveOptions::new(Update::Mirror(Compare::Metadata), Style::InPlace)
}

pub(super) fn merge() -> ReceiveOptions {
    ReceiveOptions::new(Update::Merge, Style::Replace)
}

pub(super) async fn transfer_tree(
    tree: Arc<dyn Tree>,
    to: &Path,
    options: ReceiveOptions,
) -> (Sent, Received) {
    let (a, b) = RawStream::pair();
    let (sent, received) = tokio::join!(send(a, tree), receive(b, root(to), options));
    (sent.unwrap(), received.unwrap())
}

pub(super) async fn transfer(from: &Path, to: &Path, options: ReceiveOptions) -> (Sent, Received) {
    transfer_tree(Arc::new(DirTree::new(Arc::new(root(from)))), to, options).await
}
