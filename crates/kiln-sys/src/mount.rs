//! Mounts by descriptor: a mount is made detached, checked and adjusted, and only then attached.
//!
//! A detached mount disappears with its last descriptor, so nothing is left behind by an early return.

use crate::error::{Call, Error, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Attributes of one mount (not of its filesystem), see mount_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Nothing can be written through this mount.
    pub read_only: bool,
    /// Set-user-id bits and file capabilities do not count.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

impl Attrs {
    /// No set-id, no devices, no execution; writable.
    pub const SEALED: Attrs = Attrs { read_only: false, nosuid: true, nodev: true, noexec: true };

    /// The same attributes, read-only.
    pub const fn read_only(mut self) -> Attrs {
        self.read_only = true;
        self
    }

    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.nosuid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.nodev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.noexec);
        flags
    }
}

/// Makes a new filesystem of type `kind` and returns it as a detached mount.
///
/// `options` are key and value; an empty value sets a flag. A value may be at most 255 bytes: the kernel
/// refuses longer ones in fsconfig(2). Needs `CAP_SYS_ADMIN` in the mount namespace's user namespace.
pub fn new_filesystem(kind: &str, options: &[(&str, &str)], attrs: Attrs) -> Result<OwnedFd> {
    let fs = fs_open(kind)?;
    // The source is what /proc/mounts shows in its first column.
    set_string(fs.as_fd(), "source", kind)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), *key)
                .map_err(|e| Error::new(Call::FsConfig, format!("{kind} {key}"), e))?;
        } else {
            set_string(fs.as_fd(), key, value)?;
        }
    }
    finish(fs, kind, attrs)
}

fn fs_open(kind: &str) -> Result<OwnedFd> {
    rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| Error::new(Call::FsOpen, kind, e))
}

fn set_string(fs: BorrowedFd<'_>, key: &str, value: &str) -> Result<()> {
    rustix::mount::fsconfig_set_string(fs, key, value)
        .map_err(|e| Error::new(Call::FsConfig, format!("{key}={value}"), e))
}

fn finish(fs: OwnedFd, kind: &str, attrs: Attrs) -> Result<OwnedFd> {
    rustix::mount::fsconfig_create(fs.as_fd())
        .map_err(|e| Error::new(Call::FsConfig, format!("create {kind}"), e))?;
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attrs.flags())
        .map_err(|e| Error::new(Call::FsMount, kind, e))
}

/// A directory that takes part in an overlay.
#[derive(Debug, Clone, Copy)]
pub enum Dir<'a> {
    /// An open directory (`O_PATH` is enough).
    Fd(BorrowedFd<'a>),
    /// A path in the caller's mount namespace; opened once, when the overlay is made.
    Path(&'a Path),
}

impl<'a> From<&'a Path> for Dir<'a> {
    fn from(path: &'a Path) -> Self {
        Dir::Path(path)
    }
}

impl<'a> From<&'a PathBuf> for Dir<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Dir::Path(path)
    }
}

impl<'a> From<&'a OwnedFd> for Dir<'a> {
    fn from(fd: &'a OwnedFd) -> Self {
        Dir::Fd(fd.as_fd())
    }
}

/// Keeps an opened directory alive as long as its number is written into an option.
enum Held<'a> {
    Given(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl Held<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Held::Given(fd) => *fd,
            Held::Opened(fd) => fd.as_fd(),
        }
    }

    /// A name for the directory short enough for every option limit, whatever its real path is.
    fn short(&self) -> String {
        format!("/proc/self/fd/{}", self.fd().as_raw_fd())
    }
}

impl<'a> Dir<'a> {
    fn hold(self) -> Result<Held<'a>> {
        match self {
            Dir::Fd(fd) => Ok(Held::Given(fd)),
            Dir::Path(path) => open_dir(CWD, path.as_os_str()).map(Held::Opened),
        }
    }
}

