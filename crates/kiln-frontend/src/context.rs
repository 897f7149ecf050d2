//! Where the Dockerfile and the main context come from (spec dockerfile.md section 8).

use crate::dockerignore;
use crate::git_ref::{GitRef, Parsed};
use crate::host::{Host, RefId, ResolveOpt, Resolved, ResolvedImage, SolveOpt};
use crate::opts::{ContextOptions, Options};
use kiln_digest::Digest;
use kiln_go::path as gopath;
use kiln_llb::builder::{
    ActionSpec, Constraints, CopySpec, GitSpec, GraphBuilder, HttpSpec, LocalSpec, MarshalOptions, Output,
};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{CopyAction, Definition, SourceInfo};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio::sync::OnceCell;

const DOCKERFILE: &str = "Dockerfile";
const LOCAL_CONTEXT: &str = "context";
const LOCAL_DOCKERFILE: &str = "dockerfile";
/// Enough of a download to tell an archive from a Dockerfile.
const HEAD: u64 = 1024;

type Error = BuildError;

/// Everything that all platforms of a build share.
pub(crate) struct Context<'a> {
    pub(crate) host: &'a dyn Host,
    pub(crate) options: Options,
    pub(crate) inputs: BTreeMap<String, Definition>,
    pub(crate) main: MainContext,
    pub(crate) entrypoint: Entrypoint,
    ignore: OnceCell<Vec<String>>,
    images: Mutex<HashMap<ImageQuery, Arc<OnceCell<Resolved>>>>,
}

/// An image lookup that was made: asked again it gives the same answer.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ImageQuery {
    reference: String,
    platform: Option<kiln_oci::Platform>,
    store: Option<crate::host::OciStore>,
    mode: &'static str,
    log_name: String,
}

/// The Dockerfile.
#[derive(Clone, Debug)]
pub(crate) struct Entrypoint {
    pub(crate) info: SourceInfo,
    /// The vertex that brought it; warnings are shown with it.
    pub(crate) vertex: Digest,
    /// Content and name of an ignore file beside it.
    pub(crate) ignore: Option<(Vec<u8>, String)>,
}

/// The main context.
#[derive(Clone, Debug)]
pub(crate) struct MainContext {
    /// `None`: the client directory `context`.
    remote: Option<Remote>,
    subdir: Option<String>,
    filename: String,
    dockerfile_local: Option<String>,
}

#[derive(Clone, Debug)]
enum Remote {
    Git { spec: Box<GitSpec>, title: String },
    Http { spec: HttpSpec, archive: bool },
    Input(Definition),
}

impl<'a> Context<'a> {
    /// Finds the main context and reads the Dockerfile.
    pub(crate) async fn load(
        host: &'a dyn Host,
        options: Options,
        inputs: BTreeMap<String, Definition>,
    ) -> Result<Context<'a>, Error> {
        let main = MainContext::detect(host, &options.context, &inputs).await?;
        let entrypoint = read_entrypoint(host, &options, &main, &inputs).await?;
        let (ignore, images) = Default::default();
        Ok(Context { host, options, inputs, main, entrypoint, ignore, images })
    }

    /// Patterns that keep files of the main context away. None for contexts that are not client directories.
    pub(crate) async fn ignore_patterns(&self) -> Result<&[String], Error> {
        if self.main.remote.is_some() {
            return Ok(&[]);
        }
        let load = || dockerignore::of_main_context(self, LOCAL_CONTEXT);
        Ok(self.ignore.get_or_try_init(load).await?)
    }

    /// The main context as a source; of a client directory only `paths` are sent, or all when there are none.
    pub(crate) fn main_context(
        &self,
        graph: &mut GraphBuilder,
        ignore: &[String],
        paths: Vec<String>,
    ) -> Option<Output> {
        let Some(remote) = &self.main.remote else {
            let spec = LocalSpec {
                name: LOCAL_CONTEXT.to_string(),
                session_id: self.options.session_of(LOCAL_CONTEXT, self.host.session_id()).to_string(),
                exclude_patterns: ignore.to_vec(),
                follow_paths: paths,
                shared_key_hint: LOCAL_CONTEXT.to_string(),
                ..Default::default()
            };
            return Some(graph.local(&spec, Constraints::default().named("[internal] load build context")));
        };
        let out = remote.emit(graph);
        match &self.main.subdir {
            Some(dir) => {
                let action = CopyAction {
                    src: dir.clone(),
                    dest: "/".into(),
                    dir_copy_contents: true,
                    ..Default::default()
                };
                let copy = CopySpec { source: out, action, ..Default::default() };
                Some(graph.file(None, "/", vec![ActionSpec::Copy(Box::new(copy))], Constraints::default()))
            }
            None => out,
        }
    }

    /// Looks up an image, once per build for the same question.
    pub(crate) async fn resolve_image(
        &self,
        reference: &str,
        opt: ResolveOpt,
    ) -> Result<ResolvedImage, Error> {
        self.resolve(reference, opt).await?.image(reference)
    }

    /// The same, where it need not be an image in the end.
    pub(crate) async fn resolve(&self, reference: &str, opt: ResolveOpt) -> Result<Resolved, Error> {
        let query = ImageQuery {
            reference: reference.to_string(),
            platform: opt.platform.clone(),
            store: opt.oci_layout.clone(),
            mode: opt.mode.as_str(),
            log_name: opt.log_name.clone(),
        };
        let cell = {
            let mut images = self.images.lock().unwrap_or_else(|e| e.into_inner());
            images.entry(query).or_default().clone()
        };
        cell.get_or_try_init(|| self.host.resolve_image(reference, opt)).await.cloned()
    }

    /// The one source behind the main context, for SOURCE_DATE_EPOCH=context.
    pub(crate) fn main_source(&self, graph: &mut GraphBuilder) -> Option<Output> {
        match &self.main.remote {
            None => None,
            Some(Remote::Http { spec, .. }) => Some(graph.http(spec, Constraints::default())),
            Some(remote) => remote.emit(graph),
        }
    }
}

