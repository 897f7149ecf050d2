//! Base images made to mislead whoever runs a step in them.

use crate::canary::{Canary, attempt};
use crate::common::{World, world};
use crate::tarball::Tarball;
use kiln_testkit::{Image, busybox};

/// Tries to read, write and remove through a directory of the image.
fn probe(dir: &str) -> String {
    format!(
        "RUN ls -la /{dir}/; cat /{dir}/secret /{dir}/sub/secret /{dir}/passwd; echo x > /{dir}/evil; rm -rf /{dir}/sub /{dir}/emptydir; chmod 700 /{dir}/; true"
    )
}

/// CVE-2026-41579, CVE-2023-27561, CVE-2025-52881: directories that the launcher mounts on or writes to are links.
#[test]
fn standard_directories_that_are_links_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let up = format!("{}{}", "../".repeat(12), canary.path());
    for dir in ["dev", "proc", "sys", "etc", "run"] {
        for (n, target) in [canary.path(), "/", &up].into_iter().enumerate() {
            let mut image = Image::new(busybox());
            image.layers.push(Tarball::new().symlink(dir, target).end());
            let name = format!("links/{dir}{n}");
            w.registry.add(&name, "1", &image);
            let (said, out) =
                attempt(&w, &format!("FROM {}/{name}:1\n{}\n", w.registry.host(), probe(dir)), &[]);
            canary.unread(&w, &said, &out);
            let mounted = ["dev", "proc", "sys"].contains(&dir);
            assert_eq!(said.status, i32::from(mounted), "{dir} -> {target}: {}", said.stderr);
            assert!(
                !mounted || said.stderr.contains(&format!("/{dir} of the root is a symbolic link")),
                "{}",
                said.stderr
            );
        }
    }
    assert!(std::path::Path::new("/proc/self/status").exists());
}

/// CVE-2024-23652: the parent of a mount point becomes a link to a directory where an empty file or directory of the
/// same name would be taken for what the mount left behind.
#[test]
fn mount_points_are_cleaned_up_inside_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    // Without an /etc of its own, the one for hosts and resolv.conf is made for the step, and can be renamed.
    let mut image = Image::new(busybox());
    image.layers.push(Tarball::new().file(".wh.etc", "").end());
    w.registry.add("no/etc", "1", &image);
    let swap = |from: &str| format!("mv {from} /moved && ln -s {} {from}", canary.path());
    let secret = w.env.write("s", "");
    let secret = format!("id=s,src={}", secret.display());
    w.context("empty", "");
    for (mount, step) in [
        ("--mount=type=tmpfs,target=/d/emptydir", swap("/d")),
        ("--mount=type=cache,target=/d/deep/emptydir", swap("/d/deep")),
        ("--mount=type=secret,id=s,target=/d/empty", swap("/d")),
        ("--mount=type=bind,source=empty,target=/d/empty", swap("/d")),
        ("--mount=type=tmpfs,target=/etc/emptydir", swap("/etc")),
    ] {
        let look = "RUN ls -la /d/ /etc/; cat /d/secret /etc/secret; true";
        let file = format!("FROM {}/no/etc:1\nRUN {mount} {step}\n{look}\n", w.registry.host());
        let (said, out) = attempt(&w, &file, &["--secret", &secret]);
        canary.unread(&w, &said, &out);
        let _ = said.success();
    }
}

/// Daemon memory at its highest, in kB.
pub(crate) fn peak(w: &World) -> u64 {
    let pid = w.daemon.as_ref().unwrap().pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// GHSA-72x6-4j93-7w86, CVE-2026-47262, CVE-2024-9676: user files of absurd size, form or kind.
#[test]
fn absurd_user_files_cost_little_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let _ = w.build("FROM busybox\nUSER daemon\nRUN true\n", &[]).success();
    let before = peak(&w);
    for (make, wanted) in [
        ("dd if=/dev/zero of=F bs=1 count=0 seek=2G", "exceeds"),
        ("head -c 9000000 /dev/zero | tr '\\0' : > F", "/etc/"),
        ("yes 'a:x:1:1:a:/:/bin/sh' | head -c 12000000 > F", "exceeds"),
        ("yes 'u:x:1:u,u,u,u,u,u,u,u,u' | head -c 9000000 > F; echo 'app:x:5:5' >> F", ""),
        ("rm F && mkfifo F", "/etc/"),
        ("rm F && ln -s /dev/zero F", "app"),
        ("rm F && ln -s /proc/self/mem F", "app"),
        (&format!("rm F && ln -s {0}/passwd F", canary.path()), "app"),
        ("rm F && mkdir F", "/etc/"),
    ] {
        for name in ["passwd", "group"] {
            let make = make.replace('F', &format!("/etc/{name}"));
            let user = if name == "passwd" { "app" } else { "daemon:app" };
            let file = format!("FROM busybox\nRUN {make}\nUSER {user}\nRUN id\n");
            let said = w.build(&file, &[]);
            canary.unharmed(&w, &said);
            assert_eq!(said.status == 0, wanted.is_empty(), "{make}: {}", said.stderr);
            assert!(said.stderr.contains(wanted), "{make}: {}", said.stderr);
        }
    }
    let grown = peak(&w) - before;
    assert!(grown < 200_000, "the daemon grew by {grown} kB");
}

/// A numeric user is an id, never a name that the image's files give another id (CVE-2026-46680).
#[test]
fn numbers_are_ids_not_names_root() {
    let Some(w) = world() else { return };
    let out = w.out("RUN echo '1000:x:0:0:::' >> /etc/passwd && echo '1000:x:0:' >> /etc/group && touch /out && chmod 666 /out\nUSER 1000:1000\nRUN id -u > /out; id -g >> /out; id -G >> /out", &[]);
    assert_eq!(out, "1000\n1000\n1000\n");
    let out = w.out("RUN echo '77:x:0:0:::' >> /etc/passwd\nCOPY --chown=77:77 Dockerfile /f\nRUN stat -c %u:%g /f > /out", &[]);
    assert_eq!(out, "77:77\n");
}
