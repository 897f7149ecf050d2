//! Output of steps on a terminal: it keeps its colors, and nothing else that steers one.

/// Ends all colors.
pub(crate) const RESET: &[u8] = b"\x1b[0m";

/// The bytes without control characters and escape sequences, but for tabs, backspaces, carriage returns and colors (SGR,
/// ECMA-48 section 8.3.117). What may be the beginning of a sequence is left out at the end: the beginning of a line
/// gives the beginning of what the line gives.
pub(crate) fn tame(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let length = match (first, after.first()) {
            (0x1b, _) => match sequence(after) {
                Some(length) => 1 + length,
                None => break,
            },
            // U+0080 to U+009F, the control characters beyond ASCII; half a character waits for its rest.
            (0xc2, Some(0x80..=0x9f)) => 2,
            (0xc2, None) => break,
            _ => 1,
        };
        let (piece, after) = rest.split_at(length);
        let is_kept = match piece {
            [0x1b, ..] => is_color(piece),
            [b'\t' | b'\r' | 0x08] => true,
            [b] => *b >= 0x20 && *b != 0x7f,
            _ => false,
        };
        if is_kept {
            out.extend_from_slice(piece);
        }
        rest = after;
    }
    out
}

/// Whether tame text has colors, which go on behind it.
pub(crate) fn has_colors(tame: &[u8]) -> bool {
    tame.contains(&0x1b)
}

fn is_color(sequence: &[u8]) -> bool {
    let parameters = sequence.strip_prefix(b"\x1b[").and_then(|s| s.strip_suffix(b"m"));
    parameters.is_some_and(|p| p.iter().all(|b| b.is_ascii_digit() || matches!(b, b';' | b':')))
}

/// Length of a sequence without its ESC; None when its end has not come (ECMA-48 section 5.4 and 5.6).
fn sequence(after: &[u8]) -> Option<usize> {
    let end = |from: usize, is_end: fn(u8) -> bool| {
        let at = after.get(from..)?.iter().position(|b| is_end(*b))?;
        Some(from + at + 1)
    };
    match after.first()? {
        b'[' => end(1, |b| !(0x20..=0x3f).contains(&b)),
        // Strings end with ESC \, commands of the operating system also with BEL.
        b']' | b'P' | b'X' | b'^' | b'_' => {
            let end = end(1, |b| matches!(b, 0x07 | 0x1b))?;
            if after[end - 1] == 0x07 { Some(end) } else { after.get(end).map(|_| end + 1) }
        }
        0x20..=0x2f => end(1, |b| !(0x20..=0x2f).contains(&b)),
        _ => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_stay_and_everything_else_goes() {
        for (bytes, expected) in [
            (&b"plain \xc3\xa9 text\t\r\x08"[..], &b"plain \xc3\xa9 text\t\r\x08"[..]),
            (b"\x1b[31mred\x1b[0m \x1b[1;38:5:7mx\x1b[m", b"\x1b[31mred\x1b[0m \x1b[1;38:5:7mx\x1b[m"),
            (b"a\x1b[2Jb\x1b[1A\x1b[?25l\x1b[>4mc\x1b[ qd", b"abcd"),
            (b"a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\x1bP1$r\x1b\\d", b"abcd"),
            (b"a\x1bcb\x1b(Bc\x07\x00\x7fd\xc2\x9b2Je", b"abcd2Je"),
        ] {
            assert_eq!(tame(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert!(has_colors(&tame(b"\x1b[31mx")) && !has_colors(&tame(b"\x1b[2Jx")));
    }

    /// A line is printed piece by piece.
    #[test]
    fn a_beginning_gives_a_beginning() {
        let line = b"a\x1b[31mb\x1b]0;t\x07c\xc2\x9bd\xc2\xa9e\x1b[2Kf\x1bP x\x1b\\g\x1b(Bh";
        let whole = tame(line);
        for end in 0..=line.len() {
            assert!(whole.starts_with(&tame(&line[..end])), "{}", line[..end].escape_ascii());
        }
    }
}
