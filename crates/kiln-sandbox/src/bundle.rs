//! A bundle: `config.json`, root and mounts of one run, in the daemon's mount namespace, for programs that expect one:
//! OCI runtimes and hooks.

use crate::hooks::ROOTFS;
use crate::spec::{BindOptions, DeviceNode, MountKind, ProcessSpec, SandboxMount};
use kiln_sys::mount::{self, Attrs};
use rustix::fs::FileType;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// A mount as `config.json` names it.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) dest: PathBuf,
    pub(crate) kind: &'static str,
    pub(crate) source: PathBuf,
    pub(crate) options: Vec<String>,
}

/// Where a device is shown, and which.
pub(crate) type Device = (PathBuf, DeviceNode);

/// The directory of one run, in memory: the configuration holds the environment, in which secrets may be. Everything
/// attached in it is detached and removed when dropped.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    /// The first is the directory itself.
    attached: Vec<OwnedFd>,
}

/// Removes the directories of bundles that an earlier daemon left in `dir`; empty, because their mounts went with its
/// mount namespace. Others are left alone: something may still be mounted in them.
pub(crate) fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Err(error) = fs::remove_dir(entry.path()) {
            tracing::warn!(dir = %entry.path().display(), %error, "a bundle stays behind");
        }
    }
}

impl Bundle {
    pub(crate) fn make(dir: PathBuf) -> io::Result<Bundle> {
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let mut bundle = Bundle { dir: dir.clone(), attached: Vec::new() };
        bundle.attach(mount::new_filesystem("tmpfs", &[("mode", "0700")], Attrs::SEALED)?, &dir)?;
        Ok(bundle)
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.join(ROOTFS)
    }

    /// Attaches the root of the spec, in which a placeholder stays.
    pub(crate) fn attach_root(&mut self, spec: &mut ProcessSpec) -> io::Result<()> {
        let path = self.rootfs();
        fs::create_dir(&path)?;
        let placeholder = File::open("/dev/null")?.into();
        self.attach(std::mem::replace(&mut spec.root, placeholder), &path)
    }

    pub(crate) fn write_config(&self, config: &serde_json::Value) -> io::Result<()> {
        fs::write(self.dir.join("config.json"), serde_json::to_vec(config)?)
    }

    /// Puts what is to be mounted where the runtime finds it. Devices are no mounts to it: it makes them itself.
    pub(crate) fn place(&mut self, mounts: Vec<SandboxMount>) -> io::Result<(Vec<Placed>, Vec<Device>)> {
        let files = self.dir.join("files");
        fs::create_dir(&files)?;
        let (mut placed, mut devices) = (Vec::new(), Vec::new());
        for (number, SandboxMount { dest, kind }) in mounts.into_iter().enumerate() {
            let source = match &kind {
                MountKind::Bind { fd, options } => self.bind(number, fd, options.recursive)?,
                MountKind::File { contents, mode, uid, gid } => {
                    let path = files.join(number.to_string());
                    write_file(&path, contents, *mode, *uid, *gid)?;
                    path
                }
                MountKind::Tmpfs { .. } => "tmpfs".into(),
                MountKind::Device(node) => {
                    devices.push((dest, *node));
                    continue;
                }
            };
            placed.push(Placed::new(dest, &kind, source));
        }
        Ok((placed, devices))
    }

    fn bind(&mut self, number: usize, fd: &OwnedFd, recursive: bool) -> io::Result<PathBuf> {
        let path = self.dir.join(format!("mount{number}"));
        if FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory {
            fs::create_dir(&path)?;
        } else {
            File::create_new(&path)?;
        }
        self.attach(mount::bind_detached(fd.as_fd(), recursive, false)?, &path)?;
        Ok(path)
    }

    fn attach(&mut self, tree: OwnedFd, path: &Path) -> io::Result<()> {
        mount::attach(tree.as_fd(), File::open(path)?.as_fd())?;
        self.attached.push(tree);
        Ok(())
    }
}

impl Placed {
    fn new(dest: PathBuf, kind: &MountKind, source: PathBuf) -> Placed {
        let (kind, options) = match kind {
            MountKind::Bind { options, .. } => ("bind", bind_options(*options)),
            MountKind::Tmpfs { size, mode } => {
                let mut options = vec!["nosuid".to_owned(), format!("mode={mode:o}")];
                options.extend(size.map(|s| format!("size={s}")));
                ("tmpfs", options)
            }
            MountKind::File { .. } | MountKind::Device(_) => {
                ("bind", ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).into())
            }
        };
        Placed { dest, kind, source, options }
    }
}

/// The same as [`Bundle::place`] for a sandbox that gets its mounts from us: what hooks can read of them.
pub(crate) fn described(mounts: &[SandboxMount]) -> (Vec<Placed>, Vec<Device>) {
    let (mut placed, mut devices) = (Vec::new(), Vec::new());
    for SandboxMount { dest, kind } in mounts {
        let source = match kind {
            MountKind::Bind { fd, .. } => {
                fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
            }
            MountKind::Tmpfs { .. } | MountKind::File { .. } => "tmpfs".into(),
            MountKind::Device(node) => {
                devices.push((dest.clone(), *node));
                continue;
            }
        };
        placed.push(Placed::new(dest.clone(), kind, source));
    }
    (placed, devices)
}

fn bind_options(options: BindOptions) -> Vec<String> {
    let BindOptions { read_only, nosuid, nodev, noexec, recursive } = options;
    let bind = if recursive { "rbind" } else { "bind" };
    let flags = [("ro", read_only), ("nosuid", nosuid), ("nodev", nodev), ("noexec", noexec)];
    let flags = flags.into_iter().filter_map(|(name, set)| set.then_some(name));
    std::iter::once(bind).chain(flags).map(str::to_owned).collect()
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for tree in self.attached.iter().rev() {
            if let Err(error) = mount::unmount(tree.as_fd()) {
                tracing::warn!(dir = %self.dir.display(), %error, "a bundle stays behind");
                return;
            }
        }
        if let Err(error) = fs::remove_dir(&self.dir) {
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
