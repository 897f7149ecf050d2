use super::*;

/// Pattern lists (by comma) and what they say about paths: `+` matches, `-` does not. The answers are those of the Go
/// implementation.
const LISTS: &[(&str, &str)] = &[
    ("*.md", "+a.md -sub/a.md -md +.md +a.md/x"),
    ("**/*.md", "+a.md +sub/a.md +a/b/c.md -a.mdx"),
    ("node_modules", "+node_modules +node_modules/x/y -sub/node_modules -node_modules2"),
    ("**/node_modules", "+node_modules +node_modules/x +sub/node_modules +a/b/node_modules/c -xnode_modules"),
    ("dir/**", "-dir +dir/x +dir/x/y -dirx"),
    ("dir/*", "-dir +dir/x +dir/x/y -dirx"),
    ("**/dir/**", "-dir +dir/x -a/dir +a/dir/b -a/dirx/b"),
    ("a/**/b", "+a/b +a/x/b +a/x/y/b -ab -a/xb +a/b/c"),
    ("a**b", "+ab -axb +a/b -ax/yb +a/x/b"),
    ("a/**b", "+a/b -a/xb +a/x/b -a/x/yb"),
    ("**", "+a +a/b/c"),
    ("**/**", "+a +a/b/c"),
    ("**,!a", "-a -a/b +b"),
    ("*,!keep,!dir/keep", "-keep +x +dir -dir/keep +dir/other -keep/below"),
    ("dir,!dir/keep,dir/keep/not", "+dir -dir/keep +dir/keep/not -dir/keep/yes +dir/x"),
    ("!a,a", "+a +a/b -b"),
    ("a,!a/b,a/b/c", "-a/b +a/b/c -a/b/d"),
    ("docs,!docs/README.md", "-docs/README.md +docs/x +docs"),
    ("file.t?t", "+file.txt -file.t/t -file.text"),
    ("[a-c].txt", "+a.txt -d.txt +b.txt/x"),
    ("[^a-c].txt", "-a.txt +d.txt +/.txt"),
    ("a\\*b", "+a*b -axb"),
    ("a\\\\b", "+a\\b -a\\\\b"),
    ("f(o+o).{x}$|y", "+f(o+o).{x}$|y -foo"),
    ("a.b", "+a.b -axb"),
    (" spaced ", "+spaced -x"),
    ("./a/../b/", "+b -a +b/c"),
    ("/rooted", "-rooted +/rooted -x"),
    ("!", "illegal exclusion pattern: \"!\""),
    ("[", "syntax error in pattern"),
    ("a[", "syntax error in pattern"),
    ("\\", "syntax error in pattern"),
    ("[a-]", "syntax error in pattern"),
    ("a/[b", "syntax error in pattern"),
    (",  ,", "-a"),
    ("[*]", "-* +[] +/] -x]"),
    ("**.go", "+a.go +a/b.go +.go -go"),
    ("**a/b", "+a/b +xa/b +x/a/b"),
    ("a/?/c", "+a/b/c -a//c -a/bb/c"),
    ("é*", "+é +éa -e -x/é"),
    ("\\d\\d", "+12 -dd -123"),
    ("x\\bx", "-xx"),
    ("^a", "-a +^a"),
    ("a^b", "+a^b"),
    ("a**", "+a +ab +a/b -b"),
    ("**/a*", "+a +ab +x/ab +x/y/ac/d -b"),
    (".*", "+.git +.git/x -a -a/.b"),
    ("../a", "-a +../a"),
    ("a\\", "syntax error in pattern"),
    ("*\\", "syntax error in pattern"),
];

fn answer(patterns: &str, paths: &str) -> Result<String, PatternError> {
    let matcher = Matcher::new(patterns.split(','))?;
    let mut out = Vec::new();
    for path in paths.split(' ') {
        let path = &path[1..];
        let whole = matcher.matches(path)?;
        // A walk comes to the same answer.
        let mut info = None;
        let mut stepwise = false;
        for at in path.match_indices('/').map(|(at, _)| at).filter(|&at| at > 0).chain([path.len()]) {
            let (matched, below) = matcher.matches_below(&path[..at], info.as_ref())?;
            (stepwise, info) = (matched, Some(below));
        }
        assert_eq!(whole, stepwise, "{patterns} {path}");
        out.push(format!("{}{path}", if whole { '+' } else { '-' }));
    }
    Ok(out.join(" "))
}

#[test]
fn lists_decide_as_dockers() {
    for &(patterns, want) in LISTS {
        match answer(patterns, want) {
            Ok(got) => assert_eq!(got, want, "{patterns}"),
            Err(e) => assert_eq!(e.to_string(), want, "{patterns}"),
        }
    }
}