impl MainContext {
    async fn detect(
        host: &dyn Host,
        o: &ContextOptions,
        inputs: &BTreeMap<String, Definition>,
    ) -> Result<MainContext, Error> {
        let mut main = MainContext {
            remote: None,
            subdir: o.subdir.clone(),
            filename: o.filename.clone().unwrap_or_else(|| DOCKERFILE.to_string()),
            dockerfile_local: o.dockerfile_local.clone(),
        };
        match GitRef::parse(&o.remote) {
            Parsed::Bad(e) => return Err(BuildError::new(Code::InvalidArgument, e)),
            Parsed::Git(git) => {
                main.remote = Some(git_context(&git, o));
                return Ok(main);
            }
            Parsed::NotGit => {}
        }
        if is_http(&o.remote) {
            let spec = HttpSpec { url: o.remote.clone(), filename: "context".into(), ..Default::default() };
            let archive = is_archive(&read_head(host, &spec).await?);
            if !archive {
                main.filename.clone_from(&spec.filename);
            }
            main.remote = Some(Remote::Http { spec, archive });
        } else if let Some(def) = inputs.get(LOCAL_CONTEXT) {
            main.remote = Some(Remote::Input(def.clone()));
        }
        Ok(main)
    }
}

fn git_context(git: &GitRef, o: &ContextOptions) -> Remote {
    let mut spec = git.to_spec();
    spec.keep_git_dir |= o.keep_git_dir;
    if o.git_commit_times && spec.mtime.is_empty() {
        spec.mtime = "commit".to_string();
    }
    Remote::Git { spec: Box::new(spec), title: format!("[internal] load git source {}", o.remote) }
}

pub(crate) fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

async fn read_head(host: &dyn Host, spec: &HttpSpec) -> Result<Vec<u8>, Error> {
    let mut graph = GraphBuilder::new();
    let out = graph.http(spec, Constraints::default().named("[internal] load remote build context"));
    let result =
        solve(host, &graph, Some(out)).await.map_err(|e| e.context("failed to resolve httpcontext"))?;
    let head = host.read_file(&result.0, &spec.filename, Some(HEAD)).await;
    head.map_err(|e| e.context("failed to read downloaded context"))
}

async fn solve(
    host: &dyn Host,
    graph: &GraphBuilder,
    out: Option<Output>,
) -> Result<(RefId, Definition), Error> {
    let def = graph.marshal(out, &MarshalOptions::default()).map_err(|e| BuildError::msg(e.to_string()))?;
    Ok((host.solve(def.clone(), SolveOpt::default()).await?, def))
}

impl Remote {
    fn emit(&self, graph: &mut GraphBuilder) -> Option<Output> {
        match self {
            Remote::Git { spec, title } => Some(graph.git(spec, Constraints::default().named(title))),
            Remote::Input(def) => graph.definition(def),
            Remote::Http { spec, archive } => {
                let out =
                    graph.http(spec, Constraints::default().named("[internal] load remote build context"));
                if !archive {
                    return Some(out);
                }
                let src = format!("/{}", spec.filename);
                let action = CopyAction { src, dest: "/".into(), attempt_unpack: true, ..Default::default() };
                let copy = CopySpec { source: Some(out), action, ..Default::default() };
                Some(graph.file(None, "/", vec![ActionSpec::Copy(Box::new(copy))], Constraints::default()))
            }
        }
    }
}

