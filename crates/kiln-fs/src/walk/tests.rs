use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

fn tree(files: &[&str]) -> (tempfile::TempDir, Root) {
    let tmp = tempfile::tempdir().unwrap();
    for f in files {
        let path = tmp.path().join(f);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match f.ends_with('/') {
            true => std::fs::create_dir_all(&path).unwrap(),
            false => std::fs::write(&path, f).unwrap(),
        }
    }
    let root = Root::open(tmp.path()).unwrap();
    (tmp, root)
}

fn paths_of(root: &Root, start: &str, step: impl Fn(&Path) -> Step) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    walk::<Error>(root, start, |e| {
        seen.push(e.path().to_path_buf());
        Ok(step(e.path()))
    })
    .unwrap();
    seen
}

#[test]
fn order_is_that_of_paths_with_slash_smallest() {
    let (_tmp, root) = tree(&["a/b", "a-b/c", "a.txt", "a/B", "b/", "a/b.d/x", "Z"]);
    let seen = paths_of(&root, "/", |_| Step::Continue);
    let want = ["Z", "a", "a/B", "a/b", "a/b.d", "a/b.d/x", "a-b", "a-b/c", "a.txt", "b"];
    assert_eq!(seen, want.map(PathBuf::from));
    let key = |p: &PathBuf| p.to_str().unwrap().replace('/', "\0");
    assert!(seen.is_sorted_by_key(key));
}

#[test]
fn pruning_and_stopping() {
    let (_tmp, root) = tree(&["a/x", "b/x", "c"]);
    let skip = |p: &Path| if p == Path::new("a") { Step::SkipDir } else { Step::Continue };
    assert_eq!(paths_of(&root, "", skip), ["a", "b", "b/x", "c"].map(PathBuf::from));
    let stop = |p: &Path| if p == Path::new("b") { Step::Stop } else { Step::Continue };
    assert_eq!(paths_of(&root, "/", stop), ["a", "a/x", "b"].map(PathBuf::from));
    assert_eq!(paths_of(&root, "/b", |_| Step::Continue), ["x"].map(PathBuf::from));
    assert!(walk::<Error>(&root, "none", |_| Ok(Step::Continue)).unwrap_err().is_not_found());
}

#[test]
fn entries_tell_all_about_themselves() {
    let (tmp, root) = tree(&["dir/file"]);
    symlink("/etc/passwd", tmp.path().join("link")).unwrap();
    let mut seen = Vec::new();
    walk::<Error>(&root, "/", |e| {
        let meta = e.metadata()?;
        let what = match e.kind()? {
            FileKind::File => std::io::read_to_string(e.open()?).unwrap(),
            FileKind::Symlink => e.read_link()?.display().to_string(),
            other => format!("{other:?}"),
        };
        assert!(e.xattrs()?.is_empty());
        assert_eq!(e.open().is_ok(), meta.is_file());
        seen.push(format!("{} {what}", e.path().display()));
        Ok(Step::Continue)
    })
    .unwrap();
    assert_eq!(seen, ["dir Dir", "dir/file dir/file", "link /etc/passwd"]);
}

#[test]
fn links_are_not_entered_but_the_start_may_be_one() {
    let (tmp, root) = tree(&["real/x"]);
    symlink("/real", tmp.path().join("link")).unwrap();
    assert_eq!(paths_of(&root, "link", |_| Step::Continue), ["x"].map(PathBuf::from));
    assert_eq!(paths_of(&root, "/", |_| Step::Continue), ["link", "real", "real/x"].map(PathBuf::from));
}

#[test]
fn what_vanishes_is_skipped() {
    let (tmp, root) = tree(&["a/x", "b/x", "c"]);
    let mut seen = Vec::new();
    walk::<Error>(&root, "/", |e| {
        seen.push(e.path().to_path_buf());
        if e.path() == Path::new("a") {
            std::fs::remove_dir_all(tmp.path().join("a")).unwrap();
        }
        Ok(Step::Continue)
    })
    .unwrap();
    assert_eq!(seen, ["a", "b", "b/x", "c"].map(PathBuf::from));
}

#[test]
fn errors_of_the_visitor_end_the_walk() {
    #[derive(Debug, PartialEq)]
    struct Mine(String);
    impl From<Error> for Mine {
        fn from(e: Error) -> Mine {
            Mine(e.to_string())
        }
    }
    let (_tmp, root) = tree(&["a", "b"]);
    let e = walk(&root, "/", |e| match e.path() == Path::new("b") {
        true => Err(Mine("no".into())),
        false => Ok(Step::Continue),
    });
    assert_eq!(e, Err(Mine("no".into())));
}
