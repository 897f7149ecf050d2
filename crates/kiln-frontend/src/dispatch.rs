//! What each instruction does.

mod config;
mod copy;
mod copy_source;
mod expose;
mod mounts;
mod run;
mod workdir;

pub(crate) use copy_source::file_name;

use crate::args;
use crate::convert::Converter;
use crate::fail::{Fail, Result};
use crate::image_config;
use crate::lint::{self, Rule};
use crate::outline::Parameter;
use crate::stages::{Command, StageId};
use crate::state::EnvOf;
use kiln_dockerfile::shell::Lex;
use kiln_dockerfile::{Arg, ArgPair, Kind, Range, nearest};
use std::collections::BTreeSet;

/// Values above this size count towards [`MAX_ENV`] at once. The kernel takes no longer ones (execve(2)).
const LARGE_VALUE: usize = 128 << 10;
/// All variables of a stage, in bytes.
const MAX_ENV: usize = 32 << 20;

impl Converter<'_> {
    /// Carries out one instruction.
    pub(crate) fn dispatch(&mut self, id: StageId, command: Command) -> Result<()> {
        self.lint.scope(command.instruction.source.check());
        self.stages.list[id].in_onbuild = command.onbuild;
        let done = self.dispatch_scoped(id, command);
        self.lint.scope(None);
        done
    }

    fn dispatch_scoped(&mut self, id: StageId, mut command: Command) -> Result<()> {
        let at = command.instruction.source.range;
        // An ARG may be overridden, and then its default does not matter.
        if !matches!(command.instruction.kind, Kind::Arg(_)) {
            let lex = self.lex;
            command.instruction.expand(|word| self.expand(id, &lex, word, at))?;
        }
        let raw = Lex::new('\\').skip_quotes(true);
        command.instruction.expand_inline(|text| self.expand(id, &raw, text, at))?;
        let source = command.instruction.source;
        let keyword = source.keyword.clone();
        match command.instruction.kind {
            Kind::Maintainer(m) => self.maintainer(id, m.name),
            Kind::Env(env) => self.env(id, &env.pairs, &keyword, at)?,
            Kind::Label(label) => self.label(id, label.pairs, &keyword, at),
            Kind::Run(run) => self.run(id, &run, &source, &command.sources)?,
            Kind::Workdir(path) => self.workdir(id, &path, &source)?,
            Kind::Add(add) => self.add(id, add, &source)?,
            Kind::Copy(copy) => self.copy(id, copy, &source, command.sources.first().copied())?,
            Kind::Onbuild(o) => self.stages.list[id].image.config.on_build.push(o.expression),
            Kind::Cmd(c) => self.cmd(id, c, keyword, at),
            Kind::Entrypoint(c) => self.entrypoint(id, c, keyword, at),
            Kind::Healthcheck(h) => self.healthcheck(id, &h, keyword, at),
            Kind::Expose(e) => self.expose(id, &e.ports, at)?,
            Kind::User(user) => self.user(id, user),
            Kind::Volume(paths) => self.volume(id, paths)?,
            Kind::StopSignal(signal) => self.stop_signal(id, signal)?,
            Kind::Shell(words) => self.shell(id, words),
            Kind::Arg(arg) => self.arg(id, &arg, at)?,
        }
        Ok(())
    }

    /// Expands a word with the variables of a stage.
    fn expand(&mut self, id: StageId, lex: &Lex, word: &str, at: Range) -> Result<String> {
        let found = lex.process_word(word, &EnvOf(&self.stages.list[id].state.env));
        let unmatched = found.as_ref().map_or_else(|e| &e.unmatched, |f| &f.unmatched);
        self.report_undefined(id, unmatched, at);
        Ok(found?.text)
    }

    fn report_undefined(&mut self, id: StageId, unmatched: &BTreeSet<String>, at: Range) {
        let stage = &self.stages.list[id];
        for name in unmatched {
            let declared = stage.build_args.iter().any(|(k, _)| k == name);
            if declared || args::NON_ENV.contains(&name.as_str()) {
                continue;
            }
            let known: Vec<&str> = stage.state.env.iter().map(|(k, _)| k).collect();
            let hint = nearest(name, &known, false);
            self.lint.report(Rule::UndefinedVar { name: name.clone(), hint }, Some(at));
        }
    }

    /// Sets a variable of a stage. All of them together are bounded: a short file can make very long values.
    fn set_env(&mut self, id: StageId, key: &str, value: &str) -> Result<()> {
        let env = &mut self.stages.list[id].state.env;
        env.set(key, value);
        if value.len() > LARGE_VALUE && env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_ENV {
            return Err(wrong(format!("the variables of a stage are larger than {MAX_ENV} bytes")));
        }
        Ok(())
    }

    /// The system that a stage is for.
    pub(crate) fn os(&self, id: StageId) -> &str {
        self.stages.list[id].platform.as_ref().map_or("linux", |p| p.os.as_str())
    }

    fn commit(&mut self, id: StageId, created_by: String, layer: bool) {
        image_config::commit(&mut self.stages.list[id].image, created_by, layer, self.epoch);
    }

    fn arg(&mut self, id: StageId, arg: &Arg, at: Range) -> Result<()> {
        let mut texts = Vec::with_capacity(arg.args.len());
        for pair in &arg.args {
            lint::secret_key("ARG", &pair.key, at, self.lint);
            let value = match (self.build_args.get(&pair.key), &pair.value) {
                (Some(given), _) => Some(given.clone()),
                (None, None) => self.global_args.get(&pair.key).map(str::to_string),
                (None, Some(default)) => {
                    let lex = self.lex;
                    Some(self.expand(id, &lex, default, at)?)
                }
            };
            if let Some(value) = value.as_ref().filter(|_| !args::NON_ENV.contains(&pair.key.as_str())) {
                self.set_env(id, &pair.key, value)?;
            }
            self.note_parameter(id, pair, at, value.as_deref());
            texts.push(match &value {
                Some(value) => format!("{}={value}", pair.key),
                None => pair.key.clone(),
            });
            self.stages.list[id].build_args.push((pair.key.clone(), value));
        }
        // The values are nowhere else in the config.
        let text = format!("ARG {}", texts.join(" "));
        self.commit(id, kiln_llb::mask_credentials(&text).into_owned(), false);
        Ok(())
    }
}

impl Converter<'_> {
    /// An argument that is only inherited keeps its global declaration.
    fn note_parameter(&mut self, id: StageId, pair: &ArgPair, at: Range, value: Option<&str>) {
        let given = self.build_args.contains_key(&pair.key) || pair.value.is_some();
        let inherited = !given && self.global_args.get(&pair.key).is_some();
        let parameters = &mut self.stages.list[id].parameters;
        if !inherited {
            let mut info = Parameter::new(pair, at);
            info.value = value.unwrap_or_default().to_string();
            parameters.declared.insert(pair.key.clone(), info);
        }
        parameters.used.insert(pair.key.clone());
    }
}

/// A path that an instruction uses, for the list of used paths.
fn used_path(path: &str) -> String {
    kiln_go::path::join(&["/", path])
}

fn wrong(message: impl Into<String>) -> Fail {
    Fail::msg(message)
}
