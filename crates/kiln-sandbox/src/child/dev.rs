//! `/dev`: a filesystem in memory with the few devices a container has, and the terminal.

use super::At;
use super::mounts::Tree;
use super::rooted;
use crate::error::Step;
use crate::spec::TerminalSize;
use crate::wire::{Devices, Failure, Reply};
use kiln_sys::mount::{self, Attrs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Name, major and minor number of the devices every container has.
const STANDARD: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Further ones in an insecure step, as BuildKit adds them; loop devices come on top.
const INSECURE: &[(&str, u32, u32)] =
    &[("kmsg", 1, 11), ("cuse", 10, 203), ("fuse", 10, 229), ("kvm", 10, 232), ("loop-control", 10, 237)];

const LOOP_MAJOR: u32 = 7;

/// Links every container has.
const LINKS: &[(&str, &str)] = &[
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// One more where the kernel has the file.
const CORE: (&str, &str) = ("core", "/proc/kcore");

/// What `/dev` gives to the later steps.
pub(super) struct Made {
    /// A checked handle of `/dev/null`.
    pub(super) null: OwnedFd,
    /// The inner side of the terminal.
    pub(super) terminal: Option<OwnedFd>,
}

/// Mounts `/dev` and what belongs below it; `proc` is the root of the new procfs.
pub(super) fn mount(tree: &Tree<'_>, proc: BorrowedFd<'_>, reply: BorrowedFd<'_>) -> Result<Made, Failure> {
    let nodev = tree.sandbox.devices == Devices::NoDev;
    let options = [("mode", "0755"), ("size", "65536k")];
    let attrs = Attrs { nosuid: true, nodev, ..Attrs::default() };
    let dev = tree.standard("dev", "tmpfs", &options, attrs, Step::Dev)?;
    devices(tree, dev.as_fd())?;
    let core = rustix::fs::statat(proc, "kcore", AtFlags::SYMLINK_NOFOLLOW).is_ok().then_some(&CORE);
    for (name, target) in LINKS.iter().chain(core) {
        rustix::fs::symlinkat(*target, &dev, *name).on(Step::Dev, name)?;
    }
    let null = checked_null(dev.as_fd())?;

    let pts = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let attrs = Attrs { nosuid: true, noexec: true, ..Attrs::default() };
    let pts = inside(dev.as_fd(), "pts", "devpts", &pts, attrs)?;
    let size = tree.sandbox.shm_size.to_string();
    inside(dev.as_fd(), "shm", "tmpfs", &[("mode", "1777"), ("size", &size)], Attrs::SEALED)?;
    inside(dev.as_fd(), "mqueue", "mqueue", &[], Attrs::SEALED)?;
    let terminal = match tree.program.tty {
        Some(size) => Some(terminal(dev.as_fd(), pts.as_fd(), size, reply)?),
        None => None,
    };
    Ok(Made { null, terminal })
}

fn inside(
    dev: BorrowedFd<'_>,
    name: &str,
    kind: &str,
    options: &[(&str, &str)],
    attrs: Attrs,
) -> Result<OwnedFd, Failure> {
    let point = rooted::plain_directory(dev, name).on(Step::Dev, name)?;
    let fs = mount::new_filesystem(kind, options, attrs).on(Step::Dev, name)?;
    mount::attach(fs.as_fd(), point.as_fd()).on(Step::Dev, name)?;
    Ok(fs)
}

fn devices(tree: &Tree<'_>, dev: BorrowedFd<'_>) -> Result<(), Failure> {
    let step = Step::Devices;
    match tree.sandbox.devices {
        Devices::Filtered => {
            for (name, major, minor) in STANDARD {
                node(dev, name, FileType::CharacterDevice, *major, *minor).on(step, name)?;
            }
        }
        // Everything is mounted nodev; each device is a mount of its own that is not.
        Devices::NoDev => {
            for (name, major, minor) in STANDARD {
                node(tree.scratch.as_fd(), name, FileType::CharacterDevice, *major, *minor).on(step, name)?;
                let source = mount::open_tree(tree.scratch.as_fd(), name, false).on(step, name)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(dev, *name, flags, Mode::empty()).on(step, name)?;
                let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let point = rustix::fs::openat(dev, *name, path, Mode::empty()).on(step, name)?;
                mount::attach(source.as_fd(), point.as_fd()).on(step, name)?;
            }
        }
        Devices::All { loops } => {
            for (name, major, minor) in STANDARD.iter().chain(INSECURE) {
                node(dev, name, FileType::CharacterDevice, *major, *minor).on(step, name)?;
            }
            for number in 0..loops {
                let name = format!("loop{number}");
                node(dev, &name, FileType::BlockDevice, LOOP_MAJOR, number).on(step, &name)?;
            }
            let net = rooted::plain_directory(dev, "net").on(step, "net")?;
            node(net.as_fd(), "tun", FileType::CharacterDevice, 10, 200).on(step, "net/tun")?;
        }
    }
    Ok(())
}

fn node(at: BorrowedFd<'_>, name: &str, kind: FileType, major: u32, minor: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(at, name, kind, mode, rustix::fs::makedev(major, minor))
}

/// Opens `/dev/null` and makes sure it is that: it is going to cover the masked paths.
fn checked_null(dev: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let step = Step::Devices;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::openat(dev, "null", flags, Mode::empty()).on(step, "null")?;
    let stat = rustix::fs::fstat(&null).on(step, "null")?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3) {
        Ok(null)
    } else {
        Err(Failure::new(step, "/dev/null is not the null device"))
    }
}

/// Makes a terminal in the new instance of devpts, shows its inner side as `/dev/console` and sends the
/// outer side to the daemon.
fn terminal(
    dev: BorrowedFd<'_>,
    pts: BorrowedFd<'_>,
    size: TerminalSize,
    reply: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let step = Step::Terminal;
    let slave = open_terminal(pts, size, reply)?;
    let stub = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dev, "console", stub, Mode::empty()).on(step, "console")?;
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = rustix::fs::openat(dev, "console", path, Mode::empty()).on(step, "console")?;
    let console = mount::open_tree(slave.as_fd(), "", false).on(step, "console")?;
    mount::attach(console.as_fd(), point.as_fd()).on(step, "console")?;
    Ok(slave)
}

/// Makes a terminal in a devpts, sends its outer side to the daemon and returns the inner one.
pub(super) fn open_terminal(
    pts: BorrowedFd<'_>,
    size: TerminalSize,
    reply: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let step = Step::Terminal;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(pts, "ptmx", flags, Mode::empty()).on(step, "ptmx")?;
    rustix::pty::unlockpt(&master).on(step, "unlock")?;
    let slave_flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, slave_flags).on(step, "peer")?;
    rustix::termios::tcsetwinsize(&slave, size.winsize()).on(step, "size")?;
    let packet = serde_json::to_vec(&Reply::Terminal).at(step)?;
    kiln_sys::socket::send(reply, &packet, &[master.as_fd()], true).at(step)?;
    Ok(slave)
}
