//! A world with a daemon, a registry that holds `busybox`, and helpers to build in it.
#![allow(dead_code, reason = "each test binary uses a part")]

use kiln_testkit::{Daemon, Env, Image, Need, Output, Registry, busybox, require};
use std::path::{Path, PathBuf};

/// What every build test needs.
pub(crate) const NEEDS: &[Need] = &[Need::Root, Need::Program("docker-registry")];

/// A daemon and a registry; `FROM busybox` works.
pub(crate) struct World {
    // The processes end before their folder is removed.
    pub(crate) daemon: Option<Daemon>,
    pub(crate) registry: Registry,
    pub(crate) env: Env,
}

/// `None` (said aloud) where this machine cannot run builds.
pub(crate) fn world() -> Option<World> {
    let mut world = world_without_daemon()?;
    world.start();
    Some(world)
}

/// A world whose daemon is not running yet.
pub(crate) fn world_without_daemon() -> Option<World> {
    if !require(NEEDS) || !Path::new("/bin/busybox").exists() {
        return None;
    }
    let env = Env::new(env!("CARGO_BIN_EXE_kiln"));
    let registry = Registry::start(env.path());
    registry.add("library/busybox", "latest", &Image::new(busybox()));
    let config = format!("[registry.\"docker.io\"]\nmirrors = [\"{}\"]\n", registry.host());
    env.write("kiln.toml", config);
    Some(World { env, registry, daemon: None })
}

impl World {
    /// Starts the daemon with the world's configuration.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// As [`World::start`], with more arguments.
    pub(crate) fn start_with(&mut self, more: &[&str]) {
        let config = self.env.path().join("kiln.toml");
        let mut args = vec!["--config", config.to_str().unwrap()];
        args.extend(more);
        self.daemon = Some(self.env.daemon(&args));
    }

    /// Writes a file of the context.
    pub(crate) fn context(&self, path: &str, text: impl AsRef<[u8]>) {
        self.env.write(&format!("context/{path}"), text);
    }

    /// Builds the context with `dockerfile`, plain progress.
    pub(crate) fn build(&self, dockerfile: &str, args: &[&str]) -> Output {
        self.context("Dockerfile", dockerfile);
        let mut all = vec!["build", "--progress", "plain"];
        all.extend(args);
        all.push(".");
        self.env.kiln(&all)
    }

    /// Builds and returns the folder with the result's files.
    pub(crate) fn build_to_dir(&self, dockerfile: &str, args: &[&str]) -> PathBuf {
        let out = self.env.path().join("out");
        drop(std::fs::remove_dir_all(&out));
        let output = format!("type=local,dest={}", out.display());
        let mut all = vec!["--output", output.as_str()];
        all.extend(args);
        let _ = self.build(dockerfile, &all).success();
        out
    }

    /// Builds a Dockerfile that starts with busybox, and returns what its steps wrote to `/out`.
    pub(crate) fn out(&self, steps: &str, args: &[&str]) -> String {
        let dockerfile = format!("FROM busybox AS work\n{steps}\nFROM scratch\nCOPY --from=work /out /out\n");
        let dir = self.build_to_dir(&dockerfile, args);
        std::fs::read_to_string(dir.join("out")).expect("the step wrote /out")
    }
}
