//! Error texts (spec dockerfile.md section 16).

use super::error;
use crate::{Range, nearest, parse, parse_trigger};

/// Errors of the first instruction after `FROM x`, with the prefix that names its line.
#[test]
fn texts_with_the_line() {
    let cases = [
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a IS b", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1a",
            "invalid name for build stage: \"1a\", name can't start with a number or contain symbols",
        ),
        ("FROM --plattform=a b", "unknown flag: --plattform (did you mean platform?)"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ENV", "ENV requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL a", "SHELL requires the arguments to be in JSON form"),
        ("ENV =b", "ENV names can not be blank"),
        ("ARG =b", "ARG names can not be blank"),
        ("ONBUILD ONBUILD RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD MAINTAINER a", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK foo a", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK NONE a", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK --interval=1us CMD a", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=-5s CMD a", "Interval \"timeout\" cannot be less than 1ms"),
        ("HEALTHCHECK --interval=5 CMD a", "time: missing unit in duration \"5\""),
        ("HEALTHCHECK --interval=x CMD a", "time: invalid duration \"x\""),
        ("HEALTHCHECK --interval=1d CMD a", "time: unknown unit \"d\" in duration \"1d\""),
        ("HEALTHCHECK --retries=x CMD a", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            "HEALTHCHECK --retries=9999999999 CMD a",
            "strconv.ParseInt: parsing \"9999999999\": value out of range",
        ),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("RUN --network=foo a", "invalid network mode \"foo\""),
        ("RUN --security=foo a", "security \"foo\" is not valid"),
        ("RUN --foo a", "unknown flag: --foo"),
        ("RUN --mont=type=bind a", "unknown flag: --mont (did you mean mount?)"),
        ("RUN --mount=from=$x a", "'from' doesn't support variable expansion, define alias stage instead"),
        (
            "RUN --mount='a\"b' a",
            "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted-field",
        ),
        ("RUN --device=a,b a", "invalid field 'b' must be a key=value pair"),
        ("COPY --fron=a b c", "unknown flag: --fron (did you mean from?)"),
        ("COPY --from a b", "missing a value on flag: --from"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
        ("COPY --link --link a b", "duplicate flag specified: --link"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("CPY a b", "unknown instruction: CPY (did you mean COPY?)"),
        ("rnu a", "unknown instruction: rnu (did you mean run?)"),
        ("XYZZY a", "unknown instruction: XYZZY"),
    ];
    for (line, want) in cases {
        let text = error(&format!("FROM x\n{line}\n"));
        assert_eq!(text, format!("dockerfile parse error on line 2: {want}"), "{line}");
    }
}

#[test]
fn texts_without_the_line() {
    let cases = [
        ("", "the Dockerfile cannot be empty"),
        ("\n# only a comment\n", "file with no instructions"),
        ("ARG a", "dockerfile contains no stages to build"),
        ("RUN a", "no build stage in current context"),
        ("FROM x\nENV a", "ENV must have two arguments"),
        ("FROM x\nLABEL a", "LABEL must have two arguments"),
        ("FROM x\nENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        ("FROM x\nRUN [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        (
            "FROM x\nCOPY [\"a\", [\"b\"]]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(error(text), want, "{text:?}");
    }
}

#[test]
fn ranges_of_errors() {
    let range = |text: &str| parse(text.as_bytes()).unwrap_err().range.map(|r| (r.start, r.end));
    assert_eq!(range("FROM x\nRUN --foo \\\n a\n"), Some((2, 3)));
    assert_eq!(range("FROM x\nRUN <<EOF\na\n"), Some((2, 3)));
    assert_eq!(range("\nRUN a\n"), Some((2, 2)));
    assert_eq!(range(""), None);
    let error = parse(b"FROM x\nFOO\n").unwrap_err();
    assert_eq!((error.named_line, error.range), (Some(2), Some(Range { start: 2, end: 2 })));
}

#[test]
fn form_wins_over_meaning() {
    assert_eq!(error("FROM x\nFOO\nENV a\n"), "ENV must have two arguments");
}

#[test]
fn triggers() {
    assert_eq!(parse_trigger("RUN a").unwrap().source.code, "RUN a");
    assert_eq!(parse_trigger("").unwrap_err().to_string(), "file with no instructions");
    assert_eq!(parse_trigger("FROM a").unwrap_err().to_string(), "FROM isn't allowed as an ONBUILD trigger");
    assert_eq!(
        parse_trigger("ONBUILD RUN a").unwrap_err().to_string(),
        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
    );
}

#[test]
fn suggestions() {
    let options = ["from", "chown", "chmod"];
    assert_eq!(nearest("form", &options, false).as_deref(), Some("from"));
    assert_eq!(nearest("chmon", &options, false).as_deref(), Some("chmod"));
    assert_eq!(nearest("from", &options, false), None);
    assert_eq!(nearest("exclude", &options, false), None);
    assert_eq!(nearest("FRM", &options, true).as_deref(), Some("FROM"));
    assert_eq!(nearest(&"x".repeat(1000), &options, true), None);
}

#[test]
fn what_comes_before_an_error_is_read() {
    let (file, error) = crate::read(b"FROM a\nMAINTAINER x\nRUN --foo y\nFROM b\n").unwrap();
    assert_eq!((file.stages.len(), file.stages[0].instructions.len()), (1, 1));
    assert_eq!(error.unwrap().error.named_line, Some(3));
    let (_, error) = crate::read(b"FROM a As b c\n").unwrap();
    let wrong = error.unwrap();
    assert_eq!((wrong.words.len(), wrong.source.unwrap().keyword.as_str()), (4, "FROM"));
    assert!(crate::read(b"").is_err());
}
