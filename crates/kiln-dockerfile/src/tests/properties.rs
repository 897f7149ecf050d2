//! Nothing that a file can hold makes the reader panic, and what it reads is consistent.

use crate::shell::Lex;
use crate::{Kind, Mount, directive, parse, parse_trigger};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;

const PARTS: [&str; 48] = [
    "FROM a\n",
    "FROM a AS b\n",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "LABEL ",
    "ARG ",
    "CMD ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "SHELL ",
    "VOLUME ",
    "EXPOSE ",
    "--mount=type=cache,target=/x ",
    "--from=x ",
    "--link ",
    "--interval=5s ",
    "-- ",
    "[\"a\", \"b\"]",
    "[1]",
    "<<EOF",
    "<<-\"EOF\"",
    "3<< E",
    "EOF\n",
    "\tEOF\n",
    "\\\n",
    "# c\n",
    "# syntax=a b\n",
    "# escape=`\n",
    "#\n",
    "\n",
    "\r\n",
    "`\n",
    "\\",
    "'",
    "\"",
    "=",
    "a=b ",
    "/x",
    "$A",
    "${A:-b}",
    "${A//",
    "NONE",
    "\t",
    " ",
    "é",
    "#!/bin/sh\n",
];

fn lines() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PARTS.as_slice()), 0..24).prop_map(|parts| parts.concat())
}

/// Runs everything that a parsed file offers.
fn exercise(text: &[u8]) {
    let lex = Lex::new('\\');
    let env = BTreeMap::from([("A".to_owned(), "a b".to_owned())]);
    let _ = directive::detect_syntax(text);
    let Ok(file) = parse(text) else { return };
    let total = text.split(|b| *b == b'\n').count() as u32;
    for stage in file.stages {
        for mut i in stage.instructions {
            assert!(1 <= i.source.range.start && i.source.range.start <= i.source.range.end);
            assert!(i.source.range.end <= total);
            let _ = i.expand(|w| lex.process_word(w, &env).map(|e| e.text));
            let _ = i.expand_inline(|w| lex.skip_quotes(true).process_word(w, &env).map(|e| e.text));
            match &i.kind {
                Kind::Run(run) => {
                    let _ = run.body();
                    let _ = run.mounts(|w| lex.process_word(w, &env).map(|e| e.text));
                }
                Kind::Onbuild(on) => drop(on.parse()),
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn likely_lines(text in lines()) {
        exercise(text.as_bytes());
        exercise(format!("FROM x\n{text}").as_bytes());
        let _ = parse_trigger(&text);
    }

    #[test]
    fn words(word in "[$A-C{}:+#%/*?'\"\\\\ <a-c-]{0,24}") {
        let env = BTreeMap::from([("A".to_owned(), "a b*c".to_owned()), ("B".to_owned(), String::new())]);
        let lex = Lex::new('\\');
        for lex in [lex, lex.raw_quotes(true), lex.skip_quotes(true), lex.raw_escapes(true).skip_unset(true)] {
            let _ = lex.process_word(&word, &env);
        }
        let _ = Mount::parse(&word, &mut |w| Ok::<_, Infallible>(w.to_owned()));
    }

    /// A text without special characters is its own expansion, and quoting makes any text so.
    #[test]
    fn plain_text_stays(word in "[a-zA-Z0-9 ./:=é]{0,20}", quoted in "[^']{0,20}") {
        let lex = Lex::new('\\');
        prop_assert_eq!(lex.process_word(&word, &crate::shell::NoEnv).unwrap().text, word);
        prop_assert_eq!(lex.process_word(&format!("'{quoted}'"), &crate::shell::NoEnv).unwrap().text, quoted);
    }
}
