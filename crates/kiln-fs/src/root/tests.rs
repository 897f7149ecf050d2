use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::meta::FileTime;
use crate::testing::Host;

/// The ways to a file outside that a tree can offer.
fn plant_links(host: &Host) {
    let canary = host.tmp.path().join("canary");
    symlink(&canary, host.path("absolute")).unwrap();
    symlink("../canary", host.path("relative")).unwrap();
    symlink("../../../../../../../../../../etc", host.path("up")).unwrap();
    symlink(host.tmp.path(), host.path("outside")).unwrap();
    symlink("/proc/self/root", host.path("magic")).unwrap();
    symlink("loop-b", host.path("loop-a")).unwrap();
    symlink("loop-a", host.path("loop-b")).unwrap();
}

const ESCAPES: &[&str] = &[
    "absolute",
    "relative",
    "up/passwd",
    "outside/canary",
    "magic/etc/passwd",
    "../canary",
    "/../canary",
    "a/../../canary",
];

#[test]
fn nothing_outside_is_reached() {
    let host = Host::new();
    plant_links(&host);
    for path in ESCAPES {
        let e = host.root.open_file(path).unwrap_err();
        assert!(e.is_not_found(), "{path}: {e}");
        let by_hand = resolve::open_by_hand(host.root.as_fd(), Path::new(path), OFlags::PATH, Mode::empty());
        assert!(matches!(by_hand, Err(Errno::NOENT | Errno::NOTDIR)), "{path}: {by_hand:?}");
    }
    assert_eq!(host.root.open_file("loop-a").unwrap_err().errno(), Some(Errno::LOOP));
    for path in ESCAPES {
        // May make something inside or fail, but never outside.
        let _ = host.root.write_file(path, b"attack", 0o644);
        let _ = host.root.create_dir_all(path, 0o755, None, None);
        let _ = host.root.symlink("x", path);
        let _ = host.root.chmod(path, 0o777);
        let _ = host.root.remove_all(path);
        let _ = host.root.rename(path, "../moved");
    }
    host.assert_intact();
}

#[test]
fn links_resolve_as_in_a_chroot() {
    let host = Host::new();
    std::fs::create_dir_all(host.path("usr/lib")).unwrap();
    std::fs::write(host.path("usr/lib/file"), "inside").unwrap();
    symlink("/usr/lib", host.path("lib")).unwrap();
    symlink("../lib/file", host.path("usr/hop")).unwrap();
    symlink("../../../../usr/hop", host.path("usr/lib/far")).unwrap();
    for path in
        ["lib/file", "/lib/file", "usr/hop", "lib/far", "../../lib/../lib/file", "lib/../hop", "./lib//file"]
    {
        assert_eq!(host.root.read(path, 100).unwrap(), b"inside", "{path}");
        let fd =
            resolve::open_by_hand(host.root.as_fd(), Path::new(path), OFlags::RDONLY, Mode::empty()).unwrap();
        assert_eq!(at::fstat(fd.as_fd()).unwrap().size, 6, "{path}");
        assert_eq!(host.root.canonical(path, true).unwrap(), Path::new("/usr/lib/file"), "{path}");
    }
    assert_eq!(host.root.canonical("lib", false).unwrap(), Path::new("/lib"));
    assert_eq!(host.root.canonical("lib/new/../x/y", true).unwrap(), Path::new("/usr/lib/x/y"));
    assert_eq!(host.root.canonical("", true).unwrap(), Path::new("/"));
    assert_eq!(host.root.read_link("lib").unwrap(), Path::new("/usr/lib"));
    assert!(host.root.metadata("lib", false).unwrap().is_symlink());
    assert!(host.root.metadata("lib", true).unwrap().is_dir());
    assert_eq!(host.root.open_dir("lib").unwrap().read("file", 10).unwrap(), b"inside");
    assert_eq!(host.root.open_file("lib/file/x").unwrap_err().errno(), Some(Errno::NOTDIR));
}

#[test]
fn more_links_than_the_kernel_follows() {
    let host = Host::new();
    std::fs::write(host.path("l0"), "end").unwrap();
    for i in 1..=255 {
        symlink(format!("l{}", i - 1), host.path(&format!("l{i}"))).unwrap();
    }
    symlink("l255", host.path("l256")).unwrap();
    assert_eq!(host.root.read("l255", 10).unwrap(), b"end");
    assert_eq!(host.root.read("l256", 10).unwrap_err().errno(), Some(Errno::LOOP));
}

