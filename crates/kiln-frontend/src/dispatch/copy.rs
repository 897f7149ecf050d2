//! COPY and ADD.

use super::{used_path, wrong};
use crate::context::is_http;
use crate::convert::Converter;
use crate::fail::Result;
use crate::git_ref::{GitRef, Parsed};
use crate::lint::Rule;
use crate::names;
use crate::ospath;
use crate::stages::StageId;
use crate::state::EnvOf;
use kiln_digest::Digest;
use kiln_dockerfile::{Add, Copy, Files, Range, Source};
use kiln_go::{path as gopath, quote};
use kiln_llb::builder::{ActionSpec, Constraints, CopySpec, Output, Owner};
use kiln_llb::{FileMode, ProgressGroup};

/// What COPY and ADD have in common.
#[derive(Debug)]
pub(super) struct CopyJob<'a> {
    pub(super) is_add: bool,
    pub(super) files: &'a Files,
    /// The main context or a stage.
    pub(super) from: Option<Output>,
    /// Whether the ignore file of the main context applies.
    pub(super) from_context: bool,
    pub(super) chown: Option<&'a str>,
    pub(super) chmod: Option<&'a str>,
    pub(super) link: bool,
    pub(super) parents: bool,
    pub(super) exclude: &'a [String],
    pub(super) checksum: Option<&'a str>,
    pub(super) keep_git_dir: Option<bool>,
    pub(super) unpack: Option<bool>,
    pub(super) at: Range,
}

/// `--chmod`, checked.
#[derive(Clone, Debug, Default)]
pub(super) struct Mode {
    pub(super) bits: FileMode,
    pub(super) symbolic: String,
}

