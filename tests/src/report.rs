//! One table of everything that was swept, and the verdict.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What came of one case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The case, as `--case` selects it.
    pub name: &'static str,
    /// Who else is there, and what the victim is doing.
    pub role: &'static str,
    /// Which points were visited.
    pub how: String,
    /// Kill points (or crash pairs).
    pub points: u64,
    /// Points after which somebody could not go on, or an invariant was broken.
    pub bad: u64,
    /// The first bad point, with the place in the program.
    pub first_bad: Option<String>,
    /// Fewer points than this mean that the killer is broken.
    pub floor: u64,
    /// A deliberately broken variant: a bad point must be found.
    pub seeded: bool,
    /// Somebody else's primitive, beside this case of ours: its bad points are only counted.
    #[serde(borrow)]
    pub beside: Option<&'static str>,
    /// What went wrong at how many points.
    pub whys: BTreeMap<String, u64>,
    /// Wall time.
    pub seconds: f64,
}

impl Row {
    /// What the row is about.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (self.seeded, self.beside) {
            (true, _) => Kind::Seeded,
            (false, Some(_)) => Kind::Beside,
            (false, None) => Kind::Sound,
        }
    }

    /// Whether the case came out as it must.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.points >= self.floor && (self.beside.is_some() || (self.bad > 0) == self.seeded)
    }
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A case of ours: nothing may be bad.
    Sound,
    /// A deliberately broken variant: something must be.
    Seeded,
    /// Somebody else's primitive.
    Beside,
}

/// All rows of a run.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds a row, and prints it at once if it is not as it must be.
    pub fn add(&mut self, row: Row) {
        if !row.is_right() {
            let points = if row.points < row.floor { "too few points" } else { "" };
            let found = if row.seeded { "seeded bug missed" } else { "bad" };
            eprintln!(
                "{} / {}: {found} {points}: {} points, {} bad, first: {}",
                row.name,
                row.role,
                row.points,
                row.bad,
                row.first_bad.as_deref().unwrap_or("none"),
            );
        }
        self.0.push(row);
    }

    /// Its rows as bytes, for [`append`](Self::append) in another process of this program.
    ///
    /// # Panics
    /// Never: rows are strings and numbers.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.0).expect("strings and numbers encode")
    }

    /// Adds the rows that another process has [written](Self::to_bytes). The bytes stay: a few dozen rows.
    ///
    /// # Panics
    /// If they are no such rows.
    pub fn append(&mut self, bytes: Vec<u8>) {
        let rows: Vec<Row> = postcard::from_bytes(bytes.leak()).expect("rows of this program");
        self.0.extend(rows);
    }

    /// All of them, in the order they were added.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.0
    }

    /// The rows of this kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(move |row| row.kind() == kind)
    }

    /// Points of sound cases whose `how` starts with `prefix`.
    #[must_use]
    pub fn points(&self, prefix: &str) -> u64 {
        self.of(Kind::Sound).filter(|row| row.how.starts_with(prefix)).map(|row| row.points).sum()
    }

    /// Name and role of rows that are not the only ones of that name and role: nobody could say which is meant.
    #[must_use]
    pub fn ambiguous(&self) -> Vec<(&'static str, &'static str)> {
        let keys: Vec<_> = self.0.iter().map(|row| (row.name, row.role)).collect();
        let again = keys.iter().enumerate().filter(|(i, key)| keys[..*i].contains(key));
        again.map(|(_, key)| *key).collect()
    }

    /// Whether a comparison shows anything: there is none, or somebody else's primitive is broken by a death.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.of(Kind::Beside).next().is_none() || self.of(Kind::Beside).any(|row| row.bad > 0)
    }

    /// Whether every row is as it must be, and has a name of its own.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.0.iter().all(Row::is_right) && self.ambiguous().is_empty()
    }

    /// The table as text: sound cases, then seeded bugs, then what others' primitives do.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!(
            "{:<26} {:<16} {:<34} {:>9} {:>5} {:>8}\n",
            "case", "role", "points taken at", "points", "bad", "seconds"
        );
        for (kind, title) in [
            (Kind::Sound, ""),
            (Kind::Seeded, "seeded bugs (each must be found)\n"),
            (Kind::Beside, "others' (counted, for comparison)\n"),
        ] {
            text.push_str(if self.of(kind).next().is_some() { title } else { "" });
            for row in self.of(kind) {
                let found = match (kind, row.bad > 0) {
                    (Kind::Seeded, true) => " found",
                    (Kind::Seeded, false) => " MISSED",
                    (Kind::Sound, true) => " BAD",
                    (Kind::Sound, false) | (Kind::Beside, _) => "",
                };
                let few = if row.points < row.floor { " TOO FEW" } else { "" };
                let _ = writeln!(
                    text,
                    "{:<26} {:<16} {:<34} {:>9} {:>5} {:>8.2}{found}{few}",
                    row.name, row.role, row.how, row.points, row.bad, row.seconds
                );
                if let Some(first) = row.first_bad.as_deref().filter(|_| kind == Kind::Seeded || row.bad > 0) {
                    let _ = writeln!(text, "    first bad: {first}");
                }
            }
        }
        text
    }
}
