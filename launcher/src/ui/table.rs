//! Plain tables: columns as wide as their content, the least needed ones left out where a terminal is narrow.

use anstyle::Style;

/// Space between columns.
const GAP: usize = 2;

/// A table with a header.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<(Vec<String>, Style)>,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    title: String,
    right: bool,
    /// Columns with a higher rank are left out first; 0 never is.
    rank: u8,
}

impl Column {
    /// A column of words.
    pub fn left(title: impl Into<String>) -> Self {
        Self { title: title.into(), right: false, rank: 0 }
    }

    /// A column of figures.
    pub fn right(title: impl Into<String>) -> Self {
        Self { title: title.into(), right: true, rank: 0 }
    }

    /// Says how early it is left out.
    #[must_use]
    pub const fn rank(mut self, rank: u8) -> Self {
        self.rank = rank;
        self
    }
}

/// A table as text, and the titles of the columns that did not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The lines, without a newline at the end.
    pub text: String,
    /// Titles of columns that were left out.
    pub left_out: Vec<String>,
}

impl Table {
    /// A table without rows.
    pub const fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, one cell a column.
    pub fn row(&mut self, cells: Vec<String>, style: Style) {
        self.rows.push((cells, style));
    }

    /// Draws it within a width, if one is given.
    pub fn draw(&self, width: Option<usize>) -> Drawn {
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| self.width_of(column)).collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let total = |shown: &[usize]| -> usize {
            shown.iter().map(|column| widths[*column] + GAP).sum::<usize>().saturating_sub(GAP)
        };
        let mut left_out = Vec::new();
        while width.is_some_and(|width| total(&shown) > width) {
            let droppable = shown.iter().copied().filter(|column| self.columns[*column].rank > 0);
            let Some(column) = droppable.max_by_key(|column| self.columns[*column].rank) else {
                break;
            };
            left_out.push(column);
            shown.retain(|other| *other != column);
        }
        left_out.sort_unstable();
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.clone()).collect();
        let mut lines = vec![self.line(&titles, &shown, &widths, Style::new().bold())];
        lines.extend(self.rows.iter().map(|(cells, style)| self.line(cells, &shown, &widths, *style)));
        Drawn {
            text: lines.join("\n"),
            left_out: left_out.into_iter().map(|column| self.columns[column].title.clone()).collect(),
        }
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|(cells, _)| cells.get(column));
        cells.chain([&self.columns[column].title]).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    fn line(&self, cells: &[String], shown: &[usize], widths: &[usize], style: Style) -> String {
        let mut line = String::new();
        for (place, column) in shown.iter().enumerate() {
            let cell = cells.get(*column).map_or("", String::as_str);
            let padding = " ".repeat(widths[*column].saturating_sub(cell.chars().count()));
            if place > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            match self.columns[*column].right {
                true => line.extend([padding.as_str(), cell]),
                false => line.extend([cell, padding.as_str()]),
            }
        }
        let line = line.trim_end();
        match style.is_plain() {
            true => line.to_owned(),
            false => format!("{style}{line}{style:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = vec![Column::left("name"), Column::right("size").rank(1), Column::left("path").rank(2)];
        let mut table = Table::new(columns);
        table.row(vec!["a".into(), "1.00M".into(), "runs/a".into()], Style::new());
        table.row(vec!["Δlong".into(), "12".into(), "x".into()], Style::new());
        table
    }

    fn plain(drawn: &Drawn) -> String {
        anstream::adapter::strip_str(&drawn.text).to_string()
    }

    #[test]
    fn columns_are_as_wide_as_their_content() {
        insta::assert_snapshot!(plain(&table().draw(None)), @r"
        name    size  path
        a      1.00M  runs/a
        Δlong     12  x
        ");
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_needed_columns_and_says_which() {
        let drawn = table().draw(Some(14));
        assert_eq!(drawn.left_out, ["path"]);
        assert_eq!(table().draw(Some(3)).left_out, ["size", "path"], "the first column is never left out");
    }
}
