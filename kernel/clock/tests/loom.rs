//! The seqlock in every order that the memory model allows, reader and writer:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p gnomon-clock --test loom`.
#![expect(unexpected_cfgs, reason = "loom is asked for on the command line")]
#![cfg(loom)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

#[expect(unreachable_pub, reason = "reachable in the library")]
#[path = "../src/seqlock.rs"]
mod seqlock;

use core::convert::Infallible;

use loom::sync::Arc;
use loom::thread;

use atomic::Ordering::Relaxed;
use atomic::{AtomicU32, AtomicU64};

/// A page of two fields: update n makes both n. And a counter, which is n from the middle of that update on.
struct Page {
    count: AtomicU32,
    fields: [AtomicU64; 2],
    counter: AtomicU64,
}

impl Page {
    fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            fields: [AtomicU64::new(0), AtomicU64::new(0)],
            counter: AtomicU64::new(0),
        }
    }

    fn look(&self) -> Result<(u32, [u64; 2]), seqlock::Busy> {
        let [first, second] = &self.fields;
        seqlock::look(
            || u32::from_le(self.count.load(Relaxed)),
            || [first.load(Relaxed), second.load(Relaxed)],
        )
    }

    /// The counter, if the page is then still what a look has given.
    fn look_again(&self, count: u32, fields: [u64; 2]) -> Option<u64> {
        let is_same = || {
            let [first, second] = &self.fields;
            [first.load(Relaxed), second.load(Relaxed)] == fields
                && u32::from_le(self.count.load(Relaxed)) == count
        };
        seqlock::look_again(|| Some(self.counter.load(Relaxed)), is_same)
    }

    fn publish(&self, count: &mut u32) {
        let update = u64::from(*count / 2 + 1);
        let Ok(_) = seqlock::update(
            count,
            &mut &*self,
            |page, count| {
                page.count.store(count.to_le(), Relaxed);
                Ok::<(), Infallible>(())
            },
            |page| {
                let [first, second] = &page.fields;
                first.store(update, Relaxed);
                page.counter.store(update, Relaxed);
                second.store(update, Relaxed);
                Ok(())
            },
        );
    }
}

/// All orders with up to three preemptions, or as many as `LOOM_MAX_PREEMPTIONS` says.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// A thread that publishes twice.
fn two_updates(page: &Arc<Page>) -> thread::JoinHandle<()> {
    let page = Arc::clone(page);
    thread::spawn(move || {
        let mut count = 0;
        page.publish(&mut count);
        page.publish(&mut count);
    })
}

/// Two updates, and two looks in another thread: each fails or is of one update, the one that its
/// count says, and the second is not of an earlier one than the first.
#[test]
fn no_order_gives_a_mixture() {
    check(|| {
        let page = Arc::new(Page::new());
        let writer = two_updates(&page);
        let mut last = 0;
        for _ in 0..2 {
            if let Ok((count, fields)) = page.look() {
                let update = u64::from(count / 2);
                assert_eq!(fields, [update; 2], "a mixture at count {count}");
                assert!(count >= last, "an older page came back");
                last = count;
            }
        }
        writer.join().expect("ends");
        assert_eq!(page.look(), Ok((4, [2, 2])), "what was published is seen");
    });
}

/// One look, and another one that finds the same: the counter is not from after that page, nor from the middle
/// of the next update, nor from before.
#[test]
fn no_order_gives_the_counter_of_another_page() {
    check(|| {
        let page = Arc::new(Page::new());
        let writer = two_updates(&page);
        if let Ok((count, fields)) = page.look()
            && let Some(counter) = page.look_again(count, fields)
        {
            assert_eq!(counter, u64::from(count / 2), "the counter of another page");
        }
        writer.join().expect("ends");
        assert_eq!(page.look_again(4, [2, 2]), Some(2), "nothing has changed");
        assert_eq!(page.look_again(2, [1, 1]), None, "it has changed");
    });
}

/// A writer that died in the middle, and another one that goes on from its odd count.
#[test]
fn an_update_after_one_that_was_not_finished_is_no_mixture() {
    check(|| {
        let page = Arc::new(Page::new());
        page.count.store(1_u32.to_le(), Relaxed);
        page.fields[0].store(1, Relaxed);
        let writer = thread::spawn({
            let page = Arc::clone(&page);
            move || page.publish(&mut 1)
        });
        if let Ok((count, fields)) = page.look() {
            assert_eq!((count, fields), (4, [1, 1]));
        }
        writer.join().expect("ends");
        assert_eq!(page.look(), Ok((4, [1, 1])));
    });
}
