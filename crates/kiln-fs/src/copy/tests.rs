use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;

use super::*;
use crate::meta::FileKind;
use crate::root::Root;
use crate::testing::listing;
use crate::walk::{Step, walk};

/// A host with a canary, a source and a destination.
struct Host {
    tmp: tempfile::TempDir,
    src: Root,
    dst: Root,
}

impl Host {
    fn new(src: &[&str], dst: &[&str]) -> Host {
        let tmp = tempfile::tempdir().unwrap();
        write(tmp.path().join("canary"), "host").unwrap();
        for (side, list) in [("src", src), ("dst", dst)] {
            create_dir_all(tmp.path().join(side)).unwrap();
            for item in list {
                plant(&tmp.path().join(side), item);
            }
        }
        let root = |side: &str| Root::open(tmp.path().join(side)).unwrap();
        let (src, dst) = (root("src"), root("dst"));
        Host { tmp, src, dst }
    }

    fn copy(&self, from: &str, to: &str, options: &CopyOptions) -> Result<(), String> {
        let done = copy(&self.src, from, &self.dst, to, options).map_err(|e| e.to_string());
        assert_eq!(std::fs::read_to_string(self.tmp.path().join("canary")).unwrap(), "host");
        assert_eq!(std::fs::read_dir(self.tmp.path()).unwrap().count(), 3);
        done
    }

    fn tree(&self) -> String {
        listing(&self.dst).join(" ")
    }
}

