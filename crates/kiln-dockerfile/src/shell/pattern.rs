//! The `*`/`?` patterns of `${name#p}`, `${name%p}` and `${name/p/r}`.
//!
//! No brackets; a wildcard does not match a newline.

/// Work that one match may cost (pattern length times value length): files come from anybody.
const MAX_COST: usize = 1 << 28;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Char(char),
}

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Token>);

/// Which of several matches is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Shortest,
    Longest,
}

/// The pattern and the value are too long together.
#[derive(Debug)]
pub(super) struct TooCostly;

impl Pattern {
    /// Backslash escapes `*`, `?` and `\`; before `}` and `/` it is dropped.
    ///
    /// # Errors
    /// The character after any other backslash (U+FFFD at the end of the text).
    pub(super) fn parse(text: &str) -> Result<Self, char> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(c),
                    other => return Err(other.unwrap_or('\u{fffd}')),
                },
                c => Token::Char(c),
            });
        }
        Ok(Self(tokens))
    }

    /// The value without the prefix that matches.
    pub(super) fn trim_prefix(&self, value: &str, length: Length) -> Result<String, TooCostly> {
        let chars: Vec<char> = value.chars().collect();
        let ends = ends(&self.0, &chars, length)?;
        Ok(chars[ends[0].unwrap_or(0)..].iter().collect())
    }

    /// The value without the suffix that matches.
    pub(super) fn trim_suffix(&self, value: &str, length: Length) -> Result<String, TooCostly> {
        let chars: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let ends = ends(&tokens, &chars, length)?;
        Ok(chars[ends[0].unwrap_or(0)..].iter().rev().collect())
    }

    /// The value with the first match, or every match, replaced. Leftmost, longest. An empty match directly
    /// after a match does not count.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> Result<String, TooCostly> {
        let chars: Vec<char> = value.chars().collect();
        let ends = ends(&self.0, &chars, Length::Longest)?;
        let mut out = String::with_capacity(value.len());
        let (mut copied, mut at) = (0, 0);
        while let Some((start, end)) = (at..=chars.len()).find_map(|i| ends[i].map(|end| (i, end))) {
            out.extend(&chars[copied..start]);
            if end > copied || start == 0 {
                out.push_str(replacement);
            }
            copied = end;
            at = end.max(at + 1);
            if !all {
                break;
            }
        }
        out.extend(&chars[copied..]);
        Ok(out)
    }
}

/// For every start, where the match that begins there ends. One pass per token from the back.
fn ends(tokens: &[Token], chars: &[char], length: Length) -> Result<Vec<Option<usize>>, TooCostly> {
    if (tokens.len() + 1).saturating_mul(chars.len() + 1) > MAX_COST {
        return Err(TooCostly);
    }
    let mut next: Vec<Option<usize>> = (0..=chars.len()).map(Some).collect();
    for token in tokens.iter().rev() {
        let mut here = vec![None; chars.len() + 1];
        for i in (0..=chars.len()).rev() {
            let current = chars.get(i).copied();
            let after = next.get(i + 1).copied().flatten();
            here[i] = match token {
                Token::Char(c) => after.filter(|_| current == Some(*c)),
                Token::Any => after.filter(|_| current.is_some_and(|c| c != '\n')),
                Token::Star => {
                    let longer = here.get(i + 1).copied().flatten().filter(|_| current != Some('\n'));
                    match length {
                        Length::Longest => next[i].max(longer),
                        Length::Shortest => next[i].or(longer).map(|n| longer.map_or(n, |l| n.min(l))),
                    }
                }
            };
        }
        next = here;
    }
    Ok(next)
}
