use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::meta::{FileKind, FileTime};
use crate::tar::{Entry, Writer};
use crate::testing::{Host, listing};
use crate::walk::{Step, walk};

const OVERLAY: LayerOptions<'static> =
    LayerOptions { whiteouts: Whiteouts::Overlay { user_xattr: false }, parents: &[] };
const DELETE: LayerOptions<'static> = LayerOptions { whiteouts: Whiteouts::Delete, parents: &[] };

impl Host {
    fn layer(&self, options: LayerOptions<'_>, archive: &Archive) -> Result<Unpacked, UnpackError> {
        apply_layer(&archive.bytes()[..], &self.root, options)
    }

    fn add(&self, archive: &Archive) -> Result<Unpacked, UnpackError> {
        unpack_archive(&archive.bytes()[..], &self.root, ArchiveOptions::default())
    }

    fn tree(&self) -> Vec<String> {
        listing(&self.root)
    }
}

#[derive(Default)]
struct Archive(Vec<(Entry, Vec<u8>)>);

impl Archive {
    fn add(mut self, path: impl AsRef<Path>, kind: EntryKind, data: &str) -> Archive {
        let mut e = Entry::new(path.as_ref(), kind);
        e.mode = if kind == EntryKind::Dir { 0o755 } else { 0o644 };
        e.mtime = FileTime { secs: 1_600_000_000, nanos: 0 };
        let content = match kind {
            EntryKind::Symlink | EntryKind::HardLink => {
                e.link = data.into();
                ""
            }
            _ => data,
        };
        e.size = content.len() as u64;
        self.0.push((e, content.as_bytes().to_vec()));
        self
    }

    fn file(self, path: &str, data: &str) -> Archive {
        self.add(path, EntryKind::File, data)
    }

    fn dir(self, path: &str) -> Archive {
        self.add(path, EntryKind::Dir, "")
    }

    fn link(self, path: &str, to: &str) -> Archive {
        self.add(path, EntryKind::Symlink, to)
    }

    fn hard(self, path: &str, to: &str) -> Archive {
        self.add(path, EntryKind::HardLink, to)
    }

    fn last(mut self, change: impl FnOnce(&mut Entry)) -> Archive {
        change(&mut self.0.last_mut().unwrap().0);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut w = Writer::new(Vec::new());
        for (e, data) in &self.0 {
            w.append(e, &data[..]).unwrap();
        }
        w.finish().unwrap()
    }
}

fn archive() -> Archive {
    Archive::default()
}

#[test]
fn everything_an_entry_says_is_kept_root() {
    let host = Host::new();
    let t = FileTime { secs: 1_500_000_000, nanos: 123_456_789 };
    let a = archive()
        .dir("d/")
        .last(|e| (e.mode, e.uid, e.gid, e.mtime) = (0o1777, 5, 6, t))
        .file("d/f", "data")
        .last(|e| {
            (e.mode, e.uid, e.gid, e.mtime) = (0o4751, 3_000_000, 7, t);
            e.xattrs.insert(
                "security.capability".into(),
                b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
            );
            e.xattrs.insert("user.empty".into(), Vec::new());
            e.xattrs.insert("trusted.overlay.redirect".into(), b"/etc".to_vec());
            e.xattrs.insert("user.overlay.redirect".into(), b"/etc".to_vec());
        })
        .link("d/l", "/etc/passwd")
        .last(|e| (e.uid, e.gid, e.mtime) = (8, 9, t))
        .hard("d/h", "d/f")
        .last(|e| (e.mode, e.uid, e.gid, e.mtime) = (0o4751, 3_000_000, 7, t))
        .add("d/fifo", EntryKind::Fifo, "")
        .add("d/null", EntryKind::CharDevice, "")
        .last(|e| (e.mode, e.rdev) = (0o666, (1, 3)))
        .file("old", "")
        .last(|e| e.mtime = FileTime { secs: -5, nanos: 0 });
    assert_eq!(host.layer(OVERLAY, &a).unwrap(), Unpacked { entries: 7, bytes: 4 });
    let m = |p: &str| host.root.metadata(p, false).unwrap();
    let d = m("d");
    assert_eq!(
        (d.mode, d.uid, d.gid, d.mtime),
        (0o1777, 5, 6, t),
        "times of directories survive their content"
    );
    let f = m("d/f");
    assert_eq!((f.mode, f.uid, f.gid, f.mtime, f.nlink), (0o4751, 3_000_000, 7, t, 2));
    assert_eq!(f.ino, m("d/h").ino);
    let l = m("d/l");
    assert_eq!((l.kind, l.uid, l.gid, l.mtime), (FileKind::Symlink, 8, 9, t));
    assert_eq!(m("d/fifo").kind, FileKind::Fifo);
    assert_eq!((m("d/null").rdev, m("d/null").mode), ((1, 3), 0o666));
    assert_eq!(m("old").mtime, FileTime::EPOCH);
    let keys: Vec<_> = host.root.xattrs("d/f").unwrap().into_keys().collect();
    assert_eq!(keys, ["security.capability", "user.empty"]);
}

