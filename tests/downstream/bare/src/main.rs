//! A ring between two contexts of one program, without std and without an allocator: exits with 0 if all went well.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use core::ptr::NonNull;

use crosslane_core::spsc::{PopError, PushError, Ring};
use crosslane_core::wait::Spin;
use crosslane_core::{OwnerId, WakeMode};

const SLOTS: u32 = 4;

/// Room for the ring, aligned as it must be.
#[repr(C, align(128))]
struct Memory([u8; 1024]);

fn run() -> Option<u32> {
    let mut memory = Memory([0; 1024]);
    let len = size_of_val(&memory.0);
    let start = NonNull::from(&mut memory).cast();
    // SAFETY: aligned, as long as said, and used for nothing but the ring while that is in use.
    let ring = unsafe { Ring::<u32>::init(start, len, SLOTS, WakeMode::Polling) }.ok()?;
    let mut producer = ring.producer(Spin::new(OwnerId::new(0, 1)?)).ok()?;
    let mut consumer = ring.consumer(Spin::new(OwnerId::new(1, 1)?)).ok()?;
    for n in 0..SLOTS {
        producer.try_push(n).ok()?;
    }
    if producer.try_push(9) != Err(PushError::Full) {
        return None;
    }
    let mut sum = 0;
    while let Ok(n) = consumer.try_pop() {
        sum += n;
    }
    drop(producer);
    (consumer.try_pop() == Err(PopError::Closed)).then_some(sum)
}

/// Called by the C library's start-up code.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    if run() == Some(6) { 0 } else { 1 }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// The prebuilt libcore names it; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