/// How an overlay is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct OverlayOptions<'a> {
    /// Keep overlay's own marks in `user.*` instead of `trusted.*` attributes (needed in a user namespace).
    pub userxattr: bool,
    /// Never sync the upper directory: a crash may lose it, which is fine for a step that did not finish.
    pub volatile: bool,
    /// Attributes of the resulting mount.
    pub attrs: Attrs,
    /// A directory in which a mount point may be made for a moment; only kernels before 6.7 need it.
    pub scratch: Option<&'a Path>,
}

/// Makes an overlay of `lower` (topmost first) and returns it as a detached mount.
///
/// `writable` is the upper and the work directory, on one filesystem; without it the mount is read-only
/// and `lower` needs at least two entries (overlayfs refuses a single one).
/// `redirect_dir` and `metacopy` are off, so that the upper directory alone describes the difference.
///
/// Kernels before 6.7 have no `lowerdir+`; there mount(2) is used, with the layers named by descriptor
/// number, which allows about 200 of them in the one page the kernel reads.
pub fn overlay(
    lower: &[Dir<'_>],
    writable: Option<(Dir<'_>, Dir<'_>)>,
    options: &OverlayOptions<'_>,
) -> Result<OwnedFd> {
    let lower = lower.iter().map(|d| d.hold()).collect::<Result<Vec<_>>>()?;
    let writable = match writable {
        Some((upper, work)) => Some((upper.hold()?, work.hold()?)),
        None => None,
    };
    match overlay_new_api(&lower, writable.as_ref(), options) {
        // An unknown key is EINVAL; the old way then gives the final word.
        Err(e) if e.errno == Errno::INVAL && options.scratch.is_some() => {
            overlay_old_api(&lower, writable.as_ref(), options).map_err(|_| e)
        }
        other => other,
    }
}

fn overlay_new_api(
    lower: &[Held<'_>],
    writable: Option<&(Held<'_>, Held<'_>)>,
    options: &OverlayOptions<'_>,
) -> Result<OwnedFd> {
    let fs = fs_open("overlay")?;
    set_string(fs.as_fd(), "source", "overlay")?;
    for dir in lower {
        set_string(fs.as_fd(), "lowerdir+", &dir.short())?;
    }
    if let Some((upper, work)) = writable {
        set_string(fs.as_fd(), "upperdir", &upper.short())?;
        set_string(fs.as_fd(), "workdir", &work.short())?;
    }
    for (key, value) in overlay_extras(writable.is_some(), options) {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), key)
                .map_err(|e| Error::new(Call::FsConfig, format!("overlay {key}"), e))?;
        } else {
            set_string(fs.as_fd(), key, value)?;
        }
    }
    finish(fs, "overlay", options.attrs)
}

/// The options both interfaces share. The kernel's compiled-in defaults vary by distribution, so they
/// are always written out.
fn overlay_extras(writable: bool, options: &OverlayOptions<'_>) -> Vec<(&'static str, &'static str)> {
    let mut extras = vec![("index", "off"), ("metacopy", "off")];
    if options.userxattr {
        extras.push(("userxattr", ""));
    } else {
        // In a user namespace the kernel fixes it to off by itself and refuses the key beside userxattr.
        extras.push(("redirect_dir", "off"));
    }
    if options.volatile && writable {
        extras.push(("volatile", ""));
    }
    extras
}

