//! Columns, aligned as Go's text/tabwriter does: a column is a run of lines that have a cell in it, and a cell is what
//! a tab ends.

/// What a cell is filled up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Tabs, to the next multiple of eight.
    Tabs,
    /// One blank behind the widest cell.
    Blanks,
}

const TAB: usize = 8;

/// Aligns lines whose cells end with tabs.
pub(crate) fn align(text: &str, fill: Fill) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    block(&lines, &mut Vec::new(), fill, &mut out);
    out
}

/// Writes lines whose first columns have known widths.
fn block(lines: &[Vec<&str>], widths: &mut Vec<usize>, fill: Fill, out: &mut String) {
    let column = widths.len();
    // The text behind the last tab belongs to no column.
    let has_cell = |line: &Vec<&str>| column + 1 < line.len();
    let mut rest = lines;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|l| has_cell(l) == has_cell(first)).count();
        let (part, after) = rest.split_at(count);
        if has_cell(first) {
            let width = part.iter().map(|l| l[column].chars().count() + 1).max().unwrap_or(0);
            widths.push(width);
            block(part, widths, fill, out);
            widths.pop();
        } else {
            part.iter().for_each(|line| write(line, widths, fill, out));
        }
        rest = after;
    }
}

fn write(line: &[&str], widths: &[usize], fill: Fill, out: &mut String) {
    for (at, cell) in line.iter().enumerate() {
        out.push_str(cell);
        let Some(width) = widths.get(at).filter(|_| at + 1 < line.len()) else { continue };
        let used = cell.chars().count();
        match fill {
            Fill::Tabs => {
                let missing = width.next_multiple_of(TAB) - used;
                out.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB)));
            }
            Fill::Blanks => out.extend(std::iter::repeat_n(' ', width - used)),
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_as_wide_as_their_column() {
        assert_eq!(align("ID\tPLATFORMS\nabcdefgh\tx\n", Fill::Tabs), "ID\t\tPLATFORMS\nabcdefgh\tx\n");
        assert_eq!(align("Reclaimable:\t0B\nTotal:\t0B\n", Fill::Tabs), "Reclaimable:\t0B\nTotal:\t\t0B\n");
        assert_eq!(align("A:\tx\nLonger:\ty\n", Fill::Blanks), "A:      x\nLonger: y\n");
    }

    #[test]
    fn a_line_without_a_cell_ends_a_column() {
        let text = "ID:\tx\nLabels:\n\ta.long.name:\ty\n\tb:\tz\n";
        assert_eq!(align(text, Fill::Tabs), "ID:\tx\nLabels:\n\ta.long.name:\ty\n\tb:\t\tz\n");
        assert_eq!(align("no cells\n", Fill::Tabs), "no cells\n");
        assert_eq!(align("", Fill::Tabs), "");
    }
}
