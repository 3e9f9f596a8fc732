//! Numbers that tell the threads of this process apart.

use core::cell::Cell;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU32, Ordering};

std::thread_local! {
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

/// The number of the calling thread. Not reused before 2^32 threads have asked, so that what an ended thread forgot to
/// unlock does not look like another's.
#[inline]
pub(crate) fn current() -> NonZeroU32 {
    NonZeroU32::new(NUMBER.get()).unwrap_or_else(first_slow)
}

#[cold]
fn first_slow() -> NonZeroU32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    loop {
        // ORDERING: Relaxed. Only uniqueness counts.
        if let Some(number) = NonZeroU32::new(NEXT.fetch_add(1, Ordering::Relaxed)) {
            NUMBER.set(number.get());
            return number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_keeps_a_number_of_its_own() {
        let mine = current();
        let other = std::thread::spawn(|| (current(), current())).join().unwrap();
        assert_eq!(other.0, other.1);
        assert_ne!(other.0, mine);
        assert_eq!(current(), mine);
    }
}
