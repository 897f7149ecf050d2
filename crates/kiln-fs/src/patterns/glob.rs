//! Go's `filepath.Match` on Unix.

use super::PatternError;

/// Whether `name` matches the shell pattern as a whole: `*` any run without `/`, `?` one character but `/`, `[a-z]` and
/// `[^a-z]` classes, `\x` the character x. Malformed patterns are an error even when the name already cannot match.
pub fn go_match(pattern: &[u8], name: &[u8]) -> Result<bool, PatternError> {
    let mut pattern = pattern;
    let mut name = name;
    'next: while !pattern.is_empty() {
        let (star, chunk, rest) = split_chunk(pattern);
        pattern = rest;
        if star && chunk.is_empty() {
            return Ok(!name.contains(&b'/'));
        }
        let fits = |tail: &[u8]| tail.is_empty() || !rest.is_empty();
        if let Some(tail) = match_chunk(chunk, name)?
            && fits(tail)
        {
            name = tail;
            continue;
        }
        if star {
            let mut i = 0;
            while i < name.len() && name[i] != b'/' {
                if let Some(tail) = match_chunk(chunk, &name[i + 1..])?
                    && fits(tail)
                {
                    name = tail;
                    continue 'next;
                }
                i += 1;
            }
        }
        return Ok(false);
    }
    Ok(name.is_empty())
}

/// Cuts the pattern into: was there a star, what follows it up to the next star, and the rest.
fn split_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|&&b| b == b'*').count();
    let pattern = &pattern[stars..];
    let mut in_class = false;
    let mut i = 0;
    while i < pattern.len() {
        match pattern[i] {
            b'\\' => i += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        i += 1;
    }
    let at = i.min(pattern.len());
    (stars > 0, &pattern[..at], &pattern[at..])
}

/// Matches a piece without stars at the start of `s`; what is left of `s` when it fits.
fn match_chunk<'s>(mut chunk: &[u8], mut s: &'s [u8]) -> Result<Option<&'s [u8]>, PatternError> {
    let mut failed = false;
    while let Some(&c) = chunk.first() {
        failed |= s.is_empty();
        match c {
            b'[' => {
                let mut r = None;
                if !failed {
                    let (ch, n) = decode(s);
                    r = Some(ch);
                    s = &s[n..];
                }
                let (hit, rest) = match_class(&chunk[1..], r)?;
                chunk = rest;
                failed |= !hit;
            }
            b'?' => {
                if !failed {
                    failed = s[0] == b'/';
                    s = &s[decode(s).1..];
                }
                chunk = &chunk[1..];
            }
            _ => {
                if c == b'\\' {
                    chunk = &chunk[1..];
                }
                let &c = chunk.first().ok_or(PatternError::Syntax)?;
                if !failed {
                    failed = c != s[0];
                    s = &s[1..];
                }
                chunk = &chunk[1..];
            }
        }
    }
    Ok((!failed).then_some(s))
}

/// A class after its `[`: whether it takes `r` (nothing fits `None`), and what follows its `]`.
fn match_class(mut chunk: &[u8], r: Option<char>) -> Result<(bool, &[u8]), PatternError> {
    let negated = chunk.first() == Some(&b'^');
    if negated {
        chunk = &chunk[1..];
    }
    let mut hit = false;
    let mut ranges = 0;
    loop {
        if chunk.first() == Some(&b']') && ranges > 0 {
            return Ok((r.is_some() && hit != negated, &chunk[1..]));
        }
        let (lo, rest) = class_char(chunk)?;
        chunk = rest;
        let mut hi = lo;
        if chunk.first() == Some(&b'-') {
            (hi, chunk) = class_char(&chunk[1..])?;
        }
        hit |= r.is_some_and(|r| lo <= r && r <= hi);
        ranges += 1;
    }
}

/// One character of a class, which never ends the pattern.
fn class_char(chunk: &[u8]) -> Result<(char, &[u8]), PatternError> {
    let mut chunk = chunk;
    match chunk.first() {
        None | Some(b'-' | b']') => return Err(PatternError::Syntax),
        Some(b'\\') => chunk = &chunk[1..],
        Some(_) => {}
    }
    if chunk.is_empty() {
        return Err(PatternError::Syntax);
    }
    let (c, n) = decode(chunk);
    let rest = &chunk[n..];
    if (c == char::REPLACEMENT_CHARACTER && n == 1) || rest.is_empty() {
        return Err(PatternError::Syntax);
    }
    Ok((c, rest))
}

/// The first character and its length; an invalid byte is U+FFFD of length 1, as in Go.
fn decode(s: &[u8]) -> (char, usize) {
    let head = &s[..s.len().min(4)];
    let valid = head.utf8_chunks().next().map_or("", |c| c.valid());
    match valid.chars().next() {
        Some(c) => (c, c.len_utf8()),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}
