//! The mount tree: root, standard filesystems, what the step asked for; then the change of root.

use super::rooted::{self, Missing};
use super::{At, Handles, dev, hooks};
use crate::error::Step;
use crate::hooks::ROOTFS;
use crate::spec::{DeviceNode, NodeKind, Security};
use crate::wire::{CgroupView, Devices, Failure, Mount, Program, Root, Sandbox, Source};
use kiln_sys::mount::{self, Attrs};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Directories of the helper's own root, made once by the helper: where a child attaches its root and a
/// filesystem for its small things.
pub(crate) const ROOT_POINT: &str = ROOTFS;
pub(crate) const SCRATCH_POINT: &str = "scratch";

/// Hidden from a sandboxed step, the list of containerd and runc: below /proc, and below /sys.
const MASKED_PROC: &[&str] =
    &["acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"];
const MASKED_SYS: &[&str] = &["firmware", "devices/virtual/powercap"];
const READ_ONLY_PROC: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The filesystem magic of procfs, statfs(2).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Handles of what one run mounts.
pub(super) struct Tree<'a> {
    pub(super) program: &'a Program,
    pub(super) sandbox: &'a Sandbox,
    pub(super) root: OwnedFd,
    /// A filesystem of this run's own outside the root: files, an empty directory, spare device nodes.
    pub(super) scratch: OwnedFd,
}

/// What [`build`] leaves to the later steps.
pub(super) struct Built {
    /// The root's mount.
    pub(super) root: OwnedFd,
    /// The inner side of the terminal.
    pub(super) terminal: Option<OwnedFd>,
}

/// Builds everything and changes the root.
pub(super) fn build(
    handles: &mut Handles,
    program: &Program,
    sandbox: &Sandbox,
    blobs: &[u8],
    reply: BorrowedFd<'_>,
) -> Result<Built, Failure> {
    let (base, root) = root(handles, sandbox)?;
    if sandbox.devices == Devices::NoDev {
        mount::set_attrs(root.as_fd(), Attrs { nodev: true, ..Attrs::default() }, false).at(Step::Root)?;
    }
    let tree = Tree { program, sandbox, root, scratch: scratch(base.as_fd()).at(Step::Root)? };

    let proc = tree.standard("proc", "proc", &[], Attrs::SEALED, Step::Proc)?;
    let made = dev::mount(&tree, proc.as_fd(), reply)?;
    let sys = tree.sys()?;
    if program.security == Security::Sandbox {
        tree.mask(proc.as_fd(), MASKED_PROC, made.null.as_fd())?;
        tree.mask(sys.as_fd(), MASKED_SYS, made.null.as_fd())?;
        read_only_paths(proc.as_fd(), READ_ONLY_PROC)?;
    }
    for (number, wanted) in sandbox.mounts.iter().enumerate() {
        tree.wanted(handles, wanted, number, blobs)?;
    }
    if let Some(bundled) = sandbox.bundled() {
        hooks::created(bundled, reply)?;
    }
    // Drops the old tree, the scratch filesystem included.
    mount::change_root(tree.root.as_fd()).at(Step::Pivot)?;
    Ok(Built { root: tree.root, terminal: made.terminal })
}

/// The directory in which the sandbox is made, and the root, mounted in it.
fn root(handles: &mut Handles, sandbox: &Sandbox) -> Result<(OwnedFd, OwnedFd), Failure> {
    let step = Step::Root;
    match &sandbox.root {
        Root::Detached(index) => {
            let root = handles.take(*index)?;
            // Opened here and not by the helper: a handle from before the fork belongs to the helper's namespace.
            let base = rooted::open_slash().at(step)?;
            let point = rooted::plain_directory(base.as_fd(), ROOT_POINT).at(step)?;
            mount::set_private(root.as_fd(), true).at(step)?;
            mount::attach(root.as_fd(), point.as_fd()).at(step)?;
            Ok((base, root))
        }
        Root::Bundled(bundled) => {
            let base = hooks::enter_bundle(handles, bundled)?;
            let root = rooted::plain_directory(base.as_fd(), ROOT_POINT).at(step)?;
            Ok((base, root))
        }
    }
}

