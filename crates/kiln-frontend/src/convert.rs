//! One Dockerfile for one platform: to a graph and an image config.

mod from;

use crate::args;
use crate::context::Context;
use crate::epoch;
use crate::fail::{At, Fail, Result};
use crate::image_config;
use crate::lint::{self, Linter, Rule};
use crate::named_context::PendingLocal;
use crate::outline::{Declared, Outline};
use crate::platform::Platforms;
use crate::stages::{StageId, Stages};
use crate::state::EnvOf;
use kiln_dockerfile::shell::Lex;
use kiln_dockerfile::{Dockerfile, Kind, nearest};
use kiln_fs::patterns::Matcher;
use kiln_go::{path as gopath, quote};
use kiln_llb::builder::{Constraints, EnvList, GraphBuilder, MarshalOptions, Output};
use kiln_llb::{Definition, ProxyEnv};
use kiln_oci::{ImageConfig, Platform, Reference};
use std::collections::{BTreeMap, BTreeSet};

/// What comes out.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) definition: Definition,
    pub(crate) image: ImageConfig,
    pub(crate) base_image: Option<ImageConfig>,
    /// Seconds since 1970.
    pub(crate) epoch: Option<i64>,
}

/// The state of a conversion.
pub(crate) struct Converter<'a> {
    pub(crate) cx: &'a Context<'a>,
    pub(crate) lint: &'a mut Linter,
    pub(crate) lex: Lex,
    pub(crate) graph: GraphBuilder,
    /// Index of the Dockerfile among the graph's files.
    pub(crate) source_info: usize,
    pub(crate) stages: Stages,
    pub(crate) platforms: Platforms,
    pub(crate) multi_platform: bool,
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) global_args: EnvList,
    declared: Declared,
    pub(crate) proxy_env: Option<ProxyEnv>,
    pub(crate) epoch: Option<i64>,
    /// The main context; its paths are known only in the end.
    pub(crate) main_context: Output,
    pub(crate) ignore: Option<Matcher>,
    /// Client directories and the stages whose used paths limit them.
    pub(crate) pending_locals: Vec<(PendingLocal, StageId)>,
}

/// Which platform, and whether it is one of several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) platform: Option<&'a Platform>,
    pub(crate) build_platforms: &'a [Platform],
    /// Build checks look at every stage.
    pub(crate) all_stages: bool,
}

/// Converts `file`.
pub(crate) async fn convert(
    cx: &Context<'_>,
    file: &Dockerfile,
    request: Request<'_>,
    lint: &mut Linter,
) -> Result<Converted> {
    let (c, target) = dispatch_all(cx, file, request, lint).await?;
    let ignore = cx.ignore_patterns().await?;
    c.finish(target, ignore)
}

/// What the target of `file` can be given.
pub(crate) async fn outline(
    cx: &Context<'_>,
    file: &Dockerfile,
    request: Request<'_>,
    lint: &mut Linter,
) -> Result<Outline> {
    let (c, target) = dispatch_all(cx, file, request, lint).await?;
    c.lint.verdict()?;
    Ok(Outline::of(&c.stages, target))
}

/// Carries out every instruction that the target needs.
async fn dispatch_all<'a>(
    cx: &'a Context<'a>,
    file: &Dockerfile,
    request: Request<'_>,
    lint: &'a mut Linter,
) -> Result<(Converter<'a>, StageId)> {
    lint::whole(file, lint);
    let mut c = Converter::new(cx, file, request, lint)?;
    c.resolve_epoch(file).await?;
    c.add_stages(file)?;
    let target = c.target()?;
    c.add_dependencies()?;
    let mut reachable = c.resolve_stages(target).await?;
    if request.all_stages {
        let all: BTreeSet<StageId> = (0..c.stages.list.len()).collect();
        for id in &all {
            let more = c.resolve_stages(*id).await?;
            reachable.extend(more);
        }
    }
    let ignore = cx.ignore_patterns().await?;
    c.ignore = (!ignore.is_empty())
        .then(|| Matcher::new(ignore))
        .transpose()
        .map_err(|e| Fail::msg(e.to_string()))?;
    for id in 0..c.stages.list.len() {
        if reachable.contains(&id) && !c.stages.list[id].dispatched {
            c.dispatch_stage(id)?;
        }
    }
    Ok((c, target))
}