/// Archives that plant a link and then write through it, and all other ways out we know.
fn attacks(host: &Path) -> Vec<(&'static str, Archive)> {
    let abs = host.display().to_string();
    let canary = format!("{abs}/canary");
    let up = "../".repeat(20);
    vec![
        ("absolute link to a directory", archive().link("l", &abs).file("l/canary", "x")),
        ("relative link to a directory", archive().link("l", "..").file("l/canary", "x")),
        ("link to the file", archive().link("l", &canary).file("l", "x")),
        ("link, then device of the same name", archive().link("l", &canary).add("l", EntryKind::Fifo, "")),
        ("link chain", archive().link("a", "..").link("b", "a/..").file("b/canary", "x")),
        ("dot dot", archive().file("../canary", "x").file("a/../../canary", "x")),
        ("absolute name", archive().file(&canary, "x")),
        ("hard link to the host", archive().hard("h", &canary).file("h", "x")),
        ("hard link by dots", archive().hard("h", "../canary").file("h", "x")),
        ("hard link through a link", archive().link("l", "..").hard("h", "l/canary").file("h", "x")),
        ("hard link to a link", archive().link("l", &canary).hard("h", "l").file("h", "x")),
        ("directory turned link", archive().dir("d").file("d/x", "").link("d", &abs).file("d/canary", "x")),
        ("link turned directory", archive().link("d", &abs).dir("d").file("d/canary", "x")),
        ("link in the middle", archive().dir("a").link("a/b", &abs).file("a/b/c/d", "x")),
        ("mode through a link", archive().link("l", &canary).dir("l/").last(|e| e.mode = 0o777)),
        ("whiteout through a link", archive().link("l", "..").file("l/.wh.canary", "")),
        ("opaque through a link", archive().link("l", "..").file("l/.wh..wh..opq", "")),
        ("whiteout of parents", archive().file(".wh...", "").file(".wh..", "").file(".wh.", "")),
        ("whiteout with dots", archive().file("a/../../.wh.canary", "")),
        ("magic link", archive().link("p", "/proc/self/root").file(&format!("p{canary}"), "x")),
        ("root by a long way", archive().link("r", &format!("{up}{abs}")).file("r/canary", "x")),
        ("loop", archive().link("a", "b").link("b", "a").file("a/x", "")),
    ]
}

#[test]
fn nothing_escapes() {
    for i in 0.. {
        let host = Host::new();
        let mut list = attacks(host.tmp.path());
        if i == list.len() {
            break;
        }
        let (what, a) = list.swap_remove(i);
        for _ in 0..2 {
            // May fail or stay inside.
            let results = [host.layer(OVERLAY, &a), host.layer(DELETE, &a), host.add(&a)]
                .map(|r| r.map_err(|e| e.to_string()));
            if let Err(e) = &results[2] {
                assert!(
                    !e.contains(&host.tmp.path().display().to_string()) || what.contains("host"),
                    "{what}: {e}"
                );
            }
            host.assert_intact();
        }
    }
}

