//! One table of everything that was swept, and the verdict.

use core::fmt::Write as _;

/// What came of one case.
#[derive(Debug, Clone)]
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
    /// Wall time.
    pub seconds: f64,
}

impl Row {
    /// Whether the case came out as it must.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.points >= self.floor && (self.bad > 0) == self.seeded
    }
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

    /// Points of sound cases whose `how` starts with `prefix`.
    #[must_use]
    pub fn points(&self, prefix: &str) -> u64 {
        self.0.iter().filter(|row| !row.seeded && row.how.starts_with(prefix)).map(|row| row.points).sum()
    }

    /// Whether every row is as it must be.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.0.iter().all(Row::is_right)
    }

    /// The table as text: sound cases, then seeded bugs.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!(
            "{:<26} {:<16} {:<34} {:>9} {:>5} {:>8}\n",
            "case", "role", "points taken at", "points", "bad", "seconds"
        );
        for seeded in [false, true] {
            if seeded {
                text.push_str("seeded bugs (each must be found)\n");
            }
            for row in self.0.iter().filter(|row| row.seeded == seeded) {
                let found = match (seeded, row.bad > 0) {
                    (true, true) => " found",
                    (true, false) => " MISSED",
                    (false, true) => " BAD",
                    (false, false) => "",
                };
                let few = if row.points < row.floor { " TOO FEW" } else { "" };
                let _ = writeln!(
                    text,
                    "{:<26} {:<16} {:<34} {:>9} {:>5} {:>8.2}{found}{few}",
                    row.name, row.role, row.how, row.points, row.bad, row.seconds
                );
                if let Some(first) = row.first_bad.as_deref().filter(|_| seeded || row.bad > 0) {
                    let _ = writeln!(text, "    first bad: {first}");
                }
            }
        }
        text
    }
}
