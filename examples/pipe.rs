//! A pipe: questions and answers, an end that travels, a file inside a message, and the end of it all.
//!
//! `cargo run --example pipe`

use std::io::{Read, Seek, Write};

use crosslane::{Connection, Descriptor, Error, pipe, spawn, wait};

fn answer(mut questions: Connection<String, u64>) {
    while let Ok(n) = questions.recv() {
        questions.send(&format!("{n} squared is {}", n * n)).expect("somebody reads");
    }
}

/// Gets a file through its pipe, writes into it, and says so.
fn write(mut files: Connection<usize, Descriptor>) {
    let mut file = std::fs::File::from(files.recv().expect("a file").0);
    let written = file.write(b"from another process").expect("a writable file");
    files.send(&written).expect("somebody reads");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    crosslane::init();

    let (mut ours, theirs) = pipe::<u64, String>()?;
    let child = spawn(answer, theirs)?;
    for n in [3, 12] {
        ours.send(&n)?;
        let said = ours.recv()?;
        println!("{said}");
        assert_eq!(said, format!("{n} squared is {}", n * n));
    }
    // Our end is gone: the other side sees the end of its messages, and ends.
    drop(ours);
    child.join()?;

    let (mut ours, theirs) = pipe::<Descriptor, usize>()?;
    let child = spawn(write, theirs)?;
    let path = std::env::temp_dir().join(format!("crosslane-example-{}", std::process::id()));
    let mut file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(path)?;
    ours.send(&Descriptor(file.try_clone()?.into()))?;
    // Ready is what has a message, or has ended.
    while !wait(&[&ours, &child.sentinel()], None)?.contains(&0) {}
    assert_eq!(ours.recv()?, 20);
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    println!("the file says: {text}");
    assert_eq!(text, "from another process");
    assert!(matches!(ours.recv(), Err(Error::Closed)));
    child.join()?;
    Ok(())
}
