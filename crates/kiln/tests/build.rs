//! Dockerfiles built end to end by the real binary.

mod common;

use common::world;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const STAGES: &str = "\
FROM busybox AS base
WORKDIR /src
FROM base AS one
COPY a.txt .
RUN cp a.txt one.txt
FROM base AS two
RUN --mount=type=cache,target=/cache echo run >> /cache/log && wc -l < /cache/log > two.txt
FROM scratch
COPY --from=one /src/one.txt /
COPY --from=two /src/two.txt /
";

#[test]
fn stages_share_and_rebuild_only_what_changed_root() {
    let Some(w) = world() else { return };
    w.context("a.txt", "first\n");
    w.context("unused.txt", "x");
    let dir = w.build_to_dir(STAGES, &[]);
    assert_eq!(fs::read_to_string(dir.join("one.txt")).unwrap(), "first\n");
    assert_eq!(fs::read_to_string(dir.join("two.txt")).unwrap().trim(), "1");

    let again = w.build(STAGES, &[]).success();
    assert_eq!(again.cached(), 6, "{}", again.stderr);

    w.context("unused.txt", "changed");
    let unrelated = w.build(STAGES, &[]).success();
    assert_eq!(unrelated.cached(), 6, "{}", unrelated.stderr);

    w.context("a.txt", "second\n");
    let changed = w.build(STAGES, &[]).success();
    assert!(changed.stderr.contains("[two 1/1] RUN") || changed.cached() >= 2, "{}", changed.stderr);
    let dir = w.build_to_dir(STAGES, &[]);
    assert_eq!(fs::read_to_string(dir.join("one.txt")).unwrap(), "second\n");
    assert_eq!(
        fs::read_to_string(dir.join("two.txt")).unwrap().trim(),
        "1",
        "the other branch did not run again"
    );
}

#[test]
fn a_rebuilt_step_finds_its_cache_mount_root() {
    let Some(w) = world() else { return };
    let steps = |n: u32| format!("RUN --mount=type=cache,target=/c echo {n} >> /c/log && cp /c/log /out");
    assert_eq!(w.out(&steps(1), &[]), "1\n");
    assert_eq!(w.out(&steps(2), &[]), "1\n2\n");
    assert_eq!(w.out(&format!("RUN test ! -e /c\n{}", steps(3)), &[]), "1\n2\n3\n");
}

#[test]
fn no_cache_runs_again_and_filters_by_stage_root() {
    let Some(w) = world() else { return };
    let file = "FROM busybox AS a\nRUN cat /proc/sys/kernel/random/uuid > /id\nFROM busybox AS b\nRUN true && cat /proc/sys/kernel/random/uuid > /id\n\
                FROM scratch\nCOPY --from=a /id /a\nCOPY --from=b /id /b\n";
    let ids = |args: &[&str]| {
        let dir = w.build_to_dir(file, args);
        ["a", "b"].map(|f| fs::read_to_string(dir.join(f)).unwrap())
    };
    let first = ids(&[]);
    assert_eq!(ids(&[]), first);
    let filtered = ids(&["--no-cache-filter", "b"]);
    assert_eq!(filtered[0], first[0]);
    assert_ne!(filtered[1], first[1]);
    let fresh = ids(&["--no-cache"]);
    assert!(fresh[0] != filtered[0] && fresh[1] != filtered[1]);
    assert_eq!(ids(&[]), fresh, "what ran without cache is remembered");
}

#[test]
fn arguments_and_variables_reach_the_step_root() {
    let Some(w) = world() else { return };
    let steps = "ARG A=default\nARG B\nENV C=${A}-${B:-none}\nARG TARGETARCH\nRUN echo $A $B $C ${TARGETARCH:+arch} > /out";
    assert_eq!(w.out(steps, &[]), "default default-none arch\n");
    assert_eq!(w.out(steps, &["--build-arg", "A=x", "--build-arg=B=y"]), "x y x-y arch\n");
}

#[test]
fn heredocs_make_scripts_and_files_root() {
    let Some(w) = world() else { return };
    let steps = "ARG NAME=kiln\nCOPY <<EOF <<'RAW' /etc/made/\nhello $NAME \\$x\nEOF\nhello $NAME\nRAW\nRUN <<EOF\ncat /etc/made/EOF /etc/made/RAW > /out\necho last >> /out\nEOF\nRUN <<'EOF' sh -s extra\necho $1 >> /out\nEOF";
    assert_eq!(w.out(steps, &[]), "hello kiln $x\nhello $NAME\nlast\nextra\n");
}

