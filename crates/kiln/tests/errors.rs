//! Bad input ends in one clear message, exit status 1, and a daemon that serves the next build.

mod common;

use common::world;
use kiln_testkit::Need;

/// Dockerfile, arguments, what the message must hold.
const CASES: &[(&str, &[&str], &[&str])] = &[
    ("FORM busybox\n", &[], &["unknown instruction: FORM (did you mean FROM?)", "line 1"]),
    (
        "FROM busybox\nRUN false\n",
        &[],
        &[
            "process \"/bin/sh -c false\" did not complete successfully: exit code: 1",
            "Dockerfile:2",
            ">>> RUN false",
        ],
    ),
    ("FROM busybox\nRUN echo seen-in-log; exit 7\n", &[], &["exit code: 7", "seen-in-log", "> [2/2] RUN"]),
    ("FROM scratch\nCOPY missing.txt /\n", &[], &["\"/missing.txt\": not found", "Dockerfile:2"]),
    ("FROM busybox AS a\nCOPY --from=nope x /\n", &[], &["nope"]),
    ("FROM busybox\n", &["--target", "nope"], &["target stage \"nope\" could not be found"]),
    (
        "FROM busybox\nRUN --mount=type=bnid,target=/x true\n",
        &[],
        &["unsupported mount type \"bnid\"", "Dockerfile:2"],
    ),
    ("FROM busybox\nRUN --mnt=type=bind true\n", &[], &["unknown flag: --mnt", "did you mean"]),
    ("FROM busybox\n", &["--output", "type=locl,dest=x"], &["locl"]),
    ("FROM busybox\n", &["--output", "type=local,dset=x"], &["dset"]),
    ("FROM busybox\n", &["--secret", "id=a,src=does-not-exist"], &["does-not-exist"]),
    ("FROM busybox\n", &["-f", "Missing.file"], &["Missing.file"]),
    ("FROM busybox\nRUN no-such-program\n", &[], &["no-such-program", "exit code: 127"]),
    ("FROM busybox\nRUN [\"/no/such\"]\n", &[], &["/no/such"]),
    ("FROM busybox\nUSER nobody-here\nRUN true\n", &[], &["nobody-here"]),
    ("# nothing\n", &[], &["no instructions"]),
    // Not process 1 itself, which the kernel protects from its own signals.
    ("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n", &[], &["exit code: 137"]),
];

#[test]
fn each_mistake_has_its_message_root() {
    let Some(w) = world() else { return };
    for (file, args, wanted) in CASES {
        let out = w.build(file, args).failure();
        for text in *wanted {
            assert!(out.stderr.contains(text), "{file}{args:?}: no {text:?} in:\n{}", out.stderr);
        }
        assert_eq!(out.stdout, "", "{file}");
    }
    let _ = w.build("FROM busybox\nRUN true\n", &[]).success();
}

/// Whoever follows a build learns of every step how it ended.
#[test]
fn steps_that_ran_beside_a_failed_one_are_shown_as_canceled_root() {
    let Some(w) = world() else { return };
    // The one fails when the other is surely under way: they share a directory.
    let file = "FROM busybox AS slow
RUN --mount=type=cache,id=meet,target=/meet touch /meet/$N; sleep 1000
FROM busybox AS wrong
RUN --mount=type=cache,id=meet,target=/meet until [ -e /meet/$N ]; do sleep 0.1; done; exit 7
FROM busybox
COPY --from=slow / /a
COPY --from=wrong / /b
";
    for n in 0..4 {
        let out = w.build(&file.replace("$N", &n.to_string()), &[]).failure();
        assert_eq!(out.stderr.matches(" CANCELED\n").count(), 1, "{}", out.stderr);
    }
}

#[test]
fn flags_that_are_not_built_are_refused_by_name_root() {
    let Some(w) = world() else { return };
    for args in [
        &["--cache-to", "type=local,dest=x"][..],
        &["--cache-from", "type=local,src=x"],
        &["--attest", "type=sbom"],
        &["--sbom=true"],
        &["--platform", "linux/amd64,linux/arm64"],
    ] {
        let out = w.build("FROM scratch\nCOPY <<E /x\nE\n", args).failure();
        assert!(out.stderr.contains(args[0].split('=').next().unwrap()), "{args:?}: {}", out.stderr);
    }
}

/// An error brings the Dockerfile along; a large one must not break the connection.
#[test]
fn errors_of_large_dockerfiles_arrive_root() {
    let Some(w) = world() else { return };
    for lines in [100, 1000, 50_000] {
        let file = format!("FROM busybox\n{}RUN exit 9\n", "# twenty bytes each..\n".repeat(lines));
        let out = w.build(&file, &[]).failure();
        assert!(out.stderr.contains("exit code: 9"), "{lines}: {}", out.stderr);
        assert!(out.stderr.contains(">>> RUN exit 9"), "{lines}: {}", out.stderr);
    }
    let out = w.build(&format!("FROM busybox\nRUN true {}\n", "x".repeat(100_000)), &[]).failure();
    assert!(out.stderr.contains("65535"), "{:.3000}", out.stderr);
}

#[test]
fn a_failed_export_leaves_nothing_root() {
    let Some(w) = world() else { return };
    let dest = w.env.path().join("x.tar");
    let output = format!("type=oci,dest={}", dest.display());
    let _ = w.build("FROM busybox\nRUN false\n", &["--output", &output]).failure();
    assert!(!dest.exists());
    let file = w.env.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = format!("type=oci,dest={}/folder/x.tar", file.display());
    let out = w.build("FROM busybox\n", &["--output", &output]).failure();
    assert!(out.stderr.contains(&format!("{}/folder", file.display())), "{}", out.stderr);
}

#[test]
fn a_registry_that_fails_is_named_root() {
    use std::io::{Read, Write};
    let Some(w) = world() else { return };
    for (answer, wanted) in [
        (
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
            "pull access denied",
        ),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "denied"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "not found"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(50) {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ =
                    stream.write_all(answer.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes());
            }
        });
        let out = w.build(&format!("FROM {host}/team/app:1\n"), &[]).failure();
        assert!(out.stderr.contains(&format!("{host}/team/app:1")), "{}", out.stderr);
        assert!(out.stderr.contains(wanted), "{wanted}: {}", out.stderr);
    }
}

#[test]
fn without_privileges_the_message_says_what_is_missing_root() {
    if !kiln_testkit::require(&[Need::Root, Need::Program("setpriv")]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("kiln");
    std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &binary).unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("Dockerfile"), "FROM scratch\n").unwrap();
    let run = std::process::Command::new("chmod").args(["-R", "a+rwX"]).arg(dir.path()).status().unwrap();
    assert!(run.success());
    let out = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&binary)
        .args(["build", "."])
        .current_dir(&home)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("HOME", &home)
        .env("XDG_RUNTIME_DIR", &home)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains("root") || text.contains("CAP_SYS_ADMIN"), "{text}");
}
