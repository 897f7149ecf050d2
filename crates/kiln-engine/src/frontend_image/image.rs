//! The image of a frontend: found, brought here, and asked what it can do.

use crate::build::Build;
use base64::Engine as _;
use kiln_frontend::ResolveOpt;
use kiln_llb::builder::{Constraints, GraphBuilder, MarshalOptions};
use kiln_llb::errdefs::{BuildError, Code, Detail};
use kiln_llb::{Definition, op::attr};
use kiln_oci::{ImageConfig, Platform, Reference};
use kiln_policy::Policies;
use kiln_worker::Ref;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const CAPS: &str = "moby.buildkit.frontend.caps";
const NO_NETWORK: &str = "moby.buildkit.frontend.network.none";
const INPUTS: &str = "moby.buildkit.frontend.inputs";

/// docker/dockerfile 1.1.6 and 1.1.7 with their experimental variants: they take inputs and do not say so
/// (spec wire.md section 3).
const TAKE_INPUTS: [&str; 4] = [
    "sha256:9ac1c43a60e31dca741a6fe8314130a9cd4c4db0311fbbc636ff992ef60ae76d",
    "sha256:080bd74d8778f83e7b670de193362d8c593c8b14f5c8fb919d28ee8feda0d069",
    "sha256:60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4",
    "sha256:de85b2f3a3e8a2f7fe48e8e84a65f6fdd5cd5183afa6412fff9caa6871649c44",
];

/// An image that is here.
pub(super) struct FrontendImage {
    pub(super) config: ImageConfig,
    /// Of the index or manifest; empty for what is no image.
    digest: String,
    pub(super) definition: Definition,
    pub(super) root: Ref,
}

/// What was found, before it is here.
struct Found {
    config: Vec<u8>,
    digest: String,
    definition: Definition,
}

fn wrong(message: impl std::fmt::Display) -> BuildError {
    BuildError::new(Code::InvalidArgument, message.to_string())
}

impl FrontendImage {
    /// Looks for a named context that stands in for `source`, then in the registry; builds what it finds.
    pub(super) async fn find(
        build: &Arc<Build>,
        source: &str,
        opts: &BTreeMap<String, String>,
        inputs: &BTreeMap<String, Definition>,
    ) -> Result<Self, BuildError> {
        let Found { config, digest, definition } = match named_context(source, opts)? {
            Some((key, value)) => in_place_of(build, &key, value, opts, inputs).await?,
            None => from_registry(build, source).await?,
        };
        let config = match config.as_slice() {
            [] => ImageConfig::default(),
            bytes => ImageConfig::parse(bytes).map_err(|e| {
                wrong(format_args!("failed to parse the config of frontend image {source}: {e}"))
            })?,
        };
        let lazy = build.add(definition.clone(), &Policies::default()).await?;
        let lazy = lazy.ok_or_else(|| BuildError::msg("gateway source didn't return default result"))?;
        let root = build.get(&lazy).await.map_err(|failure| failure.error)?;
        build.ensure(&root, definition.root().map(|root| root.digest)).await?;
        Ok(Self { config, digest, definition, root })
    }

    /// Whether it wants no network.
    pub(super) fn no_network(&self) -> bool {
        self.config.config.labels.get(NO_NETWORK).and_then(|label| kiln_go::parse_bool(label)) == Some(true)
    }

    /// Fails for what the client needs and the image does not say it can.
    pub(super) fn check_caps(
        &self,
        opts: &BTreeMap<String, String>,
        inputs: &BTreeMap<String, Definition>,
    ) -> Result<(), BuildError> {
        let mut has = caps(self.config.config.labels.get(CAPS));
        if TAKE_INPUTS.contains(&self.digest.as_str()) {
            has.insert(INPUTS);
        }
        let mut needed = caps(opts.get("frontend.caps"));
        if !inputs.is_empty() {
            needed.insert(INPUTS);
        }
        match needed.difference(&has).next() {
            None => Ok(()),
            Some(cap) => {
                let error =
                    BuildError::new(Code::Unimplemented, format!("unsupported frontend capability {cap}"));
                Err(error.wrap(Detail::FrontendCap((*cap).to_string())))
            }
        }
    }
}

/// A comma list; what stands after a plus is a remark.
fn caps(list: Option<&String>) -> BTreeSet<&str> {
    let names = list.map(String::as_str).unwrap_or_default().split(',');
    names.filter_map(|cap| cap.split('+').next()).filter(|cap| !cap.is_empty()).collect()
}

/// The option that says what is used in place of the image: first the one for this platform.
fn named_context<'a>(
    source: &str,
    opts: &'a BTreeMap<String, String>,
) -> Result<Option<(String, &'a str)>, BuildError> {
    let reference = Reference::parse_normalized(source)
        .map_err(|e| wrong(format_args!("invalid frontend image {source:?}: {e}")))?;
    let familiar = reference.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let Platform { os, architecture, .. } = Platform::host();
    let keys = [format!("{name}::{os}/{architecture}"), name.to_string()];
    let found = |key: String| Some((opts.get(&format!("context:{key}"))?.as_str(), key));
    Ok(keys.into_iter().find_map(found).map(|(value, key)| (key, value)))
}

