use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kiln_digest::Digest;
use kiln_fs::compress::{Compression, Encoder};
use kiln_fs::tar::{Entry, EntryKind, Writer};
use kiln_oci::{Descriptor, media_type};

use super::*;
use crate::{CompressionOpts, LayerDesc, LayerEvent, LayerProvider, RecordKind};

/// A registry in memory.
#[derive(Default)]
struct Source {
    blobs: HashMap<Digest, Vec<u8>>,
    fetched: AtomicUsize,
    delay: Duration,
    content: Mutex<Option<ContentStore>>,
}

#[async_trait]
impl LayerProvider for Source {
    async fn fetch(
        &self,
        descriptor: &Descriptor,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        progress(0);
        tokio::time::sleep(self.delay).await;
        let data = self.blobs.get(&descriptor.digest).ok_or("no such blob")?;
        let content = self.content.lock().unwrap().clone().unwrap();
        let mut writer = content.writer(Some(descriptor.digest), None)?;
        writer.write(data)?;
        writer.commit(None)?;
        progress(data.len() as u64);
        Ok(())
    }
}

/// Entries: `path = text`, `path/`, `path => hard link`, each with a mode.
fn archive(lines: &[(&str, u32)]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (line, mode) in lines {
        let (mut entry, text) = if let Some((path, text)) = line.split_once(" = ") {
            (Entry::new(path, EntryKind::File), text)
        } else if let Some((path, target)) = line.split_once(" => ") {
            let mut entry = Entry::new(path, EntryKind::HardLink);
            entry.link = target.into();
            (entry, "")
        } else {
            (Entry::new(*line, EntryKind::Dir), "")
        };
        entry.mode = *mode;
        entry.size = text.len() as u64;
        tar.append(&entry, text.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

fn layer(source: &mut Source, kind: Compression, lines: &[(&str, u32)]) -> LayerDesc {
    let tar = archive(lines);
    let mut encoder = Encoder::new(Vec::new(), kind, None, 1).unwrap();
    encoder.write_all(&tar).unwrap();
    let blob = encoder.finish().unwrap();
    let media_type = match kind {
        Compression::Gzip => media_type::DOCKER_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    };
    let descriptor = Descriptor::of(media_type, &blob);
    source.blobs.insert(descriptor.digest, blob);
    LayerDesc { descriptor, diff_id: Digest::sha256(&tar) }
}

fn image(source: &mut Source) -> Vec<LayerDesc> {
    vec![
        layer(
            source,
            Compression::Gzip,
            &[
                ("tmp/", 0o1777),
                ("usr/", 0o755),
                ("usr/bin/", 0o711),
                ("usr/bin/sh = sh", 0o755),
                ("old = old", 0o600),
            ],
        ),
        // Does not list usr/bin/ and tmp/, which must keep their modes.
        layer(
            source,
            Compression::Zstd,
            &[("usr/bin/tool = tool", 0o755), ("tmp/x = x", 0o644), (".wh.old = ", 0o644)],
        ),
        layer(
            source,
            Compression::Uncompressed,
            &[("usr/", 0o755), ("usr/.wh..wh..opq = ", 0), ("usr/lib = lib", 0o644)],
        ),
    ]
}

const FIRST_TWO: [&str; 6] = [
    "tmp/ 1777",
    "tmp/x = x 644",
    "usr/ 755",
    "usr/bin/ 711",
    "usr/bin/sh = sh 755",
    "usr/bin/tool = tool 755",
];
const ALL: [&str; 4] = ["tmp/ 1777", "tmp/x = x 644", "usr/ 755", "usr/lib = lib 644"];

fn connect(store: &Store, source: &Source) {
    *source.content.lock().unwrap() = Some(store.content().clone());
}

#[test]
fn an_image_is_unpacked_when_needed_and_only_once_root() {
    private_async(|| async {
        for driver in [DriverChoice::Overlay, DriverChoice::Native] {
            let mut source = Source { delay: Duration::from_millis(20), ..Source::default() };
            let layers = image(&mut source);
            let store = Store::new(driver);
            connect(&store, &source);
            let new = NewRef::new(RecordKind::Regular, "pulled from example.com/image");
            let top = store.image_layers(&layers, &new).unwrap().unwrap();
            let two = store.image_layers(&layers[..2], &new).unwrap().unwrap();
            assert!(store.image_layers(&[], &new).unwrap().is_none());
            assert!(top.is_lazy());
            assert!(matches!(store.mount_view(&top), Err(SnapshotError::Lazy(_))));
            assert!(matches!(store.new_active(Some(&top), NewRef::default()), Err(SnapshotError::Lazy(_))));
            assert_eq!(
                top.chain_id(),
                kiln_oci::chain_id(&layers.iter().map(|l| l.diff_id).collect::<Vec<_>>())
            );
            let events = Mutex::new(Vec::new());
            let progress = |d: &Descriptor, event: LayerEvent| events.lock().unwrap().push((d.digest, event));
            // Two builds at the same time, and one that needs less.
            let (a, b, c) = tokio::join!(
                store.ensure(&top, &source, &progress),
                store.ensure(&top, &source, &()),
                store.ensure(&two, &source, &())
            );
            a.and(b).and(c).unwrap();
            assert_eq!(source.fetched.load(Ordering::SeqCst), 3);
            assert!(events.lock().unwrap().iter().any(|(_, event)| *event == LayerEvent::Extracted));
            assert_eq!(store.listing(&two), FIRST_TWO, "{driver:?}");
            assert_eq!(store.listing(&top), ALL, "{driver:?}");
            let same = store.image_layers(&layers, &new).unwrap().unwrap();
            assert_eq!(same, top);
            assert!(!same.is_lazy());
            let id = top.id().clone();
            drop((top, two, same));
            let store = store.reopen();
            assert_eq!(store.listing(&store.get(&id).unwrap()), ALL);
        }
    });
}

#[test]
fn pulled_layers_keep_their_blobs_root() {
    private_async(|| async {
        let mut source = Source::default();
        let layers = image(&mut source);
        let store = Store::new(DriverChoice::Overlay);
        connect(&store, &source);
        let top = store.image_layers(&layers, &NewRef::default()).unwrap().unwrap();
        let blobs = store.layer_blobs(&top, &CompressionOpts::default()).await.unwrap();
        let digests =
            |blobs: &[crate::LayerBlob]| blobs.iter().map(|b| b.descriptor.digest).collect::<Vec<_>>();
        assert_eq!(digests(&blobs), layers.iter().map(|l| l.descriptor.digest).collect::<Vec<_>>());
        assert_eq!(source.fetched.load(Ordering::SeqCst), 0, "known by descriptor");
        let force = CompressionOpts { kind: Compression::Gzip, level: None, force: true };
        assert!(matches!(store.layer_blobs(&top, &force).await, Err(SnapshotError::Lazy(_))));
        store.fetch(&top, &force, &source, &()).await.unwrap();
        assert!(top.is_lazy(), "fetched, not unpacked");
        let repacked = store.layer_blobs(&top, &force).await.unwrap();
        assert_eq!(digests(&repacked)[0], digests(&blobs)[0]);
        assert_ne!(digests(&repacked)[1], digests(&blobs)[1]);
        assert_eq!(
            repacked.iter().map(|b| b.diff_id).collect::<Vec<_>>(),
            layers.iter().map(|l| l.diff_id).collect::<Vec<_>>()
        );
        store.content().gc().unwrap();
        store.ensure(&top, &(), &()).await.unwrap();
        assert_eq!(source.fetched.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_layer_may_link_to_its_parent_root() {
    private_async(|| async {
        for driver in [DriverChoice::Overlay, DriverChoice::Native] {
            let mut source = Source::default();
            let layers = [
                layer(
                    &mut source,
                    Compression::Gzip,
                    &[("d/", 0o700), ("d/a = a", 0o644), ("gone = g", 0o644)],
                ),
                layer(&mut source, Compression::Gzip, &[("d/b => d/a", 0o644), (".wh.gone = ", 0o644)]),
            ];
            let store = Store::new(driver);
            connect(&store, &source);
            let top = store.image_layers(&layers, &NewRef::default()).unwrap().unwrap();
            store.ensure(&top, &source, &()).await.unwrap();
            assert_eq!(store.listing(&top), ["d/ 700", "d/a = a 644", "d/b = a 644"], "{driver:?}");
        }
    });
}

#[test]
fn a_layer_that_is_not_what_it_says_is_refused_root() {
    private_async(|| async {
        let mut source = Source::default();
        let mut layers = image(&mut source);
        layers[1].diff_id = Digest::sha256("something else");
        let store = Store::new(DriverChoice::Overlay);
        connect(&store, &source);
        let top = store.image_layers(&layers[..2], &NewRef::default()).unwrap().unwrap();
        let error = store.ensure(&top, &source, &()).await.unwrap_err();
        assert!(matches!(error, SnapshotError::DiffId { .. } | SnapshotError::Unpack { .. }), "{error}");
        assert!(error.to_string().contains(&layers[1].descriptor.digest.to_string()));
        assert!(top.is_lazy());
        let bad = LayerDesc { descriptor: Descriptor::of("text/plain", b"x"), diff_id: Digest::sha256("x") };
        assert!(matches!(
            store.image_layers(&[bad], &NewRef::default()),
            Err(SnapshotError::MediaType { .. })
        ));
        let garbage = LayerDesc {
            descriptor: Descriptor::of(media_type::OCI_LAYER_GZIP, b"garbage"),
            diff_id: Digest::sha256("g"),
        };
        source.blobs.insert(garbage.descriptor.digest, b"garbage".to_vec());
        let missing = LayerDesc {
            descriptor: Descriptor::of(media_type::OCI_LAYER_GZIP, b"no"),
            diff_id: Digest::sha256("n"),
        };
        for layer in [garbage, missing] {
            let snapshot =
                store.image_layers(std::slice::from_ref(&layer), &NewRef::default()).unwrap().unwrap();
            let error = store.ensure(&snapshot, &source, &()).await.unwrap_err();
            assert!(error.to_string().contains(&layer.descriptor.digest.to_string()), "{error}");
        }
        store.wait_for_entries("snapshots", 0);
    });
}

#[test]
fn nobody_waiting_stops_the_work_root() {
    private_async(|| async {
        let mut source = Source { delay: Duration::from_millis(200), ..Source::default() };
        let layers = image(&mut source);
        let store = Store::new(DriverChoice::Overlay);
        connect(&store, &source);
        let source = Arc::new(source);
        let top = store.image_layers(&layers, &NewRef::default()).unwrap().unwrap();
        let given_up =
            tokio::time::timeout(Duration::from_millis(50), store.ensure(&top, &*source, &())).await;
        assert!(given_up.is_err());
        assert!(top.is_lazy());
        // Another one that waits takes over.
        let (first, second) = tokio::join!(
            tokio::time::timeout(Duration::from_millis(50), store.ensure(&top, &*source, &())),
            store.ensure(&top, &*source, &())
        );
        assert!(first.is_err());
        second.unwrap();
        assert_eq!(store.listing(&top), ALL);
    });
}

#[test]
fn lost_files_are_unpacked_again_root() {
    private_async(|| async {
        let mut source = Source::default();
        let layers = image(&mut source);
        let store = Store::new(DriverChoice::Overlay);
        connect(&store, &source);
        let top = store.image_layers(&layers, &NewRef::default()).unwrap().unwrap();
        store.ensure(&top, &source, &()).await.unwrap();
        let built = store.layer(Some(&top), &["built = 1"]);
        store.sync().unwrap();
        let id = built.id().clone();
        drop((top, built));
        fs::remove_dir_all(store.snapshots.0.fs_dir(1).parent().unwrap()).unwrap();
        let store = store.reopen();
        let built = store.get(&id).unwrap();
        assert!(built.is_lazy());
        store.ensure(&built, &(), &()).await.unwrap();
        assert!(store.listing(&built).contains(&"built = 1 644".to_string()));
    });
}

/// Two images may have the same layer in different blobs: each is exported with its own.
#[test]
fn the_blob_that_an_export_names_is_fetched_root() {
    private_async(|| async {
        let mut source = Source::default();
        let first = layer(&mut source, Compression::Gzip, &[("a = one", 0o644)]);
        let mut encoder = Encoder::new(Vec::new(), Compression::Gzip, Some(0), 1).unwrap();
        encoder.write_all(&archive(&[("a = one", 0o644)])).unwrap();
        let blob = encoder.finish().unwrap();
        let second =
            LayerDesc { descriptor: Descriptor::of(media_type::DOCKER_LAYER_GZIP, &blob), ..first.clone() };
        assert_ne!(first.descriptor.digest, second.descriptor.digest);
        source.blobs.insert(second.descriptor.digest, blob);
        let store = Store::new(DriverChoice::Overlay);
        connect(&store, &source);
        let opts = CompressionOpts::default();
        for layer in [first, second] {
            let top = store.image_layers(std::slice::from_ref(&layer), &NewRef::default()).unwrap().unwrap();
            let blobs = store.layer_blobs(&top, &opts).await.unwrap();
            assert_eq!(blobs[0].descriptor.digest, layer.descriptor.digest);
            store.fetch(&top, &opts, &source, &()).await.unwrap();
            assert!(store.content().info(&layer.descriptor.digest).unwrap().is_some());
        }
    });
}
