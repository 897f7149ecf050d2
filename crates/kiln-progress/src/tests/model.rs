//! Options, sizes, log windows, excerpts.

use crate::log::Log;
use crate::text::{align, columns, cut};
use crate::{
    Colors, LineRange, Mode, ModeError, SourceFile, format_bytes, print_source_excerpt, printable,
    printable_lines,
};
use jiff::SignedDuration;

#[test]
fn modes() {
    for name in ["auto", "tty", "plain", "rawjson", "quiet", "none"] {
        assert_eq!(name.parse::<Mode>().unwrap().to_string(), name);
    }
    assert_eq!("".parse(), Ok(Mode::Auto));
    let error = "fancy".parse::<Mode>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid progress mode fancy: expected auto, tty, plain, rawjson, quiet or none"
    );
    assert_eq!(Mode::Auto.resolve(true), Ok(Mode::Tty));
    assert_eq!(Mode::Auto.resolve(false), Ok(Mode::Plain));
    assert_eq!(Mode::Tty.resolve(false), Err(ModeError::NoTerminal));
    assert_eq!(Mode::RawJson.resolve(false), Ok(Mode::RawJson));
}

#[test]
fn colors() {
    let (colors, problems) = Colors::parse("run=Green:error=1,2,3:warning=light-red:cancel=cyan");
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(colors.run.paint("x"), "\x1b[32mx\x1b[0m");
    assert_eq!(colors.error.paint("x"), "\x1b[38;2;1;2;3mx\x1b[0m");
    assert_eq!(colors.warning.paint("x"), "\x1b[91mx\x1b[0m");
    let (colors, problems) = Colors::parse("run=nope:x=red:error:cancel=1,2,300");
    assert_eq!((colors, problems.len()), (Colors::default(), 4));
    assert_eq!(problems[1], "BUILDKIT_COLORS: unknown key \"x\": expected run, cancel, error or warning");
}

#[test]
fn sizes() {
    let cases = [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.00kB"),
        (1234, "1.23kB"),
        (1_500_000, "1.50MB"),
        (-2000, "-2.00kB"),
        (i64::MAX, "9.22EB"),
    ];
    for (n, want) in cases {
        assert_eq!(format_bytes(n), want);
    }
}

#[test]
fn columns_of_text() {
    assert_eq!(columns("日本a"), 5);
    assert_eq!(cut("日本a", 3), "日");
    assert_eq!(cut("abc", 9), "abc");
    assert_eq!(align("a", "b", 5), "a   b");
    assert_eq!(align("abc", "def", 3), "abcdef");
    assert_eq!(printable("a\tb\x1b[1m\u{9b}c\nd"), "a b[1mc d");
    assert_eq!(printable_lines("a\tb\x1b[1m\u{9b}c\r\nd"), "a\tb[1mc\nd");
}

fn window(parts: &[&str], width: usize) -> Vec<String> {
    let mut log = Log::default();
    parts.iter().for_each(|p| log.write(p.as_bytes(), SignedDuration::ZERO));
    log.window(width, 4)
}

#[test]
fn log_windows() {
    assert_eq!(window(&["a\nb\n\nc\nd\ne\n"], 80), ["b", "c", "d", "e"]);
    assert_eq!(window(&["10%\r20%"], 80), ["20%"]);
    assert_eq!(window(&["10% long\r20%\x1b[K"], 80), ["20%"]);
    assert_eq!(window(&["old\x1b[2K\x1b[1Gnew"], 80), ["new"]);
    assert_eq!(window(&["\x1b[3", "1mred\x1b[0m\x1b]0;title\x07 x\x1b(B"], 80), ["red x"]);
    assert_eq!(window(&["abcdef"], 4), ["abcd", "ef"]);
    assert_eq!(window(&["a\tb\x08c"], 80), ["a       c"]);
    assert_eq!(window(&["x"], 0), Vec::<String>::new());
    let mut log = Log::default();
    let bytes = "é日\n".as_bytes();
    bytes.iter().for_each(|b| log.write(&[*b], SignedDuration::ZERO));
    assert_eq!(log.window(80, 4), ["é日"]);
}

#[test]
fn logs_stay_small() {
    let mut log = Log::default();
    for _ in 0..2000 {
        log.write(&[b'x'; 1000], SignedDuration::ZERO);
        log.take_printed();
    }
    assert_eq!(log.total, 2_000_000);
    assert!(log.last_lines(usize::MAX).map(<[u8]>::len).sum::<usize>() < 100_000);
}

fn excerpt(text: &str, ranges: &[(i32, i32)]) -> String {
    let source = SourceFile { filename: "Dockerfile".into(), data: text.into(), language: String::new() };
    let ranges: Vec<LineRange> =
        ranges.iter().map(|(start, end)| LineRange { start: *start, end: *end }).collect();
    let mut out = Vec::new();
    print_source_excerpt(&source, &ranges, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn excerpts() {
    let file = "FROM a\nRUN b\nRUN c\nRUN d\nRUN e\nRUN f\n";
    assert_eq!(
        excerpt(file, &[(3, 3)]),
        "Dockerfile:3\n--------------------\n\
         \x20  1 |     FROM a\n   2 |     RUN b\n   3 | >>> RUN c\n   4 |     RUN d\n   5 |     RUN e\n\
         --------------------\n"
    );
    assert_eq!(
        excerpt("FROM a\r\nRUN b \\\n \x1bc\n", &[(2, 2), (3, 3)]),
        "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> RUN b \\\n   3 | >>>  c\n   4 |     \n\
         --------------------\n"
    );
    assert_eq!(
        excerpt("one", &[(1, 1)]),
        "Dockerfile:1\n--------------------\n   1 | >>> one\n--------------------\n"
    );
    assert_eq!(excerpt("one", &[(5, 9)]), "");
    assert_eq!(excerpt("one", &[]), "");
    assert_eq!(excerpt("one\ntwo", &[(2, i32::MAX)]).lines().count(), 5);
}
