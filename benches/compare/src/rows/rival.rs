//! Other crates' ways from one side to another, for numbers, behind one trait.

use std::io::{Read, Write};
use std::mem::size_of_val;
use std::os::fd::AsFd;
use std::sync::Mutex;

use iceoryx2::prelude::{BackpressureStrategy, NodeBuilder, ipc};
use ringbuf::traits::{Consumer, Producer, Split};

use crate::scratch::{Scratch, unique};
use crate::sides::{Kind, race, spin};

/// A way for `u64` in one direction.
pub trait Rival {
    /// Whether its sides can be processes; else threads.
    const KIND: Kind;
    type Sender;
    type Receiver;
    /// Made before the sides are born.
    fn new(slots: u32) -> Self;
    /// Called once, by the side that sends, before the clock starts.
    fn sender(&self) -> Self::Sender;
    /// Called once, by the side that receives, before the clock starts.
    fn receiver(&self) -> Self::Receiver;
    /// `None`: no room.
    fn push(to: &mut Self::Sender, number: u64) -> Option<()>;
    /// `None`: nothing there.
    fn pop(from: &mut Self::Receiver) -> Option<u64>;
}

/// `numbers` from the left side to the right one.
pub fn one_way<R: Rival + Sync>(slots: u32, numbers: u64) -> f64 {
    let way = R::new(slots);
    race(
        R::KIND,
        |start| {
            let mut to = way.sender();
            start.go();
            for i in 0..numbers {
                spin(|| R::push(&mut to, i));
            }
        },
        |start| {
            let mut from = way.receiver();
            start.go();
            for i in 0..numbers {
                assert_eq!(spin(|| R::pop(&mut from)), i);
            }
        },
    )
}

/// A number there and back, `trips` times.
pub fn round_trip<R: Rival + Sync>(slots: u32, trips: u64) -> f64 {
    let (there, back) = (R::new(slots), R::new(slots));
    race(
        R::KIND,
        |start| {
            let (mut to, mut from) = (there.sender(), back.receiver());
            start.go();
            for i in 0..trips {
                spin(|| R::push(&mut to, i));
                assert_eq!(spin(|| R::pop(&mut from)), i);
            }
        },
        |start| {
            let (mut from, mut to) = (there.receiver(), back.sender());
            start.go();
            for _ in 0..trips {
                let number = spin(|| R::pop(&mut from));
                spin(|| R::push(&mut to, number));
            }
        },
    )
}

/// An end that its side takes.
struct End<T>(Mutex<Option<T>>);

impl<T> End<T> {
    fn new(end: T) -> Self {
        Self(Mutex::new(Some(end)))
    }

    fn take(&self) -> T {
        self.0.lock().expect("nobody panics with it").take().expect("taken once")
    }
}

pub struct Ringbuf(End<ringbuf::HeapProd<u64>>, End<ringbuf::HeapCons<u64>>);

impl Rival for Ringbuf {
    const KIND: Kind = Kind::Threads;
    type Sender = ringbuf::HeapProd<u64>;
    type Receiver = ringbuf::HeapCons<u64>;

    fn new(slots: u32) -> Self {
        let (to, from) = ringbuf::HeapRb::new(slots as usize).split();
        Self(End::new(to), End::new(from))
    }

    fn sender(&self) -> Self::Sender {
        self.0.take()
    }

    fn receiver(&self) -> Self::Receiver {
        self.1.take()
    }

    #[inline(always)]
    fn push(to: &mut Self::Sender, number: u64) -> Option<()> {
        to.try_push(number).ok()
    }

    #[inline(always)]
    fn pop(from: &mut Self::Receiver) -> Option<u64> {
        from.try_pop()
    }
}

/// Its ring without its eventfds, which it would write to at each change from empty.
pub struct ShmemIpc {
    sender: End<shmem_ipc::sharedring::Sender<u64>>,
    receiver: End<shmem_ipc::sharedring::Receiver<u64>>,
}

