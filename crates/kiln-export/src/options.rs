//! Options of exporters: strings become types here, once.

use crate::annotations::Annotations;
use crate::epoch::Epoch;
use kiln_fs::compress::Compression;
use kiln_snapshot::CompressionOpts;
use std::collections::BTreeMap;

/// A typed exporter.
#[derive(Clone, Debug)]
pub enum Exporter {
    /// Into the image records and to registries.
    Image(ImageOptions),
    /// An archive for the client.
    Archive(ArchiveOptions),
    /// A directory of the client.
    Local(FilesOptions),
    /// A tar of the files for the client.
    Tar(FilesOptions),
    /// Nothing: the result stays in the cache.
    CacheOnly,
}

/// How an image is made and where it goes.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// Names, as given; a single `*` stands for the metadata's `image.name`.
    pub names: Vec<String>,
    /// Push each name.
    pub push: bool,
    /// Push without a tag.
    pub push_by_digest: bool,
    /// Plain HTTP, or no certificate checks.
    pub insecure: bool,
    /// Keep a record of the image.
    pub store: bool,
    /// Keep the record although layers are not here.
    pub store_incomplete: bool,
    /// `<prefix>@<digest>` as a name.
    pub dangling_prefix: Option<String>,
    /// The dangling name only without others.
    pub dangling_empty_only: bool,
    /// Also `<name>@<digest>`.
    pub name_canonical: bool,
    /// OCI or Docker media types.
    pub oci_types: bool,
    /// Layers.
    pub compression: CompressionOpts,
    /// Clamp times to this.
    pub epoch: Epoch,
    /// Clamp the times of files in layers too.
    pub rewrite_times: bool,
    /// Keep foreign layers' types.
    pub prefer_nondist: bool,
    /// Annotations of manifest and index.
    pub annotations: Annotations,
    /// What no exporter knows: goes into the result's metadata.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// What kind of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// OCI layout.
    Oci,
    /// The same with what `docker load` reads.
    Docker,
}

/// How an archive gets to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveSink {
    /// One tar.
    #[default]
    Tar,
    /// Blobs, into a content store of the client.
    Store,
}

/// An archive.
#[derive(Clone, Debug)]
pub struct ArchiveOptions {
    /// Its format.
    pub format: ArchiveFormat,
    /// How it gets to the client.
    pub sink: ArchiveSink,
    /// The image in it.
    pub image: ImageOptions,
}

/// Plain files.
#[derive(Clone, Debug, Default)]
pub struct FilesOptions {
    /// A directory per platform.
    pub platform_split: Option<bool>,
    /// All modification times.
    pub epoch: Epoch,
    /// Remove what the client has and the result has not.
    pub delete: bool,
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such exporter.
    #[error("exporter {0:?} could not be found{hint}", hint = hint(.0, EXPORTERS))]
    Exporter(String),
    /// A value that is no boolean.
    #[error("non-bool value specified for {0}")]
    NotBool(String),
    /// A value of another kind.
    #[error("invalid value {value:?} for exporter option {key}: {expected}")]
    Value {
        /// Which option.
        key: String,
        /// What was given.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// No way to write into a directory.
    #[error("invalid local exporter mode {0:?}: expected copy or delete")]
    Mode(String),
    /// Known, and not built.
    #[error("exporter option {0} is not built yet")]
    NotBuilt(String),
    /// Two options that exclude each other.
    #[error("{0}")]
    Conflict(String),
}

const EXPORTERS: &[&str] = &["image", "oci", "docker", "local", "tar", "cacheonly"];

fn hint(name: &str, known: &[&str]) -> String {
    let close =
        known.iter().find(|k| k.starts_with(name) || name.starts_with(**k) || differs_by_one(k, name));
    close.map(|k| format!(" (did you mean {k}?)")).unwrap_or_default()
}

fn differs_by_one(a: &str, b: &str) -> bool {
    let common = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let tail = a.bytes().rev().zip(b.bytes().rev()).take_while(|(x, y)| x == y).count();
    a.len().abs_diff(b.len()) <= 1 && common + tail + 1 >= a.len().min(b.len())
}

impl Exporter {
    /// Types the options of an exporter.
    ///
    /// # Errors
    /// Names the option that cannot be used.
    pub fn parse(kind: &str, attrs: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        Ok(match kind {
            "image" => Self::Image(image(attrs, true)?),
            "oci" => Self::Archive(archive(attrs, ArchiveFormat::Oci)?),
            "docker" => Self::Archive(archive(attrs, ArchiveFormat::Docker)?),
            "local" => Self::Local(files(attrs)?),
            "tar" => Self::Tar(files(attrs)?),
            "cacheonly" => Self::CacheOnly,
            other => return Err(OptionError::Exporter(other.to_string())),
        })
    }

