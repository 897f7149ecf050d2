//! Archives that plant a link and write through it, as `ADD`, as a layer and as a context
//! (CVE-2026-44517, CVE-2026-42574, CVE-2020-10696, containerd's extraction).

use crate::canary::{Canary, attempt};
use crate::common::{World, world};
use crate::tarball::Tarball;
use kiln_testkit::{Image, busybox};
use std::path::PathBuf;

/// Where `evil` of a case ends up: a path below the result, or nowhere because the build is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    At(&'static str),
    /// Where the canary is on the host, below this directory of the image.
    InCanaryPath(&'static str),
    Refused,
}

struct Case {
    what: &'static str,
    tar: Tarball,
    ends: Ends,
}

fn cases(c: &str) -> Vec<Case> {
    let case = |what, tar, ends| Case { what, tar, ends };
    let t = Tarball::new;
    let up = "../".repeat(12);
    let secret = format!("{c}/secret");
    vec![
        case("absolute link", t().symlink("x", c).file("x/evil", "evil"), Ends::InCanaryPath("")),
        case(
            "relative link",
            t().symlink("x", &format!("{up}{c}")).file("x/evil", "evil"),
            Ends::InCanaryPath(""),
        ),
        case("link to a file", t().symlink("evil", &secret).file("evil", "evil"), Ends::At("evil")),
        case(
            "chain",
            t().symlink("a", "/").symlink("b", "a/..").file(&format!("b{c}/evil"), "evil"),
            Ends::InCanaryPath(""),
        ),
        case(
            "magic link",
            t().symlink("x", "/proc/self/root").file(&format!("x{c}/evil"), "evil"),
            Ends::InCanaryPath("proc/self/root"),
        ),
        case("dots", t().file(&format!("{up}{}/evil", &c[1..]), "evil"), Ends::InCanaryPath("")),
        case("absolute name", t().file(&format!("{c}/evil"), "evil"), Ends::InCanaryPath("")),
        case("hard link outside", t().hard_link("evil", &secret).file("evil", "evil"), Ends::Refused),
        case(
            "hard link by dots",
            t().hard_link("evil", &format!("{up}{secret}")).file("evil", "evil"),
            Ends::Refused,
        ),
        case(
            "hard link over link",
            t().symlink("x", c).hard_link("evil", "x/secret").file("evil", "evil"),
            Ends::Refused,
        ),
        case(
            "hard link to link",
            t().symlink("x", &secret).hard_link("evil", "x").file("evil", "evil"),
            Ends::At("evil"),
        ),
        case(
            "directory, then link",
            t().dir("d").symlink("d", c).file("d/evil", "evil"),
            Ends::InCanaryPath(""),
        ),
        case("link, then directory", t().symlink("d", c).dir("d").file("d/evil", "evil"), Ends::At("d/evil")),
        case("twice", t().file("evil", "1").symlink("evil", &secret).file("evil", "evil"), Ends::At("evil")),
        case(
            "whiteout over link",
            t().symlink("x", c).file("x/.wh.secret", "").file("evil", "evil"),
            Ends::At("evil"),
        ),
        case(
            "opaque over link",
            t().symlink("x", c).file("x/.wh..wh..opq", "").file("evil", "evil"),
            Ends::At("evil"),
        ),
    ]
}

/// Checks one build of a case; `result` is where its files went.
fn check(w: &World, canary: &Canary, how: &str, case: &Case, build: (kiln_testkit::Output, PathBuf)) {
    let (said, result) = build;
    canary.unread(w, &said, &result);
    let inside = match case.ends {
        Ends::Refused => None,
        Ends::At(path) => Some(result.join(path)),
        Ends::InCanaryPath(below) => Some(result.join(below).join(&canary.path()[1..]).join("evil")),
    };
    let text = inside.and_then(|p| std::fs::read_to_string(p).ok());
    let expected = (case.ends != Ends::Refused).then(|| "evil".to_string());
    assert_eq!(text, expected, "{how}, {}:\n{}", case.what, said.stderr);
    assert_eq!(said.status == 1, case.ends == Ends::Refused, "{how}, {}:\n{}", case.what, said.stderr);
}

/// Reads whatever the archive may have opened a way to.
const LOOK: &str = "RUN cat /x/* /d/* /evil /b/secret 2>/dev/null; true";

#[test]
fn archives_that_add_unpacks_stay_in_the_image_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    for case in cases(canary.path()) {
        w.context("evil.tar", case.tar.clone().end());
        let file = format!("FROM busybox\nADD evil.tar /\n{LOOK}\n");
        check(&w, &canary, "ADD", &case, attempt(&w, &file, &[]));
    }
}

#[test]
fn layers_stay_in_the_image_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    for (n, case) in cases(canary.path()).into_iter().enumerate() {
        let mut image = Image::new(busybox());
        image.layers.push(case.tar.clone().end());
        w.registry.add(&format!("evil/{n}"), "1", &image);
        let file = format!("FROM {}/evil/{n}:1\n{LOOK}\n", w.registry.host());
        check(&w, &canary, "layer", &case, attempt(&w, &file, &[]));
    }
}

