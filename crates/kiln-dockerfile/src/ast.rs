//! The typed form of a Dockerfile.

use crate::device::Device;
use crate::directive::Directive;
use crate::error::ParseError;
use crate::heredoc::{self, Heredoc};
use crate::mount::MountFlag;
use std::borrow::Cow;

/// Lines of the Dockerfile, 1-based, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

impl Range {
    /// The lines one by one: the wire form has one range per line.
    pub fn lines(self) -> impl Iterator<Item = Range> {
        (self.start..=self.end).map(|line| Range { start: line, end: line })
    }
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// `\` or a backtick, from the `escape` directive.
    pub escape: char,
    /// `# name=value` directives at the top, in order.
    pub directives: Vec<Directive>,
    /// ARG instructions before the first FROM, each with `Kind::Arg`.
    pub global_args: Vec<Instruction>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// Material for the lint rules that need the text and not the instructions.
    pub warnings: Vec<Warning>,
}

impl Dockerfile {
    /// The value of a directive, by its lower-case name.
    pub fn directive(&self, name: &str) -> Option<&Directive> {
        self.directives.iter().find(|d| d.name == name)
    }

    /// The global ARG instructions, typed.
    pub fn global_arg_pairs(&self) -> impl Iterator<Item = (&Source, &Arg)> {
        self.global_args.iter().filter_map(|i| match &i.kind {
            Kind::Arg(arg) => Some((&i.source, arg)),
            _ => None,
        })
    }

    /// Index of the last stage with this name, case-insensitive (a later stage hides an earlier one).
    pub fn stage_index(&self, name: &str) -> Option<usize> {
        self.stages.iter().rposition(|s| s.from.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)))
    }
}

/// Something the reader noticed and accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Blank lines inside a continued instruction (lint NoEmptyContinuation).
    EmptyContinuation {
        /// The joined instruction text.
        line: String,
        /// Last line of the instruction, where the reference reports it.
        at: Range,
    },
}

/// What every instruction has: where it stands and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The instruction word as written, e.g. `Run`.
    pub keyword: String,
    /// The joined text (continuations removed, comments dropped, heredoc bodies not included), trimmed.
    pub code: String,
    /// The lines, heredoc bodies included.
    pub range: Range,
    /// Comment lines directly above, without `#`, directives removed.
    pub comments: Vec<String>,
    /// Names of the flags used, without dashes, in order of first use.
    pub flags: Vec<String>,
}

impl Source {
    /// The rest of the first comment line that starts with `name ` (doc comment of a stage or an ARG).
    pub fn doc_comment(&self, name: &str) -> Option<&str> {
        if name.is_empty() {
            return None;
        }
        self.comments.iter().find_map(|c| c.strip_prefix(name)?.strip_prefix(' '))
    }

    /// The value of a `# check=...` comment above this instruction, up to its first space.
    pub fn check(&self) -> Option<&str> {
        self.comments.iter().find_map(|c| crate::directive::check_comment(c))
    }
}

/// One build stage: FROM and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Where FROM stands.
    pub source: Source,
    /// The FROM line.
    pub from: From,
    /// Instructions after FROM.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// The doc comment of a named stage (`# name text`).
    pub fn doc_comment(&self) -> Option<&str> {
        self.source.doc_comment(self.from.name.as_deref()?)
    }
}

/// `FROM [--platform=P] image [AS name]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Image, stage name or `scratch`; not expanded.
    pub base: String,
    /// The stage name in lower case.
    pub name: Option<String>,
    /// The stage name as written (lint StageNameCasing).
    pub written_name: Option<String>,
    /// `as` as written (lint FromAsCasing).
    pub as_word: Option<String>,
    /// `--platform`, not expanded.
    pub platform: Option<String>,
}

/// One instruction other than FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it stands.
    pub source: Source,
    /// What it says.
    pub kind: Kind,
}

/// The instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ADD
    Add(Add),
    /// ARG
    Arg(Arg),
    /// CMD
    Cmd(CommandLine),
    /// COPY
    Copy(Copy),
    /// ENTRYPOINT
    Entrypoint(CommandLine),
    /// ENV
    Env(Env),
    /// EXPOSE
    Expose(Expose),
    /// HEALTHCHECK
    Healthcheck(Healthcheck),
    /// LABEL
    Label(Label),
    /// MAINTAINER
    Maintainer(Maintainer),
    /// ONBUILD
    Onbuild(Onbuild),
    /// RUN
    Run(Run),
    /// SHELL: the words, at least one
    Shell(Vec<String>),
    /// STOPSIGNAL: name or number, not expanded, not validated
    StopSignal(String),
    /// USER: `user[:group]`, not expanded
    User(String),
    /// VOLUME: paths, none empty, not expanded
    Volume(Vec<String>),
    /// WORKDIR: path, not expanded
    Workdir(String),
}

impl Kind {
    /// The instruction word in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Add(_) => "ADD",
            Kind::Arg(_) => "ARG",
            Kind::Cmd(_) => "CMD",
            Kind::Copy(_) => "COPY",
            Kind::Entrypoint(_) => "ENTRYPOINT",
            Kind::Env(_) => "ENV",
            Kind::Expose(_) => "EXPOSE",
            Kind::Healthcheck(_) => "HEALTHCHECK",
            Kind::Label(_) => "LABEL",
            Kind::Maintainer(_) => "MAINTAINER",
            Kind::Onbuild(_) => "ONBUILD",
            Kind::Run(_) => "RUN",
            Kind::Shell(_) => "SHELL",
            Kind::StopSignal(_) => "STOPSIGNAL",
            Kind::User(_) => "USER",
            Kind::Volume(_) => "VOLUME",
            Kind::Workdir(_) => "WORKDIR",
        }
    }
}

