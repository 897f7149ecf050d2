//! COPY, ADD and local results through links of contexts, stages and destinations
//! (GHSA-32pv-7hq5-qhwq, GHSA-g2h8-426c-7976).

use crate::canary::{Canary, attempt, files_with};
use crate::common::world;
use std::fs;
use std::os::unix::fs::symlink;

/// Links in the context lead nowhere but into the context.
#[test]
fn sources_through_links_of_the_context_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let c = canary.path();
    let context = w.env.path().join("context");
    fs::create_dir(context.join("real")).unwrap();
    fs::write(context.join("real/f"), "mine").unwrap();
    for (name, target) in [
        ("link", c),
        ("file", &format!("{c}/secret")),
        ("root", "/"),
        ("up", "../../../../.."),
        ("inside", "real"),
        ("loop", "loop"),
    ] {
        symlink(target, context.join(name)).unwrap();
    }
    for source in [
        "link",
        "link/",
        "link/secret",
        "link/sub",
        "link/*",
        "file",
        "fil?",
        "root",
        &format!("root{c}/secret"),
        "up",
        &format!("up{c}/secret"),
        &format!("../../../..{c}/secret"),
        &format!("{c}/secret"),
        "loop/x",
        "*",
        "l*/secret",
    ] {
        for flags in ["", "--link ", "--parents "] {
            for verb in ["COPY", "ADD"] {
                let (said, out) = attempt(&w, &format!("FROM scratch\n{verb} {flags}{source} /to/\n"), &[]);
                canary.unread(&w, &said, &out);
                assert!(files_with(&out, "mirrors = ").is_empty(), "{source}: outside of the context");
            }
        }
    }
    let (said, out) = attempt(&w, "FROM scratch\nCOPY inside/f /to/\n", &[]);
    let _ = said.success();
    assert_eq!(fs::read_to_string(out.join("to/f")).unwrap(), "mine");
}

/// Links in the image, as sources and as destinations, lead back into the image.
#[test]
fn sources_and_destinations_through_links_of_stages_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let c = canary.path();
    let up = format!("{}{c}", "../".repeat(12));
    w.context("f", "evil");
    let planted = format!(
        "FROM busybox AS s\nRUN ln -s {c} /link && ln -s {up} /up && ln -s / /top && ln -s {c}/secret /file && ln -s /proc/self/root /magic && mkdir /d && ln -s {up} /d/l\n"
    );
    for source in [
        "/link",
        "/link/secret",
        "/up/secret",
        &format!("/top{c}/secret"),
        "/file",
        &format!("/magic{c}/secret"),
        &format!("/../../..{c}/secret"),
        "/d/",
    ] {
        let (said, out) = attempt(&w, &format!("{planted}FROM scratch\nCOPY --from=s {source} /to/\n"), &[]);
        canary.unread(&w, &said, &out);
    }
    for to in [
        "/link/",
        "/link/secret",
        "/up/evil",
        "/file",
        "/d/l/",
        &format!("/magic{c}/evil"),
        &format!("/top{c}/"),
        &format!("/../../../..{c}/secret"),
        &format!("/d/../../..{c}/"),
    ] {
        let (said, out) = attempt(
            &w,
            &format!(
                "{planted}COPY f {to}\nCOPY --link f {to}\nCOPY --from=s /d {to}/../\nADD --chmod=777 --chown=1:1 f {to}\n"
            ),
            &[],
        );
        canary.unread(&w, &said, &out);
        assert!(said.status == 0 || said.stderr.contains("f"), "{}", said.stderr);
    }
    let (said, out) = attempt(
        &w,
        &format!("{planted}COPY f /link/evil\nWORKDIR /link/w/../w2\nRUN pwd > /pwd; echo x > x\n"),
        &[],
    );
    canary.unread(&w, &said, &out);
    let _ = said.success();
    assert_eq!(fs::read_to_string(out.join(&c[1..]).join("evil")).unwrap(), "evil");
}

