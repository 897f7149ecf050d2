//! OCI and Docker archives, streamed to the client.

use crate::image::{self, Image, parse_name};
use crate::stream::{Member, stream};
use crate::{
    ArchiveFormat, ArchiveOptions, ArchiveSink, ExportContext, ExportError, ExportInput, index_json,
};
use jiff::Timestamp;
use kiln_content::ContentStore;
use kiln_digest::Digest;
use kiln_fs::tar::{Entry, EntryKind};
use kiln_oci::{Reference, annotation};
use kiln_session::{FileRequest, Session};
use std::collections::BTreeMap;
use std::io::Cursor;

pub(crate) async fn export(
    o: &ArchiveOptions,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<BTreeMap<String, String>, ExportError> {
    if o.format == ArchiveFormat::Docker && input.is_map() {
        return Err(ExportError::Invalid(
            "docker exporter does not currently support exporting manifest lists".into(),
        ));
    }
    let input = &input.with(&o.image.metadata);
    let names = image::names(&o.image, input);
    let names = names
        .iter()
        .map(|n| Ok(parse_name(n)?.with_default_tag()))
        .collect::<Result<Vec<_>, ExportError>>()?;
    // Without its session there is nobody to make the image for.
    let session = cx.client().await?;
    let mut image = image::build(&o.image, input, cx).await?;
    cx.fetch(input, &o.image.compression).await?;
    if !image.root.annotations.contains_key(annotation::CREATED) {
        let created = o.image.epoch.of(input, None)?.unwrap_or_else(Timestamp::now);
        let created = created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        image.root.annotations.insert(annotation::CREATED.into(), created);
    }
    let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
    let response = image::response(&image, &texts)?;
    if o.sink == ArchiveSink::Store {
        cx.during("copying blobs", copy(&session, &image, cx)).await?;
        return Ok(response);
    }
    let files = files(o.format, &image, &names)?;
    let request = FileRequest { exporter: cx.index, multi_platform: false, metadata: response.clone() };
    let content = cx.content.clone();
    let members = files.into_iter().map(move |(path, file)| member(&path, file, &content));
    stream(("sending tarball", "write the archive"), &session, &request, cx, members).await?;
    Ok(response)
}

/// The store of the client that takes the blobs of a layout (spec wire.md section 4).
const STORE: &str = "export";

/// Sends the blobs that the client has not; what names others comes after them. The client writes `index.json`.
async fn copy(session: &Session, image: &Image, cx: &ExportContext<'_>) -> Result<(), ExportError> {
    let store = session.content(STORE);
    for blob in &image.blobs {
        let file = tokio::fs::File::from_std(cx.content.open_blob(&blob.digest)?);
        store.write(&blob.digest, blob.size, file).await?;
    }
    Ok(())
}

/// A file of the layout.
#[derive(Clone, Debug)]
enum Content {
    Dir,
    Blob(Digest, u64),
    Bytes(u32, Vec<u8>),
}

/// All files by path: the order of the archive, which therefore depends on nothing but the image.
fn files(
    format: ArchiveFormat,
    image: &Image,
    names: &[Reference],
) -> Result<BTreeMap<String, Content>, ExportError> {
    let dirs = ["blobs/", "blobs/sha256/"].map(|dir| (dir.to_string(), Content::Dir));
    let blobs =
        image.blobs.iter().map(|blob| (index_json::blob_path(blob), Content::Blob(blob.digest, blob.size)));
    let mut files: BTreeMap<_, _> = dirs.into_iter().chain(blobs).collect();
    files.insert("oci-layout".into(), Content::Bytes(0o444, br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files.insert("index.json".into(), Content::Bytes(0o644, index_json::index(&image.root, names)?));
    if format == ArchiveFormat::Docker {
        files.insert("manifest.json".into(), Content::Bytes(0o644, index_json::docker(image, names)?));
    }
    Ok(files)
}

fn member(path: &str, file: Content, content: &ContentStore) -> Result<Member, ExportError> {
    Ok(match file {
        Content::Dir => (entry(path, EntryKind::Dir, 0o755, 0), None),
        Content::Bytes(mode, data) => {
            let entry = entry(path, EntryKind::File, mode, data.len() as u64);
            (entry, Some(Box::new(Cursor::new(data))))
        }
        Content::Blob(digest, size) => {
            let entry = entry(path, EntryKind::File, 0o444, size);
            (entry, Some(Box::new(content.reader(&digest)?)))
        }
    })
}

fn entry(path: &str, kind: EntryKind, mode: u32, size: u64) -> Entry {
    let mut entry = Entry::new(path, kind);
    entry.mode = mode;
    entry.size = size;
    entry
}
