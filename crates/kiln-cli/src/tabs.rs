//! Columns from tabs, as Go's `text/tabwriter` lays them out: what Docker's tools print is made with it.

/// How columns are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tabs {
    /// Least width of a column.
    pub min_width: usize,
    /// Width of a tab when cells are filled up with tabs; 0 = they are filled up with blanks.
    pub tab_width: usize,
    /// What a column is wider than its widest cell.
    pub padding: usize,
}

impl Tabs {
    /// Tables of the Docker CLI.
    pub const TABLE: Self = Self { min_width: 10, tab_width: 0, padding: 3 };
    /// Lists of names and values.
    pub const LIST: Self = Self { min_width: 0, tab_width: 0, padding: 1 };
    /// What buildctl prints, and records and sums of the build cache.
    pub const USAGE: Self = Self { min_width: 1, tab_width: 8, padding: 1 };

    /// Lays a text out. A cell ends with a tab; what follows the last tab of a line belongs to no column. A column
    /// reaches over neighbouring lines that have it.
    pub fn format(self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
        let mut out = String::new();
        self.block(&lines, &mut Vec::new(), &mut out);
        // The last line is what follows the last line end.
        out.pop();
        out
    }

    /// Writes lines whose first columns have these widths.
    fn block(self, lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
        let column = widths.len();
        let has_cell = |line: &Vec<&str>| column + 1 < line.len();
        let mut rest = lines;
        while let Some(begin) = rest.iter().position(has_cell) {
            self.write(&rest[..begin], widths, out);
            let end = begin + rest[begin..].iter().take_while(|l| has_cell(l)).count();
            let cells = rest[begin..end].iter().map(|l| l[column].chars().count() + self.padding);
            widths.push(cells.max().unwrap_or(0).max(self.min_width));
            self.block(&rest[begin..end], widths, out);
            widths.pop();
            rest = &rest[end..];
        }
        self.write(rest, widths, out);
    }

    fn write(self, lines: &[Vec<&str>], widths: &[usize], out: &mut String) {
        for line in lines {
            for (i, cell) in line.iter().enumerate() {
                out.push_str(cell);
                let Some(width) = widths.get(i).filter(|_| i + 1 < line.len()) else { continue };
                let used = cell.chars().count();
                match self.tab_width {
                    0 => out.extend(std::iter::repeat_n(' ', width.saturating_sub(used))),
                    tab => {
                        let width = width.next_multiple_of(tab);
                        out.extend(std::iter::repeat_n('\t', width.saturating_sub(used).div_ceil(tab)));
                    }
                }
            }
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tabs;

    #[test]
    fn tables_and_lists() {
        let table = Tabs::TABLE.format("NAME\tSTATUS\tX\na-long-name-of-it\t\tlast\n");
        assert_eq!(table, "NAME                STATUS    X\na-long-name-of-it             last\n");
        let list = Tabs::LIST.format("Name:\tx\nDriver:\ty\n\nNodes:\nEndpoint of it:\tz\n");
        assert_eq!(list, "Name:   x\nDriver: y\n\nNodes:\nEndpoint of it: z\n");
        assert_eq!(Tabs::LIST.format("Labels:\n\ta:\tb\n\tccc:\td\n"), "Labels:\n a:   b\n ccc: d\n");
    }

    #[test]
    fn tabs_fill_up() {
        assert_eq!(Tabs::USAGE.format("Reclaimable:\t1B\nTotal:\t2B\n"), "Reclaimable:\t1B\nTotal:\t\t2B\n");
        assert_eq!(Tabs::USAGE.format("Total:\t2B\n"), "Total:\t2B\n");
        let labels = "ID:\tx\nLabels:\n\ta.long.name:\ty\n\tb:\tz\n";
        assert_eq!(Tabs::USAGE.format(labels), "ID:\tx\nLabels:\n\ta.long.name:\ty\n\tb:\t\tz\n");
        assert_eq!(["no cells\n", ""].map(|t| Tabs::USAGE.format(t)), ["no cells\n", ""]);
    }
}
