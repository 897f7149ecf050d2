use super::*;
use kiln_testkit::{Need, require};

#[tokio::test]
async fn skopeo_and_umoci_accept_an_oci_archive() {
    if !require(&[Need::Program("skopeo"), Need::Program("umoci")]) {
        return;
    }
    let w = World::new().await;
    let base = w.layer(None, &[("etc/", ""), ("etc/a", "one")]);
    let top = w.layer(Some(&base), &[("b", "two")]);
    for compression in ["gzip", "zstd", "uncompressed"] {
        let attrs = [
            ("name", "app,example.com/x/app:2"),
            ("compression", compression),
            ("force-compression", "true"),
        ];
        let response = w.export("oci", &attrs, 0, &single(Some(top.clone()))).await.unwrap();
        assert_eq!(response["image.name"], "docker.io/library/app:latest,example.com/x/app:2");
        let archive = format!("oci-archive:{}:2", w.path("file").display());
        let inspected = tool(
            "skopeo",
            &["inspect", "--format", "{{.Digest}} {{len .Layers}} {{.Architecture}}", &archive],
        );
        assert_eq!(inspected.trim(), format!("{} 2 amd64", response["containerimage.digest"]));
        let layout = w.path(&format!("layout-{compression}"));
        tool("skopeo", &["copy", "-q", &archive, &format!("oci:{}:2", layout.display())]);
        if compression == "gzip" {
            let bundle = w.path("bundle");
            tool(
                "umoci",
                &["unpack", "--image", &format!("{}:2", layout.display()), &bundle.display().to_string()],
            );
            assert_eq!(std::fs::read_to_string(bundle.join("rootfs/etc/a")).unwrap(), "one");
            assert_eq!(std::fs::read_to_string(bundle.join("rootfs/b")).unwrap(), "two");
        }
    }
    let told = w.told();
    assert_eq!(told[0], "exporting layers");
    assert!(
        told[1].starts_with("exporting manifest sha256:") && told[2].starts_with("exporting config sha256:")
    );
    assert_eq!(told[3], "sending tarball");
}

#[tokio::test]
async fn a_docker_archive_names_its_tags() {
    if !require(&[Need::Program("skopeo")]) {
        return;
    }
    let w = World::new().await;
    let top = w.layer(None, &[("b", "two")]);
    let attrs = [("name", "app:1,docker.io/u/app"), ("oci-mediatypes", "false")];
    let response = w.export("docker", &attrs, 0, &single(Some(top))).await.unwrap();
    let file = w.path("file");
    let names: Vec<String> = entries(&file).into_keys().collect();
    let tail: Vec<_> = names.iter().filter(|n| !n.starts_with("blobs")).collect();
    assert_eq!(tail, ["index.json", "manifest.json", "oci-layout"]);
    let manifest = String::from_utf8(entries(&file)["manifest.json"].clone()).unwrap();
    let config = response["containerimage.config.digest"].replace("sha256:", "blobs/sha256/");
    assert!(manifest.starts_with(&format!(
        r#"[{{"Config":"{config}","RepoTags":["app:1","u/app:latest"],"Layers":["blobs/sha256/"#
    )));
    let archive = format!("docker-archive:{}:app:1", file.display());
    assert_eq!(
        tool("skopeo", &["inspect", "--format", "{{.Os}} {{len .Layers}}", &archive]).trim(),
        "linux 1"
    );
    let manifest = &entries(&file)[&format!("blobs/sha256/{}", &response["containerimage.digest"][7..])];
    let manifest = String::from_utf8(manifest.clone()).unwrap();
    assert!(
        manifest.contains("\"application/vnd.docker.image.rootfs.diff.tar.gzip\"")
            && !manifest.contains("oci")
    );
}

