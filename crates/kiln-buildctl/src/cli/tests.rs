use super::*;

fn words(line: &str) -> Vec<String> {
    line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

fn run(line: &str) -> Invocation {
    match parse(&words(line)) {
        Outcome::Run(invocation) => invocation,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn flags_are_read_in_every_form() {
    let i = run("-addr=unix:///x du --filter a -f b=c -v --addr tcp://y:1 extra");
    assert_eq!((i.command.name, i.args.join(" ").as_str()), ("du", "extra"));
    assert_eq!(i.values.list("filter"), ["a", "b=c"]);
    assert_eq!((i.values.text("addr"), i.values.is("verbose")), ("tcp://y:1", true));
    let i = run("b --no-cache=false --no-cache --frontend dockerfile.v0 --output -");
    assert_eq!((i.command.action, i.values.is("no-cache")), (Action::Build, true));
    assert_eq!(i.values.list("output"), ["-"]);
    assert_eq!(run("debug ctl x --pin").args, ["x"]);
    assert!(run("debug ctl x --pin").values.is("pin"));
    assert_eq!(run("debug get -- --pin").args, ["--pin"]);
    assert_eq!(run("debug get -5 --x").args, ["-5", "--x"]);
    assert_eq!(run("debug dump-llb -").args, ["-"]);
    let i = run("prune --keep-storage 1.5 --keep-duration 1h");
    assert_eq!((i.values.float("keep-storage"), i.values.duration("keep-duration").as_secs()), (1.5, 3600));
}

#[test]
fn what_is_wrong_is_said() {
    for (line, expected) in [
        ("build --nosuch", "flag provided but not defined: -nosuch"),
        ("build -o", "flag needs an argument: -o"),
        ("du --verbose=x", "invalid value \"x\" for flag -verbose: parse error"),
        (
            "--timeout x du",
            "invalid value \"x\" for flag -timeout: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "prune --keep-duration abc",
            "invalid value \"abc\" for flag -keep-duration: time: invalid duration \"abc\"",
        ),
        (
            "prune --keep-storage abc",
            "invalid value \"abc\" for flag -keep-storage: strconv.ParseFloat: parsing \"abc\": invalid syntax",
        ),
    ] {
        match parse(&words(line)) {
            Outcome::Wrong { why, .. } => assert_eq!(why, expected, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    for line in ["nosuch", "debug nosuch", "help nosuch", "--help nosuch"] {
        assert!(matches!(parse(&words(line)), Outcome::NoTopic(name) if name == "nosuch"), "{line}");
    }
}

#[test]
fn help_is_asked_for_in_many_ways() {
    let topic = |line: &str| match parse(&words(line)) {
        Outcome::Help(path) => path.iter().map(|c| c.name).collect::<Vec<_>>().join(" "),
        other => panic!("{line}: {other:?}"),
    };
    for (line, expected) in [
        ("", "buildctl"),
        ("help", "buildctl"),
        ("--help", "buildctl"),
        ("h build", "buildctl build"),
        ("du help", "buildctl du"),
        ("du -h", "buildctl du"),
        ("debug", "buildctl debug"),
        ("debug help workers", "buildctl debug workers"),
    ] {
        assert_eq!(topic(line), expected, "{line}");
    }
    assert!(matches!(parse(&words("-v")), Outcome::Version));
}

#[test]
fn help_of_the_program_and_of_a_command() {
    let text = help(&[&ROOT], "v1", "unix:///s");
    assert!(text.starts_with("NAME:\n   buildctl - build utility\n\nUSAGE:\n   buildctl [global options] [command [command options]]\n\nVERSION:\n   v1\n\nCOMMANDS:\n   du               disk usage\n"), "{text}");
    assert!(text.contains("   build, b         build\n"));
    assert!(text.contains("   --addr string           buildkitd address (default: \"unix:///s\")\n"));
    assert!(!text.contains("dial-stdio"));
    let du = ROOT.find("du").unwrap();
    let text = help(&[&ROOT, du], "v1", "unix:///s");
    assert!(
        text.contains("   --filter string, -f string [ --filter string, -f string ]  Filter records\n"),
        "{text}"
    );
    assert!(text.contains("\nGLOBAL OPTIONS:\n   --debug                 enable debug output in logs\n"));
}
