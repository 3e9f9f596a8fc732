//! Functions in other processes.

use std::time::{Duration, Instant};

use crosslane::{Barrier, spawn};

use crate::report::{Outcome, Report, expect};

/// How long what stands for work takes.
const WORK: Duration = Duration::from_secs(1);
/// How long those who work at once wait for each other, should they not.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn numbers_and_letters(report: &mut Report) -> Outcome {
    let print = |(name, what): (String, Vec<String>)| {
        for one in &what {
            println!("    {name}: {one}");
        }
        what.len()
    };
    let numbers = ("numbers".to_owned(), (1..=3).map(|n: u32| n.to_string()).collect());
    let letters = ("letters".to_owned(), ["a", "b", "c"].map(str::to_owned).to_vec());
    let printed = report.time("two processes started, run and joined", || {
        let both = [spawn(print, numbers)?, spawn(print, letters)?];
        both.into_iter().map(|process| process.join()).collect::<Result<Vec<_>, _>>()
    })?;
    expect("lines of each", printed, vec![3, 3])
}

pub(crate) fn five_squares(_: &mut Report) -> Outcome {
    let processes =
        (1..=5_u64).map(|n| spawn(|n: u64| (std::process::id(), n * n), n)).collect::<Result<Vec<_>, _>>()?;
    let mut squares = Vec::new();
    for process in processes {
        let id = process.id();
        let (ran_in, square) = process.join()?;
        expect("the process that it ran in", ran_in, id)?;
        println!("    process {id}: {square}");
        squares.push(square);
    }
    expect("squares", squares, vec![1, 4, 9, 16, 25])
}

pub(crate) fn squares_and_cubes(_: &mut Report) -> Outcome {
    let numbers: Vec<u64> = (2..=5).collect();
    let squares = spawn(|all: Vec<u64>| all.into_iter().map(|n| n * n).collect::<Vec<_>>(), numbers.clone())?;
    let cubes = spawn(|all: Vec<u64>| all.into_iter().map(|n| n * n * n).collect::<Vec<_>>(), numbers)?;
    let (squares, cubes) = (squares.join()?, cubes.join()?);
    println!("    squares {squares:?}\n    cubes {cubes:?}");
    expect("squares", squares, vec![4, 9, 16, 25])?;
    expect("cubes", cubes, vec![8, 27, 64, 125])
}

pub(crate) fn at_once(report: &mut Report) -> Outcome {
    // Who works at once meets there: one after the other, nobody would ever get through.
    let work = |meeting: Barrier| {
        let met = meeting.wait_timeout(LIMIT).is_ok();
        std::thread::sleep(WORK);
        met
    };
    let mut run = |what: &str, processes: u32| {
        let begun = Instant::now();
        let meeting = Barrier::new(processes)?;
        let all = (0..processes).map(|_| spawn(work, meeting.clone())).collect::<Result<Vec<_>, _>>()?;
        let met = all.into_iter().map(|process| process.join()).collect::<Result<Vec<_>, _>>()?;
        let took = begun.elapsed().as_secs_f64();
        println!("    {what}: {took:.2} s");
        report.note(what, format!("{took:.2} s"));
        expect("those who met", met.into_iter().filter(|met| *met).count(), processes as usize)
    };
    let begun = Instant::now();
    work(Barrier::new(1)?);
    work(Barrier::new(1)?);
    println!("    two, one after the other: {:.2} s", begun.elapsed().as_secs_f64());
    run("two of 1 s at once", 2)?;
    run("five of 1 s at once", 5)
}
