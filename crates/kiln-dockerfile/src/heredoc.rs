//! Heredoc words (`<<EOF`) and bodies.

use crate::shell::{ExpandError, Lex, NoEnv};

/// A heredoc with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The file descriptor written before `<<`, else 0.
    pub fd: u32,
    /// False when any part of the delimiter was quoted.
    pub expand: bool,
    /// Written as `<<-`.
    pub chomp: bool,
    /// Body lines with their line ends, leading tabs still there.
    pub content: String,
}

impl Heredoc {
    /// The body with leading tabs removed when `<<-` asks for it.
    pub fn data(&self) -> String {
        if self.chomp { chomp(&self.content) } else { self.content.clone() }
    }
}

/// A heredoc word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeredocWord {
    /// The delimiter without quotes.
    pub name: String,
    /// The file descriptor written before `<<`, else 0.
    pub fd: u32,
    /// False when any part of the delimiter was quoted.
    pub expand: bool,
    /// Written as `<<-`.
    pub chomp: bool,
}

impl HeredocWord {
    /// Reads digits, `<<`, `-`, blanks and a delimiter; None when the text is anything else.
    ///
    /// # Errors
    /// The delimiter has an unclosed quote or a bad substitution.
    pub fn parse(text: &str) -> Result<Option<Self>, ExpandError> {
        let after_digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &text[..text.len() - after_digits.len()];
        let Some(rest) = after_digits.strip_prefix("<<") else { return Ok(None) };
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let lex = Lex::new('\\').skip_unset(true);
        let words = lex.process_words(rest, &NoEnv)?;
        let raw = lex.raw_quotes(true).process_words(rest, &NoEnv)?;
        let ([name], [raw]) = (words.as_slice(), raw.as_slice()) else { return Ok(None) };
        let quotes = |s: &str| s.chars().filter(|c| matches!(c, '\'' | '"')).count();
        let expand = quotes(name) == quotes(raw);
        Ok(Some(Self { name: name.clone(), fd: digits.parse().unwrap_or(0), expand, chomp }))
    }

    pub(crate) fn with_content(self, content: String) -> Heredoc {
        Heredoc { name: self.name, fd: self.fd, expand: self.expand, chomp: self.chomp, content }
    }
}

/// The heredoc words of a joined instruction line, in order.
pub(crate) fn words_of_line(line: &str) -> Result<Vec<HeredocWord>, ExpandError> {
    let lex = Lex::new('\\').raw_quotes(true).raw_escapes(true).skip_unset(true);
    // A line with an unclosed quote is the shell's business and has no heredocs of ours.
    let words = lex.process_words(line, &NoEnv).unwrap_or_default();
    words.iter().filter_map(|w| HeredocWord::parse(w).transpose()).collect()
}

/// Whether the text is one heredoc word and nothing else.
pub(crate) fn is_single_word(text: &str) -> bool {
    matches!(HeredocWord::parse(text), Ok(Some(_)))
}

fn chomp(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
