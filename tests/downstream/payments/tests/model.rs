//! Every interleaving, with the reader killed before each of its accesses. Run with
//! `RUSTFLAGS="--cfg crosslane_loom" cargo test --release`.
#![cfg(crosslane_loom)]

use crosslane_core::WakeMode;
use crosslane_core::model::{Arc, Memory, Peers, Process, check_deaths, thread, until_killed};
use crosslane_core::record::Ring;
use payments::{Account, Payment, settle};

#[test]
fn a_killed_reader_and_its_successor_book_each_payment_once() {
    check_deaths("payments", Some(2), 8, 500, |death| {
        let memory = Memory::new(Ring::layout(64).unwrap().size());
        // SAFETY: aligned, as long as said, used for nothing but the ring, and freed last: it was made first.
        let ring = unsafe { Ring::init(memory.ptr(), memory.len_bytes(), 64, WakeMode::Polling) }.unwrap();
        let peers = Peers::new(3);
        let account = Arc::new(Account::default());
        let mut writer = ring.writer(Process::new(&peers, 0)).unwrap();
        writer.try_push(&Payment { number: 1, cents: 100 }.to_bytes()).unwrap();

        let victim = {
            let (peers, account) = (peers.clone(), account.clone());
            thread::spawn(move || {
                let _ = until_killed(death, || {
                    let mut reader = ring.reader(Process::new(&peers, 1)).unwrap();
                    while settle(&mut reader, &account).is_ok() {}
                    // Not closed: the writer goes on.
                    std::mem::forget(reader);
                });
                peers.kill(Process::new(&peers, 1).id());
            })
        };
        writer.try_push(&Payment { number: 2, cents: 10 }.to_bytes()).unwrap();
        victim.join().unwrap();

        let mut successor = ring.reader(Process::new(&peers, 2)).unwrap();
        writer.try_push(&Payment { number: 3, cents: 1 }.to_bytes()).unwrap();
        while settle(&mut successor, &account).is_ok() {}
        assert_eq!(account.cents(), 111);
    });
}
