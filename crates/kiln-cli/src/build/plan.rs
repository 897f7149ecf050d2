//! Everything that a build request says, before any of it is sent.

use super::args::BuildArgs;
use super::attrs::{self, Vars};
use super::call::Call;
use super::context::{self, Context, DockerfileSource, Inputs};
use super::export::{self, Dest, Export};
use super::layout::Layout;
use super::policy;
use super::refuse;
use super::secret::{self, Secret};
use super::ssh::{self, Ssh};
use crate::error::CliError;
use kiln_client::SourcePolicy;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A directory of the client that the daemon may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDir {
    /// What the daemon calls it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// A build request.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is asked instead of a build.
    pub call: Option<Call>,
    /// `dockerfile.v0`, or `gateway.v0` when another frontend is named.
    pub frontend: &'static str,
    /// Options of the frontend.
    pub attrs: BTreeMap<String, String>,
    /// Directories that are served.
    pub locals: Vec<LocalDir>,
    /// Image layouts that are served.
    pub layouts: Vec<Layout>,
    /// What stdin is, if it is anything.
    pub stdin: Stdin,
    /// Where the Dockerfile is fetched from, if it is.
    pub dockerfile_url: Option<String>,
    /// Where results go.
    pub exports: Vec<Export>,
    /// Secrets that are served.
    pub secrets: Vec<Secret>,
    /// SSH agents that are served.
    pub ssh: Vec<Ssh>,
    /// What the user allows.
    pub entitlements: Vec<String>,
    /// The steps have the proxied network.
    pub proxy_network: bool,
    /// Which sources the build may use.
    pub source_policy: Option<SourcePolicy>,
    /// Things to tell the user before the build.
    pub warnings: Vec<String>,
}

/// What becomes of the result when no flag says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// An image is kept by the daemon when it was given a name or its id is wanted; else only the cache, with a warning.
    Keep,
    /// An image is kept by the daemon.
    Image,
    /// Only the cache, with this warning.
    Cache(String),
    /// Only the cache.
    Nothing,
    /// It is loaded into an engine.
    Load,
}

/// The part that stdin plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing.
    Unused,
    /// An archive, uploaded as the context.
    Context,
    /// The Dockerfile, served as the local `dockerfile`.
    Dockerfile {
        /// There is no other context than an empty one.
        empty_context: bool,
    },
}

impl Plan {
    /// Reads all flags. `head` gives the beginning of stdin and is asked only when the context is `-`.
    ///
    /// # Errors
    /// A value that cannot be used, or something that is not built.
    pub fn new(
        args: &BuildArgs,
        vars: Vars<'_>,
        unsaid: &Unsaid,
        head: impl FnOnce() -> Result<Vec<u8>, CliError>,
    ) -> Result<Self, CliError> {
        let mut warnings = refuse::check(args)?;
        let mut attrs = attrs::from_flags(args, vars)?;
        let is_set = |name: &str| vars(name).is_some();
        let secrets = args.secret.iter().map(|s| secret::parse(s, &is_set)).collect::<Result<Vec<_>, _>>()?;
        let ssh = ssh::of(args, vars)?;
        let entitlements = attrs::entitlements(args)?;
        let source_policy = policy::of(args, vars)?;
        let call = Call::of(args)?;
        let exports = match call {
            Some(_) => Vec::new(),
            None => exports(args, unsaid, &mut warnings)?,
        };
        export::check_delete(args, &exports)?;
        let inputs = context::resolve(args, head)?;
        policy::check_beside(args, &inputs.dockerfile)?;
        let dockerfile_url = match &inputs.dockerfile {
            DockerfileSource::Url(url) => Some(url.clone()),
            _ => None,
        };
        let (mut locals, layouts) = attrs::named_contexts(args, &mut attrs)?;
        let stdin = add_inputs(inputs, &mut attrs, &mut locals);
        call.iter().for_each(|c| c.add(&mut attrs));
        let frontend = if attrs.contains_key("source") { "gateway.v0" } else { "dockerfile.v0" };
        Ok(Self {
            call,
            frontend,
            attrs,
            locals,
            layouts,
            stdin,
            dockerfile_url,
            exports,
            secrets,
            ssh,
            entitlements,
            proxy_network: args.proxy_network,
            source_policy,
            warnings,
        })
    }

    /// Proxies reach the steps, unless the user names others.
    pub fn add_proxies(&mut self, proxies: Vec<(&'static str, String)>) {
        for (name, value) in proxies {
            let is_it = |k: &str| k.strip_prefix("build-arg:").is_some_and(|k| k.eq_ignore_ascii_case(name));
            if !self.attrs.keys().any(|k| is_it(k)) {
                self.attrs.insert(format!("build-arg:{name}"), value);
            }
        }
    }

    /// Refuses an archive for a terminal.
    ///
    /// # Errors
    /// A result goes to stdout, and stdout is a terminal.
    pub fn check_stdout(&self, is_terminal: bool) -> Result<(), CliError> {
        if is_terminal && self.exports.iter().any(|e| e.dest == Dest::Stdout) {
            return Err(CliError::Usage(
                "the result is binary and stdout is a terminal; give --output a dest=FILE".into(),
            ));
        }
        Ok(())
    }
}

fn exports(args: &BuildArgs, unsaid: &Unsaid, warnings: &mut Vec<String>) -> Result<Vec<Export>, CliError> {
    if let Some(exports) = export::parse(args)? {
        let stores_image = exports.iter().any(|e| !e.attrs.is_empty() || e.kind != export::ExportKind::Local);
        if args.iidfile.is_some() && !stores_image {
            return Err(CliError::Usage("--iidfile needs an image, and type=local makes none".into()));
        }
        return Ok(exports);
    }
    let mut keeps = |warning: &str| {
        warnings.push(warning.to_owned());
        Ok(Vec::new())
    };
    match unsaid {
        Unsaid::Keep if !args.tag.is_empty() || args.quiet || args.iidfile.is_some() => {
            Ok(vec![export::image(args)?])
        }
        Unsaid::Image => Ok(vec![export::image(args)?]),
        Unsaid::Keep => keeps(
            "no output specified: the result stays in the build cache; --load puts it into Docker, --push into a registry, --output into files",
        ),
        Unsaid::Cache(warning) => keeps(warning),
        Unsaid::Nothing => Ok(Vec::new()),
        Unsaid::Load => {
            let mut args = args.clone();
            args.load = true;
            Ok(export::parse(&args)?.unwrap_or_default())
        }
    }
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
        DockerfileSource::Url(_) => {
            attrs.insert("dockerfilekey".into(), "dockerfile".into());
            "Dockerfile".into()
        }
        DockerfileSource::Stdin => {
            attrs.insert("dockerfilekey".into(), "dockerfile".into());
            stdin = Stdin::Dockerfile { empty_context };
            "Dockerfile".into()
        }
    };
    attrs.insert("filename".into(), name);
    stdin
}
