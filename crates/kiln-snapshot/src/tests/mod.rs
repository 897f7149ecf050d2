//! Tests on real file systems. Those with `root` in their name need to mount; each runs in a mount namespace of its own.

mod cache_mounts;
mod crash;
mod images;
mod keyed;
mod layering;
mod merging;
mod pruning;

use std::fs;
use std::future::Future;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use kiln_content::{ContentStore, Db};
use kiln_fs::walk::{Step, walk};
use kiln_fs::{FileTime, Root};
use tempfile::TempDir;

use crate::{ActiveSnapshot, DriverChoice, NewRef, Snapshot, SnapshotError, Snapshots};

/// Runs a test in a thread with a mount namespace of its own, in which nothing outlives the thread.
fn private(test: impl FnOnce() + Send + 'static) {
    let run = move || match kiln_sys::mountns::enter_private() {
        Ok(()) => test(),
        Err(error) => eprintln!("skipped: {error}"),
    };
    let joined = std::thread::Builder::new().stack_size(4 << 20).spawn(run).unwrap().join();
    if let Err(panic) = joined {
        std::panic::resume_unwind(panic);
    }
}

/// The same for asynchronous tests: the runtime's threads are children of the thread, so they share the namespace.
fn private_async<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    private(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test());
    });
}

struct Store {
    dir: TempDir,
    snapshots: Snapshots,
}

impl std::ops::Deref for Store {
    type Target = Snapshots;

    fn deref(&self) -> &Snapshots {
        &self.snapshots
    }
}

fn open(dir: &Path, driver: DriverChoice) -> Snapshots {
    let db = Db::open(&dir.join("kiln.db")).unwrap();
    let content = ContentStore::open(dir, db.clone()).unwrap();
    Snapshots::open(dir, db, content, driver).unwrap()
}

impl Store {
    fn new(driver: DriverChoice) -> Self {
        let dir = TempDir::new().unwrap();
        let snapshots = open(dir.path(), driver);
        Self { dir, snapshots }
    }

    fn reopen(self) -> Self {
        let driver = match self.snapshots.driver() {
            crate::Driver::Native => DriverChoice::Native,
            crate::Driver::Overlay { .. } => DriverChoice::Overlay,
        };
        drop(self.snapshots);
        let snapshots = open(self.dir.path(), driver);
        Self { dir: self.dir, snapshots }
    }

    /// Commits a layer made by running lines on top of a parent.
    fn layer(&self, parent: Option<&Snapshot>, lines: &[&str]) -> Snapshot {
        let active = self.new_active(parent, NewRef::regular(lines.join("; "))).unwrap();
        edit(&active, lines);
        active.commit().unwrap()
    }

    fn listing(&self, snapshot: &Snapshot) -> Vec<String> {
        listing(self.mount_view(snapshot).unwrap().root())
    }

    fn entries(&self, name: &str) -> usize {
        fs::read_dir(self.dir.path().join(name)).unwrap().count()
    }

    /// Waits for the thread that removes directories.
    fn wait_for_entries(&self, name: &str, count: usize) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while self.entries(name) != count && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(self.entries(name), count, "{name}");
    }
}

/// Lines: `path = text`, `path/`, `path -> target`, `path => hard link`, `- path`, `path % mode`, `path @ uid`.
/// All that is touched gets a fixed time, so that archives of it are the same everywhere.
fn edit(active: &ActiveSnapshot, lines: &[&str]) {
    let mounted = active.mount().unwrap();
    // Through the descriptor, since the mount point is the store's secret.
    use std::os::fd::AsRawFd;
    let base = PathBuf::from(format!("/proc/self/fd/{}", mounted.root().as_fd().as_raw_fd()));
    for line in lines {
        let time = |path: &str| {
            let time = FileTime { secs: 1_500_000_000, nanos: 0 };
            let root = mounted.root();
            if root.exists(path, false).unwrap() {
                root.utimens(path, time, time).unwrap();
            }
            if let Some(parent) = Path::new(path).parent().filter(|p| !p.as_os_str().is_empty()) {
                root.utimens(parent, time, time).unwrap();
            }
        };
        let path = line.trim_start_matches("- ").split(' ').next().unwrap().trim_end_matches('/');
        let full = base.join(path);
        if line.starts_with("- ") {
            mounted.root().remove_all(path).unwrap();
        } else if let Some((_, text)) = line.split_once(" = ") {
            fs::write(&full, text).unwrap();
        } else if let Some((_, target)) = line.split_once(" -> ") {
            symlink(target, &full).unwrap();
        } else if let Some((_, existing)) = line.split_once(" => ") {
            fs::hard_link(base.join(existing), &full).unwrap();
        } else if let Some((_, mode)) = line.split_once(" % ") {
            let mode = u32::from_str_radix(mode, 8).unwrap();
            fs::set_permissions(&full, fs::Permissions::from_mode(mode)).unwrap();
        } else if let Some((_, uid)) = line.split_once(" @ ") {
            chown(&full, Some(uid.parse().unwrap()), None).unwrap();
        } else {
            fs::create_dir(&full).unwrap();
        }
        time(path);
    }
}