#[test]
fn links_lead_where_they_would_in_a_chroot() {
    let host = Host::new();
    let a = archive()
        .dir("usr/lib")
        .link("lib", "/usr/lib")
        .file("lib/x", "1")
        .link("usr/l2", "../../../lib")
        .file("usr/l2/y", "2");
    host.layer(OVERLAY, &a).unwrap();
    let want = ["lib->/usr/lib", "usr/", "usr/l2->../../../lib", "usr/lib/", "usr/lib/x=1", "usr/lib/y=2"];
    assert_eq!(host.tree(), want);
    // A dangling link on the way: its target is made.
    host.layer(OVERLAY, &archive().link("var", "/mnt/var").file("var/z", "3")).unwrap();
    assert_eq!(host.root.read("mnt/var/z", 9).unwrap(), b"3");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let host = Host::new();
    let a = archive()
        .file("a", "1")
        .file("a", "2")
        .dir("d")
        .file("d/x", "x")
        .file("d", "now a file")
        .file("e", "file")
        .dir("e")
        .file("e/x", "x")
        .dir("e")
        .link("l", "a")
        .file("l", "not through the link")
        .dir("m")
        .file("m/x", "")
        .link("m", "e")
        .file("m/y", "through the new link");
    host.layer(OVERLAY, &a).unwrap();
    let want =
        ["a=2", "d=now a file", "e/", "e/x=x", "e/y=through the new link", "l=not through the link", "m->e"];
    assert_eq!(host.tree(), want);
}

#[test]
fn deletions_for_overlay_root() {
    let host = Host::new();
    let a = archive()
        .dir("dir")
        .file("dir/.wh.gone", "")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "n")
        // Deleted and made again: must not show what is below.
        .file(".wh.again", "")
        .dir("again")
        .file("again/x", "")
        // The other way round, and a file.
        .dir("before")
        .file(".wh.before", "")
        .file("file", "f")
        .file(".wh.file", "")
        .file(".wh.refile", "")
        .file("refile", "r")
        .file(".wh..wh.plnk", "");
    if let Err(e) = host.layer(OVERLAY, &a) {
        return eprintln!("skipped: {e}");
    }
    let want = [
        "again/",
        "again/x=",
        "before/",
        "dir/",
        "dir/gone:whiteout",
        "file=f",
        "opaque/",
        "opaque/new=n",
        "refile=r",
    ];
    assert_eq!(host.tree(), want);
    for (dir, opaque) in [("again", true), ("before", true), ("opaque", true), ("dir", false)] {
        let value = host.root.get_xattr(dir, "trusted.overlay.opaque").unwrap();
        assert_eq!(value.is_some_and(|v| v == b"y"), opaque, "{dir}");
    }
    // Rootless form.
    let host = Host::new();
    let user = LayerOptions { whiteouts: Whiteouts::Overlay { user_xattr: true }, parents: &[] };
    host.layer(user, &archive().file("o/.wh..wh..opq", "")).unwrap();
    assert_eq!(host.root.get_xattr("o", "user.overlay.opaque").unwrap().unwrap(), b"y");
}

#[test]
fn deletions_by_removing() {
    let host = Host::new();
    let lower = archive()
        .file("dir/gone", "1")
        .file("dir/stays", "2")
        .file("opaque/old/deep", "3")
        .file("opaque/mixed/old", "3")
        .link("opaque/link", "/dir")
        .file("again/old", "4")
        .file("before/old", "5")
        .file("file", "6");
    host.layer(DELETE, &lower).unwrap();
    let upper = archive()
        .file("dir/.wh.gone", "")
        .file("dir/.wh.never", "")
        .file("opaque/mixed/new", "m")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "n")
        .file(".wh.again", "")
        .file("again/new", "a")
        .file("before/new", "b")
        .dir("before")
        .file(".wh.before", "")
        .file("file", "f")
        .file(".wh.file", "");
    host.layer(DELETE, &upper).unwrap();
    let want = [
        "again/",
        "again/new=a",
        "before/",
        "before/new=b",
        "dir/",
        "dir/stays=2",
        "file=f",
        "opaque/",
        "opaque/mixed/",
        "opaque/mixed/new=m",
        "opaque/new=n",
    ];
    assert_eq!(host.tree(), want);
    assert!(matches!(
        host.layer(DELETE, &archive().file(".wh...", "")),
        Err(UnpackError::BadWhiteout { .. })
    ));
}