fn overlay_old_api(
    lower: &[Held<'_>],
    writable: Option<&(Held<'_>, Held<'_>)>,
    options: &OverlayOptions<'_>,
) -> Result<OwnedFd> {
    let scratch = options.scratch.ok_or_else(|| Error::new(Call::Mount, "overlay scratch", Errno::NOENT))?;
    let data = overlay_data(lower, writable, options);
    let data = CString::new(data).map_err(|_| Error::new(Call::Mount, "overlay", Errno::INVAL))?;
    let point = MountPoint::make(scratch)?;
    rustix::mount::mount("overlay", point.path(), "overlay", MountFlags::empty(), Some(data.as_c_str()))
        .map_err(|e| Error::new(Call::Mount, "overlay", e))?;
    let detached = open_tree(point.parent.as_fd(), &point.name, false);
    unmount_at(point.parent.as_fd(), &point.name)?;
    let detached = detached?;
    set_attrs(detached.as_fd(), options.attrs, false)?;
    Ok(detached)
}

fn overlay_data(
    lower: &[Held<'_>],
    writable: Option<&(Held<'_>, Held<'_>)>,
    options: &OverlayOptions<'_>,
) -> String {
    let names: Vec<String> = lower.iter().map(Held::short).collect();
    let mut data = format!("lowerdir={}", names.join(":"));
    if let Some((upper, work)) = writable {
        data.push_str(&format!(",upperdir={},workdir={}", upper.short(), work.short()));
    }
    for (key, value) in overlay_extras(writable.is_some(), options) {
        data.push(',');
        data.push_str(key);
        if !value.is_empty() {
            data.push('=');
            data.push_str(value);
        }
    }
    data
}

/// A directory that exists only while something is mounted on it and cloned away again.
struct MountPoint {
    parent: OwnedFd,
    name: String,
}

impl MountPoint {
    fn make(scratch: &Path) -> Result<MountPoint> {
        let parent = open_dir(CWD, scratch.as_os_str())?;
        for attempt in 0..64u32 {
            let nonce = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| d.subsec_nanos());
            let name = format!(".mnt-{}-{nonce}-{attempt}", std::process::id());
            match rustix::fs::mkdirat(&parent, name.as_str(), Mode::RWXU) {
                Ok(()) => return Ok(MountPoint { parent, name }),
                Err(Errno::EXIST) => continue,
                Err(e) => return Err(Error::new(Call::Mkdir, scratch.display().to_string(), e)),
            }
        }
        Err(Error::new(Call::Mkdir, scratch.display().to_string(), Errno::EXIST))
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}/{}", self.parent.as_raw_fd(), self.name)
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.parent, self.name.as_str(), AtFlags::REMOVEDIR);
    }
}

fn open_dir(at: BorrowedFd<'_>, path: &OsStr) -> Result<OwnedFd> {
    rustix::fs::openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::new(Call::Open, path.to_string_lossy(), e))
}

/// Clones the mount below `fd` (a directory or file handle) as a detached bind mount.
///
/// `recursive` also clones what is mounted below it. `read_only` makes the clone (all of it) read-only.
/// The kernel wants `fd` to lie in a mount of the caller's own mount namespace; clones of a detached mount
/// are only possible since Linux 6.15.
pub fn bind_detached(fd: BorrowedFd<'_>, recursive: bool, read_only: bool) -> Result<OwnedFd> {
    let tree = open_tree(fd, "", recursive)?;
    if read_only {
        set_attrs(tree.as_fd(), Attrs { read_only, ..Attrs::default() }, recursive)?;
    }
    Ok(tree)
}

/// Clones the mount at `name` below `at` (`name` empty: `at` itself) as a detached mount.
///
/// The last component is not followed when it is a symbolic link.
pub fn open_tree(at: BorrowedFd<'_>, name: &str, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, name.is_empty());
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(at, name, flags).map_err(|e| Error::new(Call::OpenTree, name, e))
}

