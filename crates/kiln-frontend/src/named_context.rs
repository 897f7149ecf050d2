//! Named contexts: what stands in for a stage or an image (spec dockerfile.md section 10).

use crate::context::Context;
use crate::dockerignore;
use crate::git_ref::{GitRef, Parsed};
use crate::host::{OciStore, ResolveOpt, Resolved, ResolvedImage};
use crate::image_config;
use crate::platform;
use crate::state::State;
use base64::Engine as _;
use kiln_llb::ResolveMode;
use kiln_llb::builder::{Constraints, GitSpec, GraphBuilder, HttpSpec, LocalSpec, OciLayoutSpec, Output};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_oci::{ImageConfig, Platform, Reference};
use std::collections::BTreeMap;

/// A context that was given a name.
#[derive(Clone, Debug)]
pub(crate) struct NamedContext {
    /// The text of the option.
    input: String,
    /// Familiar name, without `:latest`.
    name: String,
    /// As found among the options, maybe with `::platform`.
    key: String,
    platform: Option<Platform>,
}

/// A named context whose metadata is known.
#[derive(Clone, Debug)]
pub(crate) enum Loaded {
    Scratch,
    Image {
        title: String,
        image: ResolvedImage,
        platform: Option<Platform>,
    },
    Git {
        spec: Box<GitSpec>,
        title: String,
    },
    Http {
        spec: HttpSpec,
        title: String,
    },
    OciLayout {
        spec: OciLayoutSpec,
        title: String,
        config: Vec<u8>,
        platform: Option<Platform>,
    },
    /// The paths are filled in when it is known which ones are used.
    Local {
        spec: Box<LocalSpec>,
        title: String,
    },
    Input {
        definition: Box<kiln_llb::Definition>,
        config: Option<Vec<u8>>,
    },
}

/// How often source policies may put another source in the place of a context (BuildKit's limit).
const MAX_REPLACED: usize = 10;

/// What one look at a context gave.
enum LookedUp {
    Loaded(Box<Loaded>),
    /// Source policies want this instead.
    Replaced(String),
}

/// A client directory in the graph whose paths are not yet known.
#[derive(Clone, Debug)]
pub(crate) struct PendingLocal {
    pub(crate) output: Output,
    pub(crate) spec: LocalSpec,
    pub(crate) title: String,
}

fn wrong(message: String) -> BuildError {
    BuildError::new(Code::InvalidArgument, message)
}

