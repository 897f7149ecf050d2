//! Downloads of blobs: resumed after dropped connections, verified, once for all who want them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use kiln_content::{BlobWriter, ContentError, ContentStore};
use kiln_digest::Digest;
use kiln_oci::{Descriptor, annotation};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response};

use crate::client::{Repository, Target};
use crate::endpoint::Endpoint;
use crate::limit::Load;
use crate::sink::Sink;
use crate::{RegistryError, Result};

const STEP: &str = "fetch";
/// Connections for one blob in all, also when each of them brings something.
const MAX_CONNECTIONS: u32 = 64;
/// How long to wait for a partial file to be let go.
const BUSY_TRIES: u32 = 500;
const BUSY_WAIT: Duration = Duration::from_millis(20);
/// Bytes of one distribution source label, as in containerd.
const LABEL_LIMIT: usize = 4096;

impl Repository {
    /// Brings a blob into the store. `progress` gets the number of bytes that are there, counted from the start of the
    /// blob. Returns at once when the store has it; waits when another call is downloading it. When the future is
    /// dropped, what has arrived stays and a later call resumes behind it.
    pub async fn fetch(
        &self,
        descriptor: &Descriptor,
        store: &ContentStore,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let flight = self.registry.flight(&self.domain, &descriptor.digest);
        let _flight = flight.lock().await;
        if let Some(size) = store.info(&descriptor.digest)? {
            self.check_size(descriptor, size)?;
            self.note_source(descriptor, store).await?;
            progress(size);
            return Ok(());
        }
        if let Err(error) = self.fetch_into(descriptor, store, progress).await {
            // A partial file of an earlier run, or a bad mirror: the store has thrown it away, so begin once more.
            let spoilt = matches!(&error, RegistryError::Content(ContentError::DigestMismatch { .. }));
            if !spoilt {
                return Err(error);
            }
            tracing::warn!(%error, "downloading again");
            let origin = self.without_mirrors()?;
            origin.fetch_into(descriptor, store, progress).await.map_err(|e| self.named(descriptor, e))?;
        }
        self.note_source(descriptor, store).await
    }

    fn without_mirrors(&self) -> Result<Self> {
        let endpoints = [self.own_endpoint()?.clone()].into();
        Ok(Self { endpoints, ..self.clone() })
    }

    fn named(&self, descriptor: &Descriptor, error: RegistryError) -> RegistryError {
        match error {
            RegistryError::Content(ContentError::DigestMismatch { expected, found }) => {
                RegistryError::Digest { reference: self.label.clone(), expected, found }
            }
            RegistryError::Content(ContentError::SizeMismatch { expected, found, .. }) => {
                RegistryError::Size {
                    reference: self.label.clone(),
                    digest: descriptor.digest,
                    expected,
                    found,
                }
            }
            other => other,
        }
    }

    async fn fetch_into(
        &self,
        descriptor: &Descriptor,
        store: &ContentStore,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let mut sink = Sink::new(open_writer(&self.domain, descriptor.digest, store).await?);
        if sink.offset() > descriptor.size {
            sink.reset().await?;
        }
        self.download(descriptor, &mut sink, progress).await?;
        let (writer, size) = (sink.finish().await?, descriptor.size);
        blocking(move || writer.commit(Some(size))).await.map(drop)
    }

    /// Connects until all bytes are there. Failures count from the last connection that brought something.
    async fn download(
        &self,
        descriptor: &Descriptor,
        sink: &mut Sink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let (mut failures, mut connections) = (0, 0);
        while sink.offset() < descriptor.size {
            let before = sink.offset();
            let Err(error) = self.connect_and_read(descriptor, sink, progress).await else { continue };
            failures = if sink.offset() > before { 1 } else { failures + 1 };
            connections += 1;
            if connections >= MAX_CONNECTIONS {
                return Err(error);
            }
            self.registry.0.config.retry.wait(failures, error, &*self.access.observer).await?;
        }
        Ok(())
    }

