//! Everything that a build request says, before any of it is sent.

use super::args::BuildArgs;
use super::attrs::{self, Vars};
use super::context::{self, Context, DockerfileSource, Inputs};
use super::export::{self, Export};
use super::refuse;
use super::secret::{self, Secret};
use super::ssh::{self, Ssh};
use crate::error::CliError;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A directory of the client that the daemon may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalDir {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// A build request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// `dockerfile.v0`, or `gateway.v0` when another frontend is named.
    pub(crate) frontend: &'static str,
    pub(crate) attrs: BTreeMap<String, String>,
    pub(crate) locals: Vec<LocalDir>,
    /// What stdin is, if it is anything.
    pub(crate) stdin: Stdin,
    pub(crate) exports: Vec<Export>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) ssh: Vec<Ssh>,
    pub(crate) entitlements: Vec<String>,
    /// Things to tell the user before the build.
    pub(crate) warnings: Vec<String>,
}

/// The part that stdin plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    Unused,
    /// An archive, uploaded as the context.
    Context,
    /// The Dockerfile, served as the local `dockerfile`.
    Dockerfile {
        empty_context: bool,
    },
}

impl Plan {
    /// Reads all flags. `head` gives the beginning of stdin and is asked only when the context is `-`.
    pub(crate) fn new(
        args: &BuildArgs,
        vars: Vars<'_>,
        head: impl FnOnce() -> Result<Vec<u8>, CliError>,
    ) -> Result<Self, CliError> {
        let mut warnings = refuse::check(args)?;
        let mut attrs = attrs::from_flags(args, vars)?;
        let is_set = |name: &str| vars(name).is_some();
        let secrets = args.secret.iter().map(|s| secret::parse(s, &is_set)).collect::<Result<Vec<_>, _>>()?;
        let agent = vars("SSH_AUTH_SOCK");
        let ssh = args.ssh.iter().map(|s| ssh::parse(s, agent.as_deref())).collect::<Result<Vec<_>, _>>()?;
        let entitlements = attrs::entitlements(args)?;
        let exports = exports(args, &mut warnings)?;
        let inputs = context::resolve(args, head)?;
        let mut locals = attrs::named_contexts(args, &mut attrs)?;
        let stdin = add_inputs(inputs, &mut attrs, &mut locals);
        let frontend = if attrs.contains_key("source") { "gateway.v0" } else { "dockerfile.v0" };
        Ok(Self { frontend, attrs, locals, stdin, exports, secrets, ssh, entitlements, warnings })
    }
}

/// Without any word about results an image is made when it was given a name or its id is wanted.
fn exports(args: &BuildArgs, warnings: &mut Vec<String>) -> Result<Vec<Export>, CliError> {
    if let Some(exports) = export::parse(args)? {
        let stores_image = exports.iter().any(|e| !e.attrs.is_empty() || e.kind != export::ExportKind::Local);
        if args.iidfile.is_some() && !stores_image {
            return Err(CliError::Usage("--iidfile needs an image, and type=local makes none".into()));
        }
        return Ok(exports);
    }
    if !args.tag.is_empty() || args.quiet || args.iidfile.is_some() {
        return Ok(vec![export::image(args)?]);
    }
    warnings.push(
        "no output specified: the result stays in the build cache; --load puts it into Docker, --push into a registry, --output into files"
            .into(),
    );
    Ok(Vec::new())
}

fn add_inputs(inputs: Inputs, attrs: &mut BTreeMap<String, String>, locals: &mut Vec<LocalDir>) -> Stdin {
    let mut stdin = Stdin::Unused;
    let is_remote = matches!(inputs.context, Context::Url(_) | Context::StdinArchive);
    let empty_context = inputs.context == Context::Empty;
    match inputs.context {
        Context::Directory(path) => locals.push(LocalDir { name: "context".into(), path }),
        Context::Url(url) => drop(attrs.insert("context".into(), url)),
        Context::StdinArchive => stdin = Stdin::Context,
        Context::Empty => {}
    }
    let name = match inputs.dockerfile {
        DockerfileSource::Directory { dir, name } => {
            if is_remote {
                attrs.insert("dockerfilekey".into(), "dockerfile".into());
            }
            locals.push(LocalDir { name: "dockerfile".into(), path: dir });
            name
        }
        DockerfileSource::InContext { name } => name,
        DockerfileSource::Stdin => {
            attrs.insert("dockerfilekey".into(), "dockerfile".into());
            stdin = Stdin::Dockerfile { empty_context };
            "Dockerfile".into()
        }
    };
    attrs.insert("filename".into(), name);
    stdin
}
