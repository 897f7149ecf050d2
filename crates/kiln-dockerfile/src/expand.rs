//! Which texts of an instruction have variables (spec dockerfile.md section 3, "Which instructions expand").

use crate::ast::{Arg, Files, Instruction, Kind, Pair};

impl Instruction {
    /// Passes every text that may hold variables through `expand` and keeps the results.
    ///
    /// Not touched here: EXPOSE (its result is split into words again), RUN (mounts: [`crate::Run::mounts`]),
    /// inline file contents ([`Instruction::expand_inline`]), ONBUILD, and the instructions that never expand.
    ///
    /// # Errors
    /// The first error of `expand`; the instruction is then half expanded and not to be used.
    pub fn expand<E>(&mut self, mut expand: impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
        let expand = &mut expand;
        match &mut self.kind {
            Kind::Add(add) => {
                each(add.chown.iter_mut().chain(&mut add.chmod).chain(&mut add.checksum), expand)?;
                files(&mut add.files, expand)
            }
            Kind::Copy(copy) => {
                each(copy.chown.iter_mut().chain(&mut copy.chmod), expand)?;
                files(&mut copy.files, expand)
            }
            Kind::Arg(arg) => args(arg, expand),
            Kind::Env(env) => pairs(&mut env.pairs, expand),
            Kind::Label(label) => pairs(&mut label.pairs, expand),
            Kind::Volume(paths) => each(paths, expand),
            Kind::StopSignal(text) | Kind::User(text) | Kind::Workdir(text) => each([text], expand),
            _ => Ok(()),
        }
    }

    /// Passes the contents of inline files that want expansion through `expand`; use a lexer with escape `\` and
    /// `skip_quotes`.
    ///
    /// # Errors
    /// As [`Instruction::expand`].
    pub fn expand_inline<E>(&mut self, mut expand: impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
        let files = match &mut self.kind {
            Kind::Add(add) => &mut add.files,
            Kind::Copy(copy) => &mut copy.files,
            _ => return Ok(()),
        };
        each(files.inline.iter_mut().filter(|f| f.expand).map(|f| &mut f.data), &mut expand)
    }
}

fn each<'a, E>(
    texts: impl IntoIterator<Item = &'a mut String>,
    expand: &mut impl FnMut(&str) -> Result<String, E>,
) -> Result<(), E> {
    texts.into_iter().try_for_each(|text| {
        *text = expand(text)?;
        Ok(())
    })
}

fn files<E>(files: &mut Files, expand: &mut impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
    each(files.sources.iter_mut().chain([&mut files.dest]), expand)
}

fn pairs<E>(pairs: &mut [Pair], expand: &mut impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
    each(pairs.iter_mut().flat_map(|p| [&mut p.key, &mut p.value]), expand)
}

fn args<E>(arg: &mut Arg, expand: &mut impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
    each(arg.args.iter_mut().flat_map(|a| std::iter::once(&mut a.key).chain(&mut a.value)), expand)
}
