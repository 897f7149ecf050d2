//! A terminal small enough to be trusted: what a person would see.

/// Lines of a terminal that re-wraps its text when it is resized.
pub(crate) struct Screen {
    width: usize,
    height: usize,
    /// Everything written, scrolled-off lines included; a logical line with its characters.
    lines: Vec<Vec<char>>,
    /// Cursor: logical line and column in it.
    line: usize,
    column: usize,
    pub(crate) cursor_hidden: bool,
}

impl Screen {
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Self { width, height, lines: vec![vec![]], line: 0, column: 0, cursor_hidden: false }
    }

    pub(crate) fn resize(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
    }

    fn rows_of(&self, line: usize) -> usize {
        self.lines[line].len().div_ceil(self.width).max(1)
    }

    pub(crate) fn write(&mut self, text: &str) {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\n' => {
                    self.line += 1;
                    self.column = 0;
                    if self.line == self.lines.len() {
                        self.lines.push(vec![]);
                    }
                }
                '\r' => self.column = 0,
                '\x1b' => self.escape(&mut chars),
                c => {
                    let line = &mut self.lines[self.line];
                    line.resize(line.len().max(self.column), ' ');
                    match line.get_mut(self.column) {
                        Some(cell) => *cell = c,
                        None => line.push(c),
                    }
                    self.column += 1;
                }
            }
        }
    }

    fn escape(&mut self, chars: &mut std::str::Chars<'_>) {
        assert_eq!(chars.next(), Some('['));
        let mut params = String::new();
        let last = loop {
            match chars.next().unwrap() {
                c @ '@'..='~' => break c,
                c => params.push(c),
            }
        };
        match (params.as_str(), last) {
            (n, 'A') => self.up(n.parse().unwrap()),
            // Behind the last column the cursor still stands on it (xterm's pending wrap).
            ("", 'K') => {
                let last = self.width.saturating_sub(1);
                self.lines[self.line].truncate(if self.column == self.width { last } else { self.column });
            }
            ("", 'J') => {
                self.lines[self.line].truncate(self.column);
                self.lines.truncate(self.line + 1);
            }
            ("?25l", 'h' | 'l') | ("?25", 'l') => self.cursor_hidden = true,
            ("?25", 'h') => self.cursor_hidden = false,
            (_, 'm') => {}
            other => panic!("unexpected sequence {other:?}"),
        }
    }

    /// Moves up by screen rows; a terminal cannot go above its first row.
    fn up(&mut self, rows: usize) {
        let total: usize = (0..=self.line).map(|l| self.rows_of(l)).sum();
        assert!(rows < self.height, "moved {rows} rows up on a screen of {}", self.height);
        let mut target = total.saturating_sub(rows + 1);
        for line in 0..=self.line {
            if target < self.rows_of(line) {
                assert_eq!(target, 0, "moved into the middle of a wrapped line");
                self.line = line;
                self.column = 0;
                return;
            }
            target -= self.rows_of(line);
        }
    }

    /// All lines ever shown that are still there, without trailing blanks.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<String> =
            self.lines.iter().map(|l| l.iter().collect::<String>().trim_end().to_owned()).collect();
        lines.join("\n").trim_end().to_owned()
    }

    /// Rows that everything takes on a screen of this width, the cursor's included.
    pub(crate) fn rows_at(&self, width: usize) -> usize {
        self.lines.iter().map(|l| l.len().div_ceil(width).max(1)).sum()
    }

    /// Whether any line is wider than the screen.
    pub(crate) fn overflows(&self) -> bool {
        self.lines.iter().any(|l| l.len() > self.width)
    }
}
