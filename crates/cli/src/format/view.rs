//! Lists of objects, shown as `--format`, `--quiet` and `--no-trunc` want them.

use super::table;
use super::template::{Parsed, TemplateError};
use serde_json::{Map, Value as Json};

/// One object of a list: what `{{.Field}}` gives.
pub(crate) type Row = Map<String, Json>;

/// How a list of one kind looks.
pub(crate) struct View {
    /// The template of the default table.
    pub(crate) table: &'static str,
    /// The template of `--quiet`.
    pub(crate) quiet: &'static str,
    /// The header of each field.
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

// === impl View ===

impl View {
    /// Renders rows. `format` is the user's: nothing or `table` (the default table), `table TEMPLATE`, `json`, `TEMPLATE`,
    /// and `raw` where the view has one.
    pub(crate) fn render(&self, rows: &[Row], format: Option<&str>, quiet: bool) -> Result<String, TemplateError> {
        let format = format.unwrap_or_default().trim();
        let is_table = format.is_empty() || format == "table" || format.starts_with("table ");
        match () {
            () if quiet && is_table => self.lines(rows, self.quiet),
            () if format == "json" => {
                Ok(rows.iter().map(|r| super::json::compact(&Json::Object(r.clone())) + "\n").collect())
            }
            () if is_table => {
                let custom = format.strip_prefix("table").unwrap_or_default().trim();
                let template = if custom.is_empty() { self.table } else { custom };
                let headers = self.headers.iter().map(|(k, v)| ((*k).to_owned(), Json::from(*v))).collect();
                let header = Parsed::for_headers(template)?.render(&Json::Object(headers))?;
                let text = format!("{header}\n{}", self.lines(rows, template)?);
                Ok(table::align(&text, table::MIN_WIDTH, table::PADDING))
            }
            () => self.lines(rows, format),
        }
    }

    fn lines(&self, rows: &[Row], template: &str) -> Result<String, TemplateError> {
        let template = Parsed::new(template)?;
        rows.iter().map(|row| Ok(template.render(&Json::Object(row.clone()))? + "\n")).collect()
    }
}

/// Builds a [`Row`].
macro_rules! row {
    ($($key:literal: $value:expr),* $(,)?) => {{
        let mut row = $crate::format::view::Row::new();
        $(row.insert($key.to_owned(), serde_json::Value::from($value));)*
        row
    }};
}
pub(crate) use row;

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View = View {
        table: "{{.ID}}\t{{.Name}}",
        quiet: "{{.ID}}",
        headers: &[("ID", "ID"), ("Name", "NAME"), ("Mode", "MODE")],
    };

    #[test]
    fn every_format_shows_the_same_rows() {
        let rows =
            [row! {"ID": "1", "Name": "web", "Mode": "replicated"}, row! {"ID": "22", "Name": "db", "Mode": "global"}];
        for (format, quiet, want) in [
            (None, false, "ID        NAME\n1         web\n22        db\n"),
            (Some("table"), false, "ID        NAME\n1         web\n22        db\n"),
            (None, true, "1\n22\n"),
            (Some("table {{.Name}}"), true, "1\n22\n"),
            (
                Some("table {{.Name}}\\t{{upper .Mode}}"),
                false,
                "NAME      MODE\nweb       REPLICATED\ndb        GLOBAL\n",
            ),
            (Some("{{.Name}}"), true, "web\ndb\n"),
            (
                Some("json"),
                false,
                "{\"ID\":\"1\",\"Mode\":\"replicated\",\"Name\":\"web\"}\n{\"ID\":\"22\",\"Mode\":\"global\",\"Name\":\"db\"}\n",
            ),
        ] {
            assert_eq!(VIEW.render(&rows, format, quiet).as_deref(), Ok(want), "{format:?} {quiet}");
        }
        assert!(VIEW.render(&rows, Some("{{.Nope}}"), false).is_err());
        assert_eq!(VIEW.render(&[], None, false).as_deref(), Ok("ID        NAME\n"));
        // Docker checks the template even when there is nothing to show.
        assert!(VIEW.render(&[], Some("{{.Na"), false).is_err());
    }
}
