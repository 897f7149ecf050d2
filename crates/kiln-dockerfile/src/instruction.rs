//! Nodes to typed instructions: the checks of each keyword (spec dockerfile.md sections 4 and 16).

use crate::ast::{
    Add, Arg, ArgPair, CommandLine, Copy, Dockerfile, Env, Expose, Files, From, InlineFile, Instruction,
    Kind, Label, Maintainer, NetworkMode, Onbuild, Pair, Run, SecurityMode, Source, Stage,
};
use crate::device::Device;
use crate::error::{ErrorKind, Hint, ParseError};
use crate::flags::{self, FlagType, Flags};
use crate::heredoc::{Heredoc, HeredocWord};
use crate::mount::MountFlag;
use crate::node::{Args, Node};
use crate::{health, lines, suggest};

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads a Dockerfile.
///
/// # Errors
/// The first rule the text breaks; a rule about the form of a line wins over one about the meaning of an earlier
/// line, as in the reference.
pub fn parse(text: &[u8]) -> Result<Dockerfile, ParseError> {
    match read(text)? {
        (file, None) => Ok(file),
        (_, Some(wrong)) => Err(wrong.error),
    }
}

/// Where the reading of a file ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub error: ParseError,
    /// The FROM or MAINTAINER that is wrong; `None` for other instructions and for the file as a whole.
    pub source: Option<Source>,
    /// The words of that FROM.
    pub words: Vec<String>,
}

/// Reads a Dockerfile as far as it goes: with an error, the file ends before the instruction that is wrong. For
/// checks that remark on what comes before an error.
///
/// # Errors
/// The form of a line is wrong, so that there are no instructions at all.
pub fn read(text: &[u8]) -> Result<(Dockerfile, Option<Wrong>), ParseError> {
    if text.is_empty() {
        return Err(ParseError::whole(ErrorKind::Empty));
    }
    let lines = lines::read(text)?;
    let mut file = Dockerfile {
        escape: lines.escape,
        directives: lines.directives,
        global_args: Vec::new(),
        stages: Vec::new(),
        warnings: lines.warnings,
    };
    for node in lines.nodes {
        let keyword = node.keyword.to_ascii_uppercase();
        let remarked_on = matches!(keyword.as_str(), "FROM" | "MAINTAINER").then(|| source(&node));
        let words = match (&node.args, keyword.as_str()) {
            (Args::Words(words), "FROM") => words.clone(),
            _ => Vec::new(),
        };
        if let Err(error) = add_node(&mut file, node) {
            return Ok((file, Some(Wrong { error, source: remarked_on, words })));
        }
    }
    let no_stages =
        || Wrong { error: ParseError::whole(ErrorKind::NoStages), source: None, words: Vec::new() };
    let wrong = file.stages.is_empty().then(no_stages);
    Ok((file, wrong))
}

fn add_node(file: &mut Dockerfile, node: Node) -> Result<(), ParseError> {
    let range = node.range;
    let in_instruction = |kind| ParseError::in_instruction(kind, range);
    let source = source(&node);
    if node.keyword.eq_ignore_ascii_case("FROM") {
        let from = from(node).map_err(in_instruction)?;
        file.stages.push(Stage { source, from, instructions: Vec::new() });
        return Ok(());
    }
    let kind = kind(node).map_err(in_instruction)?;
    let instruction = Instruction { source, kind };
    match file.stages.last_mut() {
        Some(stage) => stage.instructions.push(instruction),
        None if matches!(instruction.kind, Kind::Arg(_)) => file.global_args.push(instruction),
        None => return Err(ParseError::at(ErrorKind::BeforeFrom, range)),
    }
    Ok(())
}

