//! The Dockerfiles of real guides, built with real package managers on base images made from Debian packages.
//!
//! Run with `KILN_TEST_NETWORK=1 cargo test --package kiln --test guides -- --nocapture`; takes about fifteen minutes.
//! Needs root, mmdebstrap, docker-registry, umoci and runc.

#![allow(clippy::print_stdout, reason = "it takes minutes: say what is done")]

use kiln_testkit::{Env, Need, Output, Registry, require};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// One guide.
struct Guide {
    /// Folder below `tests/guides`.
    name: &'static str,
    /// More arguments of the build.
    args: &'static [&'static str],
    /// A source file that is changed for the third build, the steps that run then, and those that run unless what they
    /// use came out the same.
    change: Option<(&'static str, &'static [&'static str], &'static [&'static str])>,
    /// What the image's program prints.
    prints: &'static str,
}

const SECRETS: &[&str] = &[
    "--secret",
    "id=mysecret,src=mysecret.txt",
    "--secret",
    "id=pip_conf,src=pip.conf",
    "--secret",
    "id=api_key,src=mysecret.txt",
    "--secret",
    "id=token,env=MY_TOKEN",
];

const GUIDES: &[Guide] = &[
    Guide { name: "apt", args: &[], change: None, prints: "Hello, world!" },
    Guide { name: "pip", args: &[], change: Some(("run.py", &["COPY . ."], &[])), prints: "signed v" },
    Guide { name: "uv", args: &[], change: Some(("main.py", &["COPY main.py ."], &[])), prints: "uv works" },
    Guide {
        name: "npm",
        args: &[],
        change: Some(("build.js", &["COPY ./ /app/", "RUN npm run build"], &["COPY --from=build"])),
        prints: "",
    },
    Guide {
        name: "cargo",
        args: &[],
        change: Some(("src/main.rs", &["COPY . .", "RUN --mount=type=cache"], &["COPY --from=build"])),
        prints: "counted 42",
    },
    Guide { name: "three", args: &[], change: None, prints: "" },
    Guide { name: "shared", args: &[], change: Some(("main.py", &["COPY . ."], &[])), prints: "signed v" },
    Guide { name: "heredoc", args: &[], change: None, prints: "proxy_set_header Host $host;" },
    Guide { name: "secrets", args: SECRETS, change: None, prints: "7" },
    Guide {
        name: "bind",
        args: &[],
        change: Some((
            "config.json",
            &["RUN --mount=type=bind,source=config.json", "RUN --mount=type=bind,from=builder"],
            &[],
        )),
        prints: "colour: green",
    },
    Guide { name: "branches", args: &[], change: None, prints: "1000:1000" },
];

struct World {
    env: Env,
    registry: Registry,
}

#[test]
fn guides_build_and_run_root_network() {
    let needs = ["mmdebstrap", "docker-registry", "umoci", "runc"].map(Need::Program);
    if !require(&[&[Need::Root, Need::Network], &needs[..]].concat()) {
        return;
    }
    let only = std::env::var("KILN_TEST_GUIDE").unwrap_or_default();
    let env = Env::new(env!("CARGO_BIN_EXE_kiln"));
    let registry = Registry::start(env.path());
    let host = registry.host();
    let config = env.write("kiln.toml", format!("[registry.\"docker.io\"]\nmirrors = [\"{host}\"]\n"));
    let _daemon = env.daemon(&["--config", config.to_str().unwrap()]);
    let world = World { env, registry };
    world.make_bases();
    for guide in GUIDES.iter().filter(|g| only.is_empty() || only.split(',').any(|n| n == g.name)) {
        let begin = Instant::now();
        world.run(guide);
        println!("guide {}: ok in {:.1} s", guide.name, begin.elapsed().as_secs_f64());
    }
}

impl World {
    /// Builds the base images with kiln itself and pushes them under the names that the guides use.
    fn make_bases(&self) {
        let dir = self.env.path().join("bases");
        copy_dir(&guide_dir("bases"), &dir);
        run(Command::new("mmdebstrap")
            .args(["--variant=minbase", "--include=ca-certificates", "bookworm"])
            .arg(dir.join("debian.tar")));
        fs::copy("/etc/ssl/certs/ca-certificates.crt", dir.join("ca.crt")).expect("a CA bundle");
        let names: &[(&str, &[&str])] = &[
            ("debian", &["debian:bookworm-slim"]),
            ("python", &["python:3.11-slim", "python:3.12-slim"]),
            ("node", &["node:20-slim", "node:22-slim"]),
            ("rust", &["rust:1"]),
            ("nginx", &["nginx:alpine"]),
        ];
        for (target, tags) in names {
            let tags: Vec<String> =
                tags.iter().map(|t| format!("{}/library/{t}", self.registry.host())).collect();
            let mut args = vec!["build", "--target", target, "--push"];
            tags.iter().for_each(|t| args.extend(["-t", t]));
            args.push(dir.to_str().unwrap());
            let _ = self.env.kiln(&args).success();
            println!("base {target} is made");
        }
    }

    fn run(&self, guide: &Guide) {
        let dir = self.env.path().join("guides").join(guide.name);
        copy_dir(&guide_dir(guide.name), &dir);
        fs::write(dir.join("mysecret.txt"), "secret\n").unwrap();
        fs::write(dir.join("pip.conf"), "[global]\nindex-url = https://user:pass@example.invalid/\n")
            .unwrap();
        let archive = dir.with_extension("tar");
        let first = self.build(guide, &dir, &archive);
        let second = self.build(guide, &dir, &archive);
        assert_eq!(ran(&second), [""; 0], "{}: a rebuild runs nothing\n{}", guide.name, second.stderr);
        assert_eq!(steps(&second).len(), steps(&first).len());
        let said = self.program(&archive, guide);
        assert!(said.contains(guide.prints), "{}: the program says {said:?}", guide.name);
        if let Some((file, runs, may_run)) = guide.change {
            let mut text = fs::read_to_string(dir.join(file)).unwrap();
            text.push('\n');
            fs::write(dir.join(file), text).unwrap();
            let third = self.build(guide, &dir, &archive);
            let ran = ran(&third);
            let said = |steps: &[&str], name: &str| steps.iter().any(|s| name.contains(s));
            assert!(runs.iter().all(|r| ran.iter().any(|n| n.contains(r))), "{}: {ran:?}", guide.name);
            assert!(ran.iter().all(|n| said(runs, n) || said(may_run, n)), "{}: {ran:?}", guide.name);
        }
        self.second_install(guide, &dir, &archive);
        for said in [&first, &second] {
            assert!(!said.stderr.contains("user:pass"), "a secret in the output");
        }
    }

    /// The second install takes its packages from the cache mount: it succeeds without a network. (pip keeps only what
    /// the server's headers allow, so it proves nothing behind a proxy that forbids it.)
    fn second_install(&self, guide: &Guide, dir: &Path, archive: &Path) {
        if guide.name == "npm" {
            for file in ["package.json", "package-lock.json"] {
                let text = fs::read_to_string(dir.join(file)).unwrap().replace("1.0.0", "1.0.1");
                fs::write(dir.join(file), text).unwrap();
            }
            let out = self.build_with(guide, dir, archive, &["--network", "none"]);
            assert!(ran(&out).iter().any(|n| n.contains("npm ci")), "{}", out.stderr);
        }
    }

    fn build(&self, guide: &Guide, dir: &Path, archive: &Path) -> Output {
        self.build_with(guide, dir, archive, &[])
    }

    fn build_with(&self, guide: &Guide, dir: &Path, archive: &Path, more: &[&str]) -> Output {
        let output = format!("type=oci,dest={}", archive.display());
        let mut args = vec!["build", "--progress", "plain", "-t", "guide:latest", "--output", &output];
        args.extend(guide.args);
        args.extend(more);
        args.push(".");
        let out = self
            .env
            .command(&args)
            .current_dir(dir)
            .env("MY_TOKEN", "from-the-environment")
            .output()
            .expect("kiln starts");
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let out = Output {
            status: out.status.code().unwrap_or(-1),
            stdout: text(&out.stdout),
            stderr: text(&out.stderr),
        };
        out.success()
    }

    /// Runs the image's command with umoci and runc and returns what it prints.
    fn program(&self, archive: &Path, guide: &Guide) -> String {
        if guide.prints.is_empty() {
            return String::new();
        }
        let layout = archive.with_extension("layout");
        let bundle = archive.with_extension("bundle");
        for dir in [&layout, &bundle] {
            let _ = fs::remove_dir_all(dir);
        }
        fs::create_dir_all(&layout).unwrap();
        run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout));
        run(Command::new("umoci")
            .args(["unpack", "--image"])
            .arg(format!("{}:latest", layout.display()))
            .arg(&bundle));
        let config = bundle.join("config.json");
        let text = fs::read_to_string(&config).unwrap().replace("\"terminal\": true", "\"terminal\": false");
        fs::write(&config, text).unwrap();
        let id = format!("kiln-guide-{}-{}", guide.name, std::process::id());
        run(Command::new("runc").arg("run").arg("-b").arg(&bundle).arg(id))
    }
}

/// The `[x/y]` steps of a plain output, base images left out, each with whether it came from the cache.
fn steps(out: &Output) -> BTreeMap<&str, bool> {
    let mut names = BTreeMap::new();
    let mut cached = BTreeSet::new();
    for line in out.stderr.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|l| l.split_once(' ')) else { continue };
        let step = rest.strip_prefix('[').and_then(|r| r.split_once("] "));
        match step {
            Some((step, text))
                if step.contains('/') && !step.starts_with("internal") && !text.starts_with("FROM ") =>
            {
                names.insert(number, rest);
            }
            _ if rest == "CACHED" => drop(cached.insert(number)),
            _ => {}
        }
    }
    names.into_iter().map(|(number, name)| (name, cached.contains(number))).collect()
}

fn ran(out: &Output) -> Vec<&str> {
    steps(out).into_iter().filter(|(_, cached)| !cached).map(|(name, _)| name).collect()
}

fn guide_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guides").join(name)
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to));
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {text}");
    text
}