    /// The name of the exporter's vertex.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Image(_) => "exporting to image",
            Self::Archive(a) if a.format == ArchiveFormat::Oci => "exporting to oci image format",
            Self::Archive(_) => "exporting to docker image format",
            Self::Local(_) => "exporting to client directory",
            Self::Tar(_) => "exporting to client tarball",
            Self::CacheOnly => "exporting cache only",
        }
    }
}

/// A boolean; no text at all is what `empty` says.
fn bool_value(key: &str, value: &str, empty: Option<bool>) -> Result<bool, OptionError> {
    let value = if value.is_empty() { empty } else { kiln_go::parse_bool(value) };
    value.ok_or_else(|| OptionError::NotBool(key.to_string()))
}

fn number(key: &str, value: &str, expected: &'static str) -> Result<i64, OptionError> {
    let wrong = || OptionError::Value { key: key.to_string(), value: value.to_string(), expected };
    value.parse().map_err(|_| wrong())
}

fn compression(value: &str) -> Result<Compression, OptionError> {
    match value {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "uncompressed" => Ok(Compression::Uncompressed),
        "estargz" => Err(OptionError::NotBuilt("compression=estargz".into())),
        other => Err(OptionError::Value {
            key: "compression".into(),
            value: other.to_string(),
            expected: "one of uncompressed, gzip, zstd",
        }),
    }
}

fn archive(attrs: &BTreeMap<String, String>, format: ArchiveFormat) -> Result<ArchiveOptions, OptionError> {
    let mut attrs = attrs.clone();
    let tar = attrs.remove("tar").map(|value| bool_value("tar", &value, Some(true))).transpose()?;
    let sink = if tar == Some(false) { ArchiveSink::Store } else { ArchiveSink::Tar };
    Ok(ArchiveOptions { format, sink, image: image(&attrs, false)? })
}

fn image(attrs: &BTreeMap<String, String>, to_store: bool) -> Result<ImageOptions, OptionError> {
    let mut o = ImageOptions { store: true, oci_types: true, ..ImageOptions::default() };
    let (mut artifact, mut unpack) = (false, false);
    for (key, value) in attrs {
        let yes = || bool_value(key, value, Some(true));
        let strict = || bool_value(key, value, None);
        match key.as_str() {
            "name" => o.names = split_names(value),
            "push" if to_store => o.push = yes()?,
            "push-by-digest" if to_store => o.push_by_digest = yes()?,
            "registry.insecure" if to_store => o.insecure = yes()?,
            "store" if to_store => o.store = yes()?,
            // There is no snapshotter of somebody else to unpack into.
            "unpack" if to_store => unpack = yes()?,
            "unsafe-internal-store-allow-incomplete" if to_store => o.store_incomplete = yes()?,
            "dangling-name-prefix" if to_store => o.dangling_prefix = Some(value.clone()),
            "danging-name-empty-only" if to_store => o.dangling_empty_only = yes()?,
            "name-canonical" if to_store => o.name_canonical = yes()?,
            "oci-mediatypes" => o.oci_types = strict()?,
            "oci-artifact" => artifact = strict()?,
            "attestation-inline" => drop(strict()?),
            "prefer-nondist-layers" => o.prefer_nondist = strict()?,
            "compression" => o.compression.kind = compression(value)?,
            "compression-level" => {
                let level = number(key, value, "a number")?;
                o.compression.level = i32::try_from(level).ok();
            }
            "force-compression" => o.compression.force = yes()?,
            "source-date-epoch" => o.epoch = Epoch::parse(value)?,
            "rewrite-timestamp" => o.rewrite_times = strict()?,
            key if o.annotations.take(key, value)? => {}
            key => drop(o.metadata.insert(key.to_string(), value.clone().into_bytes())),
        }
    }
    if artifact && !o.oci_types {
        let text = "exporter option \"oci-artifact=true\" conflicts with \"oci-mediatypes=false\"";
        return Err(OptionError::Conflict(text.into()));
    }
    if unpack && o.rewrite_times {
        let text = "exporter option \"rewrite-timestamp\" conflicts with \"unpack\"";
        return Err(OptionError::Conflict(text.into()));
    }
    check(o)
}