#[test]
fn unlisted_directories_are_as_below_root() {
    let lower = Host::new();
    let t = FileTime { secs: 1_400_000_000, nanos: 7 };
    let a = archive()
        .dir("a")
        .dir("a/b")
        .last(|e| (e.mode, e.uid, e.gid, e.mtime) = (0o1770, 11, 12, t))
        .file("a/c", "");
    lower.layer(OVERLAY, &a).unwrap();
    lower.root.set_xattr("a/b", "user.k", b"v").unwrap();
    let upper = Host::new();
    let parents = [Host::new().root, lower.root];
    let options = LayerOptions { parents: &parents, ..OVERLAY };
    upper.layer(options, &archive().file("a/b/new", "").file("a/c/new", "").file("x/y", "")).unwrap();
    let m = upper.root.metadata("a/b", false).unwrap();
    assert_eq!((m.mode, m.uid, m.gid, m.mtime), (0o1770, 11, 12, t));
    assert_eq!(upper.root.get_xattr("a/b", "user.k").unwrap().unwrap(), b"v");
    // A file below, or nothing: the defaults.
    for path in ["a/c", "x"] {
        assert_eq!(upper.root.metadata(path, false).unwrap().mode, 0o755, "{path}");
    }
}

#[test]
fn broken_archives_are_errors() {
    let good = archive().file("a", "content").file("b", "x");
    let bytes = good.bytes();
    for cut in [100, 515, 600, 1100] {
        let host = Host::new();
        assert!(apply_layer(&bytes[..cut], &host.root, OVERLAY).is_err(), "{cut}");
        host.assert_intact();
    }
    let host = Host::new();
    let e = host.layer(OVERLAY, &archive().hard("h", "none/x")).unwrap_err();
    assert_eq!(e.to_string(), "unpack h: open /none: no such file or directory");
    let e = host.layer(OVERLAY, &archive().file("f", "").file("f/x", "")).unwrap_err();
    assert_eq!(e.to_string(), "unpack f/x: mkdir /f: not a directory");
    let mut bytes = archive().file("v", "").bytes();
    bytes[156] = b'V';
    bytes[154] = 0;
    let sum: u32 = bytes[..512]
        .iter()
        .enumerate()
        .map(|(i, &b)| if (148..156).contains(&i) { 32 } else { b.into() })
        .sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(matches!(
        apply_layer(&bytes[..], &host.root, OVERLAY),
        Err(UnpackError::UnknownKind { flag: b'V', .. })
    ));
    // Nothing at all is an empty layer.
    assert_eq!(apply_layer(&[][..], &host.root, OVERLAY).unwrap(), Unpacked::default());
    let long = archive().file(&"x/".repeat(3000), "");
    assert!(
        host.layer(
            OVERLAY,
            &Archive(
                long.0
                    .into_iter()
                    .map(|(mut e, d)| {
                        e.path = e.path.join("f");
                        (e, d)
                    })
                    .collect()
            )
        )
        .is_err()
    );
}

#[test]
fn add_unpacks_into_what_exists_root() {
    let host = Host::new();
    std::fs::create_dir(host.tmp.path().join("root/keep")).unwrap();
    std::fs::write(host.tmp.path().join("root/keep/old"), "old").unwrap();
    std::fs::write(host.tmp.path().join("root/file"), "old").unwrap();
    symlink("/nowhere", host.tmp.path().join("root/link")).unwrap();
    host.root.chmod("/", 0o700).unwrap();
    let a = archive()
        .dir("./")
        .dir("keep")
        .last(|e| (e.uid, e.gid) = (5, 6))
        .file("keep/new", "new")
        .file("file", "new")
        .file("link", "new")
        .file(".wh.keep", "just a name")
        .file("implied/dir/x", "")
        .last(|e| (e.uid, e.gid) = (5, 6));
    host.add(&a).unwrap();
    let want = [
        ".wh.keep=just a name",
        "file=new",
        "implied/",
        "implied/dir/",
        "implied/dir/x=",
        "keep/",
        "keep/new=new",
        "keep/old=old",
        "link=new",
    ];
    assert_eq!(host.tree(), want);
    assert_eq!(host.root.metadata("/", false).unwrap().mode, 0o700, "the root's own entry is skipped");
    let owner = |p: &str| host.root.metadata(p, false).map(|m| (m.uid, m.gid)).unwrap();
    assert_eq!((owner("keep"), owner("implied/dir/x"), owner("implied")), ((5, 6), (5, 6), (0, 0)));
    let options = ArchiveOptions { owner: Some((77, 88)) };
    unpack_archive(&a.bytes()[..], &host.root, options).unwrap();
    assert_eq!((owner("keep"), owner("file"), owner("implied")), ((77, 88), (77, 88), (0, 0)));
}