impl<'a> Converter<'a> {
    fn new(
        cx: &'a Context<'a>,
        file: &Dockerfile,
        request: Request<'_>,
        lint: &'a mut Linter,
    ) -> Result<Self> {
        let platforms = Platforms::new(request.build_platforms, request.platform);
        let build_args = cx.options.build_args.clone();
        let last = file.stages.last().and_then(|s| s.from.name.as_deref()).unwrap_or_default();
        let target_name = if cx.options.target.is_empty() { last } else { &cx.options.target };
        let predefined = args::predefined(&platforms, &build_args, target_name);
        let lex = Lex::new(file.escape);
        check_default_bases(file, &lex, &predefined, lint);
        let (global_args, declared) = args::global(predefined, &lex, file.global_arg_pairs(), &build_args)?;
        let mut graph = GraphBuilder::new();
        let source_info = graph.add_source_info(cx.entrypoint.info.clone());
        let main_context = graph.deferred();
        Ok(Converter {
            cx,
            lint,
            lex,
            graph,
            source_info,
            stages: Stages::default(),
            platforms,
            multi_platform: cx.options.multi_platform,
            proxy_env: args::proxy_env(&build_args),
            build_args,
            global_args,
            declared,
            epoch: None,
            main_context,
            ignore: None,
            pending_locals: Vec::new(),
        })
    }

    async fn resolve_epoch(&mut self, file: &Dockerfile) -> Result<()> {
        let key = args::SOURCE_DATE_EPOCH;
        let global = self.global_args.get(key).filter(|v| !v.is_empty());
        let Some(value) = self.build_args.get(key).map(String::as_str).or(global).map(str::to_string) else {
            return Ok(());
        };
        self.epoch =
            epoch::resolve(self.cx, &value, file, &self.build_args, &self.global_args, &self.lex).await?;
        let text = self.epoch.map(|e| e.to_string()).unwrap_or_default();
        if self.build_args.contains_key(key) {
            match self.epoch {
                Some(_) => self.build_args.insert(key.to_string(), text.clone()),
                None => self.build_args.remove(key),
            };
        }
        if self.global_args.get(key).is_some() {
            match self.epoch {
                Some(_) => self.global_args.set(key, &text),
                None => self.global_args.remove(key),
            }
        }
        Ok(())
    }

    fn target(&self) -> Result<StageId> {
        let name = &self.cx.options.target;
        if name.is_empty() {
            return self
                .stages
                .list
                .len()
                .checked_sub(1)
                .ok_or_else(|| Fail::msg("dockerfile contains no stages to build"));
        }
        self.stages.find(name).ok_or_else(|| {
            let hint = nearest(name, &self.stages.names(), false).map(|h| format!(" (did you mean {h}?)"));
            Fail::msg(format!("target stage {} could not be found{}", quote(name), hint.unwrap_or_default()))
        })
    }

    fn add_dependencies(&mut self) -> Result<()> {
        let mut id = 0;
        // Sources are added at the end while this runs; they have no instructions.
        while id < self.stages.list.len() {
            for instruction in std::mem::take(&mut self.stages.list[id].instructions) {
                let command = self.stages.command(id, instruction, false, &self.lex)?;
                self.stages.list[id].commands.push(command);
            }
            id += 1;
        }
        self.stages.check_cycles()?;
        if let [only] = &mut self.stages.list[..] {
            only.display_name.clear();
        }
        Ok(())
    }

    /// Takes over what a base stage has.
    pub(crate) fn inherit(&mut self, id: StageId) {
        let Some(base) = self.stages.list[id].base else { return };
        let b = &self.stages.list[base];
        let (state, platform, mut image) = (b.state.clone(), b.platform.clone(), b.image.clone());
        let (base_image, paths_of, workdir_set) = (b.base_image.clone(), b.paths_of, b.workdir_set);
        let build_args = b.build_args.clone();
        image.config.on_build.clear();
        let stage = &mut self.stages.list[id];
        stage.state = state;
        stage.platform = platform;
        stage.image = image;
        stage.base_image = base_image;
        stage.paths_of = paths_of;
        stage.workdir_set = workdir_set;
        stage.build_args.extend(build_args);
    }

