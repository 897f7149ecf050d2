//! Which directories make up a snapshot, and making those that merges and diffs need.
//!
//! With overlayfs a merge is mounted as the layers of its parts, stacked. That is right without further work as long as
//! a layer without whiteouts and opaque marks is put on something it was not made on. A layer that has such marks is
//! *adapted*: its directory is cloned with hard links, without the marks that would show (overlayfs lists a whiteout
//! that covers nothing) and with opaque marks spelled out as whiteouts of what the layer really removed.

use std::path::Path;
use std::sync::Arc;

use kiln_fs::walk::{Step, walk};
use kiln_fs::{FileKind, Root};

use crate::changes::{self, ChangeKind, Upper, Visit};
use crate::driver::Driver;
use crate::error::Result;
use crate::placing::{Content, Placer, copy_tree};
use crate::record::{Record, Shape};
use crate::snapshots::Inner;
use crate::{Mounted, NewRef, Snapshot, SnapshotError, SnapshotId, Snapshots, catalog};

/// Overlayfs takes 500 layers (OVL_MAX_STACK). Of more than `MAX_LAYERS`, the lowest `COLLAPSE` become one directory.
const MAX_LAYERS: usize = 400;
const COLLAPSE: usize = 300;

/// How deep differences may be made of differences; finding their layers is recursive.
const MAX_DIFFS: usize = 100;

/// The record's own directory.
pub(crate) fn own_dir(record: &Record) -> Result<u64> {
    record.meta().dir.ok_or_else(|| SnapshotError::Lazy(record.id.clone()))
}

/// The layers that make up a snapshot, bottom first: records with a directory (once it is unpacked) of their own.
pub(crate) fn leaves(record: &Arc<Record>) -> Vec<Arc<Record>> {
    // Found from the top down. Not recursive for layers and merges, which can be nested by the thousand.
    let mut found = Vec::new();
    let mut todo = vec![record.clone()];
    while let Some(record) = todo.pop() {
        match &record.shape {
            Shape::Layer(parent) | Shape::Mutable(parent) => {
                todo.extend(parent.clone());
                found.push(record);
            }
            Shape::Merge(parts) => todo.extend(parts.iter().cloned()),
            Shape::Diff { lower, upper } => match between(lower.as_ref(), upper.as_ref()) {
                Some(layers) => found.extend(layers.into_iter().rev()),
                None => found.push(record),
            },
        }
    }
    found.reverse();
    found
}

/// The layers that `upper` has on top of `lower`, if it was made on it.
fn between(lower: Option<&Arc<Record>>, upper: Option<&Arc<Record>>) -> Option<Vec<Arc<Record>>> {
    let upper = leaves(upper?);
    let lower = lower.map(leaves).unwrap_or_default();
    let extends = lower.len() <= upper.len() && lower.iter().zip(&upper).all(|(a, b)| a.id == b.id);
    extends.then(|| upper[lower.len()..].to_vec())
}

/// What a layer was made on: the parent of a layer, the lower side of a computed difference.
pub(crate) fn made_on(leaf: &Record) -> Option<&Arc<Record>> {
    match &leaf.shape {
        Shape::Layer(parent) | Shape::Mutable(parent) => parent.as_ref(),
        Shape::Diff { lower, .. } => lower.as_ref(),
        Shape::Merge(_) => None,
    }
}

impl Snapshots {
    /// The snapshot that has the files of all parts, later ones over earlier ones; what a part's layers deleted is
    /// deleted. `None` for no parts, the part itself for one. Nothing is copied, and lazy parts stay lazy.
    pub fn merge(&self, parts: &[Snapshot], new: NewRef) -> Result<Option<Snapshot>> {
        match parts {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            _ => {
                let shape = Shape::Merge(parts.iter().map(|part| part.record.clone()).collect());
                self.0.publish_virtual(shape, new).map(Some)
            }
        }
    }

    /// The snapshot that has what `upper` has beyond `lower`. `None` when both are the same; `upper` itself without a
    /// `lower`.
    pub fn diff(
        &self,
        lower: Option<&Snapshot>,
        upper: Option<&Snapshot>,
        new: NewRef,
    ) -> Result<Option<Snapshot>> {
        match (lower, upper) {
            (None, upper) => Ok(upper.cloned()),
            (Some(lower), Some(upper)) if lower == upper => Ok(None),
            (lower, upper) => {
                let record = |snapshot: Option<&Snapshot>| snapshot.map(|s| s.record.clone());
                let shape = Shape::Diff { lower: record(lower), upper: record(upper) };
                if shape.diff_depth() > MAX_DIFFS {
                    return Err(SnapshotError::TooDeep {
                        what: "differences of differences",
                        limit: MAX_DIFFS,
                    });
                }
                self.0.publish_virtual(shape, new).map(Some)
            }
        }
    }
}

