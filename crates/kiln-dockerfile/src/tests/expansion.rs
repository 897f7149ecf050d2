//! Variable expansion (spec dockerfile.md section 3).

use super::strings;
use crate::shell::{Lex, NoEnv};
use std::collections::BTreeMap;

fn env() -> BTreeMap<String, String> {
    [("A", "hello"), ("E", ""), ("P", "/a/b/a/c"), ("X", "a*b"), ("S", " x  y "), ("K", "한국어")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

fn expand(word: &str) -> String {
    Lex::new('\\').process_word(word, &env()).map_or_else(|e| format!("! {}", e.reason), |e| e.text)
}

#[test]
fn forms() {
    let cases = [
        ("$A", "hello"),
        ("${A}", "hello"),
        ("$A_b", ""),
        ("${A}_b", "hello_b"),
        ("$B", ""),
        ("${E-x}", ""),
        ("${E:-x}", "x"),
        ("${B-x}", "x"),
        ("${B:-$A}", "hello"),
        ("${B:-${C:-${A}}}", "hello"),
        ("${B+y}", ""),
        ("${E+y}", "y"),
        ("${E:+y}", ""),
        ("${A:+y}", "y"),
        ("${A?x}", "hello"),
        ("${E?x}", ""),
        ("${A#h*l}", "lo"),
        ("${A##h*l}", "o"),
        ("${A%l*}", "hel"),
        ("${A%%l*}", "he"),
        ("${A#x}", "hello"),
        ("${A%x}", "hello"),
        ("${P/a/Z}", "/Z/b/a/c"),
        ("${P//a/Z}", "/Z/b/Z/c"),
        ("${P/\\//Z}", "Za/b/a/c"),
        ("${P/a/}", "//b/a/c"),
        ("${A/l*/X}", "heX"),
        ("${A//?/X}", "XXXXX"),
        ("${A//*/X}", "X"),
        ("${X#a\\*}", "b"),
        ("${X#a[*]b}", "a*b"),
        ("${A/#/$P}", "hello"),
        ("a$", "a$"),
        ("$.", "$."),
        ("$1x $@@ $0 $$ $!x $? $- $* $#", "x @   x    "),
        ("${1:-z}${@:-y}", "zy"),
        ("$K", "한국어"),
        ("${K%어}", "한국"),
        ("${aaa}}", "}"),
    ];
    for (word, want) in cases {
        assert_eq!(expand(word), want, "{word}");
    }
}

#[test]
fn quotes_and_escapes() {
    let cases = [
        ("a\\ b", "a b"),
        ("\\$A", "$A"),
        ("a\\", "a"),
        ("a\\\\", "a\\"),
        ("a\\tb", "atb"),
        ("\"a\\tb\"", "a\\tb"),
        ("\"a\\\\b\"", "a\\b"),
        ("\"\\$A\\\"\"", "$A\""),
        ("'$A\\'", "$A\\"),
        ("\"'$A'\"", "'hello'"),
        ("'\"a\"'", "\"a\""),
        ("he'l'lo", "hello"),
        ("${B:-\\${A}z}", "${Az}"),
        ("${B:-\"a}b\"}", "a}b"),
    ];
    for (word, want) in cases {
        assert_eq!(expand(word), want, "{word}");
    }
    let backtick = Lex::new('`');
    assert_eq!(backtick.process_word("C:\\a`$A", &env()).unwrap().text, "C:\\a$A");
}

#[test]
fn errors() {
    let cases = [
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{", "syntax error: bad substitution"),
        ("${", "syntax error: missing '}'"),
        ("${B:", "syntax error: missing '}'"),
        ("${B:-x", "syntax error: missing '}'"),
        ("${B#x", "syntax error: missing '}'"),
        ("${P/a/x", "syntax error: missing '}'"),
        ("${B", "unsupported modifier (\u{fffd}) in substitution"),
        ("${.}", "unsupported modifier (.) in substitution"),
        ("${A:#x}", "unsupported modifier (:#) in substitution"),
        ("${A:z}", "unsupported modifier (:z) in substitution"),
        ("${A:1:2}", "unsupported modifier (:1) in substitution"),
        ("${#A}", "unsupported modifier (A) in substitution"),
        ("${!A}", "unsupported modifier (A) in substitution"),
        ("${A^^}", "unsupported modifier (^) in substitution"),
        ("${P/a}", "syntax error: missing '/' in ${}"),
        ("${A#\\q}", "invalid pattern (\\q) in substitution: invalid escape '\\q'"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("${B?}", "B: is not allowed to be unset"),
        ("${B:?}", "B: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${B:?give me $A}", "B: give me hello"),
    ];
    for (word, want) in cases {
        assert_eq!(expand(word), format!("! {want}"), "{word}");
    }
    let error = Lex::new('\\').process_word("a\"${}", &NoEnv).unwrap_err();
    assert_eq!(error.to_string(), "failed to process \"a\\\"${}\": syntax error: bad substitution");
}

#[test]
fn limits() {
    let deep = format!("{}x{}", "${B:-".repeat(5000), "}".repeat(5000));
    assert_eq!(expand(&deep), "! substitutions are nested more than 100 deep");
    let mut vars = BTreeMap::from([("V".to_owned(), "0123456789abcdef".repeat(1 << 18))]);
    assert!(Lex::new('\\').process_word(&"$V".repeat(8), &vars).is_err());
    assert!(Lex::new('\\').process_word("${V//?/0123456789}", &vars).is_err());
    vars.insert("V".to_owned(), "a".repeat(1 << 20));
    assert!(Lex::new('\\').process_word(&format!("${{V#{}}}", "*a".repeat(500)), &vars).is_err());
}

#[test]
fn names_that_were_looked_up() {
    let result = Lex::new('\\').process_word("$A ${B:-$C} ${A:-$D} '$Q' \\$R", &env()).unwrap();
    assert_eq!(result.matched.into_iter().collect::<Vec<_>>(), ["A"]);
    assert_eq!(result.unmatched.into_iter().collect::<Vec<_>>(), ["B", "C", "D"]);
}

#[test]
fn words() {
    let words = |word: &str| Lex::new('\\').process_words(word, &env()).unwrap();
    assert_eq!(words("a b"), ["a", "b"]);
    assert_eq!(words("a${B}b"), ["ab"]);
    assert_eq!(words("80${B:-80}/tcp"), ["8080/tcp"]);
    assert_eq!(words("h${S}b"), ["h", "x", "y", "b"]);
    assert_eq!(words("h\"$S\"b c"), ["h x  y b", "c"]);
    assert_eq!(words("a\\ b 'c d'"), ["a b", "c d"]);
    assert_eq!(words("  "), Vec::<String>::new());
    assert_eq!(words("<< EOF x"), strings(&["<< EOF", "x"]));
}

#[test]
fn raw_modes() {
    let lex = Lex::new('\\');
    let text = |lex: Lex, word: &str| lex.process_word(word, &env()).unwrap().text;
    assert_eq!(text(lex.skip_quotes(true), "it's \"$A\" \\$A"), "it's \"hello\" $A");
    assert_eq!(text(lex.raw_quotes(true), "\"$A\" '$A'"), "\"hello\" '$A'");
    assert_eq!(text(lex.raw_escapes(true), "a\\ b"), "a\\ b");
    let shown = lex.raw_quotes(true).skip_unset(true);
    assert_eq!(text(shown, "$B ${B} ${B:-$A} ${B/a/b} $A"), "$B ${B} ${B:-hello} ${B/a/b} hello");
}
