//! Typed instructions.

use super::{kind, ok, one, strings};
use crate::{ArgPair, CommandLine, Healthcheck, Kind, NetworkMode, Pair, SecurityMode};

fn pair(key: &str, value: &str, legacy: bool) -> Pair {
    Pair { key: key.into(), value: value.into(), legacy }
}

#[test]
fn from_and_stages() {
    let file =
        ok("ARG A=1\nFROM --platform=$P a/b:c As Build.1\nFROM scratch\nRUN x\nfrom build.1 AS BUILD.1\n");
    assert_eq!(file.global_args.len(), 1);
    let from = &file.stages[0].from;
    assert_eq!((from.base.as_str(), from.name.as_deref()), ("a/b:c", Some("build.1")));
    assert_eq!((from.as_word.as_deref(), from.written_name.as_deref()), (Some("As"), Some("Build.1")));
    assert_eq!(from.platform.as_deref(), Some("$P"));
    assert_eq!(file.stages[1].instructions.len(), 1);
    assert_eq!(file.stages[2].source.keyword, "from");
    assert_eq!(file.stage_index("Build.1"), Some(2));
    assert_eq!(file.stage_index("0"), None);
}

#[test]
fn command_forms() {
    let shell = |text: &str| CommandLine::Shell(text.into());
    assert_eq!(kind("CMD [\"a\", \"b c\"]"), Kind::Cmd(CommandLine::Exec(strings(&["a", "b c"]))));
    assert_eq!(kind("CMD ['a']"), Kind::Cmd(shell("['a']")));
    assert_eq!(kind("CMD [\"a\" b]"), Kind::Cmd(shell("[\"a\" b]")));
    assert_eq!(kind("CMD  a   b "), Kind::Cmd(shell("a   b")));
    assert_eq!(kind("CMD"), Kind::Cmd(shell("")));
    assert_eq!(kind("ENTRYPOINT []"), Kind::Entrypoint(CommandLine::Exec(vec![])));
    assert_eq!(kind("SHELL [\"/bin/bash\", \"-c\"]"), Kind::Shell(strings(&["/bin/bash", "-c"])));
    assert_eq!(kind("eNtRyPoInT a"), Kind::Entrypoint(shell("a")));
}

#[test]
fn pairs() {
    let env = |line: &str| match kind(line) {
        Kind::Env(env) => env.pairs,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        env("ENV a=b c=\"d e\" f=g\\ h"),
        [pair("a", "b", false), pair("c", "\"d e\"", false), pair("f", "g\\ h", false)]
    );
    assert_eq!(env("ENV a  b c=d "), [pair("a", "b c=d", true)]);
}

#[test]
#[should_panic(expected = "can't find =")]
fn mixed_pairs() {
    kind("ENV a=b c");
}

#[test]
fn args() {
    let Kind::Arg(arg) = kind("ARG a b= c=\"d e\"") else { panic!() };
    let arg_pair = |key: &str, value: Option<&str>| ArgPair {
        key: key.into(),
        value: value.map(Into::into),
        doc_comment: None,
    };
    assert_eq!(arg.args, [arg_pair("a", None), arg_pair("b", Some("")), arg_pair("c", Some("\"d e\""))]);
    assert!(matches!(kind("ARG --anything a"), Kind::Arg(_)), "flags of ARG are not looked at");
}

#[test]
fn copy_and_add_flags() {
    let Kind::Copy(copy) = kind(
        "COPY --from=b --chown=u:g --chmod=u=rwX --link=false --parents --exclude=*.a --exclude=b \"--x\" /d",
    ) else {
        panic!()
    };
    assert_eq!(copy.from.as_deref(), Some("b"));
    assert_eq!((copy.chown.as_deref(), copy.chmod.as_deref()), (Some("u:g"), Some("u=rwX")));
    assert_eq!((copy.link, copy.parents), (false, true));
    assert_eq!(copy.exclude, ["*.a", "b"]);
    assert_eq!(copy.files.sources, ["\"--x\""]);
    let Kind::Add(add) =
        kind("ADD --checksum=sha256:0 --keep-git-dir --unpack=FALSE [\"a b\", \"c\", \"/d e\"]")
    else {
        panic!()
    };
    assert_eq!(add.checksum.as_deref(), Some("sha256:0"));
    assert_eq!((add.keep_git_dir, add.unpack, add.link), (Some(true), Some(false), false));
    assert_eq!((add.files.sources, add.files.dest), (strings(&["a b", "c"]), "/d e".into()));
}