/// Attaches the detached mount `mount` on top of `at`, a directory (or file, for a file mount) handle.
///
/// A mount can be attached once. The kernel refuses a target outside the caller's mount namespace, and a
/// file over a directory or the other way round (ENOTDIR). `mount` stays usable as a handle of its root.
pub fn attach(mount: BorrowedFd<'_>, at: BorrowedFd<'_>) -> Result<()> {
    rustix::mount::move_mount(
        mount,
        "",
        at,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .map_err(|e| Error::new(Call::MoveMount, "", e))
}

/// Unmounts what is mounted on `name` below the directory `at`; still open files keep working.
///
/// `name` is one component and is not followed when it is a symbolic link.
pub fn unmount_at(at: BorrowedFd<'_>, name: &str) -> Result<()> {
    // umount2 takes no directory descriptor; the magic link stands in for it.
    let path = format!("/proc/self/fd/{}/{name}", at.as_raw_fd());
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(|e| Error::new(Call::Umount, name, e))
}

/// Unmounts the mount whose root `mount` is; still open files keep working.
///
/// Works for an attached mount only: a detached one goes with its descriptor (EINVAL here).
pub fn unmount(mount: BorrowedFd<'_>) -> Result<()> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    rustix::mount::unmount(path, UnmountFlags::DETACH).map_err(|e| Error::new(Call::Umount, "", e))
}

/// Makes `root`, an attached mount, the process's `/` and current directory, and detaches the old tree.
///
/// EINVAL when the present root is the kernel's initial ramfs or mounts propagate out of it (pivot_root(2)).
pub fn change_root(root: BorrowedFd<'_>) -> Result<()> {
    let wrong = |call, what: &'static str| move |e| Error::new(call, what, e);
    rustix::process::fchdir(root).map_err(wrong(Call::PivotRoot, "(entering the new root)"))?;
    // With the same directory twice the old root ends up on top of the new one, where `.` finds it.
    rustix::process::pivot_root(".", ".").map_err(wrong(Call::PivotRoot, ""))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(wrong(Call::Umount, "of the old root"))?;
    rustix::process::chdir("/").map_err(wrong(Call::PivotRoot, "(entering the new root)"))
}

/// The kernel's `struct mount_attr`, see mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Adds `attrs` to the mount `mount` (attributes that are off here are left as they are).
///
/// EPERM when an attribute is locked by a more privileged user namespace.
pub fn set_attrs(mount: BorrowedFd<'_>, attrs: Attrs, recursive: bool) -> Result<()> {
    let attr = MountAttr { attr_set: u64::from(attrs.flags().bits()), ..MountAttr::default() };
    setattr(mount, &attr, recursive)
}

/// Makes the mount tree at `mount` private: nothing propagates in or out.
pub fn set_private(mount: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let attr = MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() };
    setattr(mount, &attr, recursive)
}

