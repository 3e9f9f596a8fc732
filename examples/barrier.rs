//! A barrier: three processes go through two phases, and none begins the second before all have ended the first.

use crosslane::{Array, Barrier, spawn};

const PROCESSES: u32 = 3;

/// What a phase of each process puts into the table.
fn two_phases((me, barrier, first, second): (usize, Barrier, Array<u64>, Array<u64>)) -> (u64, bool) {
    first.set(me, (me as u64 + 1) * 10);
    let passed = barrier.wait().expect("no party dies");
    // All of the first phase's results are there.
    let sum = first.iter().sum();
    second.set(me, sum);
    barrier.wait_with(|| println!("all have added up: {:?}", second.to_vec())).expect("no party dies");
    (sum, passed.is_leader)
}

fn main() -> crosslane::Result<()> {
    crosslane::init();
    let barrier = Barrier::new(PROCESSES)?;
    let (first, second) = (Array::zeroed(PROCESSES as usize)?, Array::zeroed(PROCESSES as usize)?);
    let parties: Vec<_> = (0..PROCESSES as usize)
        .map(|me| spawn(two_phases, (me, barrier.clone(), first.clone(), second.clone())))
        .collect::<Result<_, _>>()?;
    let mut leaders = 0;
    for party in parties {
        let (sum, is_leader) = party.join()?;
        assert_eq!(sum, 60);
        leaders += u32::from(is_leader);
    }
    println!("{leaders} of {PROCESSES} was told to be the leader");
    assert_eq!(leaders, 1);

    // A party that dies breaks the barrier, and nobody waits for it for ever.
    let broken = Barrier::new(2)?;
    let dies = |barrier: Barrier| {
        _ = barrier.wait();
        std::process::abort()
    };
    let party = spawn(dies, broken.clone())?;
    broken.wait()?;
    let _: Result<(), _> = party.join();
    println!("without its party: {}", broken.wait().expect_err("it never comes"));
    Ok(())
}
