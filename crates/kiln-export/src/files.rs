//! Plain files: into a directory of the client, or as a tar.

use crate::epoch::nanos;
use crate::platforms::platforms;
use crate::stream::{Member, stream};
use crate::{ExportContext, ExportError, ExportInput, FilesOptions};
use jiff::Timestamp;
use kiln_fs::tar::{Entry, EntryKind};
use kiln_fs::walk::{self, Cursor, Step};
use kiln_fs::{FileTime, Metadata, Root};
use kiln_session::fsutil::{self, DirTree, Entries, JoinedTree, Kind, MergedTree, Stat, Tree};
use kiln_session::{FileRequest, Session};
use kiln_snapshot::Mounted;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A mounted part of the result.
struct Part {
    id: String,
    mounted: Mounted,
    /// All modification times.
    time: Option<Timestamp>,
}

impl Part {
    /// The directory for it, where each platform has its own.
    fn dir(&self) -> String {
        self.id.replace('/', "_")
    }
}

async fn parts(
    o: &FilesOptions,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<Vec<Part>, ExportError> {
    let mut parts = Vec::new();
    for ((id, _), (_, snapshot)) in platforms(input)?.into_iter().zip(&input.refs) {
        let mounted = match snapshot {
            Some(snapshot) => {
                cx.snapshots.ensure(snapshot, cx.provider, cx.layers).await?;
                cx.snapshots.mount_view(snapshot)?
            }
            None => cx.snapshots.mount_empty()?,
        };
        let time = o.epoch.of(input, Some(&id))?;
        parts.push(Part { id, mounted, time });
    }
    Ok(parts)
}

/// Sends the files to a directory of the client.
pub(crate) async fn local(
    o: &FilesOptions,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<BTreeMap<String, String>, ExportError> {
    let session = cx.client().await?;
    let parts = parts(o, input, cx).await?;
    let split = o.platform_split.unwrap_or(input.is_map());
    if !split {
        check_overlap(&parts).await?;
    }
    let trees = parts.iter().map(|part| tree(part, split)).collect::<Result<Vec<_>, _>>()?;
    if o.delete {
        send(&session, "copying files", all_at_once(trees)?, true, cx).await?;
    } else {
        let names = parts
            .iter()
            .map(|p| if split { format!("copying files {}", p.id) } else { "copying files".into() });
        let names: Vec<String> = names.collect();
        let sends = names.iter().zip(trees).map(|(name, (dir, tree))| {
            let session = &session;
            async move { send(session, name, placed(dir, tree)?, false, cx).await }
        });
        futures::future::try_join_all(sends).await?;
    }
    Ok(BTreeMap::new())
}

async fn send(
    session: &Session,
    name: &str,
    tree: Arc<dyn Tree>,
    all: bool,
    cx: &ExportContext<'_>,
) -> Result<(), ExportError> {
    let request = FileRequest { exporter: cx.index, multi_platform: all, metadata: BTreeMap::new() };
    let stream = session.send_files(&request)?;
    let counted = Arc::new(Counted { tree, bytes: Arc::default() });
    let bytes = counted.bytes.clone();
    cx.counting(name, &bytes, fsutil::send(stream, counted)).await?;
    Ok(())
}

/// A part as a tree, with the directory it goes to, if it has one.
type PlacedTree = (Option<Stat>, Arc<dyn Tree>);

fn tree(part: &Part, split: bool) -> Result<PlacedTree, ExportError> {
    let tree = DirTree::new(Arc::new(root(part)?));
    let time = part.time.map(nanos);
    let tree: Arc<dyn Tree> = match time {
        Some(time) => Arc::new(tree.mapped(move |stat| stat.mod_time = time)),
        None => Arc::new(tree),
    };
    let dir = || Stat { mod_time: time.unwrap_or_default(), ..Stat::dir(part.dir(), 0o755) };
    Ok((split.then(dir), tree))
}

fn root(part: &Part) -> Result<Root, ExportError> {
    part.mounted
        .root()
        .try_clone()
        .map_err(|e| ExportError::Io("open the result".into(), io::Error::other(e)))
}

fn placed(dir: Option<Stat>, tree: Arc<dyn Tree>) -> Result<Arc<dyn Tree>, ExportError> {
    match dir {
        Some(dir) => Ok(Arc::new(JoinedTree::side_by_side(vec![(dir, tree)])?)),
        None => Ok(tree),
    }
}

/// One transfer for all, from which the client knows what else to remove.
fn all_at_once(trees: Vec<PlacedTree>) -> Result<Arc<dyn Tree>, ExportError> {
    let all = trees.into_iter().map(|(dir, tree)| placed(dir, tree)).collect::<Result<_, _>>()?;
    Ok(Arc::new(MergedTree::new(all)))
}

/// Into one directory, no part may overwrite files of another.
async fn check_overlap(parts: &[Part]) -> Result<(), ExportError> {
    if parts.len() < 2 {
        return Ok(());
    }
    let trees = parts.iter().map(|part| Ok((part.id.clone(), DirTree::new(Arc::new(root(part)?)))));
    let trees = trees.collect::<Result<Vec<_>, ExportError>>()?;
    let check = move || {
        let mut seen: HashMap<PathBuf, String> = HashMap::new();
        for (id, tree) in trees {
            for stat in tree.entries() {
                let stat = stat?;
                let dir = stat.kind() == Some(Kind::Dir);
                let other = seen.insert(stat.path().to_path_buf(), id.clone());
                if let Some(other) = other.filter(|_| !dir) {
                    let path = stat.path().display();
                    return Err(ExportError::Invalid(format!(
                        "cannot overwrite {path} from {other} with {id} when split option is disabled"
                    )));
                }
            }
        }
        Ok(())
    };
    kiln_blocking::run(check).await.map_err(|e| ExportError::Internal(e.to_string()))?
}

/// Counts the bytes of files that are read.
struct Counted {
    tree: Arc<dyn Tree>,
    bytes: Arc<AtomicU64>,
}

impl Tree for Counted {
    fn entries(&self) -> Entries {
        self.tree.entries()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(CountedFile { file: self.tree.open(path)?, bytes: self.bytes.clone() }))
    }
}

struct CountedFile {
    file: Box<dyn Read + Send>,
    bytes: Arc<AtomicU64>,
}

impl Read for CountedFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Sends the files as a tar; platforms of a map have directories of their own.
pub(crate) async fn tar(
    o: &FilesOptions,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<BTreeMap<String, String>, ExportError> {
    let session = cx.client().await?;
    let mut parts = parts(o, input, cx).await?;
    parts.sort_by_key(Part::dir);
    let members = Members { parts: parts.into_iter(), split: input.is_map(), present: None };
    let request = FileRequest { exporter: cx.index, multi_platform: false, metadata: BTreeMap::new() };
    stream(("sending tarball", STEP), &session, &request, cx, members).await?;
    Ok(BTreeMap::new())
}

const STEP: &str = "write the tar";

/// The entries of a tar, part after part.
struct Members {
    parts: std::vec::IntoIter<Part>,
    split: bool,
    present: Option<PartWalk>,
}

impl Iterator for Members {
    type Item = Result<Member, ExportError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(part) = &mut self.present {
                let failed =
                    |e: kiln_fs::Error| ExportError::Io(STEP.into(), io::Error::other(e.to_string()));
                match part.next().map_err(failed).transpose() {
                    None => self.present = None,
                    member => return member,
                }
            }
            let part = self.parts.next()?;
            let dir = if self.split { part.dir() } else { String::new() };
            let time = part.time.map(|t| FileTime::from_nanos(nanos(t)));
            match Cursor::new(part.mounted.root(), ".") {
                Ok(cursor) => self.present = Some(PartWalk::new(cursor, &dir, time, part)),
                Err(e) => return Some(Err(ExportError::Io(STEP.into(), io::Error::other(e.to_string())))),
            }
            if self.split {
                let mut entry = Entry::new(format!("{dir}/"), EntryKind::Dir);
                entry.mode = 0o755;
                entry.mtime = time.unwrap_or(entry.mtime);
                return Some(Ok((entry, None)));
            }
        }
    }
}

