//! `--output`, `--push`, `--load`.

use super::args::BuildArgs;
use crate::error::CliError;
use crate::pairs::{Pairs, unknown};
use kiln_go::parse_bool;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A result and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// What the daemon makes.
    pub kind: ExportKind,
    /// Its options.
    pub attrs: BTreeMap<String, String>,
    /// Where the client puts it.
    pub dest: Dest,
}

impl Export {
    /// What is not in the result is removed from the directory.
    pub fn deletes(&self) -> bool {
        self.attrs.get("mode").is_some_and(|m| m == "delete")
    }
}

/// Exporters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// An image in the daemon's store or a registry.
    Image,
    /// An OCI layout.
    Oci,
    /// An archive for `docker load`.
    Docker,
    /// Files in a directory.
    Local,
    /// Files in an archive.
    Tar,
}

impl ExportKind {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Oci => "oci",
            Self::Docker => "docker",
            Self::Local => "local",
            Self::Tar => "tar",
        }
    }

    fn is_image(self) -> bool {
        matches!(self, Self::Image | Self::Oci | Self::Docker)
    }
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dest {
    /// It stays with the daemon or goes to a registry.
    Daemon,
    /// Files below a directory.
    Directory(PathBuf),
    /// One file.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Into a Docker Engine.
    Docker,
}

const TYPES: [&str; 7] = ["local", "tar", "oci", "docker", "image", "registry", "cacheonly"];

/// What an image may be given, besides [`IMAGE_SWITCHES`].
const IMAGE_KEYS: [&str; 5] = ["name", "compression", "compression-level", "source-date-epoch", "tar"];

/// What an image may be given as true or false.
const IMAGE_SWITCHES: [&str; 11] = [
    "oci-mediatypes",
    "force-compression",
    "rewrite-timestamp",
    "prefer-nondist-layers",
    "oci-artifact",
    "attestation-inline",
    "push",
    "push-by-digest",
    "registry.insecure",
    "unpack",
    "store",
];

/// What files may be given.
const FILE_KEYS: [&str; 3] = ["source-date-epoch", "platform-split", "mode"];

const COMPRESSIONS: [&str; 3] = ["gzip", "zstd", "uncompressed"];

/// All results that the flags ask for. None = nothing was said.
pub fn parse(args: &BuildArgs) -> Result<Option<Vec<Export>>, CliError> {
    let mut exports = Vec::new();
    for text in args.output.iter().filter(|o| !o.is_empty()) {
        exports.extend(one(text)?);
    }
    if args.push {
        let mut images = exports.iter_mut().filter(|e| e.kind == ExportKind::Image).peekable();
        if images.peek().is_none() {
            drop(images);
            exports.push(Export { kind: ExportKind::Image, attrs: BTreeMap::new(), dest: Dest::Daemon });
        }
        for image in exports.iter_mut().filter(|e| e.kind == ExportKind::Image) {
            image.attrs.insert("push".into(), "true".into());
        }
    }
    if args.load && !exports.iter().any(|e| e.dest == Dest::Docker) {
        exports.push(Export { kind: ExportKind::Docker, attrs: BTreeMap::new(), dest: Dest::Docker });
    }
    if exports.iter().filter(|e| e.dest == Dest::Stdout).count() > 1 {
        return Err(CliError::Usage("several outputs want stdout; give all but one a dest=FILE".into()));
    }
    let is_said = !args.output.is_empty() || args.push || args.load;
    add_names(args, &mut exports)?;
    Ok(is_said.then_some(exports))
}

/// Allows to empty a directory that is not below the current one.
pub const DELETE: &str = "buildx.local.delete";

/// Refuses to remove files outside of the current directory, unless the user allowed it.
pub(super) fn check_delete(args: &BuildArgs, exports: &[Export]) -> Result<(), CliError> {
    if args.allow.iter().any(|a| a == DELETE) {
        return Ok(());
    }
    for export in exports.iter().filter(|e| e.deletes()) {
        let Dest::Directory(path) = &export.dest else { continue };
        let here = std::env::current_dir().map_err(CliError::stream("finding the current directory"))?;
        let (here, there) = (resolved(&here), resolved(&here.join(path)));
        if here == there || !there.starts_with(&here) {
            return Err(CliError::Usage(format!(
                "local output mode=delete for destination {:?} requires --allow={DELETE}",
                path.display().to_string()
            )));
        }
    }
    Ok(())
}

/// A path whose existing part has no links.
fn resolved(path: &std::path::Path) -> PathBuf {
    let found = path.ancestors().find_map(|a| Some((a, std::fs::canonicalize(a).ok()?)));
    let Some((above, real)) = found else { return path.to_owned() };
    let rest = path.strip_prefix(above).unwrap_or(std::path::Path::new(""));
    // What does not exist cannot be a link, but it can lead up again.
    rest.components().fold(real, |mut at, part| {
        match part {
            std::path::Component::ParentDir => drop(at.pop()),
            std::path::Component::Normal(name) => at.push(name),
            _ => {}
        }
        at
    })
}

/// The result when nothing was said and an image is wanted: kept by the daemon.
pub fn image(args: &BuildArgs) -> Result<Export, CliError> {
    let mut exports = vec![Export { kind: ExportKind::Image, attrs: BTreeMap::new(), dest: Dest::Daemon }];
    add_names(args, &mut exports)?;
    Ok(exports.remove(0))
}

