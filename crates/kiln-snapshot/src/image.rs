//! Image layers: known by descriptor, fetched and unpacked when their files are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use futures::future::try_join_all;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, annotation, media_type};

use crate::driver::Driver;
use crate::error::Result;
use crate::layers::usable;
use crate::record::{Meta, Record, Shape, StoredBlob};
use crate::snapshots::Inner;
use crate::unpack::UnpackedLayer;
use crate::{CompressionOpts, NewRef, Snapshot, SnapshotError, SnapshotId, Snapshots, catalog, stack};

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDesc {
    /// The blob. Annotations such as the distribution source are kept, so that a provider can find it after a restart.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed archive, from the image config.
    pub diff_id: Digest,
}

/// How a layer comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerEvent {
    /// Bytes fetched so far and in total.
    Downloading {
        /// Bytes that are there.
        current: u64,
        /// Size of the blob.
        total: u64,
    },
    /// The blob is there (also when it was before).
    Downloaded,
    /// Unpacking began.
    Extracting,
    /// The files are there.
    Extracted,
}

/// Is told how layers come along, from several threads.
pub trait LayerProgress: Send + Sync {
    /// Something happened to the layer with this blob.
    fn layer(&self, descriptor: &Descriptor, event: LayerEvent);
}

impl LayerProgress for () {
    fn layer(&self, _: &Descriptor, _: LayerEvent) {}
}

impl<F: Fn(&Descriptor, LayerEvent) + Send + Sync> LayerProgress for F {
    fn layer(&self, descriptor: &Descriptor, event: LayerEvent) {
        self(descriptor, event)
    }
}