fn scratch(old_root: BorrowedFd<'_>) -> kiln_sys::Result<OwnedFd> {
    let point = rooted::plain_directory(old_root, SCRATCH_POINT)
        .map_err(|e| kiln_sys::Error::new(kiln_sys::Call::Open, SCRATCH_POINT, e))?;
    // Device nodes may lie here, so nodev is set on the clones that are handed out.
    let attrs = Attrs { nosuid: true, noexec: true, ..Attrs::default() };
    let fs = mount::new_filesystem("tmpfs", &[("mode", "0755")], attrs)?;
    mount::attach(fs.as_fd(), point.as_fd())?;
    Ok(fs)
}

impl Tree<'_> {
    /// Mounts a new filesystem on a plain directory directly below the root.
    pub(super) fn standard(
        &self,
        name: &str,
        kind: &str,
        options: &[(&str, &str)],
        attrs: Attrs,
        step: Step,
    ) -> Result<OwnedFd, Failure> {
        let point = rooted::plain_directory(self.root.as_fd(), name).map_err(|e| match e {
            Errno::LOOP => Failure::new(step, format_args!("/{name} of the root is a symbolic link")),
            Errno::NOTDIR => Failure::new(step, format_args!("/{name} of the root is not a directory")),
            e => Failure::new(step, format_args!("/{name}: {e}")),
        })?;
        let fs = mount::new_filesystem(kind, options, attrs).at(step)?;
        mount::attach(fs.as_fd(), point.as_fd()).at(step)?;
        Ok(fs)
    }

    fn sys(&self) -> Result<OwnedFd, Failure> {
        let sealed = match self.program.security {
            Security::Sandbox => Attrs::SEALED.read_only(),
            Security::Insecure => Attrs::SEALED,
        };
        let sys = self.standard("sys", "sysfs", &[], sealed, Step::Sys)?;
        let step = Step::CgroupMount;
        if self.sandbox.cgroup_view == CgroupView::None {
            return Ok(sys);
        }
        let point = below(sys.as_fd(), "fs/cgroup").at(step)?;
        match &self.sandbox.cgroup_view {
            CgroupView::None => {}
            CgroupView::Unified => {
                let fs = mount::new_filesystem("cgroup2", &[], sealed).at(step)?;
                mount::attach(fs.as_fd(), point.as_fd()).at(step)?;
            }
            CgroupView::Hybrid { controllers, unified } => {
                let top = mount::new_filesystem("tmpfs", &[("mode", "0755")], Attrs::SEALED).at(step)?;
                mount::attach(top.as_fd(), point.as_fd()).at(step)?;
                for name in controllers {
                    let flags: Vec<(&str, &str)> = name.split(',').map(|c| (c, "")).collect();
                    hierarchy(top.as_fd(), name, "cgroup", &flags, sealed).on(step, name)?;
                }
                if *unified {
                    hierarchy(top.as_fd(), "unified", "cgroup2", &[], sealed).on(step, "unified")?;
                }
                mount::set_attrs(top.as_fd(), sealed, false).at(step)?;
            }
        }
        Ok(sys)
    }

    /// Covers each path with `/dev/null` or an empty directory. What does not exist needs no cover.
    fn mask(&self, at: BorrowedFd<'_>, paths: &[&str], null: BorrowedFd<'_>) -> Result<(), Failure> {
        let step = Step::Mask;
        for path in paths {
            let point = match below(at, path) {
                Ok(point) => point,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(e) => return Err(Failure::new(step, format_args!("{path}: {e}"))),
            };
            let cover = match rooted::file_type(point.as_fd()).on(step, path)? {
                FileType::Directory => {
                    let empty = rooted::plain_directory(self.scratch.as_fd(), "empty").on(step, path)?;
                    let cover = mount::open_tree(empty.as_fd(), "", false).on(step, path)?;
                    mount::set_attrs(cover.as_fd(), Attrs::SEALED.read_only(), false).on(step, path)?;
                    cover
                }
                _ => mount::open_tree(null, "", false).on(step, path)?,
            };
            mount::attach(cover.as_fd(), point.as_fd()).on(step, path)?;
        }
        Ok(())
    }

    /// One mount the step asked for.
    fn wanted(
        &self,
        handles: &mut Handles,
        wanted: &Mount,
        number: usize,
        blobs: &[u8],
    ) -> Result<(), Failure> {
        let what = wanted.dest.display();
        let (source, missing) = match wanted.source {
            Source::Bind { tree, directory: true } => (handles.take(tree)?, Missing::Directory),
            Source::Bind { tree, directory: false } => (handles.take(tree)?, Missing::File),
            Source::Tmpfs { size, mode } => {
                (self.tmpfs(size, mode).on(Step::Mount, &what)?, Missing::Directory)
            }
            Source::Device(node) => {
                let name = format!("device{number}");
                (self.device(&name, node).on(Step::Devices, &what)?, Missing::File)
            }
            Source::File { start, end, mode, uid, gid } => {
                let bytes = blobs.get(start..end).ok_or("its contents are missing").on(Step::Mount, &what)?;
                let name = format!("file{number}");
                (self.file(&name, bytes, mode, uid, gid).on(Step::Mount, &what)?, Missing::File)
            }
        };
        let point =
            rooted::open_or_make(self.root.as_fd(), &wanted.dest, missing, None).on(Step::Mount, &what)?;
        // procfs would let a mount stand in for what the masks and runtimes rely on.
        if rustix::fs::fstatfs(&point).on(Step::Mount, &what)?.f_type.cast_unsigned() == PROC_SUPER_MAGIC {
            return Err("is inside /proc, where nothing can be mounted").on(Step::Mount, &what);
        }
        mount::attach(source.as_fd(), point.as_fd()).on(Step::Mount, &what)
    }

    fn tmpfs(&self, size: Option<u64>, mode: u32) -> kiln_sys::Result<OwnedFd> {
        let mode = format!("{mode:o}");
        let size = size.map(|s| s.to_string());
        let mut options = vec![("mode", mode.as_str())];
        options.extend(size.as_deref().map(|s| ("size", s)));
        let nodev = self.sandbox.devices == Devices::NoDev;
        mount::new_filesystem("tmpfs", &options, Attrs { nosuid: true, nodev, ..Attrs::default() })
    }

    /// Makes a node in the scratch filesystem and clones it as a mount of its own, which is not nodev.
    fn device(&self, name: &str, node: DeviceNode) -> kiln_sys::Result<OwnedFd> {
        let wrong = |e| kiln_sys::Error::new(kiln_sys::Call::Mknod, name, e);
        let kind = match node.kind {
            NodeKind::Block => FileType::BlockDevice,
            NodeKind::Char => FileType::CharacterDevice,
            NodeKind::Fifo => FileType::Fifo,
        };
        let number = rustix::fs::makedev(node.major, node.minor);
        let mode = Mode::from_raw_mode(node.mode & 0o777);
        rustix::fs::mknodat(&self.scratch, name, kind, mode, number).map_err(wrong)?;
        let (uid, gid) = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        rustix::fs::chownat(&self.scratch, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(wrong)?;
        mount::open_tree(self.scratch.as_fd(), name, false)
    }

    /// Writes a file into the scratch filesystem and clones it as a mount of its own.
    fn file(&self, name: &str, bytes: &[u8], mode: u32, uid: u32, gid: u32) -> kiln_sys::Result<OwnedFd> {
        let wrong = |e| kiln_sys::Error::new(kiln_sys::Call::Write, name, e);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.scratch, name, flags, Mode::empty()).map_err(wrong)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest).map_err(wrong)?;
            rest = &rest[written..];
        }
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(wrong)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).map_err(wrong)?;
        drop(file);
        let tree = mount::open_tree(self.scratch.as_fd(), name, false)?;
        mount::set_attrs(tree.as_fd(), Attrs::SEALED.read_only(), false)?;
        Ok(tree)
    }
}

fn hierarchy(
    top: BorrowedFd<'_>,
    name: &str,
    kind: &str,
    flags: &[(&str, &str)],
    attrs: Attrs,
) -> kiln_sys::Result<()> {
    let point = rooted::plain_directory(top, name)
        .map_err(|e| kiln_sys::Error::new(kiln_sys::Call::Mkdir, name, e))?;
    let fs = mount::new_filesystem(kind, flags, attrs)?;
    mount::attach(fs.as_fd(), point.as_fd())
}

/// Opens a path of a kernel filesystem that was just mounted: no links, nothing mounted in between.
fn below(at: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;
    rustix::fs::openat2(
        at,
        path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

/// Puts a read-only clone of each path over itself. What does not exist is left out.
fn read_only_paths(at: BorrowedFd<'_>, paths: &[&str]) -> Result<(), Failure> {
    let step = Step::ReadOnlyPaths;
    for path in paths {
        let point = match below(at, path) {
            Ok(point) => point,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(Failure::new(step, format_args!("{path}: {e}"))),
        };
        let clone = mount::bind_detached(point.as_fd(), true, true).on(step, path)?;
        mount::attach(clone.as_fd(), point.as_fd()).on(step, path)?;
    }
    Ok(())
}
