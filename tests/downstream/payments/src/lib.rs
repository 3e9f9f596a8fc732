//! Books payments exactly once, though the ring delivers *at least* once when a reader is killed.
//!
//! A payment has a number, one more than the payment before. The account holds, in one word, its balance and the number
//! of the last payment in it, so one store books a payment and says that it is booked. A reader books a payment
//! before it releases it; a successor gets what its predecessor had not released, and skips what is booked.
#![no_std]
#![forbid(unsafe_code)]

use crosslane_core::prim::{AtomicU64, Ordering};
use crosslane_core::record::{PopError, Reader};
use crosslane_core::{Liveness, Wait};

/// Number and amount, as they travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// From 1, without gaps.
    pub number: u32,
    /// In cents.
    pub cents: u32,
}

impl Payment {
    /// The record of this payment.
    pub fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.number) << 32 | u64::from(self.cents)).to_le_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let word = u64::from_le_bytes(bytes);
        Self { number: (word >> 32) as u32, cents: word as u32 }
    }
}

/// A balance in shared memory. Written by whoever holds the ring's reading end, and by nobody else.
#[derive(Debug, Default)]
pub struct Account(AtomicU64);

impl Account {
    /// Books `payment` unless it is booked already.
    fn book(&self, payment: Payment) {
        // ORDERING: Relaxed, both. Only the holder of the reading end comes here, and the end's handing over orders
        // holders; a kill leaves the old word or the new one.
        let word = self.0.load(Ordering::Relaxed);
        if payment.number > (word >> 32) as u32 {
            let cents = (word as u32).wrapping_add(payment.cents);
            self.0.store(u64::from(payment.number) << 32 | u64::from(cents), Ordering::Relaxed);
        }
    }

    /// The sum of what is booked, in cents.
    pub fn cents(&self) -> u32 {
        // ORDERING: Relaxed. A value of some moment.
        self.0.load(Ordering::Relaxed) as u32
    }
}

/// Takes the next payment from the ring and books it. Does not block.
///
/// # Errors
/// Those of [`Reader::try_read`].
///
/// # Crash
/// A process killed inside has booked the payment once, or its successor does.
pub fn settle<E: Wait + Liveness>(reader: &mut Reader<'_, E>, account: &Account) -> Result<(), PopError> {
    let record = reader.try_read()?;
    let mut bytes = [0; 8];
    if record.len_bytes() == bytes.len() {
        record.copy_to(0, &mut bytes);
    }
    if cfg!(feature = "planted") {
        // Killed in between, the payment is lost.
        record.release();
        account.book(Payment::from_bytes(bytes));
    } else {
        account.book(Payment::from_bytes(bytes));
        record.release();
    }
    Ok(())
}
