//! A queue of tasks that knows when all are done, although a worker is killed.
//!
//! `cargo run --example joinable_queue`

use crosslane::{JoinableQueue, Value, spawn};

/// Adds up tasks. The first worker to get the unlucky one does not survive it.
fn work((tasks, sum, unlucky): (JoinableQueue<u64>, Value<u64>, Value<u32>)) {
    for task in &tasks {
        let task = task.expect("a task");
        if task == 13 && unlucky.update(|times| std::mem::replace(times, *times + 1)).expect("a lock") == 0 {
            std::process::abort();
        }
        sum.update(|sum| *sum += task).expect("a lock");
        tasks.task_done().expect("a task that was got");
    }
}

fn main() -> crosslane::Result<()> {
    crosslane::init();
    let tasks = JoinableQueue::bounded(64)?;
    let (sum, unlucky) = (Value::new(0_u64)?, Value::new(0_u32)?);
    for task in 1..=50 {
        tasks.put(task)?;
    }

    let work_with = || spawn(work, (tasks.clone(), sum.clone(), unlucky.clone()));
    let workers = [work_with()?, work_with()?];
    // Waits for every task, also for the one that a worker took along when it died: another one gets it.
    tasks.join()?;
    println!("all done: {}", sum.get());
    assert_eq!(sum.get(), 1275);

    tasks.close();
    let died = workers.map(|worker| worker.join().is_err()).into_iter().filter(|died| *died).count();
    println!("workers that died: {died}");
    assert_eq!(died, 1);
    Ok(())
}