impl Rival for ShmemIpc {
    const KIND: Kind = Kind::Processes;
    type Sender = shmem_ipc::sharedring::Sender<u64>;
    type Receiver = shmem_ipc::sharedring::Receiver<u64>;

    fn new(slots: u32) -> Self {
        let sender = Self::Sender::new(slots as usize).expect("memory for a ring");
        let again = |file: &std::fs::File| file.as_fd().try_clone_to_owned().expect("a file descriptor").into();
        let (memory, empty, full) =
            (again(sender.memfd().as_file()), again(sender.empty_signal()), again(sender.full_signal()));
        let receiver = Self::Receiver::open(slots as usize, memory, empty, full).expect("the ring");
        Self { sender: End::new(sender), receiver: End::new(receiver) }
    }

    fn sender(&self) -> Self::Sender {
        self.sender.take()
    }

    fn receiver(&self) -> Self::Receiver {
        self.receiver.take()
    }

    #[inline(always)]
    fn push(to: &mut Self::Sender, number: u64) -> Option<()> {
        let mut pushed = None;
        let write = |place: *mut u64, _| {
            // SAFETY: room for at least one, as its contract says.
            unsafe { place.write(number) };
            pushed = Some(());
            1
        };
        to.sender_mut().send(write).expect("a ring");
        pushed
    }

    #[inline(always)]
    fn pop(from: &mut Self::Receiver) -> Option<u64> {
        let mut popped = None;
        let read = |place: *const u64, _| {
            // SAFETY: at least one item, as its contract says.
            popped = Some(unsafe { place.read() });
            1
        };
        from.receiver_mut().recv(read).expect("a ring");
        popped
    }
}

/// Publish and subscribe, which loses nothing when told to retry.
pub struct Iceoryx2<T = u64> {
    service: String,
    slots: u32,
    item: std::marker::PhantomData<fn(T) -> T>,
}

/// A node whose files begin with [`scratch::prefix`](crate::scratch::prefix): a killed or forked one leaves some behind.
pub fn ice_node() -> iceoryx2::node::Node<ipc::Service> {
    use iceoryx2::prelude::{Config, FileName, LogLevel, SemanticString, set_log_level};
    set_log_level(LogLevel::Fatal);
    let mut config = Config::default();
    config.global.prefix = FileName::new(crate::scratch::prefix().as_bytes()).expect("a short name");
    NodeBuilder::new().config(&config).create::<ipc::Service>().expect("a node")
}

type IceService<T> = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, T, ()>;
pub type IceSender<T> = iceoryx2::port::publisher::Publisher<ipc::Service, T, ()>;
pub type IceReceiver<T> = iceoryx2::port::subscriber::Subscriber<ipc::Service, T, ()>;

impl<T: iceoryx2::prelude::ZeroCopySend + std::fmt::Debug + 'static> Iceoryx2<T> {
    pub fn make(slots: u32) -> Self {
        Self { service: unique("compare"), slots, item: std::marker::PhantomData }
    }

    /// In the side's own process.
    fn open(&self) -> IceService<T> {
        let node = ice_node();
        let name = self.service.as_str().try_into().expect("a name");
        let builder = node.service_builder(&name).publish_subscribe::<T>();
        let builder = builder.enable_safe_overflow(false).subscriber_max_buffer_size(self.slots as usize);
        builder.max_publishers(1).max_subscribers(1).open_or_create().expect("a service")
    }

    pub fn ice_sender(&self) -> IceSender<T> {
        let service = self.open();
        let builder = service.publisher_builder();
        builder.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered).create().expect("a publisher")
    }

    pub fn ice_receiver(&self) -> IceReceiver<T> {
        self.open().subscriber_builder().buffer_size(self.slots as usize).create().expect("a subscriber")
    }
}

impl Rival for Iceoryx2 {
    const KIND: Kind = Kind::Processes;
    type Sender = IceSender<u64>;
    type Receiver = IceReceiver<u64>;