/// Reads the text of an ONBUILD trigger, from an image config or a stage of the same file.
///
/// # Errors
/// The text is not one instruction that may be a trigger. Only the first instruction of the text counts.
pub fn parse_trigger(text: &str) -> Result<Instruction, ParseError> {
    let lines = lines::read(text.as_bytes())?;
    let Some(node) = lines.nodes.into_iter().next() else {
        return Err(ParseError::whole(ErrorKind::NoInstructions));
    };
    let range = node.range;
    let source = source(&node);
    match node.keyword.to_uppercase().as_str() {
        "ONBUILD" => Err(ParseError::at(ErrorKind::OnbuildChain, range)),
        word @ ("FROM" | "MAINTAINER") => {
            Err(ParseError::at(ErrorKind::OnbuildTrigger(word.to_owned()), range))
        }
        _ => kind(node).map(|kind| Instruction { source, kind }).map_err(|kind| ParseError::at(kind, range)),
    }
}

fn source(node: &Node) -> Source {
    Source {
        keyword: node.keyword.clone(),
        code: node.original.trim().to_owned(),
        range: node.range,
        comments: node.comments.clone(),
        flags: flags::names(&node.flags),
    }
}

fn kind(node: Node) -> Result<Kind, ErrorKind> {
    let no_flags = |node: &Node| Flags::parse(&node.flags, &[]).map(drop);
    let keyword = node.keyword.to_uppercase();
    match keyword.as_str() {
        "ADD" => return add(node).map(Kind::Add),
        "ARG" => return arg(node).map(Kind::Arg),
        "COPY" => return copy(node).map(Kind::Copy),
        "ONBUILD" => return onbuild(node).map(Kind::Onbuild),
        "RUN" => return run(node).map(Kind::Run),
        _ => {}
    }
    let exactly_one =
        |text: String, name| if text.is_empty() { Err(ErrorKind::ExactlyOne(name)) } else { Ok(text) };
    match (keyword.as_str(), &node.args) {
        ("HEALTHCHECK", Args::Health(_)) => {
            let Args::Health(args) = node.args else { return Err(unknown(&node.keyword)) };
            health::parse(&node.flags, args).map(Kind::Healthcheck)
        }
        ("MAINTAINER", Args::Text(text)) => {
            let name = exactly_one(text.clone(), "MAINTAINER")?;
            no_flags(&node)?;
            Ok(Kind::Maintainer(Maintainer { name }))
        }
        ("STOPSIGNAL", Args::Text(text)) => exactly_one(text.clone(), "STOPSIGNAL").map(Kind::StopSignal),
        ("USER", Args::Text(text)) => {
            let user = exactly_one(text.clone(), "USER")?;
            no_flags(&node).map(|()| Kind::User(user))
        }
        ("WORKDIR", Args::Text(text)) => {
            let path = exactly_one(text.clone(), "WORKDIR")?;
            no_flags(&node).map(|()| Kind::Workdir(path))
        }
        ("CMD", Args::Command(command)) => no_flags(&node).map(|()| Kind::Cmd(command.clone())),
        ("ENTRYPOINT", Args::Command(command)) => no_flags(&node).map(|()| Kind::Entrypoint(command.clone())),
        ("SHELL", Args::Command(command)) => {
            no_flags(&node)?;
            shell(command).map(Kind::Shell)
        }
        ("ENV", Args::Pairs(list)) => {
            no_flags(&node)?;
            Ok(Kind::Env(Env { pairs: pairs(list, "ENV")? }))
        }
        ("LABEL", Args::Pairs(list)) => {
            no_flags(&node)?;
            Ok(Kind::Label(Label { pairs: pairs(list, "LABEL")? }))
        }
        ("EXPOSE", Args::Words(words)) => {
            let mut ports = at_least_one(words, "EXPOSE")?;
            no_flags(&node)?;
            ports.sort();
            Ok(Kind::Expose(Expose { ports }))
        }
        ("VOLUME", Args::Words(words) | Args::Json(words)) => {
            let paths = at_least_one(words, "VOLUME")?;
            no_flags(&node)?;
            volume(&paths).map(Kind::Volume)
        }
        _ => Err(unknown(&node.keyword)),
    }
}

fn unknown(word: &str) -> ErrorKind {
    ErrorKind::UnknownInstruction {
        word: word.to_owned(),
        hint: Hint(suggest::nearest(word, &KEYWORDS, true)),
    }
}

