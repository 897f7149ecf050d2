//! The stages of a file and how they depend on each other.

use crate::fail::{Fail, Result};
use crate::named_context::NamedContext;
use crate::outline::Parameters;
use crate::state::State;
use kiln_dockerfile::shell::{Lex, NoEnv};
use kiln_dockerfile::{Instruction, Kind, Range};
use kiln_oci::{ImageConfig, Platform};
use std::collections::{BTreeMap, BTreeSet};

/// Index of a stage in [`Stages`].
pub(crate) type StageId = usize;

/// A stage of the file, or an image that something is copied or mounted from.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// What FROM names, expanded.
    pub(crate) base_name: String,
    /// Lower case; empty without one.
    pub(crate) name: String,
    /// Where FROM stands; `None` for the source of a mount.
    pub(crate) at: Option<Range>,
    /// The FROM line.
    pub(crate) code: String,
    /// The comment above FROM.
    pub(crate) description: String,
    /// In front of step names; empty when there is only one stage.
    pub(crate) display_name: String,
    /// The stage that this one begins with.
    pub(crate) base: Option<StageId>,
    pub(crate) named_context: Option<NamedContext>,
    /// Not of the file: an image used as a source.
    pub(crate) unregistered: bool,
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) commands: Vec<Command>,
    /// Stages that are copied or mounted from, with the last instruction that does it.
    pub(crate) deps: Vec<(StageId, Option<Range>)>,

    pub(crate) state: State,
    pub(crate) image: ImageConfig,
    pub(crate) base_image: Option<ImageConfig>,
    pub(crate) platform: Option<Platform>,
    pub(crate) resolved: bool,
    pub(crate) dispatched: bool,
    pub(crate) onbuild_done: bool,
    /// ARGs seen so far, of the base stages too.
    pub(crate) build_args: Vec<(String, Option<String>)>,
    /// Used paths of the main context.
    pub(crate) context_paths: BTreeSet<String>,
    /// Whose set in [`Stages::used_paths`] holds the used paths of this stage.
    pub(crate) paths_of: StageId,
    pub(crate) ignore_cache: bool,
    pub(crate) show_platform: bool,
    pub(crate) command_index: usize,
    pub(crate) command_total: usize,
    pub(crate) in_onbuild: bool,
    pub(crate) workdir_set: bool,
    pub(crate) last_cmd: Option<Range>,
    pub(crate) last_entrypoint: Option<Range>,
    pub(crate) last_healthcheck: Option<Range>,
    pub(crate) parameters: Parameters,
}

/// An instruction and the stages it takes from: one for COPY --from, one per mount for RUN.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) instruction: Instruction,
    pub(crate) sources: Vec<StageId>,
    pub(crate) onbuild: bool,
}

/// All stages, those for image sources too.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    pub(crate) list: Vec<Stage>,
    by_name: BTreeMap<String, StageId>,
    pub(crate) used_paths: Vec<BTreeSet<String>>,
}

impl Stages {
    /// Adds a stage; its base becomes an earlier stage of that name.
    pub(crate) fn add(&mut self, mut stage: Stage) -> StageId {
        let id = self.list.len();
        stage.base = self.by_name.get(&stage.base_name).copied();
        stage.paths_of = id;
        if let Some(base) = stage.base {
            stage.parameters = self.list[base].parameters.clone();
        }
        if !stage.name.is_empty() {
            self.by_name.insert(stage.name.to_lowercase(), id);
        }
        self.list.push(stage);
        self.used_paths.push(BTreeSet::new());
        id
    }