    fn new(slots: u32) -> Self {
        Self::make(slots)
    }

    fn sender(&self) -> Self::Sender {
        self.ice_sender()
    }

    fn receiver(&self) -> Self::Receiver {
        self.ice_receiver()
    }

    fn push(to: &mut Self::Sender, number: u64) -> Option<()> {
        let sample = to.loan_uninit().ok()?;
        sample.write_payload(number).send().ok().map(|_| ())
    }

    fn pop(from: &mut Self::Receiver) -> Option<u64> {
        from.receive().expect("a connection").map(|sample| *sample)
    }
}

/// Over sockets; it serialises, and blocks.
pub struct IpcChannel(End<ipc_channel::ipc::IpcSender<u64>>, End<ipc_channel::ipc::IpcReceiver<u64>>);

impl Rival for IpcChannel {
    const KIND: Kind = Kind::Processes;
    type Sender = ipc_channel::ipc::IpcSender<u64>;
    type Receiver = ipc_channel::ipc::IpcReceiver<u64>;

    fn new(_: u32) -> Self {
        let (to, from) = ipc_channel::ipc::channel().expect("a channel");
        Self(End::new(to), End::new(from))
    }

    fn sender(&self) -> Self::Sender {
        self.0.take()
    }

    fn receiver(&self) -> Self::Receiver {
        self.1.take()
    }

    fn push(to: &mut Self::Sender, number: u64) -> Option<()> {
        to.send(number).ok()
    }

    fn pop(from: &mut Self::Receiver) -> Option<u64> {
        from.recv().ok()
    }
}

/// Its unnamed pipes: the kernel's, which block.
pub struct Interprocess(End<interprocess::unnamed_pipe::Sender>, End<interprocess::unnamed_pipe::Recver>);

impl Rival for Interprocess {
    const KIND: Kind = Kind::Processes;
    type Sender = interprocess::unnamed_pipe::Sender;
    type Receiver = interprocess::unnamed_pipe::Recver;

    fn new(_: u32) -> Self {
        let (to, from) = interprocess::unnamed_pipe::pipe().expect("a pipe");
        Self(End::new(to), End::new(from))
    }

    fn sender(&self) -> Self::Sender {
        self.0.take()
    }

    fn receiver(&self) -> Self::Receiver {
        self.1.take()
    }

    fn push(to: &mut Self::Sender, number: u64) -> Option<()> {
        to.write_all(&number.to_ne_bytes()).ok()
    }

    fn pop(from: &mut Self::Receiver) -> Option<u64> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes).ok().map(|()| u64::from_ne_bytes(bytes))
    }
}

/// Messages of 8 bytes.
pub struct Cloudtoid {
    _scratch: Scratch,
    options: cloudtoid_interprocess::Options,
}

impl Rival for Cloudtoid {
    const KIND: Kind = Kind::Processes;
    type Sender = cloudtoid_interprocess::Publisher;
    type Receiver = cloudtoid_interprocess::Subscriber;

    /// A message takes 8 bytes more than its own, rounded up to 8.
    fn new(slots: u32) -> Self {
        let scratch = Scratch::new();
        let options = scratch.cloudtoid(slots as usize * 2 * size_of_val(&0_u64));
        Self { _scratch: scratch, options }
    }

    fn sender(&self) -> Self::Sender {
        Self::Sender::open(&self.options).expect("a queue")
    }

    fn receiver(&self) -> Self::Receiver {
        Self::Receiver::open(&self.options).expect("a queue")
    }

    fn push(to: &mut Self::Sender, number: u64) -> Option<()> {
        to.try_send(&number.to_ne_bytes()).ok()
    }

    fn pop(from: &mut Self::Receiver) -> Option<u64> {
        let mut bytes = [0; 8];
        from.try_recv_into(&mut bytes).expect("a queue").map(|_| u64::from_ne_bytes(bytes))
    }
}