#[test]
fn bounded_paths() {
    let host = Host::new();
    let long = "a/".repeat(3000);
    assert_eq!(host.root.open_path(&long, true).unwrap_err().errno(), Some(Errno::NAMETOOLONG));
    assert!(host.root.create_dir_all(&long, 0o755, None, None).is_err());
    assert!(host.root.open_path("a\0b", true).is_err());
    // Many ".." in a deep tree walk from the top each time; the number of steps is limited.
    let deep = "d/".repeat(1000);
    host.root.create_dir_all(&deep, 0o755, None, None).unwrap();
    let zigzag = format!("{deep}{}", "../d/".repeat(200));
    let r = resolve::open_by_hand(host.root.as_fd(), Path::new(&zigzag), OFlags::PATH, Mode::empty());
    assert_eq!(r.unwrap_err(), Errno::LOOP);
    host.root.remove_all("d").unwrap();
    assert!(!host.root.exists("d", false).unwrap());
}

#[test]
fn directories_are_made_with_all_their_attributes() {
    let host = Host::new();
    symlink("/real/target", host.path("dangling")).unwrap();
    let time = FileTime { secs: 1_000_000_000, nanos: 5 };
    let made =
        host.root.create_dir_all("dangling/x/../y", 0o2750, Some((12, 34)), Some(time.into())).unwrap();
    // "x" is needed for its "..", as for the kernel.
    assert_eq!(made, ["/real", "/real/target", "/real/target/x", "/real/target/y"].map(PathBuf::from));
    let m = host.root.metadata("real/target/y", false).unwrap();
    assert_eq!((m.mode, m.uid, m.gid, m.mtime), (0o2750, 12, 34, time));
    assert!(host.root.create_dir_all("/real/target", 0o700, None, None).unwrap().is_empty());
    assert_eq!(host.root.metadata("real/target", false).unwrap().mode, 0o2750);
    std::fs::write(host.path("file"), "").unwrap();
    assert_eq!(
        host.root.create_dir_all("file/x", 0o755, None, None).unwrap_err().errno(),
        Some(Errno::NOTDIR)
    );
    assert_eq!(host.root.create_dir_all("file", 0o755, None, None).unwrap_err().errno(), Some(Errno::NOTDIR));
}

