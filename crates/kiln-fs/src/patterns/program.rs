//! A compiled pattern: a set of states that runs over a path once.

/// What one character is compared with.
#[derive(Debug, Clone)]
pub(super) enum Set {
    Char(char),
    /// `.`: all but a line feed.
    Dot,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Set {
    fn has(&self, c: char) -> bool {
        match self {
            Set::Char(want) => *want == c,
            Set::Dot => c != '\n',
            Set::Class { negated, ranges } => ranges.iter().any(|&(lo, hi)| lo <= c && c <= hi) != *negated,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    One(Set),
    Many(Set),
    /// Start of `(.*/)?`: go on behind the group, or into it.
    Dirs,
    /// Inside the group: takes anything; behind a slash the group may end.
    InDirs,
    /// `^`: only before the first character.
    Begin,
    /// `\b`, or `\B` if negated: only between a word character (ASCII) and something else.
    Boundary {
        negated: bool,
    },
}

/// What surrounds a position, for the nodes that read nothing.
#[derive(Clone, Copy)]
struct Place {
    begin: bool,
    boundary: bool,
}

impl Place {
    fn between(before: Option<char>, after: Option<char>) -> Place {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        Place { begin: before.is_none(), boundary: word(before) != word(after) }
    }
}

/// A compiled pattern: literal ends, which refuse most paths at once, and what is between.
#[derive(Debug, Clone)]
pub(super) struct Program {
    prefix: String,
    suffix: String,
    nodes: Vec<Node>,
}

impl Program {
    pub(super) fn new(mut nodes: Vec<Node>) -> Program {
        let (mut prefix, mut suffix) = (String::new(), Vec::new());
        // What looks at its surroundings needs to see them.
        if !nodes.iter().any(|n| matches!(n, Node::Begin | Node::Boundary { .. })) {
            let literal = |n: &Node| match n {
                Node::One(Set::Char(c)) => Some(*c),
                _ => None,
            };
            prefix = nodes.iter().map_while(literal).collect();
            nodes.drain(..prefix.chars().count());
            suffix = nodes.iter().rev().map_while(literal).collect();
            nodes.truncate(nodes.len() - suffix.len());
        }
        Program { prefix, suffix: suffix.into_iter().rev().collect(), nodes }
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(self.prefix.as_bytes()) else { return false };
        let Some(middle) = rest.strip_suffix(self.suffix.as_bytes()) else { return false };
        let words = self.nodes.len() / 64 + 1;
        let mut now = vec![0u64; words];
        let mut next = vec![0u64; words];
        // As in Go, every byte that is not UTF-8 counts as U+FFFD.
        let mut chars = middle
            .utf8_chunks()
            .flat_map(|c| c.valid().chars().chain(c.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER)))
            .peekable();
        self.enter(&mut now, 0, Place::between(None, chars.peek().copied()));
        while let Some(c) = chars.next() {
            next.fill(0);
            self.step(&now, &mut next, c, Place::between(Some(c), chars.peek().copied()));
            std::mem::swap(&mut now, &mut next);
            if now.iter().all(|&w| w == 0) {
                return false;
            }
        }
        let end = self.nodes.len();
        now[end / 64] & (1 << (end % 64)) != 0
    }

    fn step(&self, now: &[u64], next: &mut [u64], c: char, place: Place) {
        for (w, &word) in now.iter().enumerate() {
            let mut left = word;
            while left != 0 {
                let at = w * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                match self.nodes.get(at) {
                    Some(Node::One(set)) if set.has(c) => self.enter(next, at + 1, place),
                    Some(Node::Many(set)) if set.has(c) => self.enter(next, at, place),
                    Some(Node::InDirs) if c != '\n' => {
                        self.enter(next, at, place);
                        if c == '/' {
                            self.enter(next, at + 1, place);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Marks a state and all that is reached from it without reading.
    fn enter(&self, set: &mut [u64], mut at: usize, place: Place) {
        loop {
            let bit = 1u64 << (at % 64);
            if set[at / 64] & bit != 0 {
                return;
            }
            set[at / 64] |= bit;
            match self.nodes.get(at) {
                Some(Node::Many(_)) => at += 1,
                Some(Node::Begin) if place.begin => at += 1,
                Some(Node::Boundary { negated }) if place.boundary != *negated => at += 1,
                Some(Node::Dirs) => {
                    self.enter(set, at + 1, place);
                    at += 2;
                }
                _ => return,
            }
        }
    }
}
