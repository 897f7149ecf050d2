//! Secrets and credentials appear nowhere (CVE-2023-26054): not in what is said, logged, kept or made.

use crate::canary::{files_with, holds};
use crate::common::{World, world_without_daemon};
use crate::server::{Answer, Request, serve};
use kiln_testkit::{Need, Output, require};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SECRET: &str = "Leak-Canary-77ab";

fn noisy_world() -> Option<World> {
    let mut w = world_without_daemon()?;
    w.start_with(&["--log-level", "trace"]);
    Some(w)
}

/// Builds with every kind of progress, as an archive with plain layers, saying all there is to say.
fn build(w: &World, dockerfile: &str, args: &[&str]) -> (Vec<Output>, PathBuf) {
    let tar = w.env.path().join("image.tar");
    let meta = w.env.path().join("meta.json");
    let output = format!("type=oci,dest={},compression=uncompressed,force-compression=true", tar.display());
    let fixed = ["-t", "app:1", "--debug", "--metadata-file", meta.to_str().unwrap(), "--output", &output];
    w.context("Dockerfile", dockerfile);
    let one = |progress| {
        let base = ["build", "--no-cache", "--progress", progress];
        w.env.kiln(&[&base[..], &fixed, args, &["."]].concat())
    };
    (["plain", "rawjson", "quiet"].map(one).into(), tar)
}

/// Where `text` is found: outputs, log, archive, metadata, and every file of the state directory.
fn places(w: &World, text: &str, said: &[Output], tar: &Path) -> Vec<String> {
    let mut found: Vec<String> = said
        .iter()
        .flat_map(|o| [&o.stdout, &o.stderr])
        .filter(|s| s.contains(text))
        .map(|s| format!("said: {s}"))
        .collect();
    let log = w.daemon.as_ref().unwrap().log();
    found.extend(log.lines().filter(|l| l.contains(text)).map(|l| format!("log: {l}")));
    for file in [tar.to_path_buf(), w.env.path().join("meta.json")] {
        found.extend(std::fs::read(&file).is_ok_and(|d| holds(&d, text)).then(|| file.display().to_string()));
    }
    for dir in ["root", "run", "tmp"] {
        let files = files_with(&w.env.path().join(dir), text);
        // The daemon's copy of the Dockerfile is the Dockerfile.
        let files = files.iter().filter(|p| !p.ends_with("Dockerfile"));
        found.extend(files.map(|p| p.display().to_string()));
    }
    let du = w.env.kiln(&["du", "--verbose"]);
    found.extend((du.stdout + &du.stderr).contains(text).then(|| "du".to_string()));
    found
}

#[track_caller]
fn nowhere(w: &World, said: &[Output], tar: &Path) {
    use base64_of as encoded;
    for text in [SECRET.to_string(), encoded(&format!("user:{SECRET}")), SECRET.replace('-', "%2D")] {
        assert_eq!(places(w, &text, said, tar), Vec::<String>::new(), "{text}");
    }
}