impl Inner {
    fn publish_virtual(self: &Arc<Self>, shape: Shape, new: NewRef) -> Result<Snapshot> {
        let meta = crate::record::Meta { kind: new.kind, description: new.description, ..Default::default() };
        let created = new.created_at.unwrap_or_else(std::time::SystemTime::now);
        self.publish(Arc::new(Record::new(SnapshotId::random(), shape, created, meta)), &[])
    }

    /// The directories of a snapshot, bottom first. Fails with `Lazy` when one of them is still to be made.
    pub(crate) fn dirs(&self, record: &Arc<Record>) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        let mut at = Some(record);
        while let Some(record) = at {
            at = match &record.shape {
                Shape::Layer(parent) | Shape::Mutable(parent) => {
                    found.push(own_dir(record)?);
                    parent.as_ref().filter(|_| self.driver != Driver::Native)
                }
                Shape::Merge(_) | Shape::Diff { .. } => {
                    let stack = record.meta().stack.clone();
                    found.extend(
                        stack.ok_or_else(|| SnapshotError::Lazy(record.id.clone()))?.into_iter().rev(),
                    );
                    None
                }
            };
        }
        found.reverse();
        Ok(found)
    }

    /// Makes a merge or diff mountable. All it is made from must be. Blocks; the record's `work` must be held.
    pub(crate) fn materialise(self: &Arc<Self>, record: &Arc<Record>) -> Result<()> {
        if record.meta().stack.is_some() {
            return Ok(());
        }
        let mut made = MadeDirs { inner: self, dirs: Vec::new() };
        let computed = matches!(&record.shape, Shape::Diff { lower, upper } if between(lower.as_ref(), upper.as_ref()).is_none());
        let own = match self.driver {
            Driver::Native => Some(self.assemble_whole(record, &mut made)?),
            Driver::Overlay { .. } if computed => Some(self.compute_diff(record, &mut made)?),
            Driver::Overlay { .. } => None,
        };
        let stack = match (self.driver, own) {
            (Driver::Native, Some(dir)) => vec![dir],
            (_, Some(dir)) => {
                match changes::has_marks(&Root::open(self.fs_dir(dir))?, self.driver.opaque_xattr())? {
                    true => vec![self.adapt(record, dir, &[], &mut made)?],
                    false => vec![dir],
                }
            }
            (_, None) => self.assemble(&leaves(record), &mut made)?,
        };
        let boot = self.db.boot();
        let extra: Vec<(u64, String)> = made
            .dirs
            .iter()
            .filter(|dir| Some(**dir) != own)
            .map(|dir| (*dir, "stack".to_string()))
            .collect();
        self.db.write(|tx| {
            if let Some(dir) = own {
                catalog::save_dir(tx, &record.id, dir, boot)?;
            }
            catalog::save_stack(tx, &record.id, &stack, &extra, boot)
        })?;
        made.dirs.clear();
        self.note_unsynced();
        let mut meta = record.meta();
        meta.dir = own;
        meta.stack = Some(stack);
        meta.extra_dirs.extend(extra);
        meta.size = None;
        Ok(())
    }

    /// The stack of layers that were not all made on each other.
    fn assemble(self: &Arc<Self>, layers: &[Arc<Record>], made: &mut MadeDirs<'_>) -> Result<Vec<u64>> {
        // Overlayfs takes a directory once; what lies above a repeated layer wins either way, so the last one counts.
        let last = |i: usize| layers[i + 1..].iter().all(|later| later.id != layers[i].id);
        let layers: Vec<&Arc<Record>> = (0..layers.len()).filter(|i| last(*i)).map(|i| &layers[i]).collect();
        let mut stack: Vec<u64> = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            let below = made_on(layer).map(leaves).unwrap_or_default();
            let at_home = below.len() == i && below.iter().zip(&layers).all(|(a, b)| a.id == b.id);
            let dir = own_dir(layer)?;
            let dir = match at_home || !self.marks(layer)? {
                true => dir,
                false => self.adapt(layer, dir, &stack, made)?,
            };
            stack.push(dir);
        }
        Ok(stack)
    }

    fn marks(&self, layer: &Record) -> Result<bool> {
        if let Some(marks) = layer.meta().marks {
            return Ok(marks);
        }
        let marks =
            changes::has_marks(&Root::open(self.fs_dir(own_dir(layer)?))?, self.driver.opaque_xattr())?;
        layer.meta().marks = Some(marks);
        self.db.write(|tx| catalog::save_scan(tx, &layer.id, None, Some(marks)))?;
        Ok(marks)
    }

    /// Clones a layer's directory for a place on top of `below`.
    fn adapt(
        self: &Arc<Self>,
        layer: &Record,
        dir: u64,
        below: &[u64],
        made: &mut MadeDirs<'_>,
    ) -> Result<u64> {
        let clone = made.make()?;
        let below = self.mount_stack(below, None)?;
        let home = match made_on(layer) {
            Some(parent) => self.mount_stack(&self.dirs(parent)?, None)?,
            None => self.mount_stack(&[], None)?,
        };
        let (source, target) = (Root::open(self.fs_dir(dir))?, Root::open(self.fs_dir(clone))?);
        let whiteout = |path: &Path| -> Result<()> {
            if below.root().exists(path, false)? {
                target.mknod(path, FileKind::CharDevice, 0, (0, 0))?;
            }
            Ok(())
        };
        let mut placer = Placer::new(&source, &target, Content::Link);
        placer.place(Path::new(""), &source.metadata("", false)?)?;
        walk(&source, "", |entry| {
            let meta = *entry.metadata()?;
            if meta.is_overlay_whiteout() {
                whiteout(entry.path())?;
                return Ok::<_, SnapshotError>(Step::SkipDir);
            }
            placer.place(entry.path(), &meta)?;
            if meta.is_dir() && changes::is_opaque(&source, entry.path(), self.driver.opaque_xattr())? {
                let kept = changes::names_in(&source, entry.path())?;
                for name in changes::names_in(home.root(), entry.path())?.difference(&kept) {
                    whiteout(&entry.path().join(name))?;
                }
            }
            Ok(Step::Continue)
        })?;
        placer.finish()?;
        Ok(clone)
    }

    /// The difference of two unrelated filesystems as a layer directory on top of the lower one.
    fn compute_diff(self: &Arc<Self>, record: &Record, made: &mut MadeDirs<'_>) -> Result<u64> {
        let dir = made.make()?;
        let (lower, upper) = self.mount_sides(record)?;
        let target = Root::open(self.fs_dir(dir))?;
        let mut placer = Placer::new(upper.root(), &target, Content::Copy);
        changes::compare(lower.root(), upper.root(), &mut |change| {
            placer.place_parents(change.path)?;
            if change.kind == ChangeKind::Delete {
                return Ok(target.mknod(change.path, FileKind::CharDevice, 0, (0, 0))?);
            }
            // A directory in place of something else hides it without a mark of its own, as overlayfs does.
            placer.apply(change)
        })?;
        placer.finish()?;
        Ok(dir)
    }

    fn mount_sides(&self, record: &Record) -> Result<(Mounted, Mounted)> {
        let Shape::Diff { lower, upper } = &record.shape else {
            return Err(SnapshotError::Lazy(record.id.clone()));
        };
        let mount = |side: &Option<Arc<Record>>| -> Result<Mounted> {
            let dirs = side.as_ref().map(|record| self.dirs(record)).transpose()?.unwrap_or_default();
            self.mount_stack(&dirs, None)
        };
        Ok((mount(lower)?, mount(upper)?))
    }

    /// Native driver: a merge or diff as a whole tree.
    fn assemble_whole(self: &Arc<Self>, record: &Arc<Record>, made: &mut MadeDirs<'_>) -> Result<u64> {
        let dir = made.make()?;
        let target_path = self.fs_dir(dir);
        let target = Root::open(&target_path)?;
        let mut layers = leaves(record);
        // The first part is copied as it is; of a merge in a merge, its first part.
        let mut first = record;
        while let Shape::Merge(parts) = &first.shape
            && let Some(part) = parts.first()
        {
            first = part;
        }
        if first.id != record.id {
            if let Some(whole) = self.dirs(first)?.last() {
                copy_tree(&self.fs_dir(*whole), &target_path, Content::Copy)?;
            }
            layers.drain(..leaves(first).len());
        }
        for layer in &layers {
            // The directory of a difference does not say what is missing in it; its two sides do.
            let (lower, upper) = match layer.shape {
                Shape::Diff { .. } => self.mount_sides(layer)?,
                _ => {
                    let below =
                        made_on(layer).map(|parent| self.dirs(parent)).transpose()?.unwrap_or_default();
                    (self.mount_stack(&below, None)?, self.mount_stack(&self.dirs(layer)?, None)?)
                }
            };
            self.apply_changes(&lower, &upper, &target)?;
        }
        Ok(dir)
    }

    fn apply_changes(&self, lower: &Mounted, upper: &Mounted, target: &Root) -> Result<()> {
        let mut placer = Placer::new(upper.root(), target, Content::Copy);
        changes::compare(lower.root(), upper.root(), &mut |change| {
            placer.place_parents(change.path)?;
            placer.apply(change)
        })?;
        placer.finish()
    }

    /// A stack that overlayfs accepts: of a very long one the lower part becomes one directory, made once and kept with
    /// the snapshot that the part ends at.
    pub(crate) fn collapse(self: &Arc<Self>, stack: Vec<u64>, of: Option<&Snapshot>) -> Result<Vec<u64>> {
        let Some(of) = of.filter(|_| stack.len() > MAX_LAYERS) else { return Ok(stack) };
        let (low, high) = stack.split_at(COLLAPSE);
        let purpose = format!("collapse:{}", blake3::hash(format!("{low:?}").as_bytes()).to_hex());
        // Several snapshots share the lower part, so it belongs to the layer on top of it.
        let owner = low
            .last()
            .and_then(|dir| leaves(&of.record).into_iter().find(|leaf| leaf.meta().dir == Some(*dir)));
        let owner = owner.unwrap_or_else(|| of.record.clone());
        let known = owner.meta().extra_dirs.iter().find(|(_, have)| *have == purpose).map(|(dir, _)| *dir);
        let dir = match known {
            Some(dir) => dir,
            None => self.flatten(low, &owner, purpose)?,
        };
        let mut short = vec![dir];
        short.extend_from_slice(high);
        self.collapse(short, Some(of))
    }

    fn flatten(self: &Arc<Self>, low: &[u64], owner: &Record, purpose: String) -> Result<u64> {
        let mut made = MadeDirs { inner: self, dirs: Vec::new() };
        let flat = made.make()?;
        let target = Root::open(self.fs_dir(flat))?;
        for dir in low {
            let source = Root::open(self.fs_dir(*dir))?;
            let mut placer = Placer::new(&source, &target, Content::Link);
            placer.place(Path::new(""), &source.metadata("", false)?)?;
            walk(&source, "", |entry| {
                let meta = *entry.metadata()?;
                if meta.is_overlay_whiteout() {
                    target.remove_all(entry.path())?;
                    return Ok::<_, SnapshotError>(Step::SkipDir);
                }
                if meta.is_dir() && changes::is_opaque(&source, entry.path(), self.driver.opaque_xattr())? {
                    target.remove_all(entry.path())?;
                }
                placer.place(entry.path(), &meta)?;
                Ok(Step::Continue)
            })?;
            placer.finish()?;
        }
        self.db.write(|tx| catalog::insert_extra_dir(tx, &owner.id, flat, &purpose))?;
        owner.meta().extra_dirs.push((flat, purpose));
        made.dirs.clear();
        Ok(flat)
    }

    /// The changes of one layer against what it was made on.
    pub(crate) fn layer_changes(self: &Arc<Self>, leaf: &Arc<Record>, visit: &mut Visit<'_>) -> Result<()> {
        let below = made_on(leaf).map(|parent| self.dirs(parent)).transpose()?.unwrap_or_default();
        let own = own_dir(leaf)?;
        let keep = Snapshot::new(leaf.clone(), self.clone());
        if self.driver == Driver::Native {
            if matches!(leaf.shape, Shape::Diff { .. }) {
                let (lower, upper) = self.mount_sides(leaf)?;
                return changes::compare(lower.root(), upper.root(), visit);
            }
            let (lower, upper) = (self.mount_stack(&below, None)?, self.mount_stack(&[own], Some(keep))?);
            return changes::compare(lower.root(), upper.root(), visit);
        }
        let dir = Root::open(self.fs_dir(own))?;
        if below.is_empty() {
            let upper = Upper { dir: &dir, base: None, merged: &dir, opaque: self.driver.opaque_xattr() };
            return upper.changes(visit);
        }
        let base = self.mount_stack(&self.collapse(below.clone(), Some(&keep))?, None)?;
        let with_own: Vec<u64> = below.into_iter().chain([own]).collect();
        let merged = self.mount_stack(&self.collapse(with_own, Some(&keep))?, None)?;
        let upper = Upper {
            dir: &dir,
            base: Some(base.root()),
            merged: merged.root(),
            opaque: self.driver.opaque_xattr(),
        };
        upper.changes(visit)
    }
}

/// Directories that are removed again unless the list is cleared, because their rows are written.
struct MadeDirs<'a> {
    inner: &'a Arc<Inner>,
    dirs: Vec<u64>,
}

impl MadeDirs<'_> {
    fn make(&mut self) -> Result<u64> {
        let dir = self.inner.make_dir()?;
        self.dirs.push(dir);
        Ok(dir)
    }
}

impl Drop for MadeDirs<'_> {
    fn drop(&mut self) {
        self.dirs.iter().for_each(|dir| self.inner.discard_dir(*dir));
    }
}
