//! Two processes at once, each with a part of the work: one squares, the other cubes.
//!
//! `cargo run --example squares_and_cubes`

use crosslane::{Error, spawn};

fn squares(numbers: Vec<u64>) -> Vec<u64> {
    numbers.into_iter().map(|n| n * n).collect()
}

fn cubes(numbers: Vec<u64>) -> Vec<u64> {
    numbers.into_iter().map(|n| n * n * n).collect()
}

fn main() -> Result<(), Error> {
    crosslane::init();
    let numbers: Vec<u64> = (2..=7).collect();

    // Both are started before either is waited for.
    let squaring = spawn(squares, numbers.clone())?;
    let cubing = spawn(cubes, numbers.clone())?;
    println!("{} and {} are at work", squaring.name(), cubing.name());
    let (squares, cubes) = (squaring.join()?, cubing.join()?);

    for ((n, square), cube) in numbers.iter().zip(&squares).zip(&cubes) {
        println!("{n}: {square}, {cube}");
    }
    assert_eq!(squares, [4, 9, 16, 25, 36, 49]);
    assert_eq!(cubes, [8, 27, 64, 125, 216, 343]);
    Ok(())
}
