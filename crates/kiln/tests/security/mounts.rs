//! What a step mounts from stages and caches.

use crate::canary::{Canary, TEXT, attempt};
use crate::common::{World, world};
use kiln_testkit::{PATIENCE, wait_until};
use std::time::{Duration, Instant};

/// CVE-2024-1753: a link of the stage, or dots, as the source of a bind mount.
#[test]
fn bind_sources_are_resolved_in_their_stage_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let c = canary.path();
    let up = "../".repeat(12);
    let stage = format!(
        "FROM busybox AS s\nRUN ln -s / /root-link && ln -s {c} /link && ln -s {up}{c} /up && ln -s /proc/1/root /magic && echo stage > /mine\n"
    );
    for (source, options, ok) in [
        ("/root-link", "", true),
        ("/root-link", ",rw", true),
        ("/link", ",rw", false),
        ("/up", ",rw", false),
        ("/magic", ",rw", false),
        ("/../../../../../../..", ",rw", true),
        (&format!("/../../../../..{c}"), ",rw", false),
        (&format!("{up}{c}/secret"), "", false),
        ("/root-link/../../..", ",rw", true),
    ] {
        let look = "ls -la /m; cat /m/mine; cat /m/secret /m/sub/secret; cat /m; touch /m/evil; echo x > /m/secret; rm -rf /m/sub; chmod 0 /m; true";
        let file = format!(
            "{stage}FROM busybox\nRUN --mount=type=bind,from=s,source={source},target=/m{options} {look} # {source}{options}\nRUN test ! -e /m\n"
        );
        let (said, out) = attempt(&w, &file, &[]);
        canary.unread(&w, &said, &out);
        assert_eq!(said.status == 0, ok, "{source}{options}: {}", said.stderr);
        assert!(!ok || said.stderr.contains("stage\n"), "{source}{options}: {}", said.stderr);
    }
}

/// The same with the context's links and dots.
#[test]
fn bind_sources_of_the_context_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let context = w.env.path().join("context");
    std::os::unix::fs::symlink(canary.path(), context.join("link")).unwrap();
    std::os::unix::fs::symlink("/", context.join("root")).unwrap();
    for source in
        ["link", "link/secret", "root", &format!("root{}/secret", canary.path()), "../../../..", "../home"]
    {
        let look = "ls -laR /m | head -100; cat /m /m/secret; touch /m/evil; true";
        let file = format!("FROM busybox\nRUN --mount=type=bind,source={source},target=/m,rw {look}\n");
        let (said, out) = attempt(&w, &file, &[]);
        canary.unread(&w, &said, &out);
        assert!(!said.stderr.contains("kiln.toml"), "{source}: {}", said.stderr);
    }
}

/// CVE-2024-9675: an id is a name, never a path.
#[test]
fn cache_ids_are_not_paths_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let c = canary.path();
    let up = "../".repeat(16);
    let long = "i".repeat(60_000);
    let ids = [
        "/",
        "..",
        ".",
        "../..",
        c,
        &format!("{up}{c}"),
        "a/../../b",
        "a\\..\\b",
        "x;DROP TABLE y;--|&<>*?{}",
        "\u{1}\u{7f}\u{200b}é",
        "%2e%2e",
        &long,
    ];
    for (n, id) in ids.iter().enumerate() {
        let look =
            format!("test ! -e /c/mark; cat /c/mark; ls -la /c; echo {n} > /c/mark; cat /c/secret; true");
        let file =
            |x: u32| format!("FROM busybox\nRUN --mount=type=cache,target=/c,\"id={id}\" {look} # {x}\n");
        for x in 0..2 {
            let said = w.build(&file(x), &[]).success();
            canary.unharmed(&w, &said);
            let own = said.stderr.lines().any(|l| l.split(' ').skip(2).eq([n.to_string()]));
            assert_eq!(own, x == 1, "{id:.40}: a new directory, and the same again: {}", said.stderr);
        }
    }
    let (said, out) = attempt(
        &w,
        &format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,source={up}{c} ls -la /c; cat /c/secret; touch /c/evil; true\n"
        ),
        &[],
    );
    canary.unread(&w, &said, &out);
}