    async fn connect_and_read(
        &self,
        descriptor: &Descriptor,
        sink: &mut Sink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let _permit = self.permit(Load::Blob).await;
        for endpoint in self.endpoints.iter() {
            match self.read_from(endpoint, descriptor, sink, progress).await {
                Err(e) if self.try_next(endpoint, &e) => {}
                other => return other,
            }
        }
        Err(RegistryError::NotFound { reference: self.label.clone() })
    }

    async fn read_from(
        &self,
        endpoint: &Endpoint,
        descriptor: &Descriptor,
        sink: &mut Sink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let (mut response, mut skip) = self.open_at(endpoint, descriptor, sink).await?;
        let url = response.url().clone();
        while sink.offset() < descriptor.size {
            let next = tokio::time::timeout(self.timeouts().idle, response.chunk()).await;
            let broken = |message| RegistryError::broken(STEP, &self.label, &Method::GET, &url, message);
            let chunk = match next {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => {
                    let (at, size) = (sink.offset(), descriptor.size);
                    return Err(broken(format!("connection ended at byte {at} of {size}")));
                }
                Ok(Err(e)) => return Err(RegistryError::network(STEP, &self.label, &Method::GET, &url, &e)),
                Err(_) => return Err(broken(format!("no data for {} s", self.timeouts().idle.as_secs()))),
            };
            let chunk = after(chunk, &mut skip);
            let room = descriptor.size - sink.offset();
            if chunk.len() as u64 > room {
                let found = sink.offset() + chunk.len() as u64;
                sink.reset().await?;
                return self.check_size(descriptor, found);
            }
            sink.data(chunk).await?;
            progress(sink.offset());
        }
        Ok(())
    }

    /// An answer that starts at the sink's offset, after dropping the returned number of bytes. A server that cannot
    /// do that starts over.
    async fn open_at(
        &self,
        endpoint: &Endpoint,
        descriptor: &Descriptor,
        sink: &mut Sink,
    ) -> Result<(Response, u64)> {
        let tail = format!("blobs/{}", descriptor.digest);
        let mut call = self.call(STEP, Method::GET, Target::Tail(&tail));
        let (offset, size) = (sink.offset(), descriptor.size);
        if offset > 0 {
            // Closed: some registries refuse ranges without an end.
            call.headers.push((RANGE, range(offset, size)));
        }
        let response = self.expect(endpoint, &call, &[200, 206, 416]).await?;
        match response.status().as_u16() {
            206 if offset > 0 && range_start(response.headers()) == Some(offset) => Ok((response, 0)),
            200 => {
                self.check_length(descriptor, &response)?;
                Ok((response, offset))
            }
            status if offset > 0 => {
                tracing::debug!(host = endpoint.host, status, "range not honoured, starting over");
                sink.reset().await?;
                call.headers.clear();
                let response = self.expect(endpoint, &call, &[200]).await?;
                self.check_length(descriptor, &response)?;
                Ok((response, 0))
            }
            _ => Err(self.unexpected(STEP, &Method::GET, response).await),
        }
    }

    fn check_length(&self, descriptor: &Descriptor, response: &Response) -> Result<()> {
        match response.content_length() {
            Some(length) => self.check_size(descriptor, length),
            None => Ok(()),
        }
    }

    /// The bytes of a blob as they come, unverified and without resumption: for passing on to somebody who verifies.
    pub async fn open(&self, descriptor: &Descriptor) -> Result<BoxStream<'static, std::io::Result<Bytes>>> {
        let retry = self.registry.0.config.retry;
        let response = retry.run(&*self.access.observer, || self.open_once(descriptor)).await?;
        let idle = self.timeouts().idle;
        let stream = futures::stream::unfold(response, move |mut response| async move {
            match tokio::time::timeout(idle, response.chunk()).await {
                Ok(Ok(None)) => None,
                Ok(Ok(Some(chunk))) => Some((Ok(chunk), response)),
                Ok(Err(e)) => Some((Err(std::io::Error::other(e.without_url())), response)),
                Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), response)),
            }
        });
        Ok(stream.boxed())
    }

    async fn open_once(&self, descriptor: &Descriptor) -> Result<Response> {
        let tail = format!("blobs/{}", descriptor.digest);
        for endpoint in self.endpoints.iter() {
            let call = self.call(STEP, Method::GET, Target::Tail(&tail));
            match self.expect(endpoint, &call, &[200]).await {
                Err(e) if self.try_next(endpoint, &e) => {}
                other => return other,
            }
        }
        Err(RegistryError::NotFound { reference: self.label.clone() })
    }

    async fn note_source(&self, descriptor: &Descriptor, store: &ContentStore) -> Result<()> {
        note_source(store, descriptor, &self.domain, &self.path).await
    }
}