    fn finish(mut self, target: StageId, ignore: &[String]) -> Result<Converted> {
        self.stages.use_path(target, "/".to_string());
        let labels = &self.cx.options.labels;
        self.stages.list[target]
            .image
            .config
            .labels
            .extend(labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        self.lint.verdict()?;

        let used: BTreeSet<String> =
            self.stages.list.iter().flat_map(|s| s.context_paths.iter().cloned()).collect();
        let context = self.cx.main_context(&mut self.graph, ignore, follow_paths(&used));
        self.graph.resolve(self.main_context, context);
        for (pending, id) in std::mem::take(&mut self.pending_locals) {
            let mut spec = pending.spec;
            spec.follow_paths = follow_paths(&self.stages.used_paths[self.stages.list[id].paths_of]);
            let out = self.graph.local(&spec, Constraints::default().named(&pending.title));
            self.graph.resolve(pending.output, Some(out));
        }
        let stage = &mut self.stages.list[target];
        let mut image = std::mem::take(&mut stage.image);
        let base_image = stage.base_image.take();
        if !self.platforms.implicit {
            set_platform(&mut image.platform, &self.platforms.target);
        }
        image.platform = image.platform.normalize();
        let options = MarshalOptions { platform: self.platforms.target.clone(), ..Default::default() };
        let output = self.stages.list[target].state.output;
        let definition = self.graph.marshal(output, &options)?;
        Ok(Converted { definition, image, base_image, epoch: self.epoch })
    }
}

/// Paths that limit a transfer, relative and sorted; none when everything is used.
fn follow_paths(used: &BTreeSet<String>) -> Vec<String> {
    if used.contains("/") {
        return Vec::new();
    }
    let mut paths: Vec<String> = used.iter().map(|p| gopath::join(&[".", p])).collect();
    paths.sort();
    paths
}

fn set_platform(p: &mut Platform, target: &Platform) {
    let same = p.os == target.os && p.architecture == target.architecture;
    p.os.clone_from(&target.os);
    p.architecture.clone_from(&target.architecture);
    if !target.variant.is_empty() || !same {
        p.variant.clone_from(&target.variant);
    }
    if !target.os_version.is_empty() || !same {
        p.os_version.clone_from(&target.os_version);
    }
    if !target.os_features.is_empty() {
        p.os_features.clone_from(&target.os_features);
    }
}

/// Bases must be valid names with the defaults of all arguments too.
fn check_default_bases(file: &Dockerfile, lex: &Lex, predefined: &EnvList, lint: &mut Linter) {
    let none = BTreeMap::new();
    let Ok((env, _)) = args::global(predefined.clone(), lex, file.global_arg_pairs(), &none) else { return };
    for stage in &file.stages {
        let Ok(found) = lex.process_word(&stage.from.base, &EnvOf(&env)) else { return };
        if Reference::parse_normalized(&found.text).is_err() {
            lint.report(Rule::InvalidDefaultArgInFrom(stage.from.base.clone()), Some(stage.source.range));
        }
    }
}

impl Converter<'_> {
    /// Adds the ONBUILD triggers of the base in front of a stage's own instructions. True when they need more bases.
    ///
    /// Images that are only copied from run nothing; their triggers could name themselves without end.
    pub(crate) fn add_triggers(&mut self, id: StageId) -> Result<bool> {
        let stage = &mut self.stages.list[id];
        if stage.dispatched {
            return Ok(false);
        }
        let mut triggers = std::mem::take(&mut stage.image.config.on_build);
        if let Some(base) = stage.base.filter(|_| !stage.onbuild_done) {
            stage.onbuild_done = true;
            let of_base = self.stages.list[base].commands.iter().filter_map(|c| match &c.instruction.kind {
                Kind::Onbuild(o) => Some(o.expression.clone()),
                _ => None,
            });
            triggers.extend(of_base);
        }
        let at = self.stages.list[id].at;
        let added = self.parse_triggers(id, triggers).map_err(|e| match at {
            Some(at) => e.only_at(at),
            None => e,
        })?;
        Ok(added)
    }

    fn parse_triggers(&mut self, id: StageId, triggers: Vec<String>) -> Result<bool> {
        let mut commands = Vec::with_capacity(triggers.len());
        for trigger in triggers {
            let mut instruction = kiln_dockerfile::parse_trigger(&trigger)?;
            if let Some(at) = self.stages.list[id].at {
                instruction.source.range = at;
            }
            commands.push(self.stages.command(id, instruction, true, &self.lex)?);
        }
        let needs_more = commands.iter().any(|c| !c.sources.is_empty());
        let stage = &mut self.stages.list[id];
        stage.command_total += commands.len();
        commands.append(&mut stage.commands);
        stage.commands = commands;
        Ok(needs_more)
    }

    fn dispatch_stage(&mut self, id: StageId) -> Result<()> {
        self.inherit(id);
        let target = self.platforms.target.clone();
        let stage = &mut self.stages.list[id];
        stage.dispatched = true;
        // Windows has a search path of its own.
        let is_windows = stage.platform.get_or_insert(target).os == "windows";
        let env = &mut stage.image.config.env;
        if !is_windows && !env.iter().any(|e| image_config::split_env(e).0 == "PATH") {
            env.push(image_config::DEFAULT_PATH.to_string());
        }
        for line in &stage.image.config.env {
            let (key, value) = image_config::split_env(line);
            stage.state.env.set(key, value);
        }
        let hostname = &self.cx.options.hostname;
        if !hostname.is_empty() {
            stage.state.hostname.clone_from(hostname);
        }
        let working_dir = stage.image.config.working_dir.clone();
        if !working_dir.is_empty() {
            self.set_workdir(id, &working_dir)?;
        }
        let stage = &mut self.stages.list[id];
        if !stage.image.config.user.is_empty() {
            stage.state.user.clone_from(&stage.image.config.user);
        }
        stage.state.network = self.cx.options.network;
        for command in self.stages.list[id].commands.clone() {
            let at = command.instruction.source.range;
            self.dispatch(id, command).at(at)?;
        }
        Ok(())
    }
}
