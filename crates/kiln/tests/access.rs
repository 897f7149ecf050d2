//! Credentials, agents, full disks: what a build needs from outside, and what happens when it is refused.

mod common;

use common::{NEEDS, world};
use kiln_testkit::{Env, Image, Need, Registry, busybox, require, wait_until};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// `user` with the password `pass-word`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$wVkANtZVugx6By4IcHATru2JZHVYX6TpuvmO2pTnmpsir.ISOQqiy\n";

#[test]
fn a_private_registry_takes_the_docker_configs_credentials_root() {
    if !require(NEEDS) {
        return;
    }
    let env = Env::new(env!("CARGO_BIN_EXE_kiln"));
    let passwords = env.write("htpasswd", HTPASSWD);
    let auth = format!("auth:\n  htpasswd:\n    realm: kiln\n    path: {}\n", passwords.display());
    let registry = Registry::start_with(env.path(), &auth);
    registry.add("private/base", "1", &Image::new(busybox()));
    let _daemon = env.daemon(&[]);
    let base = format!("{}/private/base:1", registry.host());
    env.write("context/Dockerfile", format!("FROM {base}\nRUN echo in > /in\n"));
    let target = format!("{}/private/app:1", registry.host());
    let push = ["build", "--progress", "plain", "--push", "-t", &target, "."];

    let refused = env.kiln(&push).failure();
    assert!(
        refused.stderr.contains(&base) && refused.stderr.contains("pull access denied"),
        "{}",
        refused.stderr
    );

    let host = registry.host();
    env.write(
        "home/.docker/config.json",
        format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpwYXNzLXdvcmQ="}}}}}}"#),
    );
    let pushed = env.kiln(&push).success();
    assert!(registry.has("private/app", "1"));
    assert!(!pushed.stderr.contains("pass-word") && !pushed.stderr.contains("dXNlcj"));

    let helper = env.write(
        "bin/docker-credential-testhelper",
        "#!/bin/sh\necho '{\"Username\":\"user\",\"Secret\":\"pass-word\"}'\n",
    );
    assert!(Command::new("chmod").arg("+x").arg(&helper).status().unwrap().success());
    env.write("home/.docker/config.json", format!(r#"{{"credHelpers":{{"{host}":"testhelper"}}}}"#));
    let path = format!("{}:{}", helper.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let out = env.command(&["build", "--no-cache", "--pull", "."]).env("PATH", path).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn an_ssh_agent_is_forwarded_to_the_step_root() {
    if !require(&[Need::Program("ssh-agent"), Need::Program("ssh-keygen"), Need::Program("ssh-add")]) {
        return;
    }
    let Some(w) = world() else { return };
    let key = w.env.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "kiln-test", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let socket = w.env.path().join("agent.sock");
    let mut agent =
        Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the agent listens", || UnixStream::connect(&socket).is_ok());
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg(&key)
        .env("SSH_AUTH_SOCK", &socket)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    // The machine's own ssh-add with its libraries.
    let tar = w.env.path().join("context/agent.tar");
    let pack = "tar -chPf \"$0\" /usr/bin/ssh-add $(ldd /usr/bin/ssh-add | grep -o '/[^ ]*')";
    assert!(Command::new("sh").args(["-c", pack]).arg(&tar).status().unwrap().success());
    let file = "FROM busybox\nADD agent.tar /\nRUN --mount=type=ssh /usr/bin/ssh-add -l | grep kiln-test && test -S $SSH_AUTH_SOCK\n\
                RUN --mount=type=ssh ! /usr/bin/ssh-add -D && /usr/bin/ssh-add -l\nRUN test ! -e /run/buildkit\n";
    w.context("Dockerfile", file);
    let spec = format!("default={}", socket.display());
    let built = w.env.kiln(&["build", "--progress", "plain", "--ssh", &spec, "."]);
    let without = w.env.kiln(&["build", "--ssh", "default", "."]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(added.success());
    let _ = built.success();
    assert!(without.failure().stderr.contains("SSH_AUTH_SOCK"));
}

#[test]
fn a_full_disk_ends_in_one_message_and_frees_what_was_begun_root() {
    if !require(NEEDS) {
        return;
    }
    let env = Env::new(env!("CARGO_BIN_EXE_kiln"));
    let root = env.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(&root).status().unwrap();
    assert!(mounted.success());
    let daemon = env.daemon(&[]);
    env.write("context/base.tar", busybox().into_tar());
    env.write(
        "context/Dockerfile",
        "FROM scratch\nADD base.tar /\nENV PATH=/bin\nRUN dd if=/dev/zero of=/big bs=1M count=40\n",
    );
    let full = env.kiln(&["build", "--progress", "plain", "."]);
    env.write("context/Dockerfile", "FROM scratch\nADD base.tar /\nENV PATH=/bin\nRUN echo small > /s\n");
    let next = env.kiln(&["build", "--progress", "plain", "."]);
    let code = daemon.stop();
    drop(Command::new("umount").arg("-l").arg(&root).status());
    let full = full.failure();
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    let _ = next.success();
    assert_eq!(code, Some(0));
}