#[test]
fn secrets_are_seen_by_the_step_only_root() {
    let Some(w) = world() else { return };
    let secret = w.env.write("token.txt", "canary-9f3a");
    let arg = format!("id=token,src={}", secret.display());
    let file = "FROM busybox\nRUN --mount=type=secret,id=token,target=/root/deep/token --mount=type=secret,id=token,env=TOKEN \
                test $(wc -c < /root/deep/token) = 11 && test ${#TOKEN} = 11 && stat -c %a /root/deep/token | grep -q 400 && echo ok > /out\n\
                RUN test ! -e /root/deep && --mount=x; true\n";
    let dir = w.build_to_dir(file, &["--secret", &arg]);
    assert_eq!(fs::read_to_string(dir.join("out")).unwrap(), "ok\n");
    assert!(!dir.join("root/deep").exists(), "mount points do not stay");
    let said = w.build(file, &["--secret", &arg]).success();
    assert!(!said.stderr.contains("canary"));
    assert!(!w.daemon.as_ref().unwrap().log().contains("canary"));
    let grep = std::process::Command::new("grep")
        .args(["-rlI", "canary-9f3a"])
        .arg(w.env.path().join("root"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "no secret below the state directory");
    let missing = w.build("FROM busybox\nRUN --mount=type=secret,id=gone,required true\n", &[]).failure();
    assert!(missing.stderr.contains("gone"), "{}", missing.stderr);
}

#[test]
fn mounts_of_other_stages_and_the_context_root() {
    let Some(w) = world() else { return };
    w.context("conf/a.json", "{}");
    let file = "FROM busybox AS tools\nRUN mkdir /app && echo tool > /app/t\nFROM busybox AS work\n\
        RUN --mount=type=bind,source=conf/a.json,target=/tmp/a.json --mount=type=bind,from=tools,source=/app,target=/mnt/app --mount=type=tmpfs,target=/scratch \
        cat /tmp/a.json /mnt/app/t > /out && touch /scratch/x && ! touch /mnt/app/y 2>/dev/null\n\
        RUN --mount=type=bind,from=tools,source=/app,target=/rw,rw echo more >> /rw/t\nRUN test ! -e /rw && test ! -e /mnt/app && test ! -e /scratch\n";
    let dir = w.build_to_dir(file, &[]);
    assert_eq!(fs::read_to_string(dir.join("out")).unwrap(), "{}tool\n");
    assert!(!dir.join("tmp/a.json").exists());
}

#[test]
fn copy_keeps_and_changes_attributes_root() {
    let Some(w) = world() else { return };
    w.context("bin/run.sh", "#!/bin/sh\n");
    w.context("bin/sub/x", "x");
    w.context("bin/sub/y.md", "y");
    let file = "FROM busybox\nCOPY --chown=33:1000 --chmod=750 bin/run.sh /a/run.sh\nCOPY --chmod=u=rwX,go= bin /b\nCOPY --exclude=*.md bin/sub /c\n\
                COPY --parents bin/sub/x /d/\nCOPY --link bin/sub /e/\nCOPY --chown=daemon:users bin/sub/x /f\nRUN stat -c '%u:%g' /f /a/run.sh > /owners\n";
    let dir = w.build_to_dir(file, &[]);
    let mode = |p: &str| fs::metadata(dir.join(p)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("a/run.sh"), 0o750);
    assert_eq!((mode("b/run.sh"), mode("b/sub")), (0o600, 0o700));
    assert!(dir.join("c/x").exists() && !dir.join("c/y.md").exists());
    assert!(dir.join("d/bin/sub/x").exists() && dir.join("e/x").exists());
    assert_eq!(fs::read_to_string(dir.join("owners")).unwrap(), "1:100\n33:1000\n");
}

#[test]
fn add_unpacks_archives_and_downloads_root() {
    let Some(w) = world() else { return };
    let tar = std::process::Command::new("tar")
        .args(["-C", "/etc", "-czf", "-", "hostname"])
        .output()
        .unwrap()
        .stdout;
    w.context("files.tar.gz", &tar);
    let dir = w.build_to_dir("FROM scratch\nADD files.tar.gz /un/\nADD --unpack=false files.tar.gz /raw/\nCOPY files.tar.gz /copied/\n", &[]);
    assert!(dir.join("un/hostname").exists());
    assert_eq!(fs::read(dir.join("raw/files.tar.gz")).unwrap(), tar);
    assert_eq!(fs::read(dir.join("copied/files.tar.gz")).unwrap(), tar);

    let url = format!("http://{}/v2/", w.registry.host());
    let dir = w.build_to_dir(&format!("FROM scratch\nADD {url} /v2.json\n"), &[]);
    assert_eq!(fs::read_to_string(dir.join("v2.json")).unwrap(), "{}");
    assert_eq!(fs::metadata(dir.join("v2.json")).unwrap().mode() & 0o777, 0o600);
    let wrong = format!("FROM scratch\nADD --checksum=sha256:{} {url} /x\n", "0".repeat(64));
    let out = w.build(&wrong, &[]).failure();
    assert!(out.stderr.contains("digest mismatch") || out.stderr.contains("checksum"), "{}", out.stderr);
}

#[test]
fn ignored_files_do_not_arrive_root() {
    let Some(w) = world() else { return };
    for f in ["keep.txt", "a.md", "sub/b.md", "node_modules/x/y", "sub/keep.md"] {
        w.context(f, f);
    }
    w.context(".dockerignore", "*.md\nnode_modules\nsub/*.md\n!sub/keep.md\n");
    let dir = w.build_to_dir("FROM scratch\nCOPY . /\n", &[]);
    let mut names: Vec<_> = walk(&dir);
    names.sort();
    assert_eq!(names, [".dockerignore", "Dockerfile", "keep.txt", "sub", "sub/keep.md"]);
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let out = std::process::Command::new("find")
        .args([".", "-mindepth", "1", "-printf", "%P\\n"])
        .current_dir(dir)
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(String::from).collect()
}

#[test]
fn contexts_may_have_names_and_come_from_stdin_root() {
    let Some(w) = world() else { return };
    w.env.write("other/f.txt", "other");
    let other = format!("extra={}", w.env.path().join("other").display());
    let dir = w.build_to_dir("FROM scratch\nCOPY --from=extra f.txt /\n", &["--build-context", &other]);
    assert_eq!(fs::read_to_string(dir.join("f.txt")).unwrap(), "other");

    let out = w.env.path().join("stdin-out");
    let output = format!("type=local,dest={}", out.display());
    let _ = w
        .env
        .kiln_with_input(&["build", "-o", &output, "-"], b"FROM scratch\nCOPY <<EOF /x\nfrom stdin\nEOF\n")
        .success();
    assert_eq!(fs::read_to_string(out.join("x")).unwrap(), "from stdin\n");

    w.env.write("tarred/Build.file", "FROM scratch\nCOPY data /data\n");
    w.env.write("tarred/data", "tarred");
    let tar = std::process::Command::new("tar")
        .args(["-cf", "-", "."])
        .current_dir(w.env.path().join("tarred"))
        .output()
        .unwrap()
        .stdout;
    let _ = w.env.kiln_with_input(&["build", "-f", "Build.file", "-o", &output, "-"], &tar).success();
    assert_eq!(fs::read_to_string(out.join("data")).unwrap(), "tarred");
}

#[test]
fn users_networks_and_hosts_root() {
    let Some(w) = world() else { return };
    let steps = "RUN id > /out && chmod 666 /out\nUSER daemon\nRUN id >> /out\nUSER 1234:5678\nRUN id -u >> /out; id -g >> /out\nUSER root\n\
                 RUN --network=none ip -o link | wc -l >> /out\nRUN grep -c 10.1.2.3 /etc/hosts >> /out; hostname >> /out";
    let out = w.out(steps, &["--add-host", "db=10.1.2.3"]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("uid=0(root) gid=0(root)"), "{out}");
    assert!(lines[1].starts_with("uid=1(daemon) gid=1(daemon)") && lines[1].contains("100(users)"), "{out}");
    assert_eq!(&lines[2..], ["1234", "5678", "1", "1", "buildkitsandbox"], "{out}");
}

#[test]
fn the_sandbox_holds_root() {
    let Some(w) = world() else { return };
    let steps = "RUN (mount -t tmpfs none /mnt 2>&1; unshare -U true 2>&1; ls /proc/self/fd | wc -l; cat /proc/kcore 2>&1 | wc -c; \
                 touch /proc/sys/kernel/x 2>&1; grep -E 'CapEff|Seccomp:' /proc/self/status; echo $$) > /out 2>&1; true";
    let out = w.out(steps, &[]);
    assert!(out.contains("00000000a80425fb"), "Docker's default capabilities\n{out}");
    assert!(out.contains("Seccomp:\t2"), "{out}");
    assert!(
        out.to_lowercase().contains("permission denied") || out.contains("Operation not permitted"),
        "{out}"
    );
}

#[test]
fn two_builds_share_one_step_root() {
    let Some(w) = world() else { return };
    w.context("Dockerfile", "FROM busybox\nRUN sleep 2 && cat /proc/sys/kernel/random/uuid > /id\n");
    let spawn = |n: u32| {
        let output = format!("type=local,dest={}", w.env.path().join(format!("o{n}")).display());
        w.env.command(&["build", "-o", &output, "."]).spawn().unwrap()
    };
    let mut builds: Vec<_> = (0..3).map(spawn).collect();
    for b in &mut builds {
        assert!(b.wait().unwrap().success());
    }
    let ids: Vec<_> =
        (0..3).map(|n| fs::read_to_string(w.env.path().join(format!("o{n}/id"))).unwrap()).collect();
    assert!(ids.iter().all(|i| *i == ids[0]), "{ids:?}");
}

#[test]
fn image_ids_and_metadata_are_written_root() {
    let Some(w) = world() else { return };
    let iid = w.env.path().join("iid");
    let meta = w.env.path().join("meta.json");
    let file = "FROM busybox\nLABEL a=b\nCMD [\"sh\"]\n";
    let args = [
        "--output",
        "type=image",
        "-t",
        "app:1",
        "--iidfile",
        iid.to_str().unwrap(),
        "--metadata-file",
        meta.to_str().unwrap(),
    ];
    let _ = w.build(file, &args).success();
    let id = fs::read_to_string(&iid).unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&meta).unwrap()).unwrap();
    assert_eq!(json["image.name"], "docker.io/library/app:1");
    assert_eq!(json["containerimage.config.digest"], id);
    w.context("Dockerfile", file);
    let quiet = w.env.kiln(&["build", "-q", "--output", "type=image", "-t", "app:1", "."]).success();
    assert!(quiet.stdout.trim().starts_with("sha256:"), "{}", quiet.stdout);
    assert_eq!(quiet.stderr, "");
}

