use super::*;
use kiln_fs::{FileKind, compress, tar};
use kiln_llb::{ChownOpt, CopyAction, MkDirAction, MkFileAction, RmAction, SymlinkAction, UserOpt};
use std::io::Write;
use std::os::unix::fs::symlink;

/// A host with a canary, a target and a source.
struct Host {
    tmp: tempfile::TempDir,
    target: Root,
    source: Root,
}

impl Host {
    fn new(target: &[&str], source: &[&str]) -> Host {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("canary"), "host").unwrap();
        std::fs::create_dir(tmp.path().join("victim")).unwrap();
        std::fs::write(tmp.path().join("victim/data"), "host").unwrap();
        let side = |name: &str, items: &[&str]| {
            let base = tmp.path().join(name);
            std::fs::create_dir(&base).unwrap();
            items.iter().for_each(|i| plant(&base, i));
            Root::open(&base).unwrap()
        };
        let (target, source) = (side("target", target), side("source", source));
        Host { tmp, target, source }
    }

    fn apply(&self, kind: FileActionKind) -> Result<(), FileError> {
        let action = FileAction { input: None, secondary: None, output: Some(0), kind };
        let done = apply(&action, &self.target, Some(&self.source), &|_| Some(&self.target), None);
        assert_eq!(std::fs::read_to_string(self.tmp.path().join("canary")).unwrap(), "host");
        assert_eq!(std::fs::read_to_string(self.tmp.path().join("victim/data")).unwrap(), "host");
        assert_eq!(std::fs::read_dir(self.tmp.path()).unwrap().count(), 4, "something appeared outside");
        done
    }

    /// The target after an action, or the error.
    fn result(&self, kind: FileActionKind) -> String {
        match self.apply(kind) {
            Ok(()) => self.tree(),
            Err(e) => format!("error: {e}"),
        }
    }

    fn tree(&self) -> String {
        let mut all = Vec::new();
        kiln_fs::walk::walk::<kiln_fs::Error>(&self.target, "/", |e| {
            let path = e.path().display();
            all.push(match e.kind()? {
                FileKind::Dir => format!("{path}/"),
                FileKind::File => format!("{path}={}", std::io::read_to_string(e.open()?).unwrap()),
                FileKind::Symlink => format!("{path}->{}", e.read_link()?.display()),
                kind => format!("{path}:{kind:?}"),
            });
            Ok(kiln_fs::walk::Step::Continue)
        })
        .unwrap();
        all.join(" ")
    }

    fn facts(&self, path: &str) -> (u32, u32, u32, i64) {
        let m = self.target.metadata(path, false).unwrap();
        (m.mode, m.uid, m.gid, m.mtime.as_nanos())
    }
}