fn add_names(args: &BuildArgs, exports: &mut [Export]) -> Result<(), CliError> {
    let mut names = Vec::new();
    for tag in &args.tag {
        let reference = kiln_oci::Reference::parse_docker(tag).map_err(|e| CliError::Value {
            flag: "--tag",
            value: tag.clone(),
            why: e.to_string(),
        })?;
        names.push(reference.with_default_tag().to_string());
    }
    for export in exports.iter_mut().filter(|e| e.kind.is_image()) {
        if !names.is_empty() {
            export.attrs.insert("name".into(), names.join(","));
        }
        let pushes = export.attrs.get("push").is_some_and(|p| p.is_empty() || parse_bool(p) == Some(true));
        if pushes && export.attrs.get("name").is_none_or(String::is_empty) {
            return Err(CliError::Usage("pushing needs a name: add --tag REGISTRY/NAME[:TAG]".into()));
        }
    }
    Ok(())
}

/// One `--output`; None for `cacheonly`.
fn one(text: &str) -> Result<Option<Export>, CliError> {
    if text == "-" {
        return Ok(Some(Export { kind: ExportKind::Tar, attrs: BTreeMap::new(), dest: Dest::Stdout }));
    }
    if !text.contains('=') && !text.contains(',') {
        let dest = Dest::Directory(text.into());
        return Ok(Some(Export { kind: ExportKind::Local, attrs: BTreeMap::new(), dest }));
    }
    let mut pairs = Pairs::parse("--output", text)?;
    let kind = pairs
        .take(&["type"])
        .ok_or_else(|| pairs.wrong(format!("type is missing: one of {}", TYPES.join(", "))))?;
    let dest = pairs.take(&["dest"]).filter(|d| !d.is_empty());
    if let Some(path) = pairs.take(&["output"]) {
        return Err(pairs.wrong(format!("output={path} is not a key; did you mean dest={path}?")));
    }
    let wrong = |why: String| CliError::Value { flag: "--output", value: text.to_owned(), why };
    let (kind, push) = match kind.as_str() {
        "local" => (ExportKind::Local, false),
        "tar" => (ExportKind::Tar, false),
        "oci" => (ExportKind::Oci, false),
        "docker" => (ExportKind::Docker, false),
        "image" => (ExportKind::Image, false),
        "registry" => (ExportKind::Image, true),
        "cacheonly" => {
            pairs.rest(&[], &[])?;
            return Ok(None);
        }
        other => return Err(wrong(unknown("type", other, &TYPES))),
    };
    let known =
        if kind.is_image() { [&IMAGE_KEYS[..], &IMAGE_SWITCHES].concat() } else { FILE_KEYS.to_vec() };
    let rest = pairs.rest(&known, &[])?;
    let mut attrs = BTreeMap::new();
    for (key, value) in rest {
        check(&key, &value).map_err(&wrong)?;
        attrs.insert(key, value);
    }
    if push {
        attrs.insert("push".into(), "true".into());
    }
    let as_tar = attrs.get("tar").is_none_or(|t| parse_bool(t) != Some(false));
    let dest = self::dest(kind, as_tar, dest).map_err(&wrong)?;
    Ok(Some(Export { kind, attrs, dest }))
}

fn check(key: &str, value: &str) -> Result<(), String> {
    match key {
        _ if (IMAGE_SWITCHES.contains(&key) || key == "tar" || key == "platform-split")
            && !value.is_empty()
            && parse_bool(value).is_none() =>
        {
            Err(format!("{key} is true or false, not '{value}'"))
        }
        "mode" if !["copy", "delete"].contains(&value) => {
            Err(format!("mode is copy or delete, not '{value}'"))
        }
        "compression" if !COMPRESSIONS.contains(&value) => Err(unknown("compression", value, &COMPRESSIONS)),
        "compression-level" if value.parse::<u8>().is_err() => {
            Err(format!("compression-level '{value}' is not a number"))
        }
        "source-date-epoch" if !value.is_empty() && value.parse::<i64>().is_err() => {
            Err(format!("source-date-epoch '{value}' is not a number of seconds"))
        }
        _ => Ok(()),
    }
}

fn dest(kind: ExportKind, as_tar: bool, dest: Option<String>) -> Result<Dest, String> {
    let name = kind.name();
    let directory = |dest: Option<String>| match dest.as_deref() {
        None => Err(format!("dest=DIRECTORY is missing for type={name}")),
        Some("-") => Err(format!("type={name} is a directory and cannot go to stdout")),
        Some(path) if std::path::Path::new(path).is_file() => {
            Err(format!("{path} is a file; a directory is needed"))
        }
        Some(path) => Ok(Dest::Directory(path.into())),
    };
    match (kind, dest.as_deref()) {
        (ExportKind::Image, None) => Ok(Dest::Daemon),
        (ExportKind::Image, Some(_)) => {
            Err("an image has no dest; use type=oci or type=docker for a file".into())
        }
        (ExportKind::Local, _) => directory(dest),
        (ExportKind::Oci | ExportKind::Docker, _) if !as_tar => directory(dest),
        (ExportKind::Docker, None) => Ok(Dest::Docker),
        (_, None | Some("-")) => Ok(Dest::Stdout),
        (_, Some(path)) if std::path::Path::new(path).is_dir() => {
            Err(format!("{path} is a directory; a file is needed"))
        }
        (_, Some(path)) => Ok(Dest::File(path.into())),
    }
}
