use super::*;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Manifest, annotation};
use kiln_snapshot::LayerDesc;
use kiln_testkit::{Need, require};

/// A registry, or a loud skip.
fn registry(w: &World) -> Option<kiln_testkit::Registry> {
    require(&[Need::Program("docker-registry"), Need::Program("skopeo")])
        .then(|| kiln_testkit::Registry::start(&w.path("")))
}

fn inspect(reference: &str, format: &str) -> String {
    tool(
        "skopeo",
        &["inspect", "--no-tags", "--tls-verify=false", "--format", format, &format!("docker://{reference}")],
    )
    .trim()
    .into()
}

#[tokio::test]
async fn a_pushed_image_can_be_had_by_its_names() {
    let w = World::new().await;
    let Some(registry) = registry(&w) else { return };
    let host = registry.host();
    let top = w.layer(None, &[("b", "two")]);
    let names = format!("{host}/a/app:1,{host}/b/app");
    let response =
        w.export("image", &[("name", &names), ("push", "")], 0, &single(Some(top.clone()))).await.unwrap();
    assert_eq!(response["image.name"], names);
    let digest = &response["containerimage.digest"];
    assert_eq!(inspect(&format!("{host}/a/app:1"), "{{.Digest}}"), *digest);
    assert_eq!(
        inspect(&format!("{host}/b/app:latest"), "{{.Digest}} {{len .Layers}}"),
        format!("{digest} 1")
    );
    let told = w.told();
    for line in [
        format!("naming to {host}/a/app:1"),
        "pushing layers".into(),
        format!("pushing manifest for {host}/a/app:1@{digest}"),
    ] {
        assert!(told.contains(&line), "{line} in {told:?}");
    }
    assert_eq!(w.records.get(&format!("{host}/b/app:latest")).unwrap().unwrap().digest.to_string(), *digest);

    let name = format!("{host}/c/app");
    let attrs = [("name", name.as_str()), ("push", "true"), ("push-by-digest", "true")];
    let response = w.export("image", &attrs, 0, &single(Some(top.clone()))).await.unwrap();
    assert_eq!(inspect(&format!("{name}@{}", response["containerimage.digest"]), "{{.Os}}"), "linux");
    assert!(!registry.has("c/app", "latest"));

    let attrs = [("name", "app:1"), ("push", "true"), ("push-by-digest", "true")];
    let error = w.export("image", &attrs, 0, &single(Some(top))).await.unwrap_err();
    assert_eq!(error, "can't push tagged ref docker.io/library/app:1 by digest");
}

#[tokio::test]
async fn layers_that_nobody_needed_are_mounted_not_fetched() {
    let w = World::new().await;
    let Some(registry) = registry(&w) else { return };
    let host = registry.host();
    // Another daemon pushes the base; this one knows it by descriptor only.
    let other = World::new().await;
    let name = format!("{host}/base:1");
    let base = other.layer(None, &[("a", "one")]);
    let response =
        other.export("image", &[("name", &name), ("push", "")], 0, &single(Some(base))).await.unwrap();
    let digest: Digest = response["containerimage.digest"].parse().unwrap();
    let manifest: Manifest = serde_json::from_slice(&other.content.read(&digest, 1 << 20).unwrap()).unwrap();
    let config = other.content.read(&manifest.config.digest, 1 << 20).unwrap();
    let config = kiln_oci::ImageConfig::parse(&config).unwrap();
    let source = format!("{}{host}", annotation::DISTRIBUTION_SOURCE);
    let layer = LayerDesc {
        descriptor: manifest.layers[0].clone().with_annotation(&source, "base"),
        diff_id: config.rootfs.diff_ids[0],
    };
    let lazy = w.snapshots.image_layers(&[layer], &NewRef::regular("pulled")).unwrap().unwrap();

    // The provider `()` can fetch nothing.
    let name = format!("{host}/derived:1");
    let response =
        w.export("image", &[("name", &name), ("push", "")], 0, &single(Some(lazy.clone()))).await.unwrap();
    assert_eq!(inspect(&name, "{{.Digest}}"), response["containerimage.digest"]);
    assert_eq!(w.content.info(&manifest.layers[0].digest).unwrap(), None);
    assert!(w.records.get(&name).unwrap().is_none(), "an image without its layers gets no local name");

    // Without a registry that has it, it is fetched, from where its descriptor says.
    struct From<'a>(&'a World, &'a World);
    #[async_trait]
    impl LayerProvider for From<'_> {
        async fn fetch(
            &self,
            descriptor: &Descriptor,
            _: &(dyn Fn(u64) + Send + Sync),
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            assert!(descriptor.annotations.keys().any(|k| k.starts_with(annotation::DISTRIBUTION_SOURCE)));
            let bytes = self.0.content.read(&descriptor.digest, 1 << 20)?;
            self.1.content.put(&bytes)?;
            Ok(())
        }
    }
    let elsewhere = kiln_testkit::Registry::start(&other.path(""));
    let name = format!("{}/derived:1", elsewhere.host());
    let attrs = [("name", name.as_str()), ("push", "")];
    w.export_with("image", &attrs, 0, &single(Some(lazy)), &From(&other, &w)).await.unwrap();
    assert_eq!(inspect(&name, "{{.Digest}}"), response["containerimage.digest"]);
}

#[tokio::test]
async fn names_that_stay_here() {
    let w = World::new().await;
    let top = w.layer(None, &[("b", "two")]);
    let mut input = single(Some(top));
    input.metadata.insert("image.name".into(), b"from/frontend:1".to_vec());
    let attrs = [("name", "*"), ("name-canonical", "true"), ("dangling-name-prefix", "dangling")];
    let response = w.export("image", &attrs, 0, &input).await.unwrap();
    let digest = &response["containerimage.digest"];
    assert_eq!(response["image.name"], format!("from/frontend:1,dangling@{digest}"));
    for name in [
        "docker.io/from/frontend:1".to_string(),
        format!("docker.io/from/frontend:1@{digest}"),
        format!("dangling@{digest}"),
    ] {
        assert!(w.records.get(&name).unwrap().is_some(), "{name}");
    }
    let error = w.export("image", &[("push", "true")], 0, &single(None)).await.unwrap_err();
    assert_eq!(error, "tag is needed when pushing to registry");
    let error = w.export("image", &[("name", "Not A Name")], 0, &single(None)).await.unwrap_err();
    assert!(error.starts_with("failed to parse Not A Name: "), "{error}");
}
