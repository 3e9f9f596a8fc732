//! A lock: 10,000 bookings of four processes leave the balance as it was, and one dies in the middle of a booking.

use crosslane::{Lock, LockError, Mutex, Plain, Process, Value, spawn};

#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Account {
    euros: i64,
    bookings: u64,
}

/// The lock is around two calls, each of which is atomic, and which are not so together.
fn book_under_a_lock((balance, lock): (Value<i64>, Lock)) {
    for i in 0..2_500 {
        let _guard = lock.lock().expect("no holder of this lock dies");
        balance.set(balance.get() + if i % 2 == 0 { 1 } else { -1 });
    }
}

/// Here the value is behind its lock, and a struct.
fn book(account: Mutex<Account>) -> crosslane::Result<()> {
    for i in 0..2_500 {
        let mut account = account.lock()?;
        account.euros += if i % 2 == 0 { 1 } else { -1 };
        account.bookings += 1;
    }
    Ok(())
}

fn die_half_way(account: Mutex<Account>) {
    let mut account = account.lock().expect("nobody has died yet");
    account.euros -= 1_000_000;
    std::process::abort(); // before it is booked
}

fn main() -> crosslane::Result<()> {
    crosslane::init();
    let (balance, lock) = (Value::new(100_i64)?, Lock::new()?);
    let bookers: Result<Vec<_>, _> =
        (0..4).map(|_| spawn(book_under_a_lock, (balance.clone(), lock.clone()))).collect();
    bookers?.into_iter().try_for_each(Process::join)?;
    println!("with a lock around it: {} euros", balance.get());
    assert_eq!(balance.get(), 100);

    let account = Mutex::new(Account { euros: 100, bookings: 0 })?;
    let book = |account| book(account).expect("no holder of this lock dies");
    let bookers: Result<Vec<_>, _> = (0..4).map(|_| spawn(book, account.clone())).collect();
    bookers?.into_iter().try_for_each(Process::join)?;
    assert!(spawn(die_half_way, account.clone())?.join().is_err());
    match account.lock() {
        Err(LockError::OwnerDied(mut account)) => {
            println!("behind a lock, after a holder's death: {} euros, {} bookings", account.euros, account.bookings);
            account.euros += 1_000_000;
            account.mark_consistent();
        }
        _ => panic!("the next one to lock is told"),
    }
    assert_eq!(account.lock()?.euros, 100);
    Ok(())
}