fn base64_of(text: &str) -> String {
    let mut child =
        Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// The search finds what is not secret, so it would find what is.
#[test]
fn build_secrets_appear_nowhere_root() {
    let Some(w) = noisy_world() else { return };
    let file = w.env.write("secret", SECRET);
    let secret = format!("id=s,src={}", file.display());
    let dockerfile = "FROM busybox\nARG SHOWN=public-canary-1\nENV SHOWN=$SHOWN\n\
        RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S test -n \"$S\" && test -s /run/secrets/s && echo $SHOWN > /shown\n\
        RUN --mount=type=secret,id=s,target=/etc/s test -s /etc/s && sleep 0.1; wc -c < /etc/s\n\
        RUN test ! -e /etc/s && test ! -e /run/secrets/s && test -z \"$S\"\n";
    let (said, tar) = build(&w, dockerfile, &["--secret", &secret]);
    assert!(said.iter().all(|o| o.status == 0), "{said:?}");
    nowhere(&w, &said, &tar);
    let shown = places(&w, "public-canary-1", &said, &tar).join("\n");
    for place in ["said: ", "image.tar", "root/"] {
        assert!(shown.contains(place), "{place}: {shown}");
    }
    let failing = "FROM busybox\nRUN --mount=type=secret,id=s,env=S false\n";
    let (said, tar) = build(&w, failing, &["--secret", &secret]);
    assert!(said.iter().all(|o| o.status == 1));
    nowhere(&w, &said, &tar);
}

fn authorized(r: &Request) -> bool {
    r.headers.get("authorization") == Some(&format!("Basic {}", base64_of(&format!("user:{SECRET}"))))
}

/// Credentials in the address of an `ADD` download: of one that works, that is refused, that redirects, that breaks.
#[test]
fn credentials_of_downloads_appear_nowhere_root() {
    let Some(w) = noisy_world() else { return };
    let other = serve(|r| Answer::ok("text/plain", format!("{:?}", r.headers.get("authorization"))));
    let elsewhere = format!("Location: http://{other}/y");
    let host = serve(move |r| match (authorized(r), r.target.as_str()) {
        (false, _) => Answer(401, vec!["WWW-Authenticate: Basic realm=\"x\"".into()], b"no".to_vec()),
        (true, "/x") => Answer::ok("text/plain", "fine"),
        (true, "/moved") => Answer(302, vec![elsewhere.clone()], Vec::new()),
        (true, "/short") => Answer(200, vec!["Content-Length: 100".into()], b"x".to_vec()),
        _ => Answer::status(403),
    });
    for (path, status) in [("x", 0), ("moved", 0), ("gone", 1), ("short", 1)] {
        let add = format!("FROM busybox\nADD http://user:{SECRET}@{host}/{path} /got\nRUN cat /got\n");
        let (said, tar) = build(&w, &add, &[]);
        assert!(said.iter().all(|o| o.status == status), "{path}: {said:?}");
        nowhere(&w, &said, &tar);
    }
    let refused = format!("FROM busybox\nADD http://other:{SECRET}@{host}/x /got\n");
    let (said, tar) = build(&w, &refused, &[]);
    assert!(said.iter().all(|o| o.status == 1));
    nowhere(&w, &said, &tar);
}

/// `git http-backend` behind the server.
fn git_answer(projects: &Path, r: &Request) -> Answer {
    let (path, query) = r.target.split_once('?').unwrap_or((&r.target, ""));
    let header = |name: &str| r.headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("GIT_PROJECT_ROOT", projects)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &r.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("CONTENT_LENGTH", r.body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&r.body).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    let end = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(out.len());
    let head = String::from_utf8_lossy(&out[..end]).into_owned();
    let status =
        head.lines().find_map(|l| l.strip_prefix("Status: ")).map_or(200, |s| s[..3].parse().unwrap());
    let headers = head.lines().filter(|l| !l.starts_with("Status")).map(String::from).collect();
    Answer(status, headers, out.get(end + 4..).unwrap_or_default().to_vec())
}

/// A repository with one commit, as the server has it.
fn repository(w: &World) -> PathBuf {
    let projects = w.env.path().join("git");
    w.env.write("work/Dockerfile", "FROM busybox\nCOPY . /src\nRUN ls -a /src\n");
    w.env.write("work/f", "fine");
    let script = "git init -q -b main . && git add . && git -c user.name=a -c user.email=a@b commit -qm one && git clone -q --bare . ../git/repo.git";
    let status = Command::new("sh")
        .args(["-c", script])
        .current_dir(w.env.path().join("work"))
        .env("HOME", w.env.path())
        .status()
        .unwrap();
    assert!(status.success());
    projects
}

/// Credentials in the address of a repository, as `ADD`, with its `.git`, as context, and where it is not.
#[test]
fn credentials_of_repositories_appear_nowhere_root() {
    if !require(&[Need::Program("git")]) {
        return;
    }
    let Some(w) = noisy_world() else { return };
    let projects = repository(&w);
    let host = serve(move |r| {
        if authorized(r) {
            git_answer(&projects, r)
        } else {
            Answer(401, vec!["WWW-Authenticate: Basic realm=\"x\"".into()], Vec::new())
        }
    });
    let address = format!("http://user:{SECRET}@{host}/repo.git");
    for (dockerfile, status) in [
        (format!("FROM busybox\nADD {address} /src\nRUN cat /src/f\n"), 0),
        (format!("FROM busybox\nADD --keep-git-dir=true {address}#main /src\nRUN cat /src/.git/config\n"), 0),
        (format!("FROM busybox\nADD {address}#no-such-branch /src\n"), 1),
        (format!("FROM busybox\nADD http://user:{SECRET}@{host}/none.git /src\n"), 1),
        (format!("FROM busybox\nADD http://other:{SECRET}@{host}/repo.git /src\n"), 1),
    ] {
        let (said, tar) = build(&w, &dockerfile, &[]);
        assert!(said.iter().all(|o| o.status == status), "{dockerfile}: {said:?}");
        nowhere(&w, &said, &tar);
    }
    let tar = w.env.path().join("image.tar");
    let output = format!("type=oci,dest={}", tar.display());
    let said = w.env.kiln(&["build", "--debug", "--progress", "rawjson", "-o", &output, &address]).success();
    nowhere(&w, &[said], &tar);
}

/// Credentials in image references and registry configuration are not addresses at all, but must not be echoed either.
#[test]
fn credentials_of_registries_appear_nowhere_root() {
    let Some(w) = noisy_world() else { return };
    let auth = base64_of(&format!("user:{SECRET}"));
    let host = serve(|_| Answer(401, vec!["WWW-Authenticate: Basic realm=\"x\"".into()], b"no".to_vec()));
    w.env.write("home/.docker/config.json", format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#));
    let (said, tar) = build(&w, &format!("FROM {host}/team/app:1\nRUN true\n"), &[]);
    assert!(said.iter().all(|o| o.status == 1));
    nowhere(&w, &said, &tar);
}