/// `dir/`, `file=content`, `link->target`.
fn plant(base: &Path, item: &str) {
    let make = |p: &str| {
        let path = base.join(p);
        create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    if let Some((p, to)) = item.split_once("->") {
        symlink(to, make(p)).unwrap();
    } else if let Some((p, content)) = item.split_once('=') {
        write(make(p), content).unwrap();
    } else {
        create_dir_all(base.join(item)).unwrap();
    }
}

/// The result of one copy as the destination's listing, or the error.
fn result(src: &[&str], dst: &[&str], from: &str, to: &str, options: &CopyOptions) -> String {
    let host = Host::new(src, dst);
    match host.copy(from, to, options) {
        Ok(()) => host.tree(),
        Err(e) => format!("error: {e}"),
    }
}

fn contents() -> CopyOptions {
    CopyOptions { dir_contents: true, ..CopyOptions::default() }
}

#[test]
fn where_things_go() {
    let plain = CopyOptions::default();
    let src = &["f=F", "d/x=X", "d/s/y=Y", "l->d", "lf->f"];
    for (dst, from, to, options, want) in [
        (&[][..], "f", "/", &plain, "f=F"),
        (&[], "/f", "new", &plain, "new=F"),
        (&[], "f", "a/b/", &plain, "a/ a/b/ a/b/f=F"),
        (&[], "f", "a/b/.", &plain, "a/ a/b/ a/b/f=F"),
        (&[], "f", "a/b", &plain, "a/ a/b=F"),
        (&["a/b/"], "f", "a/b", &plain, "a/ a/b/ a/b/f=F"),
        (&["f=old"], "f", "/f", &plain, "f=F"),
        (&["f->t", "t=T"], "f", "/", &plain, "f=F t=T"),
        (&["f->t", "t=T"], "f", "/f", &plain, "f->t t=F"),
        (&["f->/d", "d/"], "f", "/f", &plain, "d/ d/f=F f->/d"),
        (&["f/"], "f", "/", &plain, "error: cannot replace to directory /f with file"),
        (&["f/x=old"], "f", "/f", &plain, "f/ f/f=F f/x=old"),
        (&["p=file"], "f", "p/x", &plain, "error: mkdir p/: not a directory"),
        (&[], "d", "/", &plain, "d/ d/s/ d/s/y=Y d/x=X"),
        (&[], "d", "/e", &plain, "e/ e/s/ e/s/y=Y e/x=X"),
        (&["e/"], "d", "/e", &plain, "e/ e/d/ e/d/s/ e/d/s/y=Y e/d/x=X"),
        (&[], "d", "/e", &contents(), "e/ e/s/ e/s/y=Y e/x=X"),
        (&["e/x=old", "e/z=Z"], "d", "/e", &contents(), "e/ e/s/ e/s/y=Y e/x=X e/z=Z"),
        (
            &["e->real", "real/z=Z"],
            "d",
            "/e",
            &contents(),
            "e->real real/ real/s/ real/s/y=Y real/x=X real/z=Z",
        ),
        (&[], "d", "/", &contents(), "s/ s/y=Y x=X"),
        (&["e=file"], "d", "/e", &contents(), "error: cannot copy to non-directory: /e"),
        (&["d=file"], "d", "/", &plain, "error: cannot copy to non-directory: /d"),
        (&["s=file"], "d", "/", &contents(), "error: cannot copy to non-directory: /s"),
        (&["s->/other", "other/"], "d", "/", &contents(), "error: cannot copy to non-directory: /s"),
        (&["x/"], "d", "/", &contents(), "error: cannot replace to directory /x with file"),
        (&["x->/other"], "d", "/", &contents(), "s/ s/y=Y x=X"),
        (&[], "l", "/", &plain, "l->d"),
        (&[], "lf", "/n", &plain, "n->f"),
        (&[], "none", "/", &plain, "error: stat /none: no such file or directory"),
        (&[], "../../f", "../../g", &plain, "g=F"),
        (&["out->../../../.."], "f", "/out/h", &plain, "h=F out->../../../.."),
        (&["dangling->/mnt/x"], "f", "/dangling/h", &plain, "dangling->/mnt/x mnt/ mnt/x/ mnt/x/h=F"),
        (&["dangling->/mnt"], "f", "/dangling", &plain, "dangling->/mnt mnt=F"),
    ] {
        assert_eq!(result(src, dst, from, to, options), want, "{dst:?} {from} {to}");
    }
}

#[test]
fn links_in_the_source() {
    let src = &["d/x=X", "l->/d", "esc->../../../canary", "abs->/etc/hostname", "loop->loop", "deep->d/x"];
    let follow = CopyOptions { follow_links: true, ..CopyOptions::default() };
    for (from, to, want) in [
        ("l", "/n", "n/ n/x=X"),
        ("l/x", "/", "x=X"),
        ("deep", "/", "deep=X"),
        ("esc", "/", "error: stat /canary: no such file or directory"),
        ("abs", "/", "error: stat /etc/hostname: no such file or directory"),
        ("loop", "/", "error: resolve /loop: too many levels of symbolic links"),
    ] {
        assert_eq!(result(src, &[], from, to, &follow), want, "{from}");
    }
    // Inside a tree they are copied, wherever they lead.
    let want = "abs->/etc/hostname d/ d/x=X deep->d/x esc->../../../canary l->/d loop->loop";
    assert_eq!(result(src, &[], "/", "/", &contents()), want);
}

#[test]
fn replacing_what_is_in_the_way() {
    let replace = CopyOptions { replace_existing: true, dir_contents: true, ..CopyOptions::default() };
    let src = &["d/x=X", "f=F", "l->t"];
    let dst = &["d=file", "f/deep/file=old", "l/z=old", "keep=K"];
    assert_eq!(result(src, dst, "/", "/", &replace), "d/ d/x=X f=F keep=K l->t");
    let dst = &["d->/keep", "keep/x=K"];
    assert_eq!(result(src, dst, "/", "/", &replace), "d/ d/x=X f=F keep/ keep/x=K l->t");
    let dst = &["d/x/y=old", "d/z=kept"];
    assert_eq!(result(src, dst, "/", "/", &replace), "d/ d/x=X d/z=kept f=F l->t");
    // A directory that is only made for something in it.
    let lazy = CopyOptions { include: vec!["d/x".into()], ..replace };
    assert_eq!(result(src, &["d->/keep", "keep/x=K"], "/", "/", &lazy), "d/ d/x=X keep/ keep/x=K");
}

#[test]
fn patterns_choose() {
    let src = &["a/b/c=1", "a/b/d=2", "a/e=3", "f.md=4", "g/f.md=5", "h/i/"];
    for (include, exclude, want) in [
        (&[][..], &["**/*.md"][..], "a/ a/b/ a/b/c=1 a/b/d=2 a/e=3 g/ h/ h/i/"),
        (&["**/*.md"], &[], "f.md=4 g/ g/f.md=5"),
        (&["a/*/c"], &[], "a/ a/b/ a/b/c=1"),
        (&["a/b"], &["a/b/c"], "a/ a/b/ a/b/d=2"),
        (&["a"], &["a/b"], "a/ a/e=3"),
        (&[], &["a", "!a/b/c"], "a/ a/b/ a/b/c=1 f.md=4 g/ g/f.md=5 h/ h/i/"),
        (&[], &["*", "!h"], "h/ h/i/"),
        (&["h/i"], &[], "h/ h/i/"),
        (&["none"], &[], ""),
        (&["a", "!a/b"], &[], "a/ a/e=3"),
        (&["["], &[], "error: invalid includepatterns: syntax error in pattern"),
        (&[], &["!"], "error: invalid excludepatterns: illegal exclusion pattern: \"!\""),
    ] {
        let list = |l: &[&str]| l.iter().map(|s| s.to_string()).collect();
        let options = CopyOptions { include: list(include), exclude: list(exclude), ..contents() };
        assert_eq!(result(src, &[], "/", "/", &options), want, "{include:?} {exclude:?}");
    }
    // What is excluded is not even looked at.
    let host = Host::new(&["secret/x=1", "a=1"], &[]);
    let exclude = CopyOptions { exclude: vec!["secret".into()], ..contents() };
    host.copy("/", "/", &exclude).unwrap();
    assert_eq!(host.tree(), "a=1");
}

#[test]
fn metadata_is_kept_root() {
    let host = Host::new(&["d/f=F", "d/s/x=X", "d/l->f"], &["d/s/"]);
    let t = |secs| FileTime { secs, nanos: 42 };
    let src = &host.src;
    src.chown("d/f", 11, 12).unwrap();
    src.chmod("d/f", 0o4751).unwrap();
    src.chown("d/s", 13, 14).unwrap();
    src.chmod("d/s", 0o1770).unwrap();
    src.chown("d/l", 15, 16).unwrap();
    src.mknod("d/p", FileKind::Fifo, 0o620, (0, 0)).unwrap();
    let devices = src.mknod("d/b", FileKind::BlockDevice, 0o600, (7, 300)).is_ok();
    src.mknod("d/sock", FileKind::Socket, 0o600, (0, 0)).unwrap();
    for (i, p) in ["d/f", "d/l", "d/p", "d/s/x", "d/s", "d"].into_iter().enumerate() {
        src.utimens(p, t(1000 + i as i64), t(2000 + i as i64)).unwrap();
    }
    let xattrs = src.set_xattr("d/f", "user.k", b"\0v").is_ok();
    host.dst.chmod("d/s", 0o700).unwrap();
    host.copy("d", "/d", &contents()).unwrap();
    let m = |p: &str| host.dst.metadata(p, false).unwrap();
    assert_eq!((m("d/f").uid, m("d/f").gid, m("d/f").mode, m("d/f").mtime), (11, 12, 0o4751, t(2000)));
    assert_eq!(m("d/f").atime, t(1000));
    assert_eq!(
        (m("d/s").uid, m("d/s").mode, m("d/s").mtime),
        (13, 0o1770, t(2004)),
        "existing directories too"
    );
    assert_eq!((m("d/l").uid, m("d/l").mtime), (15, t(2001)));
    assert_eq!((m("d/p").kind, m("d/p").mode), (FileKind::Fifo, 0o620));
    assert_eq!((m("d/sock").kind, m("d/sock").size), (FileKind::File, 0));
    // The top existed: it keeps owner and mode and gets the times.
    assert_eq!((m("d").uid, m("d").mtime), (0, t(2005)));
    if devices {
        assert_eq!((m("d/b").kind, m("d/b").rdev), (FileKind::BlockDevice, (7, 300)));
    }
    if xattrs {
        assert_eq!(host.dst.get_xattr("d/f", "user.k").unwrap().unwrap(), b"\0v");
    }
}

#[test]
fn owner_mode_and_time_can_be_given_root() {
    let host = Host::new(&["d/f=F", "d/x=X", "d/s/y=Y", "d/l->f"], &[]);
    host.src.chmod("d/x", 0o700).unwrap();
    host.src.chmod("d/f", 0o600).unwrap();
    let t = FileTime { secs: 5, nanos: 6 };
    let options = CopyOptions {
        owner: Some((7, 8)),
        mode: Some(ModeChange::parse("u=rwX,go=rX").unwrap()),
        time: Some(t),
        ..CopyOptions::default()
    };
    host.copy("d", "made/parents/", &options).unwrap();
    walk::<Error>(&host.dst, "/", |e| {
        let m = e.metadata()?;
        assert_eq!((m.uid, m.gid, m.mtime, m.atime), (7, 8, t, t), "{}", e.path().display());
        let want = match (m.kind, e.name().to_str()) {
            (FileKind::Symlink, _) => 0o777,
            (FileKind::Dir, _) | (_, Some("x")) => 0o755,
            _ => 0o644,
        };
        assert_eq!(m.mode, want, "{}", e.path().display());
        Ok(Step::Continue)
    })
    .unwrap();
    let options = CopyOptions {
        mode: Some(ModeChange::octal(0o4750)),
        parent_mode: Some(0o4750),
        ..CopyOptions::default()
    };
    host.copy("d/f", "other/f", &options).unwrap();
    let mode = |p: &str| host.dst.metadata(p, false).unwrap().mode;
    assert_eq!((mode("other"), mode("other/f")), (0o750, 0o4750));
}

#[test]
fn hard_links_stay_together() {
    let host = Host::new(&["a/one=1"], &["a/two=old"]);
    host.src.hard_link("a/one", "a/two").unwrap();
    host.src.hard_link("a/one", "a/z").unwrap();
    host.src.hard_link("a/one", "outside").unwrap();
    host.copy("a", "/", &CopyOptions::default()).unwrap();
    assert_eq!(host.tree(), "a/ a/one=1 a/two=1 a/z=1");
    let m = |p: &str| host.dst.metadata(p, false).unwrap();
    assert_eq!((m("a/one").ino, m("a/one").nlink), (m("a/z").ino, 3));
    assert_eq!(m("a/one").ino, m("a/two").ino);
}

#[test]
fn contents_of_all_sizes_and_holes() {
    use std::os::unix::fs::FileExt;
    let host = Host::new(&[], &[]);
    let src = host.tmp.path().join("src");
    for size in [0usize, 1, 65_535, 65_536, 65_537, 300_000] {
        let data: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
        write(src.join(format!("f{size}")), data).unwrap();
    }
    let sparse = std::fs::File::create(src.join("sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"middle", 20 << 20).unwrap();
    host.copy("/", "/", &contents()).unwrap();
    for name in std::fs::read_dir(&src).unwrap().map(|e| e.unwrap().file_name()) {
        let dst = host.tmp.path().join("dst");
        assert!(
            std::fs::read(src.join(&name)).unwrap() == std::fs::read(dst.join(&name)).unwrap(),
            "{name:?}"
        );
    }
    assert!(host.dst.metadata("sparse", false).unwrap().blocks < 1000);
}

#[test]
fn copies_can_be_stopped() {
    let host = Host::new(&["a=1"], &[]);
    let flag = Arc::new(AtomicBool::new(true));
    let options = CopyOptions { cancel: Some(flag.clone()), ..contents() };
    assert_eq!(host.copy("/", "/", &options).unwrap_err(), "copy was cancelled");
    flag.store(false, Ordering::Relaxed);
    host.copy("/", "/", &options).unwrap();
}

#[test]
fn wildcards() {
    let host = Host::new(
        &[
            "a.txt=1",
            "b.txt=2",
            "b.md=3",
            "sub/c.txt=4",
            "sub/deep/d.txt=5",
            "l->sub",
            "star*=6",
            "[x]=7",
            "e/",
        ],
        &[],
    );
    let find = |pattern: &str, follow| {
        let found = resolve_wildcards(&host.src, pattern, follow).map_err(|e| e.to_string());
        found.map(|list| list.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" "))
    };
    for (pattern, want) in [
        ("*.txt", "/a.txt /b.txt"),
        ("/b.*", "/b.md /b.txt"),
        ("*/*.txt", "/sub/c.txt"),
        ("s*", "/star* /sub"),
        ("sub/*", "/sub/c.txt /sub/deep"),
        ("sub/*/d.txt", "/sub/deep/d.txt"),
        ("sub?c.txt", ""),
        ("sub[/]c.txt", "/sub/c.txt"),
        ("none*", ""),
        ("plain/../x", "/x"),
        ("star\\*", "/star\\*"),
        ("[", ""),
        ("../../*.md", "/b.md"),
        ("e/*", ""),
        ("a.txt/*", ""),
        ("l/*", ""),
    ] {
        assert_eq!(find(pattern, false).unwrap(), want, "{pattern}");
    }
    assert_eq!(find("l/*.txt", true).unwrap(), "/sub/c.txt");
    assert_eq!(find("none/*", false).unwrap_err(), "stat /none: no such file or directory");
}

/// While a directory of the destination is swapped with a link to the outside, copies go inside or fail.
#[test]
fn a_racer_cannot_lead_a_copy_out() {
    let host = Host::new(&["d/canary=image", "d/new=x"], &["d/", "evil->../.."]);
    let dst = host.tmp.path().join("dst");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (cwd, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
                let _ = rustix::fs::renameat_with(cwd, dst.join("d"), cwd, dst.join("evil"), exchange);
            }
        });
        for i in 0..1500 {
            let options = CopyOptions { replace_existing: i % 2 == 0, ..contents() };
            let _ = host.copy("d", "/d", &options);
            let _ = host.copy("d/new", "/d/", &options);
            if !host.dst.exists("evil", false).unwrap() || !host.dst.exists("d", false).unwrap() {
                let _ = host.dst.symlink("../..", "evil");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