fn at_least_one(words: &[String], name: &'static str) -> Result<Vec<String>, ErrorKind> {
    if words.is_empty() { Err(ErrorKind::AtLeastOne(name)) } else { Ok(words.to_vec()) }
}

fn shell(command: &CommandLine) -> Result<Vec<String>, ErrorKind> {
    match command {
        CommandLine::Exec(list) if !list.is_empty() => Ok(list.clone()),
        CommandLine::Shell(text) if !text.is_empty() => Err(ErrorKind::NotJson("SHELL")),
        _ => Err(ErrorKind::AtLeastOne("SHELL")),
    }
}

fn volume(paths: &[String]) -> Result<Vec<String>, ErrorKind> {
    paths
        .iter()
        .map(|p| match p.trim() {
            "" => Err(ErrorKind::EmptyVolume),
            path => Ok(path.to_owned()),
        })
        .collect()
}

fn pairs(list: &[Pair], name: &'static str) -> Result<Vec<Pair>, ErrorKind> {
    if list.is_empty() {
        return Err(ErrorKind::AtLeastOne(name));
    }
    if list.iter().any(|p| p.key.is_empty()) {
        return Err(ErrorKind::BlankName(name));
    }
    Ok(list.to_vec())
}

fn from(node: Node) -> Result<From, ErrorKind> {
    let Args::Words(words) = &node.args else { return Err(unknown(&node.keyword)) };
    let (base, stage) = match words.as_slice() {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some((word, name))),
        _ => return Err(ErrorKind::FromArguments),
    };
    let name = match stage {
        Some((_, written)) => Some(stage_name(written)?),
        None => None,
    };
    let flags = Flags::parse(&node.flags, &[("platform", FlagType::Text)])?;
    Ok(From {
        base: base.clone(),
        name,
        written_name: stage.map(|(_, name)| name.clone()),
        as_word: stage.map(|(word, _)| word.clone()),
        platform: flags.text("platform"),
    })
}

fn stage_name(written: &str) -> Result<String, ErrorKind> {
    let name = written.to_lowercase();
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if good { Ok(name) } else { Err(ErrorKind::StageName(written.to_owned())) }
}

