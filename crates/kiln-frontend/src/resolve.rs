//! Base images: looked up all at once, then put into the graph one by one.

use crate::convert::Converter;
use crate::fail::{Fail, Result};
use crate::host::{ResolveOpt, ResolvedImage};
use crate::image_config;
use crate::lint::Rule;
use crate::named_context::{Loaded, NamedContext};
use crate::names;
use crate::platform;
use crate::stages::StageId;
use crate::state::State;
use kiln_dockerfile::nearest;
use kiln_llb::builder::{Constraints, EnvList};
use kiln_oci::{ImageConfig, Platform, Reference};
use std::collections::BTreeSet;

/// What was found for a base.
#[derive(Debug)]
enum Base {
    Scratch,
    /// The stage as a whole is replaced.
    Stage(Loaded),
    /// The image is replaced.
    Image(Loaded),
    /// From a registry.
    Registry(Reference, ResolvedImage),
    /// Nobody needs it.
    Unneeded,
}

impl Converter<'_> {
    /// Resolves bases until ONBUILD triggers add no more of them.
    pub(crate) async fn resolve_stages(&mut self, target: StageId) -> Result<BTreeSet<StageId>> {
        loop {
            let reachable = self.stages.reachable(target);
            self.resolve_bases(&reachable).await?;
            let mut again = false;
            for id in &reachable {
                self.inherit(*id);
                again |= self.add_triggers(*id)?;
            }
            if !again {
                return Ok(self.stages.reachable(target));
            }
        }
    }

    async fn resolve_bases(&mut self, reachable: &BTreeSet<StageId>) -> Result<()> {
        let open = |s: &crate::stages::Stage| s.base.is_none() && !s.dispatched && !s.resolved;
        let ids: Vec<StageId> = (0..self.stages.list.len()).filter(|i| open(&self.stages.list[*i])).collect();
        for id in &ids {
            self.stages.list[*id].resolved = reachable.contains(id);
        }
        let this = &*self;
        let lookups = ids.iter().map(|id| this.look_up(*id, reachable.contains(id)));
        let found = futures::future::try_join_all(lookups).await?;
        for (id, base) in ids.into_iter().zip(found) {
            let at = self.stages.list[id].at;
            self.place(id, base).map_err(|e| match at {
                Some(at) => e.at(at),
                None => e,
            })?;
        }
        Ok(())
    }

    async fn look_up(&self, id: StageId, reachable: bool) -> Result<Base> {
        let stage = &self.stages.list[id];
        let found = self.look_up_base(id, reachable).await;
        found.map_err(|e| match stage.at {
            Some(at) => e.at(at),
            None => e,
        })
    }

    async fn look_up_base(&self, id: StageId, reachable: bool) -> Result<Base> {
        let stage = &self.stages.list[id];
        if stage.base_name == "scratch" && stage.named_context.is_none() {
            return Ok(Base::Scratch);
        }
        let reference = Reference::parse_normalized(&stage.base_name)
            .map_err(|e| Fail::msg(format!("failed to parse stage name {:?}: {e}", stage.base_name)))?;
        if !reachable {
            return Ok(Base::Unneeded);
        }
        if let Some(named) = &stage.named_context {
            return Ok(Base::Stage(named.load(self.cx).await?));
        }
        let reference = reference.with_default_tag();
        let platform = stage.platform.as_ref().unwrap_or(&self.platforms.target);
        let full = reference.to_string();
        if let Some(named) = NamedContext::find(self.cx, &full, Some(platform))? {
            return Ok(Base::Image(named.load(self.cx).await?));
        }
        let shown = if self.multi_platform { format!("{} ", platform.format_all()) } else { String::new() };
        let opt = ResolveOpt {
            platform: Some(platform.clone()),
            mode: self.cx.options.resolve_mode,
            log_name: format!("[{shown}internal] load metadata for {full}"),
            oci_layout: None,
        };
        match self.cx.resolve_image(&full, opt).await {
            Ok(image) => Ok(Base::Registry(reference, image)),
            Err(e) => Err(self.with_hint(e.context(&stage.base_name).into(), &stage.base_name)),
        }
    }

    /// Adds ` (did you mean X?)` when a stage or a common image is spelled almost so.
    fn with_hint(&self, mut fail: Fail, name: &str) -> Fail {
        const COMMON: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];
        let latest: Vec<String> = COMMON.iter().map(|n| format!("{n}:latest")).collect();
        let mut known = self.stages.names();
        for (name, latest) in COMMON.iter().zip(&latest) {
            known.extend([*name, latest.as_str()]);
        }
        if let Some(hint) = nearest(name, &known, false) {
            fail.error.message = format!("{} (did you mean {hint}?)", fail.error.message);
        }
        fail
    }

    fn place(&mut self, id: StageId, base: Base) -> Result<()> {
        let platforms = self.platforms.clone();
        let platform = self.stages.list[id].platform.clone().unwrap_or_else(|| platforms.target.clone());
        match base {
            Base::Unneeded => return Ok(()),
            Base::Scratch => {
                let stage = &mut self.stages.list[id];
                stage.state = State::default();
                stage.image = image_config::empty(&platforms.target);
                stage.platform = Some(platforms.target);
            }
            Base::Stage(loaded) => self.place_named_stage(id, &loaded)?,
            Base::Image(loaded) => {
                let (mut state, image, pending) = loaded.emit(&mut self.graph)?;
                self.pending_locals.extend(pending.map(|p| (p, id)));
                let image = image.unwrap_or_else(|| image_config::empty(&platform));
                state.platform = Some(platform.clone());
                let stage = &mut self.stages.list[id];
                stage.base_image = Some(image.clone());
                stage.image = ImageConfig { created: None, ..image };
                stage.state = state;
                stage.platform = Some(platform);
            }
            Base::Registry(reference, image) => self.place_image(id, reference, &image, platform)?,
        }
        let stage = &mut self.stages.list[id];
        if stage.unregistered {
            stage.dispatched = true;
        }
        Ok(())
    }

    fn place_named_stage(&mut self, id: StageId, loaded: &Loaded) -> Result<()> {
        let (state, image, pending) = loaded.emit(&mut self.graph)?;
        self.pending_locals.extend(pending.map(|p| (p, id)));
        let stage = &mut self.stages.list[id];
        stage.dispatched = true;
        stage.state = state;
        if let Some(image) = image {
            let p = &image.platform;
            if !p.os.is_empty() && !p.architecture.is_empty() {
                stage.platform = Some(p.clone());
            }
            stage.image = ImageConfig { created: None, ..image };
        }
        Ok(())
    }

    fn place_image(
        &mut self,
        id: StageId,
        asked: Reference,
        found: &ResolvedImage,
        wanted: Platform,
    ) -> Result<()> {
        let image = image_config::parse(&found.config)
            .map_err(|e| Fail::msg(format!("failed to parse image config: {e}")))?;
        let mut reference = asked;
        if found.reference != reference.to_string() {
            reference = Reference::parse_normalized(&found.reference)
                .map_err(|e| Fail::msg(format!("failed to parse ref {:?}: {e}", found.reference)))?;
        }
        let reference = reference.with_digest(found.digest).to_string();
        let written = self.stages.list[id].base_name.clone();
        let mut platform = wanted;
        if self.stages.list[id].platform.is_none() && self.platforms.implicit {
            platform = platform::auto_detect(&image.platform, &platform, &self.platforms.build);
        }
        let stage = &mut self.stages.list[id];
        stage.base_name.clone_from(&reference);
        stage.platform = Some(platform.clone());
        stage.base_image = Some(image.clone());
        let empty = image.rootfs.diff_ids.is_empty() && image.history.iter().all(|h| h.empty_layer);
        let actual = image.platform.clone();
        stage.image = ImageConfig { created: None, ..image };
        if empty {
            stage.state = State::default();
            return Ok(());
        }
        let title = names::prefix(stage, &format!("FROM {reference}"), Some(&platform), &EnvList::default());
        let (code, at) = (stage.code.clone(), stage.at);
        let mut constraints = self.command_constraints(&code, at).named(title);
        constraints.platform = Some(platform.clone());
        let out = self.graph.image(&reference, self.cx.options.resolve_mode, constraints);
        self.stages.list[id].state = State { platform: Some(platform.clone()), ..State::new(Some(out)) };
        if platform.os != actual.os || platform.architecture != actual.architecture {
            let (expected, actual) = (platform::id(&platform), platform::id(&actual));
            self.lint.report(Rule::InvalidBaseImagePlatform { image: written, expected, actual }, at);
        }
        Ok(())
    }

    /// Constraints of a vertex made for an instruction: its text and its place.
    pub(crate) fn command_constraints(&self, code: &str, at: Option<kiln_dockerfile::Range>) -> Constraints {
        let mut c = Constraints::default();
        c.metadata.description.insert("com.docker.dockerfile.v1.command".to_string(), code.to_string());
        self.located(c, at)
    }

    /// Adds the place.
    pub(crate) fn located(&self, c: Constraints, at: Option<kiln_dockerfile::Range>) -> Constraints {
        let ranges = at.map(crate::fail::wire_ranges).unwrap_or_default();
        c.at(self.source_info, &ranges)
    }
}