#[test]
fn archives_are_known_by_content() {
    let bytes = archive().file("a", "x").bytes();
    let mut gz = compress::Encoder::new(Vec::new(), compress::Compression::Gzip, None, 1).unwrap();
    gz.write_all(&bytes).unwrap();
    let gz = gz.finish().unwrap();
    assert!(is_archive(&bytes[..]) && is_archive(&gz[..]));
    let host = Host::new();
    unpack_archive(&gz[..], &host.root, ArchiveOptions::default()).unwrap();
    assert_eq!(host.tree(), ["a=x"]);
    let mut text = compress::Encoder::new(Vec::new(), compress::Compression::Zstd, None, 1).unwrap();
    text.write_all(b"just text").unwrap();
    for no in
        [&b""[..], b"text", &[0; 1024], &gz[..20], &text.finish().unwrap(), b"BZh9junk", b"\x1f\x8b\x08junk"]
    {
        assert!(!is_archive(no), "{no:?}");
    }
}

/// What GNU tar extracts, we extract alike: names, types, owners, modes, times, links, attributes.
#[test]
fn same_tree_as_gnu_tar_root() {
    let tmp = tempfile::tempdir().unwrap();
    let d = |p: &str| tmp.path().join(p);
    std::fs::create_dir_all(d("src/a/b")).unwrap();
    std::fs::create_dir_all(d("tar")).unwrap();
    std::fs::create_dir_all(d("ours")).unwrap();
    std::fs::write(d("src/a/file"), vec![7; 300_000]).unwrap();
    std::fs::hard_link(d("src/a/file"), d("src/z")).unwrap();
    std::fs::write(d("src").join(std::ffi::OsStr::from_bytes(b"latin\xfc")), "").unwrap();
    symlink("../nowhere", d("src/a/b/l")).unwrap();
    std::fs::File::create(d("src/sparse")).unwrap().set_len(10 << 20).unwrap();
    let src = Root::open(d("src")).unwrap();
    src.chmod("a/file", 0o6711).unwrap();
    src.chown("a/b", 12, 3_000_000).unwrap();
    src.chmod("a/b", 0o1500).unwrap();
    src.mknod("fifo", FileKind::Fifo, 0o600, (0, 0)).unwrap();
    let _ = src.mknod("dev", FileKind::BlockDevice, 0o640, (7, 300));
    let _ = src.set_xattr("a/file", "user.k", b"\0v");
    let made = Command::new("tar")
        .args(["--format=pax", "--xattrs", "--sparse", "-cf", "../x.tar", "."])
        .current_dir(d("src"))
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|s| s.success()) {
        return eprintln!("skipped: no usable tar");
    }
    let args = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "../x.tar"];
    assert!(Command::new("tar").args(args).current_dir(d("tar")).status().unwrap().success());
    let root = Root::open(d("ours")).unwrap();
    unpack_archive(std::fs::File::open(d("x.tar")).unwrap(), &root, ArchiveOptions::default()).unwrap();
    let facts = |root: &Root| {
        let mut all = BTreeMap::new();
        walk::<Error>(root, "/", |e| {
            let m = e.metadata()?;
            let link = if m.is_symlink() { e.read_link()? } else { PathBuf::new() };
            let size = if m.is_dir() { 0 } else { m.size };
            let fact = (m.kind, m.mode, m.uid, m.gid, size, m.mtime, m.rdev, m.nlink, link, e.xattrs()?);
            all.insert(e.path().to_path_buf(), fact);
            Ok(Step::Continue)
        })
        .unwrap();
        all
    };
    assert_eq!(facts(&root), facts(&Root::open(d("tar")).unwrap()));
    assert!(root.metadata("sparse", false).unwrap().blocks < 100, "holes stay holes");
}