/// CVE-2024-23651, CVE-2024-45310: while one step swaps a directory and a link in a shared cache, others mount it with
/// `source=`, and below it.
#[test]
fn racing_a_shared_cache_never_reaches_the_host_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let c = canary.path();
    let cache = "--mount=type=cache,id=race,target=/c";
    let _ = w
        .build(&format!("FROM busybox\nRUN {cache} mkdir -p /c/a && echo cache > /c/a/mine\n"), &[])
        .success();
    let up = format!("{}{c}", "../".repeat(12));
    let swap = format!(
        "while ! test -e /c/stop; do for i in 1 2 3 4 5 6 7 8 9; do mv /c/a /c/b; ln -s {c} /c/a; rm /c/a; ln -s {up} /c/a; rm /c/a; ln -s / /c/a; rm /c/a; mv /c/b /c/a; done; done"
    );
    w.env.write("racer/Dockerfile", format!("FROM busybox\nRUN {cache} {swap}\n"));
    let mut racer = w
        .env
        .command(&["build", "--progress", "plain", "../racer"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (mut tries, mut wins) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5)
        || ((tries <= 10 || wins == 0) && begun.elapsed() < PATIENCE)
    {
        let (mounted, file) = race_step(tries, c);
        let said = w.build(&file, &[]);
        canary.unharmed(&w, &said);
        tries += 1;
        wins += u32::from(said.status == 0 && mounted);
    }
    let _ = w.build(&format!("FROM busybox\nRUN {cache} touch /c/stop\n"), &[]).success();
    assert!(racer.wait().unwrap().success());
    assert!(tries > 10 && wins > 0, "{wins} of {tries} steps mounted the directory");
}

/// Mounts the directory that is swapped, or makes mount points and a working directory below it.
fn race_step(n: u32, canary: &str) -> (bool, String) {
    let look = format!(
        "for i in 1 2 3; do cat /m/secret /c/a/secret; ls /m; done; cat {canary}/secret; touch /m/evil; rm -rf /m/sub; true # {n}"
    );
    let shared = "--mount=type=cache,id=race,target=/c";
    match n % 3 {
        0 => (true, format!("FROM busybox\nRUN --mount=type=cache,id=race,source=a,target=/m {look}\n")),
        1 => (
            false,
            format!(
                "FROM busybox\nRUN {shared} --mount=type=tmpfs,target=/c/a/emptydir --mount=type=bind,source=Dockerfile,target=/c/a/empty {look}\n"
            ),
        ),
        _ => (false, format!("FROM busybox\nWORKDIR /c/a/w\nRUN {shared} {look}\n")),
    }
}

/// Steps that want the same locked caches, twice in one step and in another order, do not wait for ever.
#[test]
fn locked_caches_do_not_block_for_ever_root() {
    let Some(w) = world() else { return };
    let lock = |id: &str, target: &str| format!("--mount=type=cache,sharing=locked,id={id},target={target}");
    let twice =
        format!("FROM busybox\nRUN {} {} echo x > /a/x && cat /b/x\n", lock("l", "/a"), lock("l", "/b"));
    ends_in_time(&w, &twice);
    let stage = |n: u32, one: &str, two: &str| {
        format!(
            "FROM busybox AS s{n}\nRUN {} {} sleep 0.1; echo {n} > /n\n",
            lock(one, "/a"),
            lock(two, "/b")
        )
    };
    for round in 0..5 {
        let file = format!(
            "{}{}FROM scratch\nCOPY --from=s{} /n /1\nCOPY --from=s{} /n /2\n",
            stage(round * 2, "one", "two"),
            stage(round * 2 + 1, "two", "one"),
            round * 2,
            round * 2 + 1
        );
        ends_in_time(&w, &file);
    }
}

fn ends_in_time(w: &World, file: &str) {
    w.context("Dockerfile", file);
    let mut build = w
        .env
        .command(&["build", "--progress", "plain", "."])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut status = None;
    wait_until("the steps end", || {
        status = build.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "{file}");
}

#[test]
fn the_canary_would_be_seen_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let said = w.build(&format!("FROM busybox\nRUN echo {TEXT}\n"), &[]).success();
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| canary.unharmed(&w, &said)));
    assert!(seen.is_err(), "text of the host in the output is noticed");
    let quiet = w.build("FROM busybox\nRUN true\n", &[]).success();
    std::fs::set_permissions(
        format!("{}/empty", canary.path()),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| canary.unharmed(&w, &quiet)));
    assert!(seen.is_err(), "a change on the host is noticed");
}
