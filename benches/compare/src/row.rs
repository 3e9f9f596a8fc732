//! One row of the comparison: contestants, rounds, and ratios taken round by round.

use std::fmt;

use crate::python;

/// What a contestant's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds for one operation: less is better.
    Nanos,
    /// Milliseconds for one operation: less is better.
    Millis,
    /// Millions of items in a second: more is better.
    Millions,
}

impl Unit {
    /// The number for `operations` that took `seconds` together.
    pub fn of(self, operations: u64, seconds: f64) -> f64 {
        match self {
            Self::Nanos => seconds * 1e9 / operations as f64,
            Self::Millis => seconds * 1e3 / operations as f64,
            Self::Millions => operations as f64 / seconds / 1e6,
        }
    }

    fn less_is_better(self) -> bool {
        self != Self::Millions
    }

    fn short(self) -> &'static str {
        match self {
            Self::Nanos => "ns",
            Self::Millis => "ms",
            Self::Millions => "M/s",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nanos => "ns, less is better",
            Self::Millis => "ms, less is better",
            Self::Millions => "million/s, more is better",
        })
    }
}

/// Sets up, measures once, and cleans up; returns seconds.
type Measure = Box<dyn FnMut() -> f64>;

struct Contestant {
    name: &'static str,
    operations: u64,
    /// It is measured in the first rounds only.
    most_rounds: usize,
    measure: Measure,
}

/// What is shown of `ours`, and what it is to be.
struct Comparison {
    ours: &'static str,
    with: &'static str,
    goal: Goal,
}

#[derive(Clone, Copy)]
enum Goal {
    /// The ratio to the other is shown.
    Ratio,
    /// The ratio to the other is at most (less is better) or at least this.
    RatioOf(f64),
    /// The difference to the other is at most this, in the row's unit.
    Above(f64),
    /// The median is at most this, in the row's unit; there is no other.
    Within(f64),
}

/// Contestants that are measured together.
pub struct Row {
    /// What is measured.
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