impl Converter<'_> {
    pub(super) fn add(&mut self, id: StageId, add: Add, source: &Source) -> Result<()> {
        let job = CopyJob {
            is_add: true,
            files: &add.files,
            from: Some(self.main_context),
            from_context: true,
            chown: given(&add.chown),
            chmod: given(&add.chmod),
            link: add.link,
            parents: false,
            exclude: &add.exclude,
            checksum: given(&add.checksum),
            keep_git_dir: add.keep_git_dir,
            unpack: add.unpack,
            at: source.range,
        };
        self.copy_files(id, &job, source)?;
        let local = add.files.sources.iter().filter(|s| !is_http(s));
        self.stages.list[id].context_paths.extend(local.map(|s| used_path(s)));
        Ok(())
    }

    pub(super) fn copy(
        &mut self,
        id: StageId,
        copy: Copy,
        source: &Source,
        from: Option<StageId>,
    ) -> Result<()> {
        let output = match from {
            None => Some(self.main_context),
            Some(stage) if self.stages.list[stage].dispatched => self.stages.list[stage].state.output,
            Some(_) => {
                let from = quote(copy.from.as_deref().unwrap_or_default());
                let this = quote(&self.stages.list[id].display_name);
                return Err(wrong(format!(
                    "cannot copy from stage {from}, it needs to be defined before current stage {this}"
                )));
            }
        };
        let job = CopyJob {
            is_add: false,
            files: &copy.files,
            from: output,
            from_context: from.is_none(),
            chown: given(&copy.chown),
            chmod: given(&copy.chmod),
            link: copy.link,
            parents: copy.parents,
            exclude: &copy.exclude,
            checksum: None,
            keep_git_dir: None,
            unpack: None,
            at: source.range,
        };
        self.copy_files(id, &job, source)?;
        for path in copy.files.sources.iter().map(|s| used_path(s)) {
            match from {
                None => {
                    self.stages.list[id].context_paths.insert(path);
                }
                Some(stage) => self.stages.use_path(stage, path),
            }
        }
        Ok(())
    }

    fn copy_files(&mut self, id: StageId, job: &CopyJob<'_>, source: &Source) -> Result<()> {
        let dest = self.destination(id, &job.files.dest)?;
        let mode = job.chmod.map(parse_mode).transpose()?.unwrap_or_default();
        check_checksum(job)?;
        let (title, text) = self.copy_title(id, source);
        let mut actions = Vec::new();
        for path in &job.files.sources {
            let mut copy = self.copy_source(id, job, path, &mode, &title)?;
            copy.action.dest.clone_from(&dest);
            actions.push(copy);
        }
        for file in &job.files.inline {
            let name = ospath::without_drive(&file.name, self.os(id), false)
                .map_err(|e| wrong(format!("removing drive letter: {e}")))?;
            let output = self.inline_file(id, &name, 0o644, file.data.clone().into_bytes());
            let mut copy = plain_copy(Some(output), &name, &mode);
            copy.action.dest.clone_from(&dest);
            actions.push(copy);
        }
        for copy in &mut actions {
            copy.owner = job.chown.map(Owner::parse);
            copy.action.exclude_patterns = job.exclude.to_vec();
        }
        let actions = actions.into_iter().map(|c| ActionSpec::Copy(Box::new(c))).collect();
        self.emit_copy(id, job, actions, title, &text);
        let text = format!("{} # buildkit", history_text(job));
        self.commit(id, text, true);
        Ok(())
    }

    /// Below the working directory; a slash at the end means a directory and stays.
    fn destination(&self, id: StageId, dest: &str) -> Result<String> {
        let (os, dir) = (self.os(id), &self.stages.list[id].state.dir);
        let dest = ospath::without_drive(dest, os, true);
        let dest = dest.map_err(|e| wrong(format!("removing drive letter: {e}")))?;
        let dest = if matches!(dest.as_str(), "." | "") { "./" } else { &dest };
        ospath::normalize(dir, dest, os, true).map_err(wrong)
    }

    /// The step's name, and the text in it.
    fn copy_title(&mut self, id: StageId, source: &Source) -> (String, String) {
        let stage = &mut self.stages.list[id];
        let env = stage.state.env.clone();
        let text = names::uppercase_first(&names::expand(&self.lex, &source.code, &EnvOf(&env)));
        let platform = stage.platform.clone();
        (names::prefix(stage, &text, platform.as_ref(), &env), text)
    }

    fn emit_copy(
        &mut self,
        id: StageId,
        job: &CopyJob<'_>,
        actions: Vec<ActionSpec>,
        title: String,
        text: &str,
    ) {
        let mut constraints = self.located(Constraints::default().named(title), Some(job.at));
        constraints.metadata.ignore_cache = self.stages.list[id].ignore_cache;
        let state = &self.stages.list[id].state;
        let (base, dir) = (state.output, state.dir.clone());
        let out = if job.link && job.chmod.is_none() {
            self.emit_linked(id, actions, constraints, text)
        } else {
            Some(self.graph.file(base, &dir, actions, constraints))
        };
        self.stages.list[id].state.output = out;
    }

    /// Copies to scratch and lays that over the stage, so that the copy does not depend on what is below.
    fn emit_linked(
        &mut self,
        id: StageId,
        actions: Vec<ActionSpec>,
        c: Constraints,
        text: &str,
    ) -> Option<Output> {
        let mut rename = |text: &str| {
            let stage = &mut self.stages.list[id];
            stage.command_index = stage.command_index.saturating_sub(1);
            let (env, platform) = (stage.state.env.clone(), stage.platform.clone());
            names::prefix(stage, text, platform.as_ref(), &env)
        };
        let name = rename(text);
        let link_name = rename(&format!("LINK {text}"));
        let seed = format!("{}\0{name}\0{id}\0{:?}", self.cx.host.session_id(), self.platforms.target);
        let group_id = Digest::sha256(seed).hex()[..25].to_string();
        let group = |weak| ProgressGroup { id: group_id.clone(), name: name.clone(), weak };
        let stage = &self.stages.list[id];
        let (base, mut copy) = (stage.state.output, c.clone().grouped(group(true)));
        copy.platform = stage.platform.clone();
        let files = self.graph.file(None, "/", actions, copy);
        self.graph.merge(&[base, Some(files)], c.grouped(group(false)).named(link_name))
    }

    /// Remarks on a path that the ignore file keeps out of the context.
    pub(super) fn check_ignored(&mut self, job: &CopyJob<'_>, path: &str) {
        let Some(matcher) = self.ignore.as_ref().filter(|m| job.from_context && !m.has_exclusions()) else {
            return;
        };
        let path = gopath::clean(path);
        let everything = || matcher.patterns().iter().any(|p| matches!(p.text(), "*" | "**" | "**/*"));
        if matches!(path.as_str(), "." | "/") && !everything() {
            return;
        }
        if matcher.matches(&path).unwrap_or(false) {
            let command = if job.is_add { "Add" } else { "Copy" };
            self.lint.report(Rule::CopyIgnoredFile { command, file: path }, Some(job.at));
        }
    }
}

