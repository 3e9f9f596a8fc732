//! spsc rings for one measurement.

use crosslane_core::spsc::{Consumer, Producer, Ring};
use crosslane_core::{Plain, WakeMode};

use crate::shared::{Env, Memory};

/// The memory of a ring, and the ring in it.
pub struct Home<T> {
    memory: Memory,
    slots: u32,
    mode: WakeMode,
    items: std::marker::PhantomData<fn(T) -> T>,
}

impl<T: Plain> Home<T> {
    pub fn new(slots: u32, mode: WakeMode) -> Self {
        let memory = Memory::new(Ring::<T>::layout(slots).expect("a capacity that fits").size());
        // SAFETY: mapped while the home lives, and used only through the rings of this type.
        unsafe { Ring::<T>::init(memory.start(), memory.len_bytes(), slots, mode) }.expect("memory of its size");
        Self { memory, slots, mode, items: std::marker::PhantomData }
    }

    fn ring(&self) -> Ring<'_, T> {
        let (start, len_bytes) = (self.memory.start(), self.memory.len_bytes());
        // SAFETY: as in `new`.
        unsafe { Ring::attach(start, len_bytes, self.slots, self.mode) }.expect("memory of its size")
    }

    pub fn producer(&self, env: Env) -> Producer<'_, T, Env> {
        self.ring().producer(env).expect("a free end")
    }

    pub fn consumer(&self, env: Env) -> Consumer<'_, T, Env> {
        self.ring().consumer(env).expect("a free end")
    }
}
