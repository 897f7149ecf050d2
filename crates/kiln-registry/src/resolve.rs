//! From names to documents: manifests, indexes, configs.

use kiln_digest::Digest;
use kiln_oci::{Descriptor, Document};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};

use crate::client::{Repository, Target, bounded};
use crate::endpoint::Endpoint;
use crate::limit::Load;
use crate::{RegistryError, Result};

/// Largest manifest, index or config that is held in memory, in bytes.
pub const MANIFEST_LIMIT: u64 = 8 << 20;

const STEP: &str = "resolve";
const DIGEST_HEADER: &str = "docker-content-digest";

/// What a tag or digest stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Type, digest and size of the document. The type is what the registry says until the document is parsed.
    pub descriptor: Descriptor,
    /// The verified document, when the registry had to be asked for it.
    pub bytes: Option<Vec<u8>>,
}

impl Repository {
    /// Finds what a tag (or digest) stands for, with a `HEAD` where that suffices.
    pub async fn resolve(&self, object: &str) -> Result<Resolved> {
        let retry = self.registry.0.config.retry;
        retry.run(&*self.access.observer, || self.resolve_once(object)).await
    }

    async fn resolve_once(&self, object: &str) -> Result<Resolved> {
        let _permit = self.permit(Load::Json).await;
        let pinned: Option<Digest> = object.parse().ok();
        for endpoint in self.endpoints.iter() {
            let result = match pinned {
                Some(digest) => self.get_document(endpoint, object, Some(digest)).await,
                None => self.head(endpoint, object).await,
            };
            match result {
                Err(e) if self.try_next(endpoint, &e) => {}
                other => return other,
            }
        }
        Err(RegistryError::NotFound { reference: self.label.clone() })
    }

    async fn head(&self, endpoint: &Endpoint, object: &str) -> Result<Resolved> {
        let tail = format!("manifests/{object}");
        let mut call = self.call(STEP, Method::HEAD, Target::Tail(&tail));
        call.headers.push((ACCEPT, accept()));
        let response = self.send(endpoint, &call).await?;
        match response.status().as_u16() {
            200 => {}
            // Some registries know no HEAD for manifests.
            400 | 405 | 406 | 501 => return self.get_document(endpoint, object, None).await,
            _ => return Err(self.unexpected(STEP, &Method::HEAD, response).await),
        }
        let size = response.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        match (self.digest_header(endpoint, response.headers())?, size.filter(|s| *s > 0)) {
            (Some(digest), Some(size)) => {
                self.check_limit("manifest", size)?;
                Ok(Resolved {
                    descriptor: Descriptor::new(content_type(&response), digest, size),
                    bytes: None,
                })
            }
            _ => self.get_document(endpoint, object, None).await,
        }
    }

