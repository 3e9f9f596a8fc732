//! What users of crosslane-shm make, for one measurement: anonymous segments, which a `fork()` child joins anew.

use crosslane_core::{Plain, Trusted, WakeMode};
use crosslane_shm::{Options, Queue, Record, Spsc, record, spsc};

fn options(mode: WakeMode) -> Options {
    Options::new().wake_mode(mode).prefault(true)
}

/// An spsc ring; both sides claim their ends from it.
pub struct Home<T>(Spsc<T, Trusted>);

impl<T: Plain> Home<T> {
    pub fn new(slots: u32, mode: WakeMode) -> Self {
        Self(Spsc::anonymous(slots, &options(mode)).expect("memory for a ring"))
    }

    /// The ring as the calling process has it, which may be a `fork()` child.
    pub fn here(&self) -> Spsc<T, Trusted> {
        self.0.rejoin().expect("room for a participant")
    }

    pub fn producer(&self) -> spsc::Producer<T, Trusted> {
        self.here().producer().expect("a free end")
    }

    pub fn consumer(&self) -> spsc::Consumer<T, Trusted> {
        self.here().consumer().expect("a free end")
    }
}

/// A ring of records.
pub struct RecordHome(Record<Trusted>);

impl RecordHome {
    pub fn new(bytes: u32) -> Self {
        Self(Record::anonymous(bytes, &options(WakeMode::Polling)).expect("memory for a ring"))
    }

    pub fn writer(&self) -> record::Writer<Trusted> {
        self.0.rejoin().expect("room for a participant").writer().expect("a free end")
    }

    pub fn reader(&self) -> record::Reader<Trusted> {
        self.0.rejoin().expect("room for a participant").reader().expect("a free end")
    }
}

/// A queue of many producers and consumers.
pub struct QueueHome<T: Plain>(Queue<T, Trusted>);

impl<T: Plain> QueueHome<T> {
    pub fn new(slots: u32, mode: WakeMode) -> Self {
        Self(Queue::anonymous(slots, &options(mode)).expect("memory for a queue"))
    }

    /// The queue as the calling process has it, which may be a `fork()` child.
    pub fn here(&self) -> Queue<T, Trusted> {
        self.0.rejoin().expect("room for a participant")
    }
}
