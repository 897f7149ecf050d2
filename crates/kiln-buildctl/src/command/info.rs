//! `buildctl debug info`.

use super::{format, print, print_formatted};
use crate::cli::Values;
use crate::connect::Daemon;
use crate::error::{Call, Error};
use kiln_cli::tabs::Tabs;
use kiln_cli::template::{Struct, Value};
use kiln_client::Version;

pub(super) async fn run(values: &Values, daemon: &Daemon) -> Result<(), Error> {
    let version = daemon.client(Call::Unary("failed to call info")).await?.info().await?;
    if let Some(template) = format(values)? {
        let info = Struct::new("*client.Info").with("BuildkitVersion", "buildkitVersion", value(&version));
        return print_formatted(&template, &info.into());
    }
    print(&Tabs::LIST.format(&format!("BuildKit:\t{}\n", line(&version))))
}

/// Package, version and revision.
pub(super) fn line(v: &Version) -> String {
    format!("{} {} {}", v.package, v.version, v.revision)
}

/// A version for templates.
pub(super) fn value(v: &Version) -> Value {
    Struct::new("client.BuildkitVersion")
        .with("Package", "package", v.package.as_str())
        .with("Version", "version", v.version.as_str())
        .with("Revision", "revision", v.revision.as_str())
        .into()
}
