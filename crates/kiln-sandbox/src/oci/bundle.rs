//! A bundle on disk: the root and the mounts of one run, attached in the daemon's mount namespace.

use crate::child::rooted::{Missing, Owner, open_or_make};
use crate::spec::{DeviceNode, MountKind, SandboxMount};
use kiln_sys::mount::{self, Attrs};
use rustix::fs::FileType;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// A mount as `config.json` names it.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) dest: PathBuf,
    pub(super) kind: &'static str,
    pub(super) source: PathBuf,
    pub(super) options: Vec<String>,
}

/// Where a device is shown, and which.
pub(super) type Device = (PathBuf, DeviceNode);

/// The directory of one run. Everything attached in it is detached and removed when dropped.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) dir: PathBuf,
    attached: Vec<OwnedFd>,
}

impl Bundle {
    pub(super) fn make(dir: PathBuf) -> io::Result<Bundle> {
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Bundle { dir, attached: Vec::new() })
    }

    /// Attaches the root and returns its path; makes the working directory, which the runtime would give to root.
    pub(super) fn attach_root(&mut self, root: OwnedFd, cwd: &Path, owner: Owner) -> io::Result<PathBuf> {
        let path = self.dir.join("rootfs");
        fs::create_dir(&path)?;
        open_or_make(root.as_fd(), cwd, Missing::Directory, Some(owner))?;
        self.attach(root, &path)?;
        Ok(path)
    }

    /// Devices are no mounts to the runtime, which makes them itself.
    pub(super) fn place(&mut self, mounts: Vec<SandboxMount>) -> io::Result<(Vec<Placed>, Vec<Device>)> {
        let mut files = None;
        let (mut placed, mut devices) = (Vec::new(), Vec::new());
        for (number, SandboxMount { dest, kind }) in mounts.into_iter().enumerate() {
            let (kind, source, options): (_, _, &[&str]) = match kind {
                MountKind::Bind { fd, read_only } => {
                    let source = self.bind(number, &fd)?;
                    ("bind", source, if read_only { &["bind", "ro"] } else { &["bind"] })
                }
                MountKind::Tmpfs { size, mode } => {
                    let mut options = vec!["nosuid".to_owned(), format!("mode={mode:o}")];
                    options.extend(size.map(|s| format!("size={s}")));
                    placed.push(Placed { dest, kind: "tmpfs", source: "tmpfs".into(), options });
                    continue;
                }
                MountKind::Device(node) => {
                    devices.push((dest, node));
                    continue;
                }
                MountKind::File { contents, mode, uid, gid } => {
                    let dir = match &files {
                        Some(dir) => dir,
                        None => files.insert(self.memory()?),
                    };
                    let path = dir.join(number.to_string());
                    write_file(&path, &contents, mode, uid, gid)?;
                    ("bind", path, &["bind", "ro", "nosuid", "nodev", "noexec"])
                }
            };
            let options = options.iter().map(|o| (*o).to_owned()).collect();
            placed.push(Placed { dest, kind, source, options });
        }
        Ok((placed, devices))
    }

    /// A directory in memory, so that secrets do not reach the disk.
    fn memory(&mut self) -> io::Result<PathBuf> {
        let path = self.dir.join("files");
        fs::create_dir(&path)?;
        self.attach(mount::new_filesystem("tmpfs", &[("mode", "0700")], Attrs::SEALED)?, &path)?;
        Ok(path)
    }

    fn bind(&mut self, number: usize, fd: &OwnedFd) -> io::Result<PathBuf> {
        let path = self.dir.join(format!("mount{number}"));
        if FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory {
            fs::create_dir(&path)?;
        } else {
            File::create_new(&path)?;
        }
        self.attach(mount::bind_detached(fd.as_fd(), false, false)?, &path)?;
        Ok(path)
    }

    fn attach(&mut self, tree: OwnedFd, path: &Path) -> io::Result<()> {
        mount::attach(tree.as_fd(), File::open(path)?.as_fd())?;
        self.attached.push(tree);
        Ok(())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for tree in self.attached.iter().rev() {
            if let Err(error) = mount::unmount(tree.as_fd()) {
                // Removing the directory would now empty what is still mounted in it.
                tracing::warn!(dir = %self.dir.display(), %error, "a bundle stays behind");
                return;
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "a bundle stays behind");
        }
    }
}

fn write_file(path: &Path, contents: &[u8], mode: u32, uid: u32, gid: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    fchown(&file, Some(uid), Some(gid))?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777))
}
