//! Content digests of files as they arrive, so that nothing has to be read again for cache keys.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kiln_digest::Digest;
use kiln_session::fsutil::{ContentHasher, Kind, Observer, Stat};
use kiln_snapshot::contenthash::{FileHasher, FileHeader, HashTree};

/// Writes every change into a hash tree.
pub(super) struct Recorder(Mutex<HashTree>);

impl Recorder {
    pub(super) fn new(tree: HashTree) -> Self {
        Self(Mutex::new(tree))
    }

    /// The tree with all changes. Only when the transfer is over.
    pub(super) fn take(&self) -> HashTree {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashTree> {
        // Updates of the tree do not panic half-way; if one does, the transfer fails and the tree goes with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of the digest that comes before the content.
fn header(stat: &Stat) -> FileHeader {
    let kind = stat.kind();
    FileHeader {
        mode: kind.map_or(0, |k| k.file_kind().type_bits()) | stat.permissions(),
        uid: stat.uid,
        gid: stat.gid,
        size: u64::try_from(stat.size).unwrap_or(0),
        link: if kind == Some(Kind::Symlink) {
            stat.linkname().as_os_str().to_os_string()
        } else {
            Default::default()
        },
        rdev: stat.rdev().unwrap_or_default(),
        xattrs: stat.xattrs.iter().map(|(k, v)| (k.into(), v.clone())).collect(),
    }
}

/// A file on its way.
struct Content(FileHasher);

impl ContentHasher for Content {
    fn write(&mut self, data: &[u8]) {
        self.0.write(data);
    }

    fn finish(self: Box<Self>) -> Digest {
        self.0.finish()
    }
}

impl Observer for Recorder {
    fn hasher(&self, stat: &Stat) -> Box<dyn ContentHasher> {
        Box::new(Content(FileHasher::new(&header(stat))))
    }

    fn changed(&self, stat: &Stat, digest: Digest) {
        let mut tree = self.lock();
        match stat.kind() {
            Some(Kind::Dir) => tree.set_dir(stat.path(), digest),
            Some(Kind::Symlink) => tree.set_symlink(stat.path(), stat.linkname().as_os_str(), digest),
            Some(Kind::HardLink) => tree.set_hard_link(stat.path(), stat.linkname()),
            _ => tree.set_file(stat.path(), digest),
        }
    }

    fn removed(&self, path: &Path) {
        self.lock().remove(path);
    }
}