fn setattr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant, `attr` points to a live mount_attr whose size is
    // passed with it, and the kernel only reads both.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if ret == 0 { Ok(()) } else { Err(Error::last(Call::MountSetattr, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Dir as Listing;
    use std::fs;

    fn root() -> bool {
        let missing = crate::caps::missing_for_build();
        if !missing.is_empty() {
            eprintln!("SKIPPED a mount test: missing {}", missing.join(", "));
        }
        missing.is_empty()
    }

    struct Layers {
        dir: tempfile::TempDir,
        lower: Vec<PathBuf>,
    }

    fn layers(count: usize) -> Layers {
        let dir = tempfile::tempdir().unwrap();
        let lower: Vec<PathBuf> = (0..count).map(|i| dir.path().join(format!("l{i}"))).collect();
        for (i, path) in lower.iter().enumerate() {
            fs::create_dir(path).unwrap();
            fs::write(path.join(format!("f{i}")), "x").unwrap();
            fs::write(path.join("same"), i.to_string()).unwrap();
        }
        for name in ["upper", "work", "scratch", "at"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Layers { dir, lower }
    }

    fn read(mount: &OwnedFd, name: &str) -> rustix::io::Result<String> {
        let fd = rustix::fs::openat(mount, name, OFlags::RDONLY, Mode::empty())?;
        let mut buf = [0; 64];
        let n = rustix::io::read(&fd, &mut buf)?;
        Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
    }

    fn create(mount: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(mount, name, OFlags::WRONLY | OFlags::CREATE, Mode::RUSR)
    }

    #[test]
    fn root_overlay_stacks_layers_topmost_first() {
        if !root() {
            return;
        }
        let l = layers(60);
        let dirs: Vec<Dir<'_>> = l.lower.iter().map(Dir::from).collect();
        let (upper, work) = (l.dir.path().join("upper"), l.dir.path().join("work"));
        let writable = Some((Dir::from(&upper), Dir::from(&work)));
        let mount = overlay(&dirs, writable, &OverlayOptions::default()).unwrap();
        assert_eq!(read(&mount, "same").unwrap(), "0");
        assert_eq!(read(&mount, "f59").unwrap(), "x");
        drop(create(&mount, "new").unwrap());
        assert!(upper.join("new").exists());
        drop(mount);
        // A detached mount leaves nothing behind that keeps the directories busy.
        let again = overlay(&dirs, Some((Dir::from(&upper), Dir::from(&work))), &OverlayOptions::default());
        assert_eq!(read(&again.unwrap(), "new").unwrap(), "");
    }

    #[test]
    fn root_overlay_by_the_old_interface_gives_the_same() {
        if !root() {
            return;
        }
        let l = layers(3);
        let held: Vec<Held<'_>> = l.lower.iter().map(|p| Dir::from(p).hold().unwrap()).collect();
        let scratch = l.dir.path().join("scratch");
        let options = OverlayOptions {
            scratch: Some(&scratch),
            attrs: Attrs { nodev: true, ..Attrs::default() },
            ..OverlayOptions::default()
        };
        let mount = overlay_old_api(&held, None, &options).unwrap();
        assert_eq!(read(&mount, "same").unwrap(), "0");
        assert_eq!(read(&mount, "f2").unwrap(), "x");
        assert_eq!(create(&mount, "new").unwrap_err(), Errno::ROFS);
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    }

    #[test]
    fn root_attached_mounts_are_seen_and_go_again() {
        if !root() {
            return;
        }
        let l = layers(1);
        let source = open_dir(CWD, l.lower[0].as_os_str()).unwrap();
        let at = l.dir.path().join("at");
        let parent = open_dir(CWD, l.dir.path().as_os_str()).unwrap();
        let clone = bind_detached(source.as_fd(), false, true).unwrap();
        attach(clone.as_fd(), open_dir(CWD, at.as_os_str()).unwrap().as_fd()).unwrap();
        assert!(at.join("f0").exists());
        assert!(fs::write(at.join("g"), "").is_err());
        unmount_at(parent.as_fd(), "at").unwrap();
        assert!(!at.join("f0").exists());
        assert_eq!(unmount_at(parent.as_fd(), "at").unwrap_err().errno, Errno::INVAL);

        let clone = bind_detached(source.as_fd(), false, false).unwrap();
        attach(clone.as_fd(), open_dir(CWD, at.as_os_str()).unwrap().as_fd()).unwrap();
        fs::write(at.join("g"), "").unwrap();
        unmount(clone.as_fd()).unwrap();
        assert!(!at.join("g").exists() && l.lower[0].join("g").exists());
    }

    #[test]
    fn root_new_filesystems_take_options_and_attributes() {
        if !root() {
            return;
        }
        let attrs = Attrs::SEALED.read_only();
        let fs = new_filesystem("tmpfs", &[("mode", "0700"), ("size", "64k")], attrs).unwrap();
        assert_eq!(create(&fs, "x").unwrap_err(), Errno::ROFS);
        assert_eq!(rustix::fs::fstat(&fs).unwrap().st_mode & 0o7777, 0o700);
        let list = rustix::fs::openat(&fs, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(Listing::new(list).unwrap().count(), 2);
        let error = new_filesystem("tmpfs", &[("nonsense", "1")], attrs).unwrap_err();
        assert_eq!((error.call, error.subject.as_str()), (Call::FsConfig, "nonsense=1"));
        assert_eq!(new_filesystem("no-such-fs", &[], attrs).unwrap_err().errno, Errno::NODEV);
    }

    #[test]
    fn errors_name_call_object_and_answer() {
        let error = Error::new(Call::MoveMount, "", Errno::INVAL);
        assert_eq!(error.to_string(), "move_mount: Invalid argument (os error 22)");
        let error = Error::new(Call::FsOpen, "overlay", Errno::PERM);
        assert_eq!(error.to_string(), "fsopen overlay: Operation not permitted (os error 1)");
    }
}