fn plant(base: &Path, item: &str) {
    let make = |p: &str| {
        let path = base.join(p);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    if let Some((p, to)) = item.split_once("->") {
        symlink(to, make(p)).unwrap();
    } else if let Some((p, content)) = item.split_once('=') {
        std::fs::write(make(p), content).unwrap();
    } else {
        std::fs::create_dir_all(base.join(item)).unwrap();
    }
}

fn mkdir(path: &str, make_parents: bool) -> FileActionKind {
    FileActionKind::MkDir(MkDirAction {
        path: path.into(),
        mode: FileMode::Bits(0o755),
        make_parents,
        ..Default::default()
    })
}

fn mkfile(path: &str, data: &str) -> FileActionKind {
    FileActionKind::MkFile(MkFileAction {
        path: path.into(),
        data: data.into(),
        mode: FileMode::Bits(0o644),
        ..Default::default()
    })
}

fn rm(path: &str) -> RmAction {
    RmAction { path: path.into(), ..Default::default() }
}

fn copy(src: &str, dest: &str) -> CopyAction {
    CopyAction { src: src.into(), dest: dest.into(), create_dest_path: true, ..Default::default() }
}

fn owner() -> Option<ChownOpt> {
    Some(ChownOpt { user: Some(UserOpt::Id(7)), group: Some(UserOpt::Id(8)) })
}

#[test]
fn directories() {
    for (before, path, parents, after) in [
        (&[][..], "/a", false, "a/"),
        (&[], "a", false, "a/"),
        (&[], "a/b", false, "error: resolve a/b: no such file or directory"),
        (&[], "a/b/c", true, "a/ a/b/ a/b/c/"),
        (&["a/x=X"], "a", false, "a/ a/x=X"),
        (&["a/x=X"], "a/y", true, "a/ a/x=X a/y/"),
        // Whatever is there, it is there.
        (&["a=file"], "a", false, "a=file"),
        (&["a=file"], "a", true, "error: mkdir a: not a directory"),
        (&["l->/real", "real/"], "l/x", false, "l->/real real/ real/x/"),
        (&["l->/real/deep"], "l/x", true, "l->/real/deep real/ real/deep/ real/deep/x/"),
        (&["l->../../.."], "l/x", true, "l->../../.. x/"),
        (&[], "../../x", true, "x/"),
        (&[], "/", true, ""),
    ] {
        let host = Host::new(before, &[]);
        assert_eq!(host.result(mkdir(path, parents)), after, "{path}");
    }
}

#[test]
fn files() {
    for (before, path, after) in [
        (&[][..], "/f", "f=data"),
        (&["f=longer than before"], "f", "f=data"),
        (&[], "a/f", "error: resolve /a/f: no such file or directory"),
        (&["l->/f"], "l", "f=data l->/f"),
        (&["l->f", "f=old"], "l", "f=data l->f"),
        (&["l->../canary"], "l", "canary=data l->../canary"),
        (&["a/"], "a", "error: open /a: is a directory"),
        (&[], "../victim/data", "error: resolve /victim/data: no such file or directory"),
        (
            &["victim->../../victim/"],
            "victim/data",
            "error: resolve /victim/data: too many levels of symbolic links",
        ),
    ] {
        let host = Host::new(before, &[]);
        assert_eq!(host.result(mkfile(path, "data")), after, "{path}");
    }
}

#[test]
fn symlinks() {
    let link = |old: &str, new: &str| {
        FileActionKind::Symlink(SymlinkAction {
            oldpath: old.into(),
            newpath: new.into(),
            ..Default::default()
        })
    };
    for (before, new, after) in [
        (&[][..], "/l", "l->/etc/x"),
        (&["a/"], "a/l", "a/ a/l->/etc/x"),
        (&["l=file"], "l", "error: symlink /l: file exists"),
        (&["d->/a", "a/"], "d/l", "a/ a/l->/etc/x d->/a"),
        (&["d->.."], "d/canary", "canary->/etc/x d->.."),
        (&[], "a/l", "error: resolve /a/l: no such file or directory"),
    ] {
        let host = Host::new(before, &[]);
        assert_eq!(host.result(link("/etc/x", new)), after, "{new}");
    }
}

#[test]
fn removals() {
    let gone = |path: &str| RmAction { allow_not_found: true, ..rm(path) };
    let glob = |path: &str| RmAction { allow_wildcard: true, ..rm(path) };
    let tree = &["d/x=X", "d/y=Y", "l->d", "z=Z"][..];
    for (action, after) in [
        (rm("d"), "l->d z=Z"),
        (rm("/d/x"), "d/ d/y=Y l->d z=Z"),
        (rm("l"), "d/ d/x=X d/y=Y z=Z"),
        (rm("l/x"), "d/ d/y=Y l->d z=Z"),
        (rm("none"), "error: stat /none: no such file or directory"),
        (gone("none"), "d/ d/x=X d/y=Y l->d z=Z"),
        (gone("none/deep"), "d/ d/x=X d/y=Y l->d z=Z"),
        (glob("d/*"), "d/ l->d z=Z"),
        (glob("none*"), "d/ d/x=X d/y=Y l->d z=Z"),
        (glob("*"), ""),
        (glob("[dz]"), "l->d"),
    ] {
        let host = Host::new(tree, &[]);
        assert_eq!(host.result(FileActionKind::Rm(action.clone())), after, "{action:?}");
    }
}

/// GHSA-32pv-7hq5-qhwq: parent parts reached the directory around the mount.
#[test]
fn no_action_leaves_its_root() {
    let paths = [
        "..",
        "../..",
        "a/../..",
        "../victim",
        "/../victim",
        "a/../../victim",
        "../victim/data",
        "..\\victim",
        "out",
        "out/victim",
        "out/canary",
        "up/../victim",
        "./..",
        "//..//",
        "",
        ".",
        "/",
    ];
    let before = &["a/x=1", "out->../..", "up->a"][..];
    for path in paths {
        for allow_not_found in [false, true] {
            for allow_wildcard in [false, true] {
                let host = Host::new(before, &[]);
                let _ = host.apply(FileActionKind::Rm(RmAction {
                    path: path.into(),
                    allow_not_found,
                    allow_wildcard,
                }));
                let host = Host::new(before, &[]);
                let _ = host.apply(FileActionKind::Rm(RmAction {
                    path: format!("{path}/*"),
                    allow_not_found,
                    allow_wildcard,
                }));
            }
        }
        for parents in [false, true] {
            let _ = Host::new(before, &[]).apply(mkdir(path, parents));
        }
        let _ = Host::new(before, &[]).apply(mkfile(path, "x"));
        let host = Host::new(before, &["victim/data=S", "canary=S", "out->../.."]);
        for (src, dest) in [(path, "/got/"), ("/victim", path), ("canary", path)] {
            for contents in [false, true] {
                let options = CopyAction {
                    follow_symlink: true,
                    allow_wildcard: true,
                    dir_copy_contents: contents,
                    always_replace_existing_dest_paths: contents,
                    attempt_unpack: true,
                    owner: owner(),
                    ..copy(src, dest)
                };
                let _ = host.apply(FileActionKind::Copy(options));
            }
        }
        assert!(!host.tree().contains("=host"), "{path}: a file of the host was copied");
    }
    for path in ["..", "../..", "a/../..", "", ".", "/"] {
        let host = Host::new(before, &[]);
        assert_eq!(host.result(FileActionKind::Rm(rm(path))), "error: rm: cannot remove the root directory");
    }
}

#[test]
fn owners_modes_and_times_root() {
    let host = Host::new(&["etc/passwd=app:x:1000:1001::/:\n", "etc/group=staff:x:50:\n"], &["s=S"]);
    let t = 1_234_567_890_123_456_789;
    let by_name = |user: &str, group: Option<&str>| {
        let name = |n: &str| UserOpt::Name { name: n.into(), input: Some(ActionInput::Op(0)) };
        Some(ChownOpt { user: Some(name(user)), group: group.map(name) })
    };
    let dir = MkDirAction {
        path: "d/e".into(),
        mode: FileMode::Bits(0o4750),
        make_parents: true,
        owner: by_name("app", None),
        timestamp: Some(t),
    };
    host.apply(FileActionKind::MkDir(dir.clone())).unwrap();
    assert_eq!(host.facts("d/e"), (0o750, 1000, 1001, t));
    let (mode, uid, gid, _) = host.facts("d");
    assert_eq!((mode, uid, gid), (0o750, 1000, 1001));
    let single = MkDirAction { path: "x".into(), make_parents: false, mode: FileMode::Keep, ..dir };
    host.apply(FileActionKind::MkDir(single)).unwrap();
    assert_eq!(host.facts("x"), (0o777, 1000, 1001, t));

    let file = |path: &str, owner| {
        FileActionKind::MkFile(MkFileAction {
            path: path.into(),
            mode: FileMode::Bits(0o600),
            data: b"x".to_vec(),
            owner,
            timestamp: Some(t),
        })
    };
    for (who, uid, gid) in [
        (by_name("app", Some("staff")), 1000, 50),
        (by_name("nobody", None), 0, 0),
        (by_name("app", Some("none")), 1000, 1001),
        (Some(ChownOpt { user: Some(UserOpt::Id(9)), group: None }), 9, 9),
        (Some(ChownOpt { user: None, group: Some(UserOpt::Id(9)) }), 0, 9),
        (owner(), 7, 8),
        // A number as a name is a name.
        (by_name("1000", None), 0, 0),
    ] {
        host.apply(file("f", who)).unwrap();
        assert_eq!(host.facts("f"), (0o600, uid, gid, t));
    }
    let nowhere = UserOpt::Name { name: "app".into(), input: None };
    let e = host.apply(file("f", Some(ChownOpt { user: Some(nowhere), group: None }))).unwrap_err();
    assert_eq!(e.to_string(), "no filesystem to look up \"app\" in");

    let link = SymlinkAction { oldpath: "x".into(), newpath: "l".into(), owner: owner(), timestamp: Some(t) };
    host.apply(FileActionKind::Symlink(link)).unwrap();
    assert_eq!(host.facts("l"), (0o777, 7, 8, t));

    let mode =
        CopyAction { mode: FileMode::Bits(0o4711), owner: owner(), timestamp: Some(t), ..copy("s", "m/s") };
    host.apply(FileActionKind::Copy(mode.clone())).unwrap();
    assert_eq!((host.facts("m/s"), host.facts("m")), ((0o4711, 7, 8, t), (0o711, 7, 8, t)));
    host.apply(FileActionKind::Copy(CopyAction {
        mode_str: "u=rwX,go=rX".into(),
        dest: "n/s".into(),
        ..mode.clone()
    }))
    .unwrap();
    assert_eq!((host.facts("n/s"), host.facts("n").0), ((0o644, 7, 8, t), 0o755));
    let e = host.apply(FileActionKind::Copy(CopyAction { mode_str: "u=rwz".into(), ..mode })).unwrap_err();
    assert_eq!(e.to_string(), "invalid mode \"u=rwz\"");
}

/// User files of a hostile image.
#[test]
fn user_files_are_not_trusted() {
    let host = Host::new(&["etc/passwd->/../../../../../../../etc/passwd"], &[]);
    let root_user = UserOpt::Name { name: "daemon".into(), input: Some(ActionInput::Op(0)) };
    let file = MkFileAction {
        path: "f".into(),
        owner: Some(ChownOpt { user: Some(root_user), group: None }),
        ..Default::default()
    };
    // A link to itself, in its root; the host's users are not found.
    assert!(host.apply(FileActionKind::MkFile(file.clone())).is_err());
    let host = Host::new(&["etc/"], &[]);
    host.target.mknod("etc/passwd", FileKind::Fifo, 0o644, (0, 0)).unwrap();
    let e = host.apply(FileActionKind::MkFile(file.clone())).unwrap_err().to_string();
    assert_eq!(e, "/etc/passwd is not a regular file");
    let host = Host::new(&["etc/"], &[]);
    std::fs::File::create(host.tmp.path().join("target/etc/passwd")).unwrap().set_len(20 << 20).unwrap();
    let e = host.apply(FileActionKind::MkFile(file)).unwrap_err().to_string();
    assert_eq!(e, "/etc/passwd exceeds 10485760 bytes");
}

#[test]
fn copies() {
    let source = &["f=F", "g.txt=G", "d/x=X", "d/y/z=Z", "l->d"][..];
    let with = |a: CopyAction, change: fn(&mut CopyAction)| {
        let mut a = a;
        change(&mut a);
        a
    };
    for (before, action, after) in [
        (&[][..], copy("f", "/"), "f=F"),
        (&[], copy("/f", "/to/"), "to/ to/f=F"),
        (&[], copy("f", "/to/."), "to/ to/f=F"),
        (&[], copy("f", "to"), "to=F"),
        (&["to/"], copy("f", "to"), "to/ to/f=F"),
        (
            &[],
            with(copy("f", "a/b"), |a| a.create_dest_path = false),
            "error: failed to stat a/b: stat /a: no such file or directory",
        ),
        (&["a/"], with(copy("f", "a/b"), |a| a.create_dest_path = false), "a/ a/b=F"),
        (&[], copy("none", "/"), "error: stat /none: no such file or directory"),
        (&[], with(copy("*.txt", "/"), |a| a.allow_wildcard = true), "g.txt=G"),
        (&[], with(copy("*.none", "/"), |a| a.allow_wildcard = true), "error: /*.none not found"),
        (&[], with(copy("*.none", "/"), |a| (a.allow_wildcard, a.allow_empty_wildcard) = (true, true)), ""),
        (&[], copy("*.txt", "/"), "error: stat /*.txt: no such file or directory"),
        (
            &[],
            with(copy("*", "to/"), |a| (a.allow_wildcard, a.dir_copy_contents) = (true, true)),
            "to/ to/f=F to/g.txt=G to/l->d to/x=X to/y/ to/y/z=Z",
        ),
        (
            &[],
            with(copy("l", "/n"), |a| (a.follow_symlink, a.dir_copy_contents) = (true, true)),
            "n/ n/x=X n/y/ n/y/z=Z",
        ),
        (
            &[],
            with(copy("/", "/"), |a| {
                a.dir_copy_contents = true;
                a.include_patterns = vec!["d/y".into()];
            }),
            "d/ d/y/ d/y/z=Z",
        ),
        (
            &[],
            with(copy("/", "/"), |a| {
                a.dir_copy_contents = true;
                a.exclude_patterns = vec!["d".into(), "*.txt".into()];
            }),
            "f=F l->d",
        ),
        (&["f/sub/"], with(copy("f", "/"), |a| a.always_replace_existing_dest_paths = true), "f=F"),
        (&["f/sub/"], copy("f", "/"), "error: cannot replace to directory /f with file"),
        // Not an archive: copied.
        (&[], with(copy("f", "/to/"), |a| a.attempt_unpack = true), "to/ to/f=F"),
    ] {
        let host = Host::new(before, source);
        assert_eq!(
            host.result(FileActionKind::Copy(action.clone())),
            after,
            "{} {}",
            action.src,
            action.dest
        );
    }
}

#[test]
fn copies_from_nothing() {
    for (src, wildcard, empty, after) in [
        ("/", false, false, "a/ a/b/"),
        ("x", false, false, "error: /x not found"),
        ("x*", true, false, "error: /x* not found"),
        ("x*", true, true, ""),
    ] {
        let host = Host::new(&[], &[]);
        let a = CopyAction { allow_wildcard: wildcard, allow_empty_wildcard: empty, ..copy(src, "a/b") };
        let action =
            FileAction { input: None, secondary: None, output: Some(0), kind: FileActionKind::Copy(a) };
        let got = match apply(&action, &host.target, None, &|_| None, None) {
            Ok(()) => host.tree(),
            Err(e) => format!("error: {e}"),
        };
        assert_eq!(got, after, "{src}");
    }
}

fn archive(compression: compress::Compression, entries: &[(&str, tar::EntryKind, &str)]) -> Vec<u8> {
    let mut w = tar::Writer::new(compress::Encoder::new(Vec::new(), compression, None, 1).unwrap());
    for (path, kind, data) in entries {
        let mut e = tar::Entry::new(*path, *kind);
        (e.mode, e.uid, e.gid) = (0o644, 5, 6);
        let content = if *kind == tar::EntryKind::File { data.as_bytes() } else { b"" };
        e.link = if content.is_empty() { data.into() } else { PathBuf::new() };
        e.size = content.len() as u64;
        w.append(&e, content).unwrap();
    }
    w.finish().unwrap().finish().unwrap()
}

#[test]
fn archives_are_unpacked_root() {
    use tar::EntryKind::{File, HardLink, Symlink};
    let entries = &[
        ("dir/x", File, "X"),
        ("abs", Symlink, "/dir"),
        ("abs/y", File, "Y"),
        ("../z", File, "Z"),
        ("h", HardLink, "dir/x"),
    ];
    for compression in
        [compress::Compression::Uncompressed, compress::Compression::Gzip, compress::Compression::Zstd]
    {
        let host = Host::new(&["opt/"], &["link->a"]);
        let bytes = archive(compression, entries);
        let mut f = std::fs::File::create(host.tmp.path().join("source/a")).unwrap();
        f.write_all(&bytes).unwrap();
        for (src, who, uid) in [("a", None, 5), ("link", owner(), 7)] {
            let a =
                CopyAction { attempt_unpack: true, follow_symlink: true, owner: who, ..copy(src, "/opt/in") };
            host.apply(FileActionKind::Copy(a)).unwrap();
            // The destination is the archive's root: its links and dots stay there.
            let want = "opt/ opt/in/ opt/in/abs->/dir opt/in/dir/ opt/in/dir/x=X opt/in/dir/y=Y opt/in/h=X opt/in/z=Z";
            assert_eq!(host.tree(), want);
            assert_eq!(host.facts("opt/in/dir/x").1, uid);
        }
        // Without being asked to, it is just a file.
        host.apply(FileActionKind::Copy(copy("a", "/plain"))).unwrap();
        assert_eq!(host.target.metadata("plain", false).unwrap().size, bytes.len() as u64);
    }
    // Cut off: an error, and nothing outside.
    let bytes = archive(
        compress::Compression::Uncompressed,
        &[("l", Symlink, "/../.."), ("l/canary", File, "attack attack")],
    );
    let host = Host::new(&[], &[]);
    std::fs::write(host.tmp.path().join("source/a"), &bytes[..1030]).unwrap();
    let a = CopyAction { attempt_unpack: true, ..copy("a", "/") };
    assert!(host.apply(FileActionKind::Copy(a)).is_err());
}

#[test]
fn copies_stop_when_told() {
    let host = Host::new(&[], &["d/f=F"]);
    let kind = FileActionKind::Copy(CopyAction { dir_copy_contents: true, ..copy("d", "/") });
    let action = FileAction { input: None, secondary: None, output: Some(0), kind };
    let flag = Arc::new(AtomicBool::new(true));
    let e = apply(&action, &host.target, Some(&host.source), &|_| None, Some(flag)).unwrap_err();
    assert_eq!(e.to_string(), "copy was cancelled");
}