/// Labels a blob with a repository that has it, so that it can be mounted from there.
///
/// # Errors
/// If the store fails.
pub async fn note_source(store: &ContentStore, blob: &Descriptor, domain: &str, path: &str) -> Result<()> {
    let (store, digest) = (store.clone(), blob.digest);
    let (name, path) = (format!("{}{domain}", annotation::DISTRIBUTION_SOURCE), path.to_string());
    blocking(move || {
        let old = store.labels(&digest)?.remove(&name).unwrap_or_default();
        match with_source(&old, &path) {
            Some(new) => store.set_label(&digest, &name, Some(&new)),
            None => Ok(()),
        }
    })
    .await
}

/// Opens the partial file of a registry's blob. The thread of a download that was just cancelled may have it for a
/// moment longer.
async fn open_writer(domain: &str, digest: Digest, store: &ContentStore) -> Result<BlobWriter> {
    let key = format!("{domain}/{digest}");
    let mut left = BUSY_TRIES;
    loop {
        let (store, key) = (store.clone(), key.clone());
        match blocking(move || store.writer(Some(digest), Some(&key))).await {
            Err(RegistryError::Content(ContentError::Busy(_))) if left > 0 => left -= 1,
            other => return other,
        }
        tokio::time::sleep(BUSY_WAIT).await;
    }
}

/// A label with one more repository, `None` if it is in there or there is no more room.
fn with_source(label: &str, path: &str) -> Option<String> {
    let mut paths: BTreeSet<&str> = label.split(',').filter(|p| !p.is_empty()).collect();
    let full = label.len() + path.len() + 1 > LABEL_LIMIT;
    (!full && paths.insert(path)).then(|| paths.into_iter().collect::<Vec<_>>().join(","))
}

/// Runs file work on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(e) => {
            Err(ContentError::Io { step: "use", blob: "store".to_string(), source: std::io::Error::other(e) }
                .into())
        }
    }
}

fn range(offset: u64, size: u64) -> HeaderValue {
    let text = format!("bytes={offset}-{}", size.saturating_sub(1));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("bytes=0-"))
}

/// The first byte of a `Content-Range: bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// What is left of a chunk after skipping.
fn after(mut chunk: Bytes, skip: &mut u64) -> Bytes {
    let n = (*skip).min(chunk.len() as u64);
    *skip -= n;
    chunk.split_off(n as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_a_sorted_set() {
        assert_eq!(with_source("", "b").as_deref(), Some("b"));
        assert_eq!(with_source("b", "a").as_deref(), Some("a,b"));
        assert_eq!(with_source("a,b", "a"), None);
        assert_eq!(with_source(&"x".repeat(LABEL_LIMIT), "a"), None);
    }

    #[test]
    fn ranges() {
        assert_eq!(range(5, 10), "bytes=5-9");
        let mut h = HeaderMap::new();
        assert_eq!(range_start(&h), None);
        for (text, start) in [("bytes 5-9/10", Some(5)), ("bytes */10", None), ("x", None)] {
            h.insert(CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(range_start(&h), start);
        }
        let mut skip = 3;
        assert_eq!(after(Bytes::from_static(b"ab"), &mut skip), "");
        assert_eq!(after(Bytes::from_static(b"cde"), &mut skip), "de");
    }
}
