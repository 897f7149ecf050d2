//! Exporters: image, OCI and Docker archives, local directory, tar.
//!
//! [`Exporter::parse`] types the options of a request once; [`export`] turns a result into what was asked for.
//!
//! An export has two phases: [`prepare`] makes everything and keeps or sends it, [`Exported::finish`] pushes. Where
//! there are several exporters, nothing is pushed before all of them are prepared (spec section 1).

mod annotations;
mod archive;
mod config;
mod epoch;
mod error;
mod files;
mod image;
mod index_json;
mod input;
mod options;
mod platforms;
mod push;
mod records;
mod rewrite;
mod stream;

pub use annotations::Annotations;
pub use epoch::Epoch;
pub use error::ExportError;
pub use input::{ExportContext, ExportInput, Progress};
pub use options::{
    ArchiveFormat, ArchiveOptions, ArchiveSink, Exporter, FilesOptions, ImageOptions, OptionError,
};
pub use platforms::result_platforms;
pub use records::ImageRecords;

use std::collections::BTreeMap;

/// A prepared export.
pub struct Exported {
    /// The keys of the response (spec section 2).
    pub response: BTreeMap<String, String>,
    push: Option<push::Push>,
}

impl Exported {
    fn done(response: BTreeMap<String, String>) -> Self {
        Self { response, push: None }
    }

    /// Pushes, if that was asked for.
    ///
    /// # Errors
    /// Names what could not be pushed.
    pub async fn finish(&self, cx: &ExportContext<'_>) -> Result<(), ExportError> {
        match &self.push {
            Some(push) => push.run(cx).await,
            None => Ok(()),
        }
    }
}

/// Exports `input`, except for pushes.
///
/// # Errors
/// Names what could not be written or sent. Nothing half-written stays.
pub async fn prepare(
    exporter: &Exporter,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<Exported, ExportError> {
    let input = &platforms::in_order(input);
    match exporter {
        Exporter::Image(options) => push::image(options, input, cx).await,
        Exporter::Archive(options) => archive::export(options, input, cx).await.map(Exported::done),
        Exporter::Local(options) => files::local(options, input, cx).await.map(Exported::done),
        Exporter::Tar(options) => files::tar(options, input, cx).await.map(Exported::done),
        Exporter::CacheOnly => Ok(Exported::done(BTreeMap::new())),
    }
}

/// Both phases of a single export; returns the keys of the response.
///
/// # Errors
/// As of the phases.
pub async fn export(
    exporter: &Exporter,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<BTreeMap<String, String>, ExportError> {
    let exported = prepare(exporter, input, cx).await?;
    exported.finish(cx).await?;
    Ok(exported.response)
}

#[cfg(test)]
mod tests;