#[test]
fn flags_end_and_quotes() {
    let Kind::Copy(copy) = kind("COPY --chown=\"a b\" -- --from /d") else { panic!() };
    assert_eq!(copy.chown.as_deref(), Some("a b"));
    assert_eq!(copy.files.sources, ["--from"]);
    let run = one("RUN --mount=type=cache,target=/a\\ b --mount='type=tmpfs',target=/é x --y");
    assert_eq!(run.source.flags, ["mount"]);
    let Kind::Run(run) = run.kind else { panic!() };
    let raw: Vec<_> = run.mount_flags.iter().map(|m| m.raw.as_str()).collect();
    assert_eq!(raw, ["type=cache,target=/a b", "type=tmpfs,target=/é"]);
    assert_eq!(run.command, CommandLine::Shell("x --y".into()));
}

#[test]
fn run_modes_and_devices() {
    let Kind::Run(run) =
        kind("RUN --network=host --security=insecure --device=v.com/c=d,required --device=name=z x")
    else {
        panic!()
    };
    assert_eq!((run.network, run.security), (NetworkMode::Host, SecurityMode::Insecure));
    let devices: Vec<_> = run.devices.iter().map(|d| (d.name.as_str(), d.required)).collect();
    assert_eq!(devices, [("v.com/c=d", true), ("z", false)]);
}

#[test]
fn single_argument_instructions_keep_blanks() {
    assert_eq!(kind("WORKDIR  /a b "), Kind::Workdir("/a b".into()));
    assert_eq!(kind("USER a b"), Kind::User("a b".into()));
    assert_eq!(kind("STOPSIGNAL SIGKILL"), Kind::StopSignal("SIGKILL".into()));
    assert!(matches!(kind("MAINTAINER A B <c>"), Kind::Maintainer(m) if m.name == "A B <c>"));
}

#[test]
fn word_lists() {
    assert!(matches!(kind("EXPOSE 90 80/udp 443"), Kind::Expose(e) if e.ports == ["443", "80/udp", "90"]));
    assert_eq!(kind("VOLUME /a  /b"), Kind::Volume(strings(&["/a", "/b"])));
    assert_eq!(kind("VOLUME [\"/a b\", \" /c \"]"), Kind::Volume(strings(&["/a b", "/c"])));
}

#[test]
fn healthchecks() {
    assert!(matches!(kind("HEALTHCHECK NONE"), Kind::Healthcheck(Healthcheck::None)));
    let Kind::Healthcheck(check) = kind(
        "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=100ms --start-interval=0 --retries=3 cmd a b",
    ) else {
        panic!()
    };
    assert_eq!(check.test(), ["CMD-SHELL", "a b"]);
    let Healthcheck::Command { interval, timeout, start_period, start_interval, retries, .. } = check else {
        panic!()
    };
    assert_eq!(
        (interval, timeout, start_period, start_interval, retries),
        (90_000_000_000, 1_500_000_000, 100_000_000, 0, 3)
    );
    let Kind::Healthcheck(check) = kind("HEALTHCHECK CMD [\"a\", \"b\"]") else { panic!() };
    assert_eq!(check.test(), ["CMD", "a", "b"]);
}

#[test]
fn expansion_reaches_the_right_texts() {
    let upper = |w: &str| Ok::<_, ()>(w.to_uppercase());
    let expanded = |line: &str| {
        let mut i = one(line);
        i.expand(upper).unwrap();
        i.kind
    };
    let Kind::Copy(copy) = expanded("COPY --from=f --chown=c --chmod=m --exclude=e s d") else { panic!() };
    assert_eq!(copy.from.as_deref(), Some("f"));
    assert_eq!((copy.chown.as_deref(), copy.chmod.as_deref()), (Some("C"), Some("M")));
    assert_eq!(
        (copy.exclude, copy.files.sources, copy.files.dest),
        (strings(&["e"]), strings(&["S"]), "D".into())
    );
    assert!(matches!(expanded("ADD --checksum=c s d"), Kind::Add(a) if a.checksum.as_deref() == Some("C")));
    assert!(matches!(expanded("ENV a=b"), Kind::Env(e) if e.pairs == [pair("A", "B", false)]));
    assert!(matches!(expanded("ARG a=b"), Kind::Arg(a) if a.args[0].value.as_deref() == Some("B")));
    assert_eq!(expanded("WORKDIR a"), Kind::Workdir("A".into()));
    assert_eq!(expanded("VOLUME a"), Kind::Volume(strings(&["A"])));
    assert_eq!(expanded("CMD a"), Kind::Cmd(CommandLine::Shell("a".into())));
    let mut i = one("COPY <<a <<'b' /\nx\na\ny\nb");
    i.expand_inline(upper).unwrap();
    let Kind::Copy(copy) = i.kind else { panic!() };
    assert_eq!((copy.files.inline[0].data.as_str(), copy.files.inline[1].data.as_str()), ("X\n", "y\n"));
    assert_eq!(one("USER a").expand(|_| Err(7)), Err(7));
}