/// Archives are known by their first bytes: compressed ones, or the checksum of a tar header.
fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    MAGIC.iter().any(|m| head.starts_with(m)) || is_tar_header(head)
}

fn is_tar_header(head: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let Some(block) = head.get(..512) else { return false };
    let field = String::from_utf8_lossy(&block[CHECKSUM]);
    let Ok(want) = u32::from_str_radix(field.trim_matches(['\0', ' ']), 8) else { return false };
    let byte = |(i, b): (usize, &u8)| if CHECKSUM.contains(&i) { 32 } else { u32::from(*b) };
    block.iter().enumerate().map(byte).sum::<u32>() == want
}

async fn read_entrypoint(
    host: &dyn Host,
    options: &Options,
    main: &MainContext,
    inputs: &BTreeMap<String, Definition>,
) -> Result<Entrypoint, Error> {
    let mut graph = GraphBuilder::new();
    let wrap = |e: Error| e.context("failed to resolve dockerfile");
    let out = dockerfile_source(host, options, main, inputs, &mut graph);
    if out.is_none() {
        let message = "invalid nil input definition to definition op";
        return Err(wrap(BuildError::new(Code::InvalidArgument, message)));
    }
    let (result, def) = solve(host, &graph, out).await.map_err(wrap)?;
    let vertex = def.root().map_or_else(|| Digest::sha256(""), |r| r.digest);
    let data = read_dockerfile(host, &result, &main.filename).await?;
    let ignore_name = format!("{}{}", main.filename, dockerignore::NAME);
    let ignore = host.read_file(&result, &ignore_name, None).await.ok();
    let info = SourceInfo {
        filename: main.filename.clone(),
        data,
        definition: Some(Box::new(def.to_pb())),
        language: DOCKERFILE.to_string(),
    };
    Ok(Entrypoint { info, vertex, ignore: ignore.map(|content| (content, ignore_name)) })
}

fn dockerfile_source(
    host: &dyn Host,
    options: &Options,
    main: &MainContext,
    inputs: &BTreeMap<String, Definition>,
    graph: &mut GraphBuilder,
) -> Option<Output> {
    if main.dockerfile_local.is_none() {
        match &main.remote {
            Some(remote @ (Remote::Git { .. } | Remote::Http { .. })) => return remote.emit(graph),
            _ => {
                if let Some(def) = inputs.get(LOCAL_DOCKERFILE) {
                    return graph.definition(def);
                }
            }
        }
    }
    let local = main.dockerfile_local.as_deref().unwrap_or(LOCAL_DOCKERFILE);
    let name = &main.filename;
    let mut follow_paths = vec![name.clone(), format!("{name}{}", dockerignore::NAME)];
    follow_paths.extend(lower_case_name(name));
    let spec = LocalSpec {
        name: local.to_string(),
        session_id: options.session_of(local, host.session_id()).to_string(),
        follow_paths,
        shared_key_hint: local.to_string(),
        differ_none: true,
        ..Default::default()
    };
    let title = format!("[internal] load build definition from {name}");
    Some(graph.local(&spec, Constraints::default().named(title)))
}

/// `Dockerfile` may also be called `dockerfile`.
fn lower_case_name(name: &str) -> Option<String> {
    (gopath::base(name) == DOCKERFILE).then(|| gopath::join(&[&gopath::dir(name), "dockerfile"]))
}

async fn read_dockerfile(host: &dyn Host, result: &RefId, name: &str) -> Result<Vec<u8>, Error> {
    let error = match host.read_file(result, name, None).await {
        Ok(data) => return Ok(data),
        Err(e) => e,
    };
    if let Some(lower) = lower_case_name(name)
        && let Ok(data) = host.read_file(result, &lower, None).await
    {
        return Ok(data);
    }
    if error.code == Code::NotFound {
        let message = format!("failed to read dockerfile: open {name}: no such file or directory");
        // The kind is of the file, not of the build: clients print it.
        return Err(BuildError { code: Code::Unknown, message, ..error });
    }
    Err(error.context("failed to read dockerfile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_head() {
        assert!(is_archive(b"\x1f\x8b\x08rest"));
        assert!(!is_archive(b"FROM scratch\n"));
        assert!(!is_archive(&[0; 1024]));
        let mut header = [0u8; 512];
        header[..4].copy_from_slice(b"file");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(is_archive(&header));
    }

    #[test]
    fn the_lower_case_name_is_beside_the_other() {
        assert_eq!(lower_case_name("a/Dockerfile").as_deref(), Some("a/dockerfile"));
        assert_eq!(lower_case_name("Dockerfile").as_deref(), Some("dockerfile"));
        assert_eq!(lower_case_name("x.Dockerfile"), None);
    }
}