    /// The verified bytes of a document known by descriptor.
    pub async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.check_limit(&descriptor.digest.to_string(), descriptor.size)?;
        let resolved = self.resolve(&descriptor.digest.to_string()).await?;
        self.check_size(descriptor, resolved.descriptor.size)?;
        Ok(resolved.bytes.unwrap_or_default())
    }

    /// The verified bytes of a small blob, such as a config.
    pub async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.check_limit(&descriptor.digest.to_string(), descriptor.size)?;
        let retry = self.registry.0.config.retry;
        let bytes = retry.run(&*self.access.observer, || self.small_blob_once(descriptor)).await?;
        self.check_size(descriptor, bytes.len() as u64)?;
        Ok(bytes)
    }

    async fn small_blob_once(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let _permit = self.permit(Load::Json).await;
        let tail = format!("blobs/{}", descriptor.digest);
        for endpoint in self.endpoints.iter() {
            match self.get_bytes(endpoint, "fetch", &tail, Some(descriptor.digest)).await {
                Err(e) if self.try_next(endpoint, &e) => {}
                other => return other.map(|(bytes, _)| bytes),
            }
        }
        Err(RegistryError::NotFound { reference: self.label.clone() })
    }

    async fn get_document(
        &self,
        endpoint: &Endpoint,
        object: &str,
        pinned: Option<Digest>,
    ) -> Result<Resolved> {
        let (bytes, outer) =
            match self.get_bytes(endpoint, STEP, &format!("manifests/{object}"), pinned).await {
                // Some stores keep documents only as blobs.
                Err(e) if e.is_not_found() && pinned.is_some() => {
                    let blob = self.get_bytes(endpoint, STEP, &format!("blobs/{object}"), pinned).await;
                    blob.map_err(|_| e)?
                }
                other => other?,
            };
        let document = Document::parse(&bytes, &outer)
            .map_err(|source| RegistryError::Document { reference: self.label.clone(), source })?;
        Ok(Resolved { descriptor: Descriptor::of(document.media_type(&outer), &bytes), bytes: Some(bytes) })
    }

    /// A body of at most [`MANIFEST_LIMIT`], checked against the digest asked for, and its type.
    async fn get_bytes(
        &self,
        endpoint: &Endpoint,
        step: &'static str,
        tail: &str,
        pinned: Option<Digest>,
    ) -> Result<(Vec<u8>, String)> {
        let mut call = self.call(step, Method::GET, Target::Tail(tail));
        call.headers.push((ACCEPT, accept()));
        let response = self.expect(endpoint, &call, &[200]).await?;
        let (url, outer) = (response.url().clone(), content_type(&response));
        self.check_limit("manifest", response.content_length().unwrap_or(0))?;
        let claimed = self.digest_header(endpoint, response.headers())?;
        let work = bounded(response, MANIFEST_LIMIT as usize + 1);
        let bytes = match tokio::time::timeout(self.timeouts().idle, work).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(e)) => return Err(RegistryError::network(step, &self.label, &Method::GET, &url, &e)),
            Err(_) => return Err(RegistryError::broken(step, &self.label, &Method::GET, &url, "timed out")),
        };
        self.check_limit("manifest", bytes.len() as u64)?;
        let found = Digest::sha256(&bytes);
        if let Some(expected) = pinned.or(claimed).filter(|expected| *expected != found) {
            return Err(RegistryError::Digest { reference: self.label.clone(), expected, found });
        }
        Ok((bytes, outer))
    }

    fn digest_header(&self, endpoint: &Endpoint, headers: &HeaderMap) -> Result<Option<Digest>> {
        let Some(value) = headers.get(DIGEST_HEADER) else { return Ok(None) };
        let digest =
            value.to_str().ok().and_then(|text| text.parse::<Digest>().ok()).filter(|d| !d.is_random());
        match digest {
            Some(digest) => Ok(Some(digest)),
            None => Err(RegistryError::Protocol {
                step: STEP,
                reference: self.label.clone(),
                host: endpoint.host.clone(),
                message: format!("sent a malformed digest {value:?}"),
            }),
        }
    }

    fn check_limit(&self, what: &str, size: u64) -> Result<()> {
        if size <= MANIFEST_LIMIT {
            return Ok(());
        }
        let reference = self.label.clone();
        Err(RegistryError::TooLarge { reference, what: what.to_string(), size, limit: MANIFEST_LIMIT })
    }

    pub(crate) fn check_size(&self, descriptor: &Descriptor, found: u64) -> Result<()> {
        if found == descriptor.size {
            return Ok(());
        }
        let reference = self.label.clone();
        Err(RegistryError::Size { reference, digest: descriptor.digest, expected: descriptor.size, found })
    }
}

fn accept() -> HeaderValue {
    HeaderValue::from_static(concat!(
        "application/vnd.docker.distribution.manifest.v2+json, ",
        "application/vnd.docker.distribution.manifest.list.v2+json, ",
        "application/vnd.oci.image.manifest.v1+json, ",
        "application/vnd.oci.image.index.v1+json, */*"
    ))
}

fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_string()
}
