//! From a pattern to a program.
//!
//! Docker's matcher turns a pattern into a regular expression and lets Go's engine interpret it, so odd patterns mean
//! what that expression means (`[*]` is not a star, `\d` is a digit). The same expression is built here and read by a
//! small parser for just the part of the language that can come out.

use super::Rule;
use super::program::{Node, Program, Set};

/// Reads a cleaned pattern.
pub(super) fn compile(pattern: &str) -> Rule {
    let (expression, kind) = translate(pattern);
    match kind {
        Kind::Exact => Rule::Exact,
        Kind::Prefix => Rule::Prefix(pattern.len() - 2),
        Kind::Suffix => Rule::Suffix,
        Kind::Expression => {
            Parser { rest: &expression }.nodes().map_or(Rule::Bad, |n| Rule::Program(Program::new(n)))
        }
    }
}

enum Kind {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

fn translate(pattern: &str) -> (String, Kind) {
    let mut out = String::new();
    let mut kind = Kind::Exact;
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                let _ = chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    out.push_str("(.*/)?");
                    kind = Kind::Expression;
                } else if matches!(kind, Kind::Exact) {
                    kind = Kind::Prefix;
                } else {
                    out.push_str(".*");
                    kind = Kind::Expression;
                }
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                out.push_str("[^/]*");
                kind = Kind::Expression;
            }
            '?' => {
                out.push_str("[^/]");
                kind = Kind::Expression;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => out.extend(['\\', c]),
            '\\' => {
                out.push('\\');
                if let Some(next) = chars.next() {
                    out.push(next);
                    kind = Kind::Expression;
                }
            }
            '[' | ']' => {
                out.push(c);
                kind = Kind::Expression;
            }
            _ => out.push(c),
        }
        first = false;
    }
    (out, kind)
}

/// Reads the expressions that [`translate`] writes.
struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let hit = self.rest.strip_prefix(text);
        self.rest = hit.unwrap_or(self.rest);
        hit.is_some()
    }

    fn nodes(&mut self) -> Option<Vec<Node>> {
        let mut nodes = Vec::new();
        while !self.rest.is_empty() {
            if self.eat("(.*/)?") {
                nodes.extend([Node::Dirs, Node::InDirs]);
                continue;
            }
            let set = match self.next()? {
                '[' => self.class()?,
                '.' => Set::Dot,
                '^' => {
                    nodes.push(Node::Begin);
                    continue;
                }
                '\\' if self.rest.starts_with(['A', 'b', 'B']) => {
                    nodes.push(match self.next()? {
                        'A' => Node::Begin,
                        c => Node::Boundary { negated: c == 'B' },
                    });
                    continue;
                }
                // In the original `$` comes next and is escaped by it, so it is a dollar and anything may follow.
                '\\' if self.rest.is_empty() => {
                    let all = Set::Class { negated: true, ranges: Vec::new() };
                    nodes.extend([Node::One(Set::Char('$')), Node::Many(all)]);
                    continue;
                }
                '\\' => self.escape()?,
                '*' | '?' => return None,
                c => Set::Char(c),
            };
            nodes.push(if self.eat("*") { Node::Many(set) } else { Node::One(set) });
        }
        Some(nodes)
    }

    /// After a backslash, as RE2 reads it. `\Q`, `\z`, octal numbers and Unicode classes are not understood: the pattern
    /// is then a syntax error.
    fn escape(&mut self) -> Option<Set> {
        let c = self.next()?;
        let class = |negated, ranges: &[(char, char)]| Set::Class { negated, ranges: ranges.to_vec() };
        Some(match c {
            'd' | 'D' => class(c == 'D', &[('0', '9')]),
            's' | 'S' => class(c == 'S', &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
            'w' | 'W' => class(c == 'W', &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
            'a' => Set::Char('\x07'),
            'f' => Set::Char('\x0c'),
            'n' => Set::Char('\n'),
            'r' => Set::Char('\r'),
            't' => Set::Char('\t'),
            'v' => Set::Char('\x0b'),
            'x' => {
                let digits = self.rest.get(..2)?;
                let code = u8::from_str_radix(digits, 16).ok()?;
                self.rest = &self.rest[2..];
                Set::Char(char::from(code))
            }
            c if c.is_alphanumeric() || !c.is_ascii() => return None,
            c => Set::Char(c),
        })
    }

    /// After `[`, as RE2 reads it.
    fn class(&mut self) -> Option<Set> {
        let negated = self.eat("^");
        let mut ranges = Vec::new();
        let mut first = true;
        loop {
            if !first && self.eat("]") {
                return Some(Set::Class { negated, ranges });
            }
            first = false;
            if self.rest.starts_with("[:") && self.rest.contains(":]") {
                ranges.extend(self.named()?);
                continue;
            }
            let lo = match self.class_char()? {
                Set::Char(c) => c,
                Set::Class { negated, ranges: named } => {
                    ranges.extend(if negated { complement(&named) } else { named });
                    continue;
                }
                Set::Dot => return None,
            };
            let mut hi = lo;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.eat("-");
                let Set::Char(c) = self.class_char()? else { return None };
                hi = c;
            }
            if hi < lo {
                return None;
            }
            ranges.push((lo, hi));
        }
    }

    fn class_char(&mut self) -> Option<Set> {
        match self.next()? {
            '\\' => self.escape(),
            c => Some(Set::Char(c)),
        }
    }

    /// `[:alpha:]` and its like inside a class.
    fn named(&mut self) -> Option<Vec<(char, char)>> {
        let end = self.rest.find(":]")?;
        let name = &self.rest[2..end];
        let (negated, name) = name.strip_prefix('^').map_or((false, name), |n| (true, n));
        let ranges: &[(char, char)] = match name {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "ascii" => &[('\0', '\x7f')],
            "blank" => &[('\t', '\t'), (' ', ' ')],
            "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
            "digit" => &[('0', '9')],
            "graph" => &[('!', '~')],
            "lower" => &[('a', 'z')],
            "print" => &[(' ', '~')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "space" => &[('\t', '\r'), (' ', ' ')],
            "upper" => &[('A', 'Z')],
            "word" => &[('0', '9'), ('A', 'Z'), ('a', 'z'), ('_', '_')],
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return None,
        };
        self.rest = &self.rest[end + 2..];
        Some(if negated { complement(ranges) } else { ranges.to_vec() })
    }
}

/// All characters outside sorted, separate ASCII ranges.
fn complement(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut out = Vec::new();
    let mut from = 0u32;
    for (lo, hi) in sorted {
        if let (Some(a), Some(b)) =
            (char::from_u32(from), (lo as u32).checked_sub(1).and_then(char::from_u32))
            && a <= b
        {
            out.push((a, b));
        }
        from = hi as u32 + 1;
    }
    out.extend(char::from_u32(from).map(|a| (a, char::MAX)));
    out
}