#[tokio::test]
async fn an_index_over_two_platforms() {
    let w = World::new().await;
    let (a, b) = (w.layer(None, &[("a", "a")]), w.layer(None, &[("b", "b")]));
    let input = pair(a, b);
    let attrs = [
        ("name", "app"),
        ("annotation-index.i", "index"),
        ("annotation-manifest[linux/arm64].m", "arm"),
        ("annotation.all", "both"),
        ("source-date-epoch", "0"),
    ];
    let response = w.export("oci", &attrs, 0, &input).await.unwrap();
    assert!(!response.contains_key("containerimage.config.digest"));
    let files = entries(&w.path("file"));
    let json = |digest: &str| -> serde_json::Value {
        serde_json::from_slice(&files[&format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"))])
            .unwrap()
    };
    let root = json(&response["containerimage.digest"]);
    assert_eq!(root["annotations"]["i"], "index");
    let manifests = root["manifests"].as_array().unwrap();
    assert_eq!(manifests[1]["platform"], serde_json::json!({"architecture": "arm64", "os": "linux"}));
    let annotations = |n: usize| json(manifests[n]["digest"].as_str().unwrap())["annotations"].clone();
    assert_eq!(annotations(0), serde_json::json!({"all": "both"}));
    assert_eq!(annotations(1), serde_json::json!({"all": "both", "m": "arm"}));
    // The same archive, byte for byte, when times are fixed.
    let first = std::fs::read(w.path("file")).unwrap();
    w.export("oci", &attrs, 0, &input).await.unwrap();
    assert!(first == std::fs::read(w.path("file")).unwrap());
    let error = w.export("docker", &[], 0, &input).await.unwrap_err();
    assert_eq!(error, "docker exporter does not currently support exporting manifest lists");
    let error = w.export("oci", &[("annotation[linux/s390x].k", "v")], 0, &input).await.unwrap_err();
    assert_eq!(error, "invalid annotation: no platform linux/s390x found in source");
}

#[tokio::test]
async fn the_empty_filesystem_and_the_response() {
    use base64::Engine as _;
    let w = World::new().await;
    let input = ExportInput { refs: vec![(None, None)], metadata: BTreeMap::new() };
    let response = w
        .export("oci", &[("source-date-epoch", "7"), ("annotation-manifest-descriptor.d", "x")], 0, &input)
        .await
        .unwrap();
    let descriptor =
        base64::engine::general_purpose::STANDARD.decode(&response["containerimage.descriptor"]).unwrap();
    let descriptor: serde_json::Value = serde_json::from_slice(&descriptor).unwrap();
    assert_eq!(descriptor["digest"], response["containerimage.digest"]);
    assert_eq!(
        descriptor["annotations"],
        serde_json::json!({"d": "x", "org.opencontainers.image.created": "1970-01-01T00:00:07Z"})
    );
    assert_eq!(descriptor["platform"]["os"], "linux");
    let calls = w.calls.lock().unwrap();
    assert_eq!(calls[0].metadata["containerimage.digest"], response["containerimage.digest"]);
}

#[tokio::test]
async fn a_client_that_has_the_image_needs_nothing() {
    let w = World::new().await;
    let top = w.layer(None, &[("b", "two")]);
    assert!(w.export("oci", &[], PRESENT, &single(Some(top))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_blob_leaves_no_file() {
    let w = World::new().await;
    // Incompressible, so that the archive is longer than what is buffered on the way.
    let noise: String = (0..50u32).map(|n| kiln_digest::Digest::sha256(n.to_le_bytes()).hex()).collect();
    let top = w.layer(None, &[("b", &noise)]);
    let input = single(Some(top));
    w.export("oci", &[("compression", "uncompressed")], 0, &input).await.unwrap();
    std::fs::remove_file(w.path("file")).unwrap();
    let layer = w.content.list().unwrap().into_iter().max_by_key(|b| b.size).unwrap();
    let find = tool("find", &[&w.path("state").display().to_string(), "-name", &layer.digest.hex()]);
    let path = find.lines().next().expect("blobs are files named by their digest");
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    let error = w.export("oci", &[("compression", "uncompressed")], 0, &input).await.unwrap_err();
    assert!(error.contains("write the archive") || error.contains(&layer.digest.hex()), "{error}");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!w.path("file").exists(), "the client took a torn archive for a whole one");
}

/// A Docker Engine with a folder of its own; asked to end when dropped.
struct Docker {
    child: std::process::Child,
    host: String,
}

impl Docker {
    fn start(dir: &Path) -> Self {
        let path = |name: &str| dir.join(name).display().to_string();
        let host = format!("unix://{}", path("sock"));
        let mut command = Command::new("dockerd");
        command.args(["--host", &host, "--data-root", &path("data"), "--exec-root", &path("exec")]);
        command.args(["--pidfile", &path("pid"), "--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command
            .args(["--storage-driver=vfs"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let docker = Self { child: command.spawn().unwrap(), host };
        for _ in 0..600 {
            if Command::new("docker")
                .args(["--host", &docker.host, "version"])
                .output()
                .unwrap()
                .status
                .success()
            {
                return docker;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("dockerd does not answer");
    }

    fn run(&self, args: &[&str]) -> String {
        tool("docker", &[&["--host", &self.host], args].concat())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_docker_engine_started_by_root_loads_the_archive() {
    if !require(&[Need::Root, Need::Program("dockerd"), Need::Program("docker")]) {
        return;
    }
    let w = World::new().await;
    let base = w.layer(None, &[("etc/", ""), ("etc/a", "one")]);
    let top = w.layer(Some(&base), &[("b", "two")]);
    let dir = tempfile::tempdir().unwrap();
    let docker = Docker::start(dir.path());
    for oci in ["true", "false"] {
        let name = format!("app:{oci}");
        let attrs = [("name", name.as_str()), ("oci-mediatypes", oci)];
        let response = w.export("docker", &attrs, 0, &single(Some(top.clone()))).await.unwrap();
        docker.run(&["load", "-q", "-i", &w.path("file").display().to_string()]);
        let seen =
            docker.run(&["image", "inspect", "-f", "{{.Id}} {{len .RootFS.Layers}} {{.Config.Cmd}}", &name]);
        assert_eq!(seen.trim(), format!("{} 2 [sh]", response["containerimage.config.digest"]));
    }
}

#[tokio::test]
async fn a_layout_is_filled_blob_by_blob() {
    let w = World::new().await;
    let top = w.layer(None, &[("b", "two")]);
    let attrs = [("name", "app"), ("tar", "false")];
    let response = w.export("oci", &attrs, 0, &single(Some(top.clone()))).await.unwrap();
    let blobs = || std::fs::read_dir(w.path("blobs/sha256")).unwrap().count();
    assert_eq!(blobs(), 3, "layer, config, manifest");
    let root = w.path("blobs/sha256").join(&response["containerimage.digest"][7..]);
    assert!(std::fs::read_to_string(root).unwrap().contains("manifest.v1+json"));
    assert!(w.calls.lock().unwrap().is_empty(), "no archive");
    w.export("oci", &attrs, 0, &single(Some(top))).await.unwrap();
    assert_eq!(blobs(), 3);
}

/// Modification times of the files in each layer of the archive, in seconds.
fn layer_times(w: &World) -> Vec<Vec<i64>> {
    let files = entries(&w.path("file"));
    let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let blob = |d: &serde_json::Value| {
        files[&format!("blobs/sha256/{}", &d["digest"].as_str().unwrap()[7..])].clone()
    };
    let manifest: serde_json::Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
    let times = |layer: &serde_json::Value| {
        let data = blob(layer);
        let (_, plain) = kiln_fs::compress::auto_decoder(&data[..]).unwrap();
        let mut tar = kiln_fs::tar::Reader::new(plain);
        std::iter::from_fn(|| tar.next_entry().unwrap()).map(|e| e.mtime.as_nanos() / 1_000_000_000).collect()
    };
    manifest["layers"].as_array().unwrap().iter().map(times).collect()
}

#[tokio::test]
async fn file_times_are_clamped_but_for_the_base_image() {
    let w = World::new().await;
    let base = w.layer(None, &[("base", "one")]);
    let top = w.layer(Some(&base), &[("dir/", ""), ("dir/b", "two")]);
    let own = w.snapshots.layer_blobs(&base, &Default::default()).await.unwrap();
    let attrs = [("rewrite-timestamp", "true"), ("source-date-epoch", "1445412480")];
    w.export("oci", &attrs, 0, &single(Some(top.clone()))).await.unwrap();
    assert!(layer_times(&w).concat().iter().all(|t| *t == 1_445_412_480), "{:?}", layer_times(&w));
    let first = entries(&w.path("file"));
    w.export("oci", &attrs, 0, &single(Some(top.clone()))).await.unwrap();
    assert_eq!(first, entries(&w.path("file")), "reproducible");
    let mut input = single(Some(top));
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        own[0].diff_id
    );
    input.metadata.insert("containerimage.base.config".into(), config.into_bytes());
    w.export("oci", &attrs, 0, &input).await.unwrap();
    let times = layer_times(&w);
    assert!(times[0][0] > 1_445_412_480 && times[1].iter().all(|t| *t == 1_445_412_480), "{times:?}");
}