    /// Who is measured.
    pub fn contestants(&self) -> Vec<&'static str> {
        self.contestants.iter().map(|contestant| contestant.name).collect()
    }

    /// Adds a contestant; `measure` returns the seconds that all operations took.
    pub fn contestant(self, name: &'static str, measure: impl FnMut() -> f64 + 'static) -> Self {
        let operations = self.operations;
        self.slow(name, operations, usize::MAX, measure)
    }

    /// Adds a contestant that does only `operations` operations in a measurement, in at most `most_rounds` rounds.
    pub fn slow(
        mut self,
        name: &'static str,
        operations: u64,
        most_rounds: usize,
        measure: impl FnMut() -> f64 + 'static,
    ) -> Self {
        self.contestants.push(Contestant { name, operations, most_rounds, measure: Box::new(measure) });
        self
    }

    /// As [`slow`](Self::slow), in as many rounds as a comparison needs, and compared with `ours`.
    pub fn rival(
        self,
        ours: &'static str,
        name: &'static str,
        operations: u64,
        measure: impl FnMut() -> f64 + 'static,
    ) -> Self {
        self.slow(name, operations, ENOUGH_ROUNDS, measure).versus(ours, name)
    }

    /// As [`rival`](Self::rival), for what Python's `multiprocessing` does, if there is Python; `script` prints seconds.
    pub fn python(
        self,
        ours: &'static str,
        name: &'static str,
        operations: u64,
        arguments: &[u64],
        script: &'static str,
    ) -> Self {
        if !python::is_there() {
            return self;
        }
        let arguments = arguments.to_vec();
        self.rival(ours, name, operations, move || python::run(script, &arguments))
    }

    /// The ratio of `ours` to `with` is to be at most (where less is better) or at least `goal`.
    pub fn goal(self, ours: &'static str, with: &'static str, goal: f64) -> Self {
        self.comparison(ours, with, Goal::RatioOf(goal))
    }

    /// Shows the ratio of `ours` to `with`, with no goal.
    pub fn versus(self, ours: &'static str, with: &'static str) -> Self {
        self.comparison(ours, with, Goal::Ratio)
    }

    /// The median of `ours` is to be at most `limit`, in the row's unit.
    pub fn within(self, ours: &'static str, limit: f64) -> Self {
        self.comparison(ours, ours, Goal::Within(limit))
    }

    /// `ours` is to be at most `extra` above `with`, in the row's unit.
    pub fn above(self, ours: &'static str, with: &'static str, extra: f64) -> Self {
        self.comparison(ours, with, Goal::Above(extra))
    }

    fn comparison(mut self, ours: &'static str, with: &'static str, goal: Goal) -> Self {
        for name in [ours, with] {
            assert!(self.contestants.iter().any(|c| c.name == name), "{}: no contestant {name}", self.name);
        }
        self.comparisons.push(Comparison { ours, with, goal });
        self
    }

    /// Runs one round that does not count and then `rounds` that do. A contestant with few rounds has none to spare.
    pub fn run(&mut self, rounds: usize) -> Report<'_> {
        let count = self.contestants.len();
        let mut values = vec![Vec::with_capacity(rounds); count];
        for round in 0..=rounds {
            for i in 0..count {
                let which = (round + i) % count;
                let contestant = &mut self.contestants[which];
                let warming_up = round == 0;
                if round > contestant.most_rounds || warming_up && contestant.most_rounds < ENOUGH_ROUNDS {
                    continue;
                }
                let seconds = (contestant.measure)();
                if !warming_up {
                    values[which].push(self.unit.of(contestant.operations, seconds));
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

/// Fewer paired rounds decide nothing.
const ENOUGH_ROUNDS: usize = 15;

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

/// One comparison as it came out.
struct Line {
    what: String,
    goal: String,
    median: f64,
    worse: f64,
    verdict: &'static str,
    absolute: String,
}

impl Report<'_> {
    fn values_of(&self, name: &str) -> &[f64] {
        let which = self.row.contestants.iter().position(|c| c.name == name);
        &self.values[which.expect("`Row::comparison` looked for it")]
    }

    fn median_of(&self, name: &str) -> f64 {
        Quartiles::of(self.values_of(name).iter().copied()).median
    }

    /// The contestant whose spread says how quiet the machine was: the bare limit, else the one compared with.
    fn yardstick(&self) -> &'static str {
        let bare = self.row.contestants.iter().map(|c| c.name).find(|name| name.starts_with(BARE));
        bare.or(self.row.comparisons.first().map(|c| c.with)).unwrap_or(self.row.contestants[0].name)
    }

    /// How far the yardstick's quartiles are apart, if that is too far.
    fn noise(&self) -> Option<(&'static str, f64)> {
        let yardstick = self.yardstick();
        let spread = Quartiles::of(self.values_of(yardstick).iter().copied()).spread();
        (spread > NOISY).then_some((yardstick, spread))
    }

    fn line(&self, comparison: &Comparison) -> Line {
        let Comparison { ours, with, goal } = comparison;
        let unit = self.row.unit;
        let pairs: Vec<_> = self.values_of(ours).iter().zip(self.values_of(with)).collect();
        let by = |value: fn(f64, f64) -> f64| Quartiles::of(pairs.iter().map(|(ours, with)| value(**ours, **with)));
        let quartiles = match goal {
            Goal::Ratio | Goal::RatioOf(_) => by(|ours, with| ours / with),
            Goal::Above(_) => by(|ours, with| ours - with),
            Goal::Within(_) => by(|ours, _| ours),
        };
        let worse = if unit.less_is_better() { quartiles.upper } else { quartiles.lower };
        let (text, met) = match goal {
            Goal::Ratio => (String::new(), None),
            Goal::RatioOf(goal) if unit.less_is_better() => (format!("<= {goal:.2}"), Some(worse <= *goal)),
            Goal::RatioOf(goal) => (format!(">= {goal:.2}"), Some(worse >= *goal)),
            Goal::Above(extra) => (format!("<= {extra} {} more", unit.short()), Some(quartiles.median <= *extra)),
            Goal::Within(limit) => (format!("<= {limit} {}", unit.short()), Some(quartiles.median <= *limit)),
        };
        let verdict = match met {
            None => "",
            Some(_) if pairs.len() < ENOUGH_ROUNDS => "too few rounds",
            Some(true) => "met",
            Some(false) => "**missed**",
        };
        let ours_median = number(self.median_of(ours));
        let (what, absolute) = match goal {
            Goal::Within(_) => ((*ours).to_owned(), format!("{ours_median} {}", unit.short())),
            Goal::Above(_) => (format!("{ours} - {with}"), self.both(&ours_median, with)),
            _ => (format!("{ours} / {with}"), self.both(&ours_median, with)),
        };
        Line { what, goal: text, median: quartiles.median, worse, verdict, absolute }
    }

    fn both(&self, ours_median: &str, with: &str) -> String {
        format!("{ours_median} / {} {}", number(self.median_of(with)), self.row.unit.short())
    }

    /// One line of the table of `docs/benchmarks.md` for each comparison; `distance` is that of the CPUs, before and after.
    pub fn summary(&self, distance: (f64, f64)) -> String {
        let noise = self.noise().map_or(String::new(), |(_, spread)| format!(", noisy: {:.0} %", spread * 100.0));
        let (before, after) = distance;
        let lines = self.row.comparisons.iter().map(|comparison| {
            let Line { what, goal, median, worse, verdict, absolute } = self.line(comparison);
            let name = self.row.name;
            let (median, worse) = (number(median), number(worse));
            format!(
                "| {name} | {what} | {goal} | {median} ({worse}) {verdict} | {absolute} | {before:.0}, {after:.0}{noise} |\n"
            )
        });
        lines.collect()
    }
}

/// The head of the table that [`Report::summary`] fills.
pub const SUMMARY_HEAD: &str = "| row | what | goal | median (worse quartile) | absolute medians | CPUs' distance, ns |
|---|---|---|---|---|---|
";

/// Some three digits.
fn number(value: f64) -> String {
    match value.abs() {
        ..0.1 => format!("{value:.4}"),
        ..100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {} ({})\n", self.row.name, self.row.unit)?;
        writeln!(f, "| contestant | median | quartiles | rounds |\n|---|---|---|---|")?;
        for (contestant, values) in self.row.contestants.iter().zip(&self.values) {
            let Quartiles { lower, median, upper } = Quartiles::of(values.iter().copied());
            let name = contestant.name;
            writeln!(f, "| {name} | {} | {} .. {} | {} |", number(median), number(lower), number(upper), values.len())?;
        }
        if !self.row.comparisons.is_empty() {
            writeln!(f, "\n| in the same round | median | worse quartile | goal | |\n|---|---|---|---|---|")?;
        }
        for comparison in &self.row.comparisons {
            let Line { what, goal, median, worse, verdict, .. } = self.line(comparison);
            writeln!(f, "| {what} | {} | {} | {goal} | {verdict} |", number(median), number(worse))?;
        }
        if let Some((yardstick, spread)) = self.noise() {
            let percent = spread * 100.0;
            writeln!(f, "\nwarning: a noisy machine: the quartiles of \"{yardstick}\" are {percent:.0} % apart")?;
        }
        Ok(())
    }
}