/// A flag whose variables turned out empty counts as not given.
fn given(flag: &Option<String>) -> Option<&str> {
    flag.as_deref().filter(|f| !f.is_empty())
}

pub(super) fn plain_copy(source: Option<Output>, src: &str, mode: &Mode) -> CopySpec {
    let mut copy = CopySpec { source, ..Default::default() };
    copy.action.src = src.to_string();
    copy.action.mode = mode.bits;
    copy.action.mode_str.clone_from(&mode.symbolic);
    copy.action.create_dest_path = true;
    copy
}

/// Octal up to 07777, or symbolic as chmod(1) has it.
fn parse_mode(text: &str) -> Result<Mode> {
    let not_octal = || {
        wrong(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"))
    };
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let bits = u32::from_str_radix(text, 8).ok().filter(|b| *b <= 0o7777).ok_or_else(not_octal)?;
        return Ok(Mode { bits: FileMode::Bits(bits), symbolic: String::new() });
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(not_octal());
    }
    if !text.split(',').all(is_symbolic_clause) {
        return Err(wrong(format!("invalid chmod parameter: {}: not a symbolic mode", quote(text))));
    }
    Ok(Mode { bits: FileMode::Bits(0), symbolic: text.to_string() })
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`
fn is_symbolic_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !actions.starts_with(['+', '-', '=']) {
        return false;
    }
    let is_perm = |p: &str| matches!(p, "u" | "g" | "o") || p.chars().all(|c| "rwxXst".contains(c));
    actions.split(['+', '-', '=']).skip(1).all(is_perm)
}

fn check_checksum(job: &CopyJob<'_>) -> Result<()> {
    if job.checksum.is_none() {
        return Ok(());
    }
    let [source] = &job.files.sources[..] else {
        return Err(wrong("checksum can't be specified for multiple sources"));
    };
    let is_git = matches!(GitRef::parse(source), Parsed::Git(_));
    if is_git || is_http(source) {
        return Ok(());
    }
    Err(wrong("checksum requires HTTP(S) or Git sources"))
}

fn history_text(job: &CopyJob<'_>) -> String {
    let mut out = vec![if job.is_add { "ADD".to_string() } else { "COPY".to_string() }];
    if job.parents {
        out.push("--parents".to_string());
    }
    out.extend(job.chown.map(|c| format!("--chown={c}")));
    out.extend(job.chmod.map(|c| format!("--chmod={c}")));
    out.extend(job.files.sources.iter().cloned());
    out.extend(job.files.inline.iter().map(|f| format!("<<{}", f.name)));
    out.push(job.files.dest.clone());
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(parse_mode("755").unwrap().bits, FileMode::Bits(0o755));
        assert_eq!(parse_mode("u=rwX,go=rX").unwrap().symbolic, "u=rwX,go=rX");
        assert_eq!(parse_mode("+x").unwrap().symbolic, "+x");
        for bad in ["99999", "8", "10000", "12x"] {
            let e = parse_mode(bad).unwrap_err().to_string();
            assert_eq!(
                e,
                format!(
                    "invalid chmod parameter: '{bad}'. it should be octal string and between 0 and 07777"
                )
            );
        }
        for bad in ["u", "x+r", "u=q", ",", "u+r,"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }
}