#[test]
fn files_are_written_through_links_inside_only() {
    let host = Host::new();
    symlink("/sub/real", host.path("link")).unwrap();
    assert!(host.root.write_file("link", b"x", 0o644).unwrap_err().is_not_found());
    host.root.create_dir("sub", 0o711).unwrap();
    host.root.write_file("link", b"long content", 0o600).unwrap();
    host.root.write_file("link", b"short", 0o644).unwrap();
    assert_eq!(host.root.read("sub/real", 100).unwrap(), b"short");
    assert_eq!(std::fs::metadata(host.path("sub/real")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(host.path("sub")).unwrap().permissions().mode() & 0o777, 0o711);
    assert_eq!(host.root.write_file("sub", b"", 0o644).unwrap_err().errno(), Some(Errno::ISDIR));
    assert!(matches!(host.root.read("sub/real", 4), Err(Error::TooLarge { limit: 4, .. })));
    host.root.hard_link("sub/real", "hard").unwrap();
    assert_eq!(host.root.metadata("hard", false).unwrap().nlink, 2);
}

#[test]
fn special_files_are_neither_read_nor_written_root() {
    let host = Host::new();
    host.root.mknod("fifo", FileKind::Fifo, 0o666, (0, 0)).unwrap();
    let mut special = vec!["fifo"];
    match host.root.mknod("null", FileKind::CharDevice, 0o666, (1, 3)) {
        Ok(()) => special.push("null"),
        Err(e) => eprintln!("skipped devices: {e}"),
    }
    for path in special {
        assert!(matches!(host.root.open_file(path), Err(Error::NotRegular { .. })), "{path}");
        assert!(matches!(host.root.write_file(path, b"", 0), Err(Error::NotRegular { .. })), "{path}");
        assert_eq!(host.root.metadata(path, false).unwrap().mode, 0o666);
    }
    assert_eq!(host.root.open_file("/").unwrap_err().errno(), Some(Errno::ISDIR));
}

#[test]
fn removal_follows_no_link() {
    let host = Host::new();
    std::fs::create_dir_all(host.path("a/b/c")).unwrap();
    std::fs::write(host.path("a/b/file"), "").unwrap();
    symlink(host.tmp.path(), host.path("a/out")).unwrap();
    symlink("..", host.path("a/b/up")).unwrap();
    host.root.remove_all("a").unwrap();
    host.root.remove_all("a").unwrap();
    host.root.remove_all("no/such/parent").unwrap();
    host.assert_intact();
    assert!(host.root.read_dir("/").unwrap().is_empty());

    std::fs::create_dir_all(host.path("x/y")).unwrap();
    assert!(host.root.remove("x").is_err());
    host.root.remove("x/y").unwrap();
    host.root.remove("x").unwrap();
    // Every way to write the root empties it and does not touch its parent.
    for root in ["/", ".", "..", "../..", "a/../.."] {
        std::fs::create_dir_all(host.path("x/y")).unwrap();
        host.root.remove_all(root).unwrap();
        assert!(host.root.read_dir("/").unwrap().is_empty(), "{root}");
        host.assert_intact();
    }
}

#[test]
fn attributes_of_links_are_their_own_root() {
    let host = Host::new();
    std::fs::write(host.path("file"), "").unwrap();
    symlink("file", host.path("link")).unwrap();
    let before = host.root.metadata("file", false).unwrap();
    let t = FileTime { secs: -5, nanos: 7 };
    host.root.chown("link", 5, 6).unwrap();
    host.root.utimens("link", t, t).unwrap();
    let link = host.root.metadata("link", false).unwrap();
    assert_eq!((link.uid, link.gid, link.mtime), (5, 6, t));
    let after = host.root.metadata("file", false).unwrap();
    assert_eq!((before.uid, before.mtime), (after.uid, after.mtime));
    assert_eq!(host.root.chmod("link", 0o777).unwrap_err().errno(), Some(Errno::OPNOTSUPP));
    host.root.chmod("file", 0o4711).unwrap();
    assert_eq!(host.root.metadata("file", false).unwrap().mode, 0o4711);

    if host.root.set_xattr("file", "trusted.kiln", b"a\0b").is_err() {
        eprintln!("skipped: no trusted attributes here");
        return;
    }
    host.root.set_xattr("link", "trusted.kiln", b"link").unwrap();
    host.root.set_xattr("file", "trusted.empty", b"").unwrap();
    host.root.set_xattr("file", "trusted.long", &[7; 1000]).unwrap();
    assert_eq!(host.root.get_xattr("file", "trusted.kiln").unwrap().unwrap(), b"a\0b");
    assert_eq!(host.root.get_xattr("file", "trusted.none").unwrap(), None);
    let all = host.root.xattrs("file").unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["trusted.empty", "trusted.kiln", "trusted.long"]);
    assert_eq!(all[OsStr::new("trusted.long")].len(), 1000);
    host.root.remove_xattr("file", "trusted.kiln").unwrap();
    host.root.remove_xattr("file", "trusted.kiln").unwrap();
    assert_eq!(host.root.xattrs("link").unwrap().len(), 1);
}

/// A directory is swapped with a link to the outside as fast as another thread can, while files are read and written
/// below it.
#[test]
fn a_racer_cannot_lead_us_out() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("canary"), "host").unwrap();
    std::fs::create_dir(host.path("dir")).unwrap();
    std::fs::write(host.path("dir/canary"), "image").unwrap();
    symlink(outside.path(), host.path("evil")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, host.path("dir"), cwd, host.path("evil"), exchange).unwrap();
            }
        });
        for i in 0..3000 {
            if let Ok(bytes) = host.root.read("dir/canary", 100) {
                assert_eq!(bytes, b"image");
            }
            let hand = resolve::open_by_hand(
                host.root.as_fd(),
                Path::new("dir/canary"),
                OFlags::RDONLY,
                Mode::empty(),
            );
            if let Ok(fd) = hand {
                assert_eq!(at::fstat(fd.as_fd()).unwrap().size, 5);
            }
            let _ = host.root.write_file("dir/new", b"x", 0o644);
            let _ = host.root.remove_all(format!("dir/none{i}"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}