impl NamedContext {
    /// Looks for a context called `name`, first for this platform. `scratch` and `context` cannot be replaced.
    pub(crate) fn find(
        cx: &Context<'_>,
        name: &str,
        target: Option<&Platform>,
    ) -> Result<Option<Self>, BuildError> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        let reference = Reference::parse_normalized(name);
        let reference = reference.map_err(|e| wrong(format!("invalid context name {name}: {e}")))?;
        let familiar = reference.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar).to_string();
        let host = Platform::host();
        let with_platform = format!("{name}::{}", platform::id(target.unwrap_or(&host)));
        let keys = [with_platform, name.clone()];
        let found =
            keys.into_iter().find_map(|key| Some((cx.options.named_contexts.get(&key)?.clone(), key)));
        Ok(found.map(|(input, key)| NamedContext { input, name, key, platform: target.cloned() }))
    }

    /// Asks for what has to be known before the graph is made.
    pub(crate) async fn load(&self, cx: &Context<'_>) -> Result<Loaded, BuildError> {
        let mut context = self.clone();
        for _ in 0..MAX_REPLACED {
            match context.look_up(cx).await? {
                LookedUp::Loaded(loaded) => return Ok(*loaded),
                LookedUp::Replaced(input) => context.input = input,
            }
        }
        let text =
            "context recursion limit exceeded; this may indicate a cycle in the provided source policies";
        Err(wrong(format!("{text}: {}", context.input)))
    }

    async fn look_up(&self, cx: &Context<'_>) -> Result<LookedUp, BuildError> {
        match self.input.strip_prefix("docker-image:") {
            Some(image) => self.load_image(cx, image.trim_start_matches("//")).await,
            None => Ok(LookedUp::Loaded(Box::new(self.load_other(cx).await?))),
        }
    }

    async fn load_other(&self, cx: &Context<'_>) -> Result<Loaded, BuildError> {
        let Some((scheme, rest)) = self.input.split_once(':') else {
            return Err(wrong(format!("invalid context specifier {} for {}", self.input, self.key)));
        };
        match scheme {
            "oci-layout" => self.load_oci_layout(cx, rest.trim_start_matches("//")).await,
            "local" => self.load_local(cx, rest).await,
            "input" => self.load_input(cx, rest),
            "git" => self.load_git()?.ok_or_else(|| wrong(format!("invalid git context {}", self.input))),
            s if s.starts_with("git@") => {
                self.load_git()?.ok_or_else(|| wrong(format!("invalid git context {}", self.input)))
            }
            "http" | "https" => Ok(match self.load_git()? {
                Some(git) => git,
                None => Loaded::Http {
                    spec: HttpSpec {
                        url: self.input.clone(),
                        filename: "context".into(),
                        ..Default::default()
                    },
                    title: format!("[context {}] {}", self.key, self.input),
                },
            }),
            other => Err(wrong(format!("unsupported context source {other} for {}", self.key))),
        }
    }

    fn load_git(&self) -> Result<Option<Loaded>, BuildError> {
        match GitRef::parse(&self.input) {
            Parsed::NotGit => Ok(None),
            Parsed::Bad(e) => Err(wrong(e)),
            Parsed::Git(git) => {
                let title = format!("[internal] load git source {}", self.input);
                Ok(Some(Loaded::Git { spec: Box::new(git.to_spec()), title }))
            }
        }
    }

    async fn load_image(&self, cx: &Context<'_>, written: &str) -> Result<LookedUp, BuildError> {
        if written == "scratch" {
            return Ok(LookedUp::Loaded(Box::new(Loaded::Scratch)));
        }
        let reference =
            Reference::parse_normalized(written).map_err(|e| wrong(e.to_string()))?.with_default_tag();
        let opt = ResolveOpt {
            platform: self.platform.clone(),
            mode: cx.options.resolve_mode,
            log_name: format!("[context {}] load metadata for {written}", self.key),
            oci_layout: None,
        };
        let image = match cx.resolve(&reference.to_string(), opt).await? {
            Resolved::Image(image) => image,
            Resolved::Elsewhere(other) => {
                let (scheme, rest) =
                    other.split_once("://").ok_or_else(|| wrong(format!("could not parse ref: {other}")))?;
                return Ok(LookedUp::Replaced(format!("{scheme}:{rest}")));
            }
        };
        let title = format!("[context {}] {written}", self.key);
        Ok(LookedUp::Loaded(Box::new(Loaded::Image { title, image, platform: self.platform.clone() })))
    }

    async fn load_oci_layout(&self, cx: &Context<'_>, written: &str) -> Result<Loaded, BuildError> {
        let bad = |what: &str| wrong(format!("oci-layout reference {written:?} {what}"));
        let (store, digest) = written.split_once('@').ok_or_else(|| bad("has no digest"))?;
        // The store's name may carry a tag; a colon before the last slash is a port.
        let store = match store.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => store,
        };
        if store.is_empty() {
            return Err(bad("has no name"));
        }
        let digest = digest
            .parse()
            .map_err(|e| wrong(format!("could not parse oci-layout reference {written:?}: {e}")))?;
        let dummy = Reference::parse_normalized(&self.name);
        let dummy =
            dummy.map_err(|e| wrong(format!("could not parse oci-layout reference {:?}: {e}", self.name)))?;
        let reference = dummy.with_digest(digest).to_string();
        let session_id = cx.host.session_id().to_string();
        let opt = ResolveOpt {
            platform: self.platform.clone(),
            mode: ResolveMode::Default,
            log_name: format!("[context {}] load metadata for {reference}", self.key),
            oci_layout: Some(OciStore { session_id: session_id.clone(), store_id: store.to_string() }),
        };
        let image = cx.resolve_image(&reference, opt).await?;
        let spec = OciLayoutSpec { reference, session_id, store_id: store.to_string() };
        let title = format!("[context {}] OCI load from client", self.key);
        Ok(Loaded::OciLayout { spec, title, config: image.config, platform: self.platform.clone() })
    }

    async fn load_local(&self, cx: &Context<'_>, local: &str) -> Result<Loaded, BuildError> {
        let session_id = cx.options.session_of(local, cx.host.session_id()).to_string();
        let ignore = LocalSpec {
            name: local.to_string(),
            session_id: session_id.clone(),
            follow_paths: vec![dockerignore::NAME.to_string()],
            shared_key_hint: format!("context:{}-{}", self.key, dockerignore::NAME),
            differ_none: true,
            ..Default::default()
        };
        let title = format!("[context {}] load {}", self.key, dockerignore::NAME);
        let content = dockerignore::load(cx, &ignore, title).await?;
        let shared_key = cx.options.shared_keys.get(&self.key).map(String::as_str).unwrap_or_default();
        let spec = LocalSpec {
            name: local.to_string(),
            session_id,
            exclude_patterns: dockerignore::parse(&content, dockerignore::NAME)?,
            shared_key_hint: format!("context:{}-{shared_key}", self.key),
            ..Default::default()
        };
        Ok(Loaded::Local { spec: Box::new(spec), title: format!("[context {}] load from client", self.key) })
    }

    fn load_input(&self, cx: &Context<'_>, key: &str) -> Result<Loaded, BuildError> {
        let definition =
            cx.inputs.get(key).ok_or_else(|| wrong(format!("invalid input {key} for {}", self.key)))?;
        let config = match cx.options.input_metadata.get(key) {
            None => None,
            Some(json) => input_config(json)
                .map_err(|e| wrong(format!("failed to parse input metadata {json}: {e}")))?,
        };
        Ok(Loaded::Input { definition: Box::new(definition.clone()), config })
    }
}

