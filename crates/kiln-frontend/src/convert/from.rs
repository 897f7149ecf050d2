//! FROM: names, platforms and named contexts of the stages.

use super::Converter;
use crate::fail::{Fail, Result};
use crate::lint;
use crate::named_context::NamedContext;
use crate::outline::Parameters;
use crate::stages::Stage;
use crate::state::EnvOf;
use kiln_dockerfile::shell::{ExpandError, Expansion};
use kiln_dockerfile::{Dockerfile, Kind, nearest};
use kiln_oci::Platform;
use std::collections::BTreeSet;

impl Converter<'_> {
    /// One stage for every FROM.
    pub(super) fn add_stages(&mut self, file: &Dockerfile) -> Result<()> {
        for (i, st) in file.stages.iter().enumerate() {
            self.lint.scope(st.source.check());
            let at = st.source.range;
            let stage = self.read_from(st).map_err(|e| e.at(at))?;
            self.lint.scope(None);
            let (stage, used) = stage;
            let is_replaced = stage.named_context.is_some();
            let id = self.stages.add(stage);
            let stage = &mut self.stages.list[id];
            if is_replaced {
                stage.base = None;
                continue;
            }
            if stage.name.is_empty() {
                stage.display_name = format!("stage-{i}");
            }
            let own_base = usize::from(stage.base_name != "scratch" && stage.base.is_none());
            let counts =
                |k: &Kind| matches!(k, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_));
            stage.command_total = own_base + stage.instructions.iter().filter(|i| counts(&i.kind)).count();
            stage.parameters.used.extend(used);
            stage.ignore_cache = self.cx.options.no_cache.covers(&stage.name);
        }
        Ok(())
    }

    /// A stage and the arguments that its FROM names.
    fn read_from(&mut self, st: &kiln_dockerfile::Stage) -> Result<(Stage, BTreeSet<String>)> {
        let at = st.source.range;
        let base = self.lex.process_word(&st.from.base, &EnvOf(&self.global_args));
        self.report_undefined_in_from(&base, at);
        let base = base?;
        if base.text.is_empty() {
            return Err(Fail::msg(format!("base name ({}) should not be blank", st.from.base)));
        }
        let mut used = base.matched;
        let name = st.from.name.clone().unwrap_or_default();
        let platform = match st.from.platform.as_deref().filter(|p| !p.is_empty()) {
            None => None,
            Some(written) => Some(self.read_platform(written, &name, at, &mut used)?),
        };
        let named_context = match name.as_str() {
            "" => None,
            name => {
                let target = platform.as_ref().unwrap_or(&self.platforms.target);
                let asked = if platform.is_some() || !self.platforms.implicit { Some(target) } else { None };
                NamedContext::find(self.cx, name, asked)?
            }
        };
        let parameters = Parameters { declared: self.declared.clone(), ..Default::default() };
        let stage = Stage {
            base_name: base.text,
            display_name: name.clone(),
            name,
            at: Some(at),
            code: st.source.code.clone(),
            named_context,
            instructions: st.instructions.clone(),
            platform,
            show_platform: self.multi_platform,
            description: st.doc_comment().unwrap_or_default().to_string(),
            parameters,
            ..Default::default()
        };
        Ok((stage, used))
    }

    fn report_undefined_in_from(
        &mut self,
        found: &std::result::Result<Expansion, ExpandError>,
        at: kiln_dockerfile::Range,
    ) {
        let unmatched = found.as_ref().map_or_else(|e| &e.unmatched, |f| &f.unmatched);
        lint::undefined_in_from(unmatched, &self.global_args, &self.declared, at, self.lint);
    }

    fn read_platform(
        &mut self,
        written: &str,
        stage: &str,
        at: kiln_dockerfile::Range,
        used: &mut BTreeSet<String>,
    ) -> Result<Platform> {
        let found = self.lex.process_word(written, &EnvOf(&self.global_args));
        self.report_undefined_in_from(&found, at);
        let found = found.map_err(|e| {
            Fail::from(e).context(format!("failed to process arguments for platform {written}"))
        })?;
        lint::from_platform(written, &found, stage, &self.global_args, at, self.lint);
        let known: Vec<&str> = self.global_args.iter().map(|(k, _)| k).collect();
        let hint = found.unmatched.iter().find_map(|name| nearest(name, &known, false));
        let hint = hint.map(|h| format!(" (did you mean {h}?)")).unwrap_or_default();
        if found.text.is_empty() {
            return Err(Fail::msg(format!("empty platform value from expression {written}{hint}")));
        }
        used.extend(found.matched);
        match Platform::parse(&found.text) {
            Ok(p) => Ok(p),
            Err(e) => Err(Fail::msg(format!("failed to parse platform {written}: {e}{hint}"))),
        }
    }
}