#[test]
fn go_match_is_gos() {
    for (pattern, name, want) in [
        ("", "", Ok(true)),
        ("", "x", Ok(false)),
        ("src", "src", Ok(true)),
        ("s*", "src/lib", Ok(false)),
        ("*.rs", "lib.rs", Ok(true)),
        ("*.rs", "src/lib.rs", Ok(false)),
        ("src/*.rs", "src/lib.rs", Ok(true)),
        ("*-*-*.tar", "a-b-c.tar", Ok(true)),
        ("*-*-*.tar", "a-b.tar", Ok(false)),
        ("x*y*z", "xyyyz", Ok(true)),
        ("x*y*z", "xzy", Ok(false)),
        ("v[0-9]", "v7", Ok(true)),
        ("v[0-9]", "vx", Ok(false)),
        ("v[^0-9]", "vx", Ok(true)),
        ("v[^0-9]", "v/", Ok(true)),
        ("v[0-9][0-9]", "v12", Ok(true)),
        ("v\\[1\\]", "v[1]", Ok(true)),
        ("v\\?", "v?", Ok(true)),
        ("v\\?", "vx", Ok(false)),
        ("gr?n", "grün", Ok(true)),
        ("gr??n", "grün", Ok(false)),
        ("gr[ä-ü]n", "grün", Ok(true)),
        ("a[/]b", "a/b", Ok(true)),
        ("a?b", "a/b", Ok(false)),
        ("d[z-a]", "dm", Ok(false)),
        ("d[\\]]", "d]", Ok(true)),
        ("d[!x]", "d!", Ok(true)),
        ("d[", "x", Err(PatternError::Syntax)),
        ("d[]x]", "d]", Err(PatternError::Syntax)),
        ("d[x-]", "d-", Err(PatternError::Syntax)),
        ("d[^]", "d]", Err(PatternError::Syntax)),
        ("d\\", "d", Err(PatternError::Syntax)),
        ("*[", "x", Err(PatternError::Syntax)),
        ("x[q", "y", Err(PatternError::Syntax)),
        ("xy[", "xz", Err(PatternError::Syntax)),
        ("*", "", Ok(true)),
        ("**", "ab", Ok(true)),
        ("**/x", "a/x", Ok(true)),
    ] {
        assert_eq!(go_match(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
    }
}

#[test]
fn names_that_are_no_text() {
    let name = Path::new(OsStr::from_bytes(b"a/\xff\xfe.md"));
    for (pattern, want) in [
        ("a/??.md", true),
        ("a/?.md", false),
        ("a/*.md", true),
        ("**/*.md", true),
        ("a/[^x]*", true),
        ("b", false),
    ] {
        assert_eq!(Matcher::new([pattern]).unwrap().matches(name).unwrap(), want, "{pattern}");
    }
    assert_eq!(go_match(b"?x", b"\xffx"), Ok(true));
    assert_eq!(go_match(b"[\xff]", b"\xff"), Err(PatternError::Syntax));
}

#[test]
fn ignore_files() {
    let file =
        b"\xef\xbb\xbf# comment\n #not\n\n  a/../b/  \r\n/abs\n!/not\n! spaced \n!\n/\n./x//y\n**/z\nlast";
    let want = ["#not", "b", "abs", "!not", "!spaced", "!", "/", "x/y", "**/z", "last"];
    assert_eq!(read_ignore_file(file).unwrap(), want);
    assert!(read_ignore_file(b"").unwrap().is_empty());
    let long = [b"ok\n".to_vec(), vec![b'x'; 70_000]].concat();
    assert_eq!(read_ignore_file(&long), Err(PatternError::LineTooLong(2)));
}

#[test]
fn walks_need_not_enter_everything() {
    for (pattern, dir, want) in [
        ("a/b/c", "a", true),
        ("a/b/c", "a/b", true),
        ("a/b/c", "a/b/c", false),
        ("a/b/c", "x", false),
        ("a/b/c", "a/x", false),
        ("a/*/c", "a/x", true),
        ("a/*/c", "x/x", false),
        ("*.md", "a", false),
        ("**/*.md", "a/b/c", true),
        ("a/**/c", "a/b/c/d", true),
        ("a/**/c", "b", false),
        ("a[^x]b", "a", true),
        ("/a/b", "a", false),
    ] {
        assert_eq!(Matcher::new([pattern]).unwrap().may_match_below(dir), want, "{pattern} {dir}");
        let except = Matcher::new(["**".to_string(), format!("!{pattern}")]).unwrap();
        assert_eq!(except.may_except_below(dir), want, "{pattern} {dir}");
        assert!(except.may_match_below(dir));
    }
}

/// Patterns and names that make backtracking matchers take forever.
#[test]
fn matching_takes_linear_time() {
    let pattern = "**/a*".repeat(60) + "b";
    let name = "a".repeat(4000);
    let start = std::time::Instant::now();
    assert_eq!(Matcher::new([&pattern]).unwrap().matches(&name), Ok(false));
    assert_eq!(Matcher::new(["[a-z]*".repeat(60) + "!"]).unwrap().matches(&name), Ok(false));
    assert!(start.elapsed().as_secs() < 60);
}

proptest::proptest! {
    /// What may not match below a directory does not match there.
    #[test]
    fn pruning_loses_nothing(
        patterns in proptest::collection::vec("!?[ab*?/\\[\\]^]{1,6}", 1..4),
        dir in "[ab](/[ab]){0,2}",
        below in "[ab](/[ab]){0,2}",
    ) {
        let Ok(m) = Matcher::new(&patterns) else { return Ok(()) };
        let step = |parts: &str| {
            let mut info = None;
            let mut matched = false;
            for at in parts.match_indices('/').map(|(at, _)| at).chain([parts.len()]) {
                let Ok((hit, next)) = m.matches_below(&parts[..at], info.as_ref()) else { return None };
                (matched, info) = (hit, Some(next));
            }
            Some(matched)
        };
        let (Some(outer), Some(inner)) = (step(&dir), step(&format!("{dir}/{below}"))) else { return Ok(()) };
        if !outer && inner {
            proptest::prop_assert!(m.may_match_below(&dir));
        }
        if outer && !inner {
            proptest::prop_assert!(m.may_except_below(&dir));
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_an_error(pattern in "[*?!/\\[\\]\\\\a-c^.-]{0,12}", name in "[a-c/.*\\[\\]-]{0,12}") {
        if let Ok(m) = Matcher::new([&pattern]) {
            let _ = m.matches(&name);
        }
        let _ = go_match(pattern.as_bytes(), name.as_bytes());
    }
}
