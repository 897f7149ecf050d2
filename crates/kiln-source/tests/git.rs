//! Repositories, on disk and over http.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::*;
use kiln_source::SourceContext;

/// A repository to fetch from.
struct Repo {
    dir: tempfile::TempDir,
}

const ENV: [(&str, &str); 8] = [
    ("GIT_AUTHOR_NAME", "a"),
    ("GIT_AUTHOR_EMAIL", "a@b"),
    ("GIT_COMMITTER_NAME", "a"),
    ("GIT_COMMITTER_EMAIL", "a@b"),
    ("GIT_AUTHOR_DATE", "1000000000 +0000"),
    ("GIT_COMMITTER_DATE", "1000000000 +0000"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("HOME", "/nonexistent"),
];

impl Repo {
    fn new(format: &str) -> Self {
        let repo = Self { dir: tempfile::tempdir().unwrap() };
        repo.git(&["init", "-q", "-b", "main", &format!("--object-format={format}")]);
        repo.commit("file", "one");
        repo
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    fn git(&self, args: &[&str]) -> String {
        let out = Command::new("git").args(args).current_dir(self.path()).envs(ENV).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_string()
    }

    fn commit(&self, file: &str, text: &str) -> String {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", text]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn sha(&self, name: &str) -> String {
        self.git(&["rev-parse", name])
    }

    fn attrs<'a>(&'a self, url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut attrs = vec![("git.fullurl", url)];
        attrs.extend(more);
        attrs
    }
}

fn names(root: &kiln_fs::Root, path: &str) -> Vec<String> {
    root.read_dir(path).unwrap().into_iter().map(|e| e.name.to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn branches_tags_commits_and_the_default() {
    for format in ["sha1", "sha256"] {
        let repo = Repo::new(format);
        let first = repo.sha("HEAD");
        repo.git(&["tag", "-a", "-m", "t", "v1"]);
        repo.git(&["tag", "light"]);
        let tag = repo.sha("v1");
        let second = repo.commit("file", "two");
        repo.git(&["branch", "dir/x", "HEAD~1"]);
        let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
        for (fragment, key, pin, text) in [
            ("", second.as_str(), second.as_str(), "two"),
            ("#main", &second, &second, "two"),
            ("#refs/heads/main", &second, &second, "two"),
            ("#v1", &first, &tag, "one"),
            ("#light", &first, &first, "one"),
            ("#dir/x", &first, &first, "one"),
            (&format!("#{first}"), &first, &first, "one"),
        ] {
            let source = rooms.open(&format!("git://h/r{fragment}"), &repo.attrs(&url, &[])).unwrap();
            let keys = source.keys(&cx).await.unwrap();
            assert_eq!((keys.keys, keys.pin.as_str()), (vec![key.to_string()], pin), "{fragment}");
            let snapshot = source.snapshot(&cx).await.unwrap().unwrap();
            let view = rooms.view(&snapshot);
            assert_eq!(view.root().read("/file", 9).unwrap(), text.as_bytes(), "{fragment}");
            assert_eq!(names(view.root(), "/"), ["file"]);
            assert_eq!(view.root().metadata("/file", false).unwrap().mode, 0o644);
        }
        // Same commit, same snapshot, nothing fetched.
        let by = async |fragment: &str| {
            let source = rooms.open(&format!("git://h/r{fragment}"), &repo.attrs(&url, &[])).unwrap();
            source.snapshot(&cx).await.unwrap().unwrap()
        };
        assert_eq!(by("#v1").await, by(&format!("#{first}")).await);
        let missing = rooms.open("git://h/r#none", &repo.attrs(&url, &[])).unwrap();
        let error = missing.keys(&cx).await.unwrap_err().to_string();
        assert!(error.contains("repository does not contain ref none"), "{error}");
    }
}

#[tokio::test]
async fn kept_git_dir() {
    let repo = Repo::new("sha1");
    repo.git(&["tag", "-a", "-m", "t", "v1"]);
    let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
    let (head, tag) = (repo.sha("HEAD"), repo.sha("v1"));
    for (fragment, key) in [
        ("#main", format!("{head}.git#refs/heads/main")),
        ("#v1", format!("{tag}.git#refs/tags/v1")),
        (&format!("#{head}"), format!("{head}.git#{head}")),
    ] {
        let attrs = repo.attrs(&url, &[("git.keepgitdir", "true")]);
        let source = rooms.open(&format!("git://h/r{fragment}"), &attrs).unwrap();
        assert_eq!(source.keys(&cx).await.unwrap().keys, [key]);
        let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
        let root = view.root();
        assert_eq!(names(root, "/"), [".git", "file"]);
        assert_eq!(String::from_utf8(root.read("/.git/HEAD", 99).unwrap()).unwrap().trim(), head);
        let config = String::from_utf8(root.read("/.git/config", 9999).unwrap()).unwrap();
        assert!(config.contains(&format!("url = {url}")), "{config}");
        assert!(
            !root.exists("/.git/FETCH_HEAD", false).unwrap() && !root.exists("/.git/hooks", false).unwrap()
        );
    }
}

#[tokio::test]
async fn sub_directories() {
    let repo = Repo::new("sha1");
    repo.commit("a/b/inner", "x");
    std::os::unix::fs::symlink("/etc", repo.path().join("link")).unwrap();
    std::os::unix::fs::symlink("../../..", repo.path().join("a/up")).unwrap();
    repo.commit("a/c", "x");
    let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
    let open = |sub: &str| {
        rooms.open(&format!("git://h/r#main:{sub}"), &repo.attrs(&url, &[("git.keepgitdir", "true")]))
    };
    let source = open("/a/./b/../b/").unwrap();
    assert!(source.keys(&cx).await.unwrap().keys[0].ends_with(".git#refs/heads/main:a/b"));
    let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(names(view.root(), "/"), ["inner"]);
    for bad in ["link", "a/up/etc", "file", "missing", "link/../.."] {
        match open(bad).unwrap().snapshot(&cx).await {
            Err(e) => assert!(e.to_string().contains("git subpath"), "{e}"),
            // `..` is resolved as text before: what is left is the whole repository.
            Ok(s) => {
                assert_eq!(bad, "link/../..");
                assert!(rooms.view(&s.unwrap()).root().exists("/file", false).unwrap());
            }
        }
    }
}

#[tokio::test]
async fn checksums_and_times() {
    let repo = Repo::new("sha1");
    let head = repo.sha("HEAD");
    let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
    let open = |fragment: &str, more: &[(&str, &str)]| {
        let mut attrs = vec![("git.fullurl", url.as_str())];
        attrs.extend(more);
        rooms.open(&format!("git://h/r{fragment}"), &attrs)
    };
    open("#main", &[("git.checksum", &head[..7])]).unwrap().snapshot(&cx).await.unwrap();
    let error = open("#main", &[("git.checksum", "abc")]).unwrap().keys(&cx).await.unwrap_err().to_string();
    assert!(error.contains(&format!("expected checksum to match abc, got {head}")), "{error}");
    let source =
        open("", &[("git.checksum", &head), ("git.fetchbycommit", "true"), ("git.mtime", "commit")]).unwrap();
    assert_eq!(source.keys(&cx).await.unwrap().keys, [format!("{head}(mtime=commit)")]);
    let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
    for path in ["/", "/file"] {
        assert_eq!(view.root().metadata(path, false).unwrap().mtime.secs, 1_000_000_000, "{path}");
    }
    let gone = "0123456789".repeat(4);
    let missing = open(&format!("#{gone}"), &[]).unwrap().snapshot(&cx).await.unwrap_err().to_string();
    assert!(missing.contains("commit can not be found in the repository"), "{missing}");
}

#[tokio::test]
async fn a_branch_that_moves_after_it_was_resolved() {
    for rewritten in [false, true] {
        let repo = Repo::new("sha1");
        let old = repo.sha("HEAD");
        let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
        let source = rooms.open("git://h/r#main", &repo.attrs(&url, &[])).unwrap();
        assert_eq!(source.keys(&cx).await.unwrap().pin, old);
        if rewritten {
            repo.git(&["commit", "-q", "--amend", "-m", "other"]);
        } else {
            repo.commit("file", "two");
        }
        let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
        assert_eq!(view.root().read("/file", 9).unwrap(), b"one");
    }
}

#[tokio::test]
async fn submodules() {
    let (inner, middle, repo) = (Repo::new("sha1"), Repo::new("sha1"), Repo::new("sha1"));
    let add = |to: &Repo, from: &Repo, name: &str| {
        to.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &from.url(), name]);
        to.git(&["commit", "-q", "-m", "sub"]);
    };
    add(&middle, &inner, "deep");
    add(&repo, &middle, "sub");
    let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
    let view = |snapshot| rooms.view(&snapshot);
    let source = rooms.open("git://h/r", &repo.attrs(&url, &[])).unwrap();
    let v = view(source.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(names(v.root(), "/sub/deep"), ["file"]);
    let source = rooms.open("git://h/r", &repo.attrs(&url, &[("git.skipsubmodules", "true")])).unwrap();
    assert!(source.keys(&cx).await.unwrap().keys[0].ends_with("(skip-submodules)"));
    let v = view(source.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(names(v.root(), "/sub"), Vec::<String>::new());
    let source = rooms.open("git://h/r", &repo.attrs(&url, &[("git.keepgitdir", "true")])).unwrap();
    let v = view(source.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(names(v.root(), "/sub/deep"), [".git", "file"]);
}

/// Serves repositories below a directory with git's own CGI program; `auth` is the header that is wanted.
async fn http_server(root: PathBuf, auth: Option<&'static str>) -> Server {
    Server::start(move |r| {
        if auth.is_some_and(|a| r.header("authorization") != a) {
            return Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        let (path, query) = r.target.split_once('?').unwrap_or((&r.target, ""));
        let mut command = Command::new("git");
        command
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", &r.method)
            .env("CONTENT_TYPE", r.header("content-type"))
            .env("HTTP_CONTENT_ENCODING", r.header("content-encoding"))
            .env("GIT_PROTOCOL", r.header("git-protocol"))
            .env("REMOTE_ADDR", "x")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &r.body).unwrap();
        let out = child.wait_with_output().unwrap().stdout;
        let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
        let mut answer = Answer::new(200, &out[(end + 4).min(out.len())..]);
        for line in String::from_utf8_lossy(&out[..end]).lines() {
            match line.split_once(": ") {
                Some(("Status", s)) => answer.status = s[..3].parse().unwrap(),
                Some((k, v)) => answer = answer.with(k, v),
                None => {}
            }
        }
        answer
    })
    .await
}

#[tokio::test]
async fn credentials_go_to_the_server_and_nowhere_else() {
    // base64 of `x-access-token:canary-token`
    let server_auth = "basic eC1hY2Nlc3MtdG9rZW46Y2FuYXJ5LXRva2Vu";
    let repo = Repo::new("sha1");
    let root = repo.path().parent().unwrap().to_path_buf();
    let server = http_server(root, Some(server_auth)).await;
    let name = repo.path().file_name().unwrap().to_string_lossy().into_owned();
    let url = format!("http://{}/{name}/.git", server.host);
    let rooms = rooms();
    let attrs = [
        ("git.fullurl", url.as_str()),
        ("git.authtokensecret", "GIT_AUTH_TOKEN"),
        ("git.keepgitdir", "true"),
    ];
    let (cx, seen) =
        context(TestClient { secrets: vec![("GIT_AUTH_TOKEN", "canary-token")], ..Default::default() });
    let source = rooms.open("git://h/r#main", &attrs).unwrap();
    source.snapshot(&cx).await.unwrap().unwrap();

    let (quiet, _) = context(TestClient::default());
    let error = rooms.open("git://h/r#other", &attrs).unwrap().keys(&quiet).await.unwrap_err().to_string();
    assert!(error.contains("failed to fetch remote") && error.contains("git stderr"), "{error}");

    // The canary in the address itself: the server refuses it, and git would print it.
    let with_password = url.replace("http://", "http://user:canary-pass@");
    let attrs = [("git.fullurl", with_password.as_str()), ("git.keepgitdir", "true")];
    let (cx2, seen2) = context(TestClient::default());
    let source = rooms.open("git://h/r#main", &attrs).unwrap();
    let error = source.keys(&cx2).await.unwrap_err().to_string();
    assert!(error.contains("xxxxx:xxxxx@") && !error.contains("canary"), "{error}");

    for seen in [seen, seen2] {
        let shown = format!("{:?}", seen.0.lock().unwrap());
        assert!(!shown.contains("canary") && !shown.contains(server_auth), "{shown}");
    }
    assert_eq!(rooms.state_contains("canary"), None);
    assert_eq!(rooms.state_contains("eC1hY2Nlc3M"), None);
}

#[tokio::test]
async fn passwords_in_addresses_stay_out_of_the_checkout() {
    let repo = Repo::new("sha1");
    let server = http_server(repo.path().parent().unwrap().to_path_buf(), None).await;
    let name = repo.path().file_name().unwrap().to_string_lossy().into_owned();
    let url = format!("http://user:canary-pass@{}/{name}/.git", server.host);
    let rooms = rooms();
    let (cx, seen) = context(TestClient::default());
    let source = rooms.open("git://h/r#main", &[("git.fullurl", &url), ("git.keepgitdir", "true")]).unwrap();
    let snapshot = source.snapshot(&cx).await.unwrap().unwrap();
    assert!(!snapshot.description().contains("canary"));
    let config = rooms.view(&snapshot).root().read("/.git/config", 9999).unwrap();
    assert!(String::from_utf8(config).unwrap().contains("xxxxx:xxxxx@"));
    assert_eq!(rooms.state_contains("canary"), None);
    assert!(!format!("{:?}", seen.0.lock().unwrap()).contains("canary"));
    for usage in rooms.snapshots.list(&Default::default()).await.unwrap() {
        assert!(!usage.description.contains("canary"));
    }
}

#[tokio::test]
async fn hostile_repositories() {
    // A default branch that looks like an option.
    let repo = Repo::new("sha1");
    let canary = repo.path().join("canary");
    let branch = format!("refs/heads/--upload-pack=touch${{IFS}}{}", canary.display());
    let git_dir = repo.path().join(".git");
    std::fs::write(git_dir.join("HEAD"), format!("ref: {branch}\n")).unwrap();
    let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
    let _ = rooms.open("git://h/r", &repo.attrs(&url, &[])).unwrap().keys(&cx).await;
    assert!(!canary.exists());

    // Submodules that would run a command, leave the tree, or look like options.
    let repo = Repo::new("sha1");
    let sha = repo.sha("HEAD");
    for (path, url) in [
        ("sub", format!("ext::sh -c touch% {}", canary.display())),
        ("sub", format!("--upload-pack=touch {}", canary.display())),
        ("../out", "https://h/x".to_string()),
    ] {
        let modules = format!(
            "[submodule \"x\"]\n\tpath = {path}\n\turl = {url}\n\tupdate = !touch {}\n",
            canary.display()
        );
        std::fs::write(repo.path().join(".gitmodules"), modules).unwrap();
        repo.git(&["add", ".gitmodules"]);
        repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{sha},sub")]);
        repo.git(&["commit", "-q", "-m", "evil"]);
        let url = repo.url();
        let source = rooms.open("git://h/r#main", &repo.attrs(&url, &[])).unwrap();
        let result = source.snapshot(&cx).await;
        assert!(result.is_err(), "{path}");
        assert!(!canary.exists());
    }

    // A hook and a monitor in the tree are only files.
    let repo = Repo::new("sha1");
    repo.commit(".githooks/post-checkout", "#!/bin/sh\ntouch canary\n");
    let url = repo.url();
    let source = rooms.open("git://h/r#main", &repo.attrs(&url, &[("git.keepgitdir", "true")])).unwrap();
    let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
    assert!(!view.root().exists("/canary", false).unwrap());
}

#[tokio::test]
async fn submodules_cannot_read_repositories_of_this_machine() {
    let (secret, repo) = (Repo::new("sha1"), Repo::new("sha1"));
    for url in [secret.url(), secret.path().display().to_string()] {
        std::fs::write(
            repo.path().join(".gitmodules"),
            format!("[submodule \"s\"]\n\tpath = s\n\turl = {url}\n"),
        )
        .unwrap();
        repo.git(&["add", ".gitmodules"]);
        repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},s", secret.sha("HEAD"))]);
        repo.git(&["commit", "-q", "-m", "evil"]);
        let server = http_server(repo.path().parent().unwrap().to_path_buf(), None).await;
        let name = repo.path().file_name().unwrap().to_string_lossy().into_owned();
        let remote = format!("http://{}/{name}/.git", server.host);
        let rooms = rooms_with(false);
        for keep in ["false", "true"] {
            let attrs = [("git.fullurl", remote.as_str()), ("git.keepgitdir", keep)];
            let source = rooms.open("git://h/r", &attrs).unwrap();
            let error = source.snapshot(&SourceContext::anonymous()).await.unwrap_err().to_string();
            assert!(error.contains("transport 'file' not allowed"), "{error}");
        }
        let attrs =
            [("git.fullurl", remote.as_str()), ("git.skipsubmodules", "true"), ("git.keepgitdir", "true")];
        rooms.open("git://h/r", &attrs).unwrap().snapshot(&SourceContext::anonymous()).await.unwrap();
    }
}

/// A commit is there only when all that belongs to it is.
#[tokio::test]
async fn a_fetch_may_be_killed_at_any_moment() {
    let repo = Repo::new("sha1");
    // Not more objects than git would write one by one.
    for n in 0..80 {
        std::fs::write(repo.path().join(format!("f{n}")), n.to_string()).unwrap();
    }
    repo.git(&["add", "."]);
    repo.git(&["commit", "-q", "-m", "many"]);
    let (cx, url) = (SourceContext::anonymous(), repo.url());
    for n in 0..20 {
        let rooms = rooms();
        let open = || rooms.open("git://h/r#main", &repo.attrs(&url, &[])).unwrap();
        let wait = std::time::Duration::from_millis(3 * n);
        let _ = tokio::time::timeout(wait, open().snapshot(&cx)).await;
        let view = rooms.view(&open().snapshot(&cx).await.unwrap().unwrap());
        assert_eq!(view.root().read("/f79", 9).unwrap(), b"79");
    }
}

#[tokio::test]
async fn a_killed_fetch_leaves_a_usable_repository() {
    let repo = Repo::new("sha1");
    let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
    for n in 0..5 {
        let source = rooms.open("git://h/r#main", &repo.attrs(&url, &[])).unwrap();
        let wait = std::time::Duration::from_millis(5 * n);
        let _ = tokio::time::timeout(wait, source.snapshot(&cx)).await;
    }
    // Locks as a killed git leaves them.
    rooms.open("git://h/r#main", &repo.attrs(&url, &[])).unwrap().snapshot(&cx).await.unwrap();
    let mut found = 0;
    let mut dirs = vec![rooms.dir.path().to_path_buf()];
    while let Some(dir) = dirs.pop() {
        if dir.join("objects").is_dir() && dir.join("HEAD").is_file() {
            std::fs::write(dir.join("shallow.lock"), "").unwrap();
            std::fs::write(dir.join("packed-refs.lock"), "").unwrap();
            found += 1;
            continue;
        }
        dirs.extend(std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    }
    assert!(found > 0);
    repo.commit("file", "two");
    let source = rooms.open("git://h/r#main", &repo.attrs(&url, &[])).unwrap();
    let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(view.root().read("/file", 9).unwrap(), b"two");
    assert_eq!(std::fs::read_dir(rooms.dir.path().join("scratch")).unwrap().count(), 0);
}

#[tokio::test]
async fn bundles_go_out_and_come_in() {
    for format in ["sha1", "sha256"] {
        let repo = Repo::new(format);
        let first = repo.sha("HEAD");
        repo.git(&["tag", "-a", "-m", "t", "v1"]);
        let second = repo.commit("file", "two");
        let (rooms, cx, url) = (rooms(), SourceContext::anonymous(), repo.url());
        let out = |fragment: &str| {
            let attrs = repo.attrs(&url, &[("git.checkoutbundle", "true")]);
            rooms.open(&format!("git://h/r{fragment}"), &attrs).unwrap()
        };
        let plain = rooms.open("git://h/r", &repo.attrs(&url, &[])).unwrap().keys(&cx).await.unwrap();
        let source = out("#main");
        assert_eq!(source.keys(&cx).await.unwrap().keys, [format!("{}(bundle)", plain.keys[0])]);
        for (fragment, tip, want) in [
            ("#main", "refs/heads/main", second.as_str()),
            ("#v1", "refs/tags/v1", &repo.sha("v1")),
            (&format!("#{first}"), "refs/heads/main", &first),
        ] {
            let snapshot = out(fragment).snapshot(&cx).await.unwrap().unwrap();
            let view = rooms.view(&snapshot);
            assert_eq!(names(view.root(), "/"), ["bundle"], "{fragment}");
            let bundle = view.root().read("/bundle", 1 << 20).unwrap();
            std::fs::write(repo.path().join("../bundle-test"), &bundle).unwrap();
            let heads = repo.git(&["ls-remote", "../bundle-test"]);
            std::fs::remove_file(repo.path().join("../bundle-test")).unwrap();
            assert_eq!(heads.lines().next().unwrap(), format!("{want}\t{tip}"), "{fragment}");
        }
        // In again, at a remote that does not answer: all comes from the bundle, with its history.
        let snapshot = out("#main").snapshot(&cx).await.unwrap().unwrap();
        let bundle = rooms.view(&snapshot).root().read("/bundle", 1 << 20).unwrap();
        let digest = kiln_digest::Digest::sha256(&bundle);
        let client = || TestClient { blobs: [(digest, bundle.clone())].into(), ..TestClient::default() };
        let locator = format!("oci-layout+blob://s@{digest}");
        let other = closed_rooms();
        for (reference, checksum, text) in
            [("main", &second, "two"), ("", &second, "two"), (first.as_str(), &first, "one")]
        {
            let attrs = [
                ("git.fullurl", "https://no.invalid/r"),
                ("git.bundle", locator.as_str()),
                ("git.checksum", checksum.as_str()),
            ];
            let source = other.open(&format!("git://h/r#{reference}"), &attrs).unwrap();
            let (cx, _) = context(client());
            let snapshot = source.snapshot(&cx).await.unwrap().unwrap();
            assert_eq!(other.view(&snapshot).root().read("/file", 9).unwrap(), text.as_bytes());
        }
    }
}

/// Without `file://` remotes, as for remote clients.
fn closed_rooms() -> Rooms {
    rooms_with(false)
}

#[tokio::test]
async fn bundles_that_are_wrong() {
    let repo = Repo::new("sha1");
    let sha = repo.sha("HEAD");
    let rooms = rooms_with(false);
    let open = |locator: &str, more: &[(&str, &str)]| {
        let mut attrs = vec![("git.fullurl", "https://no.invalid/r"), ("git.bundle", locator)];
        attrs.extend(more);
        rooms.open("git://h/r#main", &attrs)
    };
    let data = b"no bundle".to_vec();
    let digest = kiln_digest::Digest::sha256(&data);
    let locator = format!("oci-layout+blob://s@{digest}");
    let parse = |locator: &str| open(locator, &[("git.checksum", &sha)]).err().unwrap().to_string();
    assert!(parse("s@sha256:00").contains("missing scheme"));
    assert!(parse("https://h/b").contains("failed to parse git.bundle locator"));
    assert!(open(&locator, &[]).err().unwrap().to_string().contains("requires git.checksum"));
    let both = [("git.checksum", sha.as_str()), ("git.checkoutbundle", "true"), ("git.keepgitdir", "true")];
    assert!(open(&locator, &both).err().unwrap().to_string().contains("incompatible"));
    let source = open(&locator, &[("git.checksum", &sha)]).unwrap();
    let (cx, _) = context(TestClient { blobs: [(digest, data)].into(), ..TestClient::default() });
    assert!(source.keys(&cx).await.unwrap_err().to_string().contains("inspect bundle"));
    let (cx, _) = context(TestClient { blobs: [(digest, b"lie".to_vec())].into(), ..TestClient::default() });
    assert!(source.keys(&cx).await.unwrap_err().to_string().contains("digest mismatch"));
    // The commit that was asked for is not in it.
    repo.git(&["bundle", "create", "-q", "../wrong-bundle", "main"]);
    let data = std::fs::read(repo.path().join("../wrong-bundle")).unwrap();
    std::fs::remove_file(repo.path().join("../wrong-bundle")).unwrap();
    let digest = kiln_digest::Digest::sha256(&data);
    let source =
        open(&format!("oci-layout+blob://s@{digest}"), &[("git.checksum", &"a".repeat(40))]).unwrap();
    let (cx, _) = context(TestClient { blobs: [(digest, data)].into(), ..TestClient::default() });
    assert!(source.keys(&cx).await.unwrap_err().to_string().contains("not found in bundle"));
}

#[tokio::test]
async fn what_a_build_has_learnt_stays_true_for_it() {
    let repo = Repo::new("sha1");
    repo.git(&["tag", "-a", "-m", "t", "v1"]);
    let (tag, first, url) = (repo.sha("v1"), repo.sha("HEAD"), repo.url());
    let rooms = rooms();
    let build = || {
        let memos = vec![std::sync::Arc::new(kiln_source::Memo::default())];
        SourceContext { memos, ..SourceContext::anonymous() }
    };
    let open = || rooms.open("git://h/r#v1", &repo.attrs(&url, &[])).unwrap();
    let cx = build();
    let objects = open().git_objects(&cx).await.unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(text(&objects.commit).starts_with("tree "), "{}", text(&objects.commit));
    assert!(text(&objects.tag.unwrap()).starts_with(&format!("object {first}\n")));
    let second = repo.commit("file", "two");
    repo.git(&["tag", "-f", "v1"]);
    assert_eq!(open().keys(&cx).await.unwrap().pin, tag);
    assert_eq!(open().keys(&build()).await.unwrap().pin, second);
    let plain = open().git_objects(&build()).await.unwrap();
    assert_eq!(plain.tag, None);
}
