//! Lines, comments, directives, heredocs.

use super::{error, kind, ok, one, strings};
use crate::directive::{detect, detect_syntax};
use crate::{CommandLine, Heredoc, Kind, Range, RunBody, Warning, parse};

fn shell(line: &str) -> String {
    match kind(line) {
        Kind::Run(run) => match run.command {
            CommandLine::Shell(text) => text,
            CommandLine::Exec(list) => panic!("exec form: {list:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn heredocs(line: &str) -> Vec<Heredoc> {
    match kind(line) {
        Kind::Run(run) => run.heredocs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn continuations() {
    let cases = [
        ("RUN a \\\n b", "a  b"),
        ("RUN a \\  \t\n\tb", "a \tb"),
        ("RUN a \\\\\n", "a \\\\"),
        ("RUN a\\\n\\\nb", "ab"),
        ("   RUN a", "a"),
        ("RUN a \\\n# comment\n  # another\nb", "a b"),
        ("RUN a \\\n\n  \nb", "a b"),
        ("RUN a \\", "a"),
        ("\\\nRUN a", "a"),
        ("RUN a \\\r\nb\r", "a b"),
        ("RUN a # no comment", "a # no comment"),
    ];
    for (text, want) in cases {
        assert_eq!(shell(text), want, "{text:?}");
    }
}

#[test]
fn empty_continuation_is_noted() {
    let file = ok("FROM x\nRUN a \\\n\n  b\n");
    let at = Range { start: 4, end: 4 };
    assert_eq!(file.warnings, [Warning::EmptyContinuation { line: "RUN a   b".into(), at }]);
    assert!(ok("FROM x\nRUN a \\\n# c\n  b\n").warnings.is_empty());
}

#[test]
fn backtick_escape() {
    let file = ok("# escape=`\nFROM x\nRUN a `\nb\\\nRUN c\n");
    assert_eq!(file.escape, '`');
    let codes: Vec<_> = file.stages[0].instructions.iter().map(|i| i.source.code.as_str()).collect();
    assert_eq!(codes, ["RUN a b\\", "RUN c"]);
    assert_eq!(error("# escape=x\nFROM x"), "invalid escape token 'x' does not match ` or \\");
}

#[test]
fn directives_end_at_the_first_other_line() {
    let file = ok("# Syntax = docker/dockerfile:1 extra\n#check=skip=all\n# other=1\n# escape=`\nFROM x\n");
    let syntax = file.directive("syntax").unwrap();
    assert_eq!(
        (syntax.value.as_str(), syntax.first_word()),
        ("docker/dockerfile:1 extra", "docker/dockerfile:1")
    );
    assert_eq!(file.directive("check").unwrap().range, Range { start: 2, end: 2 });
    assert_eq!(file.escape, '\\');
    assert_eq!(file.stages[0].source.comments, ["other=1", "escape=`"]);
    assert_eq!(ok("\n# escape=`\nFROM x").escape, '\\');
    assert_eq!(error("# check=a\n# CHECK=b\nFROM x"), "only one check parser directive can be used");
}

#[test]
fn syntax_detection() {
    let found = |text: &str| detect_syntax(text.as_bytes()).map(|d| (d.value, d.range.start));
    let some = |value: &str, line| Some((value.to_owned(), line));
    assert_eq!(found("# syntax=a/b:c d\n"), some("a/b:c d", 1));
    assert_eq!(found("\u{feff}# syntax=a"), some("a", 1));
    assert_eq!(found("#!/usr/bin/env x\n# check=z\n# syntax=a\n"), some("a", 3));
    assert_eq!(found("// syntax=a\nint x;"), some("a", 1));
    assert_eq!(found("{\"syntax\": \"a\", \"b\": [1]}"), some("a", 1));
    assert_eq!(found("\n# syntax=a"), None);
    assert_eq!(found("# comment\n# syntax=a"), None);
    assert_eq!(found("{\"syntax\": 1}"), None);
    assert_eq!(
        detect("check", b"# syntax=x\r\n# check=skip=A;error=true\r\n").unwrap().value,
        "skip=A;error=true"
    );
    assert_eq!(detect("check", b"// check=a"), None);
}

#[test]
fn byte_order_mark_and_encoding() {
    assert_eq!(ok("\u{feff}FROM x").stages.len(), 1);
    assert!(parse(b"# caf\xe9\nFROM x\n").is_ok());
    assert_eq!(parse(b"FROM x\nRUN \xff\n").unwrap_err().to_string(), "instruction is not valid UTF-8");
}

#[test]
fn line_length() {
    let text = |n: usize| format!("FROM x\n# {}\n", "a".repeat(n - 2));
    assert_eq!(ok(&text(65535)).stages.len(), 1);
    assert_eq!(error(&text(65536)), "dockerfile line greater than max allowed size of 65535");
}

#[test]
fn ranges_cover_continuations_and_bodies() {
    let file = ok("FROM x\n\nRUN a \\\n b\nRUN <<E\nx\ny\nE\nUSER u\n");
    let ranges: Vec<_> =
        file.stages[0].instructions.iter().map(|i| (i.source.range.start, i.source.range.end)).collect();
    assert_eq!(ranges, [(3, 4), (5, 8), (9, 9)]);
    let lines: Vec<_> = Range { start: 3, end: 4 }.lines().map(|r| (r.start, r.end)).collect();
    assert_eq!(lines, [(3, 3), (4, 4)]);
}

#[test]
fn doc_comments() {
    let file = ok(
        "# lost\n#\n# V the version\n\n# more\nARG V=1 W\n# base is first\nFROM x AS base\n# check=skip=A b\nRUN a\n",
    );
    let (source, arg) = file.global_arg_pairs().next().unwrap();
    assert_eq!(source.comments, ["V the version", "more"]);
    assert_eq!(arg.args[0].doc_comment.as_deref(), Some("the version"));
    assert_eq!(arg.args[1].doc_comment, None);
    assert_eq!(file.stages[0].doc_comment(), Some("is first"));
    assert_eq!(file.stages[0].instructions[0].source.check(), Some("skip=A"));
}

#[test]
fn heredoc_words() {
    let doc = |name: &str, fd, expand, chomp, content: &str| Heredoc {
        name: name.into(),
        fd,
        expand,
        chomp,
        content: content.into(),
    };
    assert_eq!(heredocs("RUN <<EOF\na\nEOF"), [doc("EOF", 0, true, false, "a\n")]);
    assert_eq!(heredocs("RUN <<-EOF\n\ta\n\tEOF"), [doc("EOF", 0, true, true, "\ta\n")]);
    assert_eq!(heredocs("RUN <<'EOF'\nEOF"), [doc("EOF", 0, false, false, "")]);
    assert_eq!(heredocs("RUN <<E\"O\"F\nEOF"), [doc("EOF", 0, false, false, "")]);
    assert_eq!(heredocs("RUN 3<< EOF\nEOF"), [doc("EOF", 3, true, false, "")]);
    assert_eq!(
        heredocs("RUN a <<A <<-\"B\" && c\n1\nA\n# no comment\n\tB"),
        [doc("A", 0, true, false, "1\n"), doc("B", 0, false, true, "# no comment\n")]
    );
    assert_eq!(heredocs("RUN echo $((1<<2))"), []);
    assert_eq!(heredocs("RUN cat <<<text"), []);
    assert_eq!(heredocs("RUN a \\\n  <<EOF\nx\nEOF"), [doc("EOF", 0, true, false, "x\n")]);
    assert_eq!(error("FROM x\nRUN <<EOF\nx\n"), "unterminated heredoc");
    assert_eq!(error("FROM x\nRUN <<EOF\n\tEOF\n"), "unterminated heredoc");
    assert_eq!(kind("CMD cat <<EOF"), Kind::Cmd(CommandLine::Shell("cat <<EOF".into())));
}

#[test]
fn heredoc_data_loses_tabs_only_when_asked() {
    assert_eq!(heredocs("RUN <<-E\n\t\ta\n\t b\nE")[0].data(), "a\n b\n");
    assert_eq!(heredocs("RUN <<E\n\ta\nE")[0].data(), "\ta\n");
}

#[test]
fn run_bodies() {
    let Kind::Run(run) = kind("RUN <<EOF\na\nEOF") else { panic!() };
    assert!(matches!(run.body(), RunBody::Heredoc(doc) if doc.content == "a\n"));
    let Kind::Run(run) = kind("RUN cat <<A > f <<B\n1\nA\n2\nB") else { panic!() };
    assert_eq!(run.body(), RunBody::Shell("cat <<A > f <<B\n1\nA\n2\nB".into()));
    let Kind::Run(run) = kind("RUN [\"a\", \"<<EOF\"]") else { panic!() };
    assert_eq!(run.body(), RunBody::Exec(&strings(&["a", "<<EOF"])));
}

#[test]
fn inline_files() {
    let Kind::Copy(copy) = kind("COPY --link a <<f.txt <<-'g' /dest/\n$x\nf.txt\n\ty\n\tg") else { panic!() };
    assert!(copy.link);
    assert_eq!(copy.files.sources, ["a"]);
    let inline: Vec<_> =
        copy.files.inline.iter().map(|f| (f.name.as_str(), f.data.as_str(), f.expand)).collect();
    assert_eq!(inline, [("f.txt", "$x\n", true), ("g", "y\n", false)]);
    assert_eq!(
        error("FROM x\nCOPY a <<EOF\nEOF"),
        "dockerfile parse error on line 2: COPY cannot accept a heredoc as a destination"
    );
}

#[test]
fn onbuild_keeps_bodies_and_parses_later() {
    let Kind::Onbuild(on) = kind("ONBUILD  RUN <<EOF\na\nEOF") else { panic!() };
    assert_eq!(on.expression, "RUN <<EOF\na\nEOF");
    let inner = on.parse().unwrap();
    assert!(matches!(inner.kind, Kind::Run(run) if run.heredocs[0].content == "a\n"));
    let Kind::Onbuild(on) = kind("onbuild RUN --nope a") else { panic!() };
    assert_eq!(on.parse().unwrap_err().to_string(), "unknown flag: --nope");
    assert_eq!(one("ONBUILD COPY a b").source.code, "ONBUILD COPY a b");
}