async fn from_registry(build: &Arc<Build>, source: &str) -> Result<Found, BuildError> {
    let reference = Reference::parse_normalized(source)
        .map_err(|e| wrong(format_args!("invalid frontend image {source:?}: {e}")))?;
    let reference = reference.with_default_tag();
    let name = reference.to_string();
    let found = build.resolve_image(&name, ResolveOpt::default(), &Policies::default()).await?;
    let image = found.image(&name)?;
    let resolved = Reference::parse_normalized(&image.reference).map_err(wrong)?.with_digest(image.digest);
    let attrs = BTreeMap::from([(attr::IMAGE_RECORD_TYPE.to_string(), "frontend".to_string())]);
    let mut graph = GraphBuilder::new();
    let root = graph.source(format!("docker-image://{resolved}"), attrs, Constraints::default());
    let options = MarshalOptions { platform: Platform::host(), ..MarshalOptions::default() };
    let definition = graph.marshal(Some(root), &options).map_err(wrong)?;
    Ok(Found { config: image.config, digest: image.digest.to_string(), definition })
}

async fn in_place_of(
    build: &Arc<Build>,
    key: &str,
    value: &str,
    opts: &BTreeMap<String, String>,
    inputs: &BTreeMap<String, Definition>,
) -> Result<Found, BuildError> {
    match value.split_once(':') {
        Some(("docker-image", rest)) => from_registry(build, rest.trim_start_matches("//")).await,
        Some(("input", name)) => {
            let definition = inputs.get(name);
            let definition =
                definition.ok_or_else(|| wrong(format_args!("invalid input {name} for {key}")))?.clone();
            let metadata = opts.get(&format!("input-metadata:{name}"));
            let config = metadata.map(|json| input_config(json)).transpose()?.unwrap_or_default();
            Ok(Found { config, digest: String::new(), definition })
        }
        _ => Err(BuildError::new(
            Code::Unimplemented,
            format!("context {key}: a frontend can be taken from docker-image:// and input: only"),
        )),
    }
}

/// The image config among the metadata of an input: a JSON map with base64 values.
fn input_config(json: &str) -> Result<Vec<u8>, BuildError> {
    let bad = |e: &dyn std::fmt::Display| wrong(format_args!("failed to parse input metadata: {e}"));
    let mut map: BTreeMap<String, String> = serde_json::from_str(json).map_err(|e| bad(&e))?;
    let text = map.remove("containerimage.config").unwrap_or_default();
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| bad(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(labels: &[(&str, &str)], digest: &str) -> FrontendImage {
        let mut config = ImageConfig::default();
        config.config.labels = labels.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
        FrontendImage {
            config,
            digest: digest.into(),
            definition: Definition::default(),
            root: Ref::default(),
        }
    }

    #[test]
    fn what_is_needed_must_be_said() {
        let opts = BTreeMap::from([("frontend.caps".to_string(), "a.b+forward,c".to_string())]);
        let inputs = BTreeMap::from([("i".to_string(), Definition::default())]);
        let able = image(&[(CAPS, "c,a.b+x,moby.buildkit.frontend.inputs")], "");
        assert!(able.check_caps(&opts, &inputs).is_ok());
        let error = image(&[(CAPS, "c")], "").check_caps(&opts, &BTreeMap::new()).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (Code::Unimplemented, "unsupported frontend capability a.b")
        );
        assert!(image(&[], "").check_caps(&BTreeMap::new(), &inputs).is_err());
        assert!(image(&[], TAKE_INPUTS[0]).check_caps(&BTreeMap::new(), &inputs).is_ok());
        assert!(
            image(&[(NO_NETWORK, "true")], "").no_network()
                && !image(&[(NO_NETWORK, "yes")], "").no_network()
        );
    }

    #[test]
    fn a_context_stands_in_for_the_image() {
        let host = Platform::host();
        let here = format!("context:org/front::{}/{}", host.os, host.architecture);
        let opts = |keys: &[&str]| keys.iter().map(|k| ((*k).to_string(), format!("v-{k}"))).collect();
        let value = |source: &str, opts: &BTreeMap<String, String>| {
            named_context(source, opts).unwrap().map(|(_, v)| v.to_string())
        };
        let both = opts(&["context:org/front", &here]);
        assert_eq!(value("docker.io/org/front:latest", &both), Some(format!("v-{here}")));
        let tagged = opts(&["context:org/front:1"]);
        assert_eq!(value("org/front:1", &tagged), Some("v-context:org/front:1".into()));
        assert_eq!(value("org/front:2", &tagged), None);
        assert!(named_context("Not An Image", &tagged).is_err());
    }
}
