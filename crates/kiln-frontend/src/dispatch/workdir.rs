//! WORKDIR.

use crate::convert::Converter;
use crate::fail::{Fail, Result};
use crate::lint::Rule;
use crate::names;
use crate::ospath;
use crate::stages::StageId;
use crate::state::EnvOf;
use kiln_dockerfile::Source;
use kiln_llb::builder::{ActionSpec, Constraints, Owner};

impl Converter<'_> {
    /// Sets the directory in config and state, and gives it. The config has the separators of the system.
    pub(crate) fn set_workdir(&mut self, id: StageId, path: &str) -> Result<String> {
        let os = self.os(id).to_string();
        let stage = &mut self.stages.list[id];
        let current = &stage.image.config.working_dir;
        let dir = ospath::normalize(current, path, &os, false)
            .map_err(|e| Fail::msg(format!("normalizing workdir: normalizing working directory: {e}")))?;
        stage.image.config.working_dir = ospath::from_slash(&dir, &os);
        stage.state.set_dir(&dir);
        Ok(dir)
    }

    pub(super) fn workdir(&mut self, id: StageId, path: &str, source: &Source) -> Result<()> {
        let set_before = std::mem::replace(&mut self.stages.list[id].workdir_set, true);
        if !set_before && !ospath::is_absolute(path, self.os(id)) {
            self.lint.report(Rule::WorkdirRelativePath(path.to_string()), Some(source.range));
        }
        let dir = self.set_workdir(id, path)?;
        if dir != "/" {
            self.make_dir(id, &dir, source);
        }
        self.commit(id, format!("WORKDIR {dir}"), dir != "/");
        Ok(())
    }

    fn make_dir(&mut self, id: StageId, dir: &str, source: &Source) {
        let stage = &mut self.stages.list[id];
        let env = stage.state.env.clone();
        let user = &stage.image.config.user;
        let action = ActionSpec::MkDir {
            path: dir.to_string(),
            mode: 0o755,
            make_parents: true,
            owner: (!user.is_empty()).then(|| Owner::parse(user)),
            timestamp: self.epoch.map(|s| s.saturating_mul(1_000_000_000)),
        };
        let text = names::uppercase_first(&names::expand(&self.lex, &source.code, &EnvOf(&env)));
        let platform = stage.platform.clone();
        let title = names::prefix(stage, &text, platform.as_ref(), &env);
        let (base, cwd) = (stage.state.output, stage.state.dir.clone());
        let constraints = Constraints { platform: platform.clone(), ..Default::default() };
        let constraints = self.located(constraints.named(title), Some(source.range));
        let out = self.graph.file(base, &cwd, vec![action], constraints);
        self.stages.list[id].state.output = Some(out);
    }
}