/// The context's ignore file and Dockerfile are links out of the context.
#[test]
fn dockerfiles_that_are_links_are_not_quoted_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    w.context("sub/x", "x");
    let context = w.env.path().join("context");
    symlink(canary.path(), context.join("dir")).unwrap();
    symlink(format!("{}/secret", canary.path()), context.join(".dockerignore")).unwrap();
    let (said, out) = attempt(&w, "FROM scratch\nCOPY . /\n", &[]);
    canary.unread(&w, &said, &out);
    let said = w.env.kiln(&[
        "build",
        "--progress",
        "plain",
        "--build-arg",
        "BUILDKIT_SYNTAX=",
        "-f",
        "dir/none",
        ".",
    ]);
    canary.unharmed(&w, &said);
    assert_eq!(said.status, 1);
}

/// A result is written below its destination, whatever links the destination or the result hold.
#[test]
fn local_results_stay_below_their_destination_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let c = canary.path();
    let dest = w.env.path().join("planted");
    let output = format!("type=local,dest={}", dest.display());
    let planted = |link: &str, target: &str| {
        drop(fs::remove_dir_all(&dest));
        fs::create_dir(&dest).unwrap();
        symlink(target, dest.join(link)).unwrap();
    };
    // The destination holds links where the result has files and directories.
    for (link, file) in [
        ("d", "COPY f /d/secret"),
        ("f", "COPY f /f"),
        ("d", "COPY f /d/sub/secret"),
        ("secret", "COPY f /secret/x"),
    ] {
        for target in [c.to_string(), format!("{c}/secret"), format!("{}{c}", "../".repeat(12))] {
            planted(link, &target);
            w.context("f", "evil");
            let said = w.build(&format!("FROM scratch\n{file}\n"), &["--output", &output]);
            canary.unharmed(&w, &said);
        }
    }
    // The result is links into the client's directories: written as links, by two builds the second of which has
    // directories of those names.
    planted("unused", c);
    let links = format!(
        "FROM busybox AS s\nRUN mkdir /r && ln -s {c} /r/d && ln -s {c}/secret /r/f && ln -s / /r/top\nFROM scratch\nCOPY --from=s /r/ /\n"
    );
    let said = w.build(&links, &["--output", &output]);
    canary.unharmed(&w, &said);
    let _ = said.success();
    assert_eq!(fs::read_link(dest.join("d")).unwrap().to_str(), Some(c));
    let said = w.build(
        &format!("FROM scratch\nCOPY f /d/secret\nCOPY f /f\nCOPY f /top{c}/secret\n"),
        &["--output", &output],
    );
    canary.unharmed(&w, &said);
    let _ = said.success();
    assert_eq!(fs::read_to_string(dest.join("d/secret")).unwrap(), "evil");
    assert!(!fs::symlink_metadata(dest.join("d")).unwrap().is_symlink());
}

/// An archive is a file of the client: a link at its place is the client's own wish, names inside are the image's.
#[test]
fn tar_results_name_nothing_outside_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let tar = w.env.path().join("r.tar");
    let steps =
        format!("RUN mkdir /r && ln -s {} /r/l && ln /r/l /r/h; touch '/r/..x' '/r/-rf'\n", canary.path());
    let said = w.build(
        &format!("FROM busybox AS s\n{steps}FROM scratch\nCOPY --from=s /r/ /\n"),
        &["--output", &format!("type=tar,dest={}", tar.display())],
    );
    canary.unharmed(&w, &said);
    let _ = said.success();
    let list = std::process::Command::new("tar").arg("-tf").arg(&tar).output().unwrap().stdout;
    let list = String::from_utf8(list).unwrap();
    assert!(list.lines().all(|l| !l.starts_with('/') && !l.split('/').any(|p| p == "..")), "{list}");
    assert!(list.contains("..x") && list.contains("-rf"), "{list}");
}