/// Names are given in one value, separated by commas.
pub(crate) fn split_names(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|n| !n.is_empty()).map(String::from).collect()
}

fn check(o: ImageOptions) -> Result<ImageOptions, OptionError> {
    let range = match o.compression.kind {
        Compression::Zstd => 0..=22,
        _ => 0..=9,
    };
    match o.compression.level {
        Some(level) if !range.contains(&level) => Err(OptionError::Value {
            key: "compression-level".into(),
            value: level.to_string(),
            expected: "0-9 for gzip, 0-22 for zstd",
        }),
        _ => Ok(o),
    }
}

fn files(attrs: &BTreeMap<String, String>) -> Result<FilesOptions, OptionError> {
    let mut o = FilesOptions::default();
    for (key, value) in attrs {
        match key.as_str() {
            "platform-split" => o.platform_split = Some(bool_value(key, value, None)?),
            "source-date-epoch" => o.epoch = Epoch::parse(value)?,
            "mode" => {
                o.delete = match value.trim().to_ascii_lowercase().as_str() {
                    "" | "copy" => false,
                    "delete" => true,
                    _ => return Err(OptionError::Mode(value.clone())),
                }
            }
            // BuildKit's clients send these, and older ones send more: nothing of the result depends on them.
            _ => tracing::debug!(key, "exporter option without effect"),
        }
    }
    Ok(o)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, attrs: &[(&str, &str)]) -> Result<Exporter, OptionError> {
        Exporter::parse(kind, &attrs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
    }

    #[test]
    fn image_options() {
        let Exporter::Image(o) =
            parse("image", &[("name", "a, b:1"), ("push", ""), ("compression", "zstd"), ("x.y", "z")])
                .unwrap()
        else {
            panic!()
        };
        assert_eq!(o.names, ["a", "b:1"]);
        assert!(o.push && o.oci_types);
        assert_eq!(o.metadata["x.y"], b"z");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let text = |kind: &str, attrs: &[(&str, &str)]| parse(kind, attrs).unwrap_err().to_string();
        assert_eq!(text("locl", &[]), "exporter \"locl\" could not be found (did you mean local?)");
        assert_eq!(text("image", &[("oci-mediatypes", "")]), "non-bool value specified for oci-mediatypes");
        assert!(text("image", &[("compression", "lz4")]).contains("uncompressed, gzip, zstd"));
        assert_eq!(text("oci", &[("tar", "no")]), "non-bool value specified for tar");
        assert_eq!(
            text("local", &[("mode", "sync")]),
            "invalid local exporter mode \"sync\": expected copy or delete"
        );
        assert!(
            text("image", &[("oci-artifact", "true"), ("oci-mediatypes", "false")])
                .contains("oci-artifact=true")
        );
        let both = [("rewrite-timestamp", "true"), ("unpack", "true")];
        assert!(text("image", &both).contains("conflicts with"));
        assert!(text("image", &[("source-date-epoch", "x")]).contains("seconds since 1970"));
        assert!(text("image", &[("annotation-x.k", "v")]).contains("index-descriptor"));
        assert!(text("image", &[("compression", "estargz")]).contains("not built yet"));
        assert!(text("image", &[("compression-level", "30")]).contains("0-9"));
    }
}
