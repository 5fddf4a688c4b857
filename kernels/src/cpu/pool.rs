//! Threads that wait for short work: a decode step hands out dozens of pieces of a few microseconds each.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::subnormals::Flushed;

/// How long an idle thread looks for work before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// A fixed number of threads, the calling one included. In what they are given to do subnormal numbers are zero
/// ([`Flushed`]).
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a job runs: jobs of one pool do not overlap.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    /// Number of the job.
    epoch: AtomicU64,
    /// The job of this epoch.
    job: AtomicPtr<Job<'static>>,
    /// Workers that have not finished this epoch's job.
    running: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

impl Pool {
    /// A pool of `threads` threads, at least 1; the calling thread is one of them.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            running: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..threads.max(1))
            .map(|index| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || work(&shared, index))
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(thread)` once on every thread, thread 0 being the caller, and returns when all are done.
    ///
    /// # Panics
    /// When `f` panicked on any thread. `f` must not call `run` of the same pool.
    pub fn run(&self, f: impl Fn(usize) + Sync) {
        let _flushed = Flushed::begin();
        if self.workers.is_empty() {
            return f(0);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let job: Job<'_> = &f;
        self.shared.running.store(self.workers.len(), Ordering::Relaxed);
        self.shared.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        let own = catch_unwind(AssertUnwindSafe(|| f(0)));
        // `job` and `f` must outlive every worker's use of them, so this waits whatever happened above.
        let mut spins = 0_u32;
        while self.shared.running.load(Ordering::Acquire) != 0 {
            wait(&mut spins);
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(
            !self.shared.panicked.swap(false, Ordering::Relaxed),
            "a thread of the pool panicked"
        );
    }

    /// Calls `f(i)` for every i below `n`, each thread taking the next when it is free.
    pub fn for_each(&self, n: usize, f: impl Fn(usize) + Sync) {
        if n <= 1 || self.workers.is_empty() {
            let _flushed = Flushed::begin();
            return (0..n).for_each(f);
        }
        let next = AtomicUsize::new(0);
        self.run(|_| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    return;
                }
                f(i);
            }
        });
    }

    /// Calls `f(i, chunk)` for every chunk of `length` elements, the last one possibly shorter.
    pub fn chunks_mut(
        &self,
        slice: &mut [f32],
        length: usize,
        f: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let total = slice.len();
        let shared = SharedMut::new(slice);
        self.for_each(total.div_ceil(length.max(1)), |i| {
            let from = i * length;
            // SAFETY: each i is handed out once, and the chunks of different i do not overlap.
            f(i, unsafe { shared.part(from, length.min(total - from)) });
        });
    }

    /// Calls `f` on every item, each thread taking the next when it is free.
    pub fn each_mut<T: Send>(&self, items: &mut [T], f: impl Fn(&mut T) + Sync) {
        let n = items.len();
        let shared = SharedMut::new(items);
        // SAFETY: each i is handed out once.
        self.for_each(n, |i| f(unsafe { &mut shared.part(i, 1)[0] }));
    }

    /// Calls `f(i, a_chunk, b_chunk)` for i below `n`: `a` and `b` cut into `n` equal chunks each.
    pub fn pairs_mut(
        &self,
        n: usize,
        a: &mut [f32],
        b: &mut [f32],
        f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let lengths = (a.len() / n.max(1), b.len() / n.max(1));
        self.chunk_pairs_mut(n, lengths, a, b, f);
    }

    /// Calls `f(i, a_chunk, b_chunk)` for i below `n`: `a` and `b` cut into chunks of these lengths, the last ones
    /// possibly shorter.
    pub fn chunk_pairs_mut(
        &self,
        n: usize,
        (a_length, b_length): (usize, usize),
        a: &mut [f32],
        b: &mut [f32],
        f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let (a_all, b_all) = (a.len(), b.len());
        let (a, b) = (SharedMut::new(a), SharedMut::new(b));
        let from = |i: usize, length: usize, all: usize| {
            let from = (i * length).min(all);
            (from, length.min(all - from))
        };
        self.for_each(n, |i| {
            let (a_from, a_len) = from(i, a_length, a_all);
            let (b_from, b_len) = from(i, b_length, b_all);
            // SAFETY: each i is handed out once, and the chunks of different i do not overlap.
            let (a, b) = unsafe { (a.part(a_from, a_len), b.part(b_from, b_len)) };
            f(i, a, b);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its jobs, so there is nothing to learn from how it ended.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let _flushed = Flushed::begin();
    let mut seen = 0;
    let mut idle_since = Instant::now();
    let mut spins = 0_u32;
    loop {
        let epoch = shared.epoch.load(Ordering::Acquire);
        if epoch == seen {
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            if spins % 64 == 63 && idle_since.elapsed() > SPIN {
                // An unpark between the load above and this call makes it return at once.
                thread::park();
            }
            wait(&mut spins);
            continue;
        }
        seen = epoch;
        // SAFETY: `run` published a pointer to its job before the epoch, and does not return, nor publish another,
        // before `running` is 0; this worker has not counted down yet.
        let job: Job<'_> = unsafe { *shared.job.load(Ordering::Relaxed) };
        if catch_unwind(AssertUnwindSafe(|| job(index))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.running.fetch_sub(1, Ordering::Release);
        idle_since = Instant::now();
        spins = 0;
    }
}

/// Spins, and lets others run now and then: with more threads than free cores the awaited one may be off its core.
fn wait(spins: &mut u32) {
    *spins = spins.wrapping_add(1);
    if spins.is_multiple_of(512) {
        thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// A slice that threads write in places that do not overlap.
#[derive(Debug)]
pub struct SharedMut<'a, T = f32> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a borrowed `&mut [T]` of things that may be sent to other threads; whoever writes through it promises
// that places do not overlap.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Borrows a slice for writing by several threads.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// The first element.
    pub fn as_ptr(&self) -> *mut T {
        self.start
    }

    /// `len` elements from `from`.
    ///
    /// # Safety
    /// No other part that is alive overlaps this one.
    #[expect(clippy::mut_from_ref, reason = "parts do not overlap: the caller's promise")]
    pub unsafe fn part(&self, from: usize, len: usize) -> &mut [T] {
        assert!(
            from <= self.len && len <= self.len - from,
            "part {from}+{len} of a slice of {}",
            self.len
        );
        // SAFETY: inside the borrowed slice; the caller promises that no other live part overlaps.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}
