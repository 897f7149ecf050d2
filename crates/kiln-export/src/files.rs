//! Plain files: into a directory of the client, or as a tar.

use crate::epoch::nanos;
use crate::platforms::platforms;
use crate::stream::{ChunkWriter, stream};
use crate::{ExportContext, ExportError, ExportInput, FilesOptions};
use jiff::Timestamp;
use kiln_fs::tar::{Entry, EntryKind, Writer};
use kiln_fs::walk::{self, Step};
use kiln_fs::{FileTime, Metadata, Root};
use kiln_session::fsutil::{self, DirTree, JoinedTree, Kind, MergedTree, Stat, TransferError, Tree, Visit};
use kiln_session::{FileRequest, Session};
use kiln_snapshot::Mounted;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
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
        check_overlap(&parts)?;
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
fn check_overlap(parts: &[Part]) -> Result<(), ExportError> {
    if parts.len() < 2 {
        return Ok(());
    }
    let mut seen: HashMap<PathBuf, &str> = HashMap::new();
    for part in parts {
        DirTree::new(Arc::new(root(part)?))
            .walk(&mut |stat| {
                let dir = stat.kind() == Some(Kind::Dir);
                match seen.insert(stat.path().to_path_buf(), &part.id) {
                    Some(other) if !dir => {
                        Err(TransferError::Twice(format!("{} from {other}", stat.path().display()).into()))
                    }
                    _ => Ok(()),
                }
            })
            .map_err(|e| match e {
                TransferError::Twice(what) => {
                    let (what, with) = (what.display(), &part.id);
                    ExportError::Invalid(format!(
                        "cannot overwrite {what} with {with} when split option is disabled"
                    ))
                }
                e => e.into(),
            })?;
    }
    Ok(())
}

/// Counts the bytes of files that are read.
struct Counted {
    tree: Arc<dyn Tree>,
    bytes: Arc<AtomicU64>,
}

impl Tree for Counted {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), TransferError> {
        self.tree.walk(visit)
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
    let parts = parts(o, input, cx).await?;
    let split = input.is_map();
    let request = FileRequest { exporter: cx.index, multi_platform: false, metadata: BTreeMap::new() };
    stream("sending tarball", &session, &request, cx, move |out| write_tar(out, parts, split)).await?;
    Ok(BTreeMap::new())
}

fn write_tar(out: ChunkWriter, mut parts: Vec<Part>, split: bool) -> Result<(), ExportError> {
    let failed = |e: Failure| ExportError::Io("write the tar".into(), io::Error::other(e.0));
    let mut tar = Writer::new(out);
    parts.sort_by_key(Part::dir);
    for part in &parts {
        let dir = if split { part.dir() } else { String::new() };
        let time = part.time.map(|t| FileTime::from_nanos(nanos(t)));
        if split {
            let mut entry = Entry::new(format!("{dir}/"), EntryKind::Dir);
            entry.mode = 0o755;
            entry.mtime = time.unwrap_or(entry.mtime);
            tar.append_empty(&entry).map_err(|e| failed(e.into()))?;
        }
        write_part(&mut tar, part.mounted.root(), Path::new(&dir), time).map_err(failed)?;
    }
    let mut out = tar.finish().map_err(|e| failed(e.into()))?;
    out.flush().map_err(|e| ExportError::Io("write the tar".into(), e))
}

/// Any error while writing, as text.
struct Failure(String);

impl From<kiln_fs::tar::TarError> for Failure {
    fn from(e: kiln_fs::tar::TarError) -> Self {
        Self(e.to_string())
    }
}

impl From<kiln_fs::Error> for Failure {
    fn from(e: kiln_fs::Error) -> Self {
        Self(e.to_string())
    }
}

fn write_part(
    tar: &mut Writer<ChunkWriter>,
    root: &Root,
    dir: &Path,
    time: Option<FileTime>,
) -> Result<(), Failure> {
    // First path of each inode that has several names.
    let mut links: HashMap<u64, PathBuf> = HashMap::new();
    walk::walk(root, ".", |entry| -> Result<Step, Failure> {
        let meta: Metadata = *entry.metadata()?;
        let path = dir.join(entry.path());
        // Sockets have no form in a tar.
        let Some(mut out) = Entry::from_metadata(&path, &meta) else { return Ok(Step::Continue) };
        out.mtime = time.unwrap_or(out.mtime);
        out.xattrs = entry.xattrs()?;
        if meta.is_symlink() {
            out.link = entry.read_link()?;
        }
        let several = meta.is_file() && meta.nlink > 1;
        let first = several.then(|| links.entry(meta.ino).or_insert_with(|| path.clone()).clone());
        match first {
            Some(first) if first != path => {
                out.kind = EntryKind::HardLink;
                out.size = 0;
                out.link = first;
                tar.append_empty(&out)?;
            }
            _ if meta.is_file() => tar.append(&out, entry.open()?)?,
            _ => tar.append_empty(&out)?,
        }
        Ok(Step::Continue)
    })
}
