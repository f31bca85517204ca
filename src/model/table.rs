//! Tables that stay readable: as wide as what is in them, and no wider than the terminal. Pure.

use super::look::{Look, Tone, columns};

/// Between two columns.
const GAP: &str = "   ";
/// Before each row, and before what had to go below it.
const INDENT: usize = 2;
const BELOW: usize = 4;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Above the column.
    pub head: &'static str,
    /// Numbers stand at the right.
    pub right: bool,
    /// Columns with a higher number go below the row first where there is no room. 0: it never does.
    pub yields: u8,
}

impl Column {
    pub const fn text(head: &'static str, yields: u8) -> Self {
        Self { head, right: false, yields }
    }

    pub const fn number(head: &'static str, yields: u8) -> Self {
        Self { head, right: true, yields }
    }
}

#[derive(Debug)]
struct Row {
    cells: Vec<String>,
    /// The colour of a cell.
    tone: Option<(usize, Tone)>,
    remark: String,
}

/// Rows of cells, each perhaps with a remark at its end.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
    with_head: bool,
}

impl Table {
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), with_head: true }
    }

    /// Where the columns explain themselves.
    #[must_use]
    pub fn without_head(mut self) -> Self {
        self.with_head = false;
        self
    }

    /// `tone`: the colour of one of the cells. A remark may be empty.
    pub fn row(&mut self, cells: Vec<String>, tone: Option<(usize, Tone)>, remark: impl Into<String>) {
        self.rows.push(Row { cells, tone, remark: remark.into() });
    }

    /// Each row as a text that ends its line.
    pub fn lines(&self, look: Look) -> Vec<String> {
        let beside = self.beside(look);
        self.rows.iter().map(|row| self.line(row, &beside, look)).collect()
    }

    /// The whole table. Every line begins with two blanks.
    pub fn text(&self, look: Look) -> String {
        let head = self.columns.iter().map(|column| column.head.to_owned()).collect();
        let head = Row { cells: head, tone: None, remark: String::new() };
        let mut text = String::new();
        if self.with_head {
            let beside = self.beside(look);
            text.push_str(&self.aligned(&head, &beside, look));
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text.extend(self.lines(look));
        let beside = self.beside(look);
        let same = (0..self.columns.len()).filter(|column| self.is_same(*column, &beside));
        let same: Vec<_> =
            same.map(|column| format!("{} {}", self.columns[column].head, self.rows[0].cells[column])).collect();
        if !same.is_empty() {
            text.push_str(&look.folded(&format!("  all: {}", same.join("; ")), BELOW));
        }
        text
    }

    /// Whether a column has no room, and says the same of all rows: it is told once.
    fn is_same(&self, column: usize, beside: &[(usize, usize)]) -> bool {
        let cell = |row: &Row| row.cells[column].clone();
        let is_beside = beside.iter().any(|(shown, _)| *shown == column);
        let first = self.rows.first().map(cell).unwrap_or_default();
        self.with_head
            && !is_beside
            && self.rows.len() > 1
            && !["", "–"].contains(&first.as_str())
            && self.rows.iter().all(|row| cell(row) == first)
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| columns(&row.cells[column])).max().unwrap_or_default();
        if self.with_head { cells.max(columns(self.columns[column].head)) } else { cells }
    }

    /// The columns that stand beside each other, with their widths.
    fn beside(&self, look: Look) -> Vec<(usize, usize)> {
        let mut beside: Vec<_> = (0..self.columns.len()).map(|column| (column, self.width(column))).collect();
        loop {
            let gaps = GAP.len() * beside.len().saturating_sub(1);
            let wide = INDENT + gaps + beside.iter().map(|(_, width)| width).sum::<usize>();
            let most = beside.iter().map(|(column, _)| self.columns[*column].yields).max().unwrap_or_default();
            if look.fits(wide) || most == 0 {
                return beside;
            }
            beside.retain(|(column, _)| self.columns[*column].yields != most);
        }
    }

    fn aligned(&self, row: &Row, beside: &[(usize, usize)], look: Look) -> String {
        let cells = beside.iter().map(|(column, width)| {
            let cell = &row.cells[*column];
            let padding = " ".repeat(width.saturating_sub(columns(cell)));
            let cell = match row.tone {
                Some((of, tone)) if of == *column => look.paint(tone, cell),
                _ => cell.clone(),
            };
            if self.columns[*column].right { format!("{padding}{cell}") } else { format!("{cell}{padding}") }
        });
        format!("{:INDENT$}{}", "", cells.collect::<Vec<_>>().join(GAP))
    }

    fn line(&self, row: &Row, beside: &[(usize, usize)], look: Look) -> String {
        let aligned = self.aligned(row, beside, look);
        let below = (0..self.columns.len())
            .filter(|column| beside.iter().all(|(shown, _)| shown != column) && !self.is_same(*column, beside));
        let below: Vec<_> = below
            .filter(|column| !["", "–"].contains(&row.cells[*column].as_str()))
            .map(|column| format!("{} {}", self.columns[column].head, row.cells[column]).trim_start().to_owned())
            .collect();
        if below.is_empty() {
            return look.remarked(&aligned, &row.remark, BELOW);
        }
        let below = look.folded(&format!("{:BELOW$}{}", "", below.join("; ")), BELOW);
        let remark = match row.remark.as_str() {
            "" => String::new(),
            remark => look.folded(&format!("{:BELOW$}{remark}", ""), BELOW),
        };
        format!("{}\n{below}{remark}", aligned.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[Column::text("host", 0), Column::text("state", 0), Column::number("files", 1)]);
        let cells = |host: &str, state: &str, files: &str| [host, state, files].map(str::to_owned).to_vec();
        table.row(cells("n1.example.net", "complete", "31,870"), Some((1, Tone::Good)), "");
        table.row(cells("n10.example.net", "failed", "–"), Some((1, Tone::Bad)), "nodetool: no space left on device");
        table
    }

    #[test]
    fn a_table_is_as_wide_as_what_is_in_it() {
        let expected = "  host              state       files
  n1.example.net    complete   31,870
  n10.example.net   failed          –   nodetool: no space left on device
";
        assert_eq!(table().text(Look::default()), expected);
        assert_eq!(table().text(Look::wide(Some(160))), expected);
        assert!(table().without_head().text(Look::default()).starts_with("  n1.example.net    complete   31,870\n"));
    }

    #[test]
    fn a_remark_goes_below_first_and_then_columns() {
        let expected = "  host              state       files
  n1.example.net    complete   31,870
  n10.example.net   failed          –
    nodetool: no space left on device
";
        assert_eq!(table().text(Look::wide(Some(60))), expected);
        let mut long = table();
        long.row(["ip-10-20-30-40.internal", "complete", "1"].map(str::to_owned).to_vec(), None, "");
        let text = long.text(Look::wide(Some(40)));
        assert!(text.starts_with("  host                      state\n"), "{text}");
        assert!(text.contains("  n1.example.net            complete\n    files 31,870\n"), "{text}");
        assert!(text.lines().all(|line| columns(line) <= 40), "{text}");
    }

    #[test]
    fn what_has_no_room_and_is_the_same_everywhere_is_told_once() {
        let mut table = Table::new(&[Column::text("target", 0), Column::text("why", 1), Column::text("space", 0)]);
        for host in ["node1.example.net", "node2.example.net"] {
            table.row([host, "same host, same tokens", "ok"].map(str::to_owned).to_vec(), None, "");
        }
        let expected = "  target              space
  node1.example.net   ok
  node2.example.net   ok
  all: why same host, same tokens
";
        assert_eq!(table.text(Look::wide(Some(40))), expected);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = table().text(Look { width: None, colours: true });
        assert!(coloured.contains("\u{fdd0}complete\u{fdd3}"), "{coloured}");
        let plain: String = coloured.chars().filter(|c| !('\u{fdd0}'..='\u{fdd3}').contains(c)).collect();
        assert_eq!(plain, table().text(Look::default()));
    }
}
