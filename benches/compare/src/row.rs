//! One row of the comparison: contestants, rounds, and ratios taken round by round.

use std::fmt;

/// What a contestant's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds for one operation: less is better.
    Nanos,
    /// Millions of items in a second: more is better.
    Millions,
}

impl Unit {
    /// The number for `operations` that took `seconds` together.
    pub fn of(self, operations: u64, seconds: f64) -> f64 {
        match self {
            Self::Nanos => seconds * 1e9 / operations as f64,
            Self::Millions => operations as f64 / seconds / 1e6,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nanos => "ns, less is better",
            Self::Millions => "million/s, more is better",
        })
    }
}

/// Sets up, measures once, and cleans up; returns seconds.
type Measure = Box<dyn FnMut() -> f64>;

struct Contestant {
    name: &'static str,
    measure: Measure,
}

struct Comparison {
    ours: &'static str,
    with: &'static str,
    goal: Option<f64>,
}

/// Contestants that are measured together.
pub struct Row {
    /// What is measured; `--only` looks for a part of it.
    pub name: &'static str,
    unit: Unit,
    operations: u64,
    contestants: Vec<Contestant>,
    comparisons: Vec<Comparison>,
}

impl Row {
    /// A row whose contestants each do `operations` operations in one measurement.
    pub fn new(name: &'static str, unit: Unit, operations: u64) -> Self {
        Self { name, unit, operations, contestants: Vec::new(), comparisons: Vec::new() }
    }

    /// Adds a contestant; `measure` returns the seconds that all operations took.
    pub fn contestant(mut self, name: &'static str, measure: impl FnMut() -> f64 + 'static) -> Self {
        self.contestants.push(Contestant { name, measure: Box::new(measure) });
        self
    }

    /// The ratio of `ours` to `with` is to be at most (nanoseconds) or at least (millions a second) `goal`.
    pub fn goal(self, ours: &'static str, with: &'static str, goal: f64) -> Self {
        self.comparison(ours, with, Some(goal))
    }

    /// Shows the ratio of `ours` to `with`, with no goal.
    pub fn versus(self, ours: &'static str, with: &'static str) -> Self {
        self.comparison(ours, with, None)
    }

    fn comparison(mut self, ours: &'static str, with: &'static str, goal: Option<f64>) -> Self {
        for name in [ours, with] {
            assert!(self.contestants.iter().any(|c| c.name == name), "{}: no contestant {name}", self.name);
        }
        self.comparisons.push(Comparison { ours, with, goal });
        self
    }

    /// Runs one round that does not count and then `rounds` that do.
    pub fn run(&mut self, rounds: usize) -> Report<'_> {
        let count = self.contestants.len();
        let mut values = vec![Vec::with_capacity(rounds); count];
        for round in 0..=rounds {
            for i in 0..count {
                let which = (round + i) % count;
                let seconds = (self.contestants[which].measure)();
                if round > 0 {
                    values[which].push(self.unit.of(self.operations, seconds));
                }
            }
        }
        Report { row: self, values }
    }
}

/// What came of a row. Displayed as Markdown.
pub struct Report<'a> {
    row: &'a Row,
    /// For each contestant, one value a round.
    values: Vec<Vec<f64>>,
}

/// Above this distance between the quartiles, relative to the median, the machine is called noisy.
const NOISY: f64 = 0.10;

/// The contestant that stands for the machine itself where a row has one.
pub const BARE: &str = "bare";

struct Quartiles {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Quartiles {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Self { lower: at(0.25), median: at(0.5), upper: at(0.75) }
    }

    fn spread(&self) -> f64 {
        (self.upper - self.lower) / self.median
    }
}

impl Report<'_> {
    fn values_of(&self, name: &str) -> &[f64] {
        let which = self.row.contestants.iter().position(|c| c.name == name);
        &self.values[which.expect("`Row::comparison` looked for it")]
    }

    /// The contestant whose spread says how quiet the machine was: the bare limit, else the one compared with.
    fn yardstick(&self) -> &'static str {
        let bare = self.row.contestants.iter().map(|c| c.name).find(|name| name.starts_with(BARE));
        bare.or(self.row.comparisons.first().map(|c| c.with)).unwrap_or(self.row.contestants[0].name)
    }

    fn comparison(&self, f: &mut fmt::Formatter<'_>, comparison: &Comparison) -> fmt::Result {
        let Comparison { ours, with, goal } = comparison;
        let pairs = self.values_of(ours).iter().zip(self.values_of(with));
        let ratio = Quartiles::of(pairs.map(|(ours, with)| ours / with));
        let (worse, sign) = match self.row.unit {
            Unit::Nanos => (ratio.upper, "<="),
            Unit::Millions => (ratio.lower, ">="),
        };
        write!(f, "| {ours} / {with} | {:.3} | {worse:.3} | ", ratio.median)?;
        match goal {
            None => writeln!(f, "| |"),
            Some(goal) => {
                let met = match self.row.unit {
                    Unit::Nanos => worse <= *goal,
                    Unit::Millions => worse >= *goal,
                };
                writeln!(f, "{sign} {goal:.2} | {} |", if met { "met" } else { "MISSED" })
            }
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.values.first().map_or(0, Vec::len);
        writeln!(f, "### {} ({}; {rounds} rounds)\n", self.row.name, self.row.unit)?;
        writeln!(f, "| contestant | median | quartiles |\n|---|---|---|")?;
        for (contestant, values) in self.row.contestants.iter().zip(&self.values) {
            let Quartiles { lower, median, upper } = Quartiles::of(values.iter().copied());
            writeln!(f, "| {} | {median:.1} | {lower:.1} .. {upper:.1} |", contestant.name)?;
        }
        if !self.row.comparisons.is_empty() {
            writeln!(f, "\n| ratio in the same round | median | worse quartile | goal | |\n|---|---|---|---|---|")?;
        }
        for comparison in &self.row.comparisons {
            self.comparison(f, comparison)?;
        }
        let yardstick = self.yardstick();
        let spread = Quartiles::of(self.values_of(yardstick).iter().copied()).spread();
        if spread > NOISY {
            writeln!(
                f,
                "\nwarning: a noisy machine: the quartiles of \"{yardstick}\" are {:.0} % apart",
                spread * 100.0
            )?;
        }
        Ok(())
    }
}