    pub(crate) fn find(&self, name: &str) -> Option<StageId> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    /// Names for hints.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.list.iter().map(|s| s.display_name.as_str()).filter(|n| !n.is_empty()).collect()
    }

    /// Notes that a path of a stage is used.
    pub(crate) fn use_path(&mut self, id: StageId, path: String) {
        let set = self.list[id].paths_of;
        self.used_paths[set].insert(path);
    }

    fn add_source(&mut self, base_name: &str, at: Option<Range>) -> StageId {
        self.add(Stage { base_name: base_name.to_string(), at, unregistered: true, ..Default::default() })
    }

    /// Finds what an instruction of stage `id` takes from, and notes the dependencies.
    pub(crate) fn command(
        &mut self,
        id: StageId,
        instruction: Instruction,
        onbuild: bool,
        lex: &Lex,
    ) -> Result<Command> {
        let at = instruction.source.range;
        let sources = match &instruction.kind {
            Kind::Copy(copy) => match &copy.from {
                Some(from) => vec![self.copy_source(from, at, lex).map_err(|e| e.at(at))?],
                None => Vec::new(),
            },
            Kind::Run(run) => {
                let from =
                    |flag: &kiln_dockerfile::MountFlag| flag.from.clone().unwrap_or_else(|| "scratch".into());
                let names: Vec<String> = run.mount_flags.iter().map(from).collect();
                names.iter().map(|n| self.find(n).unwrap_or_else(|| self.add_source(n, None))).collect()
            }
            _ => Vec::new(),
        };
        let deps = &mut self.list[id].deps;
        for s in &sources {
            deps.retain(|(d, _)| d != s);
            deps.push((*s, Some(at)));
        }
        Ok(Command { instruction, sources, onbuild })
    }

    fn copy_source(&mut self, from: &str, at: Range, lex: &Lex) -> Result<StageId> {
        if lex.process_word(from, &NoEnv)?.text != from {
            return Err(Fail::msg(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
            ));
        }
        match from.parse::<i64>() {
            Ok(n) => {
                let id = usize::try_from(n).ok().filter(|i| *i < self.list.len());
                id.ok_or_else(|| Fail::msg(format!("invalid stage index {n}")))
            }
            Err(_) => Ok(self.find(from).unwrap_or_else(|| self.add_source(from, Some(at)))),
        }
    }

    /// Everything that `target` needs, itself too.
    pub(crate) fn reachable(&self, target: StageId) -> BTreeSet<StageId> {
        let mut found = BTreeSet::new();
        let mut open = vec![target];
        while let Some(id) = open.pop() {
            if found.insert(id) {
                let stage = &self.list[id];
                open.extend(stage.base);
                open.extend(stage.deps.iter().map(|(d, _)| *d));
            }
        }
        found
    }

    /// Everything that `target` needs, the nearest first: itself, its base, what it copies and mounts from.
    pub(crate) fn outwards(&self, target: StageId) -> Vec<StageId> {
        let mut found = Vec::new();
        let mut open = vec![target];
        while let Some(id) = open.pop() {
            if !found.contains(&id) {
                found.push(id);
                let stage = &self.list[id];
                open.extend(stage.deps.iter().rev().map(|(d, _)| *d));
                open.extend(stage.base);
            }
        }
        found
    }

    /// Refuses stages that copy from each other in a circle.
    pub(crate) fn check_cycles(&self) -> Result<()> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.list.len()];
        for start in 0..self.list.len() {
            // A stage and its next dependency, from the start on.
            let mut path: Vec<(StageId, usize)> = vec![(start, 0)];
            while let Some((id, next)) = path.last_mut() {
                let id = *id;
                if marks[id] == Mark::Done {
                    path.pop();
                    continue;
                }
                marks[id] = Mark::Open;
                let Some((dep, _)) = self.list[id].deps.get(*next) else {
                    marks[id] = Mark::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                match marks[*dep] {
                    Mark::Open => return Err(self.cycle_error(start, &path)),
                    Mark::New => path.push((*dep, 0)),
                    Mark::Done => {}
                }
            }
        }
        Ok(())
    }

    fn cycle_error(&self, start: StageId, path: &[(StageId, usize)]) -> Fail {
        let name = &self.list[start].display_name;
        let mut error = Fail::msg(format!("circular dependency detected on stage: {name}"));
        for (id, next) in path {
            if let Some((_, Some(at))) = next.checked_sub(1).and_then(|n| self.list[*id].deps.get(n)) {
                error = error.at(*at);
            }
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(deps: &[&[usize]]) -> Stages {
        let mut out = Stages::default();
        for (i, d) in deps.iter().enumerate() {
            let deps = d.iter().map(|d| (*d, Some(Range { start: 1, end: 1 }))).collect();
            out.add(Stage {
                name: format!("s{i}"),
                display_name: format!("s{i}"),
                base_name: "scratch".into(),
                deps,
                ..Default::default()
            });
        }
        out
    }

    #[test]
    fn cycles_are_found() {
        assert!(stages(&[&[], &[0], &[0, 1]]).check_cycles().is_ok());
        let e = stages(&[&[], &[2], &[0, 1]]).check_cycles().unwrap_err();
        assert_eq!(e.to_string(), "circular dependency detected on stage: s1");
        assert_eq!(e.at.len(), 2);
        assert!(stages(&[&[0]]).check_cycles().is_err());
    }

    #[test]
    fn only_what_is_needed_is_reachable() {
        let s = stages(&[&[], &[], &[0]]);
        assert_eq!(s.reachable(2).into_iter().collect::<Vec<_>>(), [0, 2]);
    }
}