/// Sources and destination of ADD and COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Paths, patterns, URLs; heredocs are not among them.
    pub sources: Vec<String>,
    /// Files written in the Dockerfile.
    pub inline: Vec<InlineFile>,
    /// Destination.
    pub dest: String,
}

/// A heredoc used as a source of ADD or COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// File name: the delimiter.
    pub name: String,
    /// Content; leading tabs are already removed for `<<-`.
    pub data: String,
    /// Whether variables in the content are expanded.
    pub expand: bool,
}

/// `ADD [flags] source... dest`. Empty flag values count as not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// What is added and where.
    pub files: Files,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, never expanded
    pub exclude: Vec<String>,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--keep-git-dir`; None = not said
    pub keep_git_dir: Option<bool>,
    /// `--unpack`; None = not said
    pub unpack: Option<bool>,
}

/// `COPY [flags] source... dest`. Empty flag values count as not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied and where.
    pub files: Files,
    /// `--from`, never expanded
    pub from: Option<String>,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, never expanded
    pub exclude: Vec<String>,
}

/// A command as text for the shell or as a list of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// One string for the stage's shell; may be empty.
    Shell(String),
    /// JSON form; may be empty.
    Exec(Vec<String>),
}

/// `RUN [flags] command`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command without heredoc bodies.
    pub command: CommandLine,
    /// Heredocs in order; only with the shell form.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` flags; see [`Run::mounts`].
    pub mount_flags: Vec<MountFlag>,
    /// `--network`
    pub network: NetworkMode,
    /// `--security`
    pub security: SecurityMode,
    /// `--device`
    pub devices: Vec<Device>,
}

/// What a RUN executes, heredocs resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunBody<'a> {
    /// Arguments as they are.
    Exec(&'a [String]),
    /// Text for the shell; complex heredocs are put back in for the shell to handle.
    Shell(Cow<'a, str>),
    /// One heredoc is the whole command: run as a file when it starts with `#!`, else text for the shell.
    Heredoc(&'a Heredoc),
}

impl Run {
    /// What is executed (spec dockerfile.md section 2, heredocs).
    pub fn body(&self) -> RunBody<'_> {
        let text = match &self.command {
            CommandLine::Exec(args) => return RunBody::Exec(args),
            CommandLine::Shell(text) => text,
        };
        match self.heredocs.first() {
            None => RunBody::Shell(Cow::Borrowed(text)),
            Some(first) if heredoc::is_single_word(text) => RunBody::Heredoc(first),
            Some(_) => {
                let mut out = text.clone();
                for doc in &self.heredocs {
                    out.push('\n');
                    out.push_str(&doc.content);
                    out.push_str(&doc.name);
                }
                RunBody::Shell(Cow::Owned(out))
            }
        }
    }
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// What the build says.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's network.
    Host,
}

/// `RUN --security`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SecurityMode {
    /// Confined.
    #[default]
    Sandbox,
    /// Not confined; needs an entitlement.
    Insecure,
}

/// `ARG k[=v] ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// At least one.
    pub args: Vec<ArgPair>,
}

/// One name of ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgPair {
    /// Name, not blank.
    pub key: String,
    /// Default; None when no `=` was written.
    pub value: Option<String>,
    /// Text of the comment `# name text` above.
    pub doc_comment: Option<String>,
}

/// `ENV`: at least one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    /// In order.
    pub pairs: Vec<Pair>,
}

/// `LABEL`: at least one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// In order.
    pub pairs: Vec<Pair>,
}

/// One `key=value` of ENV or LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Not blank, not expanded, quotes kept.
    pub key: String,
    /// Not expanded, quotes kept.
    pub value: String,
    /// Written as `ENV key value` (lint LegacyKeyValueFormat).
    pub legacy: bool,
}

/// `EXPOSE`: words, sorted, not expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expose {
    /// At least one.
    pub ports: Vec<String>,
}

/// `HEALTHCHECK`. Durations in nanoseconds, 0 = inherit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: image config test `["NONE"]`.
    None,
    /// `HEALTHCHECK CMD ...`
    Command {
        /// `Exec`: test `CMD`; `Shell`: test `CMD-SHELL`.
        command: CommandLine,
        /// `--interval`
        interval: i64,
        /// `--timeout`
        timeout: i64,
        /// `--start-period`
        start_period: i64,
        /// `--start-interval`
        start_interval: i64,
        /// `--retries`
        retries: i32,
    },
}

impl Healthcheck {
    /// The `Test` list of the image config.
    pub fn test(&self) -> Vec<String> {
        match self {
            Healthcheck::None => vec!["NONE".into()],
            Healthcheck::Command { command: CommandLine::Shell(text), .. } => {
                vec!["CMD-SHELL".into(), text.clone()]
            }
            Healthcheck::Command { command: CommandLine::Exec(args), .. } => {
                std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect()
            }
        }
    }
}

/// `MAINTAINER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintainer {
    /// The name.
    pub name: String,
}

/// `ONBUILD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The instruction as text, heredoc bodies included: what goes into the image config.
    pub expression: String,
}

impl Onbuild {
    /// The instruction that the text means.
    ///
    /// # Errors
    /// Those of [`crate::parse_trigger`]; they appear only when the trigger is used, as in the reference.
    pub fn parse(&self) -> Result<Instruction, ParseError> {
        crate::parse_trigger(&self.expression)
    }
}
