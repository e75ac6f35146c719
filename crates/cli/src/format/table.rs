//! Columns that line up, as Go's `text/tabwriter` makes them with Docker's settings: a cell is at least ten wide, three
//! spaces keep it from the next, and the last cell of a line is left as it is.

/// Docker's smallest column.
pub(crate) const MIN_WIDTH: usize = 10;
/// Docker's space between columns.
pub(crate) const PADDING: usize = 3;

/// Replaces tabs by spaces so that columns line up. A column is a run of adjacent lines that have such a cell.
pub(crate) fn align(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    for column in 0..columns {
        // The last cell of a line is not terminated by a tab, and so does not belong to a column.
        let has = |line: usize| column + 1 < lines[line].len();
        let mut line = 0;
        while line < lines.len() {
            if !has(line) {
                line += 1;
                continue;
            }
            let end = (line..lines.len()).find(|l| !has(*l)).unwrap_or(lines.len());
            let widest = (line..end).map(|l| lines[l][column].chars().count() + padding).max().unwrap_or_default();
            (line..end).for_each(|l| widths[l][column] = widest.max(min_width));
            line = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (l, cells) in lines.iter().enumerate() {
        if l > 0 {
            out.push('\n');
        }
        for (c, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if c + 1 < cells.len() {
                out.extend(std::iter::repeat_n(' ', widths[l][c].saturating_sub(cell.chars().count())));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_or_as_wide_as_they_need() {
        let got = align("ID\tNAME\tMODE\nabc\ta-long-service-name\treplicated\n", MIN_WIDTH, PADDING);
        assert_eq!(got, "ID        NAME                  MODE\nabc       a-long-service-name   replicated\n");
    }

    #[test]
    fn a_line_without_the_column_ends_it() {
        let got = align("a\tb\n\nlonger-than-ten\tb", MIN_WIDTH, PADDING);
        assert_eq!(got, "a         b\n\nlonger-than-ten   b");
    }

    #[test]
    fn width_counts_characters_not_bytes() {
        assert_eq!(align("é\tx", 0, 1), "é x");
    }
}
