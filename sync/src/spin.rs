//! How long to spin before a sleep.
//!
//! A sleep and a wake cost about 10 us between two CPUs, so a wait that may end within that time is worth spinning for;
//! but not where the peer needs this very CPU to make progress.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::deadline::Deadline;

/// What a spin should last: most hand-overs of a running peer take less, and a sleep costs more.
const TARGET_NANOS: u64 = 7_000;
/// Bounds of the budget. A pause takes 15-17 ns on the machines that this was measured on and 3 ns on older ones.
const PAUSES: core::ops::RangeInclusive<u32> = 300..=700;
/// Pauses timed by one calibration run: long against the clock's own 30 ns.
const TIMED_PAUSES: u32 = 256;
/// Calibration runs; the fastest counts, since whatever else happens only makes one slower.
const RUNS: u32 = 3;

const UNKNOWN: u32 = u32::MAX;
static BUDGET: AtomicU32 = AtomicU32::new(UNKNOWN);

/// How many pauses are worth spending before a sleep: 300 to 700, or 0 where this process may use one CPU only.
///
/// Measured at the first call (15 us, and what reading the CPU set and quota costs) and kept: a later change of the
/// affinity is not seen.
#[must_use]
pub fn budget() -> u32 {
    // ORDERING: Relaxed. A plain number; threads that find it unknown at the same time all measure.
    match BUDGET.load(Ordering::Relaxed) {
        UNKNOWN => {
            let budget = measure();
            BUDGET.store(budget, Ordering::Relaxed);
            budget
        }
        budget => budget,
    }
}

fn measure() -> u32 {
    // An unknown number of CPUs is taken as several: a spin in vain costs 10 us, a sleep in vain as much.
    let cpus = std::thread::available_parallelism().map_or(2, core::num::NonZero::get);
    let fastest = (0..RUNS).map(|_| time_pauses()).min().unwrap_or(0);
    budget_for(cpus, fastest)
}

/// Nanoseconds that `TIMED_PAUSES` pauses take.
fn time_pauses() -> u64 {
    let start = Deadline::now();
    for _ in 0..TIMED_PAUSES {
        core::hint::spin_loop();
    }
    start.passed_nanos()
}

fn budget_for(cpus: usize, timed_nanos: u64) -> u32 {
    if cpus <= 1 {
        return 0;
    }
    let pauses = TARGET_NANOS * u64::from(TIMED_PAUSES) / timed_nanos.max(1);
    u32::try_from(pauses).unwrap_or(u32::MAX).clamp(*PAUSES.start(), *PAUSES.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cpu_does_not_spin() {
        assert_eq!(budget_for(1, 4_096), 0);
        assert_eq!(budget_for(0, 4_096), 0);
    }

    #[test]
    fn the_budget_follows_the_cost_of_a_pause_within_bounds() {
        assert_eq!(budget_for(2, 16 * 256), 437);
        assert_eq!(budget_for(2, 0), 700);
        assert_eq!(budget_for(2, u64::MAX), 300);
        assert!(budget() == 0 || PAUSES.contains(&budget()));
    }
}