/// A walk through a part. What is open goes before what it is of.
struct PartWalk {
    cursor: Cursor,
    dir: PathBuf,
    time: Option<FileTime>,
    /// First path of each inode that has several names.
    links: HashMap<u64, PathBuf>,
    _part: Part,
}

impl PartWalk {
    fn new(cursor: Cursor, dir: &str, time: Option<FileTime>, part: Part) -> Self {
        Self { cursor, dir: dir.into(), time, links: HashMap::new(), _part: part }
    }

    fn next(&mut self) -> kiln_fs::Result<Option<Member>> {
        while let Some(entry) = self.cursor.entry() {
            let member = member(&entry, &self.dir, self.time, &mut self.links)?;
            self.cursor.advance(Step::Continue)?;
            if member.is_some() {
                return Ok(member);
            }
        }
        Ok(None)
    }
}

/// `None` for sockets, which have no form in a tar.
fn member(
    entry: &walk::Entry<'_>,
    dir: &Path,
    time: Option<FileTime>,
    links: &mut HashMap<u64, PathBuf>,
) -> kiln_fs::Result<Option<Member>> {
    let meta: Metadata = *entry.metadata()?;
    let path = dir.join(entry.path());
    let Some(mut out) = Entry::from_metadata(&path, &meta) else { return Ok(None) };
    out.mtime = time.unwrap_or(out.mtime);
    out.xattrs = entry.xattrs()?;
    if meta.is_symlink() {
        out.link = entry.read_link()?;
    }
    if meta.is_file() && meta.nlink > 1 {
        let first = links.entry(meta.ino).or_insert_with(|| path.clone());
        if *first != path {
            out.kind = EntryKind::HardLink;
            out.size = 0;
            out.link.clone_from(first);
            return Ok(Some((out, None)));
        }
    }
    let content: Option<Box<dyn Read + Send>> = match meta.is_file() {
        true => Some(Box::new(entry.open()?)),
        false => None,
    };
    Ok(Some((out, content)))
}
