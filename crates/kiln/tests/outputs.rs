//! What is made is accepted by the tools that people use it with.

mod common;

use common::{World, world};
use kiln_testkit::{Need, require};
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE: &str = "\
FROM busybox
RUN mkdir -p /app/empty && echo data > /app/f && ln -s f /app/l && ln /app/f /app/h && chmod 4755 /bin/busybox
RUN rm /app/h && rm -r /var/www && mkdir /var/www && touch /var/www/new
COPY --chown=33 Dockerfile /app/
ENV GREETING=hi
WORKDIR /app
ENTRYPOINT [\"sh\", \"-c\"]
CMD [\"echo $GREETING from $PWD; cat f; ls /app /var/www\"]
";

fn sh(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn archive(w: &World, kind: &str, more: &str) -> PathBuf {
    let dest = w.env.path().join(format!("{kind}.tar"));
    let output = format!("type={kind},dest={}{more}", dest.display());
    let _ = w.build(FILE, &["-t", "example/app:3", "--output", &output]).success();
    dest
}

/// Unpacks an OCI archive with umoci and runs it with `runtime`.
fn run_with(w: &World, archive: &Path, runtime: &str) -> String {
    let layout = w.env.path().join("layout");
    let bundle = w.env.path().join("bundle");
    for dir in [&layout, &bundle] {
        drop(std::fs::remove_dir_all(dir));
    }
    std::fs::create_dir(&layout).unwrap();
    sh(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout));
    sh(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:3", layout.display())).arg(&bundle));
    let config = bundle.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("\"terminal\": true", "\"terminal\": false");
    std::fs::write(config, text).unwrap();
    sh(Command::new(runtime)
        .arg("run")
        .arg("-b")
        .arg(&bundle)
        .arg(format!("kiln-test-{}", std::process::id())))
}

#[test]
fn oci_archives_in_every_compression_root() {
    if !require(&[Need::Program("skopeo"), Need::Program("umoci"), Need::Program("runc")]) {
        return;
    }
    let Some(w) = world() else { return };
    for (more, media_type) in [
        ("", "tar+gzip"),
        (",compression=zstd,force-compression=true", "tar+zstd"),
        (",compression=uncompressed,force-compression=true", "layer.v1.tar\""),
    ] {
        let tar = archive(&w, "oci", more);
        let raw = sh(Command::new("skopeo")
            .args(["inspect", "--raw"])
            .arg(format!("oci-archive:{}", tar.display())));
        assert!(raw.contains(media_type), "{more}: {raw}");
        if !more.contains("zstd") {
            let said = run_with(&w, &tar, "runc");
            assert!(said.starts_with("hi from /app\ndata\n"), "{said}");
            assert!(said.contains("Dockerfile\nempty\nf\nl\n") && said.trim_end().ends_with("new"), "{said}");
        }
    }
}

#[test]
fn docker_archives_root() {
    if !require(&[Need::Program("skopeo")]) {
        return;
    }
    let Some(w) = world() else { return };
    let tar = archive(&w, "docker", "");
    let json = sh(Command::new("skopeo")
        .arg("inspect")
        .arg("--config")
        .arg(format!("docker-archive:{}:docker.io/example/app:3", tar.display())));
    let config: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(config["config"]["Cmd"][0], "echo $GREETING from $PWD; cat f; ls /app /var/www");
    assert_eq!(config["config"]["WorkingDir"], "/app");
    let again = archive(&w, "docker", "");
    let second = sh(Command::new("skopeo")
        .arg("inspect")
        .arg("--config")
        .arg(format!("docker-archive:{}:docker.io/example/app:3", again.display())));
    assert_eq!(json, second, "a rebuild makes the same image");
}

#[test]
fn pushed_images_can_be_pulled_and_built_on_root() {
    if !require(&[Need::Program("skopeo")]) {
        return;
    }
    let Some(w) = world() else { return };
    let name = format!("{}/team/app", w.registry.host());
    let tag = format!("{name}:1");
    let _ = w.build(FILE, &["-t", &tag, "--push"]).success();
    assert!(w.registry.has("team/app", "1"));
    sh(Command::new("skopeo").args(["inspect", "--tls-verify=false"]).arg(format!("docker://{tag}")));
    let dir = w.env.path().join("copied");
    sh(Command::new("skopeo")
        .args(["copy", "--src-tls-verify=false"])
        .arg(format!("docker://{tag}"))
        .arg(format!("oci:{}:x", dir.display())));
    let out = w.build_to_dir(&format!("FROM {tag}\nRUN test -L l && cat f > /out\n"), &["--no-cache"]);
    assert_eq!(std::fs::read_to_string(out.join("out")).unwrap(), "data\n");
}

#[test]
fn directories_and_tars_hold_the_same_files_root() {
    let Some(w) = world() else { return };
    let dir = w.build_to_dir(FILE, &[]);
    let tar = w.env.path().join("tar.tar");
    let _ = w.build(FILE, &["--output", &format!("type=tar,dest={}", tar.display())]).success();
    let list = sh(Command::new("sh")
        .arg("-c")
        .arg(format!("tar tf {} | sed 's,^\\./,,; s,/$,,' | grep -v '^$' | sort", tar.display())));
    let find = sh(Command::new("sh")
        .arg("-c")
        .arg(format!("cd {} && find . -mindepth 1 | sed 's,^\\./,,' | sort", dir.display())));
    assert_eq!(list, find);
    let piped = {
        w.context("Dockerfile", FILE);
        w.env.command(&["build", "--output", "type=tar,dest=-", "."]).output().unwrap()
    };
    assert!(piped.status.success());
    assert_eq!(piped.stdout, std::fs::read(&tar).unwrap(), "standard output gets the same bytes");
}

#[test]
fn a_result_without_output_says_where_it_stays_root() {
    let Some(w) = world() else { return };
    let out = w.build("FROM busybox\nRUN true\n", &[]).success();
    assert!(
        out.stderr.to_lowercase().contains("no output specified") || out.stderr.contains("cache"),
        "{}",
        out.stderr
    );
}