fn arg(node: Node) -> Result<Arg, ErrorKind> {
    let source = source(&node);
    let Args::Words(words) = node.args else { return Err(unknown(&node.keyword)) };
    let words = at_least_one(&words, "ARG")?;
    let args = words.into_iter().map(|word| {
        let (key, value) = match word.split_once('=') {
            Some(("", _)) => return Err(ErrorKind::BlankName("ARG")),
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let doc_comment = source.doc_comment(&key).map(str::to_owned);
        Ok(ArgPair { key, value, doc_comment })
    });
    Ok(Arg { args: args.collect::<Result<_, _>>()? })
}

fn add(node: Node) -> Result<Add, ErrorKind> {
    const FLAGS: [(&str, FlagType); 7] = [
        ("chown", FlagType::Text),
        ("chmod", FlagType::Text),
        ("link", FlagType::Bool),
        ("keep-git-dir", FlagType::Bool),
        ("checksum", FlagType::Text),
        ("unpack", FlagType::Bool),
        ("exclude", FlagType::List),
    ];
    let (files, flags) = files(node, "ADD", &FLAGS)?;
    Ok(Add {
        files,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        exclude: flags.list("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.bool("keep-git-dir"),
        unpack: flags.bool("unpack"),
    })
}

fn copy(node: Node) -> Result<Copy, ErrorKind> {
    const FLAGS: [(&str, FlagType); 6] = [
        ("chown", FlagType::Text),
        ("from", FlagType::Text),
        ("chmod", FlagType::Text),
        ("link", FlagType::Bool),
        ("exclude", FlagType::List),
        ("parents", FlagType::Bool),
    ];
    let (files, flags) = files(node, "COPY", &FLAGS)?;
    Ok(Copy {
        files,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.list("exclude"),
    })
}

fn files(
    node: Node,
    name: &'static str,
    known: &[(&'static str, FlagType)],
) -> Result<(Files, Flags), ErrorKind> {
    let (Args::Words(mut words) | Args::Json(mut words)) = node.args else {
        return Err(unknown(&node.keyword));
    };
    let dest = words.pop().filter(|_| !words.is_empty()).ok_or(ErrorKind::NoDestination(name))?;
    let flags = Flags::parse(&node.flags, known)?;
    if heredoc_word(&dest).is_some() {
        return Err(ErrorKind::HeredocDestination(name));
    }
    let mut files = Files { sources: Vec::new(), inline: Vec::new(), dest };
    for word in words {
        match heredoc_word(&word) {
            Some(doc) => files.inline.push(inline(doc, &node.heredocs)),
            None => files.sources.push(word),
        }
    }
    Ok((files, flags))
}

fn heredoc_word(word: &str) -> Option<HeredocWord> {
    HeredocWord::parse(word).ok().flatten()
}

/// The file of a heredoc word; of two bodies with one name the last counts.
fn inline(word: HeredocWord, bodies: &[Heredoc]) -> InlineFile {
    let content = bodies.iter().rev().find(|b| b.name == word.name).map(|b| b.content.clone());
    let doc = word.with_content(content.unwrap_or_default());
    InlineFile { data: doc.data(), expand: doc.expand, name: doc.name }
}

fn run(node: Node) -> Result<Run, ErrorKind> {
    const FLAGS: [(&str, FlagType); 4] = [
        ("mount", FlagType::List),
        ("network", FlagType::Text),
        ("security", FlagType::Text),
        ("device", FlagType::List),
    ];
    let flags = Flags::parse(&node.flags, &FLAGS)?;
    let Args::Command(command) = node.args else { return Err(unknown(&node.keyword)) };
    let devices = flags.list("device");
    let devices = devices.iter().map(|d| Device::parse(d)).collect::<Result<_, _>>();
    let mounts = flags.list("mount").into_iter().map(MountFlag::parse).collect::<Result<_, _>>();
    Ok(Run {
        command,
        heredocs: node.heredocs,
        devices: devices.map_err(|e| ErrorKind::Device(e.to_string()))?,
        mount_flags: mounts.map_err(ErrorKind::Mount)?,
        network: network(&flags)?,
        security: security(&flags)?,
    })
}

fn network(flags: &Flags) -> Result<NetworkMode, ErrorKind> {
    match flags.list("network").pop().as_deref() {
        None | Some("default") => Ok(NetworkMode::Default),
        Some("none") => Ok(NetworkMode::None),
        Some("host") => Ok(NetworkMode::Host),
        Some(other) => Err(ErrorKind::Network(other.to_owned())),
    }
}

fn security(flags: &Flags) -> Result<SecurityMode, ErrorKind> {
    match flags.list("security").pop().as_deref() {
        None | Some("sandbox") => Ok(SecurityMode::Sandbox),
        Some("insecure") => Ok(SecurityMode::Insecure),
        Some(other) => Err(ErrorKind::Security(other.to_owned())),
    }
}

fn onbuild(node: Node) -> Result<Onbuild, ErrorKind> {
    let Args::Trigger(Some(inner)) = &node.args else { return Err(ErrorKind::AtLeastOne("ONBUILD")) };
    Flags::parse(&node.flags, &[])?;
    match inner.keyword.to_uppercase().as_str() {
        "ONBUILD" => return Err(ErrorKind::OnbuildChain),
        word @ ("FROM" | "MAINTAINER") => return Err(ErrorKind::OnbuildTrigger(word.to_owned())),
        _ => {}
    }
    let text = node.original.trim_start();
    let mut expression = text.get("ONBUILD".len()..).unwrap_or_default().trim_start().to_owned();
    for doc in &node.heredocs {
        expression.push('\n');
        expression.push_str(&doc.content);
        expression.push_str(&doc.name);
    }
    Ok(Onbuild { expression })
}