/// Brings blobs: a registry with credentials, an OCI layout of a client.
#[async_trait]
pub trait LayerProvider: Send + Sync {
    /// Puts the blob, verified, into the content store. `progress` takes the bytes that are there so far. Dropping the
    /// future stops the work. Called for several layers at the same time.
    async fn fetch(
        &self,
        descriptor: &Descriptor,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// The provider where nothing can be fetched.
#[async_trait]
impl LayerProvider for () {
    async fn fetch(
        &self,
        _: &Descriptor,
        _: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("no source to fetch it from".into())
    }
}

/// The name of a blob's compression in the table.
pub(crate) fn variant_of(descriptor: &Descriptor) -> String {
    match media_type::layer_compression(&descriptor.media_type) {
        Some(media_type::LayerCompression::Uncompressed) => "uncompressed".into(),
        Some(media_type::LayerCompression::Gzip) => "gzip".into(),
        Some(media_type::LayerCompression::Zstd) => "zstd".into(),
        None => descriptor.media_type.clone(),
    }
}

fn created_at(descriptor: &Descriptor) -> Option<SystemTime> {
    let time: jiff::Timestamp = descriptor.annotations.get(annotation::CREATED_AT)?.parse().ok()?;
    Some(time.into())
}

impl Snapshots {
    /// The snapshot of a stack of image layers, bottom first. Layers that exist (same chain id) are shared; nothing is
    /// fetched or unpacked. `None` for no layers. `new` describes layers that are new.
    pub fn image_layers(&self, layers: &[LayerDesc], new: &NewRef) -> Result<Option<Snapshot>> {
        for layer in layers {
            if !media_type::is_layer(&layer.descriptor.media_type) {
                let digest = layer.descriptor.digest;
                return Err(SnapshotError::MediaType {
                    digest,
                    media_type: layer.descriptor.media_type.clone(),
                });
            }
        }
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let inner = &self.0;
        let boot = inner.db.boot();
        let mut catalog = inner.catalog();
        let mut parent: Option<Arc<Record>> = None;
        let mut fresh: Vec<Arc<Record>> = Vec::new();
        let mut variants: Vec<(Arc<Record>, StoredBlob)> = Vec::new();
        for (layer, chain) in layers.iter().zip(kiln_oci::chain_ids(&diff_ids)) {
            let blob =
                StoredBlob { variant: variant_of(&layer.descriptor), descriptor: layer.descriptor.clone() };
            let record = match catalog.by_chain(&chain) {
                Some(record) => {
                    if record.meta().blobs.iter().all(|have| have.descriptor != blob.descriptor) {
                        variants.push((record.clone(), blob));
                    }
                    record.clone()
                }
                None => {
                    let record = Arc::new(lazy_layer(parent.clone(), chain, layer, blob, new));
                    fresh.push(record.clone());
                    record
                }
            };
            parent = Some(record);
        }
        if !(fresh.is_empty() && variants.is_empty()) {
            inner.db.write(|tx| {
                fresh.iter().try_for_each(|record| catalog::insert_row(tx, record, boot))?;
                variants.iter().try_for_each(|(record, blob)| catalog::insert_blob(tx, &record.id, blob))
            })?;
        }
        for (record, blob) in variants {
            let mut meta = record.meta();
            meta.blobs.retain(|have| have.descriptor.digest != blob.descriptor.digest);
            // The newest comes first: its source is the one that is known to work now.
            meta.blobs.insert(0, blob);
        }
        fresh.into_iter().for_each(|record| catalog.insert(record));
        Ok(parent.map(|record| {
            record.used();
            Snapshot::new(record, inner.clone())
        }))
    }

    /// Makes the snapshot's files available: fetches and unpacks lazy layers (several at once, each once however many
    /// wait for it) and puts merges together. Dropping the future stops what only it waited for.
    pub async fn ensure(
        &self,
        snapshot: &Snapshot,
        provider: &dyn LayerProvider,
        progress: &dyn LayerProgress,
    ) -> Result<()> {
        if !snapshot.is_lazy() {
            return Ok(());
        }
        let _lease = self.0.content.lease();
        let mut parts = BTreeMap::new();
        collect(&snapshot.record, &mut parts);
        let lazy =
            |record: &&Arc<Record>| matches!(record.shape, Shape::Layer(_)) && record.meta().dir.is_none();
        let layers: Vec<Arc<Record>> = parts.values().filter(lazy).cloned().collect();
        if !layers.is_empty() {
            self.unpack_layers(layers, provider, progress).await?;
        }
        for record in to_assemble(&snapshot.record) {
            if record.meta().stack.is_none() {
                let _work = record.work.lock().await;
                let (inner, record) = (self.0.clone(), record.clone());
                blocking(move || inner.materialise(&record)).await?;
            }
        }
        Ok(())
    }

    /// Fetches the blobs of layers without unpacking them, for exports that need their bytes: those that
    /// [`layer_blobs`](Self::layer_blobs) names with the same options.
    pub async fn fetch(
        &self,
        snapshot: &Snapshot,
        opts: &CompressionOpts,
        provider: &dyn LayerProvider,
        progress: &dyn LayerProgress,
    ) -> Result<()> {
        let _lease = self.0.content.lease();
        let layers = stack::leaves(&snapshot.record);
        let fetch = layers.iter().map(|record| async move {
            let _work = record.work.lock().await;
            if record.meta().blobs.is_empty() {
                return Ok(());
            }
            let wanted = usable(record, opts).map(|blob| blob.descriptor.digest);
            self.0.fetch(record, wanted, provider, progress).await.map(drop)
        });
        try_join_all(fetch).await.map(drop)
    }

    async fn unpack_layers(
        &self,
        layers: Vec<Arc<Record>>,
        provider: &dyn LayerProvider,
        progress: &dyn LayerProgress,
    ) -> Result<()> {
        // Taken in one order everywhere (they come sorted by id), so two builds never wait for each other.
        let mut held = Vec::with_capacity(layers.len());
        for layer in &layers {
            held.push(layer.work.lock().await);
        }
        let layers: Vec<Arc<Record>> =
            layers.iter().filter(|layer| layer.meta().dir.is_none()).cloned().collect();
        let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let native = self.0.driver == Driver::Native;
        // Unpacking is bound by processors; fetching is limited by the provider.
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let slots = tokio::sync::Semaphore::new(cores.max(2));
        let prepare = layers.iter().map(|record| {
            let (cancel, slots) = (cancel.0.clone(), &slots);
            async move {
                let layer = self.0.fetch(record, None, provider, progress).await?;
                if native {
                    return Ok((layer, None));
                }
                let _slot = slots.acquire().await;
                progress.layer(&layer.descriptor, LayerEvent::Extracting);
                let (inner, desc, bottom) = (self.0.clone(), layer.clone(), stack::made_on(record).is_none());
                let unpacked = blocking(move || inner.unpack(&desc, bottom, &cancel)).await?;
                Ok::<_, SnapshotError>((layer, Some(unpacked)))
            }
        });
        let prepared = try_join_all(prepare).await?;
        let mut prepared: BTreeMap<SnapshotId, (LayerDesc, Option<UnpackedLayer>)> =
            layers.iter().map(|record| record.id.clone()).zip(prepared).collect();
        for record in bottom_up(&layers) {
            let Some((layer, unpacked)) = prepared.remove(&record.id) else { continue };
            let descriptor = layer.descriptor.clone();
            if native {
                progress.layer(&descriptor, LayerEvent::Extracting);
            }
            let (inner, cancel) = (self.0.clone(), cancel.0.clone());
            blocking(move || inner.finish_layer(&record, &layer, unpacked, &cancel)).await?;
            progress.layer(&descriptor, LayerEvent::Extracted);
        }
        Ok(())
    }
}

impl Inner {
    /// Brings a layer's blob into the content store: the wanted one, else any of them.
    async fn fetch(
        self: &Arc<Self>,
        record: &Record,
        wanted: Option<Digest>,
        provider: &dyn LayerProvider,
        progress: &dyn LayerProgress,
    ) -> Result<LayerDesc> {
        let (blobs, diff_id) = {
            let meta = record.meta();
            (meta.blobs.clone(), meta.diff_id)
        };
        let (Some(first), Some(diff_id)) = (blobs.first(), diff_id) else {
            return Err(SnapshotError::Lazy(record.id.clone()));
        };
        let is_wanted = |blob: &&StoredBlob| wanted.is_none_or(|wanted| blob.descriptor.digest == wanted);
        let first = blobs.iter().find(is_wanted).unwrap_or(first);
        let mut found = None;
        for blob in blobs.iter().filter(is_wanted) {
            if self.content.info(&blob.descriptor.digest)?.is_some() {
                found = Some(blob.descriptor.clone());
                break;
            }
        }
        let descriptor = match found {
            Some(descriptor) => descriptor,
            None => {
                let descriptor = first.descriptor.clone();
                let total = descriptor.size;
                let report =
                    |current| progress.layer(&descriptor, LayerEvent::Downloading { current, total });
                let fetched = provider.fetch(&descriptor, &report).await;
                fetched.map_err(|source| SnapshotError::Fetch {
                    digest: descriptor.digest,
                    source: source.into(),
                })?;
                descriptor
            }
        };
        // The layer keeps its blob: it may be pushed again, and its bytes cannot be made from its files.
        self.content.add_ref(&catalog::owner(&record.id), &descriptor.digest)?;
        progress.layer(&descriptor, LayerEvent::Downloaded);
        Ok(LayerDesc { descriptor, diff_id })
    }

    fn finish_layer(
        self: &Arc<Self>,
        record: &Arc<Record>,
        layer: &LayerDesc,
        unpacked: Option<UnpackedLayer>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<()> {
        let below = stack::made_on(record).map(|parent| self.dirs(parent)).transpose()?.unwrap_or_default();
        let unpacked = match unpacked {
            Some(unpacked) => {
                let of = stack::made_on(record).map(|parent| Snapshot::new(parent.clone(), self.clone()));
                let below = self.collapse(below, of.as_ref())?;
                self.settle(unpacked, layer, &below, cancel)?
            }
            None => self.unpack_on(layer, &below, cancel)?,
        };
        self.db.write(|tx| catalog::save_dir(tx, &record.id, unpacked.dir, self.db.boot()))?;
        {
            let mut meta = record.meta();
            meta.dir = Some(unpacked.dir);
            meta.size = None;
            if stack::made_on(record).is_none() {
                meta.marks = Some(false);
            }
        }
        unpacked.keep();
        self.note_unsynced();
        Ok(())
    }
}

fn lazy_layer(
    parent: Option<Arc<Record>>,
    chain: Digest,
    layer: &LayerDesc,
    blob: StoredBlob,
    new: &NewRef,
) -> Record {
    let created = new.created_at.or_else(|| created_at(&layer.descriptor)).unwrap_or_else(SystemTime::now);
    let meta = Meta {
        kind: new.kind,
        description: new.description.clone(),
        chain_id: Some(chain),
        diff_id: Some(layer.diff_id),
        blobs: vec![blob],
        last_used: Some(SystemTime::now()),
        ..Meta::default()
    };
    Record::new(SnapshotId::random(), Shape::Layer(parent), created, meta)
}

/// Tells blocking work to stop when its future is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(SnapshotError::Cancelled))
}

/// All records that a snapshot is made of, itself included.
fn collect(record: &Arc<Record>, into: &mut BTreeMap<SnapshotId, Arc<Record>>) {
    let mut todo = vec![record.clone()];
    while let Some(record) = todo.pop() {
        if into.insert(record.id.clone(), record.clone()).is_none() {
            todo.extend(record.shape.parents().into_iter().map(|(_, parent)| parent.clone()));
        }
    }
}

/// The merges and differences that must be mountable for this snapshot to be, each after those it needs.
fn to_assemble(record: &Arc<Record>) -> Vec<Arc<Record>> {
    let mut all = BTreeMap::new();
    collect(record, &mut all);
    let mut needed = BTreeSet::new();
    let mut todo = vec![record];
    while let Some(record) = todo.pop() {
        if !needed.insert(&record.id) {
            continue;
        }
        // A merge directly in a merge is put together by the outer one.
        let mut parts: Vec<&Arc<Record>> =
            record.shape.parents().into_iter().map(|(_, parent)| parent).collect();
        while let Some(part) = parts.pop() {
            match (&record.shape, &part.shape) {
                (Shape::Merge(_), Shape::Merge(inner)) => parts.extend(inner),
                _ => todo.push(part),
            }
        }
    }
    let assembled = |record: &Arc<Record>| matches!(record.shape, Shape::Merge(_) | Shape::Diff { .. });
    let mut sorted = bottom_up(&all.values().cloned().collect::<Vec<_>>());
    sorted.retain(|record| needed.contains(&record.id) && assembled(record));
    sorted
}

/// Sorts records so that each comes after those it is made of.
fn bottom_up(records: &[Arc<Record>]) -> Vec<Arc<Record>> {
    let mut waiting: BTreeMap<SnapshotId, Arc<Record>> =
        records.iter().map(|r| (r.id.clone(), r.clone())).collect();
    let mut todo: Vec<Arc<Record>> = records.to_vec();
    let mut sorted = Vec::with_capacity(records.len());
    while let Some(record) = todo.pop() {
        if !waiting.contains_key(&record.id) {
            continue;
        }
        let below: Vec<_> = record
            .shape
            .parents()
            .into_iter()
            .filter_map(|(_, parent)| waiting.get(&parent.id).cloned())
            .collect();
        if below.is_empty() {
            waiting.remove(&record.id);
            sorted.push(record);
        } else {
            todo.push(record);
            todo.extend(below);
        }
    }
    sorted
}