/// Every path with what it is, in order.
fn listing(root: &Root) -> Vec<String> {
    let mut lines = Vec::new();
    walk(root, "", |entry| {
        let meta = *entry.metadata()?;
        let what = match meta.kind {
            kiln_fs::FileKind::Dir => "/".to_string(),
            kiln_fs::FileKind::Symlink => format!(" -> {}", entry.read_link()?.display()),
            kiln_fs::FileKind::File => format!(" = {}", entry.read_to_string_of()),
            other => format!(" {other:?} {:?}", meta.rdev),
        };
        lines.push(format!("{}{what} {:o}", entry.path().display(), meta.mode));
        Ok::<_, SnapshotError>(Step::Continue)
    })
    .unwrap();
    lines
}

/// The content of a file of a walk.
trait ReadEntry {
    fn read_to_string_of(&self) -> String;
}

impl ReadEntry for kiln_fs::walk::Entry<'_> {
    fn read_to_string_of(&self) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.open().unwrap(), &mut text).unwrap();
        text
    }
}

/// A random edit line over a few names, of which some cannot be carried out.
fn random_line(random: &mut impl rand::Rng) -> String {
    let name = |random: &mut dyn rand::RngCore| ["a", "b", "c", "d"][(random.next_u32() % 4) as usize];
    let mut path = name(random).to_string();
    while path.len() < 5 && random.random_bool(0.5) {
        path = format!("{path}/{}", name(random));
    }
    match random.random_range(0..8) {
        0 | 1 => format!("{path}/"),
        2 | 3 => format!("{path} = {}", random.random_range(0..1000)),
        4 => format!("{path} -> {}", name(random)),
        5 => format!("- {path}"),
        6 => format!("{path} => {}", name(random)),
        _ => format!("{path} % {:o}", random.random_range(0o400..0o777)),
    }
}

/// Whether a line can be carried out in a filesystem.
fn possible(root: &Root, line: &str) -> bool {
    let path = line.trim_start_matches("- ").split(' ').next().unwrap().trim_end_matches('/');
    let kind = |path: &str| root.metadata(path, false).ok().map(|meta| meta.kind);
    let parent_is_dir = Path::new(path).parent().is_none_or(|parent| {
        parent.ancestors().all(|dir| root.metadata(dir, false).is_ok_and(|meta| meta.is_dir()))
    });
    let file = Some(kiln_fs::FileKind::File);
    // Overlayfs breaks hard links when one of them is changed (overlayfs.rst, "Non-standard behavior").
    let single = |path: &str| root.metadata(path, false).is_ok_and(|meta| meta.is_dir() || meta.nlink == 1);
    match line {
        _ if !parent_is_dir => false,
        _ if line.starts_with("- ") => true,
        _ if line.contains(" = ") => kind(path).is_none() || kind(path) == file && single(path),
        _ if line.contains(" % ") => single(path) && kind(path) != Some(kiln_fs::FileKind::Symlink),
        _ if line.contains(" => ") => {
            let target = line.split(" => ").nth(1).unwrap();
            kind(path).is_none() && kind(target) == file && single(target)
        }
        _ => kind(path).is_none(),
    }
}

/// The same random layers in two stores.
fn random_chain(stores: &[Store; 2], random: &mut rand::rngs::StdRng, layers: usize) -> [Snapshot; 2] {
    let mut tops: [Option<Snapshot>; 2] = [None, None];
    for _ in 0..layers {
        let actives = [0, 1].map(|i| stores[i].new_active(tops[i].as_ref(), NewRef::default()).unwrap());
        let mut lines = Vec::new();
        for _ in 0..12 {
            let line = random_line(random);
            let can = possible(actives[0].mount().unwrap().root(), &line);
            if can {
                actives.iter().for_each(|active| edit(active, &[&line]));
                lines.push(line);
            }
        }
        tops = actives.map(|active| Some(active.commit().unwrap()));
        let [a, b] = [0, 1].map(|i| stores[i].listing(tops[i].as_ref().unwrap()));
        assert_eq!(a, b, "{lines:?}");
    }
    tops.map(Option::unwrap)
}