/// The same questions as under the Docker CLI, with the same answers and statuses.
#[test]
fn questions_are_answered_instead_of_building_root() {
    let Some(w) = world() else { return };
    let none = w.build("FROM busybox\nRUN false\n", &["--check"]).success();
    assert_eq!(none.stdout, "Check complete, no warnings found.\n");
    let some = w.build("FROM busybox AS first\nMAINTAINER me\n", &["--check"]).failure();
    assert!(some.stdout.starts_with("Check complete, 1 warning has been found!\n"), "{}", some.stdout);
    assert!(!some.stderr.contains("error"), "the answer says it: {}", some.stderr);
    let wrong = w.build("FROM busybox\nRUNN x\n", &["--check"]).failure();
    assert!(wrong.stderr.contains("ERROR: dockerfile parse error on line 2"), "{}", wrong.stderr);
    let metadata = w.env.path().join("md.json");
    let args = ["--call", "targets,format=json", "-t", "app", "--metadata-file", metadata.to_str().unwrap()];
    let targets = w.build("FROM busybox AS first\nFROM first AS second\n", &args).success();
    let answer: serde_json::Value = serde_json::from_str(&targets.stdout).unwrap();
    assert_eq!(answer["targets"][1]["name"], "second");
    let metadata: serde_json::Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    assert_eq!(metadata["result.json"], answer);
}