/// A link planted by one layer, written through by COPY, ADD and RUN; the next layer hides it, as in containerd.
#[test]
fn links_of_lower_layers_are_not_a_way_out_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let mut image = Image::new(busybox());
    image.layers.push(Tarball::new().symlink("x", canary.path()).end());
    w.registry.add("evil/link", "1", &image);
    image.layers.push(Tarball::new().file("x/evil", "1").file("x/.wh.secret", "").end());
    w.registry.add("evil/hidden", "1", &image);
    w.context("evil.tar", Tarball::new().file("x/evil2", "2").end());
    w.context("f", "3");
    let steps = "ADD evil.tar /\nCOPY f /x/evil3\nRUN echo 4 > /x/evil4 && cat /x/*";
    for (name, at) in [("link", &canary.path()[1..]), ("hidden", "x")] {
        let (said, out) = attempt(&w, &format!("FROM {}/evil/{name}:1\n{steps}\n", w.registry.host()), &[]);
        canary.unread(&w, &said, &out);
        let _ = said.success();
        for file in ["evil2", "evil3", "evil4"] {
            assert!(out.join(at).join(file).is_file(), "{name}: {file}");
        }
    }
}

/// An archive that stops in the middle fails the step, and what was unpacked of it is used by nothing.
#[test]
fn truncated_archives_leave_nothing_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let whole = Tarball::new().symlink("x", canary.path()).file("x/evil", &"evil".repeat(1000)).end();
    let file = "FROM busybox\nADD evil.tar /a/\nRUN cp /bin/busybox /a/x/evil; cat /a/x/secret\n";
    for cut in [512 + 100, 1024 + 1000, whole.len() - 1024 - 600] {
        w.context("evil.tar", &whole[..cut]);
        let (said, out) = attempt(&w, file, &[]);
        canary.unread(&w, &said, &out);
        let said = said.failure();
        assert!(said.stderr.contains("evil.tar"), "{cut}: {}", said.stderr);
        let mut image = Image::new(busybox());
        image.layers.push(whole[..cut].to_vec());
        w.registry.add("evil/cut", &cut.to_string(), &image);
        let from = format!("FROM {}/evil/cut:{cut}\nRUN true\n", w.registry.host());
        let (said, out) = attempt(&w, &from, &[]);
        canary.unread(&w, &said, &out);
        let _ = said.failure();
    }
    w.context("evil.tar", Tarball::new().file("f", "fine").end());
    let (said, out) = attempt(&w, "FROM scratch\nADD evil.tar /a/\n", &[]);
    let _ = said.success();
    assert!(out.join("a/f").exists() && !out.join("a/x").exists());
}

/// Device nodes from outside may be carried, never opened: /dev/kmsg needs no capability to be written.
#[test]
fn device_nodes_cannot_be_opened_root() {
    let Some(w) = world() else { return };
    let nodes =
        Tarball::new().device("kmsg", b'3', 1, 11).device("fuse", b'3', 10, 229).device("disk", b'4', 259, 0);
    w.context("nodes.tar", nodes.clone().end());
    let mut image = Image::new(busybox());
    image.layers.push(nodes.end());
    w.registry.add("evil/nodes", "1", &image);
    let open = "for n in /kmsg /fuse /disk /a/kmsg /a/fuse /a/disk; do (: < $n) 2>&1; (: >> $n) 2>&1; done | tee /out";
    let file = format!(
        "FROM {}/evil/nodes:1\nADD nodes.tar /a/\nRUN {open}\nFROM scratch\nCOPY --from=0 /out /\n",
        w.registry.host()
    );
    let (said, out) = attempt(&w, &file, &[]);
    let _ = said.success();
    let text = std::fs::read_to_string(out.join("out")).unwrap().to_lowercase();
    let refused =
        text.lines().filter(|l| l.contains("not permitted") || l.contains("permission denied")).count();
    assert_eq!((refused, text.lines().count()), (12, 12), "{text}");
}

/// A context from standard input is unpacked by the same rules, its Dockerfile read by them.
#[test]
fn archives_as_contexts_stay_inside_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let output = format!("type=local,dest={}", w.env.path().join("out").display());
    let args = ["build", "--progress", "plain", "-o", &output, "-"];
    for case in cases(canary.path()) {
        let tar = case.tar.file("Dockerfile", "FROM scratch\nCOPY . /\n").end();
        drop(std::fs::remove_dir_all(w.env.path().join("out")));
        let said = w.env.kiln_with_input(&args, &tar);
        canary.unread(&w, &said, &w.env.path().join("out"));
    }
    let link = Tarball::new().symlink("Dockerfile", &format!("{}/secret", canary.path())).end();
    let said = w.env.kiln_with_input(&args, &link);
    canary.unharmed(&w, &said);
    let said = said.failure();
    assert!(said.stderr.contains("Dockerfile"), "{}", said.stderr);
}