/// The image config among the metadata of an input: a JSON map with base64 values.
fn input_config(json: &str) -> Result<Option<Vec<u8>>, String> {
    let mut map: BTreeMap<String, String> = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let Some(text) = map.remove("containerimage.config") else { return Ok(None) };
    base64::engine::general_purpose::STANDARD.decode(text).map(Some).map_err(|e| e.to_string())
}

impl Loaded {
    /// Puts the context into the graph. A client directory is left open until its used paths are known.
    pub(crate) fn emit(
        &self,
        graph: &mut GraphBuilder,
    ) -> Result<(State, Option<ImageConfig>, Option<PendingLocal>), BuildError> {
        let on = |p: &Option<Platform>| Constraints { platform: p.clone(), ..Default::default() };
        Ok(match self {
            Loaded::Scratch => (State::default(), None, None),
            Loaded::Git { spec, title } => {
                (State::new(Some(graph.git(spec, Constraints::default().named(title)))), None, None)
            }
            Loaded::Http { spec, title } => {
                (State::new(Some(graph.http(spec, Constraints::default().named(title)))), None, None)
            }
            Loaded::Image { title, image, platform } => {
                let reference =
                    Reference::parse_normalized(&image.reference).map(|r| r.with_default_tag().to_string());
                let reference = reference.map_err(|e| wrong(e.to_string()))?;
                let out = graph.image(&reference, ResolveMode::Default, on(platform).named(title));
                let (state, config) = with_config(Some(out), platform, &image.config)?;
                (state, Some(ImageConfig { created: None, ..config }), None)
            }
            Loaded::OciLayout { spec, title, config, platform } => {
                let out = graph.oci_layout(spec, on(platform).named(title));
                let (state, config) = with_config(Some(out), platform, config)?;
                (state, Some(config), None)
            }
            Loaded::Local { spec, title } => {
                let output = graph.deferred();
                let pending = PendingLocal { output, spec: LocalSpec::clone(spec), title: title.clone() };
                (State::new(Some(output)), None, Some(pending))
            }
            Loaded::Input { definition, config } => {
                let out = graph.definition(definition);
                match config {
                    None => (State::new(out), None, None),
                    Some(config) => {
                        let (state, config) = with_config(out, &None, config)?;
                        (state, Some(config), None)
                    }
                }
            }
        })
    }
}

/// A state with the environment, directory and platform of an image config.
fn with_config(
    output: Option<Output>,
    platform: &Option<Platform>,
    config: &[u8],
) -> Result<(State, ImageConfig), BuildError> {
    let image = image_config::parse(config)
        .map_err(|e| BuildError::msg(format!("failed to parse image config: {e}")))?;
    let mut state = State::new(output);
    for line in &image.config.env {
        let (key, value) = image_config::split_env(line);
        if !key.is_empty() {
            state.env.set(key, value);
        }
    }
    state.set_dir(&image.config.working_dir);
    state.platform = platform.clone();
    let p = &image.platform;
    if !p.os.is_empty() && !p.architecture.is_empty() {
        state.platform = Some(p.clone());
    }
    Ok((state, image))
}