#[test]
fn a_dockerfile_is_fetched_root() {
    let Some(w) = world() else { return };
    w.context("a.txt", "from the context\n");
    let port = serve("FROM scratch\nCOPY a.txt /\n");
    let out = w.env.path().join("fetched");
    let dest = format!("type=local,dest={}", out.display());
    let build = |path: &str, dest: &str| {
        w.env.kiln(&["build", "-f", &format!("http://127.0.0.1:{port}/{path}"), "-o", dest, "."])
    };
    let built = build("Dockerfile", &dest).success();
    assert!(
        built.stderr.contains(&format!("[internal] load http://127.0.0.1:{port}/Dockerfile")),
        "{}",
        built.stderr
    );
    assert_eq!(fs::read_to_string(out.join("a.txt")).unwrap(), "from the context\n");
    let missing = build("missing", &dest).failure().stderr;
    assert!(missing.contains("invalid response status 404"), "{missing}");
}

/// Serves `text` at `/Dockerfile` for as long as the test runs.
fn serve(text: &'static str) -> u16 {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines =
                std::io::BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let is_it = lines.next().is_some_and(|l| l.contains(" /Dockerfile "));
            lines.find(String::is_empty);
            let (status, body) = if is_it { ("200 OK", text) } else { ("404 Not Found", "") };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    port
}
