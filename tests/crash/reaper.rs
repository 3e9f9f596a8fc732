//! The reaper dies too: whoever goes through the segments after a death is killed at every system call, and between; the
//! next one repairs what is left.

use core::time::Duration;

use crosslane_core::Trusted;
use crosslane_core::mpmc::PopError;
use crosslane_shm::{Options, Queue};
use crosslane_tests::child::{Child, End, die};
use crosslane_tests::report::Table;
use crosslane_tests::sweep::{Cut, Plan, Scene, sweep};

use crate::Wanted;

/// How long a child of the driver's may take.
const CHILD: Duration = Duration::from_secs(20);
/// Instructions between two points that are not at a system call.
const STRIDE: u64 = 151;

/// Somebody has died with an item taken from each of two queues and a slot claimed in one of them; the victim reaps.
struct Reaping {
    queues: [Queue<u64, Trusted>; 2],
    mine: Option<[Queue<u64, Trusted>; 2]>,
    /// Seeded: nobody reaps after the victim.
    is_the_last: bool,
}

impl Reaping {
    fn new(is_the_last: bool) -> Self {
        let queues = [(); 2].map(|()| Queue::anonymous(4, &Options::new()).expect("a small segment"));
        for (item, queue) in (7..).zip(&queues) {
            queue.try_push(item).expect("it is empty");
        }
        let mut predecessor = Child::fork(|| {
            for (n, queue) in queues.iter().enumerate() {
                let queue = queue.rejoin().expect("places are left");
                queue.try_take().map(core::mem::forget).expect("an item");
                if n == 0 {
                    queue.try_reserve().map(core::mem::forget).expect("a slot");
                }
                core::mem::forget(queue);
            }
            die()
        });
        assert_eq!(predecessor.wait(CHILD), Some(End::Signalled(libc::SIGKILL)), "the predecessor");
        Self { queues, mine: None, is_the_last }
    }
}

fn reap(queue: &Queue<u64, Trusted>) -> Result<(), String> {
    let domain = queue.segment().domain().ok_or("no member")?;
    domain.reap().map(|_| ()).map_err(|error| format!("reap: {error:?}"))
}

impl Scene for Reaping {
    fn prepare(&mut self) {
        self.mine = Some([0, 1].map(|which| self.queues[which].rejoin().expect("places are left")));
    }

    fn operate(&mut self) {
        let mine = self.mine.as_ref().expect("prepared");
        if let Err(why) = reap(&mine[0]) {
            panic!("{why}");
        }
    }

    fn survive(&mut self, _: bool) -> Result<(), String> {
        if !self.is_the_last {
            reap(&self.queues[0])?;
        }
        for (item, queue) in (7..).zip(&self.queues) {
            let delivery = queue.try_take().map_err(|error| format!("the item of the dead one: {error}"))?;
            if (*delivery, delivery.attempts()) != (item, 1) {
                return Err(format!("item {} after {} attempts", *delivery, delivery.attempts()));
            }
            delivery.ack();
            if queue.try_pop() != Err(PopError::Empty) {
                return Err("there is more than there was".into());
            }
            for n in 0..4 {
                queue.try_push(n).map_err(|error| format!("slot {n} is not free: {error}"))?;
            }
        }
        Ok(())
    }
}

/// The sweep, and one without a second reaper, which must be found.
pub(crate) fn run(wanted: &Wanted, table: &mut Table) {
    let plan = Plan::new("reaper", 50).cut(Cut::Edges { stride: STRIDE });
    if wanted.is(plan.name) {
        table.add(sweep(&plan, wanted.effort, || Reaping::new(false)));
    }
    let plan = Plan::new("reaper that nobody follows", 1).cut(Cut::Edges { stride: 0 }).seeded();
    if wanted.is(plan.name) {
        table.add(sweep(&plan, wanted.effort, || Reaping::new(true)));
    }
}
