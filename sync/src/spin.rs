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
/// What the budget is divided by.
static DIVISOR: AtomicU32 = AtomicU32::new(1);
static CPUS: AtomicU32 = AtomicU32::new(UNKNOWN);

/// How many pauses are worth spending before a sleep: 300 to 700, or 0 where this process may use one CPU only; a quarter of
/// that after [`lower`].
///
/// Measured at the first call (15 us, and what [`cpus`] costs then, 30 to 150 us) and kept: a later change of the
/// affinity is not seen. Who starts another process can spare it that: see [`known`].
#[must_use]
pub fn budget() -> u32 {
    // ORDERING: Relaxed. A plain number, as in `whole`.
    whole() / DIVISOR.load(Ordering::Relaxed)
}

fn whole() -> u32 {
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

/// Divides what [`budget`] says by four, in this process and from now on: for one that knows that more processes are at work
/// than there are CPUs.
///
/// A quarter still finds what a running peer does at once; and the rest of the spin is time that others could use.
pub fn lower() {
    // ORDERING: Relaxed. A plain number, as in `whole`.
    DIVISOR.store(4, Ordering::Relaxed);
}

/// What has been measured: the whole budget in pauses, and the number of CPUs. `None` if it has not been.
#[must_use]
pub fn known() -> Option<(u32, u32)> {
    // ORDERING: Relaxed. Plain numbers, as in `whole`; of two measurements either will do.
    let both = (BUDGET.load(Ordering::Relaxed), CPUS.load(Ordering::Relaxed));
    (both.0 != UNKNOWN && both.1 != UNKNOWN).then_some(both)
}

/// Takes over what another process of this machine has measured, which may use the same CPUs; what was measured here before
/// that no longer counts. What no measurement gives is brought within bounds.
pub fn adopt((pauses, cpus): (u32, u32)) {
    let (least, most) = PAUSES.into_inner();
    let pauses = if pauses == 0 || cpus <= 1 { 0 } else { pauses.clamp(least, most) };
    // ORDERING: Relaxed. Plain numbers, as in `whole`.
    BUDGET.store(pauses, Ordering::Relaxed);
    CPUS.store(cpus.clamp(1, UNKNOWN - 1), Ordering::Relaxed);
}

/// How many CPUs this process might use, by its CPU set and quota, when this was first called; 2 if nobody knows.
#[must_use]
pub fn cpus() -> u32 {
    // ORDERING: Relaxed. A plain number, as in `whole`.
    match CPUS.load(Ordering::Relaxed) {
        UNKNOWN => {
            // An unknown number is taken as several: a spin in vain costs 10 us, a sleep in vain as much.
            let cpus = std::thread::available_parallelism().map_or(2, core::num::NonZero::get);
            let cpus = u32::try_from(cpus).unwrap_or(UNKNOWN - 1);
            CPUS.store(cpus, Ordering::Relaxed);
            cpus
        }
        cpus => cpus,
    }
}

fn measure() -> u32 {
    let fastest = (0..RUNS).map(|_| time_pauses()).min().unwrap_or(0);
    budget_for(cpus(), fastest)
}

/// Nanoseconds that `TIMED_PAUSES` pauses take.
fn time_pauses() -> u64 {
    let start = Deadline::now();
    for _ in 0..TIMED_PAUSES {
        core::hint::spin_loop();
    }
    start.passed_nanos()
}

fn budget_for(cpus: u32, timed_nanos: u64) -> u32 {
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
        let whole = budget();
        assert!(whole == 0 || PAUSES.contains(&whole));
        let known = known().unwrap();
        assert_eq!(known, (whole, cpus()));
        lower();
        assert_eq!((budget(), super::known()), (whole / 4, Some(known)));
        for (given, adopted) in [((444, 3), (444, 3)), ((u32::MAX, u32::MAX), (700, u32::MAX - 1)), ((444, 0), (0, 1))]
        {
            adopt(given);
            assert_eq!((super::known(), budget()), (Some(adopted), adopted.0 / 4));
        }
        adopt(known);
    }
}
