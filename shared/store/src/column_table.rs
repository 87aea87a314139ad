//! A table's columns, each said once: its name, its SQL type and what a row of ours puts there.
//!
//! Statements that take whole columns (`unnest`) and their parameters are both made of the same list, so
//! that neither can be out of step with the other.

use tokio_postgres::types::ToSql;

/// A parameter of a statement: here, all of a column's values.
pub type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// One column of rows that `R` holds. What `R` borrows for `'a`, the values may borrow too.
pub struct TableColumn<'a, R> {
    pub name: &'static str,
    /// As `unnest` takes it.
    pub sql_type: &'static str,
    /// The table's own type, where it is another.
    pub cast: Option<&'static str>,
    pub values: fn(&[R]) -> Param<'a>,
}

/// The columns of a row type: `columns!(|row: Row| "id": "uuid" = row.id; "notes": "text" as "json" = …;)`.
macro_rules! columns {
    (|$row:ident: $type:ty| $($name:literal: $sql_type:literal $(as $cast:literal)? = $value:expr;)+) => {
        vec![$($crate::column_table::TableColumn::<'_, $type> {
            name: $name,
            sql_type: $sql_type,
            cast: $crate::column_table::columns!(@cast $($cast)?),
            values: |rows: &[$type]| Box::new(rows.iter().map(|$row| $value).collect::<Vec<_>>()),
        }),+]
    };
    (@cast) => { None };
    (@cast $cast:literal) => { Some($cast) };
}
pub(crate) use columns;

/// The values of all columns, as parameters in the columns' order.
pub fn column_params<'a, R>(columns: &[TableColumn<'a, R>], rows: &[R]) -> Vec<Param<'a>> {
    columns.iter().map(|column| (column.values)(rows)).collect()
}

/// As tokio-postgres takes them.
pub fn borrow_params<'p>(params: &'p [Param<'_>]) -> Vec<&'p (dyn ToSql + Sync)> {
    params
        .iter()
        .map(|param| param.as_ref() as &(dyn ToSql + Sync))
        .collect()
}

/// The columns as a statement names them.
#[derive(Debug, Clone)]
pub struct ColumnText(Vec<ColumnName>);

#[derive(Debug, Clone, Copy)]
struct ColumnName {
    name: &'static str,
    sql_type: &'static str,
    cast: Option<&'static str>,
}

impl ColumnName {
    /// As it is taken from the rows given.
    fn value(&self) -> String {
        match self.cast {
            Some(cast) => format!("row.{}::{cast}", self.name),
            None => format!("row.{}", self.name),
        }
    }
}

impl ColumnText {
    pub fn of<R>(columns: &[TableColumn<'_, R>]) -> ColumnText {
        let names = columns.iter().map(|column| ColumnName {
            name: column.name,
            sql_type: column.sql_type,
            cast: column.cast,
        });
        ColumnText(names.collect())
    }

    pub fn without(mut self, name: &str) -> ColumnText {
        self.0.retain(|column| column.name != name);
        self
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// `a, b`
    pub fn names(&self) -> String {
        self.join(", ", |column| column.name.to_owned())
    }

    /// `row.a, row.b::json`
    pub fn values(&self) -> String {
        self.join(", ", ColumnName::value)
    }

    /// `a = row.a, b = row.b::json`
    pub fn assignments(&self) -> String {
        self.join(", ", |column| {
            format!("{} = {}", column.name, column.value())
        })
    }

    /// `t.a = row.a AND t.b = row.b`
    pub fn equalities(&self, table: &str) -> String {
        self.join(" AND ", |column| {
            format!("{table}.{} = {}", column.name, column.value())
        })
    }

    /// `unnest($1::uuid[], $2::text[]) AS row (a, b)`, from the n-th parameter on.
    pub fn unnest(&self, first: usize) -> String {
        format!("{} AS row ({})", self.arrays(first), self.names())
    }

    /// The same, with the rows' numbers as `n`.
    pub fn unnest_numbered(&self, first: usize) -> String {
        format!(
            "{} WITH ORDINALITY AS row ({}, n)",
            self.arrays(first),
            self.names()
        )
    }

    fn arrays(&self, first: usize) -> String {
        let arrays = self.0.iter().zip(first..);
        let arrays: Vec<String> = arrays
            .map(|(column, at)| format!("${at}::{}[]", column.sql_type))
            .collect();
        format!("unnest({})", arrays.join(", "))
    }

    fn join(&self, between: &str, write: impl Fn(&ColumnName) -> String) -> String {
        self.0.iter().map(write).collect::<Vec<_>>().join(between)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row<'a> {
        id: i64,
        text: &'a str,
    }

    fn row_columns<'a>() -> Vec<TableColumn<'a, Row<'a>>> {
        columns!(|row: Row<'a>|
            "id": "int8" = row.id;
            "words": "text" as "json" = row.text;
        )
    }

    #[test]
    fn the_text_and_the_parameters_are_of_one_list() {
        let text = ColumnText::of(&row_columns());
        assert_eq!(text.names(), "id, words");
        assert_eq!(text.values(), "row.id, row.words::json");
        assert_eq!(
            text.unnest(3),
            "unnest($3::int8[], $4::text[]) AS row (id, words)"
        );
        assert_eq!(
            text.clone().without("id").assignments(),
            "words = row.words::json"
        );
        assert_eq!(
            text.clone().without("words").equalities("t"),
            "t.id = row.id"
        );
        let params = column_params(
            &row_columns(),
            &[Row {
                id: 7,
                text: "of its own life",
            }],
        );
        assert_eq!(params.len(), text.count());
        assert_eq!(format!("{params:?}"), "[[7], [\"of its own life\"]]");
    }
}
